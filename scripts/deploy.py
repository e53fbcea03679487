"""Segmentation of a DICOM study with the MONAI Deploy App SDK: ``python -m scripts.deploy STUDY OUTPUT``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bundle.errors import InputError
from scripts.command import run_command

__all__ = ["deploy"]


def deploy(study: str, output: str, series: str | None = None, overlays: Sequence[str] = ()) -> None:
    """Segment stroke lesions in the T1w series of a DICOM study with the SDK's operators. Not for clinical use.

    The operators run the bundle in the folder of this command and write OUTPUT/<SOPInstanceUID>.dcm. The series that is
    taken, and why, is printed (docs/dicom.md).

    Args:
        study: a folder with DICOM files, also in subfolders; other files are ignored.
        output: the folder of the segmentation.
        series: number or SeriesInstanceUID of the series to take, whatever it is called.
        overlays: "[name]" replaces values of configs/inference.json with those of configs/name.json.
    """
    if find_spec("monai.deploy") is None:
        raise InputError("The MONAI Deploy App SDK is not installed: pip install -r requirements/deploy.txt")
    from bundle.dicom.files import check_installed, find_dicom_files

    check_installed()
    from bundle.dicom.application import segment_series  # here, as it imports the SDK
    from bundle.dicom.selection import choose_series
    from bundle.dicom.series import read_series
    from bundle.processes import keep_to_quota

    keep_to_quota()
    target = Path(output).resolve()
    found, faults = read_series(find_dicom_files(study, target))
    if faults:  # the file may be a slice of the series
        raise InputError(next(iter(faults.values())))
    count = len({one.study_uid for one in found})
    if count != 1:
        raise InputError(f"{study} holds {count} DICOM studies: one is expected; scripts.segment takes many.")
    choice = choose_series(found, series)
    print("\n".join(choice.lines()))
    segmentation = segment_series(choice.series, target, overlays)
    print(f"Segmentation: {segmentation}\nNot for clinical use.")


if __name__ == "__main__":
    run_command(deploy)
