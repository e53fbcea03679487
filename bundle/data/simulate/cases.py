"""Simulated cases, each from a head, a lesion mask and a seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bundle.data.simulate.case import SimulatedCase, simulate_case
from bundle.data.simulate.lesions import LesionMasks
from bundle.data.simulate.tissues import Head
from bundle.data.simulate.varied import simulate_varied_case
from bundle.errors import InputError

__all__ = ["SimulatedCases"]


class SimulatedCases(Sequence[SimulatedCase]):
    """Cases that are simulated when they are asked for; case ``i`` is the same each time.

    Args:
        heads: healthy heads, which the cases take turns with.
        masks: where the lesions' shapes come from; procedural ones if None.
        cases: how many.
        seed: of the randomness.
        healthy_fraction: share of cases without lesion.
        further_lesions: as for :func:`simulate_case`.
        scanned_fraction: share of cases in heads that are T1w scans, the rest being drawn from tissue label maps; with
            None all heads take turns.
        varied: as :func:`simulate_varied_case` makes them, instead of :func:`simulate_case`.

    Raises:
        InputError: when there is no case, a share is not 0..1, the number of further lesions is negative, or the heads
            are not of both kinds where a share of them is asked for.
    """

    def __init__(
        self,
        heads: Sequence[Head],
        masks: LesionMasks | None,
        cases: int,
        seed: int = 0,
        healthy_fraction: float = 0.0,
        further_lesions: float = 0.0,
        scanned_fraction: float | None = None,
        varied: bool = False,
    ) -> None:
        if cases < 1:
            raise InputError(f"At least one case must be simulated, got {cases}.")
        if not 0 <= healthy_fraction <= 1:
            raise InputError(f"The share of cases without lesion must be 0..1, got {healthy_fraction}.")
        if further_lesions < 0:
            raise InputError(f"The mean number of further lesions must be 0 or more, got {further_lesions}.")
        self.heads = list(heads)
        self.masks = masks
        self.cases = cases
        self.seed = seed
        self.healthy_fraction = healthy_fraction
        self.further_lesions = further_lesions
        self.scanned_fraction = scanned_fraction
        self.varied = varied
        self.scans = [head for head in self.heads if head.image is not None]
        self.maps = [head for head in self.heads if head.image is None]
        if scanned_fraction is not None:
            if not 0 <= scanned_fraction <= 1:
                raise InputError(f"The share of cases in scanned heads must be 0..1, got {scanned_fraction}.")
            if not (self.scans and self.maps):
                raise InputError(
                    f"A share of cases in scanned heads needs heads of both kinds: {len(self.scans)} T1w scans and "
                    f"{len(self.maps)} label maps were given."
                )

    def __len__(self) -> int:
        return self.cases

    def __getitem__(self, index: int) -> SimulatedCase:  # type: ignore[override]  # slices are not of use here
        number = range(self.cases)[index]
        rng = np.random.default_rng((self.seed, number))
        volume_ml = 0.0 if rng.random() < self.healthy_fraction else None
        head = self._head(number, rng)
        if head.lookalikes:
            volume_ml = 0.0
        simulate = simulate_varied_case if self.varied else simulate_case
        return simulate(head, rng, self.masks, volume_ml, self.further_lesions)

    def _head(self, number: int, rng: np.random.Generator) -> Head:
        if self.scanned_fraction is None:
            return self.heads[number % len(self.heads)]
        kind = self.scans if rng.random() < self.scanned_fraction else self.maps
        return kind[rng.integers(len(kind))]
