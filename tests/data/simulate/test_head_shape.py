"""Head shapes and placement errors: as large as said, without folds, the same for image and labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, head_shape
from bundle.data.simulate.head_shape import misplace, own_shape
from bundle.data.simulate.tissues import Tissue

pytestmark = pytest.mark.slow

SHAPE = (120, 140, 110)
SEEDS = range(12)


def maps(function: object, shape: tuple[int, int, int] = SHAPE) -> Iterator[np.ndarray]:
    """Where each seed's map looks for each voxel, ``(3, H, W, D)``, by images whose values are their coordinates."""
    coordinates = np.stack(np.meshgrid(*[np.arange(n, dtype=np.float32) for n in shape], indexing="ij"))
    nothing = np.zeros(shape, dtype=np.uint8)
    for seed in SEEDS:
        yield np.stack([function(axis, nothing, np.random.default_rng(seed))[0] for axis in coordinates])  # type: ignore[operator]


def inside(coordinates: np.ndarray) -> np.ndarray:
    """The part that no edge is near to."""
    return coordinates[:, 20:-20, 20:-20, 20:-20]


def jacobian_determinants(coordinates: np.ndarray) -> np.ndarray:
    gradients = np.stack([np.stack(np.gradient(axis)) for axis in coordinates])
    return np.linalg.det(np.moveaxis(gradients, (0, 1), (-2, -1)))


@pytest.fixture(scope="module")
def shapes() -> list[np.ndarray]:
    return [inside(coordinates) for coordinates in maps(own_shape)]


@pytest.fixture(scope="module")
def placements() -> list[np.ndarray]:
    return [inside(coordinates) for coordinates in maps(misplace)]


def test_no_shape_folds_the_head(shapes: list[np.ndarray]) -> None:
    smallest = [jacobian_determinants(coordinates).min() for coordinates in shapes]
    assert min(smallest) > 0.1
    assert np.median(smallest) < 0.9  # the deformation is large


def test_steep_deformations_are_flattened_until_they_do_not_fold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_shape, "_DEFORMATION_MM", (30.0, 30.0))
    for coordinates in maps(own_shape):
        assert jacobian_determinants(inside(coordinates)).min() > 0


def test_shapes_differ_by_some_mm_beyond_their_affine_part(shapes: list[np.ndarray]) -> None:
    left = []
    for coordinates in shapes:
        points = np.stack(np.meshgrid(*[np.arange(n) for n in coordinates.shape[1:]], indexing="ij")).reshape(3, -1).T
        design = np.column_stack((points, np.ones(len(points))))[::50]
        moved = coordinates.reshape(3, -1).T[::50]
        residual = moved - design @ np.linalg.lstsq(design, moved, rcond=None)[0]
        left.append(np.sqrt((residual**2).sum(axis=1).mean()))
    # The affine fit of a volume of 80 x 100 x 70 mm takes the longest waves away.
    assert 1.0 < np.mean(left) < 5.0
    assert max(left) > 1.5 * min(left)


def test_a_shape_keeps_most_of_the_head_s_volume(template_head: Head) -> None:
    assert template_head.image is not None
    brain = (template_head.tissue >= Tissue.CSF).sum()
    ratios = []
    for seed in SEEDS:
        _, tissue = own_shape(template_head.image, template_head.tissue, np.random.default_rng(seed))
        ratios.append((tissue >= Tissue.CSF).sum() / brain)
    assert np.std(ratios) > 0.03
    assert 0.75 < min(ratios) < max(ratios) < 1.35


def test_image_and_tissues_move_together(template_head: Head) -> None:
    assert template_head.image is not None
    image, tissue = own_shape(template_head.image, template_head.tissue, np.random.default_rng(3))
    assert (image.dtype, tissue.dtype) == (np.float32, np.uint8)
    assert set(np.unique(tissue)) <= set(np.unique(template_head.tissue))
    assert (tissue != template_head.tissue).mean() > 0.05  # it has moved
    for kind in (Tissue.GREY, Tissue.WHITE, Tissue.VENTRICLE):
        before = np.median(template_head.image[template_head.tissue == kind])
        assert np.median(image[tissue == kind]) == pytest.approx(before, abs=0.02)


def test_placement_errors_are_as_measured(placements: list[np.ndarray]) -> None:
    """Of an affine map the derivatives are those everywhere, and the shift is that of the middle."""
    middle = (np.array(SHAPE) - 1) / 2 - 20
    shifts, sizes, turns = [], [], []
    for coordinates in placements:
        gradients = np.stack([np.stack(np.gradient(axis)) for axis in coordinates])
        matrix = gradients.reshape(3, 3, -1).mean(axis=-1)
        assert np.abs(gradients - matrix[:, :, None, None, None]).max() < 1e-3
        here = ndimage.map_coordinates
        centre = np.array([here(axis, middle[:, None], order=1)[0] for axis in coordinates])
        shifts.append(centre - (np.array(SHAPE) - 1) / 2)
        left, scales, right = np.linalg.svd(matrix)
        sizes.append(scales - 1)
        turns.append(np.degrees((left @ right - (left @ right).T)[[2, 0, 1], [1, 2, 0]] / 2))
    for values, expected in (
        (shifts, head_shape.PLACEMENT_SHIFT_SD_MM),
        (turns, head_shape.PLACEMENT_TURN_SD_DEG),
        (sizes, head_shape.PLACEMENT_SIZE_SD),
    ):
        assert np.sqrt(np.mean(np.square(values))) == pytest.approx(expected, rel=0.45)


def test_a_misplaced_label_keeps_to_what_it_marks(template_head: Head) -> None:
    assert template_head.image is not None
    label = ndimage.binary_dilation(template_head.tissue == Tissue.VENTRICLE, iterations=2).astype(np.uint8)
    marked = template_head.image + 5 * label
    image, moved = misplace(marked, label, np.random.default_rng(1))
    assert set(np.unique(moved)) == {0, 1}
    assert moved.sum() == pytest.approx(label.sum(), rel=0.05)
    border = ndimage.binary_dilation(moved, iterations=1) & ~ndimage.binary_erosion(moved, iterations=1)
    assert np.array_equal((image > 3)[~border], (moved > 0)[~border])


@pytest.mark.parametrize("function", [own_shape, misplace])
def test_the_same_state_gives_the_same_bytes(function: object, block_head: Head) -> None:
    first, again, other = (
        function(block_head.image, block_head.tissue, np.random.default_rng(seed))  # type: ignore[operator]
        for seed in (0, 0, 1)
    )
    assert [array.tobytes() for array in first] == [array.tobytes() for array in again]
    assert not np.array_equal(first[0], other[0])
