"""How large networks are and how much they compute: the thesis's table 4.3, and what its FLOPs leave out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from scripts.thesis.markdown import table
from scripts.thesis.thop_rules import THOP_0_0_31, THOP_0_1_1, counted_operations, counted_parameters

__all__ = ["complexity_table", "parameters_and_flops"]

_SIZE = 192  # the thesis's
_VOLUME = 189  # slices of one of ATLAS
_TIMED = 8  # slices at once


def _network(parser: ConfigParser, device: str) -> nn.Module:
    with torch.device(device):
        network: nn.Module = parser.get_parsed_content("network_def")
    return network.eval()


def _stacks(count: int, device: str) -> torch.Tensor:
    return torch.zeros(count, 4, _SIZE, _SIZE, device=device)


def parameters_and_flops(parser: ConfigParser) -> dict[str, float]:
    """``parameters`` and ``flops`` of one stack, as the tool counts them that gives the thesis's D-UNet and AGMR-Net.

    Args:
        parser: of the configs that the network is trained with.
    """
    network = _network(parser, "meta")
    operations = counted_operations(network, _stacks(1, "meta"), THOP_0_0_31)
    return {"parameters": counted_parameters(network, THOP_0_0_31), "flops": operations.total()}


def _seconds(parser: ConfigParser) -> float:
    """For a volume, from the faster of two times a few slices."""
    network, stacks, times = _network(parser, "cpu"), _stacks(_TIMED, "cpu"), []
    with torch.inference_mode():
        for _ in range(3):  # the first one warms up
            begin = time.perf_counter()
            network(stacks)
            times.append(time.perf_counter() - begin)
    return min(times[1:]) / _TIMED * _VOLUME


def complexity_table(networks: Mapping[str, Callable[[], ConfigParser]]) -> str:
    """Parameters, what two versions of thop count, what is multiplied here, and seconds for a volume here.

    Args:
        networks: by title, what reads the configs that each is trained with.
    """
    rows = []
    for title, read in networks.items():
        network, stack = _network(read(), "meta"), _stacks(1, "meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(stack)
        counted = [counted_operations(network, stack, rules).total() for rules in (THOP_0_0_31, THOP_0_1_1)]
        numbers: list[Any] = [sum(p.numel() for p in network.parameters()), *counted, counter.get_total_flops() // 2]
        rows.append([title, *(f"{number:,}" for number in numbers), f"{_seconds(read()):.0f}"])
    header = ["method", "parameters", "FLOPs by thop 0.0.31", "by thop 0.1.1", "multiply-accumulates here"]
    return f"""Parameters are all of them. The versions of thop (docs/complexity.md) see nothing that is
no module, and charge transposed convolutions too much. One stack of {_SIZE} x {_SIZE}. Seconds: {_VOLUME} slices in
float32, torch, this machine, {torch.get_num_threads()} threads, computed from {_TIMED} slices.

{table([*header, "seconds per volume"], rows)}
"""
