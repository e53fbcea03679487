"""Networks at one budget on the same cases: ``python -m scripts.thesis.compare TRAINING TEST HEALTHY OUTPUT``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.utils import ensure_tuple

from bundle.data import load_datalist
from bundle.errors import InputError
from bundle.files import bundle_root
from scripts.command import run_command, shown_python
from scripts.thesis.runs import is_trained, keep_plan, run, train_settings

__all__ = ["NETWORKS", "SHIPPED", "Network", "compare"]


class Network(NamedTuple):
    """A network of the comparison: what it is called on the page, and the overlays of train.json that make it."""

    title: str
    overlays: tuple[str, ...] = ()


NETWORKS = {
    "tsrl_net": Network("TSRL-Net"),
    "agmr_net": Network("AGMR-Net", ("networks/agmr_net.json",)),
    "d_unet": Network("D-UNet", ("networks/d_unet.json",)),
    "basic_unet": Network("U-Net, TAL", ("networks/monai_basic_unet.json",)),
    "attention_unet": Network("Attention U-Net, TAL", ("networks/monai_attention_unet.json",)),
    "tsrl_net_eml": Network("TSRL-Net, EML for TAL", ("experiments/table_4_6_mixing_75.json",)),
    "tsrl_net_no_crl": Network("TSRL-Net without CRL", ("experiments/no_residual.json",)),
}
"""By the name of their folder."""

SHIPPED = "shipped"
"""The folder of what the weights in models/ do on the same cases; they were trained longer."""


def _configs(network: str, *more: str) -> tuple[str, ...]:
    overlays = NETWORKS[network].overlays if network in NETWORKS else ()
    return ("train.json", *overlays, "cpu.json", *more)


def _evaluate(network: str, target: Path, weights: Path, folders: dict[str, str], options: dict[str, Any]) -> None:
    for part in ("test", "healthy"):
        results = target / network / part
        if not (results / "summary.json").exists():
            paths = {"dataset_dir": folders[part], "output_dir": results, "ckpt_path": weights}
            configs = _configs(network, "evaluate.json")
            run("evaluating", network, configs, **options, **paths, save_masks=part == "test")


def compare(
    training: str,
    test: str,
    healthy: str,
    output: str,
    epochs: int | None = None,
    networks: str | Sequence[str] = tuple(NETWORKS),
    **options: Any,
) -> None:
    """Trains each network on TRAINING and evaluates it on TEST and HEALTHY, into OUTPUT/<network>/train, test, healthy.

    All have the settings of configs/cpu.json. Each job is a process of its own; a network that was stopped goes on
    from its last epoch, a finished one is left as it is. OUTPUT/comparison.json keeps what was asked for. The weights
    in models/ are evaluated as well, into OUTPUT/shipped.

    Args:
        training: folder with images/ and labels/, of scripts.simulate for instance.
        test: the same, of heads and masks that are not in TRAINING.
        healthy: the same, with empty labels.
        output: the folder to write to.
        epochs: in place of those of configs/cpu.json.
        networks: which of the networks.
        options: further settings of configs/train.json for all networks, such as ``--learning_rate 0.0005``.
    """
    chosen = ensure_tuple(networks)
    if unknown := sorted(set(chosen) - set(NETWORKS)):
        raise InputError(f"There is no network {unknown[0]!r} to compare: choose from {', '.join(NETWORKS)}.")
    if epochs is not None:
        options["epochs"] = epochs
    folders = {"training": training, "test": test, "healthy": healthy}
    common = json.loads((Path(bundle_root()) / "configs" / "cpu.json").read_text())
    target = Path(output).resolve()
    settings = {**common, **options}
    cases = {part: len(load_datalist(folder)) for part, folder in folders.items()}
    keep_plan(target / "comparison.json", {"options": options, "settings": settings, "cases": cases})
    for network in chosen:
        trained = target / network / "train"
        if not is_trained(trained / "last.pt", settings["epochs"]):
            started = (trained / "last.pt").exists()
            paths = {"dataset_dir": training, "output_dir": trained, "cache_dir": target / "cache"}
            run("training", network, _configs(network), **options, **paths, resume=started)
        _evaluate(network, target, trained / "model.pt", folders, options)
    _evaluate(SHIPPED, target, Path(bundle_root()) / "models" / "model.pt", folders, {})
    print(f"{len(chosen)} networks are in {target}. The page is written by")
    print(f"{shown_python()} -m scripts.thesis.results {output} docs")


if __name__ == "__main__":
    run_command(compare, train_settings)
