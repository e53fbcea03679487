"""``run evaluating``: the table holds the metrics of the masks that inference writes, on the grid of the labels."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from bundle.metrics import case_metrics
from bundle.metrics.cases import CASE_METRICS
from tests.workflows.conftest import FEATURES, Run, command
from tests.workflows.test_inference import segment

NETWORK = {"network_def::features": list(FEATURES)}
TESTED = ("case_1", "case_2")

Evaluated = tuple[list[dict[str, str]], dict[str, float]]


@pytest.fixture(scope="module")
def slabs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 mm of three cases about their lesions, the last two in section test; one has lesion outside the box."""
    folder = tmp_path_factory.mktemp("slabs")
    for number in range(3):
        name = f"case_{number}.nii.gz"
        image, label = (nib.load(cohort / kind / name) for kind in ("images", "labels"))
        middle = int(np.argmax(np.asanyarray(label.dataobj).sum(axis=(0, 1))))
        part = np.s_[:, :, max(middle - 20, 0) : middle + 20]
        for kind, whole in (("images", image), ("labels", label)):
            (folder / kind).mkdir(exist_ok=True)
            nib.save(whole.slicer[part], folder / kind / name)
    items = [{kind: f"{kind}s/case_{number}.nii.gz" for kind in ("image", "label")} for number in range(3)]
    (folder / "datalist.json").write_text(json.dumps({"training": items[:1], "test": items[1:]}))
    _outside(folder / "labels" / "case_1.nii.gz")
    return folder


def _outside(label: Path) -> None:
    """Adds lesion in a corner, which the 192 mm box on the brain does not reach."""
    voxels = np.asanyarray(nib.load(label).dataobj).copy()
    assert not voxels[:5, :5].any()
    voxels[:5, :5] = 1
    nib.save(nib.Nifti1Image(voxels, nib.load(label).affine), label)


@pytest.fixture(scope="module")
def threshold(slabs: Path, small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """A twentieth of the voxels in the box reach it, which of an untrained network tells nothing else."""
    folder = tmp_path_factory.mktemp("probabilities")
    segment(slabs / "images", folder, ckpt_path=str(small_weights), save_probability=True, **NETWORK)
    values = [np.asanyarray(nib.load(folder / f"{name}_probability.nii.gz").dataobj) for name in TESTED]
    return float(np.percentile(np.concatenate([value[value > 0] for value in values]), 95))


@pytest.fixture(scope="module")
def by_hand(
    slabs: Path, threshold: float, small_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, float]]:
    """Metrics by the label's file, from the masks of configs/inference.json with the same weights."""
    folder = tmp_path_factory.mktemp("masks")
    segment(slabs / "images", folder, ckpt_path=str(small_weights), threshold=threshold, **NETWORK)
    metrics = {}
    for name in TESTED:
        label = nib.load(slabs / "labels" / f"{name}.nii.gz")
        mask = nib.load(folder / f"{name}_lesion.nii.gz")
        arrays = (torch.from_numpy(np.asanyarray(image.dataobj).astype(np.uint8)) for image in (mask, label))
        metrics[str(slabs / "labels" / f"{name}.nii.gz")] = case_metrics(*arrays, label.header.get_zooms())
    return metrics


@pytest.fixture(scope="module")
def evaluated(
    slabs: Path, threshold: float, small_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Evaluated:
    """The rows of cases.csv and summary.json of one evaluation from a folder that is not the bundle's."""
    folder = tmp_path_factory.mktemp("evaluated")
    words = command(
        None,
        "train.json",
        "evaluate.json",
        dataset_dir=slabs,
        datalist=slabs / "datalist.json",
        output_dir="results",
        ckpt_path=small_weights,
        threshold=threshold,
        amp=False,
        **NETWORK,
    )
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(file.name for file in (folder / "results").iterdir()) == ["cases.csv", "lesions.csv", "summary.json"]
    with (folder / "results" / "cases.csv").open() as table:
        return list(csv.DictReader(table)), json.loads((folder / "results" / "summary.json").read_text())


def test_there_is_a_row_for_each_case_of_the_section(evaluated: Evaluated, slabs: Path) -> None:
    assert [row["case"] for row in evaluated[0]] == [str(slabs / "labels" / f"{name}.nii.gz") for name in TESTED]


def test_the_rows_hold_the_metrics_of_inferences_masks(
    evaluated: Evaluated, by_hand: dict[str, dict[str, float]]
) -> None:
    for row in evaluated[0]:
        expected = by_hand[row.pop("case")]
        assert expected["tp"] > 0  # the masks tell something
        assert {name: float(value) for name, value in row.items()} == pytest.approx(expected, rel=1e-6)


def test_lesion_outside_the_brain_box_counts_as_missed(evaluated: Evaluated, slabs: Path) -> None:
    row = evaluated[0][0]
    label = np.asanyarray(nib.load(slabs / "labels" / "case_1.nii.gz").dataobj)
    outside = int(label[:5, :5].sum())
    assert outside == 25 * label.shape[2]
    assert int(row["tp"]) + int(row["fn"]) == label.sum()
    assert int(row["fn"]) >= outside
    assert float(row["true_volume_ml"]) == pytest.approx(label.sum() / 1000, rel=1e-5)


def test_the_summary_says_which_weights_it_is_of(evaluated: Evaluated, small_weights: Path) -> None:
    assert evaluated[1]["weights"] == str(small_weights)
    assert evaluated[1]["weights_hash"] == hashlib.sha256(small_weights.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_weights_that_a_training_wrote_to_the_same_folder_are_evaluated(
    slabs: Path, small_weights: Path, tmp_path: Path, run: Run
) -> None:
    for suffix in (".pt", ".json"):
        shutil.copy(small_weights.with_suffix(suffix), tmp_path)
    paths = {"dataset_dir": slabs, "datalist": slabs / "datalist.json", "output_dir": tmp_path}
    done = run(None, "train.json", "evaluate.json", **paths, **NETWORK)
    assert done.returncode == 0, done.stderr[-2000:]
    digest = hashlib.sha256(small_weights.read_bytes()).hexdigest()
    assert f"Evaluating {tmp_path / 'model.pt'}: SHA-256 {digest}" in done.stdout
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["weights"], summary["weights_hash"]) == (str(tmp_path / "model.pt"), digest)


def test_the_summary_has_the_means_and_the_pooled_dsc(evaluated: Evaluated) -> None:
    rows, summary = evaluated
    assert summary["cases"] == len(TESTED)
    for name in CASE_METRICS:
        assert summary[name] == pytest.approx(np.mean([float(row[name]) for row in rows]))
    assert summary["dsc_median"] == pytest.approx(np.median([float(row["dsc"]) for row in rows]))
    tp, fp, fn = (sum(int(row[name]) for row in rows) for name in ("tp", "fp", "fn"))
    assert summary["dsc_global"] == pytest.approx(2 * tp / (2 * tp + fp + fn))


def test_a_section_without_cases_ends_in_one_sentence(
    slabs: Path, small_weights: Path, tmp_path: Path, run: Run
) -> None:
    source = slabs / "datalist.json"
    settings = {"dataset_dir": slabs, "datalist": source, "output_dir": tmp_path / "out", "ckpt_path": small_weights}
    done = run(None, "train.json", "evaluate.json", datalist_key="validation", **settings, **NETWORK)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"Error: {source} has no cases under 'validation'; its sections are: training, test." in done.stderr
    assert not (tmp_path / "out").exists()
