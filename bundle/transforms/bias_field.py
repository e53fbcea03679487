"""Correction of the scanner's bias field, before a head is registered."""

from __future__ import annotations

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Transform
from monai.utils import convert_to_dst_type
from torch.nn import functional as F

from bundle.mni import head_mask
from bundle.transforms.keywise import KeywiseTransform

__all__ = ["CorrectBiasField", "CorrectBiasFieldd"]

_COARSE_MM = 4.0  # a field is smooth: finer voxels change nothing but the time
_LEVELS, _ITERATIONS = 4, 50


def _log_field(coarse: np.ndarray) -> np.ndarray:
    """The logarithm of N4's field of a volume of positive intensities, the mean over its head 0."""
    mask = head_mask(coarse)
    if not mask.any():  # reported later, by NormalizeHeadIntensity
        return np.zeros_like(coarse)
    import itk  # here, as it loads hundreds of MB that no other step needs

    real, byte = itk.Image[itk.F, 3], itk.Image[itk.UC, 3]
    image, inside = itk.image_from_array(coarse), itk.image_from_array(mask.astype(np.uint8))
    n4 = itk.N4BiasFieldCorrectionImageFilter[real, byte, real].New(Input=image, MaskImage=inside)
    n4.SetNumberOfFittingLevels([_LEVELS] * 3)
    n4.SetMaximumNumberOfIterations([_ITERATIONS] * _LEVELS)  # ITK takes a list here, and loses its own arrays
    n4.SetNumberOfWorkUnits(1)  # the last bits of a sum depend on how many there are
    n4.Update()
    field = np.log(coarse / np.maximum(itk.array_from_image(n4.GetOutput()), np.finfo(np.float32).tiny))
    centred: np.ndarray = field - field[mask].mean()
    return centred


class CorrectBiasField(Transform):
    """Division of a volume by its bias field (N4; Tustison et al., IEEE TMI 2010), found on voxels of about 4 mm."""

    def __call__(self, img: MetaTensor) -> MetaTensor:
        """
        Args:
            img: ``(1, H, W, D)``, intensities from 0 up, with its affine in mm.

        Returns:
            the same shape, float32; the mean logarithm over the head does not change.
        """
        volume = img.as_tensor().float()[None]
        sizes_mm = np.asarray(img.pixdim, dtype=float)
        shape = [max(8, round(n * mm / _COARSE_MM)) for n, mm in zip(volume.shape[2:], sizes_mm, strict=True)]
        shape = [min(n, extent) for n, extent in zip(shape, volume.shape[2:], strict=True)]
        # N4 takes logarithms: air of 0 is lifted to a thousandth of the brightest.
        coarse = F.interpolate(volume, shape, mode="area").clamp_min(1e-3 * float(volume.max()))
        field = torch.from_numpy(_log_field(coarse[0, 0].numpy(force=True)))[None, None]
        smooth = F.interpolate(field, volume.shape[2:], mode="trilinear", align_corners=False)
        return convert_to_dst_type(volume[0] * torch.exp(-smooth[0]), img, dtype=torch.float32)[0]


class CorrectBiasFieldd(KeywiseTransform):
    """Dictionary version of :class:`CorrectBiasField`."""

    def __init__(self, keys: KeysCollection) -> None:
        super().__init__(keys, CorrectBiasField())
