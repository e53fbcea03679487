"""What importing the package does to MONAI: our names become MONAI's, and MONAI's stay what they were."""

from __future__ import annotations

import inspect
import subprocess
import sys

import monai.losses
import monai.networks.nets
import pytest
from monai.bundle import ConfigParser
from monai.bundle.config_item import ComponentLocator

import bundle.files
import bundle.losses
import bundle.monai_registry
import bundle.networks

LOSSES = bundle.losses.__all__
NETWORKS = ["AGMRNet", "DUNet", "SliceStackUNet", "TSRLNet"]
OURS = [
    *((name, monai.losses, bundle.losses) for name in LOSSES),
    *((name, monai.networks.nets, bundle.networks) for name in NETWORKS),
]


def parsed(target: str, **arguments: object) -> object:
    return ConfigParser({"component": {"_target_": target, **arguments}}).get_parsed_content("component")


def components(starts: str | tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The locator's table: modules by the name of a class or function, for modules that start with ``starts``."""
    with monkeypatch.context() as patch:
        patch.setattr(ComponentLocator, "MOD_START", starts)
        locator = ComponentLocator()
        return locator._find_classes_or_functions(locator._find_module_names())


@pytest.mark.parametrize(("name", "monais", "ours"), OURS, ids=[name for name, _, _ in OURS])
def test_our_component_is_an_attribute_of_monai(name: str, monais: object, ours: object) -> None:
    assert getattr(monais, name) is getattr(ours, name)


@pytest.mark.parametrize(
    "spelling", ["TargetAwareLoss", "monai.losses.TargetAwareLoss", "bundle.losses.TargetAwareLoss"]
)
def test_three_spellings_of_a_loss_give_our_class_with_the_configs_arguments(spelling: str) -> None:
    loss = parsed(spelling, beta=8)
    assert type(loss) is bundle.losses.TargetAwareLoss
    assert loss.beta == 8


@pytest.mark.parametrize("spelling", ["TSRLNet", "monai.networks.nets.TSRLNet", "bundle.networks.TSRLNet"])
def test_three_spellings_of_a_network_give_our_class_with_the_configs_arguments(spelling: str) -> None:
    network = parsed(spelling, features=[8, 8, 8, 8, 8], out_channels=3)
    assert type(network) is bundle.networks.TSRLNet
    assert network.head.out_channels == 3


@pytest.mark.parametrize(("name", "ours"), [(name, ours) for name, _, ours in OURS], ids=[name for name, _, _ in OURS])
def test_bare_name_of_every_component_resolves_to_our_module(name: str, ours: object) -> None:
    assert ComponentLocator().get_component_module_name(name) == getattr(ours, name).__module__


def test_registering_again_changes_nothing() -> None:
    starts = ComponentLocator.MOD_START
    attributes = [getattr(monais, name) for name, monais, _ in OURS]
    bundle.monai_registry.register()
    assert starts == ComponentLocator.MOD_START
    assert [getattr(monais, name) for name, monais, _ in OURS] == attributes
    assert len(set(starts)) == len(starts)


def test_a_foreign_component_of_the_same_name_is_not_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    foreign = type("TargetAwareLoss", (), {})
    monkeypatch.setattr(monai.losses, "TargetAwareLoss", foreign)
    with pytest.raises(RuntimeError, match=r"monai\.losses\.TargetAwareLoss exists already and is not this bundle's"):
        bundle.monai_registry.register()
    assert monai.losses.TargetAwareLoss is foreign


def test_no_name_of_ours_collides_with_one_of_monai(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bare name that two modules have is an error in a config, so a helper of ours could break one of MONAI's.

    Private names count, too: the locator sees them.
    """
    monais = components("monai", monkeypatch)
    ours = components(tuple(start for start in ComponentLocator.MOD_START if start != "monai"), monkeypatch)
    assert {"DiceLoss", "UNet", "SliceInferer"} <= set(monais)
    assert set(LOSSES) | set(NETWORKS) <= set(ours)
    assert set(monais) & set(ours) == set()
    assert [name for name, modules in ours.items() if len(modules) > 1] == []


def test_every_bare_name_of_monai_still_resolves_to_the_modules_it_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monais, locator = components("monai", monkeypatch), ComponentLocator()
    now = {name: locator.get_component_module_name(name) for name in monais}
    assert now == {name: modules[0] if len(modules) == 1 else modules for name, modules in monais.items()}


@pytest.mark.parametrize(
    ("name", "arguments", "monais"),
    [
        ("DiceLoss", {}, monai.losses.DiceLoss),
        ("UNet", {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": [2, 4], "strides": [2]}, None),
    ],
)
def test_bare_names_of_monai_give_monais_components(name: str, arguments: dict, monais: type | None) -> None:
    assert type(parsed(name, **arguments)) is (monais or monai.networks.nets.UNet)


def test_locator_sees_only_the_modules_it_is_meant_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """Helpers of transforms, data or blocks stay out of sight, so that they may be called what they like."""
    locator = ComponentLocator()
    seen = {module for module in locator._find_module_names() if not module.startswith("monai")}
    assert {module.rpartition(".")[0] for module in seen} == {"bundle.losses", "bundle.networks"}
    assert {module for module in seen if module.startswith("bundle.networks")} == {
        "bundle.networks.nets",
        "bundle.networks.slice_stack_unet",
    }
    assert all(inspect.ismodule(sys.modules[module]) for module in seen)


def test_one_import_in_a_fresh_interpreter_is_enough_and_may_come_after_monai() -> None:
    program = """
import monai.losses
from monai.bundle import ConfigParser
parser = ConfigParser({"net": {"_target_": "TSRLNet", "features": [8] * 5}, "loss": {"_target_": "TSRLLoss"}})
assert not hasattr(monai.losses, "TSRLLoss")
import bundle.monai_registry
print(type(parser.get_parsed_content("net")).__module__, type(parser.get_parsed_content("loss")).__module__)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=bundle.files.bundle_root(), capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["bundle.networks.nets", "bundle.losses.totals"]
