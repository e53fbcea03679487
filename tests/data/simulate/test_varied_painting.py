"""How varied lesions look, in heads of two contrasts."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate.tissues import Tissue
from bundle.data.simulate.varied_lesions import Look, VariedLesion, extend_to_dura
from bundle.data.simulate.varied_painting import GLIOTIC, Levels, levels_of, paint_varied_lesion
from tests.conftest import ellipsoid

pytestmark = pytest.mark.slow

SHAPE = (80, 80, 70)
TISSUE = np.full(SHAPE, Tissue.WHITE, dtype=np.uint8)
TISSUE[:, :, 45:50] = Tissue.GREY
TISSUE[:, :, 50:56] = Tissue.CSF
TISSUE[:, :, 56:] = Tissue.OUTSIDE_BRAIN

CONTRASTS = (Levels(fluid=0.2, grey=0.6, white=1.0), Levels(fluid=0.35, grey=0.8, white=1.0))
MASK = extend_to_dura(ellipsoid(SHAPE, (58, 40, 40), (14, 16, 14)) & (TISSUE >= Tissue.GREY), TISSUE)
IN_WHITE = MASK & (TISSUE == Tissue.WHITE)
SEEDS = range(8)


def head_of(levels: Levels) -> np.ndarray:
    """Tissues of one intensity each, 0.5 outside the brain."""
    intensity = np.zeros(6, dtype=np.float32)
    intensity[[Tissue.OUTSIDE_BRAIN, Tissue.CSF, Tissue.GREY, Tissue.WHITE, Tissue.VENTRICLE]] = (
        0.5,
        levels.fluid,
        levels.grey,
        levels.white,
        levels.fluid,
    )
    return intensity[TISSUE]


def painted(look: Look, levels: Levels, seed: int, mask: np.ndarray = MASK) -> np.ndarray:
    return paint_varied_lesion(head_of(levels), VariedLesion(mask, look, "test"), TISSUE, np.random.default_rng(seed))


@pytest.fixture(params=CONTRASTS, ids=["high contrast", "low contrast"])
def levels(request: pytest.FixtureRequest) -> Levels:
    found: Levels = request.param
    return found


def test_the_levels_of_a_head_are_its_tissues_medians(levels: Levels) -> None:
    found = levels_of(head_of(levels), TISSUE)
    assert (found.fluid, found.grey, found.white) == pytest.approx((levels.fluid, levels.grey, levels.white))


def test_fluid_that_is_mixed_with_tissue_in_narrow_sulci_does_not_count() -> None:
    """Four layers are 0.2, where the outermost two of six are 0.5."""
    image = head_of(CONTRASTS[0])
    image[:, :, [50, 55]] = 0.5
    assert levels_of(image, TISSUE).fluid == pytest.approx(0.2)


@pytest.mark.parametrize("look", get_args(Look))
def test_nothing_is_brighter_than_before_or_changed_outside_the_brain_and_fluid_stays(
    look: Look, levels: Levels
) -> None:
    before = head_of(levels)
    for seed in SEEDS:
        after = painted(look, levels, seed)
        assert after.dtype == np.float32
        assert (after <= before).all()
        assert np.array_equal(after[:, :, 56:], before[:, :, 56:])
        assert after[TISSUE == Tissue.CSF] == pytest.approx(levels.fluid, rel=0.06)
        assert after[MASK].min() >= 0.94 * levels.fluid
        far = ndimage.distance_transform_edt(~MASK) > 5 * np.sqrt(3)
        assert np.array_equal(after[far], before[far])


@pytest.mark.parametrize("look", get_args(Look))
def test_every_lesion_is_seen_at_its_border_with_the_white_matter(look: Look, levels: Levels) -> None:
    inner = IN_WHITE & ~ndimage.binary_erosion(MASK, iterations=3)
    outer = ndimage.binary_dilation(MASK, iterations=6) & ~ndimage.binary_dilation(MASK, iterations=3)
    outer &= TISSUE == Tissue.WHITE
    for seed in SEEDS:
        after = painted(look, levels, seed)
        assert after[inner].mean() < after[outer].mean() - 0.12, seed


def test_a_cavity_is_fluid_from_its_rim_to_the_dura(levels: Levels) -> None:
    """In the white matter and in the cortex; here and there strands are left, and patches of the cortex."""
    core = ndimage.binary_erosion(MASK | (TISSUE < Tissue.CSF), iterations=4) & MASK
    share_of_fluid = []
    for seed in SEEDS:
        after = painted("cavity", levels, seed)
        assert np.median(after[core & IN_WHITE]) == pytest.approx(1.1 * levels.fluid, rel=0.15)
        cortex = after[core & (TISSUE == Tissue.GREY)]
        share_of_fluid.append((cortex < levels.fluid + 0.3 * (levels.grey - levels.fluid)).mean())
    assert np.median(share_of_fluid) > 0.6
    assert min(share_of_fluid) < 0.97


def test_the_anatomy_shows_through_a_scar(levels: Levels) -> None:
    """White matter has 0.5 to 0.7 of its intensity, and grey matter is darker than that."""
    core = ndimage.binary_erosion(MASK, iterations=3)
    low, high = GLIOTIC
    for seed in SEEDS:
        after = painted("gliotic", levels, seed)
        white, grey = (np.median(after[core & (code == TISSUE)]) for code in (Tissue.WHITE, Tissue.GREY))
        assert low * levels.white <= white <= high * levels.white
        assert grey < 0.9 * white


def test_a_subacute_lesion_is_darker_than_grey_matter_and_not_as_dark_as_fluid(levels: Levels) -> None:
    core = ndimage.binary_erosion(MASK, iterations=5) & IN_WHITE
    for seed in SEEDS:
        middle = np.median(painted("subacute", levels, seed)[core])
        assert levels.fluid + 0.4 * (levels.grey - levels.fluid) < middle < levels.grey


def test_a_laminar_lesion_is_a_dark_band_in_the_cortex(levels: Levels) -> None:
    band = np.zeros(SHAPE, dtype=bool)
    band[50:70, 30:60, 45:48] = True
    for seed in SEEDS:
        after = painted("laminar", levels, seed, band)
        assert levels.fluid < np.median(after[band]) < levels.fluid + 0.75 * (levels.grey - levels.fluid)
        assert after[50:70, 30:60, 49].mean() > 0.95 * levels.grey
        assert after[50:70, 30:60, 42].mean() > 0.95 * levels.white


def test_a_hollow_strip_of_cortex_is_nearer_to_fluid_than_to_grey_matter(levels: Levels) -> None:
    """3 mm are too thin for a rim, strands and what is left of the cortex."""
    band = np.zeros(SHAPE, dtype=bool)
    band[50:70, 30:60, 45:48] = True
    for seed in SEEDS:
        after = painted("cavity", levels, seed, band)
        assert np.median(after[band]) < (levels.fluid + levels.grey) / 2


def test_two_ages_differ_in_one_head() -> None:
    """An old cavity beside a scar, which touch."""
    levels, (old, scar) = CONTRASTS[0], (MASK.copy(), MASK.copy())
    old[:, 40:], scar[:, :40] = False, False
    image = head_of(levels)
    for lesion in (VariedLesion(old, "cavity", "test"), VariedLesion(scar, "gliotic", "test")):
        image = paint_varied_lesion(image, lesion, TISSUE, np.random.default_rng(0))
    assert np.median(image[scar & IN_WHITE]) > np.median(image[old & IN_WHITE]) + 0.2


def test_the_same_seed_gives_the_same_bytes_and_the_head_is_not_changed() -> None:
    head = head_of(CONTRASTS[0])
    lesion = VariedLesion(MASK, "cavity", "test")
    first, again, other = (paint_varied_lesion(head, lesion, TISSUE, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes() != other.tobytes()
    assert np.array_equal(head, head_of(CONTRASTS[0]))
