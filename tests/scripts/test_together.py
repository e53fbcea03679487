"""Several programs on one folder of results, and a disk that is full: nothing lost, nothing twice, told."""

from __future__ import annotations

import csv
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from bundle.files import bundle_root, write_json
from bundle.volumes.inputs import VolumeInput
from bundle.volumes.ledger import Ledger
from bundle.volumes.output import begin_output
from tests.conftest import _textured_head

HEADS = 4
REFUSED = "is being written to by another run: wait until it ends, or give each run a shard of its own."
OTHER_SHARDS = (
    "is being written to by a run of 2 shards, which share volumes with these 3: wait until it ends, or give each run "
    "a shard of 2."
)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    for number in range(HEADS):
        image = nib.Nifti1Image(_textured_head()[:, :, 40:80].astype(np.int16) + number, np.diag([2.0, 2, 2, 1]))
        image.set_sform(image.affine, 1)
        (tmp_path / "scans").mkdir(exist_ok=True)
        nib.save(image, tmp_path / "scans" / f"head_{number}.nii.gz")
    return tmp_path / "scans"


def start(*words: object, limit: Callable[[], None] | None = None) -> subprocess.Popen:
    command = [sys.executable, "-m", "scripts.segment", *map(str, words), "--space=native", "--workers=0"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=bundle_root(), stdout=pipe, stderr=pipe, text=True, preexec_fn=limit)


def rows(output: Path) -> dict[str, str]:
    with (output / "volumes.tsv").open(newline="") as stream:
        return {row["name"]: row["status"] for row in csv.DictReader(stream, delimiter="\t")}


DONE = {f"head_{number}": "done" for number in range(HEADS)}


def leftovers(output: Path) -> list[Path]:
    return [file for file in output.rglob(".*") if not file.name.startswith(".lock-") and file.name != ".bidsignore"]


@pytest.mark.slow
def test_the_same_command_twice_is_done_once_and_the_other_is_told(scans: Path, tmp_path: Path) -> None:
    both = [start(scans, tmp_path / "out") for _ in range(2)]
    ends = [(*program.communicate(timeout=300), program.returncode) for program in both]
    assert sorted(end[2] for end in ends) == [0, 2]
    assert next(end[1] for end in ends if end[2] == 2).strip().endswith(REFUSED)
    assert rows(tmp_path / "out") == DONE
    assert not leftovers(tmp_path / "out")


@pytest.mark.slow
def test_two_shards_share_a_folder_while_someone_reads_it(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    both = [start(scans, output, f"--shard={number}/2") for number in (1, 2)]
    read = 0
    while any(program.poll() is None for program in both):
        for file in [*output.rglob("*_mask.nii.gz"), *output.rglob("records/*.json"), *output.glob("*.tsv")]:
            if file.name.startswith("."):  # unfinished, which no shell and no BIDS reader lists
                continue
            if file.suffix == ".gz":
                assert set(np.unique(np.asarray(nib.load(file).dataobj))) <= {0, 1}
            elif file.suffix == ".json":
                assert json.loads(file.read_text())["status"] == "done"
            else:
                assert file.read_text().endswith("\n")
            read += 1
        time.sleep(0.05)
    assert [program.wait() for program in both] == [0, 0]
    assert read > 0
    assert len(list((output / "records").iterdir())) == HEADS
    again = start(scans, output)
    out, _ = again.communicate(timeout=300)
    assert again.returncode == 0
    assert f"{HEADS} of {HEADS} volumes are segmented" in out
    assert rows(output) == DONE
    assert not leftovers(output)


@pytest.mark.parametrize(
    ("first", "second", "refused"),
    [
        (None, None, REFUSED),
        ("1/2", "1/2", REFUSED),
        ("1/2", "01/2", REFUSED),
        ("1/2", None, REFUSED),
        (None, "1/2", REFUSED),
        ("1/2", "1/3", OTHER_SHARDS),
        ("1/2", "2/3", OTHER_SHARDS),
        ("1/2", "2/2", ""),
        ("01/2", "2/2", ""),
    ],
)
def test_who_may_write_beside_whom(first: str | None, second: str | None, refused: str, tmp_path: Path) -> None:
    fork = get_context("fork")
    begun, told = fork.Event(), fork.Queue()

    def stay() -> None:
        begin_output(tmp_path / "out", first)
        begun.set()
        time.sleep(600)

    def come() -> None:
        try:
            begin_output(tmp_path / "out", second)
            told.put("")
        except InputError as error:
            told.put(str(error))

    def answer() -> str:
        fork.Process(target=come).start()
        return told.get(timeout=60)

    other = fork.Process(target=stay)
    other.start()
    assert begun.wait(60)
    told_first = answer()
    assert refused in told_first
    assert bool(refused) == bool(told_first)
    other.kill()
    other.join()
    assert answer() == "", "a killed program keeps nobody out"


@pytest.mark.slow
def test_a_full_disk_fails_volumes_in_a_sentence_and_the_same_command_goes_on(scans: Path, tmp_path: Path) -> None:
    """Files may have 4 KB: masks and records fit, pictures do not; the log grows over it too."""
    output = tmp_path / "out"
    program = start(scans, output, limit=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    _, error = program.communicate(timeout=300)
    assert program.returncode == 1
    assert "Traceback" not in error
    assert error.count("could not be written") >= HEADS
    assert not leftovers(output)
    assert not list(output.rglob("*_mask.nii.gz"))
    again = start(scans, output)
    assert again.wait(timeout=300) == 0
    assert rows(output) == DONE


@pytest.mark.parametrize("before", [True, False])
def test_a_disk_that_is_full_in_the_middle_of_a_record_leaves_the_earlier_one(before: bool, tmp_path: Path) -> None:
    """In a process of its own, whose files may have 300 bytes."""
    volume, ledger = VolumeInput(tmp_path / "a.nii", "a"), Ledger(tmp_path, "w", "s", "0")
    if before:
        write_json({"name": "a", "status": "done"}, ledger.path(volume))
    kept = ledger.path(volume).read_text() if before else None
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
        ledger.done(volume, {}, {"volume_ml": 1.0, "lesions": [], "file": "x" * 999})
        (record,) = ledger.records([volume])
        told = record["status"] == "failed" and "could not be written: File too large" in record["error"]
        os._exit(0 if told else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (ledger.path(volume).read_text() if ledger.path(volume).exists() else None) == kept
    assert [file.name for file in ledger.path(volume).parent.iterdir()] == (["a.json"] if before else [])


def test_a_program_may_begin_its_own_results_again(tmp_path: Path) -> None:
    for _ in range(2):
        begin_output(tmp_path / "out")
