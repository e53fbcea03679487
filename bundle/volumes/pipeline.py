"""One volume from its file to its results, the same for every caller: a batch, a server, a cluster."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.spatialimages import SpatialImage

from bundle.checks import check_header
from bundle.files import replacing, write_json
from bundle.transforms import LogitsToMask, VolumePreprocessing
from bundle.transforms.postprocessing import SMALLEST_LESION_ML
from bundle.transforms.writers import save_on_grid
from bundle.volumes.inputs import Algorithm, VolumeInput
from bundle.volumes.lesion_table import RegionAtlas, VolumeLesion, entropy_bits, find_lesions
from bundle.volumes.picture import save_lesion_planes
from bundle.volumes.view import save_view

__all__ = ["PreparedVolume", "VolumePipeline", "VolumeResult"]

_HUGE_ML = 400.0
_UNCERTAIN_BITS = 0.6
_COARSE_MM = 2.0


class PreparedVolume(NamedTuple):
    """What the network sees of a volume: ``(1, H, W, D)``, with the way back to its source; and the seconds it took.

    Args:
        image: the volume.
        timing: seconds of ``"registration"``, and of ``"load"``, all else that brings it to the network's grid.
    """

    image: MetaTensor
    timing: dict[str, float]


class VolumeResult(NamedTuple):
    """What was found in a volume.

    Args:
        lesions: the largest first.
        volume_ml: of all of them.
        uncertainty: mean entropy over the mask in bits, 0..1; 0 for an empty mask.
        similarity: of the head to the MNI template, or None where it was not registered.
        warnings: sentences on why someone should look at it.
        files: what was written, relative to the output folder.
        timing: seconds of ``"load"`` and ``"registration"``, and of ``"write"``, all behind the network.
    """

    lesions: list[VolumeLesion]
    volume_ml: float
    uncertainty: float
    similarity: float | None
    warnings: list[str]
    files: list[str]
    timing: dict[str, float]


@dataclass(frozen=True)
class VolumePipeline:
    """The steps of a volume before and behind the network; the network's own is the caller's.

    Args:
        preprocessing: of the image alone, ``keys="image"``.
        output: the folder of the results.
        threshold: probability from which a voxel is lesion, 0..1.
        smallest_lesion_ml: smaller components are left out of the mask.
        save_probability: write the probability, float32, too.
        save_uncertainty: write the entropy of the probability in bits, float32, too.
        save_view: write a page to look through the volume and its mask with, too.
        regions: an atlas in MNI space, for the region of each lesion.
        algorithm: what makes the masks, for results that name it.

    Raises:
        ValueError: when a number is out of its range.

    Example::

        prepared = pipeline.prepare(volume)
        result = pipeline.finish(volume, prepared, inferer(prepared.image[None], network)[0])
    """

    preprocessing: VolumePreprocessing
    output: Path
    threshold: float = 0.5
    smallest_lesion_ml: float = SMALLEST_LESION_ML
    save_probability: bool = False
    save_uncertainty: bool = False
    save_view: bool = False
    regions: RegionAtlas | None = None
    algorithm: Algorithm | None = None
    to_mask: LogitsToMask = field(init=False, repr=False)

    def __post_init__(self) -> None:
        to_mask = LogitsToMask(self.preprocessing, self.threshold, self.smallest_lesion_ml)
        object.__setattr__(self, "to_mask", to_mask)  # the dataclass is frozen

    def picture_path(self, volume: VolumeInput) -> Path:
        """Where the picture of a volume is."""
        return self.output / "figures" / f"{volume.name}.png"

    def view_path(self, volume: VolumeInput) -> Path:
        """Where the page to look through a volume with is."""
        return self.output / "views" / f"{volume.name}.html"

    def paths(self, volume: VolumeInput) -> list[Path]:
        """All results that there can be of a volume."""
        kinds = ("lesion_mask", "lesion_probseg", "entropy_probseg")
        masks = [volume.result_path(self.output, f"desc-{kind}") for kind in kinds]
        sidecar = volume.result_path(self.output, "desc-lesion_mask", ".json")
        pages = [self.picture_path(volume), self.view_path(volume)]
        return [*masks, sidecar, *pages, *volume.extra_paths(self.output)]

    def prepare(self, volume: VolumeInput) -> PreparedVolume:
        """Check a volume's header and voxels and bring it to the network's grid.

        Raises:
            InputError: when it cannot be a T1w head, or not be registered.
            Exception: whatever a damaged file makes a reader raise, for :func:`bundle.errors.explain`.
        """
        begin = time.perf_counter()
        volume.prepare_source()
        check_header(volume.file)
        image = self.preprocessing({"image": str(volume.file)})["image"]
        registration = image.meta.get("mni_seconds", 0.0)
        return PreparedVolume(image, {"load": time.perf_counter() - begin - registration, "registration": registration})

    def finish(self, volume: VolumeInput, prepared: PreparedVolume, logits: torch.Tensor) -> VolumeResult:
        """Writes the results of a volume on its source's grid, the mask last.

        Args:
            volume: the input.
            prepared: what :meth:`prepare` gave.
            logits: the network's, ``(1, H, W, D)``.

        Raises:
            OSError: when a file cannot be written.
        """
        begin = time.perf_counter()
        source = nib.load(volume.file)
        mask, probability = (part[0].numpy() for part in self.to_mask(logits, prepared.image))
        meta, failure = prepared.image.meta, prepared.image.meta.get("mni_failure", "")
        to_mni = None if failure else meta.get("to_mni")
        lesions = find_lesions(mask, probability, source.affine, to_mni, self.regions)
        uncertainty = float(entropy_bits(probability[mask > 0]).mean()) if mask.any() else 0.0
        files = self._write(volume, source, probability, mask, lesions)
        files += volume.write_extra(self.output, lesions, self.algorithm)
        volume_ml = sum((lesion.volume_ml for lesion in lesions), start=0.0)
        return VolumeResult(
            lesions,
            volume_ml,
            uncertainty,
            meta.get("mni_similarity"),
            _warnings(source, volume_ml, uncertainty, failure),
            [file.relative_to(self.output).as_posix() for file in files],
            {**prepared.timing, "write": time.perf_counter() - begin},
        )

    def _write(
        self,
        volume: VolumeInput,
        source: SpatialImage,
        probability: np.ndarray,
        mask: np.ndarray,
        lesions: Sequence[VolumeLesion],
    ) -> list[Path]:
        """The files, the mask last: where it is, the others are."""
        files = []
        if self.save_probability:
            files.append(volume.result_path(self.output, "desc-lesion_probseg"))
            save_on_grid(probability, source, files[-1])
        if self.save_uncertainty:
            files.append(volume.result_path(self.output, "desc-entropy_probseg"))
            save_on_grid(entropy_bits(probability), source, files[-1])
        head, lesion = _in_ras(source, mask)
        files.append(self.picture_path(volume))
        _save_picture(head, lesion, files[-1])
        if self.save_view:
            files.append(self.view_path(volume))
            save_view(volume.name, head, lesion, files[-1], lesions[0].centre_mm if lesions else None)
        files.append(volume.result_path(self.output, "desc-lesion_mask", ".json"))
        write_json(_sidecar(volume, self.threshold), files[-1])
        files.append(volume.result_path(self.output, "desc-lesion_mask"))
        save_on_grid(mask, source, files[-1])
        return files


def _sidecar(volume: VolumeInput, threshold: float) -> dict[str, Any]:
    """BIDS's metadata of a mask."""
    return {
        "Type": "Lesion",
        "Manual": False,
        "Sources": [volume.file.name],
        "SpatialReference": "orig",
        "Description": f"Stroke lesion, probability of {threshold:g} or more. Not for clinical use.",
    }


def _in_ras(source: SpatialImage, mask: np.ndarray) -> tuple[SpatialImage, SpatialImage]:
    """Head, float32 from 0 on, and mask for people to look at: in RAS orientation."""
    grey = np.asarray(source.dataobj, dtype=np.float32).reshape(source.shape[:3])
    head, lesion = (
        nib.as_closest_canonical(nib.Nifti1Image(voxels, source.affine)) for voxels in (grey - grey.min(), mask)
    )
    return head, lesion


def _save_picture(head: SpatialImage, lesion: SpatialImage, path: Path) -> None:
    grey, outlined, sizes_mm = np.asarray(head.dataobj), np.asarray(lesion.dataobj), head.header.get_zooms()
    with replacing(path) as unfinished:
        save_lesion_planes(grey, outlined, unfinished, sizes_mm)


def _warnings(source: SpatialImage, volume_ml: float, uncertainty: float, failure: str) -> list[str]:
    """Why someone should look at a volume."""
    thickest = float(np.linalg.norm(source.affine[:3, :3], axis=0).max())
    reasons = (
        (bool(failure), f"not registered to MNI space ({failure}), segmented where it lies"),
        (volume_ml == 0, "no lesion found"),
        (volume_ml > _HUGE_ML, f"{volume_ml:.0f} mL is more than nearly every stroke"),
        (uncertainty > _UNCERTAIN_BITS, f"the network is unsure ({uncertainty:.2f} of 1 bit)"),
        (thickest > _COARSE_MM + 1e-3, f"voxels of {thickest:.1f} mm hide small lesions"),
    )
    return [reason for applies, reason in reasons if applies]
