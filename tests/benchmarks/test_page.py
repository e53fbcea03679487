"""docs/performance.md from made-up measurements, word for word where these are shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.page import page

PLAIN = {
    "seconds": 0.4,
    "ready_seconds": 1.0,
    "peak_mb": 2048.0,
    "gmac": 20.0,
    "difference": 0.0,
    "least": 0.3,
    "most": 0.5,
    "first_ready_seconds": 41.6,
    "ratio": 1.0,
}
FAST = {**PLAIN, "seconds": 0.1, "least": 0.09, "most": 0.125, "gmac": 17.0, "difference": 0.0123, "ratio": 0.25}
WAYS = (
    "torch, float32, + batch norms folded",
    "torch, float32, + no products with zeros",
    "torch, bfloat16, + freed memory kept (backend torch, --amp)",
    "torch.compile, bfloat16",
    "OpenVINO, bfloat16, 3D branch as in training",
    "OpenVINO, bfloat16 (backend openvino, --amp)",
    "OpenVINO, int8 and bfloat16 (backend openvino_int8)",
)
STEPS = {"load": 1.25, "registration": 4.0, "network": 3.0, "write": 0.5, "peak_mb": 1536.0, "volumes": 4, "work": 24.0}
SINGLE = {**STEPS, "kind": "single", "voxel_mm": 1.0, "imports": 2.0, "ready": 0.5, "command": 7.25}
MEASURED: dict[str, Any] = {
    "backends": {
        "threads": 2,
        "repeats": 3,
        "slices": 189,
        "peak_gmac_s": {"f32": 250.0, "bf16": 500.0},
        "ways": {"torch, float32, 3D convolutions": PLAIN, **dict.fromkeys(WAYS, FAST)},
        "growth": [
            {"size": 192, "threads": 0, "slices": 48, "seconds": 0.1},
            {"size": 96, "threads": 1, "slices": 24, "seconds": 0.03},
        ],
    },
    "masks": {
        "torch, float32": {
            **dict.fromkeys(("dice_pooled", "dice_mean", "dice_median", "dice_least"), 1.0),
            "least_ml": 3.0,
            "dsc": 0.65,
        },
        "torch, bfloat16": {
            "dice_pooled": 0.999,
            "dice_mean": 0.98,
            "dice_median": 0.997,
            "dice_least": 0.5,
            "least_ml": 0.25,
            "dsc": 0.651,
        },
    },
    "volumes": [
        *({**SINGLE, "network_mm": mm} for mm in (2.0, 1.0)),
        *({**STEPS, "kind": "batch", "voxel_mm": mm, "network_mm": 2.0} for mm in (1.0, 0.7)),
    ],
    "others": {"seconds": {"nnU-Net v2": 900.0, "MONAI DynUNet": 94.5}},
    "many_volumes": {
        "count": 100,
        "cores": 2,
        "busy": 0.957,
        "peak_mb": 3072.0,
        "seconds_a_volume": 5.5,
        "largest_deviation": 0.012,
    },
    "training": {
        "slice_size": 192,
        "batch_size": 8,
        "ways": {"float32": {"ratio": 1.0, "slices_s": 1.25}, "+ bfloat16": {"ratio": 3.5, "slices_s": 4.375}},
    },
}


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr("benchmarks.page.version", lambda package: "1.0")  # not all are in one environment
    for name, found in MEASURED.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(found))
    page(str(tmp_path), str(tmp_path / "performance.md"))
    return (tmp_path / "performance.md").read_text()


@pytest.mark.parametrize(
    "expected",
    [
        "\nThe command on heads that must be registered, 4 of each kind (`python -m benchmarks.volumes`): medians ",
        " on 2 cores are measured. Those on 8 and 16 cores are **computed**: ",
        " nnU-Net's 3D network alone takes 900 s ",
        "\nvolume on this machine, 4 volumes ",
        "`torch.compile` needed 42 s to compile; OpenVINO converts once, in 42 s, and quantizes once, in\n42 s, ",
        """
| voxels of the file | network's | read, s | register, s | network, s | write, s | memory, GB \
| an hour on 2 cores | 8 (computed) | 16 (computed) |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| 1 mm | 2 mm | 1.2 | 4.0 | 3.0 | 0.5 | 1.5 | 600 | 2400 | 4800 |
| 0.7 mm | 2 mm | 1.2 | 4.0 | 3.0 | 0.5 | 1.5 | 600 | 2400 | 4800 |
""",
        """
| network | start, s | read, s | network, s | write, s | command, s | against network |
| --- | --- | --- | --- | --- | --- | --- |
| 2 mm | 2.5 | 1.25 | 3.00 | 0.50 | 7.2 | 1.58 |
| 1 mm | 2.5 | 1.25 | 3.00 | 0.50 | 7.2 | 1.58 |
""",
        """
| way | ratio | s a volume | 10^9 products a slice | memory, GB | of the ceiling | difference |
| --- | --- | --- | --- | --- | --- | --- |
| torch, float32, 3D convolutions | 1.00 | 75.6 (56.7 to 94.5) | 20.0 | 2.0 | 0.20 | 0e+00 |
| torch, float32, + batch norms folded | 0.25 | 18.9 (17.0 to 23.6) | 17.0 | 2.0 | 0.68 | 1e-02 |
""",
        """
| backend | Dice with float32's, pooled | mean | median | least | of a mask of, mL | mean DSC with the truth |
| --- | --- | --- | --- | --- | --- | --- |
| torch, float32 | 1.0000 | 1.0000 | 1.0000 | 1.0000 | - | 0.6500 |
| torch, bfloat16 | 0.9990 | 0.9800 | 0.9970 | 0.5000 | 0.25 | 0.6510 |
""",
        """
| slice | threads | slices | s | s a slice | microseconds a pixel |
| --- | --- | --- | --- | --- | --- |
| 96 x 96 | 1 | 24 | 0.72 | 0.0300 | 3.26 |
| 192 x 192 | all | 48 | 4.80 | 0.1000 | 2.71 |
""",
        """
| network | s a volume | times TSRL-Net here |
| --- | --- | --- |
| TSRL-Net, OpenVINO, bfloat16 (backend openvino, --amp) | 18.9 | 1 |
| nnU-Net v2 | 900 | 47.6 |
| MONAI DynUNet | 94 | 5.0 |
""",
        """
100 heads of 1 mm, registered, the shipped network: 2 cores were 96% busy, the program and its workers held at most \
3.0 GB.
The moments at which volumes were done lie on a line of 5.50 s a volume; the furthest
is 1.2% of the whole time off it.
""",
        """
Steps of TSRL-Net, 192 x 192, batch 8 (`python -m benchmarks.training`):

| way | times as fast | slices a second |
| --- | --- | --- |
| float32 | 1.00 | 1.25 |
| + bfloat16 | 3.50 | 4.38 |
""",
    ],
    ids=[
        "copies",
        "cores",
        "nnU-Net",
        "an hour",
        "compiled",
        "plan",
        "single",
        "ways",
        "masks",
        "growth",
        "others",
        "many",
        "training",
    ],
)
def test_measurements_are_shown_word_for_word(expected: str, text: str) -> None:
    assert expected in text


def test_a_measurement_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=r"backends\.json is missing: make bench and make bench-others write it"):
        page(str(tmp_path), str(tmp_path / "performance.md"))
