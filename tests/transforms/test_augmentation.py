"""Random augmentation: repeatable, the same for all slices of a stack, and the same for image and label."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from monai.transforms import Compose, Flip, RandGaussianNoised

from bundle.transforms import BatchAugmentation, SliceAugmentation

SIZE = 96
SEEDS = range(8)


def disc(centre: tuple[int, int], radius: int) -> torch.Tensor:
    x, y = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    return (x - centre[0]) ** 2 + (y - centre[1]) ** 2 <= radius**2


def sample() -> dict[str, torch.Tensor]:
    """Four equal slices of a head with a bright blob to the right (high x) and front (high y), and its label."""
    blob = disc((62, 66), 9)
    head = disc((48, 48), 34).float() + 3 * blob
    return {"image": head.expand(4, SIZE, SIZE).clone(), "label": blob[None].float()}


def augmented(seed: int) -> dict[str, torch.Tensor]:
    return SliceAugmentation().set_random_state(seed)(sample())


def moved(seed: int) -> dict[str, torch.Tensor]:
    """The spatial part alone, with the draw that the whole has for this seed."""
    result: dict[str, torch.Tensor] = SliceAugmentation().set_random_state(seed).spatial(sample())
    return result


def test_axial_slices_are_flipped_left_to_right_half_of_the_time_and_sagittal_ones_never() -> None:
    """The blob is at high x; by flips alone it comes to low x."""
    for plane, flipped in (("axial", 10), ("coronal", 10), ("sagittal", 0)):
        flip = SliceAugmentation(plane).spatial.transforms[0]
        moved = [flip.set_random_state(seed)(sample())["label"][0, :40].any().item() for seed in range(20)]
        assert sum(moved) == pytest.approx(flipped, abs=5 if flipped else 0)


def test_the_same_seed_gives_the_same_sample() -> None:
    first, second = augmented(3), augmented(3)
    assert torch.equal(first["image"], second["image"])
    assert torch.equal(first["label"], second["label"])


@pytest.mark.parametrize("key", ["image", "label"])
def test_another_seed_gives_another_sample(key: str) -> None:
    assert not torch.equal(augmented(3)[key], augmented(4)[key])


def test_the_next_call_draws_again() -> None:
    augmentation = SliceAugmentation().set_random_state(3)
    assert not torch.equal(augmentation(sample())["image"], augmentation(sample())["image"])


def test_shapes_and_types_stay_and_the_input_is_unchanged() -> None:
    data = sample()
    result = SliceAugmentation().set_random_state(0)(data)
    for key in ("image", "label"):
        assert result[key].shape == data[key].shape
        assert result[key].dtype == torch.float32
        assert type(result[key]) is torch.Tensor
        assert torch.equal(data[key], sample()[key])


@pytest.mark.parametrize("seed", SEEDS)
def test_all_slices_of_a_stack_are_moved_the_same_way(seed: int) -> None:
    image = moved(seed)["image"]
    assert torch.equal(image, image[:1].expand_as(image))


@pytest.mark.parametrize("seed", SEEDS)
def test_all_slices_of_a_stack_get_the_same_intensities_but_for_noise(seed: int) -> None:
    augmentation = SliceAugmentation().set_random_state(seed)
    without_noise = [t for t in augmentation.intensity.transforms if not isinstance(t, RandGaussianNoised)]
    assert len(without_noise) == len(augmentation.intensity.transforms) - 1
    augmentation.intensity = Compose(without_noise)
    image = augmentation(sample())["image"]
    torch.testing.assert_close(image, image[:1].expand_as(image))


@pytest.mark.parametrize("seed", SEEDS)
def test_the_label_stays_binary_and_moves_with_the_image(seed: int) -> None:
    result = moved(seed)
    label, bright = result["label"][0] > 0, result["image"][2] > 2.5
    assert set(result["label"].unique().tolist()) == {0, 1}
    assert 2 * (label & bright).sum() / (label.sum() + bright.sum()) > 0.95
    assert torch.equal(augmented(seed)["label"], result["label"])


def test_the_label_does_move() -> None:
    before = sample()["label"]
    assert sum(not torch.equal(moved(seed)["label"], before) for seed in SEEDS) > len(SEEDS) // 2


@pytest.mark.parametrize("seed", SEEDS)
def test_outside_the_head_it_stays_0_and_inside_finite(seed: int) -> None:
    image, head = augmented(seed)["image"], moved(seed)["image"] != 0
    assert not image[~head].any()
    assert image[head].isfinite().all()
    assert image[head].count_nonzero() > 0.99 * head.sum()


@pytest.mark.parametrize("seed", SEEDS)
def test_the_blob_stays_brighter_than_the_rest_of_the_head(seed: int) -> None:
    result = augmented(seed)
    image, label, head = result["image"][1], result["label"][0] > 0, moved(seed)["image"][1] != 0
    assert image[label].mean() > 1.5 * image[head & ~label].mean()


def test_left_and_right_are_exchanged_but_never_front_and_back() -> None:
    """The blob is at high x and y; the affine alone cannot carry it across the middle."""
    places = np.array([torch.nonzero(moved(seed)["label"][0]).float().mean(dim=0).numpy() for seed in range(30)])
    flipped = (places[:, 0] < SIZE / 2).mean()
    assert 0.25 < flipped < 0.75
    assert (places[:, 1] > SIZE / 2).all()


def test_the_head_is_shifted_and_scaled_along_both_axes() -> None:
    """A disc in the middle keeps its centre and its extents under rotation and reflection."""
    found = [torch.nonzero(moved(seed)["image"][0]).float() for seed in range(20)]
    centres = torch.stack([head.mean(dim=0) for head in found])
    extents = torch.stack([head.amax(dim=0) - head.amin(dim=0) for head in found])
    assert centres.std(dim=0).min() > 2
    assert extents.std(dim=0).min() > 2


# A whole batch


@pytest.fixture
def drawn(batch: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every draw is 0.75: half of the largest change, the first way, and no flip unless all are flipped."""
    monkeypatch.setattr(torch, "rand", lambda *size, device: torch.full(size, 0.75, device=device))


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    image = torch.rand(3, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    return {"image": image, "label": (image[:, :1] > 0.7).float(), "name": image}


def change(batch: dict[str, torch.Tensor], **settings: float) -> dict[str, torch.Tensor]:
    still = {"flip": 0.0, "affine": 1.0, "rotate": 0.0, "zoom": 0.0, "shift": 0.0}
    return BatchAugmentation(**(still | settings))(batch)


def assert_moved(changed: dict[str, torch.Tensor], batch: dict[str, torch.Tensor], move: Callable) -> None:
    torch.testing.assert_close(changed["image"], move(batch["image"]), atol=2e-5, rtol=0)
    assert torch.equal(changed["label"], move(batch["label"]))
    assert changed["name"] is batch["name"]


@pytest.mark.usefixtures("drawn")
def test_samples_of_a_batch_are_flipped_left_to_right_as_by_monai(batch: dict[str, torch.Tensor]) -> None:
    flip = Flip(spatial_axis=0)
    assert_moved(change(batch, flip=1.0), batch, lambda images: torch.stack([flip(image) for image in images]))


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("flip", [0.0, 1.0])
def test_samples_of_a_batch_are_flipped_and_then_rotated_about_their_middle(
    batch: dict[str, torch.Tensor], flip: float
) -> None:
    """Half of the largest angle is a quarter turn."""

    def move(images: torch.Tensor) -> torch.Tensor:
        return torch.rot90(images.flip(2) if flip else images, 1, dims=(2, 3))

    assert_moved(change(batch, rotate=torch.pi, flip=flip), batch, move)


@pytest.mark.usefixtures("drawn")
def test_samples_of_a_batch_are_shifted_by_a_share_of_their_size(batch: dict[str, torch.Tensor]) -> None:
    """Half of an eighth of 32 is two pixels along each axis; zeros come in."""

    def move(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(images[:, :, 2:, 2:], (0, 2, 0, 2))

    assert_moved(change(batch, shift=1 / 8), batch, move)


@pytest.mark.usefixtures("drawn")
def test_samples_of_a_batch_are_zoomed_about_their_middle(batch: dict[str, torch.Tensor]) -> None:
    """Seen 1.25 times as far, a square of 20 pixels becomes one of 16."""
    square = torch.zeros(3, 1, 32, 32)
    square[:, :, 6:26, 6:26] = 1
    zoomed = change(batch | {"label": square}, zoom=0.5)["label"]
    expected = torch.zeros(3, 1, 32, 32)
    expected[:, :, 8:24, 8:24] = 1
    assert torch.equal(zoomed, expected)


def test_each_sample_of_a_batch_has_a_change_of_its_own_and_some_have_none() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 4, 32, 32).expand(400, 4, 32, 32)
    changed = BatchAugmentation(flip=0.25, affine=0.5)({"image": image, "label": image[:, :1]})["image"]
    same, flipped = ((changed - other).abs().amax(dim=(1, 2, 3)) < 1e-4 for other in (image, image.flip(2)))
    assert 0.31 < float(same.float().mean()) < 0.44  # 3/8
    assert 0.08 < float(flipped.float().mean()) < 0.17  # 1/8
    moved = changed[~same & ~flipped]
    assert len(moved.flatten(1).unique(dim=0)) == len(moved)


@pytest.mark.usefixtures("drawn")
def test_control_points_that_all_move_the_same_way_shift_a_sample_of_a_batch(batch: dict[str, torch.Tensor]) -> None:
    """Half of an eighth of 32 is two pixels along each axis."""

    def move(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.pad(images[:, :, 2:, 2:], (0, 2, 0, 2))

    assert_moved(change(batch, bend=1 / 8), batch, move)


def test_samples_of_a_batch_are_bent_each_in_its_own_way_within_bounds() -> None:
    """Each pixel tells where it comes from: control points move 3 of 96 pixels at most, and not by an affine."""
    torch.manual_seed(0)
    row, column = torch.meshgrid(torch.arange(96.0), torch.arange(96.0), indexing="ij")
    image = torch.stack([row, column]).expand(8, 2, 96, 96)
    moved = change({"image": image, "label": image[:, :1]}, bend=1 / 32)["image"][:, :, 4:-4, 4:-4]
    displacement = moved - image[:, :, 4:-4, 4:-4]
    # Bicubic weights add up to at most 1.375 along an axis, signs left out: so much can lie beyond the points.
    assert float(displacement.abs().max()) < 1.375**2 * 3
    assert float(displacement.abs().amax(dim=(1, 2, 3)).min()) > 1
    plane = torch.stack([row, column, torch.ones_like(row)], dim=-1)[4:-4, 4:-4].reshape(-1, 3)
    for field in displacement.flatten(0, 1):
        rest = field.reshape(-1, 1) - plane @ torch.linalg.lstsq(plane, field.reshape(-1, 1)).solution
        assert float(rest.std()) > 0.3


@pytest.mark.usefixtures("drawn")
def test_the_contrast_of_a_batch_changes_between_black_and_its_brightest_pixel(batch: dict[str, torch.Tensor]) -> None:
    """A draw of 0.75 is the square root of the largest exponent, 4: each sample is squared."""
    changed = change(batch, contrast=1.0, gamma=4.0)
    brightest = batch["image"].amax(dim=(1, 2, 3), keepdim=True)
    torch.testing.assert_close(changed["image"], batch["image"] ** 2 / brightest, atol=2e-5, rtol=0)
    assert torch.equal(changed["label"], batch["label"])


def test_the_share_of_samples_of_a_batch_with_another_contrast() -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 4, 16, 16).expand(400, 4, 16, 16) - 0.1
    changed = change({"image": image, "label": image[:, :1]}, contrast=0.25)["image"]
    same = (changed - image).abs().amax(dim=(1, 2, 3)) < 1e-4
    assert 0.68 < float(same.float().mean()) < 0.82
    assert len(changed[~same].flatten(1).unique(dim=0)) == int((~same).sum())
