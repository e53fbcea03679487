"""How large networks are and how much they compute: the thesis's table 4.3, and what its FLOPs leave out."""

from __future__ import annotations

import time
from collections.abc import Mapping

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


def _network_and_stacks(parser: ConfigParser, device: str, count: int = 1) -> tuple[nn.Module, torch.Tensor]:
    """Return a new network of the configs, in ``eval()``, and its input."""
    with torch.device(device):
        network: nn.Module = parser.get_parsed_content("network_def", lazy=False)
        return network.eval(), torch.zeros(count, 4, _SIZE, _SIZE)


def parameters_and_flops(parser: ConfigParser) -> dict[str, float]:
    """Return ``parameters`` and ``flops`` of one stack, counted by the tool that gives the thesis's numbers.

    Args:
        parser: of the configs that the network is trained with.
    """
    network, stack = _network_and_stacks(parser, "meta")
    operations = counted_operations(network, stack, THOP_0_0_31)
    return {"parameters": counted_parameters(network, THOP_0_0_31), "flops": operations.total()}


def _seconds(parser: ConfigParser) -> float:
    """Return the seconds for a volume, from the faster of two times a few slices."""
    (network, stacks), times = _network_and_stacks(parser, "cpu", _TIMED), []
    with torch.inference_mode():
        for _ in range(3):  # the first one warms up
            begin = time.perf_counter()
            network(stacks)
            times.append(time.perf_counter() - begin)
    return min(times[1:]) / _TIMED * _VOLUME


def complexity_table(networks: Mapping[str, ConfigParser]) -> str:
    """Return parameters, the counts of two versions of thop, the multiplications here, and seconds for a volume here.

    Args:
        networks: by title, a parser of the configs that each is trained with.
    """
    rows = []
    for title, parser in networks.items():
        network, stack = _network_and_stacks(parser, "meta")
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(stack)
        numbers = [
            sum(parameter.numel() for parameter in network.parameters()),
            *(counted_operations(network, stack, rules).total() for rules in (THOP_0_0_31, THOP_0_1_1)),
            counter.get_total_flops() // 2,
        ]
        rows.append([title, *(f"{number:,}" for number in numbers), f"{_seconds(parser):.0f}"])
    header = ["method", "parameters", "FLOPs by thop 0.0.31", "by thop 0.1.1", "multiply-accumulates here"]
    return f"""All parameters are counted. The versions of thop (docs/complexity.md) count only what is a
module, and charge transposed convolutions too much. One stack of {_SIZE} x {_SIZE}. Seconds: {_VOLUME} slices in
float32, torch, this machine, {torch.get_num_threads()} threads, computed from {_TIMED} slices.

{table([*header, "seconds per volume"], rows)}"""
