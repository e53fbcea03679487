"""A command line that is not understood is refused in a sentence before anything runs, by every command."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from collections.abc import Callable, Sequence
from io import BytesIO, TextIOWrapper
from pathlib import Path
from typing import Any, Literal

import pytest

from bundle.errors import InputError
from scripts.command import run_command, shown_python

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(
    ".".join(file.relative_to(ROOT).with_suffix("").parts)
    for folder in ("scripts", "scripts/thesis", "benchmarks")
    for file in (ROOT / folder).glob("*.py")
    if '__name__ == "__main__"' in file.read_text(encoding="utf-8")
)
ARGUMENTS = {
    "scripts.export": ["net.xml"],
    "scripts.package": ["out"],
    "scripts.curve": ["run", "curve.png"],
    "scripts.demo": [],
    "scripts.picture": ["head.nii", "mask.nii", "out.png"],
    "scripts.prepare": ["plain", "cohort", "out"],
    "scripts.dicom_receiver": ["spool", "PACS@localhost:104"],
    "scripts.thesis.compare": ["train", "test", "healthy", "out"],
    "scripts.thesis.experiment": ["table_4_6", "data"],
    "benchmarks.agreement": ["images", "labels", "out"],
    "benchmarks.boxes": ["masks"],
    "benchmarks.masks": ["cohort"],
}
"""Of a command that takes others than two: what it needs, none of it there."""
NO_ARGUMENTS = {
    f"benchmarks.{name}"
    for name in ("backends", "gpu_training", "many_volumes", "others", "page", "training", "volumes")
}


def arguments(command: str) -> list[str]:
    return ARGUMENTS.get(command, [] if command in NO_ARGUMENTS else ["in", "out"])


def test_the_commands_are_found() -> None:
    assert len(COMMANDS) == 28
    assert {"scripts.segment", "scripts.thesis.results", "benchmarks.page"} < set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_misspelt_option_is_refused_before_anything_runs(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, command, raising=False)  # that another test imported
    monkeypatch.setattr(sys, "argv", [command, *arguments(command), "--outputt", "elsewhere"])
    try:
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(command, run_name="__main__", alter_sys=True)
    except ModuleNotFoundError as missing:
        pytest.skip(f"{missing.name} is in an environment of its own")
    assert ended.value.code == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert re.fullmatch(r"Error: There is no option --outputt(: did you mean --\w+\?|; see --help\.)\n", told.err)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "words", "sentence"),
    [
        ("segment", "in out --thresold 0.3", "There is no option --thresold: did you mean --threshold?"),
        ("simulate", "--sead 2", "There is no option --sead: did you mean --seed?"),
        ("curve", "run curve.png --smooth", "There is no option --smooth; see --help."),
        ("average", "a.pt --outptu b.pt", "There is no option --outptu: did you mean --output?"),
        ("thesis.compare", "a b c d --epoch 3", "There is no option --epoch: did you mean --epochs?"),
        ("thesis.experiment", "table_4_6 data --cohrt isles", "There is no option --cohrt: did you mean --cohort?"),
        ("thesis.results", "comparison --tets a", "There is no option --tets: did you mean --test?"),
    ],
)
def test_the_option_that_was_probably_meant_is_named_without_loading_torch(
    command: str, words: str, sentence: str
) -> None:
    assert end_of(f"scripts.{command}", words) == (2, f"Error: {sentence}\n", "False\n")


@pytest.mark.parametrize("benchmark", ["boxes", "many_volumes", "page", "placement", "volumes"])
def test_benchmarks_that_start_other_programs_or_read_files_refuse_an_option_without_loading_torch(
    benchmark: str,
) -> None:
    sentence = "There is no option --qq; see --help."
    assert end_of(f"benchmarks.{benchmark}", "--qq") == (2, f"Error: {sentence}\n", "False\n")


def end_of(module: str, words: str) -> tuple[int, str, str]:
    """Return the exit code, the error, and whether torch was loaded."""
    program = (
        f"import runpy, sys\nsys.argv = [{module!r}, *{words.split()!r}]\n"
        f"try:\n    runpy.run_module({module!r}, run_name='__main__', alter_sys=True)\n"
        "finally:\n    print('torch' in sys.modules)"
    )
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr, ended.stdout


def test_help_lists_the_options_on_standard_output() -> None:
    words = [sys.executable, "-m", "scripts.export", "net.xml", "--help"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0
    assert "scripts.export FILE <flags>" in ended.stdout
    assert "--weights=WEIGHTS" in ended.stdout


# What becomes of the words


def call(function: Callable[..., None], words: Sequence[str], monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *words])
    run_command(function, **options)


def command_of(taken: dict[str, Any]) -> Callable[..., None]:
    def command(
        source: str,
        names: Sequence[str] = (),
        threshold: float | None = None,
        count: int = 3,
        amp: bool = True,
        part: Literal["training", "test"] = "training",
        flips: Sequence[Sequence[int]] | None = None,
        series: str | None = None,
    ) -> None:
        """Take all kinds of arguments."""
        taken.update(locals())

    return command


@pytest.mark.parametrize("folder", ["2024", "2024.10", "1e5", "None", "[a]", "True", "a b"])
def test_text_stays_text(folder: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: dict[str, Any] = {}
    call(command_of(taken), [folder, "--series", folder], monkeypatch)
    assert taken["source"] == taken["series"] == folder


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        (["--names", "[a, '2024.10']"], "names", ["a", "2024.10"]),
        (["--names", "2024"], "names", ("2024",)),
        (["--threshold=0.3"], "threshold", 0.3),
        (["--threshold", "None"], "threshold", None),
        (["--count", "-4"], "count", -4),
        (["--amp"], "amp", True),
        (["--noamp"], "amp", False),
        (["--amp", "False"], "amp", False),
        (["--part", "test"], "part", "test"),
        (["--flips", "[[0], [0, 1]]"], "flips", [[0], [0, 1]]),
        (["heads"], "names", ("heads",)),
        (["--names=a"], "names", ("a",)),
    ],
)
def test_values_become_what_they_are_annotated_with(
    words: list[str], name: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: dict[str, Any] = {}
    call(command_of(taken), ["in", *words], monkeypatch)
    assert taken[name] == value
    assert type(taken[name]) is type(value)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "Missing: source; see --help."),
        (["in", "--threshold", "high"], "--threshold must be a number, got 'high'; see --help."),
        (["in", "--count", "1.5"], "--count must be a whole number, got '1.5'; see --help."),
        (["in", "--amp", "in"], "--amp must be True or False, got 'in'; see --help."),
        (["in", "--part", "tset"], "--part must be one of training, test, got 'tset'; see --help."),
        (["in", "--flips", "0"], "--flips must be a list in brackets such as [[0]], got '0'; see --help."),
        (["in", "--flips", "[0]"], "--flips must be a list in brackets such as [[0]], got '[0]'; see --help."),
        (["in", "--flips", "[[0.5]]"], "--flips must be a list in brackets such as [[0]], got '[[0.5]]'; see --help."),
        (
            ["in", "--flips", "[['a']]"],
            "--flips must be a list in brackets such as [[0]], got \"[['a']]\"; see --help.",
        ),
        (["in", "--flips", "{}"], "--flips must be a list in brackets such as [[0]], got '{}'; see --help."),
        (["in", "--threshold=-inf"], "--threshold must be a number, got '-inf'; see --help."),
        (["in", "--threshold", "1e999"], "--threshold must be a number, got '1e999'; see --help."),
        (["in", "--cuont", "3"], "There is no option --cuont: did you mean --count?"),
        (["--sourc", "in"], "There is no option --sourc: did you mean --source?"),
        (["in", "--noamq"], "There is no option --noamq: did you mean --noamp?"),
        (["in", "-z"], "There is no option --z; see --help."),
        (["in", "b", "1", "2", "True", "test", "[]", "c", "d"], "'d' is an argument too many; see --help."),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: dict[str, Any] = {}
    with pytest.raises(SystemExit) as ended:
        call(command_of(taken), words, monkeypatch)
    assert (ended.value.code, taken) == (2, {})
    assert capsys.readouterr().err == f"Error: {sentence}\n"


def test_further_options_are_those_that_are_known(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    taken: dict[str, Any] = {}

    def command(name: str, **options: Any) -> None:
        """Pass settings on."""
        taken.update(options)

    call(
        command,
        ["a", "--epochs", "3", "--optimizer::lr", "0.1"],
        monkeypatch,
        further_options=lambda: ["epochs", "optimizer"],
    )
    assert taken == {"epochs": 3, "optimizer::lr": 0.1}
    with pytest.raises(SystemExit, match="2"):
        call(command, ["a", "--epoch", "3"], monkeypatch, further_options=lambda: ["epochs"])
    assert capsys.readouterr().err == "Error: There is no option --epoch: did you mean --epochs?\n"


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (InputError("scan.nii is 4D."), 1, "Error: scan.nii is 4D.\n"),
        (KeyboardInterrupt(), 130, "Stopped by Ctrl-C.\n"),
    ],
)
def test_errors_and_stops_are_told_in_a_sentence(
    error: BaseException, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        """Fail."""
        raise error

    with pytest.raises(SystemExit) as ended:
        call(command, [], monkeypatch)
    assert ended.value.code == code
    assert capsys.readouterr().err == told


def test_a_name_that_is_not_utf8_is_printed_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    def command(source: str) -> None:
        """Print a name."""
        print(source)

    printed = BytesIO()
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(printed, encoding="utf-8", write_through=True))
    call(command, ["caf\udce9"], monkeypatch)
    assert printed.getvalue() == b"caf\\udce9\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def command() -> None:
        """Divide."""
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(command, [], monkeypatch)


def test_the_shown_python_is_the_project_s_own_or_the_one_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
    assert shown_python() == ".venv/bin/python"
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    assert shown_python() == "python"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--weights"], "Error: --weights needs a value; see --help.\n"),
        (["--regions", "--views"], "Error: --regions needs a value; see --help.\n"),
        (["--threshold"], "Error: --threshold needs a value; see --help.\n"),
        (["--noweights"], "Error: There is no option --noweights: did you mean --weights?\n"),
        (["--on_failure", "nativ"], "Error: --on_failure must be one of raise, native, got 'nativ'; see --help.\n"),
        (["--smallest_lesion_ml", "nan"], "Error: --smallest_lesion_ml must be a number, got 'nan'; see --help.\n"),
        (["--smallest_lesion_ml", "inf"], "Error: --smallest_lesion_ml must be a number, got 'inf'; see --help.\n"),
        (
            ["--tta_flips", "[0]"],
            "Error: --tta_flips must be a list in brackets such as [[0]], got '[0]'; see --help.\n",
        ),
        (["third"], "Error: 'third' is an argument too many; see --help.\n"),
    ],
)
def test_a_value_that_cannot_be_meant_is_refused_before_anything_runs(
    words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["scripts.segment", "in", "out", *words])
    monkeypatch.delitem(sys.modules, "scripts.segment", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("scripts.segment", run_name="__main__", alter_sys=True)
    assert ended.value.code == 2
    assert capsys.readouterr().err == sentence
