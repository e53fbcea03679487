"""The start of every command: its options are checked before anything runs, and errors are sentences."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import math
import re
import sys
from collections import ChainMap, defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import fields
from difflib import get_close_matches
from io import StringIO, TextIOWrapper
from itertools import pairwise
from pathlib import Path
from types import UnionType
from typing import Any, Literal, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import fire
from fire.core import FireError, FireExit
from fire.decorators import SetParseFn, SetParseFns

__all__ = ["run_command", "shown_python", "with_options"]

_WRONG_USAGE, _STOPPED = 2, 130
_NO_SWITCH = inspect.Parameter("none", inspect.Parameter.KEYWORD_ONLY)

Function = TypeVar("Function", bound=Callable[..., None])


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
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: a file's name need not be in its encoding
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


def with_options(options: type, names: Collection[str] | None = None) -> Callable[[Function], Function]:
    """Return a decorator that adds the fields of a dataclass to a command that takes ``**options``.

    They become options in its signature and, with their text in the dataclass's docstring, in its help.

    Args:
        options: the dataclass.
        names: of the fields; all by default.
    """
    hints = get_type_hints(options, localns=_names_for_hints(options.__module__))
    chosen = [field for field in fields(options) if names is None or field.name in names]
    texts = dict(re.findall(r"^    (\w+): ((?:.|\n     +)+)", inspect.getdoc(options) or "", re.MULTILINE))

    shown = {each.name: _shown_type(hints[each.name], each.type) for each in chosen}

    def add(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
        added = [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=shown[each.name]
            )
            for each in chosen
        ]
        vars(function)["__signature__"] = signature.replace(parameters=[*own, *added])
        function.__annotations__ |= {each.name: hints[each.name] for each in chosen}
        lines = [f"        {each.name}: {texts[each.name]}" for each in chosen]
        function.__doc__ = "\n".join([(function.__doc__ or "").rstrip(), *lines])
        return function

    return add


def _shown_type(hint: Any, text: Any) -> str:
    return " or ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else str(text)


def shown_python() -> str:
    """Return the Python to print in a command line: that of the project's environment, relative to the project."""
    executable, root = Path(sys.executable), Path(__file__).resolve().parents[1]
    return executable.relative_to(root).as_posix() if executable.is_relative_to(root) else "python"


def _refuse(sentence: str) -> NoReturn:
    """End the program with a sentence and the exit code of a command line that is not understood."""
    print(f"Error: {sentence}", file=sys.stderr)
    raise SystemExit(_WRONG_USAGE)


def _parse(
    function: Callable[..., None], words: Sequence[str], further_options: Callable[[], Collection[str]]
) -> inspect.BoundArguments:
    """Return the arguments that Fire makes of the words; Fire alone would run the function before it finds an error."""
    short = any(name.startswith("h") for name in inspect.signature(function).parameters)  # -h is --host, for Fire too
    if "--help" in words or ("-h" in words and not short):
        with redirect_stderr(sys.stdout), suppress(FireExit):  # which is 2 for a function with **options
            fire.Fire(function, ["--help"], getattr(sys.modules["__main__"].__spec__, "name", None))
        raise SystemExit(0)
    signature, parsed = inspect.signature(function), list[inspect.BoundArguments]()
    _check_options(words, signature, further_options)

    @functools.wraps(function)
    def record(*args: Any, **options: Any) -> None:
        parsed.append(signature.bind(*args, **options))

    hints = get_type_hints(function, localns=_names_for_hints(function.__module__))
    _check_values(words, hints)
    for name, hint in hints.items():
        if name in signature.parameters:
            convert = functools.partial(_convert, name, hint)
            several = signature.parameters[name].kind is inspect.Parameter.VAR_POSITIONAL
            (SetParseFn(convert) if several else SetParseFns(**{name: convert}))(record)
    try:
        with redirect_stderr(StringIO()):
            fire.Fire(record, list(words))
    except FireExit as end:
        error = end.trace.elements[-1]
        message = error.ErrorAsStr().replace("The function received no value for the required argument:", "Missing:")
        if "Could not consume arg" in message:
            message = f"{error.args[0]!r} is an argument too many"
        _refuse(f"{message.strip().rstrip('.')}; see --help.")
    return parsed[0]


def _names_for_hints(module: str) -> ChainMap[str, Any]:
    """Return the names of a module's annotations; a type that is imported for type checkers alone is taken for text."""
    return ChainMap(vars(sys.modules[module]), vars(builtins), defaultdict(lambda: str))


def _check_options(
    words: Sequence[str], signature: inspect.Signature, further_options: Callable[[], Collection[str]]
) -> None:
    """End the program with a sentence where a word is an option that is not known."""
    known = [name for name, parameter in signature.parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if len(known) < len(signature.parameters):
        known += further_options()
    switches = [name for name in known if signature.parameters.get(name, _NO_SWITCH).default in (True, False)]
    known += [f"no{name}" for name in switches] + [name[0] for name in known]  # as Fire takes them too
    for option in filter(None, (re.match(r"--?([a-zA-Z][\w-]*)", word) for word in words)):
        if (name := option[1].replace("-", "_")) not in known:
            near = get_close_matches(name, known, 1)
            _refuse(f"There is no option --{name}" + (f": did you mean --{near[0]}?" if near else "; see --help."))


def _check_values(words: Sequence[str], hints: Mapping[str, Any]) -> None:
    """End the program with a sentence where an option that is not a switch has no value; Fire would take ``True``."""
    for word, following in pairwise([*words, "--"]):
        name = word.lstrip("-").replace("-", "_")
        if word.startswith("--") and name in hints and hints[name] is not bool and following.startswith("--"):
            _refuse(f"--{name} needs a value; see --help.")


def _convert(name: str, hint: Any, text: str) -> Any:
    """Return a value of the type that an argument is annotated with; text stays text, also ``2024.10`` and ``None``.

    Raises:
        FireError: when the text does not fit the type.
    """
    kind, *none = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if kind is str:
        return text
    if none and text == "None":
        return None
    if kind == Sequence[str]:
        listed = [part.strip(" '\"") for part in text.strip("[]").split(",") if part.strip()]
        return listed if text.startswith("[") else (text,)
    read, expected = _READERS.get(get_origin(kind) or kind, (fire.parser.DefaultParseValue, ""))
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        read, expected = {choice: choice for choice in choices}.__getitem__, f"one of {', '.join(choices)}"
    if get_origin(kind) is Sequence:
        read, expected = functools.partial(_read_list, kind), f"a list in brackets such as {_example(kind)}"
    with suppress(KeyError, ValueError, SyntaxError, RecursionError, MemoryError):
        return read(text)
    raise FireError(f"--{name} must be {expected}, got {text!r}")


def _read_list(hint: Any, text: str) -> Sequence[Any]:
    if _fits(value := ast.literal_eval(text), hint):
        return value
    raise ValueError


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a type, and all that is in it of the type that the hint has for it."""
    if get_origin(hint) is Sequence:
        return isinstance(value, list | tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    return type(value) is hint or (hint is float and type(value) is int)


def _example(hint: Any) -> str:
    """Return a list as it is written on the command line."""
    return f"[{_example(get_args(hint)[0])}]" if get_origin(hint) is Sequence else str(hint())


def _read_number(text: str) -> float:
    if math.isfinite(value := float(text)):
        return value
    raise ValueError


_TRUTH = {"True": True, "true": True, "1": True, "False": False, "false": False, "0": False}
_READERS: dict[Any, tuple[Callable[[str], Any], str]] = {
    bool: (_TRUTH.__getitem__, "True or False"),
    int: (int, "a whole number"),
    float: (_read_number, "a number"),
}
