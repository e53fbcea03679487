"""One way from a scan to its mask: the command, inference, evaluation and MONAI Label give the same voxels.

The network fires everywhere, also in the air, at one threshold, and in crumbs and larger components at another. The
smallest lesion and the precision are not set: their defaults must be the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.transforms import SaveImaged
from scipy import ndimage

from bundle.networks import TSRLNet
from scripts.segment import segment
from tests.workflows.conftest import CONFIGS, ROOT

Way = Callable[[dict[str, str], Path, Path, float], np.ndarray]
"""From a case, an output folder, weights and a threshold to the mask."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights, with logits of 1 in the air, on 4 mm so that it is quick, without registration."""
    folder, shipped = tmp_path_factory.mktemp("weights"), ROOT / "models" / "model.pt"
    network = TSRLNet().eval()
    network.load_state_dict(torch.load(shipped, weights_only=True))
    with torch.no_grad():
        network.head.bias += 1 - float(network(torch.zeros(1, 4, 96, 96)).median())
    torch.save(network.state_dict(), folder / "model.pt")
    settings = json.loads(shipped.with_suffix(".json").read_text()) | {
        "space": "native",
        "spacing_mm": 4.0,
        "box_mm": 384.0,
    }
    (folder / "model.json").write_text(json.dumps(settings))
    return folder / "model.pt"


@pytest.fixture(scope="module")
def case(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """80 mm of a simulated case with noise in its air, stored from left to right and from top to bottom."""
    folder = tmp_path_factory.mktemp("case")
    rng = np.random.default_rng(0)
    files = {}
    for kind in ("image", "label"):
        whole = nib.load(cohort / f"{kind}s" / "case_0.nii.gz").slicer[:, :, 50:130]
        voxels = np.asanyarray(whole.dataobj)
        if kind == "image":
            voxels = (voxels + rng.integers(0, 30, voxels.shape)).astype(np.int16)
        affine = whole.affine @ nib.affines.from_matvec(
            np.diag([-1, 1, -1]), [voxels.shape[0] - 1, 0, voxels.shape[2] - 1]
        )
        files[kind] = str(folder / f"{kind}.nii.gz")
        nib.save(nib.Nifti1Image(voxels[::-1, :, ::-1], affine), files[kind])
    (folder / "datalist.json").write_text(json.dumps({"test": [files]}))
    return files


@pytest.fixture(scope="module", params=["everywhere", "crumbs"])
def threshold(
    request: pytest.FixtureRequest, case: dict[str, str], weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> float:
    """One that the air reaches, or one that every tenth voxel of the head does, in crumbs and larger components."""
    if request.param == "everywhere":
        return 0.5
    folder = tmp_path_factory.mktemp("probability")
    run_config(["inference.json"], folder, dataset_dir=case["image"], ckpt_path=str(weights), save_probability=True)
    probability = voxels_of(folder / "image_probability.nii.gz")
    threshold = float(np.percentile(probability[probability > 0], 90))
    assert sizes_of_components(probability >= threshold).min() < 25  # there are crumbs to leave out
    return threshold


def sizes_of_components(mask: np.ndarray) -> np.ndarray:
    """In voxels; those that touch by a corner are one component."""
    return np.bincount(ndimage.label(mask, np.ones((3, 3, 3)))[0].ravel())[1:]


def voxels_of(file: Path) -> np.ndarray:
    return np.asanyarray(nib.load(file).dataobj)


def run_config(names: list[str], output: Path, **overrides: object) -> None:
    """``python -m monai.bundle run`` of these configs, in this process."""
    kind = "inference" if names == ["inference.json"] else "train"
    files = [str(CONFIGS / name) for name in names]
    workflow = ConfigWorkflow(
        files, workflow_type=kind, logging_file=False, output_dir=str(output), backend="torch", **overrides
    )
    workflow.initialize()
    workflow.run()
    workflow.finalize()


def by_command(case: dict[str, str], output: Path, weights: Path, threshold: float) -> np.ndarray:
    with pytest.raises(SystemExit) as ended:
        segment(case["image"], str(output), weights=str(weights), threshold=threshold, backend="torch", progress=False)
    assert ended.value.code == 0
    (mask,) = output.glob("*_mask.nii.gz")
    return voxels_of(mask)


def by_inference(case: dict[str, str], output: Path, weights: Path, threshold: float) -> np.ndarray:
    overrides = {"dataset_dir": case["image"], "ckpt_path": str(weights), "threshold": threshold, "progress": False}
    run_config(["inference.json"], output, **overrides)
    return voxels_of(output / "image_lesion.nii.gz")


def by_evaluation(case: dict[str, str], output: Path, weights: Path, threshold: float) -> np.ndarray:
    folder = Path(case["image"]).parent
    overrides = {"dataset_dir": str(folder), "datalist": str(folder / "datalist.json"), "save_masks": True}
    overrides |= {"ckpt_path": str(weights), "threshold": threshold}
    run_config(["train.json", "evaluate.json"], output, **overrides)
    return voxels_of(output / "masks" / "image_lesion.nii.gz")


def by_monai_label(case: dict[str, str], output: Path, weights: Path, threshold: float) -> np.ndarray:
    """As its BundleInferTask does: options replaced, each step called, what saves left out."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    parser.update({"ckpt_path": str(weights), "backend": "torch"})
    parser["displayable_configs"]["threshold"] = threshold
    parser.parse()
    network = parser.get_parsed_content("network").eval()
    network.load_state_dict(torch.load(weights, weights_only=True))
    data = parser.get_parsed_content("preprocessing")({"image": case["image"]})
    with torch.no_grad():
        data["pred"] = parser.get_parsed_content("inferer")(data["image"][None], network)[0]
    for step in parser.get_parsed_content("postprocessing").transforms:
        if not isinstance(step, SaveImaged):
            data = step(data)
    return data["pred"][0].numpy()


@pytest.fixture(scope="module")
def mask(case: dict[str, str], weights: Path, threshold: float, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The command's, at each threshold."""
    return by_command(case, tmp_path_factory.mktemp("command"), weights, threshold)


@pytest.mark.parametrize("way", [by_inference, by_evaluation, by_monai_label])
def test_every_way_gives_the_command_s_mask(
    way: Way, mask: np.ndarray, case: dict[str, str], weights: Path, threshold: float, tmp_path: Path
) -> None:
    found = way(case, tmp_path, weights, threshold)
    assert found.shape == mask.shape == nib.load(case["image"]).shape
    np.testing.assert_array_equal(found, mask)


def test_air_is_not_lesion_and_tiny_components_are_removed(
    mask: np.ndarray, case: dict[str, str], threshold: float
) -> None:
    image = voxels_of(Path(case["image"]))
    assert mask.any()
    assert not mask[:10].any()
    assert image[:10].max() > 20  # its air has noise
    if threshold == 0.5:
        assert mask[image > 500].mean() > 0.9
    else:
        assert sizes_of_components(mask).min() >= 25  # of 1 mm3
