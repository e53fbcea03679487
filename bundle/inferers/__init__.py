"""Inferers: slice stacks of volumes, and autocast on any device."""

from bundle.inferers.slice_stack import AutocastInferer, SliceStackInferer

__all__ = ["AutocastInferer", "SliceStackInferer"]
