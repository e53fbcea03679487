"""After any interruption a batch does only what is left; a failure is that of one volume alone."""

from __future__ import annotations

import csv
import errno
import os
import resource
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bundle.errors import InputError
from bundle.options import SegmentOptions
from bundle.transforms import VolumePreprocessing
from bundle.volumes import pipeline as pipeline_module
from bundle.volumes.batch import VolumeBatch
from bundle.volumes.inputs import find_volumes
from bundle.volumes.ledger import Ledger
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.tables import write_tables
from tests.volumes.conftest import WriteHead, find_bright

Segmented = list[str]


@pytest.fixture
def scans(write_head: WriteHead, tmp_path: Path) -> Path:
    """Two heads and a text that claims to be one."""
    first = write_head("a.nii.gz")
    shutil.copy(first, tmp_path / "scans" / "c d.nii.gz")
    (tmp_path / "scans" / "bad.nii.gz").write_text("patient,age\n")
    return tmp_path / "scans"


@pytest.fixture
def run(scans: Path, pipeline: VolumePipeline) -> Callable[..., list[dict]]:
    """Runs the batch in this process; how many volumes the network saw is in ``run.calls``."""

    def runner(weights: str = "w", settings: str = "s") -> list[dict]:
        def segment(image: torch.Tensor) -> torch.Tensor:
            runner.calls += 1  # type: ignore[attr-defined]
            return find_bright(image)

        runner.calls = 0  # type: ignore[attr-defined]
        ledger = Ledger(pipeline.output, weights, settings, "0")
        batch = VolumeBatch(pipeline, segment, ledger, workers=0, progress=False)
        return batch.run(find_volumes(scans, pipeline.output))

    return runner


def mask(pipeline: VolumePipeline, name: str) -> Path:
    return pipeline.output / f"{name}_space-orig_label-L_desc-lesion_mask.nii.gz"


def statuses(records: list[dict]) -> dict[str, str]:
    return {record["name"]: record["status"] for record in records}


def test_a_bad_volume_does_not_stop_the_others(run: Callable, pipeline: VolumePipeline) -> None:
    records = run()
    assert statuses(records) == {"a": "done", "bad": "failed", "c d": "done"}
    assert records[1]["error"].endswith("copy or export it again.")
    assert [record.get("volume_ml") for record in records] == [pytest.approx(8.064), None, pytest.approx(8.064)]
    assert mask(pipeline, "a").read_bytes() == mask(pipeline, "c d").read_bytes()
    assert not mask(pipeline, "bad").exists()


def test_a_record_has_the_seconds_of_the_steps_and_the_memory_of_the_process(run: Callable) -> None:
    done = [record for record in run() if record["status"] == "done"]
    assert done
    for record in done:
        assert list(record["timing"]) == ["load", "registration", "network", "write"]
        assert all(seconds >= 0 for seconds in record["timing"].values())
        assert record["seconds"] == sum(record["timing"].values())
        # There is a thread instead of a second process.
        assert 0 < record["peak_memory_mb"] <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def test_a_rerun_skips_finished_volumes_and_tries_failed_ones_again(
    run: Callable, scans: Path, pipeline: VolumePipeline
) -> None:
    run()
    before = mask(pipeline, "a").stat().st_mtime_ns
    records = run()
    assert run.calls == 0
    assert mask(pipeline, "a").stat().st_mtime_ns == before
    assert statuses(records) == {"a": "done", "bad": "failed", "c d": "done"}
    shutil.copy(scans / "a.nii.gz", scans / "bad.nii.gz")
    assert statuses(run()) == {"a": "done", "bad": "done", "c d": "done"}
    assert run.calls == 1


@pytest.mark.parametrize(
    ("change", "done_again"),
    [
        (lambda scans, output: shutil.copy(scans / "turned.nii", scans / "a.nii.gz"), 1),
        (lambda scans, output: (output / "a_space-orig_label-L_desc-lesion_mask.nii.gz").unlink(), 1),
        (lambda scans, output: (output / "figures" / "c d.png").unlink(), 1),
        (lambda scans, output: (output / "records" / "a.json").write_text('{"name": "a", "sta'), 1),
        (lambda scans, output: os.utime(scans / "a.nii.gz"), 0),
    ],
    ids=["another input", "a mask lost", "a picture lost", "half a record", "only touched"],
)
def test_only_volumes_with_changes_are_segmented_again(
    change: Callable, done_again: int, run: Callable, scans: Path, write_head: WriteHead, pipeline: VolumePipeline
) -> None:
    run()
    write_head("turned.nii.gz", "LPS").rename(scans / "turned.nii")
    change(scans, pipeline.output)
    (scans / "turned.nii").unlink()
    run()
    assert run.calls == done_again


@pytest.mark.parametrize("changed", [{"weights": "other"}, {"settings": "other"}])
def test_with_other_weights_or_settings_all_are_segmented_again(changed: dict, run: Callable) -> None:
    run()
    run(**changed)
    assert run.calls == 2


def test_a_result_that_is_no_longer_asked_for_is_removed(run: Callable, scans: Path, pipeline: VolumePipeline) -> None:
    volumes = find_volumes(scans, pipeline.output)
    probability = volumes[0].result_path(pipeline.output, "desc-lesion_probseg")
    for wanted in (True, False):
        asked = replace(pipeline, options=SegmentOptions(probability=wanted))
        ledger = Ledger(pipeline.output, "w", str(wanted), "0")
        VolumeBatch(asked, find_bright, ledger, workers=0, progress=False).run(volumes[:1])
        assert probability.exists() == wanted


def test_a_missing_input_fails_and_its_mask_is_kept(run: Callable, scans: Path, pipeline: VolumePipeline) -> None:
    volumes = find_volumes(scans, pipeline.output)
    run()
    (scans / "a.nii.gz").unlink()
    batch = VolumeBatch(pipeline, find_bright, Ledger(pipeline.output, "w", "s", "0"), workers=0, progress=False)
    gone = batch.run(volumes)[0]
    assert gone["error"].startswith(f"{scans / 'a.nii.gz'} does not exist. An earlier mask stays: ")
    assert mask(pipeline, "a").exists()


def test_unfinished_files_of_a_killed_run_are_removed(run: Callable, pipeline: VolumePipeline) -> None:
    half = pipeline.output / f".4711.{mask(pipeline, 'a').name}"
    other = pipeline.output / ".notes.txt"
    pipeline.output.mkdir()
    half.write_bytes(b"half")
    other.write_bytes(b"not ours")
    run()
    assert not half.exists()
    assert other.exists()


def test_a_full_disk_fails_the_volume_in_a_sentence(
    run: Callable, pipeline: VolumePipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*inputs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pipeline_module, "save_on_grid", full)
    records = run()
    assert records[0]["error"].endswith("could not be written: No space left on device.")
    assert statuses(records) == {"a": "failed", "bad": "failed", "c d": "failed"}
    monkeypatch.undo()
    assert statuses(run()) == {"a": "done", "bad": "failed", "c d": "done"}


class Killed(VolumePreprocessing):
    """Ends its process at a file of a certain name, as the system does when memory is short."""

    def __call__(self, data: dict) -> dict:  # type: ignore[override]
        if Path(data["image"]).name == "b killed.nii.gz":
            os._exit(9)
        return super().__call__(data)


def test_a_killed_process_fails_only_its_volume(scans: Path, write_head: WriteHead, pipeline: VolumePipeline) -> None:
    for name in ("b killed.nii.gz", "e.nii.gz"):
        shutil.copy(scans / "a.nii.gz", scans / name)
    deadly = replace(pipeline, preprocessing=Killed("image", spacing_mm=2.0, slice_size=96))
    batch = VolumeBatch(deadly, find_bright, Ledger(pipeline.output, "w", "s", "0"), workers=2, progress=False)
    records = batch.run(find_volumes(scans, pipeline.output))
    expected = {"a": "done", "b killed": "failed", "bad": "failed", "c d": "done", "e": "done"}
    assert statuses(records) == expected
    assert "its process was killed 3 times, probably for lack of memory" in records[1]["error"]
    masks = {mask(pipeline, name).read_bytes() for name, status in expected.items() if status == "done"}
    assert len(masks) == 1


def test_tables_have_a_row_for_each_volume_and_each_lesion(run: Callable, pipeline: VolumePipeline) -> None:
    write_tables(run(), pipeline.output)
    volumes, lesions = (
        list(csv.DictReader((pipeline.output / name).open(newline=""), delimiter="\t"))
        for name in ("volumes.tsv", "lesions.tsv")
    )
    assert [(row["name"], row["status"], row["lesions"]) for row in volumes] == [
        ("a", "done", "2"),
        ("bad", "failed", ""),
        ("c d", "done", "2"),
    ]
    assert [(row["name"], row["number"], row["volume_ml"], row["side"]) for row in lesions] == [
        ("a", "1", "8.0000", "unknown"),
        ("a", "2", "0.0640", "unknown"),
        ("c d", "1", "8.0000", "unknown"),
        ("c d", "2", "0.0640", "unknown"),
    ]


def test_another_volume_of_the_same_name_does_not_replace_the_results(
    run: Callable, scans: Path, pipeline: VolumePipeline, write_head: WriteHead, tmp_path: Path
) -> None:
    run()
    ledger = Ledger(pipeline.output, "w", "s", "0")
    moved, other = tmp_path / "moved", tmp_path / "other"
    shutil.copytree(scans, moved)
    ledger.check_names(find_volumes(scans, pipeline.output))
    ledger.check_names(find_volumes(moved, pipeline.output))
    write_head("a.nii.gz", axcodes="LPS")  # the same file has other content now
    ledger.check_names(find_volumes(scans, pipeline.output))
    other.mkdir()
    shutil.copy(scans / "a.nii.gz", other / "bad.nii.gz")  # what failed may be replaced
    ledger.check_names(find_volumes(other, pipeline.output))
    shutil.move(other / "bad.nii.gz", other / "a.nii.gz")
    with pytest.raises(InputError) as refused:
        ledger.check_names(find_volumes(other, pipeline.output))
    assert str(refused.value) == (
        f"{pipeline.output} holds the results of {scans / 'a.nii.gz'} as a, and {other / 'a.nii.gz'} would replace "
        "them: choose another OUTPUT."
    )
