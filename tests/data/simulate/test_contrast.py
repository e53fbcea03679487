"""Contrasts as found: the ratios asked for, and what contrast agent makes bright."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, Tissue
from bundle.data.simulate.contrast import add_contrast_agent, map_contrast, vary_contrast
from bundle.data.simulate.landmarks import fluid_level

pytestmark = pytest.mark.slow


def level(image: np.ndarray, tissue: np.ndarray, kind: Tissue) -> float:
    return float(np.median(image[tissue == kind]))


@pytest.fixture(scope="module")
def drawn(label_head: Head) -> np.ndarray:
    """A head drawn from its label map."""
    return label_head.t1w(np.random.default_rng(0))


@pytest.mark.parametrize(("grey", "fluid"), [(0.52, 0.12), (0.70, 0.25), (0.84, 0.40)])
@pytest.mark.parametrize("kind", ["scan", "drawn"])
def test_grey_matter_and_fluid_get_the_levels_asked_for(
    whole_head: Head, label_head: Head, drawn: np.ndarray, kind: str, grey: float, fluid: float
) -> None:
    head, image = (whole_head, whole_head.image) if kind == "scan" else (label_head, drawn)
    assert image is not None
    mapped = map_contrast(image, head.tissue, grey, fluid)
    white = level(mapped, head.tissue, Tissue.WHITE)
    assert white == pytest.approx(level(image, head.tissue, Tissue.WHITE), abs=0.01)
    assert level(mapped, head.tissue, Tissue.GREY) / white == pytest.approx(grey / white, abs=0.01)
    assert fluid_level(mapped, head.tissue) == pytest.approx(fluid, abs=0.01)
    # The order of intensities is kept, and the air around the head is air.
    assert np.array_equal(mapped > 0, image > 0)
    order = np.argsort(image[::9, ::9, ::9], axis=None)
    assert (np.diff(mapped[::9, ::9, ::9].ravel()[order]) >= -1e-5).all()


def test_contrast_agent_brightens_vessels_dura_and_choroid_plexus_only(whole_head: Head) -> None:
    image, tissue = whole_head.image, whole_head.tissue
    assert image is not None
    enhanced = add_contrast_agent(image, tissue, np.random.default_rng(1))
    assert (enhanced >= image).all()
    assert np.array_equal(enhanced > 0, image > 0)
    bright = enhanced > image + 0.2
    assert 5 < bright.sum() / 1000 < 120
    # Solid tissue away from fluid and surface is as it was; the ventricles have plexus in a small part.
    deep = ndimage.binary_erosion(tissue >= Tissue.GREY, iterations=5) & (tissue != Tissue.VENTRICLE)
    assert bright[deep].mean() < 0.01
    ventricle = tissue == Tissue.VENTRICLE
    assert 0.002 < bright[ventricle].mean() < 0.3
    # The superior sagittal sinus: bright at the midline above the brain, over much of its length.
    top = np.array([np.flatnonzero(tissue[98, y] >= Tissue.CSF).max(initial=0) for y in range(tissue.shape[1])])
    roof = [bright[94:103, y, top[y] - 4 : top[y] + 6].any() for y in range(60, 180)]
    assert np.mean(roof) > 0.8


def test_cases_have_contrasts_of_their_own_and_some_have_agent(block_head: Head) -> None:
    assert block_head.image is not None
    ratios, names = [], []
    for seed in range(40):
        scan, done = vary_contrast(block_head.image, block_head.tissue, np.random.default_rng(seed))
        names += done
        ratios.append(level(scan, block_head.tissue, Tissue.GREY) / level(scan, block_head.tissue, Tissue.WHITE))
    assert set(names) == {"mprage", "gradient echo", "low field", "contrast agent"}
    assert 1 <= names.count("contrast agent") <= 10
    assert min(ratios) < 0.6
    assert 0.75 < max(ratios) < 0.9


def test_a_contrast_depends_on_the_random_state_alone_and_leaves_the_head(block_head: Head) -> None:
    assert block_head.image is not None
    before = block_head.image.copy()
    for seed in range(6):
        first, again = (vary_contrast(block_head.image, block_head.tissue, np.random.default_rng(seed)) for _ in "ab")
        assert first[0].tobytes() == again[0].tobytes()
        assert first[1] == again[1]
        assert not np.shares_memory(first[0], block_head.image)
    assert np.array_equal(block_head.image, before)
