"""docs/performance.md from what the benchmarks measured: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from scripts.command import run_command
from scripts.thesis.markdown import table

__all__ = ["page"]

_BACKEND = "OpenVINO, bfloat16 (backend openvino, --amp)"

# Ways, by how their names begin.
_STARTS = (
    "torch, float32, + batch norms",
    "torch, float32, + no products",
    "torch, bfloat16, + freed",
    "torch.compile",
    "OpenVINO, bfloat16, 3D branch as",
    "OpenVINO, int8",
)

_HEAD = """# How long it takes

For whom it matters how many volumes are done by tomorrow. Measured by `make bench` on one machine:
{machine}, {cores} cores, {memory:.0f} GB,
{versions}, {date}.
On another machine it is other seconds, and the ratios hold better. Not for clinical use.

## What to plan with

The command on heads that must be registered, {copies} of each kind (`python -m benchmarks.volumes`): medians of a
volume, with OpenVINO in bfloat16, while the next volume is read and registered beside the network. The shipped network
sees voxels of 2 mm. The thesis's grid of 1 mm is four times the pixels and twice the slices; the shipped weights, not
trained for it, do the same work as any. What the network takes does not depend on the voxels of the file, since it is
resampled to the network's grid.

{plan}

Volumes an hour on {cores} cores are measured. Those on 8 and 16 cores are **computed**: as many commands of two cores
each, side by side by `--shard`, each with the memory of one. nnU-Net's 3D network alone takes {nnunet:.0f} s of a
volume on this machine, {nnunet_hour:.0f} volumes an hour, and eight times as long as it is by default, with mirroring.

## One file

A simulated stroke of 1 mm in MNI space, the third and later runs of the command with `--timing` (medians of 3):

{single}

*Start* is everything until the volume is read: Python, imports, weights, and the converted network from the cache. The
last column is reading, network and writing against the network alone, without registration.

## The network, every way

One axial slice of 192 x 192, of {slices} that a volume of 1 mm has, in turns, each way in a process of its own, medians
of {repeats} with the range (`python -m benchmarks.backends`). A product is a multiplication and an addition; the
largest convolutions reach {f32:.0f} 10^9 of them a second in float32 here, {bf16:.0f} in bfloat16, and the last but one
column is the share of that ceiling (of bfloat16's for integers). The difference is the largest of a logit, in their
standard deviations.

{ways}

What a way gains depends on the processor. Here the network at the very ceiling of bfloat16 would take {floor:.2f} of
plain float32's time; on two cores with ceilings of 257 and 512, OpenVINO took 0.19 in bfloat16 and 0.12 with integers
(this page of 2026-11-26, in the repository's history), and training was 4.32 times as fast.

`torch.compile` needed {compile:.0f} s to compile; OpenVINO converts once, in {convert:.0f} s, and quantizes once, in
{quantize:.0f} s, and later programs read the result.

## What it does to masks

Simulated strokes, the shipped weights at their threshold, on the grid of the file, voxels of all cases together and
means of the cases (`python -m benchmarks.masks TEST`, the test cohort of [simulation.md](simulation.md)). Where float32
finds next to nothing, a few voxels are the whole Dice: beside the least stands how much it finds there.

{masks}

## How it grows

OpenVINO, bfloat16, with slices, with their size and with threads, medians (`python -m benchmarks.backends`):

{growth}

Slices are computed one by one; one without head costs nothing.

## Against other networks

A volume of 197 x 233 x 189, untrained networks, network time, each once (`make bench-others`, which has an environment
of its own). Mirroring, nnU-Net's default, multiplies its seconds by eight in 3D and by four in 2D.

{others}

## A hundred volumes

{many}

![Memory, open files and seconds a volume over the batch](many_whole.png)

*`python -m benchmarks.many_volumes docs/many_whole.png --count 100 --whole`*

## Training

{training}

On two cores of this kind, which have no AMX, the last line has been 2.66, 3.92 and 3.05. Between the last two runs, of
one hour, the plain way changed, 1.13 and 1.47 slices a second, and the fast one did not, 4.43 and 4.48.

## What did not help

- **The 3D branch as one 2D convolution over all slices**, as in training, with OpenVINO: {dense:.2f} of the time of
  plain float32, where a convolution for each slice that comes out takes {apart:.2f}. In torch and float32
  they are alike, {torch_dense:.2f} and {torch_apart:.2f}.
- **torch.compile**: {compiled:.2f}, where torch without it and with the freed memory kept takes {kept:.2f}.
- **Sharing between the stacks** in which a slice stands: of the first 3D convolution it would save 0.2 of 17.0 10^9
  products. Of the second, 7 pairs of slices would be left of 10, which are 1.0 of 17.0, for sums of 33 MB a slice that
  must be kept, written and read. Not built.
- **Cropping to the head** moves the grid of the patch attention, so that other patches would be weighed: not the
  same network. Slices without head are skipped, which changes nothing.
- **Plain quantization**: clipped ranges, NNCF's default, take lesions for outliers, and masks agree with float32's
  worse than with ranges up to the extremes and channels of unlike ranges smoothed, both of which the backend has
  (`bundle/inferers/quantization.py`). The whole outermost scale in bfloat16, in place of its first and last
  convolution, took a tenth more time, and the masks of twelve cases agreed no better.
"""


def _read(folder: Path, name: str) -> Any:
    file = folder / f"{name}.json"
    if not file.exists():
        raise SystemExit(f"{file} is missing: make bench and make bench-others write it.")
    return json.loads(file.read_text())


def _machine() -> tuple[str, float]:
    """The processor, as Linux tells it, and the memory in GB."""
    pairs = (line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line)
    told = {key.strip(): value.strip() for key, value in pairs}
    flags = told.get("flags", "").split()
    known = [flag for flag in ("avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if flag in flags]
    name = told.get("model name", platform.processor())
    family = ", ".join(f"{key.removeprefix('cpu ')} {told[key]}" for key in ("cpu family", "model") if key in told)
    kilobytes = int(Path("/proc/meminfo").read_text().split()[1])
    return f"{name}, {family} ({', '.join(known)})", kilobytes / 2**20


def _plan(rows: Sequence[Mapping[str, Any]], cores: int) -> str:
    lines = []
    for row in rows:
        if row["kind"] != "batch":
            continue
        # What the first volume waits for is spread over few here, and over many in a night.
        hour = 3600 * row["volumes"] / row["work"]
        lines.append(
            [
                f"{row['voxel_mm']:g} mm",
                f"{row['network_mm']:g} mm",
                *(f"{row[step]:.1f}" for step in ("load", "registration", "network", "write")),
                f"{row['peak_mb'] / 1024:.1f}",
                *(f"{hour * of / cores:.0f}" for of in (cores, 8, 16)),
            ]
        )
    header = ["voxels of the file", "network's", "read, s", "register, s", "network, s", "write, s", "memory, GB"]
    return table([*header, f"an hour on {cores} cores", "8 (computed)", "16 (computed)"], lines)


def _single(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for network_mm in (2.0, 1.0):
        found = [row for row in rows if row["kind"] == "single" and row["network_mm"] == network_mm]
        middle = {key: sorted(row[key] for row in found)[len(found) // 2] for key in found[0] if key != "kind"}
        whole = middle["load"] + middle["network"] + middle["write"]
        lines.append(
            [
                f"{network_mm:g} mm",
                f"{middle['imports'] + middle['ready']:.1f}",
                *(f"{middle[step]:.2f}" for step in ("load", "network", "write")),
                f"{middle['command']:.1f}",
                f"{whole / middle['network']:.2f}",
            ]
        )
    return table(["network", "start, s", "read, s", "network, s", "write, s", "command, s", "against network"], lines)


def _ways(found: Mapping[str, Any]) -> str:
    lines = []
    for name, way in found["ways"].items():
        ceiling = found["peak_gmac_s"]["bf16" if "bfloat16" in name else "f32"]
        lines.append(
            [
                name,
                f"{way['ratio']:.2f}",
                f"{way['seconds'] * found['slices']:.1f} ({way['least'] * found['slices']:.1f} to "
                f"{way['most'] * found['slices']:.1f})",
                f"{way['gmac']:.1f}",
                f"{way['peak_mb'] / 1024:.1f}",
                f"{way['gmac'] / way['seconds'] / ceiling:.2f}",
                f"{way['difference']:.0e}",
            ]
        )
    header = ["way", "ratio", "s a volume", "10^9 products a slice", "memory, GB", "of the ceiling", "difference"]
    return table(header, lines)


def _masks(found: Mapping[str, Any]) -> str:
    keys = ("dice_pooled", "dice_mean", "dice_median", "dice_least")
    rows = []
    for name, way in found.items():
        least = f"{way['least_ml']:.2f}" if way["dice_least"] < 1 else "-"
        rows.append([name, *(f"{way[key]:.4f}" for key in keys), least, f"{way['dsc']:.4f}"])
    header = ["backend", "Dice with float32's, pooled", "mean", "median", "least", "of a mask of, mL"]
    return table([*header, "mean DSC with the truth"], rows)


def _growth(points: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for point in sorted(points, key=lambda point: (point["size"], point["threads"], point["slices"])):
        pixels = point["size"] ** 2
        threads = point["threads"] or "all"
        rows.append(
            [
                f"{point['size']} x {point['size']}",
                f"{threads}",
                f"{point['slices']}",
                f"{point['seconds'] * point['slices']:.2f}",
                f"{point['seconds']:.4f}",
                f"{point['seconds'] / pixels * 1e6:.2f}",
            ]
        )
    return table(["slice", "threads", "slices", "s", "s a slice", "microseconds a pixel"], rows)


def _others(found: Mapping[str, Any], ours: float) -> str:
    rows = [[name, f"{seconds:.0f}", f"{seconds / ours:.1f}"] for name, seconds in found["seconds"].items()]
    return table(
        ["network", "s a volume", "times TSRL-Net here"], [["TSRL-Net, " + _BACKEND, f"{ours:.1f}", "1"], *rows]
    )


def _many(found: Mapping[str, Any]) -> str:
    return (
        f"{found['count']} heads of 1 mm, registered, the shipped network: {found['cores']} cores were "
        f"{found['busy']:.0%} busy, the program and its workers held at most {found['peak_mb'] / 1024:.1f} GB.\nThe "
        f"moments at which volumes were done lie on a line of {found['seconds_a_volume']:.2f} s a volume; the "
        f"furthest\nis {found['largest_deviation']:.1%} of the whole time off it."
    )


def _training(found: Mapping[str, Any]) -> str:
    rows = [[name, f"{way['ratio']:.2f}", f"{way['slices_s']:.2f}"] for name, way in found["ways"].items()]
    setting = f"{found['slice_size']} x {found['slice_size']}, batch {found['batch_size']}"
    return f"Steps of TSRL-Net, {setting} (`python -m benchmarks.training`):\n\n" + table(
        ["way", "times as fast", "slices a second"], rows
    )


def page(measured: str = "runs/bench", output: str = "docs/performance.md") -> None:
    """Writes the page.

    Args:
        measured: the folder of the benchmarks' JSON files.
        output: the page.
    """
    found = {
        name: _read(Path(measured), name)
        for name in ("backends", "masks", "volumes", "others", "many_volumes", "training")
    }
    backends, others = found["backends"], found["others"]
    ways, (machine, memory) = backends["ways"], _machine()
    by_start = {start: next(way for name, way in ways.items() if name.startswith(start)) for start in _STARTS}
    nnunet = next(iter(others["seconds"].values()))
    ours = ways[_BACKEND]["seconds"] * backends["slices"]
    packages = ("torch", "monai", "openvino", "nncf")
    text = _HEAD.format(
        machine=machine,
        memory=memory,
        cores=backends["threads"],
        versions=", ".join(f"{package} {version(package)}" for package in packages),
        date=datetime.now(UTC).date(),
        copies=next(row["volumes"] for row in found["volumes"] if row["kind"] == "batch"),
        plan=_plan(found["volumes"], backends["threads"]),
        nnunet=nnunet,
        nnunet_hour=3600 / nnunet,
        single=_single(found["volumes"]),
        slices=backends["slices"],
        repeats=backends["repeats"],
        f32=backends["peak_gmac_s"]["f32"],
        bf16=backends["peak_gmac_s"]["bf16"],
        ways=_ways(backends),
        floor=ways[_BACKEND]["gmac"] / backends["peak_gmac_s"]["bf16"] / next(iter(ways.values()))["seconds"],
        compile=by_start["torch.compile"]["first_ready_seconds"],
        convert=by_start["OpenVINO, bfloat16, 3D branch as"]["first_ready_seconds"],
        quantize=by_start["OpenVINO, int8"]["first_ready_seconds"],
        masks=_masks(found["masks"]),
        growth=_growth(backends["growth"]),
        others=_others(others, ours),
        many=_many(found["many_volumes"]),
        training=_training(found["training"]),
        dense=by_start["OpenVINO, bfloat16, 3D branch as"]["ratio"],
        apart=ways[_BACKEND]["ratio"],
        torch_dense=by_start["torch, float32, + batch norms"]["ratio"],
        torch_apart=by_start["torch, float32, + no products"]["ratio"],
        compiled=by_start["torch.compile"]["ratio"],
        kept=by_start["torch, bfloat16, + freed"]["ratio"],
    )
    Path(output).write_text(text)


if __name__ == "__main__":
    run_command(page)
