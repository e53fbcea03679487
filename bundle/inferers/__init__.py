"""Inferers: the slice stack inferer, and autocast on any device."""

from bundle.inferers.slice_stack import AutocastInferer, SliceStackInferer

__all__ = ["AutocastInferer", "SliceStackInferer"]
