"""Registration of the bundle's losses and networks with MONAI, on import of this module."""

from __future__ import annotations

import monai.losses
import monai.networks.nets
from monai.bundle.config_item import ComponentLocator

from bundle import losses, networks

__all__ = ["register"]

_NETWORKS = ("AGMRNet", "DUNet", "SliceStackUNet", "TSRLNet")
_MODULES = ("bundle.losses.", "bundle.networks.nets", "bundle.networks.slice_stack_unet")


def register() -> None:
    """Set ``monai.losses.TargetAwareLoss`` and the like, and allow ``"_target_": "TargetAwareLoss"`` in configs.

    MONAI has no registry: its ``ComponentLocator`` looks up bare names in modules whose name begins with "monai".
    Calling this twice changes nothing; MONAI's own names are never replaced.

    Raises:
        RuntimeError: when MONAI has another component of one of the names.
    """
    for package, ours, names in (
        (monai.losses, losses, losses.__all__),
        (monai.networks.nets, networks, _NETWORKS),
    ):
        for name in names:
            component = getattr(ours, name)
            if getattr(package, name, component) is not component:
                raise RuntimeError(f"{package.__name__}.{name} exists already and is not this bundle's.")
            setattr(package, name, component)
    starts = ComponentLocator.MOD_START
    starts = (starts,) if isinstance(starts, str) else tuple(starts)
    ComponentLocator.MOD_START = (*starts, *(module for module in _MODULES if module not in starts))


register()
