"""Checks of the overrides of ``python -m monai.bundle run``, since MONAI ignores misspelt ones."""

from __future__ import annotations

import ast
import difflib
import inspect
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.bundle.reference_resolver import ReferenceResolver

from bundle.errors import InputError

__all__ = ["check_command_line", "check_overrides"]

_MONAIS_OWN = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters} - {"override"}
_OF_TRACKING = {"experiment_name", "run_name", "save_execute_config", "tracking_uri"}
_PATHS = re.compile(r"\w+_(dir|path)|datalist|finetune|heads|heads_cache|masks|simulation_split")
_OPTIONAL = ("finetune", "heads", "heads_cache", "masks", "simulation_split")  # None is their default
_RENAMED = {"finetune_partly": "finetune_strict", "slice_size": "box_mm"}


def check_command_line(argv: Sequence[str]) -> None:
    """Check the overrides of this process if it is a ``monai.bundle run``.

    Args:
        argv: the words of the command line.

    Raises:
        InputError: when an override is not in the configs, or MONAI reads a path as something else.
    """
    if Path(argv[0]).parts[-3:] != ("monai", "bundle", "__main__.py"):
        return
    options = _options(argv[1:])
    if "args_file" in options:
        options = {**ConfigParser.load_config_file(options["args_file"]), **options}
    files = options.get("config_file", ())
    if isinstance(files, str) and files.startswith(("[", "(")):
        files = ast.literal_eval(files)
    parser = ConfigParser()
    parser.read_config(files)
    for name, text in options.items():
        if _PATHS.fullmatch(name):
            _check_path(name, str(text))
    own = _MONAIS_OWN | _OF_TRACKING if "tracking" in options else _MONAIS_OWN
    check_overrides([name for name in options if name not in own], parser.config)


def _check_path(name: str, text: str) -> None:
    """Check that Fire leaves a path as it is, unless it is a list; ``run#2`` would be ``run``."""
    value = DefaultParseValue(text)
    as_meant = value == text or (value is None and name in _OPTIONAL) or text.startswith(("[", "{"))
    if not as_meant:
        raise InputError(f"--{name} {text} is not read as a path, but as {value!r}: write ./{text}.")


def _options(words: Sequence[str]) -> dict[str, str]:
    """Return the options as Fire reads them: ``--name value``, ``--name=value`` and ``-name value``."""
    options = {}
    for number, word in enumerate(words):
        if word == "--":  # options of Fire itself follow
            break
        if re.match(r"--|-[a-zA-Z]", word):
            name, equals, value = word.lstrip("-").partition("=")
            following = words[number + 1] if number + 1 < len(words) else ""
            options[name.replace("-", "_")] = value if equals else following
    return options


def check_overrides(names: Collection[str], config: Mapping[str, Any]) -> None:
    """Check that a config has the settings that overrides change.

    Args:
        names: the overrides, such as ``epochs`` or ``network_def::features``.
        config: the merged configs, without the overrides.

    Raises:
        InputError: when an override is neither in the config nor an argument of its component.
    """
    parser = ConfigParser(dict(config))
    for name in names:
        parent, last = ReferenceResolver.split_id(name, last=True)
        component = parser.get(parent)
        if isinstance(component, Mapping) and not name.startswith(ConfigParser.meta_key) and not last.startswith("_"):
            _check_setting(parent, last, component)


def _check_setting(parent: str, name: str, component: Mapping[str, Any]) -> None:
    if name in component:
        return
    target = component.get("_target_")
    known = set(component) if target is None else _arguments(target)
    if known is None or name in known:
        return
    renamed = _RENAMED.get(name)
    meant = [renamed] if renamed in known else difflib.get_close_matches(name, known, n=1)
    spelt, *guess = (f"--{parent}::{one}" if parent else f"--{one}" for one in (name, *meant))
    settings = ", ".join(sorted(one for one in known if not one.startswith("_")))
    hint = f"did you mean {guess[0]}?" if guess else f"it has {settings}."
    whose = ", ".join(part for part in (parent or "the config", target) if part)
    raise InputError(f"{spelt} is not a setting of {whose}: {hint}")


def _arguments(target: str) -> set[str] | None:
    """Return the arguments that a component takes; None when they cannot be known."""
    component = locate(ConfigComponent({"_target_": target}, "", locator=ComponentLocator()).resolve_module_name())
    try:
        parameters = inspect.signature(component).parameters.values()  # type: ignore[arg-type]  # TypeError is for that
    except (TypeError, ValueError):  # not callable, or a builtin without a signature
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}
