"""A head placed in MNI space: an affine registration that changes the header and resamples nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Mapping, Sequence
from functools import cache
from itertools import product
from operator import itemgetter
from pathlib import Path
from typing import Literal, NamedTuple

import itk
import nibabel as nib
import nilearn.datasets
import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform, SpatialResample
from monai.transforms.inverse import TraceableTransform
from monai.utils import TraceKeys, convert_to_tensor, ensure_tuple_rep, look_up_option
from nibabel.affines import apply_affine
from scipy import ndimage
from scipy.spatial.transform import Rotation

from bundle.errors import InputError
from bundle.transforms.intensity import head_mask

__all__ = [
    "TEMPLATE",
    "AffineToMNI",
    "AffineToMNId",
    "Placement",
    "ResampleToAtlasd",
    "atlas_brain",
    "atlas_grid",
    "register_to_mni",
]

TEMPLATE = Path(nilearn.datasets.__file__).parent / "data" / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
"""The skull-stripped MNI152 T1w template at 1 mm that nilearn ships (ICBM 2009a, Fonov et al., 2009)."""

_ATLAS_SHAPE = (197, 233, 189)
_ATLAS_ORIGIN_MM = (-98.0, -134.0, -72.0)

# Centres of the first and the last voxel, in mm, of the grids on which MNI152 images are commonly stored.
_MNI_GRIDS = (
    ((-98, -134, -72), (98, 98, 116)),  # ATLAS, 197 x 233 x 189
    ((-91, -126, -72), (90, 91, 109)),  # FSL at 1 mm, 182 x 218 x 182
    ((-90, -126, -72), (90, 90, 108)),  # FSL at 2 mm, 91 x 109 x 91; SPM at 1 mm, 181 x 217 x 181
    ((-96, -132, -78), (96, 96, 114)),  # ICBM 2009c, 193 x 229 x 193
)
_MNI_GRID_TOLERANCE_MM = 1.5  # Colin27 is stored a millimetre beside SPM's grid

OnFailure = Literal["raise", "native"]

_logger = logging.getLogger(__name__)

_SEARCH_MM, _FINE_MM = 6.0, 3.0
_RING_MM = 3.0  # around the template's brain: its edge counts, the scalp does not
_LOCAL_MM = 12.0
_DEEP_MM = 6.0
_CENTRE_MM = np.array([0.0, -18.0, 22.0])  # of the template's brain, about which heads are turned and scaled

# What is tried, from template to head: the turns about the axes to the right, to the front and to the top, and for each
# the place of the brain below the top of the head and before or behind its middle, and its size.
_TURNS_DEG = ((-30, -15, 0, 15, 30), (-20, 0, 20), (-20, 0, 20))
_DROPS_MM = (0, 6, 12, 18, 24)
_SLIDES_MM = (-24, -12, 0, 12, 24)
_SIZES = (0.82, 0.93, 1.05)
_STARTS = 5

_SIMILAR_FROM = 0.3
_SCALES = (0.7, 1.4)
_MAX_TURN_DEG = 60.0


class Placement(NamedTuple):
    """Where a head is in MNI space: the affine native to MNI in mm, and how similar the head is to the template."""

    affine: np.ndarray
    similarity: float
    """Correlation of the head's and the template's intensities, both at 3 mm, inside the brain more than 6 mm from its
    surface, of the hemisphere where it is higher: a stroke can take much of the other. Measured: heads well placed have
    0.46 to 0.95; misplaced, upside down, inverted ones and other things at most 0.28."""
    fault: str = ""
    """What is wrong with the placement of which this is the substitute; empty for a good one."""
    seconds: float = 0.0
    """What it took to find it."""


class _Volume(NamedTuple):
    """Voxels whose axes are those of the world, right, anterior and superior."""

    voxels: np.ndarray
    origin_mm: np.ndarray
    spacing_mm: float


def atlas_grid(spacing_mm: float = 1.0) -> tuple[np.ndarray, tuple[int, int, int]]:
    """The grid of the ATLAS data set, 197 x 233 x 189 voxels of 1 mm in RAS, or its field of view in other voxels.

    Args:
        spacing_mm: voxel size.

    Returns:
        affine ``(4, 4)`` and shape; the field of view has the same centre and is rounded up to whole voxels.
    """
    extent_mm = np.asarray(_ATLAS_SHAPE, dtype=float)
    shape = np.ceil(extent_mm / spacing_mm - 1e-6).astype(int)
    centre_mm = np.asarray(_ATLAS_ORIGIN_MM) + (extent_mm - 1) / 2
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    affine[:3, 3] = centre_mm - (shape - 1) / 2 * spacing_mm
    return affine, (int(shape[0]), int(shape[1]), int(shape[2]))


@cache
def _template() -> tuple[np.ndarray, np.ndarray]:
    image = nib.as_closest_canonical(nib.load(TEMPLATE))
    return image.get_fdata(dtype=np.float32), image.affine


@cache
def atlas_brain(spacing_mm: float = 1.0) -> np.ndarray:
    """The template's brain as a boolean mask on :func:`atlas_grid`; not to be written to, it is kept."""
    affine, shape = atlas_grid(spacing_mm)
    voxels, template_affine = _template()
    to_template = np.linalg.inv(template_affine) @ affine
    inside = ndimage.affine_transform((voxels > 0).astype(np.float32), to_template, output_shape=shape, order=1) > 0.5
    inside.flags.writeable = False
    return inside


def _upright(voxels: np.ndarray, affine: np.ndarray, spacing_mm: float) -> _Volume:
    """Smoothed to the spacing and resampled to voxels along the world's axes, whatever the header's were."""
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    sigmas = np.sqrt(np.maximum((spacing_mm / 2) ** 2 - (sizes_mm / 2) ** 2, 0)) / sizes_mm
    smooth = ndimage.gaussian_filter(voxels.astype(np.float32), sigmas, mode="nearest")
    corners = np.array(np.meshgrid(*((0, n - 1) for n in voxels.shape), indexing="ij")).reshape(3, -1).T
    corners_mm = apply_affine(affine, corners)
    origin = corners_mm.min(axis=0)
    shape = np.ceil((corners_mm.max(axis=0) - origin) / spacing_mm).astype(int) + 1
    grid = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    grid[:3, 3] = origin
    upright = ndimage.affine_transform(smooth, np.linalg.inv(affine) @ grid, output_shape=tuple(shape), order=1)
    return _Volume(upright, origin, spacing_mm)


def _clipped(volume: _Volume) -> _Volume:
    """0 to the head's 99th percentile: neither the scalp's fat nor vessels stretch the range."""
    inside = head_mask(volume.voxels)
    if not inside.any():
        return volume
    return volume._replace(voxels=np.clip(volume.voxels, 0, np.percentile(volume.voxels[inside], 99)))


def _equalised(volume: _Volume) -> _Volume:
    """Deviation from the local mean over the local contrast: bias field, scalp and lesion weigh no more than folds.

    Padded, so that what the field of view does not hold is 0 and pulls nowhere.
    """
    margin = round(2 * _LOCAL_MM / volume.spacing_mm)
    voxels = np.pad(volume.voxels, margin)
    sigma = _LOCAL_MM / volume.spacing_mm
    deviation = voxels - ndimage.gaussian_filter(voxels, sigma)
    contrast = np.sqrt(ndimage.gaussian_filter(deviation**2, sigma))
    # A share of the whole head's brightness, so that the noise of the air stays small.
    floor = 0.15 * np.median(volume.voxels[volume.voxels > 0.1 * volume.voxels.max()])
    return _Volume(deviation / (contrast + floor), volume.origin_mm - margin * volume.spacing_mm, volume.spacing_mm)


class _Fixed(NamedTuple):
    """The template at one spacing: plain and equalised on the same grid, and the N voxels where it is compared."""

    plain: _Volume
    equalised: _Volume
    inside: np.ndarray
    points_mm: np.ndarray
    depth_mm: np.ndarray


@cache
def _fixed(spacing_mm: float) -> _Fixed:
    plain = _clipped(_upright(*_template(), spacing_mm))
    equalised = _equalised(plain)
    margin = (equalised.voxels.shape[0] - plain.voxels.shape[0]) // 2
    padded = _Volume(np.pad(plain.voxels, margin), equalised.origin_mm, spacing_mm)
    brain = ndimage.binary_fill_holes(padded.voxels > 0.1 * padded.voxels.max())
    inside = ndimage.distance_transform_edt(~brain, sampling=spacing_mm) <= _RING_MM
    depth_mm = ndimage.distance_transform_edt(brain, sampling=spacing_mm)[inside]
    return _Fixed(padded, equalised, inside, np.argwhere(inside) * spacing_mm + padded.origin_mm, depth_mm)


def _values(volume: _Volume, points_mm: np.ndarray) -> np.ndarray:
    """The volume at points ``(N, 3)``, 0 outside."""
    voxels = (points_mm - volume.origin_mm) / volume.spacing_mm
    values: np.ndarray = ndimage.map_coordinates(volume.voxels, voxels.T, order=1)
    return values


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    first, second = first - first.mean(), second - second.mean()
    return float(first @ second / np.sqrt((first @ first) * (second @ second) + 1e-12))


def _likeness(equalised: _Volume, to_head: np.ndarray) -> float:
    """Correlation of head and template, both equalised, in and about the template's brain."""
    fixed = _fixed(equalised.spacing_mm)
    values = _values(equalised, apply_affine(to_head, fixed.points_mm))
    return _correlation(values, fixed.equalised.voxels[fixed.inside])


def _similarity(head: _Volume, to_head: np.ndarray) -> float:
    """:attr:`Placement.similarity`. Deep in the brain, for its outline fits many a round thing."""
    fixed = _fixed(head.spacing_mm)
    points, target = fixed.points_mm, fixed.plain.voxels[fixed.inside]
    values = _values(head, apply_affine(to_head, points))
    deep = fixed.depth_mm > _DEEP_MM
    sides = (deep & (points[:, 0] < 0), deep & (points[:, 0] > 0))
    return max(_correlation(values[side], target[side]) for side in sides)


def _top_centre(volume: _Volume) -> np.ndarray:
    """x and y of the middle of the head's outline 20 to 90 mm below its top, and z of its top, in mm."""
    head = head_mask(volume.voxels)
    if not head.any():
        return volume.origin_mm + (np.asarray(volume.voxels.shape) - 1) / 2 * volume.spacing_mm
    top = int(np.flatnonzero(head.any(axis=(0, 1)))[-1])
    upper, lower = (max(top - round(depth / volume.spacing_mm), 0) for depth in (20.0, 90.0))
    outline: np.ndarray = np.any(head[:, :, lower : upper + 1], axis=2)
    lines = [np.flatnonzero(outline.any(axis=axis)) for axis in (1, 0)]
    return volume.origin_mm + np.array([*((line[0] + line[-1]) / 2 for line in lines), top]) * volume.spacing_mm


def _starts(head: _Volume, equalised: _Volume) -> list[np.ndarray]:
    """Affines template to head to begin with: the most similar places for some of the turns."""
    fixed = _fixed(_SEARCH_MM)
    points, target = fixed.points_mm[::4], fixed.equalised.voxels[fixed.inside][::4]
    x, y, top = _top_centre(head)
    best = []
    for turns in product(*_TURNS_DEG):
        tried = []
        for drop, slide, size in product(_DROPS_MM, _SLIDES_MM, _SIZES):
            start = np.eye(4)
            start[:3, :3] = size * Rotation.from_euler("xyz", turns, degrees=True).as_matrix()
            start[:3, 3] = -start[:3, :3] @ _CENTRE_MM
            highest = (points @ start[2, :3]).max() + start[2, 3] - _RING_MM
            start[:3, 3] += (x, y + slide, top - highest - drop)
            tried.append((_correlation(_values(equalised, apply_affine(start, points)), target), start))
        best.append(max(tried, key=itemgetter(0)))
    return [start for _, start in sorted(best, key=itemgetter(0), reverse=True)[:_STARTS]]


def _image_type() -> type[itk.Image]:
    """Asked for where it is needed: it makes ITK load its libraries, which takes longer than most volumes' reading."""
    return itk.Image[itk.F, 3]


def load_registration() -> None:
    """Loads what a registration needs, of ITK above all, 700 MB that are otherwise loaded when they are first used."""
    itk.ImageRegistrationMethodv4[_image_type(), _image_type()]
    itk.CorrelationImageToImageMetricv4[_image_type(), _image_type()]
    for spacing_mm in (_SEARCH_MM, _FINE_MM):
        _fixed(spacing_mm)


def _itk(volume: _Volume) -> itk.Image:
    """ITK's image of it; ITK's first axis is the last of a numpy array."""
    image = itk.image_from_array(np.ascontiguousarray(volume.voxels.T.astype(np.float32)))
    image.SetOrigin(volume.origin_mm.tolist())
    image.SetSpacing([volume.spacing_mm] * 3)
    return image


def _improved(metric: itk.Object, fixed: _Volume, moving: _Volume, inside: np.ndarray, start: np.ndarray) -> np.ndarray:
    """The affine template to head at the next optimum of an ITK metric, from a start."""
    fixed_image, moving_image = _itk(fixed), _itk(moving)
    mask_image = itk.image_from_array(np.ascontiguousarray(inside.T.astype(np.uint8)))
    mask_image.CopyInformation(fixed_image)
    mask = itk.ImageMaskSpatialObject[3].New(Image=mask_image)
    mask.Update()
    metric.SetFixedImageMask(mask)
    # One thread: the order of sums, and with it the last bits of the result, depend on how many there are.
    metric.SetMaximumNumberOfWorkUnits(1)
    optimizer = itk.RegularStepGradientDescentOptimizerv4[itk.D].New(
        LearningRate=1.0, MinimumStepLength=0.01, RelaxationFactor=0.7, NumberOfIterations=100
    )
    optimizer.SetNumberOfWorkUnits(1)
    optimizer.SetScalesEstimator(itk.RegistrationParameterScalesFromPhysicalShift[type(metric)].New(Metric=metric))
    optimizer.ReturnBestParametersAndValueOn()
    transform = itk.AffineTransform[itk.D, 3].New()
    transform.SetCenter(_CENTRE_MM.tolist())
    transform.SetMatrix(itk.matrix_from_array(np.ascontiguousarray(start[:3, :3])))
    transform.SetTranslation((start[:3, 3] - _CENTRE_MM + start[:3, :3] @ _CENTRE_MM).tolist())
    method = itk.ImageRegistrationMethodv4[_image_type(), _image_type()].New(
        FixedImage=fixed_image, MovingImage=moving_image, Metric=metric, Optimizer=optimizer, InitialTransform=transform
    )
    method.SetNumberOfLevels(1)
    method.SetShrinkFactorsPerLevel([1])
    method.SetSmoothingSigmasPerLevel([0])
    method.Update()
    transform.SetParameters(method.GetTransform().GetParameters())
    end = np.eye(4)
    end[:3, :3] = itk.array_from_matrix(transform.GetMatrix())
    end[:3, 3] = np.asarray(transform.GetOffset())
    return end


def _aligned(coarse: _Volume, fine: _Volume) -> np.ndarray:
    """The affine template to head, in mm: the place by correlation, then the fit by mutual information."""
    image_type, equalised, fixed = _image_type(), _equalised(coarse), _fixed(coarse.spacing_mm)
    # Equalised images show one contrast, so correlation tells brain from scalp, where mutual information is content
    # with a brain that fills the whole head.
    placed = [
        _improved(
            itk.CorrelationImageToImageMetricv4[image_type, image_type].New(),
            fixed.equalised,
            equalised,
            fixed.inside,
            start,
        )
        for start in _starts(coarse, equalised)
    ]
    best = max(placed, key=lambda to_head: _likeness(equalised, to_head))
    metric = itk.MattesMutualInformationImageToImageMetricv4[image_type, image_type].New(NumberOfHistogramBins=32)
    fixed = _fixed(fine.spacing_mm)
    return _improved(metric, fixed.plain, fine, fixed.inside, best)


def _on_mni_grid(shape: Sequence[int], affine: np.ndarray) -> bool:
    """Whether a header's axes and field of view are those of a grid on which MNI152 images are stored."""
    axes = np.abs(affine[:3, :3])
    if np.any(axes - np.diag(np.diag(axes)) > 1e-3) and np.count_nonzero(axes > 1e-3) != 3:
        return False
    sizes_mm = np.linalg.norm(affine[:3, :3], axis=0)
    corners = apply_affine(affine, [(0, 0, 0), np.asarray(shape) - 1])
    half = axes @ np.diag(1 / sizes_mm) @ sizes_mm / 2
    low, high = corners.min(axis=0) - half, corners.max(axis=0) + half
    return any(
        np.all(np.abs(low - (np.asarray(first) - 0.5)) <= _MNI_GRID_TOLERANCE_MM)
        and np.all(np.abs(high - (np.asarray(last) + 0.5)) <= _MNI_GRID_TOLERANCE_MM)
        for first, last in _MNI_GRIDS
    )


def register_to_mni(voxels: np.ndarray, affine: np.ndarray) -> Placement:
    """Places a T1w head in MNI space; one that is there already, by its header and its looks, stays.

    Args:
        voxels: ``(H, W, D)``, whole head or skull-stripped, any intensities.
        affine: voxels to RAS world in mm, ``(4, 4)``; the origin is not trusted, the axes roughly are.

    Returns:
        the placement, however bad.
    """
    fine = _clipped(_upright(voxels, affine, _FINE_MM))
    if _on_mni_grid(voxels.shape, affine):
        similarity = _similarity(fine, np.eye(4))
        if similarity >= _SIMILAR_FROM:
            return Placement(np.eye(4), similarity)
    to_head = _aligned(_clipped(_upright(voxels, affine, _SEARCH_MM)), fine)
    return Placement(np.linalg.inv(to_head), _similarity(fine, to_head))


def _fault(placement: Placement) -> str | None:
    """What is wrong with a placement, if anything."""
    if placement.similarity < _SIMILAR_FROM:
        return f"its similarity to the template is {placement.similarity:.2f}, {_SIMILAR_FROM} is needed"
    left, scales, right = np.linalg.svd(placement.affine[:3, :3])
    if scales.min() < _SCALES[0] or scales.max() > _SCALES[1]:
        return f"it would be scaled by {', '.join(f'{scale:.2f}' for scale in scales)}"
    turn = np.degrees(np.arccos(np.clip((np.trace(left @ right) - 1) / 2, -1, 1)))
    if turn > _MAX_TURN_DEG:
        return f"it would be turned by {turn:.0f} degrees"
    return None


class AffineToMNI(InvertibleTransform):
    """Moves a T1w head to MNI space by its header alone: an affine registration; the voxels stay as they are.

    A following resampling to :func:`atlas_grid` is then the only one. The inverse restores the affine bit for bit. The
    moved image's ``meta`` says where it was placed: ``to_mni``, ``mni_similarity``, ``mni_fault`` and
    ``mni_seconds`` are the parts of its :class:`Placement`.

    Args:
        on_failure: ``"raise"`` an error, or log it and go on with the head in its ``"native"`` orientation and size,
            the centre of its field of view on the centre of the atlas grid.
    """

    def __init__(self, on_failure: OnFailure = "raise") -> None:
        look_up_option(on_failure, OnFailure.__args__)  # type: ignore[attr-defined]  # Literal keeps its choices there
        self.on_failure = on_failure

    def find(self, img: MetaTensor) -> Placement:
        """Where the head is in MNI space.

        Args:
            img: T1w head ``(1, H, W, D)``, any orientation, whole or skull-stripped.

        Raises:
            InputError: when the head cannot be placed and ``on_failure`` is ``"raise"``.
        """
        begin = time.perf_counter()
        voxels, affine = img[0].numpy(force=True), img.affine.numpy(force=True)
        placement = register_to_mni(voxels, affine)
        placement = placement._replace(seconds=time.perf_counter() - begin)
        fault = _fault(placement)
        if fault is None:
            return placement
        name = img.meta.get("filename_or_obj", "The image")
        sentence = (
            f"{name} could not be placed in MNI space ({fault}): a T1w head with a header that says roughly where "
            "right, front and top are is expected."
        )
        if self.on_failure == "raise":
            raise InputError(sentence)
        _logger.warning("%s It stays where it is.", sentence)
        grid, shape = atlas_grid()
        centred = np.eye(4)
        centred[:3, 3] = apply_affine(grid, (np.asarray(shape) - 1) / 2) - apply_affine(
            affine, (np.asarray(voxels.shape) - 1) / 2
        )
        return Placement(centred, placement.similarity, fault, placement.seconds)

    def __call__(self, img: MetaTensor, placement: Placement | None = None) -> MetaTensor:
        """
        Args:
            img: ``(C, H, W, D)``, with its affine.
            placement: of :meth:`find`; found on this image if None.

        Returns:
            the same voxels with the affine ``placement.affine @ img.affine``.

        Raises:
            InputError: as :meth:`find`.
        """
        placement = self.find(img) if placement is None else placement
        before = img.affine.clone()
        moved = torch.as_tensor(placement.affine, dtype=before.dtype) @ before
        meta = TraceableTransform.track_transform_meta(
            img,
            affine=torch.linalg.solve(before, moved),
            extra_info={"affine": before},
            transform_info=self.get_transform_info(),
        )
        out = self._with_meta(img, meta, moved)
        if isinstance(out, MetaTensor):
            out.meta |= {
                "to_mni": placement.affine,
                "mni_similarity": placement.similarity,
                "mni_fault": placement.fault,
                "mni_seconds": placement.seconds,
            }
        return out

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """The same voxels with the affine that the forward call found, bit for bit."""
        before = self.pop_transform(data)[TraceKeys.EXTRA_INFO]["affine"]
        with self.trace_transform(False):
            meta = TraceableTransform.track_transform_meta(
                data, affine=torch.linalg.solve(data.affine, before), transform_info=self.get_transform_info()
            )
        return self._with_meta(data, meta, before)

    @staticmethod
    def _with_meta(img: MetaTensor, meta: object, affine: torch.Tensor) -> MetaTensor:
        out = convert_to_tensor(img.as_tensor(), track_meta=get_track_meta())
        if isinstance(out, MetaTensor):
            out.copy_meta_from(meta)
            out.affine = affine.clone()  # MONAI's own is a product and differs in the last bits
        return out


class AffineToMNId(MapTransform, InvertibleTransform):
    """Dictionary version of :class:`AffineToMNI`; one registration for all keys.

    Args:
        keys: what is moved.
        source_key: the T1w image that is registered.
        on_failure: as for :class:`AffineToMNI`.
    """

    def __init__(self, keys: KeysCollection, source_key: str, on_failure: OnFailure = "raise") -> None:
        super().__init__(keys)
        self.source_key = source_key
        self.place = AffineToMNI(on_failure)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data, moved."""
        d = dict(data)
        placement = self.place.find(d[self.source_key])
        for key in self.key_iterator(d):
            d[key] = self.place(d[key], placement)
        return d

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data, where they were."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.place.inverse(d[key])
        return d


class ResampleToAtlasd(MapTransform, InvertibleTransform):
    """Resamples to :func:`atlas_grid`; outside of what an image holds it is 0. MONAI's takes no fixed grid.

    Args:
        keys: images in MNI space.
        spacing_mm: voxel size of the grid.
        mode: interpolation of each key, or of all.
    """

    def __init__(self, keys: KeysCollection, spacing_mm: float, mode: str | Sequence[str] = "bilinear") -> None:
        super().__init__(keys)
        self.affine, self.shape = atlas_grid(spacing_mm)
        self.mode = ensure_tuple_rep(mode, len(self.keys))
        self.resample = SpatialResample(padding_mode="zeros", dtype=torch.float32)

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data, resampled."""
        d = dict(data)
        for key, mode in self.key_iterator(d, self.mode):
            d[key] = self.resample(d[key], torch.as_tensor(self.affine), self.shape, mode=mode)
        return d

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data, on the grids they came from."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.resample.inverse(d[key])
        return d
