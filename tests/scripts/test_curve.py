"""The curve of a training's loss."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from matplotlib.axes import Axes
from torch.utils.tensorboard import SummaryWriter

from bundle.errors import InputError
from scripts.curve import curve, save_training_curves


def log(run: Path, losses: Sequence[float], first: int = 1) -> None:
    with SummaryWriter(str(run)) as writer:
        for step, loss in enumerate(losses, first):
            writer.add_scalar("loss", loss, step)


def test_runs_follow_each_other_and_a_resumed_one_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log(tmp_path / "first", [4.0, 3.0, 9.0])
    log(tmp_path / "first", [2.5, 2.0], first=3)  # stopped in its third iteration
    log(tmp_path / "second", [1.0])
    drawn = []
    monkeypatch.setattr("scripts.curve.save_training_curves", lambda runs, *_: drawn.extend(runs))
    monkeypatch.setattr("bundle.volumes.picture.shrink", lambda *_, **__: None)
    curve(str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "curve.png"))
    assert drawn == [[4.0, 3.0, 2.5, 2.0], [1.0]]


def test_the_curve_is_the_moving_mean_at_the_last_iteration_of_its_window(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows of 2 over 4, 2, 6 end at iterations 2 and 3; the second run of one iteration is at 4."""
    lines: list[tuple[list, list]] = []
    plot = Axes.plot
    monkeypatch.setattr(
        Axes, "plot", lambda axis, x, y, **more: (lines.append((list(x), list(y))), plot(axis, x, y))[1]
    )
    save_training_curves([[4.0, 2.0, 6.0], [5.0]], [{}, {}], 2, tmp_path / "curve.png")
    assert lines == [([2, 3], [3.0, 4.0]), ([4], [5.0])]
    assert (tmp_path / "curve.png").exists()


def test_validations_are_at_their_iteration_and_a_repeated_one_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second run's first validation, at its iteration 1, is the curve's fourth iteration."""
    header = "iteration,dsc,dsc_<0.5,dsc_0.5-2,dsc_2-10,dsc_10-50,dsc_>=50,false_ml,false_ml_max\n"
    for name, losses, rows in (
        ("first", [4.0, 3.0, 2.0], "2,0.1,,0,0,0,0.2,1,8\n3,0.9,0,0,0,0,0.9,1,1\n3,0.3,,0,0,0,0.5,0.25,4\n"),
        ("second", [1.0], "1,0.6,,0,0,0,0.8,0,2\n"),
    ):
        log(tmp_path / name, losses)
        (tmp_path / name / "validation.csv").write_text(header + rows)
    lines: dict[str, list[tuple[float, float]]] = {}
    plot = Axes.plot

    def keep(axis: Axes, x: Sequence[float], y: Sequence[float], **more: object) -> object:
        lines[str(more.get("label"))] = list(zip(x, y, strict=True))
        return plot(axis, x, y, **more)

    monkeypatch.setattr(Axes, "plot", keep)
    curve(str(tmp_path / "first"), str(tmp_path / "second"), str(tmp_path / "curve.png"))
    assert lines["all"] == [(2, 0.1), (3, 0.3), (4, 0.6)]
    assert lines[">=50 mL"] == [(2, 0.2), (3, 0.5), (4, 0.8)]
    assert lines["median"] == [(2, 1.0), (3, 0.25), (4, 0.0)]
    assert lines["maximum"] == [(2, 8.0), (3, 4.0), (4, 2.0)]
    assert [x for x, y in lines["<0.5 mL"] if y == y] == []  # no such case


def test_a_folder_without_a_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no loss: the output folder of a training is expected"):
        curve(str(tmp_path), str(tmp_path / "curve.png"))
    with pytest.raises(InputError, match="A training's output folder and a file to write are expected"):
        curve(str(tmp_path / "curve.png"))
