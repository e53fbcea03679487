"""Lesion masks, tables and a report of a batch of T1w volumes: ``python -m scripts.segment INPUT OUTPUT``."""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.early_registration import EarlyRegistration
from bundle.files import IMAGE_SUFFIXES
from bundle.lean_imports import lean_imports
from bundle.options import SegmentOptions
from scripts.command import run_command, with_options

__all__ = ["segment"]


@with_options(SegmentOptions)
def segment(
    source: str,
    output: str,
    *,
    shard: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
    timing: bool = False,
    **options: Any,
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
        shard: "i/n" segments the i-th of n parts of the volumes, for job arrays; all can share OUTPUT.
        workers: processes besides this one that read, register and write; by default 2, or 0 for a single volume.
        ray: "host:port" of a Ray cluster (pip install -r requirements/ray.txt) that this machine belongs to, to spread
            the volumes over its machines; OUTPUT must be in a folder that they share (docs/many_machines.md).
        progress: show a bar.
        timing: print at the end how long each step took; a single head is registered during the imports.
    """
    begin = time.perf_counter()
    early = _begin_registration(Path(source), options)
    # The garbage collector would scan all imported objects repeatedly: a quarter of the import's time, and more than a
    # second at the end.
    gc.disable()
    with lean_imports():  # late, so that --help does not wait for torch
        from bundle.segmenter import run

    gc.freeze()
    gc.enable()
    seconds = time.perf_counter() - begin if timing else None
    raise SystemExit(run(source, output, SegmentOptions(**options), shard, workers, ray, progress, seconds, early))


def _begin_registration(source: Path, options: Mapping[str, Any]) -> EarlyRegistration | None:
    """Begin to register a single image while PyTorch and MONAI are imported; later it would gain nothing."""
    if "torch" in sys.modules or not hasattr(os, "fork"):
        return None
    plain = options.get("space") in (None, "mni") and not options.get("bias_correction")
    single = source.name.lower().endswith(IMAGE_SUFFIXES) and source.is_file()
    return EarlyRegistration(source) if plain and single else None


if __name__ == "__main__":
    run_command(segment, input_error_code=2)
