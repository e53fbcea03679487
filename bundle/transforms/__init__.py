"""Transforms that MONAI does not have, and the deterministic preprocessing made of both."""

from bundle.transforms.augmentation import SliceAugmentation
from bundle.transforms.checks import CheckVolumed
from bundle.transforms.intensity import NormalizeHeadIntensity, NormalizeHeadIntensityd
from bundle.transforms.preprocessing import VolumePreprocessing
from bundle.transforms.slices import OFFSETS, StackSlices, StackSlicesd
from bundle.transforms.spatial import BrainBox, BrainBoxd
from bundle.transforms.writers import SourceGridWriter

__all__ = [
    "OFFSETS",
    "BrainBox",
    "BrainBoxd",
    "CheckVolumed",
    "NormalizeHeadIntensity",
    "NormalizeHeadIntensityd",
    "SliceAugmentation",
    "SourceGridWriter",
    "StackSlices",
    "StackSlicesd",
    "VolumePreprocessing",
]
