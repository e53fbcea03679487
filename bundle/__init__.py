"""Stroke lesion segmentation on T1w MRI with AGMR-Net and TSRL-Net, as a MONAI bundle.

Importing this package registers its losses and networks with MONAI: see :func:`register`.
"""

from pathlib import Path

from bundle.registration import register

__all__ = ["bundle_root", "register"]


def bundle_root() -> str:
    """The folder that holds ``configs/``, ``models/`` and this package, from wherever a config is run."""
    return str(Path(__file__).resolve().parents[1])


register()
