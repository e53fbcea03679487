"""Checks of config files: components take the arguments that they are given, and what overlays add is used."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from pydoc import ErrorDuringImport, locate
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator, ConfigComponent, ConfigExpression
from monai.bundle.reference_resolver import ReferenceResolver

from bundle.errors import InputError
from bundle.files import bundle_root

__all__ = ["arguments_of", "check_components", "check_overlays", "meant"]

_SECTIONS = {"imports", "initialize", "training", "evaluating", "inference", "run", "finalize"}
_RENAMED = {"finetune_partly": "finetune_strict", "slice_size": "box_mm"}
_REFERENCE = re.compile(r"[@%][#:]*(\w+)")


def arguments_of(target: Any, locator: ComponentLocator) -> set[str] | None:
    """Return the arguments that a component takes; None when they cannot be known.

    Args:
        target: its ``_target_``.
        locator: of names without a module.
    """
    try:
        component = locate(ConfigComponent({"_target_": target}, "", locator=locator).resolve_module_name())
        parameters = inspect.signature(component).parameters.values()  # type: ignore[arg-type]  # TypeError is for that
    except (AttributeError, ErrorDuringImport, TypeError, ValueError):  # no name, no such module, a builtin
        return None
    if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters}


def meant(name: str, known: Collection[str]) -> str | None:
    """Return the known name that was probably meant by another one, or None."""
    renamed = _RENAMED.get(name)
    if renamed in known:
        return renamed
    return next(iter(difflib.get_close_matches(name, known, n=1)), None)


def _components(config: Any, place: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the components of a config with their places."""
    if isinstance(config, Mapping) and "_target_" in config:
        yield place, config
    items = config.items() if isinstance(config, Mapping) else enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from _components(value, f"{place}::{key}" if place else str(key))


def check_components(config: Mapping[str, Any]) -> None:
    """Check that every component takes the arguments that a config gives it.

    Args:
        config: the merged configs.

    Raises:
        InputError: when one has a key that is none of its arguments.
    """
    locator = ComponentLocator()
    for place, component in _components(config):
        given = [key for key in component if not key.startswith("_")]
        known = arguments_of(component["_target_"], locator) if given else None
        for name in given:
            if known is not None and name not in known:
                guess = meant(name, known)
                hint = f"did you mean {guess}?" if guess else f"it takes {', '.join(sorted(known)) or 'none'}."
                raise InputError(f"{place}::{name} is not an argument of {component['_target_']}: {hint}")


def _is_section(value: Any) -> bool:
    """Return whether a value is a list of steps, which another run may be asked for."""
    return isinstance(value, list) and all(
        ConfigExpression.is_expression(step) or ConfigComponent.is_instantiable(step) for step in value
    )


def check_overlays(files: Mapping[str, Mapping[str, Any]], sections: Collection[str] = (), overrides: Any = ()) -> None:
    """Check that the settings which overlays add are used: MONAI ignores others, such as misspelt ones.

    Settings of any of the bundle's configs are accepted after every base: networks and experiments, which have a loss,
    also go after ``configs/inference.json``, and a recipe may name what only the overlay for its device has.

    Args:
        files: contents of the config files by their names, the base first.
        sections: further names that this run uses.
        overrides: values that may also refer to settings.

    Raises:
        InputError: when an overlay has a setting that is in none of these, is no section and is not referred to.
    """
    base, *_ = files.values()
    own = (file for file in sorted(Path(bundle_root(), "configs").glob("*.json")) if file.name != "metadata.json")
    known = {*base, *(key.removeprefix("+") for file in own for key in ConfigParser.load_config_file(file))}
    used = {*known, *_SECTIONS, *sections, *_REFERENCE.findall(str([files, overrides]))}
    for file, content in files.items():
        for key, value in content.items():
            name = ReferenceResolver.split_id(key.removeprefix("+"))[0]
            if name in used or (name.startswith("_") and name.endswith("_")) or _is_section(value):
                continue
            guess = meant(name, known)
            hint = f": did you mean {guess}?" if guess else "."
            raise InputError(f"{file}: {name} is not a setting of the config, and nothing refers to it{hint}")
