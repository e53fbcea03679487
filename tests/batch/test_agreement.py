"""The mask of a head does not depend on its position: copies with known transforms between them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.affines import apply_affine

from benchmarks.agreement import COPIES, Agreement, compare_copies, write_copies
from bundle.data.simulate import load_head, simulate_case
from bundle.files import bundle_root
from bundle.mni import TEMPLATE, atlas_grid
from bundle.transforms import VolumePreprocessing
from bundle.volumes import VolumeInput, VolumePipeline

pytestmark = pytest.mark.batch

LANDMARKS_MM = ((0, 0, 0), (-40, -20, 30), (38, -60, 10), (20, 45, 25), (-30, 30, -15), (5, -35, 60))
"""In MNI space, in the brain."""


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A simulated stroke of 90 mL in the MNI head: image and label."""
    folder = tmp_path_factory.mktemp("case")
    simulated = simulate_case(load_head(str(TEMPLATE)), np.random.default_rng(2), volume_ml=90.0)
    files = folder / "image.nii.gz", folder / "label.nii.gz"
    for array, file in zip((simulated.image, simulated.label), files, strict=True):
        nib.save(nib.Nifti1Image(array, atlas_grid()[0]), file)
    return files


@pytest.fixture(scope="module")
def agreed(case: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Agreement]]:
    return compare_copies(*case, tmp_path_factory.mktemp("agreement"))


@pytest.mark.parametrize("copy", COPIES)
def test_registered_copies_get_the_same_mask(copy: str, agreed: dict[str, dict[str, Agreement]]) -> None:
    assert agreed[copy]["registered"].with_native > 0.88


def test_registration_is_clearly_better_than_none(agreed: dict[str, dict[str, Agreement]]) -> None:
    """Each copy's mask is nearer to the truth, and they differ by a quarter less than without registration."""
    (truth, native), (truth_unregistered, native_unregistered) = (
        1 - np.array([agreed[copy][how] for copy in COPIES]).T for how in ("registered", "where it lies")
    )
    assert (truth < truth_unregistered).all()
    assert native.mean() < 0.75 * native_unregistered.mean()
    turned = agreed["rotated_by_15_degrees"]
    # A turned head's mask is off by less than a third of what it is off by without registration.
    assert 1 - turned["registered"].with_native < (1 - turned["where it lies"].with_native) / 3


def test_registered_copies_are_as_accurate_as_the_head_in_mni_space(
    case: tuple[Path, Path], agreed: dict[str, dict[str, Agreement]], tmp_path: Path
) -> None:
    """The head before it was brought into the scanner's space is where registration should bring it back to."""
    words = [sys.executable, "-m", "scripts.segment", str(case[0]), str(tmp_path), "--space=native", "--noprogress"]
    subprocess.run(words, cwd=bundle_root(), check=True)
    mask = nib.load(tmp_path / "image_space-orig_label-L_desc-lesion_mask.nii.gz")
    found, truth = (np.asarray(image.dataobj) > 0 for image in (mask, nib.load(case[1])))
    in_place = 2 * (found & truth).sum() / (found.sum() + truth.sum())
    # Thick slices have lost what no registration brings back.
    for name in (name for name, copy in COPIES.items() if max(copy.spacing_mm) <= 1):
        assert agreed[name]["registered"].with_truth > in_place - 0.02, name


@pytest.fixture(scope="module")
def copies(case: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("copies")
    write_copies(nib.load(case[0]), folder)
    return folder


@pytest.mark.parametrize("copy", COPIES)
def test_landmarks_return_to_within_half_a_voxel(copy: str, copies: Path, tmp_path: Path) -> None:
    """A spot that the network would draw at a landmark lies at that landmark on the volume's own grid."""
    file = copies / f"{copy}.nii.gz"
    preprocessing = VolumePreprocessing("image", spacing_mm=2.0, slice_size=96, space="mni")
    prepared = VolumePipeline(preprocessing, tmp_path).prepare(VolumeInput(file, copy)).image
    source = nib.load(file)
    to_mni = np.asarray(prepared.meta["to_mni"])
    grid = np.stack(np.meshgrid(*map(np.arange, prepared.shape[1:]), indexing="ij"), axis=-1)
    for landmark in LANDMARKS_MM:
        native_mm = apply_affine(COPIES[copy].from_mni, landmark)
        on_grid = apply_affine(np.linalg.inv(prepared.affine.numpy()), apply_affine(to_mni, native_mm))
        spot = np.exp(-((grid - on_grid) ** 2).sum(axis=-1) / (2 * 1.5**2))
        drawn = prepared.clone()
        drawn[0] = torch.from_numpy(spot)
        back = preprocessing.inverse({"image": drawn})["image"][0].numpy()
        back[back < 0.1] = 0
        voxels = np.argwhere(back > 0)
        centre = np.average(voxels, axis=0, weights=back[back > 0])
        expected = apply_affine(np.linalg.inv(source.affine), native_mm)
        assert np.abs(centre - expected).max() < 0.5, landmark
