"""The picture that every volume gets: three planes through its largest lesion, drawn in a twentieth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from bundle.files import replacing
from bundle.lesions import bounding_box, components

__all__ = ["OUTLINE_COLOUR", "fullest_slice", "save_lesion_planes", "white_level"]

OUTLINE_COLOUR = "#E69F00"
"""Distinguishable from grey with any kind of colour vision (Okabe and Ito)."""

_WIDTH, _GAP = 1200, 4
_TITLE = 0.08  # of the picture's height
_FONT = 22

# Name, axis across the slices, and what is on the left of the picture, in RAS orientation.
_PLANES = (("axial", 2, "L"), ("coronal", 1, "L"), ("sagittal", 0, "P"))


def white_level(image: np.ndarray) -> float:
    """Return the value that is shown white, of an image that is 0 outside the head."""
    return float(np.percentile(image[image > 0], 99.5))


def fullest_slice(voxels: np.ndarray, axis: int) -> int:
    """Return the number of the slice across an axis that has most of the voxels."""
    return int(voxels.sum(axis=tuple({0, 1, 2} - {axis})).argmax())


def _largest_lesion(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of the largest component of a mask that is not empty."""
    box, largest = bounding_box(mask > 0), np.zeros(mask.shape, dtype=bool)
    labels, _ = components(mask[box])
    largest[box] = labels == 1 + np.bincount(labels.ravel())[1:].argmax()
    return largest


def _resized(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return a slice as rows from top to bottom, interpolated to a number of columns and rows."""
    shown = Image.fromarray(np.ascontiguousarray(plane.T[::-1], dtype=np.float32))
    return np.asarray(shown.resize(size, Image.Resampling.BILINEAR))


def _panel(grey: np.ndarray, lesion: np.ndarray, size: tuple[int, int]) -> Image.Image:
    """Return a slice, 0 to 1 from black to white, with the outline of the lesion in it."""
    panel = Image.fromarray((_resized(grey, size).clip(0, 1) * 255).astype(np.uint8)).convert("RGB")
    inside = _resized(lesion, size) >= 0.5
    edge = inside & ~ndimage.binary_erosion(inside, iterations=2)
    panel.paste(OUTLINE_COLOUR, mask=Image.fromarray(edge))
    return panel


def save_lesion_planes(
    image: np.ndarray, mask: np.ndarray, path: str | Path, spacing_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> None:
    """Write a PNG of an axial, a coronal and a sagittal slice through the largest lesion, with the outline of the mask.

    Each plane cuts through the largest part of that lesion, or of the head if there is no lesion.

    Args:
        image: ``(H, W, D)`` in RAS orientation, 0 outside the head.
        mask: of the same shape.
        path: the file; its folder is made.
        spacing_mm: voxel sizes; the picture keeps their proportions.
    """
    head = bounding_box(image > 0)
    target = _largest_lesion(mask) if mask.any() else image > 0
    white = white_level(image)
    extents_mm = np.array(
        [(edges.stop - edges.start) * spacing for edges, spacing in zip(head, spacing_mm, strict=True)]
    )
    scale = (_WIDTH - 2 * _GAP) / (2 * extents_mm[0] + extents_mm[1])
    height = round(scale * max(extents_mm[1:]) / (1 - _TITLE))
    canvas = Image.new("RGB", (_WIDTH, height), "black")
    draw, font, left = ImageDraw.Draw(canvas), ImageFont.load_default(_FONT), 0
    for plane, normal, side in _PLANES:
        number = fullest_slice(target, normal)
        within = tuple(number if axis == normal else head[axis] for axis in range(3))
        across, up = (round(scale * extent) for extent in np.delete(extents_mm, normal))
        centre = round(height * (1 + _TITLE) / 2)
        canvas.paste(_panel(image[within] / white, mask[within] > 0, (across, up)), (left, centre - up // 2))
        draw.text((left + across / 2, height * _TITLE / 2), f"{plane} slice {number}", "white", font, anchor="mm")
        draw.text((left + 8, centre), side, "white", font, anchor="lm")
        left += across + _GAP
    with replacing(path) as unfinished:
        canvas.save(unfinished)
