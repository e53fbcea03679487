"""Settings beside weights: one schema, read from every version; weights named by path, epoch and hash."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.weights import (
    WeightsSettings,
    describe_weights,
    find_weights,
    load_ensemble,
    read_settings,
    weights_hash,
    write_settings,
)

SETTINGS = WeightsSettings(
    space="native",
    spacing_mm=2.0,
    box="brain",
    box_mm=192,
    offsets=(-2, -1, 0, 1),
    plane="coronal",
    threshold=0.4,
    epoch=12,
    validation_dice=0.6125,
)
CONTENT = asdict(SETTINGS) | {"offsets": [-2, -1, 0, 1]}
EARLIER = {"space": "mni", "spacing_mm": 2.0, "box": "brain", "slice_size": 96, "offsets": [-2, -1, 0, 1]}
"""What a ``model.json`` of an earlier version holds."""


def network(weight: float) -> nn.Linear:
    """One weight of a known value."""
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, weight)
    return linear


def save(file: Path, model: nn.Module, settings: WeightsSettings) -> str:
    """Write weights and their settings."""
    file.parent.mkdir(exist_ok=True)
    torch.save(model.state_dict(), file)
    write_settings(file, settings)
    return str(file)


def with_content(folder: Path, content: object) -> Path:
    """Return weights in ``folder`` with this beside them."""
    (folder / "model.pt").touch()
    (folder / "model.json").write_text(json.dumps(content))
    return folder / "model.pt"


def test_settings_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_settings(tmp_path / "model.pt", SETTINGS)
    assert json.loads((tmp_path / "model.json").read_text()) == CONTENT
    assert read_settings(tmp_path / "model.pt") == SETTINGS


@pytest.mark.parametrize(
    ("spacing_mm", "box_mm", "slice_size"), [(1.0, 192, 192), (2.0, 192, 96), (1.5, 192, 128), (2.5, 160, 64)]
)
def test_slices_have_as_many_voxels_as_the_box_holds(spacing_mm: float, box_mm: float, slice_size: int) -> None:
    assert replace(SETTINGS, spacing_mm=spacing_mm, box_mm=box_mm).slice_size == slice_size


@pytest.mark.parametrize(("spacing_mm", "slice_size"), [(2.0, 96), (1.0, 192), (4 / 3, 144), (0.9, 208)])
def test_slice_size_of_earlier_versions_is_a_box_in_mm(spacing_mm: float, slice_size: int, tmp_path: Path) -> None:
    earlier = EARLIER | {"spacing_mm": spacing_mm, "slice_size": slice_size}
    settings = read_settings(with_content(tmp_path, earlier))
    assert settings.box_mm == pytest.approx(spacing_mm * slice_size)
    assert settings.slice_size == slice_size


def test_settings_that_earlier_versions_lack_have_the_values_of_then(tmp_path: Path) -> None:
    settings = read_settings(with_content(tmp_path, EARLIER))
    assert (settings.plane, settings.threshold) == ("axial", 0.5)
    assert settings.epoch is settings.validation_dice is None


def test_the_shipped_weights_are_used_in_mni_space_at_2_mm() -> None:
    settings = read_settings(Path(bundle_root()) / "models" / "model.pt")
    assert (settings.space, settings.spacing_mm, settings.box_mm, settings.slice_size) == ("mni", 2.0, 192, 96)


@pytest.mark.parametrize("content", [None, "", '{"spacing_mm": 2.0,', b"\xff\xfe\x00"], ids=str)
def test_missing_and_damaged_settings_are_refused(content: str | bytes | None, tmp_path: Path) -> None:
    (tmp_path / "model.pt").touch()
    if content is not None:
        (tmp_path / "model.json").write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(
        InputError, match=r"model\.pt cannot be used: .*model\.json, which describes .* missing or damaged"
    ):
        read_settings(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [[], 2.0, None])
def test_settings_that_are_not_named_are_refused(content: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json, which .* must hold space, spacing_mm, box, box_mm, offsets\."):
        read_settings(with_content(tmp_path, content))


def test_settings_that_lack_something_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json, which .* lacks space, box, box_mm, offsets\."):
        read_settings(with_content(tmp_path, {"spacing_mm": 2.0}))


def test_unknown_settings_are_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.json, .* has the unknown spacing; its keys are space, spacing_mm, "):
        read_settings(with_content(tmp_path, CONTENT | {"spacing": 2.0}))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("space", "MNI", "one of native, mni"),
        ("box", ["brain"], "one of brain, thesis_180, thesis_192"),
        ("plane", "oblique", "one of axial, coronal, sagittal"),
        ("spacing_mm", "2 mm", "a number above 0"),
        ("spacing_mm", 0, "a number above 0"),
        ("box_mm", True, "a number above 0"),
        ("offsets", [], "a list of whole numbers"),
        ("offsets", [-1, 0.5], "a list of whole numbers"),
        ("threshold", 40, "a number from 0 to 1"),
        ("epoch", 1.5, "a whole number or null"),
        ("validation_dice", "0.6", "a number or null"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_file(
    name: str, value: object, expected: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError) as refused:
        read_settings(with_content(tmp_path, CONTENT | {name: value}))
    assert str(refused.value) == (
        f"{tmp_path / 'model.pt'} cannot be used: in {tmp_path / 'model.json'} {name} is {value!r}: "
        f"{expected} is expected."
    )


def test_where_the_weights_are_missing_too_they_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model\.pt does not exist: weights or a checkpoint"):
        read_settings(tmp_path / "model.pt")


# Which weights


def test_weights_are_described_by_epoch_validation_and_hash(tmp_path: Path) -> None:
    file = save(tmp_path / "model.pt", network(1.0), SETTINGS)
    digest = hashlib.sha256(Path(file).read_bytes()).hexdigest()
    assert weights_hash(file) == digest
    assert describe_weights(file) == f"{file}: epoch 12, validation Dice 0.613, SHA-256 {digest}"
    write_settings(file, replace(SETTINGS, epoch=None, validation_dice=None))
    assert describe_weights(file) == f"{file}: SHA-256 {digest}"


def test_the_weights_of_a_training_are_found_where_it_wrote_them(tmp_path: Path) -> None:
    assert find_weights(tmp_path, "shipped.pt") == "shipped.pt"
    save(tmp_path / "model.pt", network(1.0), SETTINGS)
    assert find_weights(tmp_path, "shipped.pt") == str(tmp_path / "model.pt")


# Several networks


def test_ensemble_weights_are_loaded_into_copies_with_their_planes(tmp_path: Path) -> None:
    files = [
        save(tmp_path / plane / "model.pt", network(weight), replace(SETTINGS, plane=plane, threshold=0.5))
        for plane, weight in (("coronal", 2.0), ("axial", 3.0))
    ]
    own = network(1.0).train()
    ensemble = load_ensemble(own, files, SETTINGS)
    assert [(plane, one.weight.item(), one.training) for plane, one in ensemble] == [
        ("coronal", 2.0, False),
        ("axial", 3.0, False),
    ]
    assert own.weight.item() == 1.0


def test_ensemble_weights_of_other_images_or_networks_are_refused(tmp_path: Path) -> None:
    file = save(tmp_path / "model.pt", network(1.0), replace(SETTINGS, spacing_mm=1.0, plane="sagittal"))
    with pytest.raises(InputError, match=r"cannot be averaged .* trained with spacing_mm 1\.0 and not 2\.0\."):
        load_ensemble(network(1.0), [file], SETTINGS)
    save(tmp_path / "model.pt", nn.Linear(2, 1), SETTINGS)
    with pytest.raises(InputError, match=r"model\.pt could not be loaded into this network"):
        load_ensemble(network(1.0), [file], SETTINGS)
    with pytest.raises(InputError, match=r"none\.pt does not exist"):
        load_ensemble(network(1.0), [str(tmp_path / "none.pt")], SETTINGS)


def test_weights_that_are_a_pointer_name_the_remedy_instead_of_torch_s_text(tmp_path: Path) -> None:
    file = tmp_path / "model.pt"
    write_settings(file, SETTINGS)
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    with pytest.raises(InputError, match=r"model\.pt is a pointer of git LFS, .*: fetch it with `git lfs pull`"):
        load_ensemble(torch.nn.Linear(1, 1), [str(file)], SETTINGS)
    file.unlink()
    file.symlink_to("../.git/annex/objects/a/b/model.pt")
    with pytest.raises(
        InputError, match=r"model\.pt is a link of git-annex .*`datalad get`.*: weights or a checkpoint"
    ):
        weights_hash(file)
    file.with_suffix(".json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\n")
    file.unlink()
    file.write_bytes(b"weights")
    with pytest.raises(InputError, match=r"model\.json is a pointer of git LFS, .*: fetch it with `git lfs pull`"):
        read_settings(file)
