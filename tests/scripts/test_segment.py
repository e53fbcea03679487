"""The batch command as a user types it: exit codes, a kill in the middle, shards, a folder of bad files."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError
from bundle.files import bundle_root
from scripts.segment import segment as segment_here
from tests.conftest import _textured_head as synthetic_head

Segment = Callable[..., subprocess.CompletedProcess]


def command(*words: str | Path, **options: object) -> list[str]:
    asked = [f"--{name}={value}" for name, value in {"workers": 0, **options}.items()]
    return [sys.executable, "-m", "scripts.segment", *map(str, words), "--space=native", *asked]


def segment(*words: str | Path, **options: object) -> subprocess.CompletedProcess:
    """Runs it; the heads of 2 mm stand upright and are not registered."""
    return subprocess.run(
        command(*words, **options), cwd=bundle_root(), capture_output=True, text=True, timeout=600, check=False
    )


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three heads, each with a dark hole elsewhere, in two folders and with names that quote and wrap."""
    folder = tmp_path_factory.mktemp("scans")
    names = ("sub-01/anat/sub-01_T1w.nii.gz", 'o\'brien "Müller" 頭.nii', "deep/" + "n" * 200 + ".nii.gz")
    for number, name in enumerate(names):
        image = synthetic_head().copy()
        image[24:34, 40 + 4 * number : 52 + 4 * number, 55:67] = 30
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        header = nib.Nifti1Image(image[:, :, 40:80].astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0]))
        header.set_sform(header.affine, 1)
        nib.save(header, file)
    return folder


@pytest.fixture(scope="module")
def undisturbed(scans: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess, Path]:
    output = tmp_path_factory.mktemp("undisturbed")
    return segment(scans, output, probability=True), output


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream, delimiter="\t"))


def images(output: Path) -> dict[str, bytes]:
    return {str(file.relative_to(output)): file.read_bytes() for file in output.rglob("*.nii.gz")}


def lasting(table: Path) -> list[dict[str, str]]:
    """Rows without what differs from run to run."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "peak_memory_mb")} for row in rows(table)]


def test_each_volume_gets_its_mask_and_the_exit_code_is_0(
    undisturbed: tuple[subprocess.CompletedProcess, Path],
) -> None:
    done, output = undisturbed
    assert done.returncode == 0, done.stderr[-2000:]
    masks = [name for name in images(output) if name.endswith("_desc-lesion_mask.nii.gz")]
    assert len(masks) == 3
    assert "sub-01/anat/sub-01_space-orig_label-L_desc-lesion_mask.nii.gz" in masks
    assert [row["status"] for row in rows(output / "volumes.tsv")] == ["done"] * 3
    assert "3 of 3 volumes are segmented" in done.stdout
    assert (output / "report.html").read_text(encoding="utf-8").count("<img") == 3


def test_killed_in_the_middle_and_run_again_it_ends_with_the_same_bytes(
    scans: Path, undisturbed: tuple[subprocess.CompletedProcess, Path], tmp_path: Path
) -> None:
    output = tmp_path / "results"
    process = subprocess.Popen(
        command(scans, output, probability=True),
        cwd=bundle_root(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not list(output.rglob("records/**/*.json")):
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    before = {file: file.stat().st_mtime_ns for file in output.rglob("records/**/*.json")}
    assert len(before) < 3
    done = segment(scans, output, probability=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert images(output) == images(undisturbed[1])
    for table in ("volumes.tsv", "lesions.tsv"):
        assert lasting(output / table) == lasting(undisturbed[1] / table)
    assert all(file.stat().st_mtime_ns == written for file, written in before.items())
    assert {file.name for file in output.rglob(".*")} == {".bidsignore", ".lock-all"}


def test_ctrl_c_ends_it_with_a_sentence(scans: Path, tmp_path: Path) -> None:
    output = tmp_path / "results"
    process = subprocess.Popen(
        command(scans, output, probability=True, workers=1),
        cwd=bundle_root(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # What runs in the background of a shell, as a CI's tests may, does not hear Ctrl-C otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not (output / "segment.log").exists():
        assert process.poll() is None, "it ended before it could be stopped"
        time.sleep(0.05)
    time.sleep(2)  # the worker imports what it needs
    os.killpg(process.pid, signal.SIGINT)
    printed, errors = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "Traceback" not in errors
    assert "Stopped: the same command goes on from here." in errors
    assert "0 of 3 volumes are segmented" in printed


def test_names_that_are_not_utf8_are_segmented_and_told_in_utf8(scans: Path, tmp_path: Path) -> None:
    source, output = (Path(os.fsdecode(os.fsencode(tmp_path) + name)) for name in (b"/\xe9", b"/results \xff"))
    file = source / os.fsdecode(b"d\xe9p/caf\xe9.nii.gz")
    file.parent.mkdir(parents=True)
    file.write_bytes((scans / "sub-01/anat/sub-01_T1w.nii.gz").read_bytes())
    done = segment(source, output, views=True, workers=1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "1 of 1 volumes are segmented" in done.stdout
    name = "d%E9p/caf%E9"
    for result in (f"{name}_space-orig_label-L_desc-lesion_mask.nii.gz", f"views/{name}.html", f"figures/{name}.png"):
        assert (output / result).is_file(), result
    (row,) = rows(output / "volumes.tsv")
    assert (row["name"], row["status"]) == (name, "done")
    assert "caf\\udce9.nii.gz: " in (output / "segment.log").read_text(encoding="utf-8")
    assert "views/d%25E9p/caf%25E9.html" in (output / "report.html").read_text(encoding="utf-8")
    (record,) = (json.loads(file.read_text(encoding="utf-8")) for file in output.rglob("records/**/*.json"))
    assert record["name"] == name


@pytest.mark.openvino
def test_openvino_gives_the_probability_that_torch_gives(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    found, logs = {}, {}
    for backend in ("torch", "openvino"):
        done = segment(scans, tmp_path / backend, probability=True, backend=backend, amp=False)
        assert done.returncode == 0, done.stderr[-2000:]
        logs[backend] = (tmp_path / backend / "segment.log").read_text(encoding="utf-8")
        found[backend] = [nib.load(file).get_fdata() for file in sorted((tmp_path / backend).rglob("*_probseg.nii.gz"))]
    assert "Network: torch" in logs["torch"]
    assert "Network: OpenVINO" in logs["openvino"]
    assert len(found["torch"]) == 3
    for expected, given in zip(found["torch"], found["openvino"], strict=True):
        assert expected.std() > 0.001
        np.testing.assert_allclose(given, expected, atol=1e-4)


@pytest.mark.slow
def test_two_shards_segment_all_volumes_together(
    scans: Path, undisturbed: tuple[subprocess.CompletedProcess, Path], tmp_path: Path
) -> None:
    for number, count in ((1, 2), (2, 1)):
        done = segment(scans, tmp_path, probability=True, shard=f"{number}/2")
        assert done.returncode == 0, done.stderr[-2000:]
        assert f"{count} of {count} volumes are segmented" in done.stdout
    assert images(tmp_path) == images(undisturbed[1])
    assert lasting(tmp_path / "volumes.tsv") == lasting(undisturbed[1] / "volumes.tsv")


def test_views_are_written_when_asked_for_and_removed_otherwise(scans: Path, tmp_path: Path) -> None:
    file, page = scans / 'o\'brien "Müller" 頭.nii', tmp_path / 'views/o\'brien "Müller" 頭.html'
    for views in (True, False):
        done = segment(file, tmp_path, views=views)
        assert done.returncode == 0, done.stderr[-2000:]
        assert page.exists() == views
        assert ('href="views/o%27brien' in (tmp_path / "report.html").read_text(encoding="utf-8")) == views


BAD: dict[str, Callable[[np.ndarray], nib.spatialimages.SpatialImage]] = {
    "has shape (88, 108)": lambda head: nib.Nifti1Image(head[:, :, 50], np.diag([2.0, 2.0, 2.0, 1.0])),
    "holds 3 volumes (4D)": lambda head: nib.Nifti1Image(np.stack([head] * 3, -1), np.diag([2.0, 2.0, 2.0, 1.0])),
    "has complex64 voxels": lambda head: nib.Nifti1Image(head.astype(np.complex64), np.diag([2.0, 2.0, 2.0, 1.0])),
    "looks like CT (Hounsfield units, air at -1000)": lambda head: nib.Nifti1Image(
        np.where(head > 0, head, -1000).astype(np.int16), np.diag([2.0, 2.0, 2.0, 1.0])
    ),
    "has slices of 8 mm": lambda head: nib.Nifti1Image(head[:, :, ::4], np.diag([2.0, 2.0, 8.0, 1.0])),
    "is constant (every voxel is 7)": lambda head: nib.Nifti1Image(
        np.full(head.shape, 7, np.int16), np.diag([2.0, 2.0, 2.0, 1.0])
    ),
    "has 1 NaN or infinite voxels": lambda head: nib.Nifti1Image(
        np.where(np.arange(head.size).reshape(head.shape) == 77, np.inf, head).astype(np.float32),
        np.diag([2.0, 2.0, 2.0, 1.0]),
    ),
}
"""Files that are not a T1w head, by a part of the error message."""


def test_what_a_pattern_or_a_list_names_but_cannot_use_is_said_with_what_would_be_right(
    scans: Path, tmp_path: Path
) -> None:
    good, study = tmp_path / "in" / "good.nii.gz", tmp_path / "in" / "study"
    study.mkdir(parents=True)
    good.write_bytes((scans / "sub-01/anat/sub-01_T1w.nii.gz").read_bytes())
    (study / "1.dcm").write_bytes(bytes(128) + b"DICM" + bytes(99))
    done = segment(f"{tmp_path}/in/*", tmp_path / "a")
    assert done.returncode == 0, done.stderr[-2000:]
    left_out = (
        f"{tmp_path}/in/*: left out: 1 folders that match, such as {study}: give a folder itself; {tmp_path}/in is "
        "searched with its subfolders\n"
    )
    assert left_out in done.stdout
    assert left_out in (tmp_path / "a" / "segment.log").read_text(encoding="utf-8")
    (tmp_path / "list.txt").write_text("in/good.nii.gz\nin/study\nin/study/1.dcm\n")
    done = segment(tmp_path / "list.txt", tmp_path / "b")
    assert done.returncode == 1
    assert done.stderr.count("Failed: ") == 2
    assert (
        f"{study} is a folder, not an image file: give a folder, of images or of DICOM, to the command it"
        in done.stderr
    )
    assert f"{study}/1.dcm is a DICOM file: give the folder of its series itself, {study}." in done.stderr


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_bad_files_and_a_good_one(workers: int, scans: Path, head: np.ndarray, tmp_path: Path) -> None:
    source, output = tmp_path / "scans", tmp_path / "results"
    (source / "loop").mkdir(parents=True)
    (source / "loop" / "back").symlink_to(source)
    for number, make in enumerate(BAD.values()):
        image = make(head)
        image.set_sform(image.affine, 1)
        nib.save(image, source / f"bad_{number}.nii.gz")
    whole = (scans / "sub-01/anat/sub-01_T1w.nii.gz").read_bytes()
    (source / "good.nii.gz").write_bytes(whole)
    (source / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (source / "empty.nii").touch()
    (source / "gone.nii.gz").symlink_to(tmp_path / "nowhere.nii.gz")
    sentences = {
        **{f"bad_{number}": sentence for number, sentence in enumerate(BAD)},
        "cut": "is a damaged gzip file",
        "empty": "is empty (0 bytes)",
        "gone": "does not exist",
    }
    done = segment(source, output, workers=workers)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert f"1 of {len(sentences) + 1} volumes are segmented" in done.stdout
    table = {row["name"]: row for row in rows(output / "volumes.tsv")}
    assert table.pop("good")["status"] == "done"
    assert table.keys() == sentences.keys()
    log = (output / "segment.log").read_text(encoding="utf-8")
    for name, sentence in sentences.items():
        assert table[name]["status"] == "failed"
        assert sentence in table[name]["error"]
        assert "\n" not in table[name]["error"]
        assert table[name]["error"] in log
    assert [file.name for file in output.rglob("*_mask.nii.gz")] == ["good_space-orig_label-L_desc-lesion_mask.nii.gz"]


@pytest.mark.parametrize(
    ("source", "options", "sentence"),
    [
        ("nowhere", {}, "nowhere does not exist: a T1w image (.nii.gz, .nii, .mgz, .mgh), a folder of them"),
        ("empty", {}, "empty holds no image; expected: files ending in .nii.gz"),
        ("empty/notes.csv", {}, "notes.csv has no column of paths"),
        ("scan.nii", {"shard": "5/4"}, "--shard 5/4 is not a shard: i/n is expected, such as 1/4 to 4/4."),
        ("scan.nii", {"regions": "atlas.nii"}, "atlas.nii does not exist."),
        ("scan.nii", {"on_failure": "nativ"}, "An option cannot be used: By 'nativ', did you mean 'native'?"),
        ("scan.nii", {"threshold": 50}, "An option cannot be used: threshold must be a probability, 0 to 1, got 50."),
        (
            "scan.nii",
            {"tta_flips": [[5]]},
            "An option cannot be used: tta_flips may name the in-plane axes 0 and 1 only",
        ),
        (
            "scan.nii",
            {"tta_flips": [0]},
            "An option cannot be used: tta_flips must be a list of lists of axes, such as [[0]], got [0].",
        ),
        ("scan.nii", {"workers": -1}, "An option cannot be used: workers must be 0 or more, got -1."),
    ],
)
def test_bad_usage_is_reported_in_a_sentence(source: str, options: dict, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.csv").write_text("patient,age\n")
    (tmp_path / "scan.nii").touch()
    with pytest.raises(InputError, match=re.escape(sentence)):
        segment_here(str(tmp_path / source), str(tmp_path / "results"), **options)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("source", ["study/*", "**/*.dcm", "list.txt"])
def test_a_pattern_or_a_list_of_slices_says_that_their_folder_is_to_be_given(source: str, tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    for name in ("1.dcm", "2.dcm"):
        (tmp_path / "study" / name).write_bytes(bytes(128) + b"DICM")
    (tmp_path / "list.txt").write_text("study/1.dcm\nstudy/2.dcm\n")
    sentence = f"{tmp_path}/{source} names DICOM files: give their folder itself, such as {tmp_path}/study."
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}$"):
        segment_here(f"{tmp_path}/{source}", str(tmp_path / "results"))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("weights", "none.pt", "none.pt does not exist: weights or a checkpoint"),
        ("backend", "tensorrt", "--backend must be one of auto, torch, openvino, openvino_int8, got 'tensorrt'"),
    ],
)
def test_with_bad_usage_the_exit_code_is_2(option: str, value: str, sentence: str, scans: Path, tmp_path: Path) -> None:
    done = segment(scans, tmp_path / "results", **{option: value})
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {sentence}")
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "results").exists()


def test_help_does_not_wait_for_torch() -> None:
    program = "import sys, scripts.segment; print([name for name in ('torch', 'monai') if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=bundle_root(), capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_timing_reports_the_seconds_of_each_step(scans: Path, tmp_path: Path) -> None:
    done = segment(scans, tmp_path / "results", timing=True)
    steps = r"load \d+\.\d\d, registration 0\.00, network \d+\.\d\d, write \d+\.\d\d"
    assert re.search(rf"^Seconds per volume, medians of 3: {steps}\.$", done.stdout, re.MULTILINE)
    printed = re.search(
        r"^Seconds: (\S+) for imports, (\S+) for the network, (\S+) for volumes\.$", done.stdout, re.MULTILINE
    )
    assert printed is not None
    records = [json.loads(file.read_text()) for file in (tmp_path / "results" / "records").rglob("*.json")]
    timings = [record["timing"] for record in records]
    assert [sum(timing.values()) for timing in timings] == [record["seconds"] for record in records]
    # One thread reads and writes beside the network, so work is at least each of the two, and at most their sum.
    network = sum(timing["network"] for timing in timings)
    beside = sum(timing["load"] + timing["write"] for timing in timings)
    assert max(network, beside) - 0.1 <= float(printed[3]) <= network + beside + 5.0


def test_an_output_folder_that_cannot_be_made_is_reported(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "results").write_text("a file in its place")
    done = segment(scans, tmp_path / "results")
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {tmp_path / 'results'} cannot be written to: ")
