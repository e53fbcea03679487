"""Registration of a head to MNI space: an affine transform of its header, without resampling."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable, Mapping
from typing import get_args

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import InvertibleTransform
from monai.utils import TraceKeys, look_up_option
from nibabel.affines import apply_affine

from bundle.errors import InputError
from bundle.mni import RegistrationResult, atlas_grid, find_failure, register_to_mni
from bundle.options import OnFailure
from bundle.transforms.keywise import InvertibleKeywiseTransform

__all__ = ["AffineToMNI", "AffineToMNId", "OnFailure"]

_logger = logging.getLogger(__name__)


def _with_affine(img: MetaTensor, affine: torch.Tensor) -> MetaTensor:
    """Return the image with another affine; the voxels are shared."""
    out = MetaTensor(img.as_tensor()).copy_meta_from(img)
    out.affine = affine.clone()  # MONAI's own update is a product, which differs in the last bits
    return out


class AffineToMNI(InvertibleTransform):
    """Affine registration of a T1w head to MNI space that changes its header only; the voxels are not resampled.

    Resampling to :func:`atlas_grid` afterwards is then the only interpolation. The inverse restores the affine bit for
    bit. The ``meta`` of the moved image has the parts of its :class:`RegistrationResult` as ``to_mni``,
    ``mni_similarity``, ``mni_failure`` and ``mni_seconds``.

    Args:
        on_failure: ``"raise"`` an error, or log a warning and continue with the head in its ``"native"`` orientation
            and size, with the centre of its field of view on the centre of the atlas grid.
    """

    def __init__(self, on_failure: OnFailure = "raise") -> None:
        look_up_option(on_failure, get_args(OnFailure))
        self.on_failure = on_failure

    def find(
        self, img: MetaTensor, early: Callable[[], RegistrationResult | None] = lambda: None
    ) -> RegistrationResult:
        """Return where the head is in MNI space.

        Args:
            img: T1w head ``(1, H, W, D)``, any orientation, whole or skull-stripped.
            early: waits for its registration if that began earlier; without a result the head is registered here.

        Raises:
            InputError: if the registration fails and ``on_failure`` is ``"raise"``.
        """
        begin = time.perf_counter()
        voxels, affine = img[0].numpy(force=True), img.affine.numpy(force=True)
        result = early() or register_to_mni(voxels, affine)
        result = result._replace(seconds=time.perf_counter() - begin)
        if not (failure := find_failure(result)):
            return result
        name = img.meta.get("filename_or_obj", "The image")
        sentence = (
            f"{name} could not be placed in MNI space ({failure}): a T1w head is expected, whose header says roughly "
            "where right, front and top are; --on_failure native segments it without registration."
        )
        if self.on_failure == "raise":
            raise InputError(sentence)
        _logger.warning("%s Its native orientation and size are kept.", sentence)
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
            result: of :meth:`find`; computed from this image if None.

        Returns:
            the same voxels with the affine ``result.affine @ img.affine``.

        Raises:
            InputError: as for :meth:`find`.
        """
        result = self.find(img) if result is None else result
        before = img.affine.clone()
        out = _with_affine(img, torch.as_tensor(result.affine, dtype=before.dtype) @ before)
        out.meta |= {
            "to_mni": result.affine,
            "mni_similarity": result.similarity,
            "mni_failure": result.failure,
            "mni_seconds": result.seconds,
        }
        return self.push_transform(out, extra_info={"affine": before})

    def inverse(self, data: MetaTensor) -> MetaTensor:
        """Return the same voxels with the affine from before the registration, bit for bit."""
        return _with_affine(data, self.pop_transform(data)[TraceKeys.EXTRA_INFO]["affine"])


class AffineToMNId(InvertibleKeywiseTransform):
    """Dictionary version of :class:`AffineToMNI`; one registration for all keys.

    Args:
        keys: the images to move.
        source_key: the T1w image that is registered. Data may have ``"early_registration"``, a function that waits for
            its registration if that began earlier, or returns None.
        on_failure: as for :class:`AffineToMNI`.
    """

    def __init__(self, keys: KeysCollection, source_key: str, on_failure: OnFailure = "raise") -> None:
        super().__init__(keys, AffineToMNI(on_failure))
        self.source_key = source_key

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        """Return the data with moved images."""
        d = dict(data)
        result = self.transform.find(d[self.source_key], d.pop("early_registration", lambda: None))
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], result)
        return d
