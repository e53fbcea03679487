"""Where varied lesions lie: up to the dura, along the cortex, deep, at the top of the brain; several in one head."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from bundle.data.simulate import Head, LesionMasks
from bundle.data.simulate.tissues import Tissue
from bundle.data.simulate.varied_lesions import VariedLesion, extend_to_dura, place_varied_lesions
from tests.conftest import ellipsoid

pytestmark = pytest.mark.slow

SHAPE = (80, 90, 80)
DURA = 68
"""White matter up to 53, cortex of 10 mm, 5 mm of fluid, and what is outside the brain from here on."""


AT_THE_CONVEXITY = (4, 9, 10, 13)
"""Seeds of which the first lesion of 8 mL is one at the convexity."""


def layers() -> np.ndarray:
    tissue = np.full(SHAPE, Tissue.WHITE, dtype=np.uint8)
    tissue[:, :, 53:63] = Tissue.GREY
    tissue[:, :, 63:DURA] = Tissue.CSF
    tissue[:, :, DURA:] = Tissue.OUTSIDE_BRAIN
    return tissue


LAYERS = layers()


def placed(volume_ml: float, seeds: int, further_lesions: float = 0.0) -> list[list[VariedLesion]]:
    return [
        place_varied_lesions(LAYERS, None, volume_ml, np.random.default_rng(seed), further_lesions)
        for seed in range(seeds)
    ]


@pytest.fixture(scope="module")
def small() -> list[VariedLesion]:
    """Lesions of 80 cases of 0.6 mL."""
    return [lesion for lesions in placed(0.6, 80) for lesion in lesions[:1]]


# Up to the dura


BLOCK = np.zeros(SHAPE, dtype=bool)
BLOCK[46:72, 30:60, 38:60] = True
"""It ends in the cortex, 8 mm below the hull."""


def test_cortex_and_fluid_over_a_lesion_belong_to_it() -> None:
    """Everything over it, and no more beside it than the closing's 6 mm; over one 18 mm below the hull, nothing."""
    extended = extend_to_dura(BLOCK, LAYERS)
    assert (extended >= BLOCK).all()
    assert extended[50:68, 34:56, 38:DURA].all()
    assert not extended[:, :, DURA:].any()
    beside = extended.copy()
    beside[40:78, 24:66] = False
    assert not beside.any()
    deep = BLOCK.copy()
    deep[:, :, 50:] = False
    assert np.array_equal(extend_to_dura(deep, LAYERS), deep)


def test_nothing_is_added_in_the_other_hemisphere_nor_in_a_ventricle() -> None:
    tissue, lesion = LAYERS.copy(), np.roll(BLOCK, -6, axis=0)
    tissue[60:, :, 63:DURA] = Tissue.VENTRICLE
    extended = extend_to_dura(lesion, tissue)
    assert extended[44:58, 40:50, DURA - 1].all()
    assert not extended[:40].any()
    assert not extended[tissue == Tissue.VENTRICLE].any()


def test_a_gyrus_beside_the_lesion_stays_out_of_the_label() -> None:
    """20 mm of cortex between the two halves of a lesion: no strip of label runs over it."""
    lesion = BLOCK.copy()
    lesion[:, 35:55] = False
    assert not extend_to_dura(lesion, LAYERS)[:, 43:47].any()


def test_in_a_real_head_the_label_touches_the_hull_all_over_the_lesion(template_head: Head) -> None:
    """Of the brain's outermost voxels within 4 mm of a large lesion, 95 % are its label or have it beside them."""
    brain = template_head.tissue >= Tissue.CSF
    hull = ndimage.binary_closing(np.pad(brain, 8), iterations=8)[8:-8, 8:-8, 8:-8] & brain
    surface = hull & ~ndimage.binary_erosion(hull)
    for centre in ((45, 114, 105), (150, 70, 100)):
        solid = (template_head.tissue == Tissue.GREY) | (template_head.tissue == Tissue.WHITE)
        lesion = ellipsoid(brain.shape, centre, (22, 26, 24)) & solid
        extended = extend_to_dura(lesion, template_head.tissue)
        assert not extended[~brain | (template_head.tissue == Tissue.VENTRICLE)].any()
        over = surface & ndimage.binary_dilation(lesion, iterations=2)
        assert over.sum() > 300
        assert ndimage.binary_dilation(extended)[over].mean() > 0.95
        assert ndimage.binary_dilation(lesion)[over].mean() < ndimage.binary_dilation(extended)[over].mean()


def test_many_large_lesions_reach_the_dura_and_small_ones_do_not(small: list[VariedLesion]) -> None:
    """In a part of the block, 43 mm up to the dura, nearly all lesions of 36 mm reach the cortex: 70 % are extended."""
    assert not any("to the dura" in lesion.source for lesion in small)
    upper = LAYERS[:, :, 25:]
    cases = [place_varied_lesions(upper, None, 25.0, np.random.default_rng(seed)) for seed in range(20)]
    to_dura = [lesions for lesions in cases if "to the dura" in lesions[0].source]
    assert 7 <= len(to_dura) <= 17
    for lesions in to_dura:
        parts = [lesion.mask for lesion in lesions if lesion.source == lesions[0].source]
        assert np.logical_or.reduce(parts)[:, :, DURA - 26].any()


# Thin, deep and at the top


def test_a_thin_lesion_follows_the_cortex_from_the_white_matter_on_and_is_4_mm_thick_at_most(
    small: list[VariedLesion],
) -> None:
    """The cortex is 10 mm thick here; a laminar one is all in it too."""
    thin = [lesion for lesion in small if lesion.source in ("thin cortical", "laminar")]
    assert len(thin) > 8
    for lesion in thin:
        assert (LAYERS[lesion.mask] == Tissue.GREY).all()
        thickness = lesion.mask.sum(axis=2).max()
        assert 2 <= thickness <= 4
        assert (lesion.look == "laminar") == (lesion.source == "laminar")
        across = [np.ptp(np.flatnonzero(lesion.mask.any(axis=axes))) for axes in ((1, 2), (0, 2))]
        assert max(across) >= 2 * thickness


def test_lacunar_infarcts_are_deep_and_of_a_tenth_to_one_millilitre(small: list[VariedLesion]) -> None:
    lacunar = [lesion for lesion in small if lesion.source == "lacunar"]
    assert 14 <= len(lacunar) <= 42  # 35 % of 80
    for lesion in lacunar:
        assert 0.08 <= lesion.mask.sum() / 1000 <= 1.0
        assert (DURA - np.flatnonzero(lesion.mask.any(axis=(0, 1)))).min() > 16


def test_no_lacunar_infarct_is_larger_than_a_millilitre() -> None:
    assert not any(lesion.source == "lacunar" for lesions in placed(5.0, 12) for lesion in lesions[:1])


def test_lesions_at_the_convexity_end_at_the_top_of_the_brain(template_head: Head, bank: LesionMasks) -> None:
    """Within 12 mm of its highest tissue, and they reach the hull."""
    tissue = template_head.tissue
    top = np.flatnonzero((tissue >= Tissue.GREY).any(axis=(0, 1)))[-1]
    for seed in AT_THE_CONVEXITY:
        lesion = place_varied_lesions(tissue, bank, 8.0, np.random.default_rng(seed))[0]
        assert "at the convexity" in lesion.source
        assert np.flatnonzero(lesion.mask.any(axis=(0, 1)))[-1] >= top - 12
        assert ndimage.binary_dilation(lesion.mask, iterations=2)[tissue < Tissue.CSF].any()


# Several in one head


def test_lesions_of_a_case_do_not_overlap_and_are_in_the_brain() -> None:
    for lesions in placed(8.0, 10, further_lesions=4):
        assert all(lesion.mask.any() for lesion in lesions)
        assert np.sum([lesion.mask for lesion in lesions], axis=0).max() == 1
        assert not any(lesion.mask[:, :, DURA:].any() for lesion in lesions)


def test_further_lesions_come_on_top_as_many_as_asked_for_on_average() -> None:
    """Some lie in others and are left out."""
    numbers = [len(lesions) for lesions in placed(0.6, 16, further_lesions=3)]
    assert 2.5 < np.mean(numbers) < 4.6


def test_some_cases_have_lesions_of_more_than_one_age() -> None:
    """A quarter of the large ones are in two parts, a sixth have an older one beside."""
    cases = placed(30.0, 24)
    looks = [{lesion.look for lesion in lesions} for lesions in cases]
    assert 0.15 < np.mean([len(of_case) > 1 for of_case in looks]) < 0.6
    parts = [lesions for lesions in cases if len(lesions) > 1 and lesions[0].source == lesions[1].source]
    assert any(lesions[0].look != lesions[1].look for lesions in parts)


def test_the_same_seed_gives_the_same_lesions() -> None:
    first, again, other = (
        place_varied_lesions(LAYERS, None, 12.0, np.random.default_rng(seed), 2.0) for seed in (3, 3, 4)
    )
    assert [(a.mask.tobytes(), a.look, a.source) for a in first] == [
        (b.mask.tobytes(), b.look, b.source) for b in again
    ]
    assert first[0].mask.tobytes() != other[0].mask.tobytes()
