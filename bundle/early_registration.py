"""Registration of a single head in a process of its own, while the main one still imports torch and MONAI."""

from __future__ import annotations

import logging
import os
import warnings
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bundle.mni import RegistrationResult

__all__ = ["EarlyRegistration"]


class EarlyRegistration:
    """A registration that began when this object was made; to be made before torch is imported.

    Args:
        file: the head; anything else ends without a result, and is refused when it is read again.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(os.path.normpath(file.absolute()))  # as the volumes of a batch are named
        # A fork costs nothing as long as there are neither threads nor large imports.
        context = get_context("fork")
        self._result, sender = context.Pipe(duplex=False)
        context.Process(target=_register, args=(self.file, sender), daemon=True).start()
        sender.close()

    def result(self) -> RegistrationResult | None:
        """Wait for the registration; None if it came to no result."""
        try:
            result: RegistrationResult = self._result.recv()
        except EOFError:
            return None
        return result


def _register(file: Path, sender: Connection) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"  # the other cores import
    logging.disable()
    warnings.simplefilter("ignore")
    with suppress(Exception):  # told by the main process, which reads the file too
        sender.send(_registration(file))


def _registration(file: Path) -> RegistrationResult:
    import numpy as np

    from bundle.headers import check_header
    from bundle.mni import air_to_zero, register_to_mni
    from bundle.nifti import load_image

    check_header(file)
    image = load_image(file)
    # The steps of VolumePreprocessing.
    voxels = air_to_zero(np.asanyarray(image.dataobj).astype(np.float32).reshape(image.shape[:3]))
    return register_to_mni(voxels, image.affine)
