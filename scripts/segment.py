"""A batch of T1w volumes to lesion masks, tables and a report: ``python -m scripts.segment INPUT OUTPUT``."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from scripts.command import run_command

if TYPE_CHECKING:
    from bundle.acceleration.backends import BackendName
    from bundle.transforms.registration import OnFailure

__all__ = ["segment"]


def segment(
    source: str,
    output: str,
    threshold: float | None = None,
    smallest_lesion_ml: float = 0.025,
    probability: bool = False,
    uncertainty: bool = False,
    views: bool = False,
    tta_flips: Sequence[Sequence[int]] | None = None,
    on_failure: OnFailure = "raise",
    bias_correction: bool = False,
    regions: str | None = None,
    weights: str | None = None,
    space: str | None = None,
    amp: bool = True,
    backend: BackendName = "auto",
    shard: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
    timing: bool = False,
    series: str | None = None,
    structured_report: bool = False,
) -> None:
    """Segments stroke lesions in T1w volumes. Not for clinical use.

    Of a DICOM study the T1w series is taken; which one, and why, is told and logged (docs/dicom.md).

    Each volume gets a mask on its own grid, OUTPUT/<name>_space-orig_label-L_desc-lesion_mask.nii.gz, and a picture;
    the batch gets volumes.tsv, lesions.tsv, report.html and segment.log. A volume that cannot be used is named in one
    sentence and never stops the others. The same command goes on after a stop: what is finished is left as it is,
    unless its input, the weights or the settings have changed. Exit code 0: all segmented; 1: some failed; 2: nothing
    could be done.

    Args:
        source: a file (NIfTI, MGH), a folder with its subfolders, of images and DICOM studies, a BIDS dataset, a
            pattern such as 'scans/*.nii.gz', or a list of paths (.txt, or .csv or .tsv with a column "image").
        output: the folder of the results.
        threshold: probability from which a voxel is lesion; that of the weights unless given.
        smallest_lesion_ml: smaller lesions are left out; three voxels of the network are 0.024 mL.
        probability: write the probability of each voxel too.
        uncertainty: write the entropy of that probability too, 0 to 1 bit.
        views: write a page for each volume too, to look through it in three planes; the report links to it.
        tta_flips: "[[0]]" averages with a left-right mirrored pass; twice the time.
        on_failure: of the registration to MNI space: "raise" fails the volume, "native" segments it where it lies and
            flags it.
        bias_correction: take the scanner's bias field out first (N4), for images that are bright on one side.
        regions: a label image in MNI space, of arterial territories or lobes, to name where each lesion is.
        weights: other weights than models/model.pt.
        space: "native" for weights that were trained without registration.
        amp: bfloat16 where the processor has it.
        backend: "openvino" (pip install -r requirements/openvino.txt) is faster on a CPU than "torch"; "auto" takes it
            where it is installed. "openvino_int8" is faster still, with masks that differ a little.
        shard: "i/n" takes the i-th of n parts of the volumes, for job arrays; all may share OUTPUT.
        workers: processes beside this one that read, register and write; 2, or none for a single volume.
        ray: "host:port" of a Ray cluster (pip install -r requirements/ray.txt) that this machine belongs to, to spread
            the volumes over its machines; OUTPUT is in a folder that they share. docs/many_machines.md.
        progress: show a bar.
        timing: say at the end where the seconds went.
        series: number or SeriesInstanceUID of the series that is taken of each DICOM study, whatever it is called.
        structured_report: write the volumes of a DICOM study's lesions as a structured report (TID 1500) too.
    """
    arguments = locals()
    begin = time.perf_counter()
    # The garbage collector would search all that is imported again and again, for a quarter of the import's time, and
    # for more than a second at the end.
    gc.disable()
    from bundle.segmenter import SegmentOptions, run  # here, so that --help does not wait for torch

    gc.freeze()
    gc.enable()
    seconds = time.perf_counter() - begin if timing else None
    options = SegmentOptions.from_arguments(arguments)
    raise SystemExit(run(source, output, options, shard, workers, ray, progress, seconds))


if __name__ == "__main__":
    run_command(segment, input_error_code=2)
