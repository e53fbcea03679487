"""Whether MONAI Label runs a config: it names cases and epochs, and expects the new weights where the old ones are."""

from __future__ import annotations

import sys

__all__ = ["in_monai_label"]

# What MONAI Label writes its overrides to before it starts a process for each GPU, in which it is not imported.
_ITS_CONFIG = "monailabel_train.json"


def in_monai_label() -> bool:
    """Whether this process is a MONAI Label server, a task of one, or a training of one on several GPUs."""
    return "monailabel" in sys.modules or any(_ITS_CONFIG in word for word in sys.argv)
