"""The lesions of a mask, each with its size, place and probability."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.special import entr

from bundle.errors import InputError, explain
from bundle.files import stem
from bundle.lesions import components, voxel_ml

__all__ = ["RegionAtlas", "VolumeLesion", "entropy_bits", "find_lesions"]

_ON_ONE_SIDE = 0.9


class VolumeLesion(NamedTuple):
    """A connected piece of a mask; voxels that touch by a face, an edge or a corner belong together."""

    number: int
    """From 1, the largest first."""
    volume_ml: float
    x_mm: float
    """Of the centre of mass in the image's world, to the right; ``y_mm`` to the front, ``z_mm`` to the top."""
    y_mm: float
    z_mm: float
    side: str
    """"left", "right" or "both" in MNI space; "unknown" without a place there."""
    region: str
    """Of the atlas, that with most of the lesion; empty without an atlas, or outside of its regions."""
    mean_probability: float
    mean_uncertainty: float
    """Entropy of the probability in bits, 0..1."""

    @property
    def centre_mm(self) -> tuple[float, float, float]:
        """The centre of mass in the image's world."""
        return self.x_mm, self.y_mm, self.z_mm


class RegionAtlas:
    """Regions in MNI space: arterial territories, lobes.

    Names stand beside the image, in the file of its name that ends in ``.tsv`` (BIDS: columns index and name) or
    ``.txt`` (a line ``number|short name|name|...`` for each region); without one the numbers are the names.

    Args:
        file: label image in MNI space, 0 outside the regions.

    Raises:
        InputError: when a file cannot be read or is not of this kind.
    """

    def __init__(self, file: str | Path) -> None:
        try:
            image = nib.load(file)
            self.labels = np.asarray(image.dataobj)
        except Exception as error:  # whatever a damaged file makes a reader raise
            raise InputError(explain(file, error)) from error
        if self.labels.ndim != 3 or self.labels.dtype.kind not in "iuf":
            raise InputError(f"{file} is no 3D image of labels: an atlas in MNI space is expected.")
        self.to_voxels = np.linalg.inv(image.affine)
        self.names = _region_names(Path(file))

    def at(self, points_mm: np.ndarray) -> str:
        """The region that holds most of the points ``(N, 3)`` in MNI space, or an empty text outside of all."""
        voxels = np.round(apply_affine(self.to_voxels, points_mm)).astype(int)
        inside = ((voxels >= 0) & (voxels < self.labels.shape)).all(axis=1)
        found = self.labels[tuple(voxels[inside].T)].astype(int)
        counts = np.bincount(found[found > 0], minlength=1)
        if not counts.any():
            return ""
        label = int(counts.argmax())
        return self.names.get(label, str(label))


def _region_names(image: Path) -> dict[int, str]:
    beside = image.with_name(stem(image))
    table, lines = (beside.with_name(beside.name + suffix) for suffix in (".tsv", ".txt"))
    try:
        if table.exists():
            with table.open(newline="", encoding="utf-8") as stream:
                return {int(row["index"]): row["name"] for row in csv.DictReader(stream, delimiter="\t")}
        if lines.exists():
            rows = [line.split("|") for line in lines.read_text(encoding="utf-8").splitlines() if line.strip()]
            return {int(row[0]): row[2] for row in rows}
    except (KeyError, IndexError, ValueError, UnicodeDecodeError) as error:
        raise InputError(
            f"{table if table.exists() else lines} does not name the regions of {image}: columns index and name, or "
            "lines 'number|short name|name', are expected."
        ) from error
    return {}


def _side(points_mm: np.ndarray) -> str:
    right = float((points_mm[:, 0] > 0).mean())
    if 1 - _ON_ONE_SIDE < right < _ON_ONE_SIDE:
        return "both"
    return "right" if right >= _ON_ONE_SIDE else "left"


def entropy_bits(probability: np.ndarray) -> np.ndarray:
    """Return the uncertainty of each voxel's probability, 0 when it is 0 or 1, 1 when it is 0.5, as float32."""
    return ((entr(probability) + entr(1 - probability)) / np.log(2)).astype(np.float32)


def find_lesions(
    mask: np.ndarray,
    probability: np.ndarray,
    affine: np.ndarray,
    to_mni: np.ndarray | None = None,
    regions: RegionAtlas | None = None,
) -> list[VolumeLesion]:
    """The lesions of a mask, the largest first.

    Args:
        mask: ``(H, W, D)``, not 0 is lesion.
        probability: of the same shape, 0..1.
        affine: voxels to the image's world in mm, ``(4, 4)``.
        to_mni: from that world to MNI space, ``(4, 4)``; without it side and region are not known.
        regions: an atlas in MNI space.
    """
    labels, count = components(mask > 0)
    boxes = ndimage.find_objects(labels)
    found = []
    for number in range(1, count + 1):
        box = boxes[number - 1]
        inside = labels[box] == number
        voxels = np.argwhere(inside) + [edge.start for edge in box]
        points_mm = apply_affine(affine, voxels)
        in_mni = None if to_mni is None else apply_affine(to_mni, points_mm)
        p = probability[box][inside]
        x_mm, y_mm, z_mm = points_mm.mean(axis=0).tolist()
        found.append(
            VolumeLesion(
                number,
                len(voxels) * voxel_ml(affine),
                x_mm,
                y_mm,
                z_mm,
                side="unknown" if in_mni is None else _side(in_mni),
                region="" if in_mni is None or regions is None else regions.at(in_mni),
                mean_probability=float(p.mean()),
                mean_uncertainty=float(entropy_bits(p).mean()),
            )
        )
    found.sort(key=lambda lesion: lesion.volume_ml, reverse=True)
    return [lesion._replace(number=number) for number, lesion in enumerate(found, start=1)]
