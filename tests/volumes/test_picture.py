"""Pictures of masks against the truth: the codes, and what is painted in which colour."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb

from bundle.volumes.picture import Agreement, agreement, save_montage

COLOURS = {Agreement.HIT: "#009E73", Agreement.MISS: "#E69F00", Agreement.FALSE_ALARM: "#CC79A7"}
OPACITY = 0.7
SHAPE = (20, 24, 6)


def block(*corners: tuple[int, int, int], size: int = 6) -> np.ndarray:
    """A mask of squares in axial slices, by their corners."""
    mask = np.zeros(SHAPE, dtype=np.uint8)
    for i, j, k in corners:
        mask[i : i + size, j : j + size, k] = 1
    return mask


def painted(path: Path, kind: Agreement) -> np.ndarray:
    """Rows and columns ``(n, 2)`` of the pixels with this colour laid over white."""
    picture = matplotlib.image.imread(path)[..., :3]
    colour = OPACITY * np.array(to_rgb(COLOURS[kind])) + (1 - OPACITY)
    return np.argwhere(np.abs(picture - colour).max(axis=-1) < 0.01)


def save(tmp_path: Path, **cases: tuple[np.ndarray, np.ndarray]) -> Path:
    """A picture of cases ``(truth, mask)`` on white images."""
    path = tmp_path / "montage.png"
    image = np.ones(SHAPE, dtype=np.float32)
    save_montage({title: (image, truth, mask) for title, (truth, mask) in cases.items()}, path)
    return path


def test_the_code_of_each_combination() -> None:
    truth, mask = np.array([[0, 1], [1, 0]]), np.array([[0, 1], [0, 1]])
    codes = agreement(mask, truth)
    assert codes.tolist() == [[0, 1], [2, 3]]  # nothing, hit; miss, false alarm
    assert codes.dtype == np.uint8


def test_codes_do_not_depend_on_the_value_of_a_lesion_voxel() -> None:
    assert agreement(np.array([0.5, 255]), np.array([True, False])).tolist() == [Agreement.HIT, Agreement.FALSE_ALARM]


@pytest.mark.parametrize(
    ("truth", "mask", "kind"),
    [
        (block((2, 2, 3)), block((2, 2, 3)), Agreement.HIT),
        (block((2, 2, 3)), block(), Agreement.MISS),
        (block(), block((2, 2, 3)), Agreement.FALSE_ALARM),
    ],
    ids=["hit", "miss", "false alarm"],
)
def test_each_kind_is_painted_in_its_colour_alone(
    truth: np.ndarray, mask: np.ndarray, kind: Agreement, tmp_path: Path
) -> None:
    path = save(tmp_path, case=(truth, mask))
    areas = {other: len(painted(path, other)) for other in Agreement if other}
    assert areas[kind] > 500
    assert sum(areas.values()) == areas[kind]


def test_the_areas_are_in_proportion_to_the_voxels(tmp_path: Path) -> None:
    """Of two squares of 36 voxels that overlap in 12, there are 12 hits, 24 misses and 24 false alarms."""
    path = save(tmp_path, case=(block((2, 2, 3)), block((6, 2, 3))))
    hits, misses, alarms = (len(painted(path, kind)) for kind in Agreement if kind)
    assert misses / hits == pytest.approx(2, rel=0.1)
    assert alarms / hits == pytest.approx(2, rel=0.1)


def test_right_is_right_and_front_is_up(tmp_path: Path) -> None:
    """In RAS the first axis runs to the right and the second to the front."""
    path = save(tmp_path, case=(block((1, 1, 3), (13, 17, 3)), block((13, 17, 3))))
    miss, hit = (painted(path, kind).mean(axis=0) for kind in (Agreement.MISS, Agreement.HIT))
    assert hit[0] < miss[0]  # nearer to the top of the picture
    assert hit[1] > miss[1]


def test_the_slice_with_most_lesion_is_shown(tmp_path: Path) -> None:
    """Slice 1 has one square that is missed, slice 4 two false alarms."""
    path = save(tmp_path, case=(block((2, 2, 1)), block((2, 2, 4), (10, 10, 4))))
    assert len(painted(path, Agreement.FALSE_ALARM)) > 500
    assert len(painted(path, Agreement.MISS)) == 0


def test_there_is_a_row_per_case_in_their_order(tmp_path: Path) -> None:
    found, missed, invented = block((2, 2, 3)), (block((2, 2, 3)), block()), (block(), block((2, 2, 3)))
    path = save(tmp_path, first=(found, found), second=missed, third=invented)
    rows = [painted(path, kind)[:, 0] for kind in Agreement if kind]
    assert all(len(row) > 500 for row in rows)
    assert rows[0].max() < rows[1].min()
    assert rows[1].max() < rows[2].min()
