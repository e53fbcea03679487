"""A DICOM study to a DICOM segmentation by the MONAI Deploy App SDK: ``python -m scripts.deploy STUDY OUTPUT``."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from bundle.errors import InputError
from scripts.command import run_command

__all__ = ["deploy"]


def deploy(study: str, output: str, series: str | None = None, overlays: Sequence[str] = ()) -> None:
    """Segments stroke lesions in the T1w series of a DICOM study, by the SDK's operators. Not for clinical use.

    They run the folder of the bundle that this command is in, and write OUTPUT/<SOPInstanceUID>.dcm. Which series is
    taken, and why, is told (docs/dicom.md).

    Args:
        study: a folder of DICOM files, or one of its subfolders; other files may lie beside them.
        output: the folder of the segmentation.
        series: number or SeriesInstanceUID of the series that is taken, whatever it is called.
        overlays: "[name]" takes the values of configs/name.json in place of those of configs/inference.json.
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
    for fault in faults.values():  # it could be a slice of the series
        raise InputError(fault)
    studies = {one.study_uid for one in found}
    if len(studies) != 1:
        raise InputError(f"{study} holds {len(studies)} DICOM studies: one is expected; scripts.segment takes many.")
    choice = choose_series(found, series)
    print("\n".join(choice.lines()))
    segmentation = segment_series(choice.series, target, overlays)
    print(f"Segmentation: {segmentation}\nNot for clinical use.")


if __name__ == "__main__":
    run_command(deploy)
