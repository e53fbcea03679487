"""The lesions of a mask, each with its volume, location and probability."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.special import entr

from bundle.errors import InputError, explain
from bundle.files import stem
from bundle.headers import open_image
from bundle.lesions import components, voxel_ml

__all__ = ["RegionAtlas", "VolumeLesion", "entropy_bits", "find_lesions"]

_ON_ONE_SIDE = 0.9


class VolumeLesion(NamedTuple):
    """A connected component of a mask, see :mod:`bundle.lesions`.

    Args:
        number: from 1, the largest lesion first.
        volume_ml: volume in mL.
        x_mm: of the centre of mass in the image's world, to the right.
        y_mm: to the front.
        z_mm: to the top.
        side: "left", "right" or "both" in MNI space; "unknown" if the head is not registered.
        region: that with most of the lesion; empty without an atlas, or outside its regions.
        mean_probability: over the lesion.
        mean_uncertainty: the entropy of the probability in bits, 0..1.
        lesion_probability: that it touches a true lesion, see :class:`bundle.quality.QualityModel`; None if the weights
            have no such model.
    """

    number: int
    volume_ml: float
    x_mm: float
    y_mm: float
    z_mm: float
    side: str
    region: str
    mean_probability: float
    mean_uncertainty: float
    lesion_probability: float | None = None

    @property
    def centre_mm(self) -> tuple[float, float, float]:
        """The centre of mass in the image's world, in mm."""
        return self.x_mm, self.y_mm, self.z_mm


class RegionAtlas:
    """An atlas of regions in MNI space, such as arterial territories or lobes.

    The names of the regions are in a file of the image's name with the suffix ``.tsv`` (BIDS: columns index and name)
    or ``.txt`` (a line ``number|short name|name|...`` for each region); without such a file their numbers are used.

    Args:
        file: label image in MNI space, 0 outside the regions.

    Raises:
        InputError: if a file cannot be read or is not an atlas.
    """

    def __init__(self, file: str | Path) -> None:
        try:
            image = open_image(file)
            self.labels = np.asarray(image.dataobj)
        except Exception as error:  # whatever a damaged file makes a reader raise
            raise InputError(explain(file, error)) from error
        if self.labels.ndim != 3 or self.labels.dtype.kind not in "iuf":
            raise InputError(f"{file} is not a 3D image of labels: an atlas in MNI space is expected.")
        self.to_voxels = np.linalg.inv(image.affine)
        self.names = _region_names(Path(file))

    def at(self, points_mm: np.ndarray) -> str:
        """Return the region with most of the points ``(N, 3)`` in MNI space, an empty text if none has any."""
        voxels = np.round(apply_affine(self.to_voxels, points_mm)).astype(int)
        inside = ((voxels >= 0) & (voxels < self.labels.shape)).all(axis=1)
        found = self.labels[tuple(voxels[inside].T)].astype(int)
        label = int(np.bincount(found[found > 0], minlength=1).argmax())
        return self.names.get(label, str(label)) if label else ""


def _region_names(image: Path) -> dict[int, str]:
    files = (image.with_name(stem(image) + suffix) for suffix in (".tsv", ".txt"))
    if (file := next(filter(Path.exists, files), None)) is None:
        return {}
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
        if file.suffix == ".tsv":
            return {int(row["index"]): row["name"] for row in csv.DictReader(lines, delimiter="\t")}
        return {int(row[0]): row[2] for row in (line.split("|") for line in lines)}
    except (KeyError, IndexError, ValueError) as error:
        raise InputError(
            f"{file} does not name the regions of {image}: columns index and name, or lines 'number|short name|name', "
            "are expected."
        ) from error


def _side(points_mm: np.ndarray) -> str:
    right = float((points_mm[:, 0] > 0).mean())
    return "right" if right >= _ON_ONE_SIDE else "both" if right > 1 - _ON_ONE_SIDE else "left"


def entropy_bits(probability: np.ndarray) -> np.ndarray:
    """Return the entropy of each voxel's probability in bits, float32: 0 if it is 0 or 1, 1 if it is 0.5."""
    return ((entr(probability) + entr(1 - probability)) / np.log(2)).astype(np.float32)


def find_lesions(
    mask: np.ndarray,
    probability: np.ndarray,
    affine: np.ndarray,
    to_mni: np.ndarray | None = None,
    regions: RegionAtlas | None = None,
) -> list[VolumeLesion]:
    """Find the lesions of a mask, the largest first.

    Args:
        mask: ``(H, W, D)``, not 0 is lesion.
        probability: of the same shape, 0..1.
        affine: voxels to the image's world in mm, ``(4, 4)``.
        to_mni: from that world to MNI space, ``(4, 4)``; without it side and region are unknown.
        regions: an atlas in MNI space.
    """
    labels, _ = components(mask > 0)
    found = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        inside = labels[box] == number
        points_mm = apply_affine(affine, np.argwhere(inside) + [edge.start for edge in box])
        in_mni = None if to_mni is None else apply_affine(to_mni, points_mm)
        side = "unknown" if in_mni is None else _side(in_mni)
        region = "" if in_mni is None or regions is None else regions.at(in_mni)
        x_mm, y_mm, z_mm = points_mm.mean(axis=0).tolist()
        p = probability[box][inside]
        mean_p, mean_bits = float(p.mean()), float(entropy_bits(p).mean())
        volume_ml = len(points_mm) * voxel_ml(affine)
        found.append(VolumeLesion(number, volume_ml, x_mm, y_mm, z_mm, side, region, mean_p, mean_bits))
    found.sort(key=lambda lesion: lesion.volume_ml, reverse=True)
    return [lesion._replace(number=number) for number, lesion in enumerate(found, start=1)]
