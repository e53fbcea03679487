"""MONAI Label with the packaged bundle: what it tells of it, and masks that are those of ``monai.bundle run``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from scripts.package import NAME
from tests.label.conftest import BundleRun
from tests.label.server import LabelServer

pytestmark = pytest.mark.label


def voxels(image: nib.Nifti1Image) -> np.ndarray:
    return np.asanyarray(image.dataobj)


@pytest.fixture(scope="module")
def default_masks(server: LabelServer) -> dict[str, np.ndarray]:
    """Of both images, with the panel as it is."""
    return {name: voxels(server.mask(name, **server.panel("models"))) for name in ("mni", "scanner")}


def test_the_model_its_label_and_its_options_are_told(server: LabelServer) -> None:
    info = server.info()
    assert list(info["models"]) == list(info["trainers"]) == [NAME]
    model = info["models"][NAME]
    assert model["type"] == "segmentation"
    assert model["labels"] == {"stroke lesion": 1}  # its value in masks
    assert info["labels"] == ["stroke lesion"]
    assert "Not for clinical use." in model["description"]
    options = {"threshold": 0.4, "smallest_lesion_ml": 0.025, "registration": True, "tta_flips": False}
    assert {name: model["config"][name] for name in options} == options
    assert model["config"]["model_filename"] == ["model.pt"]


def test_the_next_sample_is_one_without_a_label(server: LabelServer) -> None:
    sample = server.json("POST", "/activelearning/first", json={})
    assert sample["id"] in ("mni", "scanner")
    assert (server.studies / sample["name"]).is_file()


@pytest.mark.parametrize("image", ["mni", "scanner"])
def test_the_mask_is_that_of_bundle_run_on_the_grid_of_the_source(
    image: str, server: LabelServer, bundle_run: BundleRun
) -> None:
    mask, source = server.mask(image, **server.panel("models")), nib.load(server.studies / f"{image}.nii.gz")
    assert mask.shape == source.shape
    assert mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-4)
    assert np.unique(voxels(mask)).tolist() == [0, 1]
    np.testing.assert_array_equal(voxels(mask), voxels(bundle_run(image)))


def test_the_mask_lies_on_the_lesion(server: LabelServer, case: Path, default_masks: dict[str, np.ndarray]) -> None:
    label = voxels(nib.load(case / "label.nii.gz")) > 0
    for mask in (default_masks["mni"], default_masks["scanner"][::-1, ::-1]):
        assert 2 * (mask[label] > 0).sum() / (mask.sum() + label.sum()) > 0.6  # Dice


@pytest.mark.parametrize(
    ("image", "option", "words"),
    [
        ("mni", {"threshold": 0.9}, ("--threshold", "0.9")),
        ("mni", {"smallest_lesion_ml": 5.0}, ("--smallest_lesion_ml", "5.0")),
        ("mni", {"tta_flips": True}, ("--tta_flips", "[[0]]")),
        ("scanner", {"registration": False}, ("--space", "native")),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_an_option_of_the_panel_does_what_the_command_s_does(
    image: str,
    option: dict[str, object],
    words: tuple[str, ...],
    server: LabelServer,
    bundle_run: BundleRun,
    default_masks: dict[str, np.ndarray],
) -> None:
    mask = voxels(server.mask(image, **(server.panel("models") | option)))
    np.testing.assert_array_equal(mask, voxels(bundle_run(image, *words)))
    assert (mask != default_masks[image]).any()
    if "tta_flips" not in option and "registration" not in option:
        assert mask.sum() < default_masks[image].sum()
        assert np.all(mask <= default_masks[image])


def test_a_request_without_options_takes_those_of_the_bundle_whatever_was_asked_before(
    server: LabelServer, default_masks: dict[str, np.ndarray]
) -> None:
    np.testing.assert_array_equal(voxels(server.mask("mni", device="cpu")), default_masks["mni"])


def cut(source: Path, file: Path) -> None:
    content = source.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def constant(source: Path, file: Path) -> None:
    image = nib.load(source)
    nib.save(nib.Nifti1Image(np.full(image.shape, 7, np.int16), image.affine), file)


@pytest.mark.parametrize(
    ("spoil", "said"), [(cut, "EOFError: Compressed file ended"), (constant, "is constant (every voxel is 7)")]
)
def test_a_bad_volume_is_refused_the_console_says_why_and_the_server_lives_on(
    spoil: Callable[[Path, Path], None],
    said: str,
    server: LabelServer,
    tmp_path: Path,
    default_masks: dict[str, np.ndarray],
) -> None:
    spoil(server.studies / "mni.nii.gz", tmp_path / "bad.nii.gz")
    server.add_image("bad", tmp_path / "bad.nii.gz")
    answer = server.ask_mask("bad", device="cpu")
    server.json("DELETE", "/datastore/?id=bad&type=image")
    assert answer.status_code == requests.codes.server_error
    assert said in server.log.read_text()
    np.testing.assert_array_equal(voxels(server.mask("mni", device="cpu")), default_masks["mni"])


def test_a_batch_labels_what_has_no_label(
    server: LabelServer, case: Path, default_masks: dict[str, np.ndarray]
) -> None:
    server.submit_label("mni", case / "label.nii.gz")
    server.json(
        "POST", f"/batch/infer/{NAME}?images=unlabeled", json={"device": "cpu", "multi_gpu": False, "max_workers": 1}
    )
    assert server.wait_for("/batch/infer")["status"] == "DONE"
    assert [file.name for file in (server.studies / "labels" / "original").glob("*.nii.gz")] == ["scanner.nii.gz"]
    labelled = nib.load(server.studies / "labels" / "original" / "scanner.nii.gz")
    assert labelled.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(voxels(labelled), default_masks["scanner"])
