"""docs/performance.md from what the benchmarks measured: ``python -m benchmarks.page``."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bundle.templates import render
from scripts.command import run_command
from scripts.thesis.markdown import table

__all__ = ["page"]

_TEMPLATE = Path(__file__).parent / "templates" / "performance.md"
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
    best, packages = ways[_BACKEND], ("torch", "monai", "openvino", "nncf")
    text = render(
        _TEMPLATE,
        machine=machine,
        memory=memory,
        versions=", ".join(f"{package} {version(package)}" for package in packages),
        date=datetime.now(UTC).date(),
        backends=backends,
        best=best,
        plain=next(iter(ways.values())),
        starts={start: next(way for name, way in ways.items() if name.startswith(start)) for start in _STARTS},
        copies=next(row["volumes"] for row in found["volumes"] if row["kind"] == "batch"),
        nnunet=next(iter(others["seconds"].values())),
        plan=_plan(found["volumes"], backends["threads"]),
        single=_single(found["volumes"]),
        ways=_ways(backends),
        masks=_masks(found["masks"]),
        growth=_growth(backends["growth"]),
        others=_others(others, best["seconds"] * backends["slices"]),
        many=_many(found["many_volumes"]),
        training=_training(found["training"]),
    )
    Path(output).write_text(text)


if __name__ == "__main__":
    run_command(page)
