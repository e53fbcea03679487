"""Lesion masks, tables and a report of a batch of T1w volumes: ``python -m scripts.segment INPUT OUTPUT``."""

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
    """Segment stroke lesions in T1w volumes. Not for clinical use.

    In a DICOM study the T1w series is segmented; which one was chosen, and why, is printed and logged (docs/dicom.md).

    Each volume gets a mask on its own grid, OUTPUT/<name>_space-orig_label-L_desc-lesion_mask.nii.gz, and a picture;
    the batch gets volumes.tsv, lesions.tsv, report.html and segment.log. A volume that cannot be used is reported in
    one sentence and never stops the others. After a stop the same command continues: finished volumes are skipped,
    unless their input, the weights or the settings have changed. Exit code 0: all are segmented; 1: some failed; 2:
    nothing could be segmented.

    Args:
        source: a file (NIfTI, MGH), a folder with its subfolders, of images and DICOM studies, a BIDS dataset, a
            pattern such as 'scans/*.nii.gz', or a list of paths (.txt, or .csv or .tsv with a column "image").
        output: the folder of the results.
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
        shard: "i/n" segments the i-th of n parts of the volumes, for job arrays; all can share OUTPUT.
        workers: processes besides this one that read, register and write; by default 2, or 0 for a single volume.
        ray: "host:port" of a Ray cluster (pip install -r requirements/ray.txt) that this machine belongs to, to spread
            the volumes over its machines; OUTPUT must be in a folder that they share (docs/many_machines.md).
        progress: show a bar.
        timing: print at the end how long each step took.
        series: number or SeriesInstanceUID of the series to segment in each DICOM study, whatever its name is.
        structured_report: also write the volumes of a DICOM study's lesions as a structured report (TID 1500).
    """
    arguments = locals()
    begin = time.perf_counter()
    # The garbage collector would scan all imported objects repeatedly: a quarter of the import's time, and more than a
    # second at the end.
    gc.disable()
    from bundle.segmenter import SegmentOptions, run  # late, so that --help does not wait for torch

    gc.freeze()
    gc.enable()
    seconds = time.perf_counter() - begin if timing else None
    options = SegmentOptions.from_arguments(arguments)
    raise SystemExit(run(source, output, options, shard, workers, ray, progress, seconds))


if __name__ == "__main__":
    run_command(segment, input_error_code=2)
