"""MONAI without the libraries that it imports and a segmentation does not use: a third of the time of its import."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

__all__ = ["lean_imports"]

# MONAI takes each of them for not installed.
_OPTIONAL = ("itk", "matplotlib.pyplot", "scipy.signal", "scipy.stats", "sklearn", "torch.utils.tensorboard")
# Ignite needs one name of it, to ask whether an optimizer is of that class.
_SHARDED = "torch.distributed.optim"


@contextmanager
def lean_imports() -> Iterator[None]:
    """In this block MONAI and ignite are imported without plots, ITK, TensorBoard, and sharded optimizers.

    Afterwards all of these can be imported as ever. To be used by a process that segments and does not train, in which
    MONAI has not been imported yet.
    """
    stub = ModuleType(_SHARDED)
    vars(stub)["ZeroRedundancyOptimizer"] = type("ZeroRedundancyOptimizer", (), {})
    hidden = dict.fromkeys(_OPTIONAL) | {_SHARDED: stub}
    hidden = {name: module for name, module in hidden.items() if name not in sys.modules}
    sys.modules.update(hidden)  # type: ignore[arg-type]  # None is what the import system takes for "not there"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
