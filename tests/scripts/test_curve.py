"""The curve of a training's loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from torch.utils.tensorboard import SummaryWriter

from bundle.errors import InputError
from scripts.curve import curve, save_loss_curve


def log(run: Path, losses: Sequence[float], first: int = 1) -> None:
    with SummaryWriter(str(run)) as writer:
        for step, loss in enumerate(losses, first):
            writer.add_scalar("loss", loss, step)


def test_runs_follow_each_other_and_a_resumed_one_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "first", [4.0, 3.0, 9.0])
    log(tmp_path / "first", [2.5, 2.0], first=3)  # stopped in its third iteration
    log(tmp_path / "second", [1.0])
    drawn = []
    monkeypatch.setattr("scripts.curve.save_loss_curve", lambda runs, *_: drawn.extend(runs))
    monkeypatch.setattr("scripts.curve.shrink", lambda *_, **__: None)
    curve(str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "curve.png"))
    assert drawn == [[4.0, 3.0, 2.5, 2.0], [1.0]]


def test_the_curve_is_the_moving_mean_at_the_last_iteration_of_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 2 over 4, 2, 6 end at iterations 2 and 3; the second run of one iteration stands at 4."""
    lines: list[tuple[list, list]] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axis, x, y, **more: (lines.append((list(x), list(y))), plot(axis, x, y))[1]
    )
    save_loss_curve([[4.0, 2.0, 6.0], [5.0]], 2, tmp_path / "curve.png")
    assert lines == [([2, 3], [3.0, 4.0]), ([4], [5.0])]
    assert (tmp_path / "curve.png").exists()


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no loss: the output folder of a training is expected"):
        curve(str(tmp_path), str(tmp_path / "curve.png"))
    with pytest.raises(InputError, match="A training's output folder and a file to write are expected"):
        curve(str(tmp_path / "curve.png"))
