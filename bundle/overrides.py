"""Checks of the overrides of ``python -m monai.bundle run``, since MONAI ignores misspelt ones."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, run
from monai.bundle.config_item import ComponentLocator
from monai.bundle.reference_resolver import ReferenceResolver

from bundle.errors import InputError
from bundle.overlays import arguments_of, check_components, check_overlays, meant

__all__ = ["check_command_line", "check_overrides", "check_value"]

_MONAIS_OWN = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters} - {"override"}
_OF_TRACKING = {"experiment_name", "run_name", "save_execute_config", "tracking_uri"}
_PATHS = re.compile(r"\w+_(dir|path)|datalist|finetune|heads|heads_cache|masks|simulation_split")
_OPTIONAL = ("finetune", "heads", "heads_cache", "masks", "simulation_split")  # None is their default
_COUNTS = re.compile(r"epochs|(val_)?batch_size|val_interval|samples_per_epoch|(first_)?volumes")
_FLAG = re.compile(r"--|-[a-zA-Z]")
_SHARES = re.compile(r"(displayable_configs::)?threshold|\w+_fraction")


def check_command_line(argv: Sequence[str]) -> None:
    """Check the overrides and the config files of this process if it is a ``monai.bundle run``.

    Args:
        argv: the words of the command line.

    Raises:
        InputError: when an override is not in the configs or has a value that cannot be meant, MONAI reads a path as
            something else, or a config file has a key that nothing takes.
    """
    if Path(argv[0]).parts[-3:] != ("monai", "bundle", "__main__.py"):
        return
    words = _options(argv[2:])
    options: dict[str, Any] = {name: DefaultParseValue(text) for name, text in words.items()}
    if "args_file" in options:
        options = {**ConfigParser.load_config_file(options["args_file"]), **options}
    for name, value in options.items():
        if _PATHS.fullmatch(name):
            _check_path(name, str(words.get(name, value)))
    files = _files(options.get("config_file", ()))
    own = _MONAIS_OWN | _OF_TRACKING if "tracking" in options else _MONAIS_OWN
    overrides = {name: value for name, value in options.items() if name not in own}
    stages = [ConfigParser(ConfigParser.load_config_files(files[: number + 1])) for number in range(len(files))]
    parser = stages[-1]
    check_overrides(overrides, parser.config)
    for name, value in overrides.items():
        check_value(name, value, [stage[name] for stage in stages if name in stage])
    sections = [options[kind] for kind in ("run_id", "init_id", "final_id") if options.get(kind)]
    contents = {file: ConfigParser.load_config_file(file) for file in files}
    check_overlays(contents, sections, list(overrides.values()))
    parser.update(overrides)
    check_components(parser.config)


def _files(given: str | Sequence[str]) -> list[str]:
    """Return the config files as MONAI takes them: one, a list, or several with commas between them."""
    if isinstance(given, str):
        return [given] if Path(given).is_file() else given.split(",")
    return list(given)


def _check_path(name: str, text: str) -> None:
    """Check that Fire leaves a path as it is, unless it is a list; ``run#2`` would be ``run``."""
    value = DefaultParseValue(text)
    as_meant = value == text or (value is None and name in _OPTIONAL) or text.startswith(("[", "{"))
    if not as_meant:
        raise InputError(f"--{name} {text} is not read as a path, but as {value!r}: write ./{text}.")


def _options(words: Sequence[str]) -> dict[str, str]:
    """Return the options as Fire reads them: ``--name value``, ``--name=value``, ``-name value`` and ``--name``.

    The first word that belongs to none is MONAI's ``run_id``.
    """
    options: dict[str, str] = {}
    remaining = list(words[: words.index("--")] if "--" in words else words)  # options of Fire itself follow
    while remaining:
        word = remaining.pop(0)
        if not _FLAG.match(word):
            options.setdefault("run_id", word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if not equals:
            value = "True" if not remaining or _FLAG.match(remaining[0]) else remaining.pop(0)
        options[name.replace("-", "_")] = value
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
    known = set(component) if target is None else arguments_of(target, ComponentLocator())
    if known is None or name in known:
        return
    before = f"--{parent}::" if parent else "--"
    guess = meant(name, known if parent else known | _MONAIS_OWN)
    settings = ", ".join(sorted(one for one in known if not one.startswith("_")))
    hint = f"did you mean {before}{guess}?" if guess else f"it has {settings}."
    whose = ", ".join(part for part in (parent or "the config", target) if part)
    raise InputError(f"{before}{name} is not a setting of {whose}: {hint}")


def check_value(name: str, value: Any, defaults: Collection[Any]) -> None:
    """Check that the value of an override can be meant: MONAI takes ``Flase`` as a text, which counts as true.

    Args:
        name: the override.
        value: as Fire reads it.
        defaults: what the setting is in the config files, each of which may have changed it.

    Raises:
        InputError: when it is not what the setting takes: True or False, a number, a count, a share, a device.
    """
    if (isinstance(value, str) and value.startswith(("$", "@", "%"))) or (value is None and None in defaults):
        return
    expected = _expected(ReferenceResolver.normalize_id(name), defaults)
    if expected is not None and not expected[1](value):
        raise InputError(f"--{name} must be {expected[0]}, not {value!r}.")


def _expected(name: str, defaults: Collection[Any]) -> tuple[str, Callable[[Any], bool]] | None:
    """Return what a setting takes, in words and as a test of values; None when that cannot be known."""
    if any(isinstance(default, bool) for default in defaults):
        return "True or False", lambda value: isinstance(value, bool)
    if _COUNTS.fullmatch(name):
        return "a whole number of at least 1", lambda value: _is_number(value) and value >= 1 and value == int(value)
    if _SHARES.fullmatch(name):
        return "a number from 0 to 1", lambda value: _is_number(value) and 0 <= value <= 1
    if name == "device":
        return "a device of torch, such as cpu or cuda:0", _is_device
    if not any(_is_number(default) for default in defaults):
        return None
    # An argument of a component may also take a list in place of a number, or None.
    return "a number", _is_number if "::" not in name else lambda value: not isinstance(value, str | bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_device(value: Any) -> bool:
    try:
        torch.device(value)
    except (RuntimeError, TypeError):
        return False
    return True
