"""Fluid that is no lesion: cysts push the tissue away, a cavity of the septum lies between the lateral ventricles."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, Tissue
from bundle.data.simulate.fluid_spaces import (
    add_arachnoid_cyst,
    add_septum_cavity,
    enlarge_cisterna_magna,
    push_aside,
)
from bundle.data.simulate.landmarks import fluid_level
from tests.conftest import ellipsoid

pytestmark = pytest.mark.slow

FLUID = (Tissue.CSF, Tissue.VENTRICLE)
PART = np.s_[18:178, 22:212, 0:160]
"""Of the template, with the whole brain in it."""
COMMISSURES = (98 - 18, 134 - 22, 72)


@pytest.fixture(scope="module")
def brain(template_head: Head) -> tuple[np.ndarray, np.ndarray]:
    """Image and tissue of the template's brain."""
    assert template_head.image is not None
    assert (template_head.tissue[PART] >= Tissue.CSF).sum() == (template_head.tissue >= Tissue.CSF).sum()
    return template_head.image[PART].copy(), template_head.tissue[PART].copy()


@pytest.fixture(scope="module")
def ball() -> tuple[np.ndarray, np.ndarray]:
    """Image and tissue of a ball of white matter with a radius of 35 mm, a ventricle in it, and a layer of cortex."""
    shape, centre = (81, 81, 81), (40, 40, 40)
    tissue = np.zeros(shape, dtype=np.uint8)
    for radius, kind in ((35, Tissue.CSF), (34, Tissue.GREY), (31, Tissue.WHITE), (8, Tissue.VENTRICLE)):
        tissue[ellipsoid(shape, centre, (radius,) * 3)] = kind
    return np.array([0, 0.5, 0.2, 0.65, 1.0, 0.2], dtype=np.float32)[tissue], tissue


def test_a_cyst_is_fluid_of_its_size_and_pushes_the_tissue_away(ball: tuple[np.ndarray, np.ndarray]) -> None:
    image, tissue = ball
    nothing = np.zeros(tissue.shape, dtype=bool)
    centre, radii = np.array([40, 40, 73]), (14.0, 14.0, 10.0)
    changed, changed_tissue = push_aside(image, tissue, np.random.default_rng(0), nothing, centre, radii)
    cyst = ellipsoid(tissue.shape, tuple(centre), radii) & (tissue >= Tissue.CSF)
    fluid = (changed_tissue == Tissue.CSF) & (tissue > Tissue.CSF)
    assert fluid.sum() == pytest.approx((cyst & (tissue > Tissue.CSF)).sum(), rel=0.25)
    core = ellipsoid(tissue.shape, tuple(centre), (10, 10, 7)) & (tissue > Tissue.CSF)
    assert (changed_tissue[core] == Tissue.CSF).all()
    assert np.median(changed[core]) == pytest.approx(fluid_level(image, tissue), abs=0.03)
    # The cortex that was where the cyst is lies below it, instead of being gone.
    below = slice(55, 66)
    assert not (tissue[40, 40, below] == Tissue.GREY).any()
    assert (changed_tissue[40, 40, below] == Tissue.GREY).any()
    # What is far away has not moved, and image and tissue agree.
    assert changed[:, :, :25] == pytest.approx(image[:, :, :25], abs=1e-3)
    inside = ndimage.binary_erosion(changed_tissue == Tissue.WHITE, iterations=2)
    assert np.abs(changed[inside] - 1).max() < 0.1


@pytest.mark.parametrize("add", [add_arachnoid_cyst, enlarge_cisterna_magna])
def test_cysts_lie_at_the_surface_and_leave_skull_and_what_is_kept(
    brain: tuple[np.ndarray, np.ndarray], add: object
) -> None:
    assert callable(add)
    image, tissue = brain
    depth = ndimage.distance_transform_edt(ndimage.binary_closing(tissue >= Tissue.CSF, iterations=4))
    keep_off = np.zeros(tissue.shape, dtype=bool)
    keep_off[: COMMISSURES[0], :, 60:] = True
    sizes_ml = []
    for seed in range(3):
        changed, changed_tissue = add(image, tissue, np.random.default_rng(seed), keep_off)
        fluid = np.isin(changed_tissue, FLUID) & ~np.isin(tissue, FLUID)
        sizes_ml.append(fluid.sum() / 1000)
        assert np.array_equal(changed[keep_off], image[keep_off])
        assert np.array_equal(changed_tissue[keep_off], tissue[keep_off])
        assert np.array_equal(changed[tissue < Tissue.CSF], image[tissue < Tissue.CSF])
        assert np.array_equal(changed_tissue < Tissue.CSF, tissue < Tissue.CSF)
        if fluid.sum() > 500:
            assert depth[fluid].min() < 6
            core = ndimage.binary_erosion(fluid, iterations=2)
            assert np.median(changed[core]) == pytest.approx(fluid_level(image, tissue), abs=0.08)
    assert max(sizes_ml) > 2
    assert max(sizes_ml) < 60


def test_a_large_cisterna_is_at_the_midline_behind_and_below(brain: tuple[np.ndarray, np.ndarray]) -> None:
    image, tissue = brain
    nothing = np.zeros(tissue.shape, dtype=bool)
    for seed in range(2):
        _, changed = enlarge_cisterna_magna(image, tissue, np.random.default_rng(seed), nothing)
        x, y, z = np.argwhere((changed == Tissue.CSF) & (tissue > Tissue.CSF)).mean(axis=0)
        assert abs(x - COMMISSURES[0]) < 8
        assert y < COMMISSURES[1] - 45
        assert z < COMMISSURES[2] - 15


def test_a_cavity_of_the_septum_is_fluid_at_the_midline_between_the_ventricles(
    brain: tuple[np.ndarray, np.ndarray],
) -> None:
    image, tissue = brain
    nothing = np.zeros(tissue.shape, dtype=bool)
    sizes_ml, backs = [], []
    for seed in range(4):
        changed, changed_tissue = add_septum_cavity(image, tissue, np.random.default_rng(seed), nothing)
        moved = np.argwhere(np.abs(changed - image) > 0.1)
        assert np.abs(moved[:, 0] - COMMISSURES[0]).max() < 35
        cavity = (changed_tissue == Tissue.VENTRICLE) & (tissue != Tissue.VENTRICLE)
        sizes_ml.append(cavity.sum() / 1000)
        x, y, z = np.argwhere(cavity).mean(axis=0)
        assert abs(x - COMMISSURES[0]) < 4
        assert COMMISSURES[1] - 45 < y < COMMISSURES[1] + 30
        assert COMMISSURES[2] - 5 < z < COMMISSURES[2] + 35
        at_midline = cavity[COMMISSURES[0] - 2 : COMMISSURES[0] + 3]
        backs.append(int(np.argwhere(at_midline)[:, 1].min()))
        middle = changed[COMMISSURES[0]][ndimage.binary_erosion(at_midline[2], iterations=1)]
        assert np.median(middle) == pytest.approx(fluid_level(image, tissue), abs=0.08)
    assert 0.2 < min(sizes_ml) < max(sizes_ml) < 12
    assert max(backs) - min(backs) > 5  # the front part alone, or all of it


def test_without_ventricles_there_is_no_cavity_of_the_septum(ball: tuple[np.ndarray, np.ndarray]) -> None:
    image, tissue = ball
    solid = np.where(tissue == Tissue.VENTRICLE, np.uint8(Tissue.WHITE), tissue)
    changed, changed_tissue = add_septum_cavity(image, solid, np.random.default_rng(0), np.zeros(image.shape, bool))
    assert np.array_equal(changed, image)
    assert np.array_equal(changed_tissue, solid)
