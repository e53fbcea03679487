"""Slices of volumes that are simulated while the network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context

import torch
from ignite.engine import Engine, Events
from monai.data.meta_tensor import MetaTensor
from tqdm import tqdm

from bundle.data.simulate import SimulatedCases
from bundle.data.slice_dataset import SliceDataset, slices_of
from bundle.errors import InputError
from bundle.processes import begin_worker
from bundle.transforms import OFFSETS, Plane, StackSlices, VolumePreprocessing, atlas_grid

__all__ = ["SimulatedSliceDataset"]

Volume = dict[str, torch.Tensor]

# What a process of the pool simulates with.
_cases: SimulatedCases
_preprocess: Callable[[dict], dict]
_slicing: tuple[Sequence[int], Plane]


def _prepare_worker(
    cases: SimulatedCases, preprocess: Callable[[dict], dict], offsets: Sequence[int], plane: Plane
) -> None:
    global _cases, _preprocess, _slicing
    _cases, _preprocess, _slicing = cases, preprocess, (offsets, plane)
    begin_worker()


def _simulate(number: int) -> Volume:
    case = _cases[number]
    affine = torch.as_tensor(atlas_grid()[0])
    arrays = {"image": case.image, "label": case.label}
    prepared = _preprocess({key: MetaTensor(torch.from_numpy(a)[None], affine=affine) for key, a in arrays.items()})
    return slices_of(prepared["image"], prepared["label"], *_slicing)


class SimulatedSliceDataset(SliceDataset):
    """A pool of simulated volumes, part of which is renewed after each epoch; processes beside the training make them.

    Attach it to the trainer. A resumed training goes on with the cases that it would have had.

    Args:
        cases: what is simulated; it must hold ``volumes`` cases and ``renewed`` for each epoch.
        preprocessing: with image and label, in MNI space.
        volumes: size of the pool.
        renewed: volumes that an epoch replaces, the oldest first.
        augment: random transforms of one sample, or None.
        offsets: the stack's slices relative to its own.
        workers: processes that simulate.
        progress: show a bar while the first volumes are made.
        plane: of the slices.

    Raises:
        InputError: when the pool is empty, or an epoch would renew more than it.
        ValueError: when the offsets do not rise in even steps, or the preprocessing is not in MNI space.
    """

    def __init__(
        self,
        cases: SimulatedCases,
        preprocessing: VolumePreprocessing,
        volumes: int = 100,
        renewed: int = 20,
        augment: Callable[[dict], dict] | None = None,
        offsets: Sequence[int] = OFFSETS,
        workers: int = 1,
        progress: bool = True,
        plane: Plane = "axial",
    ) -> None:
        if not 0 <= renewed <= volumes or volumes == 0:
            raise InputError(f"{volumes} simulated volumes, {renewed} renewed: 0 <= renewed <= volumes is needed.")
        self.cases = cases
        self.renewed = renewed
        self.augment = augment
        self.offsets = StackSlices(offsets).offsets  # checked
        given = (cases, preprocessing.after_registration, self.offsets, plane)
        self.pool = ProcessPoolExecutor(workers, get_context("spawn"), _prepare_worker, given)
        self.coming: list[Future[Volume]] = []
        self.epochs = 0
        first = self._order(0, volumes)
        self._hold([future.result() for future in tqdm(first, desc="simulating", disable=not progress)])

    def attach(self, engine: Engine) -> None:
        """Attaches to a trainer."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._begin_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._renew)

    def _order(self, first: int, count: int) -> list[Future[Volume]]:
        """Has cases simulated; behind the last case the first come again."""
        return [self.pool.submit(_simulate, number % len(self.cases)) for number in range(first, first + count)]

    def _begin_epoch(self, engine: Engine) -> None:
        done = engine.state.epoch - 1
        if done > self.epochs:  # a resumed training: the pool as it was
            size, first = len(self.volumes), max(done * self.renewed, (self.epochs * self.renewed) + len(self.volumes))
            self._replace(first, self._order(first, done * self.renewed + size - first))
            self.epochs = done
        # They are made while the epoch trains.
        self.coming = self._order(len(self.volumes) + done * self.renewed, self.renewed)

    def _renew(self, engine: Engine) -> None:
        self._replace(len(self.volumes) + self.epochs * self.renewed, self.coming)
        self.epochs += 1

    def _replace(self, first: int, made: list[Future[Volume]]) -> None:
        """Case ``n`` takes the place of case ``n - volumes``."""
        volumes = list(self.volumes)
        for number, future in enumerate(made, first):
            volumes[number % len(volumes)] = future.result()
        self._hold(volumes)
