"""The start of every command: its options are checked before anything runs, and errors are sentences."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import sys
from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import redirect_stderr, suppress
from difflib import get_close_matches
from io import StringIO
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, Union, get_args, get_origin, get_type_hints

import fire
from fire.core import FireError, FireExit
from fire.decorators import SetParseFn, SetParseFns

__all__ = ["check_options", "run_command", "shown_python"]

_WRONG_USAGE, _STOPPED = 2, 130
_NUMBERS: dict[type, tuple[Callable[[str], Any], str]] = {
    bool: (
        {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}.__getitem__,
        "True or False",
    ),
    int: (int, "a whole number"),
    float: (float, "a number"),
}


def run_command(
    function: Callable[..., None], further_options: Callable[[], Collection[str]] = tuple, input_error_code: int = 1
) -> None:
    """Run a function with the arguments of the command line, parsed by Fire and checked before anything runs.

    An option that the function does not have, an argument too many and a value that does not fit its annotation end the
    program with one sentence and exit code 2. An :class:`bundle.errors.InputError` ends it with its sentence.

    Args:
        function: its signature is the command's syntax, its docstring the help.
        further_options: returns the names that the function's ``**options`` take.
        input_error_code: exit code of an ``InputError``.
    """
    arguments = _parse(function, sys.argv[1:], further_options)
    if sys.stderr.isatty():
        print("Starting ...", file=sys.stderr)  # PyTorch and MONAI take seconds to import
    try:
        function(*arguments.args, **arguments.kwargs)
    except KeyboardInterrupt:
        print("Stopped by Ctrl-C.", file=sys.stderr)
        raise SystemExit(_STOPPED) from None
    except Exception as error:
        from bundle.errors import find_input_error

        if (sentence := find_input_error(error)) is None:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        raise SystemExit(input_error_code) from None


def check_options(options: Collection[str], known: Collection[str]) -> None:
    """End the program with a sentence and exit code 2 where an option is not known.

    Args:
        options: names, without ``--``.
        known: all names that there are.
    """
    for name in options:
        if name not in known:
            near = get_close_matches(name, known, 1)
            _refuse(f"There is no option --{name}" + (f": did you mean --{near[0]}?" if near else "; see --help."))


def shown_python() -> str:
    """Return the Python to print in a command line: that of the project's environment, relative to the project."""
    executable, root = Path(sys.executable), Path(__file__).resolve().parents[1]
    return executable.relative_to(root).as_posix() if executable.is_relative_to(root) else "python"


def _refuse(sentence: str) -> NoReturn:
    print(f"Error: {sentence}", file=sys.stderr)
    raise SystemExit(_WRONG_USAGE)


def _parse(
    function: Callable[..., None], words: Sequence[str], further_options: Callable[[], Collection[str]]
) -> inspect.BoundArguments:
    """Return the arguments that Fire makes of the words; Fire itself would run the function before it finds a fault."""
    if {"--help", "-h"}.intersection(words):
        with redirect_stderr(sys.stdout):
            fire.Fire(function, ["--help"], getattr(sys.modules["__main__"].__spec__, "name", None))
    signature, parsed = inspect.signature(function), list[inspect.BoundArguments]()

    @functools.wraps(function)
    def record(*args: Any, **options: Any) -> None:
        parsed.append(signature.bind(*args, **options))

    _set_conversions(record, signature)
    try:
        with redirect_stderr(StringIO()):
            fire.Fire(record, list(words))
    except FireExit as end:
        _explain(end.trace.elements[-1], [*signature.parameters])
    known = [name for name, parameter in signature.parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if extra := [name.split("::")[0].split("#")[0] for name in parsed[0].kwargs if name not in known]:
        check_options(extra, [*known, *further_options()])
    return parsed[0]


def _set_conversions(record: Callable[..., None], signature: inspect.Signature) -> None:
    """Have Fire make of each argument what it is annotated with, instead of a guess."""
    # A type that is imported for type checkers alone is taken for text.
    names = ChainMap(vars(sys.modules[record.__module__]), vars(builtins), defaultdict(lambda: str))
    for name, hint in get_type_hints(record, localns=names).items():
        if name in signature.parameters:
            convert = functools.partial(_convert, name, hint)
            several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            (SetParseFn(convert) if several else SetParseFns(**{name: convert}))(record)


def _explain(fault: Any, known: Sequence[str]) -> NoReturn:
    """End the program with a sentence on what Fire could not use."""
    message = fault.ErrorAsStr().replace("The function received no value for the required argument:", "Missing:")
    if "Could not consume arg" not in message:
        _refuse(f"{message.strip().rstrip('.')}; see --help.")
    word = str(fault.args[0])
    if word.startswith("-"):
        check_options([word.lstrip("-").split("=")[0].replace("-", "_")], known)
    _refuse(f"{word!r} is an argument too many; see --help.")


def _convert(name: str, hint: Any, text: str) -> Any:
    """Return a value of the type that an argument is annotated with; text stays text, also ``2024.10`` and ``None``.

    Raises:
        FireError: when the text is no such value.
    """
    kinds = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    of_lists = [get_args(kind)[0] for kind in kinds if get_origin(kind) is Sequence]
    if of_lists and (text.startswith("[") or of_lists[0] is not str):
        return _convert_list(name, of_lists[0], text)
    if of_lists or str in kinds:
        return text if str in kinds else (text,)
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    if choices and text not in choices:
        raise FireError(f"--{name} must be one of {', '.join(choices)}, got {text!r}")
    return text if choices else _convert_number(name, kinds, text)


def _convert_list(name: str, kind: Any, text: str) -> Sequence[Any]:
    if kind is str:
        return [part.strip(" '\"") for part in text.strip("[]").split(",") if part.strip()]
    with suppress(SyntaxError, ValueError):
        if isinstance(value := ast.literal_eval(text), list | tuple):
            return value
    raise FireError(f"--{name} must be a list in brackets, got {text!r}")


def _convert_number(name: str, kinds: Sequence[Any], text: str) -> Any:
    if type(None) in kinds and text == "None":
        return None
    expected = [number for kind, number in _NUMBERS.items() if kind in kinds]
    for read, _ in expected:
        with suppress(KeyError, ValueError):
            return read(text)
    if not expected:
        return fire.parser.DefaultParseValue(text)
    raise FireError(f"--{name} must be {' or '.join(words for _, words in expected)}, got {text!r}")
