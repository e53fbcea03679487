"""The box about the brain: its size, its place, and its inverse."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data.meta_tensor import MetaTensor

from bundle.transforms import BrainBox, BrainBoxd

BRAIN_CENTRE = (40.5, 52.5)  # of the synthetic head, in voxel edges: the middle of voxel 40 lies at 40.5


def at_2mm(head: np.ndarray) -> MetaTensor:
    return MetaTensor(torch.from_numpy(head)[None], affine=torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0])).double())


def coordinates(shape: tuple[int, ...]) -> torch.Tensor:
    """``(1, H, W, D)`` whose voxels hold a number of their own, from 1."""
    return torch.arange(1, 1 + int(np.prod(shape)), dtype=torch.float64).reshape(1, *shape)


def covered(start: np.ndarray, end: np.ndarray, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The part of a volume that lies in a box."""
    return tuple(slice(max(s, 0), min(e, n)) for s, e, n in zip(start, end, shape, strict=True))


def test_the_box_is_centred_on_the_brain_and_not_on_nose_and_neck(head: np.ndarray) -> None:
    start, end = BrainBox((64, 64)).compute_bounding_box(at_2mm(head))
    centre = (start[:2] + end[:2]) / 2
    np.testing.assert_allclose(centre, BRAIN_CENTRE, atol=0.5)
    front_back = np.flatnonzero(head.any(axis=(0, 2)))
    assert abs((front_back[0] + front_back[-1] + 1) / 2 - BRAIN_CENTRE[1]) > 2  # what a box of the whole head gives


def test_depths_below_the_top_are_measured_in_mm(head: np.ndarray) -> None:
    """Taken for 1 mm, the slab of 20 to 90 mm would reach from the skull to the neck's end, nose included."""
    in_1mm_voxels, _ = BrainBox((64, 64)).compute_bounding_box(torch.from_numpy(head)[None])
    in_2mm_voxels, _ = BrainBox((64, 64)).compute_bounding_box(at_2mm(head))
    assert in_1mm_voxels[1] - in_2mm_voxels[1] > 2


@pytest.mark.parametrize("axis", [0, 1])
def test_the_box_follows_a_shifted_head(head: np.ndarray, axis: int) -> None:
    start, _ = BrainBox((64, 64)).compute_bounding_box(at_2mm(head))
    shifted, _ = BrainBox((64, 64)).compute_bounding_box(at_2mm(np.roll(head, 4, axis=axis)))
    assert (shifted - start).tolist() == [4 * (axis == 0), 4 * (axis == 1), 0]


def test_a_volume_without_head_is_cut_about_its_centre() -> None:
    start, end = BrainBox((4, 6)).compute_bounding_box(torch.zeros(1, 10, 10, 5))
    assert start.tolist() == [3, 2, 0]
    assert end.tolist() == [7, 8, 5]


@pytest.mark.parametrize("size", [(64, 64), (63, 80), (96, 64), (128, 128)])
def test_size_is_exact_and_the_number_of_slices_stays(head: np.ndarray, size: tuple[int, int]) -> None:
    assert BrainBox(size)(at_2mm(head)).shape == (1, *size, head.shape[2])


def test_a_larger_box_is_padded_with_zeros_and_loses_nothing(head: np.ndarray) -> None:
    box = BrainBox((128, 128))(at_2mm(head))
    assert box[0].count_nonzero() == np.count_nonzero(head)
    assert float(box.sum(dtype=torch.float64)) == float(head.sum(dtype=np.float64))
    assert not box[0, :12].any()
    assert not box[0, -12:].any()


@pytest.mark.parametrize("size", [(64, 64), (63, 80), (96, 64), (128, 128)])
def test_the_inverse_restores_all_voxels_inside_and_gives_zero_outside(head: np.ndarray, size: tuple[int, int]) -> None:
    image, transform = at_2mm(head), BrainBox(size)
    start, end = transform.compute_bounding_box(image)
    restored = transform.inverse(transform(image))

    inside = covered(start, end, head.shape)
    expected = np.zeros_like(head)
    expected[inside] = head[inside]
    assert restored.shape == image.shape
    np.testing.assert_array_equal(restored[0].numpy(), expected)
    np.testing.assert_array_equal(restored.affine.numpy(), image.affine.numpy())


def test_the_affine_follows_the_box(head: np.ndarray) -> None:
    image, transform = at_2mm(head), BrainBox((64, 64))
    start, _ = transform.compute_bounding_box(image)
    assert (transform(image).affine[:3, 3] - image.affine[:3, 3]).tolist() == (2.0 * start).tolist()


@pytest.mark.parametrize("size", [(64, 64), (128, 128)])
def test_image_and_label_get_the_box_of_the_image(head: np.ndarray, size: tuple[int, int]) -> None:
    image = at_2mm(head)
    label = MetaTensor(coordinates(head.shape), affine=image.affine)
    transform = BrainBoxd(("image", "label"), source_key="image", size=size)
    start, end = BrainBox(size).compute_bounding_box(image)

    boxed = transform({"image": image, "label": label})
    assert boxed["image"].shape == boxed["label"].shape == (1, *size, head.shape[2])
    inside = (slice(None), *covered(start, end, head.shape))
    assert boxed["label"][boxed["label"] > 0].tolist() == label[inside].flatten().tolist()
    image_at_label = np.append(0, head)[boxed["label"].long().numpy()]
    np.testing.assert_array_equal(boxed["image"].numpy(), image_at_label)

    restored = transform.inverse(boxed)
    assert torch.equal(restored["label"][inside].as_tensor(), label[inside].as_tensor())
    assert restored["label"].shape == label.shape


def test_a_second_call_gives_the_same_box(head: np.ndarray) -> None:
    transform = BrainBox((64, 64))
    first = transform(at_2mm(head))
    transform(at_2mm(np.roll(head, 5, axis=0)))
    assert torch.equal(transform(at_2mm(head)).as_tensor(), first.as_tensor())
