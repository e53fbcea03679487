"""Where lesions are: volumes of ATLAS, the bank of masks and its grid, procedural lesions, the fit to a head."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.processing import resample_from_to

from bundle.data.simulate import ATLAS_QUANTILES_ML, Head, LesionMasks, draw_volume_ml
from bundle.data.simulate.lesions import draw_lesion, fit_lesion
from bundle.data.simulate.tissues import Tissue
from bundle.errors import InputError
from bundle.mni import atlas_grid
from tests.conftest import WriteNifti, ellipsoid

AT_2_MM = np.array([[2, 0, 0, -90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]], dtype=float)
"""FSL's grid of 91 x 109 x 91 voxels."""


def both_sides(bank: LesionMasks, volume_ml: float) -> tuple[np.ndarray, np.ndarray]:
    """The only mask of a bank as it is drawn from the left, and from the right."""
    rng, drawn = np.random.default_rng(0), []
    while len({int(mask.argmax()) for mask in drawn}) < 2:
        drawn.append(bank.draw(rng, volume_ml)[1])
        assert len(drawn) < 30
    return drawn[-2], drawn[-1]


# Volumes


def test_drawn_volumes_follow_atlas() -> None:
    rng = np.random.default_rng(0)
    drawn = np.percentile([draw_volume_ml(rng) for _ in range(6000)], [100 * share for share in ATLAS_QUANTILES_ML])
    np.testing.assert_allclose(drawn, (0.14, 1.0, 4.3, 31.9, 135.6), rtol=0.15)


# The bank of masks


def test_a_draw_gives_a_mask_near_the_volume_and_the_file_it_is_from(bank: LesionMasks) -> None:
    rng = np.random.default_rng(0)
    for volume_ml in (1.0, 10.0, 50.0):
        drawn = [bank.draw(rng, volume_ml) for _ in range(25)]
        volumes_ml = [mask.sum() / 1000 for _, mask in drawn]
        # Twelve of 48 masks, each of 1.14 times the volume of the one before.
        assert min(volumes_ml) > volume_ml / 1.14**7
        assert max(volumes_ml) < volume_ml * 1.14**7
        assert len({file for file, _ in drawn}) >= 6
        for (file, _), found in zip(drawn, volumes_ml, strict=True):
            assert np.asarray(nib.load(file).dataobj).sum() / 1000 == pytest.approx(found)


@pytest.mark.parametrize(("volume_ml", "expected"), [(0.001, slice(None, 12)), (1000.0, slice(-12, None))])
def test_beyond_the_bank_its_smallest_and_its_largest_are_drawn(
    volume_ml: float, expected: slice, bank: LesionMasks
) -> None:
    rng = np.random.default_rng(0)
    assert {bank.draw(rng, volume_ml)[0] for _ in range(60)} <= set(bank.files[expected])


def test_left_and_right_are_swapped_half_the_time(bank: LesionMasks) -> None:
    """The masks of the bank are on the left; voxel 98 is the middle."""
    rng = np.random.default_rng(0)
    right = 0
    for _ in range(120):
        mask = bank.draw(rng, 1.0)[1]
        right += bool(mask[99:].any())
        assert mask[:98].any() != mask[99:].any()
    assert 42 <= right <= 78


def test_a_mask_stored_from_right_to_left_on_another_grid_is_placed_where_it_is_in_the_world(
    shared_data: Path,
) -> None:
    file = shared_data / "lesion_masks" / "soop" / "bwsrsub-1003_lesion.nii.gz"
    stored, (affine, shape) = nib.load(file), atlas_grid()
    assert "".join(nib.aff2axcodes(stored.affine)) == "LAS"
    expected = np.asarray(resample_from_to(stored, (shape, affine), order=0).dataobj) > 0.5
    assert expected.sum() == (np.asarray(stored.dataobj) > 0.5).sum() > 1000
    drawn = both_sides(LesionMasks([str(file)], progress=False), 1.0)
    for mask in drawn:
        assert np.array_equal(mask, expected) or np.array_equal(mask, expected[::-1])
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_mask_on_voxels_of_2_mm_keeps_its_place_and_volume(dtype: type, write_nifti: WriteNifti) -> None:
    """A cube of ten voxels is 20 mm wide: 8 mL."""
    mask = np.zeros((91, 109, 91), dtype=dtype)
    mask[20:30, 40:50, 50:60] = 1
    file = write_nifti("coarse.nii.gz", mask, AT_2_MM)
    bank = LesionMasks([str(file)], progress=False)
    assert bank.volumes_ml.tolist() == [8.0]
    affine, shape = atlas_grid()
    expected = np.asarray(resample_from_to(nib.load(file), (shape, affine), order=0).dataobj) > 0.5
    for drawn in both_sides(bank, 8.0):
        assert np.array_equal(drawn, expected) or np.array_equal(drawn, expected[::-1])
    # From x = -50 + (-1..19) mm on.
    assert np.flatnonzero(expected.any(axis=(1, 2)))[[0, -1]] + affine[0, 3] == pytest.approx([-50.5, -31.5], abs=0.5)


def test_a_mask_of_one_volume_in_4d_and_what_is_outside_the_grid(write_nifti: WriteNifti) -> None:
    mask = np.zeros((30, 30, 30, 1), dtype=np.uint8)
    mask[5:15, 5:15, 5:15] = 1
    affine = np.eye(4)
    affine[:3, 3] = (-108, -20, 20)  # x from -103 on, of which the grid holds what is from -98 on
    bank = LesionMasks([str(write_nifti("partly.nii.gz", mask, affine))], progress=False)
    assert bank.volumes_ml.tolist() == [0.5]


def test_a_balanced_bank_draws_what_is_rare_as_often_as_what_is_frequent(write_nifti: WriteNifti) -> None:
    """Eleven masks at one place, six left and five right, weigh as much as the one that lies elsewhere."""
    affine, shape = atlas_grid()
    corners = {f"often_{n}": (40 if n < 6 else shape[0] - 50, 100, 90) for n in range(11)} | {"rare": (60, 40, 30)}
    files = []
    for name, (x, y, z) in corners.items():
        mask = np.zeros(shape, dtype=np.uint8)
        mask[x : x + 10, y : y + 10, z : z + 10] = 1
        files.append(str(write_nifti(f"{name}.nii.gz", mask, affine)))
    rng, rare, on_both_sides = np.random.default_rng(0), {}, 0
    for balanced in (False, True):
        bank = LesionMasks(files, progress=False, balanced=balanced)
        drawn = [bank.draw(rng, 1.0) for _ in range(400)]
        rare[balanced] = np.mean([Path(file).name == "rare.nii.gz" for file, _ in drawn])
        for file, mask in drawn:
            if mask.sum() == 2000:
                on_both_sides += 1
                assert balanced
                assert np.array_equal(mask, mask[::-1])
            else:
                assert mask.sum() == 1000, file
    assert rare[False] == pytest.approx(1 / 12, abs=0.05)
    assert rare[True] == pytest.approx(1 / 2, abs=0.08)
    assert on_both_sides == pytest.approx(40, abs=18)


def test_a_balanced_bank_draws_volumes_by_rarity_and_size(write_nifti: WriteNifti) -> None:
    """One of 8 mL that lies apart has the weight sqrt(8); of two of 1 mL at one place each has 1/2."""
    affine, shape = atlas_grid()
    files = []
    for name, x, edge in (("apart", 40, 20), ("first", 140, 10), ("second", 140, 10)):
        mask = np.zeros(shape, dtype=np.uint8)
        mask[x : x + edge, 100 : 100 + edge, 90 : 90 + edge] = 1
        files.append(str(write_nifti(f"{name}.nii.gz", mask, affine)))
    bank = LesionMasks(files, progress=False, balanced=True)
    rng = np.random.default_rng(0)
    drawn = [bank.draw_volume_ml(rng) for _ in range(2000)]
    assert set(drawn) == {1.0, 8.0}
    assert drawn.count(8.0) / 2000 == pytest.approx(8**0.5 / (8**0.5 + 1), abs=0.03)


def test_a_lesion_of_both_sides_has_the_volume_asked_for(bank: LesionMasks) -> None:
    """The masks of the bank are on the left, so that a mask and its mirror image have twice its volume."""
    rng, on_both_sides = np.random.default_rng(0), []
    balanced = LesionMasks(bank.files, progress=False, balanced=True)
    for _ in range(100):
        mask = balanced.draw(rng, 10.0)[1]
        if mask[:98].any() and mask[99:].any():
            on_both_sides.append(mask.sum() / 1000)
    assert len(on_both_sides) > 2
    assert 10 / 1.14**7 < min(on_both_sides) <= max(on_both_sides) < 10 * 1.14**7


def test_without_a_mask_there_is_no_bank() -> None:
    with pytest.raises(InputError, match=r"^There is no lesion mask to draw from\.$"):
        LesionMasks([])


def test_a_mask_that_cannot_be_used_is_named(write_nifti: WriteNifti, tmp_path: Path) -> None:
    good = write_nifti("good.nii.gz", np.pad(np.ones((7, 7, 7), np.uint8), 1), np.eye(4))
    far = np.eye(4)
    far[:3, 3] = 500
    damaged = tmp_path / "damaged.nii.gz"
    damaged.write_bytes(good.read_bytes()[:-40])
    several = write_nifti("several.nii.gz", np.ones((9, 9, 9, 2), np.uint8), np.eye(4))
    refused = {
        str(tmp_path / "missing.nii.gz"): r"does not exist\.",
        str(damaged): r"is a damaged gzip file \(.+\): copy or export it again\.",
        str(several): r"holds 2 volumes \(4D\): one 3D volume is expected\.",
        **{
            str(file): r"holds no lesion inside the ATLAS grid: a mask in MNI space is expected\."
            for file in (
                write_nifti("empty.nii.gz", np.zeros((9, 9, 9), np.uint8), np.eye(4)),
                write_nifti("far.nii.gz", np.pad(np.ones((7, 7, 7), np.uint8), 1), far),
            )
        },
    }
    for file, sentence in refused.items():
        with pytest.raises(InputError, match=f"^{file} {sentence}$"):
            LesionMasks([str(good), file], progress=False)


# Procedural lesions


@pytest.mark.parametrize("volume_ml", [0.1, 1.0, 10.0, 60.0])
def test_a_procedural_lesion_has_the_volume_asked_for_and_is_in_the_tissue(volume_ml: float, block_head: Head) -> None:
    """Exactly, but for the crumbs that are taken away."""
    tissue = (block_head.tissue == Tissue.GREY) | (block_head.tissue == Tissue.WHITE)
    drawn = [draw_lesion(tissue, volume_ml, np.random.default_rng(seed)) for seed in range(4)]
    volumes_ml = [lesion.sum() / 1000 for lesion in drawn]
    assert max(volumes_ml) <= volume_ml
    assert min(volumes_ml) >= 0.8 * volume_ml
    assert not any((lesion & ~tissue).any() for lesion in drawn)


def test_a_procedural_lesion_stays_in_one_hemisphere() -> None:
    tissue = np.ones((61, 60, 60), dtype=bool)
    sides = []
    for seed in range(12):
        lesion = draw_lesion(tissue, 30.0, np.random.default_rng(seed))
        across = lesion.any(axis=(1, 2))
        sides.append("right" if across[31:].any() else "left")
        assert not (across[:31].any() and across[31:].any())
    assert set(sides) == {"left", "right"}


# The fit to a head


def volume_of(tissue: Tissue, shape: tuple[int, int, int] = (60, 60, 60)) -> np.ndarray:
    return np.full(shape, tissue, dtype=np.uint8)


BALL = ellipsoid((60, 60, 60), (30, 30, 30), (14, 14, 14))


def test_a_mask_is_warped_by_some_millimetres_and_keeps_its_volume_in_tissue() -> None:
    fitted = [fit_lesion(BALL, volume_of(Tissue.WHITE), np.random.default_rng(seed)) for seed in range(8)]
    for lesion in fitted:
        assert lesion is not None
        assert 0.7 < lesion.sum() / BALL.sum() < 1.3
        assert not np.array_equal(lesion, BALL)
        assert not (lesion & ~ellipsoid(BALL.shape, (30, 30, 30), (21, 21, 21))).any()  # 7 mm at most
    assert len({lesion.tobytes() for lesion in fitted if lesion is not None}) == 8


@pytest.mark.parametrize("tissue", [Tissue.AIR, Tissue.OUTSIDE_BRAIN, Tissue.VENTRICLE])
def test_what_is_not_brain_tissue_is_never_lesion(tissue: Tissue) -> None:
    mixed = volume_of(Tissue.GREY)
    mixed[:, :, 34:] = tissue
    for seed in range(4):
        lesion = fit_lesion(BALL, mixed, np.random.default_rng(seed), opens=bool(seed % 2))
        assert lesion is not None
        assert lesion.any()
        assert not lesion[:, :, 34:].any()


def test_a_mask_of_which_less_than_half_is_tissue_does_not_fit() -> None:
    mixed = volume_of(Tissue.WHITE)
    mixed[:, :, 26:] = Tissue.AIR
    assert all(fit_lesion(BALL, mixed, np.random.default_rng(seed)) is None for seed in range(4))


def test_fluid_deep_inside_is_part_of_the_lesion_and_fluid_beside_it_is_not() -> None:
    """A sulcus of 6 mm runs through the middle, another where the lesion ends."""
    mixed = volume_of(Tissue.GREY)
    mixed[:, :, 28:34] = Tissue.CSF
    mixed[:, :, 44:] = Tissue.CSF
    lesion = fit_lesion(BALL, mixed, np.random.default_rng(0))
    assert lesion is not None
    assert lesion[28:33, 28:33, 28:34].all()
    assert not lesion[:, :, 47:].any()


def test_an_opened_lesion_takes_the_tissue_between_it_and_the_ventricle() -> None:
    mixed = volume_of(Tissue.WHITE)
    mixed[:, :, 47:] = Tissue.VENTRICLE  # 2 mm above the ball
    closed, opened = (fit_lesion(BALL, mixed, np.random.default_rng(1), opens) for opens in (False, True))
    assert closed is not None
    assert opened is not None
    assert (opened >= closed).all()
    assert opened[:, :, 40:47].sum() > closed[:, :, 40:47].sum()
    assert not opened[:, :, 47:].any()
