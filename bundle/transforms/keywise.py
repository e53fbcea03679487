"""Base classes of dictionary transforms that apply one array transform to each of their keys."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import InvertibleTransform, MapTransform

__all__ = ["InvertibleKeywiseTransform", "KeywiseTransform"]


class KeywiseTransform(MapTransform):
    """A transform applied to each key by itself; the other items of the dictionary are passed on.

    Args:
        keys: the items to transform.
        transform: the array transform.
    """

    def __init__(self, keys: KeysCollection, transform: Any) -> None:
        super().__init__(keys)
        self.transform = transform

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with transformed items."""
        return {**data, **{key: self.transform(data[key]) for key in self.key_iterator(dict(data))}}


class InvertibleKeywiseTransform(KeywiseTransform, InvertibleTransform):
    """A :class:`KeywiseTransform` of an array transform that has an inverse."""

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return the data with the transform undone."""
        return {**data, **{key: self.transform.inverse(data[key]) for key in self.key_iterator(dict(data))}}
