"""Pictures: masks against the truth in their colours, the overview of cases, the distribution of volumes."""

from __future__ import annotations

from itertools import combinations
from operator import itemgetter
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from scipy import ndimage

from bundle.volumes.picture import (
    Agreement,
    agreement,
    save_lesion_overview,
    save_lesion_slices,
    save_montage,
    save_volume_distribution,
)
from bundle.volumes.planes import save_lesion_planes

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


# The overview of simulated cases


def overview(tmp_path: Path, *labels: np.ndarray) -> np.ndarray:
    """The pixels ``(H, W, 3)`` of an overview of white images with these lesions."""
    path = tmp_path / "overview.png"
    image = np.ones(SHAPE, dtype=np.float32)
    save_lesion_overview({f"case {number}": (image, label) for number, label in enumerate(labels)}, path)
    return matplotlib.image.imread(path)[..., :3]


def of_colour(picture: np.ndarray, colour: str, tolerance: float = 0.05) -> np.ndarray:
    """Rows and columns ``(n, 2)`` of the pixels of a colour."""
    return np.argwhere(np.abs(picture - np.array(to_rgb(colour))).max(axis=-1) < tolerance)


@pytest.mark.parametrize(("cases", "rows"), [(1, 1), (3, 1), (4, 2), (12, 4)])
def test_an_overview_has_three_cases_in_a_row(cases: int, rows: int, tmp_path: Path) -> None:
    height, width, _ = overview(tmp_path, *[block((2, 2, 3))] * cases).shape
    assert (height, width) == (int(2.9 * rows * 110), 15 * 110)
    assert (tmp_path / "overview.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_lesion_is_outlined_beside_the_image_as_it_is(tmp_path: Path) -> None:
    """Of six pictures in a row the second has the outline of the first case, and only it."""
    picture = overview(tmp_path, block((2, 2, 3)))
    outline = of_colour(picture, COLOURS[Agreement.MISS])
    sixth = picture.shape[1] / 6
    assert len(outline) > 100
    assert sixth < outline[:, 1].min() < outline[:, 1].max() < 2 * sixth
    # A line, no area: its middle is empty.
    middle = (outline.min(axis=0) + outline.max(axis=0)) // 2
    assert np.abs(outline - middle).max(axis=1).min() > 10


def test_the_outlined_slice_is_the_one_with_most_lesion_and_the_right_way_up(tmp_path: Path) -> None:
    """A square at the left back in slice 1, two at the right front in slice 4."""
    left, right = (
        of_colour(overview(tmp_path, label), COLOURS[Agreement.MISS]).mean(axis=0)
        for label in (block((1, 1, 1)), block((1, 1, 1), (13, 17, 4), (13, 10, 4)))
    )
    assert right[0] < left[0]
    assert right[1] > left[1]


def test_a_case_without_lesion_has_no_outline(tmp_path: Path) -> None:
    assert len(of_colour(overview(tmp_path, block()), COLOURS[Agreement.MISS])) == 0


# The distribution of volumes


def distribution(tmp_path: Path, volumes_ml: list[float]) -> np.ndarray:
    path = tmp_path / "volumes.png"
    save_volume_distribution(volumes_ml, {0.25: 1.0, 0.5: 10.0, 0.75: 100.0}, path)
    picture = matplotlib.image.imread(path)
    assert picture.shape[:2] == (440, 660)
    return picture[..., :3]


def test_the_cohort_s_quantiles_are_points_on_a_straight_line_over_the_logarithm(tmp_path: Path) -> None:
    found = of_colour(distribution(tmp_path, [0.1, 1000.0]), "#D55E00")
    points, count = ndimage.label(np.isin(np.arange(440)[:, None] * 660 + np.arange(660), found @ (660, 1)))
    centres = np.array(ndimage.center_of_mass(points > 0, points, range(1, count + 1)))
    sizes = np.bincount(points.ravel())[1:]
    centres = centres[sizes > 10]
    assert len(centres) == 4  # three, and that of the legend
    # Equal steps up and to the right; the legend's is not on the line.
    on_line = [
        trio
        for trio in combinations(sorted(centres.tolist(), key=itemgetter(1)), 3)
        if np.abs(np.diff(trio, n=2, axis=0)).max() < 3 and trio[0][0] > trio[1][0] > trio[2][0]
    ]
    assert len(on_line) == 1


def test_the_curve_of_the_volumes_rises_from_the_smallest_to_the_largest(tmp_path: Path) -> None:
    """With nine of ten volumes small it is high up on the left, with nine of ten large low down."""
    means = []
    for volumes_ml in ([0.1] * 9 + [1000.0], [0.1] + [1000.0] * 9):
        curve = of_colour(distribution(tmp_path, volumes_ml), "#0072B2")
        between = curve[(curve[:, 1] > 250) & (curve[:, 1] < 400)]
        means.append(np.median(between[:, 0]))
    assert means[0] + 150 < means[1]


def outline(path: Path) -> np.ndarray:
    """Rows and columns ``(n, 2)`` of the pixels nearer to the outline's colour than to any grey."""
    picture = matplotlib.image.imread(path)[..., :3]
    return np.argwhere(np.abs(picture - np.array(to_rgb(COLOURS[Agreement.MISS]))).max(axis=-1) < 0.15)


def test_slices_show_the_outline_on_its_side_and_in_its_slice(tmp_path: Path) -> None:
    """One slice of six: the middle one, 2. A block at the left end of the first axis is left on the picture."""
    image = np.full(SHAPE, 0.5, dtype=np.float32)
    save_lesion_slices(image, block((1, 9, 2)), tmp_path / "left.png", slices=1)
    save_lesion_slices(image, block((13, 9, 2)), tmp_path / "right.png", slices=1)
    save_lesion_slices(image, block((1, 9, 4)), tmp_path / "elsewhere.png", slices=1)
    width = matplotlib.image.imread(tmp_path / "left.png").shape[1]
    assert len(outline(tmp_path / "left.png")) > 20
    assert outline(tmp_path / "left.png")[:, 1].max() < width / 2
    assert outline(tmp_path / "right.png")[:, 1].min() > width / 2
    assert len(outline(tmp_path / "elsewhere.png")) == 0


def test_slices_are_spread_over_the_head_alone(tmp_path: Path) -> None:
    """The head is in slices 2 to 5: of four shown, none is 0 or 1, where the mask is."""
    image = np.zeros(SHAPE, dtype=np.float32)
    image[..., 2:] = 0.5
    save_lesion_slices(image, block((6, 9, 0), (6, 9, 1)), tmp_path / "slices.png", slices=4)
    assert len(outline(tmp_path / "slices.png")) == 0


def test_planes_go_through_the_largest_lesion_on_its_side(tmp_path: Path) -> None:
    """Of two lesions the larger one is outlined in all three planes; the other is in none of them."""
    image = np.full((40, 40, 40), 0.5, dtype=np.float32)
    mask = np.zeros(image.shape, dtype=np.uint8)
    mask[4:12, 20:28, 6:14] = 1  # on the left, in the front half, low
    mask[30:33, 4:7, 30:33] = 1
    save_lesion_planes(image, mask, tmp_path / "planes.png")
    found, (height, width) = (
        outline(tmp_path / "planes.png"),
        matplotlib.image.imread(tmp_path / "planes.png").shape[:2],
    )
    # Three panels of one width under a title of 8 % of the height; a voxel is a 40th of a panel.
    for panel, (across, up) in enumerate(((4, 20), (4, 6), (20, 6))):
        inside = found[(found[:, 1] >= panel * width / 3) & (found[:, 1] < (panel + 1) * width / 3)]
        rows, columns = (inside - (0.08 * height, panel * width / 3)).T
        assert 40 * columns.min() / (width / 3) == pytest.approx(across, abs=1.2)
        assert 40 * columns.max() / (width / 3) == pytest.approx(across + 8, abs=1.2)
        assert 40 - 40 * rows.max() / (0.92 * height) == pytest.approx(up, abs=1.2)
        assert 40 - 40 * rows.min() / (0.92 * height) == pytest.approx(up + 8, abs=1.2)


def test_planes_of_an_empty_mask_show_the_head_alone_in_its_proportions(tmp_path: Path) -> None:
    image = np.zeros((30, 40, 20), dtype=np.float32)
    image[5:25, 5:35, 5:15] = 0.5  # 20 x 30 x 10 voxels of 1 x 1 x 3 mm: three planes of 20 x 30, 20 x 30, 30 x 30 mm
    save_lesion_planes(image, np.zeros(image.shape), tmp_path / "planes.png", (1.0, 1.0, 3.0))
    picture = matplotlib.image.imread(tmp_path / "planes.png")[..., :3]
    assert len(outline(tmp_path / "planes.png")) == 0
    assert picture.shape[0] / picture.shape[1] == pytest.approx(30 / 70 / 0.92, rel=0.01)
