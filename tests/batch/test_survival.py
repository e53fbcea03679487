"""A folder of 88 files, fewer in CI: each gets its right status, and after three kills it ends with the same bytes."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest

from bundle.files import bundle_root
from tests.batch.scans import BAD, NAMES, ORIENTATIONS, good_names, write_scans

pytestmark = pytest.mark.batch

KILLS = 3
_NOT_LASTING = ("seconds", "peak_memory_mb")


class Scans(NamedTuple):
    """The folder, and the truth of the simulated lesion in it."""

    folder: Path
    truth: Path


class Run(NamedTuple):
    """An undisturbed run."""

    output: Path
    code: int
    printed: str
    seconds: float


@pytest.fixture(scope="module")
def scans(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Scans:
    folder = tmp_path_factory.mktemp("batch") / "scans"
    folder.mkdir()
    write_scans(folder, shared_data)
    return Scans(folder, folder.parent / "truth.nii.gz")


def begin(scans: Scans, output: Path) -> subprocess.Popen:
    words = [sys.executable, "-m", "scripts.segment", str(scans.folder), str(output), "--noprogress"]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, cwd=bundle_root(), stdout=pipe, stderr=subprocess.STDOUT, text=True)


def finish(process: subprocess.Popen, timeout: float) -> str:
    try:
        return process.communicate(timeout=timeout)[0]
    finally:
        process.kill()


@pytest.fixture(scope="module")
def undisturbed(scans: Scans, tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("undisturbed")
    start = time.monotonic()
    process = begin(scans, output)
    printed = finish(process, timeout=3000)
    return Run(output, process.returncode, printed, time.monotonic() - start)


def rows(output: Path, folder: Path) -> dict[str, dict[str, str]]:
    """volumes.tsv by the file's path in the folder."""
    with (output / "volumes.tsv").open(newline="", encoding="utf-8") as stream:
        return {os.path.relpath(row["file"], folder): row for row in csv.DictReader(stream, delimiter="\t")}


def mask_of(output: Path, row: dict[str, str]) -> nib.Nifti1Image:
    return nib.load(output / f"{row['name']}_space-orig_label-L_desc-lesion_mask.nii.gz")


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.logical_and(first, second).sum() / (np.count_nonzero(first) + np.count_nonzero(second))


def test_every_file_has_the_right_status(scans: Scans, undisturbed: Run) -> None:
    table = rows(undisturbed.output, scans.folder)
    good = list(good_names())
    assert undisturbed.code == 1, undisturbed.printed
    assert "Traceback" not in undisturbed.printed
    assert "pixdim" not in undisturbed.printed  # nibabel's own words
    assert len(good) == 14 + len(ORIENTATIONS)
    assert table.keys() == {*good, *(f"bad/{name}" for name in BAD)}
    assert {name for name, row in table.items() if row["status"] == "done"} == set(good)
    assert f"{len(good)} of {len(table)} volumes are segmented" in undisturbed.printed
    assert len({row["name"].casefold() for row in table.values()}) == len(table)


@pytest.mark.parametrize("name", BAD)
def test_each_bad_file_is_reported_in_a_sentence(name: str, scans: Scans, undisturbed: Run) -> None:
    row = rows(undisturbed.output, scans.folder)[f"bad/{name}"]
    assert row["status"] == "failed"
    assert BAD[name][1] in row["error"]
    assert name in row["error"]
    assert "\n" not in row["error"]
    assert row["error"] in (undisturbed.output / "segment.log").read_text(encoding="utf-8")


def test_masks_are_those_of_one_head_in_every_orientation_and_under_every_name(scans: Scans, undisturbed: Run) -> None:
    table = rows(undisturbed.output, scans.folder)
    reference = np.asarray(mask_of(undisturbed.output, table["orientations/RAS.nii.gz"]).dataobj)
    # The lesion fills much of the left hemisphere; in MNI space this head has 1.57 times its volume.
    native_ml = float(table["spacings/1_1_1.nii.gz"]["volume_ml"])
    assert native_ml > 40
    assert reference.sum() * 8 / 1000 == pytest.approx(1.57 * native_ml, rel=0.08)
    for name in (*(f"orientations/{codes}.nii.gz" for codes in ORIENTATIONS), *NAMES):
        source, mask = nib.load(scans.folder / name), mask_of(undisturbed.output, table[name])
        np.testing.assert_array_equal(mask.affine, source.affine)
        assert dice(np.asarray(nib.as_closest_canonical(mask).dataobj), reference) > 0.999, name
    left = slice(None, reference.shape[0] // 2)
    assert reference[left].sum() > 0.95 * reference.sum()


def test_masks_are_right_where_the_truth_is_known(scans: Scans, undisturbed: Run) -> None:
    table = rows(undisturbed.output, scans.folder)
    truth = np.asarray(nib.load(scans.truth).dataobj)
    assert dice(np.asarray(mask_of(undisturbed.output, table["simulated/scan.nii.gz"]).dataobj), truth) > 0.6
    for healthy in ("healthy/niivue_norm_fs.mgz", "healthy/allineate_T1w2mm.nii.gz"):
        assert float(table[healthy]["volume_ml"]) < 10


def test_a_native_head_has_one_volume_of_lesion_at_every_voxel_size(scans: Scans, undisturbed: Run) -> None:
    table = rows(undisturbed.output, scans.folder)
    volumes_ml = [float(row["volume_ml"]) for name, row in table.items() if name.startswith("spacings/")]
    assert len(volumes_ml) == 4
    assert max(volumes_ml) < 1.25 * min(volumes_ml)


def lasting(output: Path) -> dict[str, object]:
    """All files but the log and the report; tables without what differs from run to run."""
    found: dict[str, object] = {}
    for file in sorted(path for path in output.rglob("*") if path.is_file()):
        name = file.relative_to(output).as_posix()
        if file.suffix == ".tsv":
            with file.open(newline="", encoding="utf-8") as stream:
                table = csv.DictReader(stream, delimiter="\t")
                found[name] = [{k: v for k, v in row.items() if k not in _NOT_LASTING} for row in table]
        elif file.name not in ("segment.log", "report.html") and not name.startswith("records/"):
            found[name] = file.read_bytes()
    return found


def descendants(pid: int) -> list[int]:
    """The processes that a process began, and those that they began."""
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [grandchild for child in children for grandchild in descendants(child)]


def wait_for_a_record_more(output: Path, process: subprocess.Popen) -> None:
    """Where starting takes much of the time, a random moment alone may come before the first mask."""
    count = len(list((output / "records").rglob("*.json")))
    while len(list((output / "records").rglob("*.json"))) == count:
        assert process.poll() is None, "it ended without a record more"
        time.sleep(0.1)


def test_killed_at_three_random_moments_it_ends_with_the_same_bytes(
    scans: Scans, undisturbed: Run, tmp_path: Path
) -> None:
    moments = np.random.default_rng().uniform(0, 0.2, KILLS) * undisturbed.seconds
    for seconds in moments:
        process = begin(scans, tmp_path)
        wait_for_a_record_more(tmp_path, process)
        time.sleep(seconds)
        assert process.poll() is None, f"it ended within {seconds:.0f} s of a mask, before it could be killed"
        workers = descendants(process.pid)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        time.sleep(5)
        assert workers
        assert not [worker for worker in workers if Path(f"/proc/{worker}").exists()]
    process = begin(scans, tmp_path)
    printed = finish(process, timeout=3000)
    assert process.returncode == 1, printed
    ours, theirs = lasting(tmp_path), lasting(undisturbed.output)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == [], f"killed {moments} s after a mask"
    assert not [path for path in tmp_path.rglob(".*") if path.name not in (".bidsignore", ".lock-all")]
