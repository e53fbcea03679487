"""Results are a BIDS derivative by the BIDS validator, whatever was asked for and whatever failed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.files import bundle_root
from bundle.options import SegmentOptions
from bundle.transforms import VolumePreprocessing
from bundle.volumes import VolumePipeline
from bundle.volumes.batch import VolumeBatch
from bundle.volumes.inputs import find_volumes
from bundle.volumes.ledger import Ledger
from bundle.volumes.output import begin_output, report
from tests.volumes.conftest import AFFINE, find_bright

pytestmark = pytest.mark.bids

VALIDATOR = Path(bundle_root()) / ".venv-bids" / "bin" / "bids-validator-deno"


def errors_of(folder: Path) -> list[str]:
    """The validator's errors, as code and place."""
    program = shutil.which(VALIDATOR) or shutil.which("bids-validator-deno")
    if program is None:
        pytest.fail("The BIDS validator is not installed: make test-bids installs it from PyPI.")
    words = [program, str(folder), "--format", "json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=600, check=False)
    issues = json.loads(done.stdout)["issues"]["issues"]
    found = [f"{issue['code']} {issue.get('location', '')}" for issue in issues if issue["severity"] == "error"]
    assert (done.returncode == 0) == (not found)
    return found


def results(folder: Path, head: np.ndarray, options: SegmentOptions, *names: str) -> Path:
    """The results of heads of these names, and of a file that is none."""
    head[20:30, 50:60, 55:65] = 250
    image = nib.Nifti1Image(head.astype(np.int16), AFFINE)
    image.set_sform(AFFINE, 1)
    for name in names:
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(image, folder / "in" / name)
    (folder / "in" / names[-1]).write_text("no image")
    output = folder / "out"
    begin_output(output)
    pipeline = VolumePipeline(VolumePreprocessing("image", spacing_mm=2.0, slice_size=96), output, options=options)
    volumes = find_volumes(folder / "in", output)
    batch = VolumeBatch(pipeline, find_bright, Ledger(output, "w", "s", "0"), workers=0, progress=False)
    report(batch.run(volumes), volumes, output)
    return output


BIDS = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "sub-02/ses-1/anat/sub-02_ses-1_acq-mprage_run-2_T1w.nii.gz",
    "sub-03/anat/sub-03_T1w.nii.gz",
)


@pytest.mark.parametrize(
    "options",
    [
        SegmentOptions(),
        SegmentOptions(probability=True, uncertainty=True, views=True),
        SegmentOptions(uncertainty=True),
    ],
    ids=["plain", "everything", "uncertainty"],
)
def test_results_of_a_bids_dataset_pass(options: SegmentOptions, head: np.ndarray, tmp_path: Path) -> None:
    output = results(tmp_path, head, options, *BIDS)
    assert len(list(output.rglob("*_mask.nii.gz"))) == 2
    assert errors_of(output) == []


def test_results_with_names_that_bids_does_not_have_beside_them_pass(head: np.ndarray, tmp_path: Path) -> None:
    names = (BIDS[0], "other/scan 1.nii.gz", "patient.nii.gz", "broken.nii.gz")
    assert errors_of(results(tmp_path, head, SegmentOptions(probability=True), *names)) == []


def test_a_rerun_without_the_maps_leaves_no_sidecar_without_its_file(head: np.ndarray, tmp_path: Path) -> None:
    results(tmp_path, head, SegmentOptions(probability=True), *BIDS)
    shutil.rmtree(tmp_path / "out" / "records")
    assert errors_of(results(tmp_path, head, SegmentOptions(), *BIDS)) == []


def test_the_validator_finds_what_is_wrong(head: np.ndarray, tmp_path: Path) -> None:
    output = results(tmp_path, head, SegmentOptions(), *BIDS)
    next(output.rglob("*_mask.nii.gz")).unlink()
    assert any(error.startswith("SIDECAR_WITHOUT_DATAFILE") for error in errors_of(output))
