"""Weights and their settings: ``model.json`` holds how the network of ``model.pt`` is used."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

import torch

from bundle.errors import InputError, missing_content
from bundle.files import read_json, write_json
from bundle.quality import QualityModel
from bundle.transforms.preprocessing import Box, Space
from bundle.transforms.slices import Plane

__all__ = [
    "WeightsSettings",
    "describe_weights",
    "find_weights",
    "load_ensemble",
    "missing_weights",
    "read_settings",
    "unfit_weights",
    "warn_of_other_settings",
    "weights_hash",
    "write_settings",
]

_log = logging.getLogger(__name__)


def _one_of(choices: Any) -> tuple[str, Callable[[Any], bool]]:
    names = get_args(choices)
    return f"one of {', '.join(names)}", lambda value: isinstance(value, str) and value in names


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)  # bool is an int


def _is_quality_model(value: Any) -> bool:
    if value is None or isinstance(value, QualityModel):
        return True
    try:
        model = QualityModel(**value)
    except (TypeError, ValueError):
        return False
    return all(map(_is_number, (*model.dice, *model.lesion, model.least_dice)))


_POSITIVE = ("a number above 0", lambda value: _is_number(value) and 0 < value < float("inf"))
_EXPECTED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "space": _one_of(Space),
    "spacing_mm": _POSITIVE,
    "box": _one_of(Box),
    "box_mm": _POSITIVE,
    "offsets": (
        "a list of whole numbers",
        lambda value: isinstance(value, list | tuple) and {type(offset) for offset in value} == {int},
    ),
    "plane": _one_of(Plane),
    "threshold": ("a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1),
    "epoch": ("a whole number or null", lambda value: value is None or type(value) is int),
    "validation_dice": ("a number or null", lambda value: value is None or _is_number(value)),
    "quality": ("null, or dice and lesion with three numbers each and least_dice", _is_quality_model),
}


@dataclass(frozen=True)
class WeightsSettings:
    """The settings of a weights file's network, the content of ``model.json``.

    Attributes:
        space: ``"mni"`` if heads are registered to the MNI template, ``"native"`` if not.
        spacing_mm: voxel size in mm.
        box: how the slices are cropped, see :class:`bundle.transforms.VolumePreprocessing`.
        box_mm: side of the slices in mm; ``thesis_180`` crops 180 mm and resizes them to as many voxels.
        offsets: the stack's slices relative to its own.
        plane: anatomical plane of the slices.
        threshold: probability from which a voxel is lesion.
        epoch: epoch of the weights; None if unknown.
        validation_dice: mean Dice of that epoch's validation; None if there was none.
        quality: predicts how good a mask is; None until ``scripts.quality`` has fitted it to validation cases.

    Raises:
        InputError: when a value cannot be used.
    """

    space: Space
    spacing_mm: float
    box: Box
    box_mm: float
    offsets: Sequence[int]
    plane: Plane = "axial"
    threshold: float = 0.5
    epoch: int | None = None
    validation_dice: float | None = None
    quality: QualityModel | None = None

    def __post_init__(self) -> None:
        for name, (expected, is_valid) in _EXPECTED.items():
            value = getattr(self, name)
            if not is_valid(value):
                raise InputError(f"{name} is {value!r}: {expected} is expected.")
        object.__setattr__(self, "offsets", tuple(self.offsets))
        if isinstance(self.quality, Mapping):
            object.__setattr__(self, "quality", QualityModel(**self.quality))

    @property
    def slice_size(self) -> int:
        """Height and width of the slices in voxels."""
        return round(self.box_mm / self.spacing_mm)

    def differences(self, other: WeightsSettings) -> str:
        """Return how the preparation of images differs, such as ``"spacing_mm 1.0 and not 2.0"``, or ``""``."""
        return ", ".join(
            f"{name} {getattr(self, name)} and not {getattr(other, name)}"
            for name in ("space", "spacing_mm", "box", "box_mm", "offsets")
            if getattr(self, name) != getattr(other, name)
        )


_NAMES = [field.name for field in fields(WeightsSettings)]
_REQUIRED = [field.name for field in fields(WeightsSettings) if field.default is MISSING]


def _settings_file(weights: str | Path) -> Path:
    return Path(weights).with_suffix(".json")


def _from_earlier_versions(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with ``box_mm`` in place of an earlier version's ``slice_size`` in voxels."""
    settings = dict(content)
    if "box_mm" not in settings and _is_number(settings.get("slice_size")) and _is_number(settings.get("spacing_mm")):
        settings["box_mm"] = settings.pop("slice_size") * settings["spacing_mm"]
    return settings


def read_settings(weights: str | Path) -> WeightsSettings:
    """Return the settings of weights, from ``model.json`` for ``model.pt``.

    Raises:
        InputError: when the file is missing or damaged, lacks a setting, or has an unknown one or an invalid value.
    """
    file = _settings_file(weights)
    unusable = f"{weights} cannot be used: {file}, which describes how its images were prepared,"
    try:
        content = read_json(file)
    except InputError as error:
        if not Path(weights).exists():
            raise missing_weights(weights) from error
        raise InputError(f"{unusable} is missing or damaged: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{unusable} must hold {', '.join(_REQUIRED)}.")
    settings = _from_earlier_versions(content)
    if lacking := [name for name in _REQUIRED if name not in settings]:
        raise InputError(f"{unusable} lacks {', '.join(lacking)}.")
    if unknown := [name for name in settings if name not in _NAMES]:
        raise InputError(f"{unusable} has the unknown {', '.join(unknown)}; its keys are {', '.join(_NAMES)}.")
    try:
        return WeightsSettings(**settings)
    except InputError as error:
        raise InputError(f"{weights} cannot be used: in {file} {error}") from error


def write_settings(weights: str | Path, settings: WeightsSettings) -> None:
    """Write the settings of weights, ``model.json`` for ``model.pt``."""
    write_json(asdict(settings), _settings_file(weights))


def weights_hash(weights: str | Path) -> str:
    """Return the SHA-256 of a weights file, in hexadecimal.

    Raises:
        InputError: when the file does not exist.
    """
    try:
        with Path(weights).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise missing_weights(weights) from error


def describe_weights(weights: str | Path) -> str:
    """Return a line on weights for a log: the file, its epoch and its hash."""
    settings = read_settings(weights)
    parts = [] if settings.epoch is None else [f"epoch {settings.epoch}"]
    if settings.validation_dice is not None:
        parts.append(f"validation Dice {settings.validation_dice:.3f}")
    return f"{weights}: {', '.join([*parts, f'SHA-256 {weights_hash(weights)}'])}"


def find_weights(output_dir: str | Path, otherwise: str | Path) -> str:
    """Return the weights that a training wrote to a folder, its ``model.pt``, or other weights if there are none.

    Args:
        output_dir: the training's ``output_dir``.
        otherwise: the other weights.
    """
    trained = Path(output_dir) / "model.pt"
    if trained.is_file():
        return str(trained)
    _log.warning("%s has no weights of a training: %s is taken.", output_dir, otherwise)
    return str(otherwise)


def warn_of_other_settings(weights: str | Path, settings: WeightsSettings) -> None:
    """Log a warning if weights were trained on images that were prepared in another way.

    Weights without settings, as of another program, are not compared.
    """
    if not _settings_file(weights).is_file():
        return
    if differences := read_settings(weights).differences(settings):
        _log.warning("%s was trained with %s as in this training.", weights, differences)


def load_ensemble(
    network: torch.nn.Module, weights: Sequence[str], settings: WeightsSettings
) -> list[tuple[Plane, torch.nn.Module]]:
    """Return networks whose output is averaged with that of another: of other planes, or trained with other seeds.

    Args:
        network: the other network; copies of it take the weights.
        weights: the files.
        settings: the settings of the other network's weights.

    Returns:
        the plane of each network and the network in ``eval()``.

    Raises:
        InputError: when weights do not exist, are of another network, or their images were prepared in another way.
    """
    ensemble = []
    for path in weights:
        own = read_settings(path)
        if differences := own.differences(settings):
            raise InputError(f"{path} cannot be averaged with the other weights: it was trained with {differences}.")
        member = copy.deepcopy(network).eval()
        try:
            member.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch, pickle and zip errors differ from file to file
            raise unfit_weights(path, error) from error
        ensemble.append((own.plane, member))
    return ensemble


def missing_weights(path: str | Path) -> InputError:
    """Return the error for a file that does not exist, or whose content is not there."""
    sentence = missing_content(path).removesuffix(".") or f"{path} is not a file"
    return InputError(f"{sentence}: weights or a checkpoint of an earlier run are expected.")


def unfit_weights(path: str | Path, error: Exception) -> InputError:
    """Return the error for a file that torch cannot load into a network, with the first line of torch's error."""
    if sentence := missing_content(path):
        return InputError(sentence)
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    if "loading state_dict" in reason:
        reason += " its parameters are another network's; monai.bundle run takes the network of its configs."
    return InputError(f"{path} could not be loaded into this network: {reason}")
