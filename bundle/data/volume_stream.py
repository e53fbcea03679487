"""A stream of volumes for inference that skips those that cannot be read."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence

from torch.utils.data import IterableDataset
from tqdm import tqdm

from bundle.errors import InputError, explain

__all__ = ["VolumeStream"]

_log = logging.getLogger(__name__)


class VolumeStream(IterableDataset):
    """Iterable dataset of preprocessed volumes; those that cannot be read are logged, skipped and remembered.

    Args:
        data: the cases, ``{"image": file}``.
        transform: deterministic transforms of one case.
        progress: show a bar over the volumes.

    Raises:
        InputError: when there is no case.
    """

    def __init__(self, data: Sequence[dict], transform: Callable[[dict], dict], progress: bool = True) -> None:
        if not data:
            raise InputError("There is no volume to segment: the datalist is empty.")
        self.data = list(data)
        self.transform = transform
        self.progress = progress
        self.failures: list[str] = []

    def __iter__(self) -> Iterator[dict]:
        self.failures = []
        for item in tqdm(self.data, desc="volumes", disable=not self.progress):
            try:
                volume = self.transform(dict(item))
            except Exception as error:  # whatever a damaged file makes a reader raise
                self.failures.append(explain(item["image"], error))
                _log.error("%s", self.failures[-1])
                continue
            yield volume

    def raise_failures(self) -> None:
        """Raise an error if volumes could not be read, so that the exit code shows it.

        Raises:
            InputError: when volumes could not be read in the last pass, with a sentence for each.
        """
        if self.failures:
            head = f"{len(self.failures)} of {len(self.data)} volumes could not be segmented."
            raise InputError("\n".join([head, *self.failures]))
