"""A head moved to MNI space: an affine registration that changes the header and resamples nothing."""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Mapping
from typing import Literal, get_args

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform, MapTransform
from monai.transforms.inverse import TraceableTransform
from monai.utils import TraceKeys, convert_to_tensor, look_up_option
from nibabel.affines import apply_affine

from bundle.errors import InputError
from bundle.transforms.atlas import atlas_grid
from bundle.transforms.mni_registration import RegistrationResult, find_failure, register_to_mni

__all__ = ["AffineToMNI", "AffineToMNId", "OnFailure"]

OnFailure = Literal["raise", "native"]

_logger = logging.getLogger(__name__)


class AffineToMNI(InvertibleTransform):
    """Moves a T1w head to MNI space by its header alone: an affine registration; the voxels stay as they are.

    A following resampling to :func:`atlas_grid` is then the only one. The inverse restores the affine bit for bit. The
    moved image's ``meta`` says where it was placed: ``to_mni``, ``mni_similarity``, ``mni_failure`` and
    ``mni_seconds`` are the parts of its :class:`RegistrationResult`.

    Args:
        on_failure: ``"raise"`` an error, or log it and go on with the head in its ``"native"`` orientation and size,
            the centre of its field of view on the centre of the atlas grid.
    """

    def __init__(self, on_failure: OnFailure = "raise") -> None:
        look_up_option(on_failure, get_args(OnFailure))
        self.on_failure = on_failure

    def find(self, img: MetaTensor) -> RegistrationResult:
        """Where the head is in MNI space.

        Args:
            img: T1w head ``(1, H, W, D)``, any orientation, whole or skull-stripped.

        Raises:
            InputError: when the head cannot be placed and ``on_failure`` is ``"raise"``.
        """
        begin = time.perf_counter()
        voxels, affine = img[0].numpy(force=True), img.affine.numpy(force=True)
        result = register_to_mni(voxels, affine)
        result = result._replace(seconds=time.perf_counter() - begin)
        failure = find_failure(result)
        if not failure:
            return result
        name = img.meta.get("filename_or_obj", "The image")
        sentence = (
            f"{name} could not be placed in MNI space ({failure}): a T1w head with a header that says roughly where "
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
        return result._replace(affine=centred, failure=failure)

    def __call__(self, img: MetaTensor, result: RegistrationResult | None = None) -> MetaTensor:
        """
        Args:
            img: ``(C, H, W, D)``, with its affine.
            result: of :meth:`find`; found on this image if None.

        Returns:
            the same voxels with the affine ``result.affine @ img.affine``.

        Raises:
            InputError: as :meth:`find`.
        """
        result = self.find(img) if result is None else result
        before = img.affine.clone()
        moved = torch.as_tensor(result.affine, dtype=before.dtype) @ before
        meta = TraceableTransform.track_transform_meta(
            img,
            affine=torch.linalg.solve(before, moved),
            extra_info={"affine": before},
            transform_info=self.get_transform_info(),
        )
        out = self._with_meta(img, meta, moved)
        if isinstance(out, MetaTensor):
            out.meta |= {
                "to_mni": result.affine,
                "mni_similarity": result.similarity,
                "mni_failure": result.failure,
                "mni_seconds": result.seconds,
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
        result = self.place.find(d[self.source_key])
        for key in self.key_iterator(d):
            d[key] = self.place(d[key], result)
        return d

    def inverse(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """The data, where they were."""
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.place.inverse(d[key])
        return d
