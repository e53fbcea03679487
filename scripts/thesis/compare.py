"""Networks at one budget on the same cases: ``python -m scripts.thesis.compare TRAINING TEST HEALTHY OUTPUT``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bundle.errors import InputError
from scripts.command import run_command, shown_python
from scripts.thesis.runs import MODELS, is_trained, keep_plan, read_config, run, train_settings

__all__ = ["NETWORKS", "SHIPPED", "Network", "compare"]


class Network(NamedTuple):
    """A network of the comparison: its title on the page, and the overlays of train.json that make it."""

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
"""The folder of the weights in models/, evaluated on the same cases; they were trained longer."""


def compare(
    training: str,
    test: str,
    healthy: str,
    output: str,
    epochs: int | None = None,
    networks: Sequence[str] = tuple(NETWORKS),
    **options: Any,
) -> None:
    """Train each network on TRAINING and evaluate it on TEST and HEALTHY, into OUTPUT/<network>/train, test, healthy.

    All have the settings of configs/cpu.json. Each job is a process of its own; a network that was stopped continues
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
    from bundle.data import load_datalist

    if unknown := sorted(set(networks) - set(NETWORKS)):
        raise InputError(f"There is no network {unknown[0]!r} to compare: choose from {', '.join(NETWORKS)}.")
    if epochs is not None:
        options["epochs"] = epochs
    settings = {**read_config("cpu.json"), **options}
    folders = {"training": training, "test": test, "healthy": healthy}
    cases = {part: len(load_datalist(folder)) for part, folder in folders.items()}
    target = Path(output).resolve()
    keep_plan(target / "comparison.json", {"options": options, "settings": settings, "cases": cases})
    for network in networks:
        trained, configs = target / network / "train", ("train.json", *NETWORKS[network].overlays, "cpu.json")
        if not is_trained(trained / "last.pt", settings["epochs"]):
            paths = {"dataset_dir": training, "output_dir": trained, "cache_dir": target / "cache"}
            run("training", network, configs, **options, **paths, resume=(trained / "last.pt").exists())
        _evaluate(target / network, configs, trained / "model.pt", folders, options)
    _evaluate(target / SHIPPED, ("train.json", "cpu.json"), MODELS / "model.pt", folders, {})
    print(f"{len(networks)} networks are in {target}. The page is written by")
    print(f"{shown_python()} -m scripts.thesis.results {output} docs")


def _evaluate(
    folder: Path, configs: Sequence[str], weights: Path, folders: dict[str, str], options: dict[str, Any]
) -> None:
    for part in ("test", "healthy"):
        if not (folder / part / "summary.json").exists():
            paths = {"dataset_dir": folders[part], "output_dir": folder / part, "ckpt_path": weights}
            overlays = (*configs, "evaluate.json")
            run("evaluating", folder.name, overlays, **options, **paths, save_masks=part == "test")


if __name__ == "__main__":
    run_command(compare, train_settings)
