"""Transforms that MONAI does not have, and the deterministic preprocessing made of both."""

from bundle.transforms.atlas import ResampleToAtlasd
from bundle.transforms.augmentation import BatchAugmentation, SliceAugmentation
from bundle.transforms.bias_field import CorrectBiasField, CorrectBiasFieldd
from bundle.transforms.intensity import NormalizeHeadIntensity, NormalizeHeadIntensityd
from bundle.transforms.postprocessing import LogitsToMask, LogitsToMaskd
from bundle.transforms.preprocessing import VolumePreprocessing
from bundle.transforms.registration import AffineToMNI, AffineToMNId
from bundle.transforms.slices import OFFSETS, Plane, StackSlices
from bundle.transforms.spatial import BrainBox, BrainBoxd
from bundle.transforms.writers import SourceGridWriter

__all__ = [
    "OFFSETS",
    "AffineToMNI",
    "AffineToMNId",
    "BatchAugmentation",
    "BrainBox",
    "BrainBoxd",
    "CorrectBiasField",
    "CorrectBiasFieldd",
    "LogitsToMask",
    "LogitsToMaskd",
    "NormalizeHeadIntensity",
    "NormalizeHeadIntensityd",
    "Plane",
    "ResampleToAtlasd",
    "SliceAugmentation",
    "SourceGridWriter",
    "StackSlices",
    "VolumePreprocessing",
]
