"""Slice stacks: which slices each one holds, and that they are views of one padded copy."""

from __future__ import annotations

import pytest
import torch

from bundle.transforms import OFFSETS, Plane, StackSlices
from bundle.transforms.slices import from_plane, to_plane

HEIGHT, WIDTH = 3, 2


def numbered_volume(depth: int) -> torch.Tensor:
    """``(1, H, W, D)`` whose voxels equal their slice's index, counted from 10, so that 0 means padding."""
    return torch.arange(10, 10 + depth, dtype=torch.float32).expand(1, HEIGHT, WIDTH, depth).contiguous()


def slice_numbers(stacks: torch.Tensor) -> list[list[int]]:
    """The slice index that each slice of ``(D, S, H, W)`` is made of; every pixel of a slice must agree."""
    assert torch.equal(stacks, stacks[:, :, :1, :1].expand_as(stacks))
    numbers: list[list[int]] = stacks[:, :, 0, 0].int().tolist()
    return numbers


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        (OFFSETS, [[0, 0, 10, 11], [0, 10, 11, 12], [10, 11, 12, 13], [11, 12, 13, 14], [12, 13, 14, 0]]),
        ((-1, 0, 1), [[0, 10, 11], [10, 11, 12], [11, 12, 13], [12, 13, 14], [13, 14, 0]]),
        ((0,), [[10], [11], [12], [13], [14]]),
        ((-4, -2, 0, 2), [[0, 0, 10, 12], [0, 0, 11, 13], [0, 10, 12, 14], [0, 11, 13, 0], [10, 12, 14, 0]]),
        ((1, 2), [[11, 12], [12, 13], [13, 14], [14, 0], [0, 0]]),
        ((-3, -2), [[0, 0], [0, 0], [0, 10], [10, 11], [11, 12]]),
    ],
)
def test_each_stack_holds_its_neighbours_and_zeros_beyond_the_ends(
    offsets: tuple[int, ...], expected: list[list[int]]
) -> None:
    assert slice_numbers(StackSlices(offsets)(numbered_volume(5))) == expected


def test_the_default_is_two_before_and_one_after() -> None:
    volume = numbered_volume(4)
    assert torch.equal(StackSlices()(volume), StackSlices((-2, -1, 0, 1))(volume))


def test_a_volume_of_one_slice_is_padded_on_both_sides() -> None:
    assert slice_numbers(StackSlices()(numbered_volume(1))) == [[0, 0, 10, 0]]


def test_rows_and_columns_keep_their_places() -> None:
    volume = torch.rand(1, 5, 4, 6)
    stacks = StackSlices()(volume)
    assert stacks.shape == (6, 4, 5, 4)
    for row, column, number in ((0, 3, 2), (4, 0, 5)):
        assert stacks[number, 2, row, column] == volume[0, row, column, number]


@pytest.mark.parametrize("offsets", [(0, 1, 3), (-2, 0, 1), (1, 0), (2, 1, 0), (0, 0), ()])
def test_offsets_that_do_not_rise_evenly_are_refused(offsets: tuple[int, ...]) -> None:
    message = r"offsets must rise in even steps, like \(-2, -1, 0, 1\), got \("
    with pytest.raises(ValueError, match=message):
        StackSlices(offsets)


@pytest.mark.parametrize("shape", [(2, 4, 4, 4), (4, 4, 4), (1, 1, 4, 4, 4)])
def test_anything_but_one_volume_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"takes one volume \(1, H, W, D\), got \[" + ", ".join(map(str, shape))):
        StackSlices()(torch.zeros(shape))


@pytest.mark.parametrize(("offsets", "padding"), [(OFFSETS, 3), ((0,), 0), ((-4, -2, 0, 2), 6), ((1, 2), 2)])
def test_stacks_are_views_of_one_padded_copy(offsets: tuple[int, ...], padding: int) -> None:
    volume = numbered_volume(7)
    stacks = StackSlices(offsets)(volume)
    float_bytes = 4
    assert stacks.untyped_storage().nbytes() == (7 + padding) * HEIGHT * WIDTH * float_bytes
    assert stacks.untyped_storage().data_ptr() != volume.untyped_storage().data_ptr()


def test_one_slice_is_the_same_memory_in_all_its_stacks() -> None:
    stacks = StackSlices()(numbered_volume(7))
    pointers = {stacks[3 - offset, place].data_ptr() for place, offset in enumerate(OFFSETS)}
    assert len(pointers) == 1


@pytest.mark.parametrize(
    ("plane", "shape", "place"),
    [("axial", (32, 48, 19), (3, 5, 7)), ("coronal", (32, 48, 48), (3, 7, 5)), ("sagittal", (48, 48, 32), (5, 7, 3))],
)
def test_a_plane_has_its_slices_last_and_is_upright(
    plane: Plane, shape: tuple[int, ...], place: tuple[int, ...]
) -> None:
    """The voxel at 3 right, 5 anterior, 7 superior; 19 axial slices become 48 rows, the width of an axial slice."""
    volume = torch.zeros(32, 48, 19)
    volume[3, 5, 7] = 1
    turned = to_plane(volume, plane)
    assert turned.shape == shape
    assert turned.nonzero().tolist() == [list(place)]


def test_rows_above_the_width_are_a_multiple_of_16() -> None:
    assert to_plane(torch.zeros(32, 48, 95), "coronal").shape == (32, 96, 48)
    assert to_plane(torch.zeros(32, 48, 97), "sagittal").shape == (48, 112, 32)


@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_plane_turned_back_is_the_volume(plane: Plane) -> None:
    volume = torch.rand(32, 48, 19)
    assert torch.equal(from_plane(to_plane(volume, plane)[None], plane, 19)[0], volume)


def test_a_plane_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no plane 'oblique': choose from axial, coronal, sagittal"):
        to_plane(torch.zeros(4, 4, 4), "oblique")  # type: ignore[arg-type]
