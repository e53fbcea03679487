"""The options that the results of a batch depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

__all__ = ["BackendName", "OnFailure", "SegmentOptions"]

OnFailure = Literal["raise", "native"]
BackendName = Literal["auto", "torch", "openvino", "openvino_int8"]


@dataclass(frozen=True)
class SegmentOptions:
    """The options that the results of a batch depend on, and their help in the commands that have them.

    Args:
        threshold: probability from which a voxel is lesion; by default that of the weights.
        smallest_lesion_ml: smaller lesions are removed; three voxels of the network are 0.024 mL.
        probability: also write the probability of each voxel.
        uncertainty: also write the entropy of that probability, 0 to 1 bit.
        views: also write a page for each volume that shows it slice by slice in three planes, linked in the report.
        tta_flips: "[[0]]" averages with a left-right mirrored pass; twice the time.
        on_failure: if the registration to MNI space fails: "raise" fails the volume, "native" segments it without
            registration and flags it.
        bias_correction: correct the scanner's bias field first (N4), for images that are bright on one side.
        regions: a label image in MNI space, of arterial territories or lobes, to name the region of each lesion.
        weights: a file to use instead of models/model.pt.
        space: "native" for weights that were trained without registration.
        amp: bfloat16 if the processor supports it.
        backend: "openvino" (pip install -r requirements/openvino.txt) is faster on a CPU than "torch"; "auto" uses it
            if it is installed. "openvino_int8" is even faster, with slightly different masks.
        series: number or SeriesInstanceUID of the series to segment in each DICOM study, whatever its name is.
        structured_report: also write the volumes of a DICOM study's lesions as a structured report (TID 1500).
    """

    threshold: float | None = None
    smallest_lesion_ml: float = 0.025
    probability: bool = False
    uncertainty: bool = False
    views: bool = False
    tta_flips: Sequence[Sequence[int]] | None = None
    on_failure: OnFailure = "raise"
    bias_correction: bool = False
    regions: str | None = None
    weights: str | None = None
    space: str | None = None
    amp: bool = True
    backend: BackendName = "auto"
    series: str | None = None
    structured_report: bool = False

    def for_other_machines(self) -> SegmentOptions:
        """Return the options with absolute paths, which are valid in other working directories too."""
        weights, regions = (file and str(Path(file).absolute()) for file in (self.weights, self.regions))
        return replace(self, weights=weights, regions=regions)
