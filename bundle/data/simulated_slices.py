"""Slices of volumes that are simulated during training."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from tqdm import tqdm

from bundle.data.simulate import SimulatedCases
from bundle.data.slice_dataset import SliceDataset, slices_of
from bundle.errors import InputError
from bundle.mni import atlas_grid
from bundle.processes import begin_worker
from bundle.transforms import OFFSETS, Plane, StackSlices, VolumePreprocessing

__all__ = ["SimulatedSliceDataset"]

Volume = dict[str, torch.Tensor]

# Set in each process of the pool.
_cases: SimulatedCases
_preprocess: Callable[[dict], dict]
_slicing: tuple[Sequence[int], Plane]


def _prepare_worker(handed: Path) -> None:
    global _cases, _preprocess, _slicing
    _cases, _preprocess, _slicing = pickle.loads(handed.read_bytes())
    begin_worker()


def _simulate(number: int) -> Volume:
    case = _cases[number]
    affine = torch.as_tensor(atlas_grid()[0])
    arrays = {"image": case.image, "label": case.label}
    prepared = _preprocess({key: MetaTensor(torch.from_numpy(a)[None], affine=affine) for key, a in arrays.items()})
    return slices_of(prepared["image"], prepared["label"], *_slicing)


class SimulatedSliceDataset(SliceDataset):
    """A pool of simulated volumes, some of which are replaced after each epoch; other processes simulate them.

    Attach it to the trainer. A resumed training continues with the same cases as without the stop. A pool that starts
    small grows with each epoch, so that training does not wait until it is full.

    Args:
        cases: the simulator; it must have ``volumes`` cases and ``renewed`` for each epoch.
        preprocessing: with image and label, in MNI space.
        volumes: size of the pool.
        renewed: volumes that each epoch adds; in a full pool they replace the oldest.
        first: volumes that training starts with; None is a full pool.
        augment: random transforms of one sample, or None.
        offsets: the stack's slices relative to its own.
        workers: processes that simulate.
        progress: show a bar while the first volumes are simulated.
        plane: of the slices.

    Raises:
        InputError: when ``volumes``, ``renewed`` and ``first`` contradict each other.
        ValueError: when the offsets do not rise in even steps, or the preprocessing is not in MNI space.
    """

    def __init__(
        self,
        cases: SimulatedCases,
        preprocessing: VolumePreprocessing,
        volumes: int = 100,
        renewed: int = 20,
        first: int | None = None,
        augment: Callable[[dict], dict] | None = None,
        offsets: Sequence[int] = OFFSETS,
        workers: int = 1,
        progress: bool = True,
        plane: Plane = "axial",
    ) -> None:
        if not 0 <= renewed <= volumes or volumes == 0:
            raise InputError(f"{volumes} simulated volumes, {renewed} renewed: 0 <= renewed <= volumes is needed.")
        first = volumes if first is None else first
        if not 1 <= first <= volumes:
            raise InputError(f"{volumes} simulated volumes, {first} to begin with: 1 <= first <= volumes is needed.")
        self.cases = cases
        self.size = volumes
        self.renewed = renewed
        self.first = first
        self.made = 0
        self.augment = augment
        self.offsets = StackSlices(offsets).offsets  # checked
        # By a file, half a gigabyte of heads reaches all processes at once; by pipes, one after the other.
        self.folder = TemporaryDirectory(prefix="simulated-")
        handed = Path(self.folder.name) / "handed"
        handed.write_bytes(pickle.dumps((cases, preprocessing.after_registration, (self.offsets, plane))))
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare_worker, (handed,))
        self.coming: list[Future[Volume]] = []
        self.volumes: list[Volume] = []
        self._take(tqdm(self._order(0, first), desc="simulating", disable=not progress))

    def attach(self, engine: Engine) -> None:
        """Attach to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: self._take(self.coming))

    def _order(self, start: int, stop: int) -> list[Future[Volume]]:
        """Start the simulation of cases; after the last case the first follows."""
        return [self.pool.submit(_simulate, number % len(self.cases)) for number in range(start, stop)]

    def _begin_epoch(self, engine: Engine) -> None:
        made = self.first + (engine.state.epoch - 1) * self.renewed
        if made > self.made:  # a resumed training: restore the pool
            if made - self.size > self.made:  # it has none of the present cases
                self.volumes, self.made = self.volumes[:1] * self.size, made - self.size
            self._take(self._order(self.made, made))
        # They are simulated during the epoch.
        self.coming = self._order(self.made, self.made + self.renewed)

    def _take(self, coming: Iterable[Future[Volume]]) -> None:
        """Put each case in the place of the oldest, or at the end of a pool that is not full."""
        volumes = list(self.volumes)
        for future in coming:
            place = self.made % self.size
            volumes[place : place + 1] = [future.result()]
            self.made += 1
        self.hold(volumes)
