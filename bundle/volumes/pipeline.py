"""One volume from its file to its results, the same for every caller: a batch, a server, a cluster."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from nibabel.spatialimages import SpatialImage

from bundle.early_registration import EarlyRegistration
from bundle.files import write_json
from bundle.headers import check_header
from bundle.nifti import SAME_SIZE, load_image
from bundle.options import SegmentOptions
from bundle.quality import QualityModel, expected_dice
from bundle.transforms import LogitsToMask, VolumePreprocessing
from bundle.transforms.writers import save_on_grid
from bundle.volumes.inputs import Algorithm, VolumeInput
from bundle.volumes.lesion_table import RegionAtlas, VolumeLesion, entropy_bits, find_lesions
from bundle.volumes.planes import save_lesion_planes
from bundle.volumes.view import save_view

__all__ = ["PreparedVolume", "VolumePipeline", "VolumeResult"]

_HUGE_ML = 400.0
_COARSE_MM = 2.0


class PreparedVolume(NamedTuple):
    """A volume on the grid of the network.

    Args:
        image: ``(1, H, W, D)``, with its applied operations, by which the mask is brought to the grid of the source.
        timing: seconds of ``"registration"``, and of ``"load"``: all other steps before the network.
    """

    image: MetaTensor
    timing: dict[str, float]


class VolumeResult(NamedTuple):
    """The findings in a volume.

    Args:
        lesions: the largest first.
        volume_ml: the volume of all lesions.
        uncertainty: mean entropy over the mask in bits, 0..1; 0 for an empty mask.
        expected_dice: of the mask, see :func:`bundle.quality.expected_dice`.
        predicted_dice: of the mask, see :class:`bundle.quality.QualityModel`; None for an empty mask, and where the
            weights have no such model.
        similarity: of the head to the MNI template, or None where it was not registered.
        warnings: sentences on why someone should look at it.
        files: the files that were written, relative to the output folder.
        timing: that of the prepared volume, and the seconds of ``"write"``: all steps after the network.
    """

    lesions: list[VolumeLesion]
    volume_ml: float
    uncertainty: float
    expected_dice: float
    predicted_dice: float | None
    similarity: float | None
    warnings: list[str]
    files: list[str]
    timing: dict[str, float]


@dataclass
class VolumePipeline:
    """The steps of a volume before and after the network; the caller runs the network.

    Args:
        preprocessing: that of the image alone, ``keys="image"``.
        output: the folder of the results.
        threshold: probability from which a voxel is lesion, 0..1.
        options: which results are written besides mask and picture, and the smallest lesion.
        regions: an atlas in MNI space, for the region of each lesion.
        algorithm: what makes the masks, for results that name it.
        quality: predicts how good a mask is.
        early: the registration of one volume that began before; only in the process that began it.

    Raises:
        ValueError: if a number is out of its range.

    Example::

        prepared = pipeline.prepare(volume)
        result = pipeline.finish(volume, prepared, inferer(prepared.image[None], network)[0])
    """

    preprocessing: VolumePreprocessing
    output: Path
    threshold: float = 0.5
    options: SegmentOptions = field(default_factory=SegmentOptions)
    regions: RegionAtlas | None = None
    algorithm: Algorithm | None = None
    quality: QualityModel | None = None
    early: EarlyRegistration | None = None

    def __post_init__(self) -> None:
        self.to_mask = LogitsToMask(self.preprocessing, self.threshold, self.options.smallest_lesion_ml)

    def paths(self, volume: VolumeInput) -> list[Path]:
        """Return the paths of all results that a volume can have."""
        return [*self._paths(volume).values(), *volume.extra_paths(self.output)]

    def _paths(self, volume: VolumeInput) -> dict[str, Path]:
        """Return the paths of the results by kind, in the order of writing: a mask means that all others are there."""
        return {
            "probability sidecar": volume.result_path(self.output, "desc-lesion_probseg", ".json"),
            "probability": volume.result_path(self.output, "desc-lesion_probseg"),
            "uncertainty sidecar": volume.result_path(self.output, "desc-entropy_probseg", ".json"),
            "uncertainty": volume.result_path(self.output, "desc-entropy_probseg"),
            "picture": self.output / "figures" / f"{volume.name}.png",
            "view": self.output / "views" / f"{volume.name}.html",
            "sidecar": volume.result_path(self.output, "desc-lesion_mask", ".json"),
            "mask": volume.result_path(self.output, "desc-lesion_mask"),
        }

    def prepare(self, volume: VolumeInput) -> PreparedVolume:
        """Check a volume's header and voxels and bring it to the network's grid.

        Raises:
            InputError: if it cannot be a T1w head, or cannot be registered.
            Exception: whatever a damaged file makes a reader raise, for :func:`bundle.errors.explain`.
        """
        begin = time.perf_counter()
        volume.prepare_source()
        check_header(volume.file)
        known = {"early_registration": self.early.result} if self.early and self.early.file == volume.file else {}
        image = self.preprocessing({"image": str(volume.file), **known})["image"]
        registration = image.meta.get("mni_seconds", 0.0)
        return PreparedVolume(image, {"load": time.perf_counter() - begin - registration, "registration": registration})

    def finish(self, volume: VolumeInput, prepared: PreparedVolume, logits: torch.Tensor) -> VolumeResult:
        """Write the results of a volume on the grid of its source, the mask last.

        Args:
            volume: the input.
            prepared: the result of :meth:`prepare`.
            logits: the output of the network, ``(1, H, W, D)``.

        Raises:
            OSError: if a file cannot be written.
        """
        begin = time.perf_counter()
        source = load_image(volume.file)
        mask, probability = (part[0].numpy() for part in self.to_mask(logits, prepared.image))
        meta, failure = prepared.image.meta, prepared.image.meta.get("mni_failure", "")
        to_mni = None if failure else meta.get("to_mni")
        lesions = find_lesions(mask, probability, source.affine, to_mni, self.regions)
        uncertainty = float(entropy_bits(probability[mask > 0]).mean()) if mask.any() else 0.0
        volume_ml = sum((lesion.volume_ml for lesion in lesions), start=0.0)
        expected, predicted = expected_dice(mask, probability), None
        if self.quality is not None and lesions:
            predicted = self.quality.predicted_dice(expected, volume_ml)
            lesions = [
                each._replace(lesion_probability=self.quality.lesion_probability(each.mean_probability, each.volume_ml))
                for each in lesions
            ]
        found = nib.Nifti1Image(mask, source.affine)
        files = volume.write_extra(self.output, found, lesions, predicted, self.algorithm)
        files += self._write(volume, source, probability, mask, lesions)
        return VolumeResult(
            lesions,
            volume_ml,
            uncertainty,
            expected,
            predicted,
            meta.get("mni_similarity"),
            self._warnings(source, volume_ml, predicted, failure),
            [file.relative_to(self.output).as_posix() for file in files],
            {**prepared.timing, "write": time.perf_counter() - begin},
        )

    def _warnings(
        self, source: SpatialImage, volume_ml: float, predicted_dice: float | None, failure: str
    ) -> list[str]:
        """Return the reasons why someone should look at a volume."""
        sizes_mm = np.linalg.norm(source.affine[:3, :3], axis=0)
        thickest, zooms = float(sizes_mm.max()), np.asarray(source.header.get_zooms()[:3])
        scaled = not np.allclose(zooms, sizes_mm, rtol=SAME_SIZE)
        larger = float(np.prod(sizes_mm / zooms))
        poor = self.quality is not None and predicted_dice is not None and predicted_dice < self.quality.least_dice
        reasons = (
            (bool(failure), f"not registered to MNI space ({failure}), segmented where it lies"),
            (volume_ml == 0, "no lesion found"),
            (volume_ml > _HUGE_ML, f"{volume_ml:.0f} mL is more than nearly every stroke"),
            (poor, f"the mask is likely to be poor (predicted Dice {predicted_dice or 0:.2f})"),
            (scaled, f"its sform scales to a template: mL are {larger:.2f} times those of its pixdim"),
            (thickest > _COARSE_MM + 1e-3, f"voxels of {thickest:.1f} mm hide small lesions"),
        )
        return [reason for applies, reason in reasons if applies]

    def _write(
        self,
        volume: VolumeInput,
        source: SpatialImage,
        probability: np.ndarray,
        mask: np.ndarray,
        lesions: Sequence[VolumeLesion],
    ) -> list[Path]:
        """Write the results that are asked for, and return their paths."""
        head, lesion = _in_ras(source, mask)
        grid = nib.load(volume.file)  # with all that its header says
        shown, outlined, spacing_mm = np.asarray(head.dataobj), np.asarray(lesion.dataobj), head.header.get_zooms()
        centre_mm = lesions[0].centre_mm if lesions else None
        described = f"Stroke lesion, probability of {self.threshold:g} or more"
        write: dict[str, Callable[[Path], None]] = {
            "probability sidecar": lambda path: write_json(_sidecar(volume, "Probability of stroke lesion"), path),
            "probability": lambda path: save_on_grid(probability, grid, path),
            "uncertainty sidecar": lambda path: write_json(_sidecar(volume, "Entropy of that, in bits"), path),
            "uncertainty": lambda path: save_on_grid(entropy_bits(probability), grid, path),
            "picture": lambda path: save_lesion_planes(shown, outlined, path, spacing_mm),
            "view": lambda path: save_view(volume.name, head, lesion, path, centre_mm),
            "sidecar": lambda path: write_json(_sidecar(volume, described), path),
            "mask": lambda path: save_on_grid(mask, grid, path),
        }
        asked = self.options
        optional = {"probability": asked.probability, "uncertainty": asked.uncertainty, "view": asked.views}
        files = {kind: path for kind, path in self._paths(volume).items() if optional.get(kind.split()[0], True)}
        for kind, path in files.items():
            write[kind](path)
        return list(files.values())


def _sidecar(volume: VolumeInput, description: str) -> dict[str, Any]:
    """Return BIDS's metadata of a mask or a map."""
    return {
        "Type": "Lesion",
        "Manual": False,
        "Sources": [volume.file.name],
        "SpatialReference": "orig",
        "Description": f"{description}. Not for clinical use.",
    }


def _in_ras(source: SpatialImage, mask: np.ndarray) -> Iterator[SpatialImage]:
    """Yield the head, float32 with a minimum of 0, and the mask in RAS orientation, for people to look at."""
    grey = np.asarray(source.dataobj, dtype=np.float32).reshape(source.shape[:3])
    for voxels in (grey - grey.min(), mask):
        yield nib.as_closest_canonical(nib.Nifti1Image(voxels, source.affine))
