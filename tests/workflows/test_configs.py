"""The experiments: each small overlay builds the network and the loss that it says; the defaults are the thesis's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.losses import DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
from torch import nn
from torch.nn import functional as F

from bundle.losses import AGMRLoss, EnhancedMixingLoss, SupervisedTotalLoss, TargetAwareLoss, TSRLLoss
from bundle.networks import AGMRNet, DUNet, TSRLNet
from bundle.weights import WeightsSettings, write_settings
from tests.workflows.conftest import CONFIGS, FEATURES, ROOT

EXPERIMENTS = sorted(file.stem for file in (CONFIGS / "experiments").glob("*.json"))
BASES = {"d_unet": DUNet, "agmr_net": AGMRNet, "train": TSRLNet}
MDU = (3, 5, 7, 9)
WEIGHTS = ("train.json", "simulated.json", "cpu.json", "weights.json")

# Experiment: base, settings of the network that differ from its own, loss.
EXPECTED: dict[str, tuple[str, dict[str, Any], type[nn.Module]]] = {
    "table_3_1_cpa": ("d_unet", {"attention": "patch"}, AGMRLoss),
    "table_3_1_cff": ("d_unet", {"fusion": "cff", "fusion_reduction": 8}, AGMRLoss),
    "table_3_1_mdu": ("d_unet", {"upsampling_kernels": MDU}, AGMRLoss),
    "table_3_1_cpa_cff": ("agmr_net", {"upsampling_kernels": ()}, AGMRLoss),
    "no_cpa": ("agmr_net", {"attention": None}, AGMRLoss),
    "no_cff": ("agmr_net", {"fusion": "squeeze_excitation"}, AGMRLoss),
    "table_3_4_fine_attention": ("d_unet", {"attention": "pixel"}, AGMRLoss),
    "table_3_5_add": ("agmr_net", {"fusion": "add"}, AGMRLoss),
    "table_3_5_concatenate": ("agmr_net", {"fusion": "concatenate"}, AGMRLoss),
    "table_3_5_cff_concatenate": ("agmr_net", {"fusion": "cff_concatenate"}, AGMRLoss),
    "table_3_6_cff_r32": ("d_unet", {"fusion": "cff", "fusion_reduction": 32}, AGMRLoss),
    **{f"table_3_7_size_{k}": ("agmr_net", {"upsampling_kernels": (k,) * 4}, AGMRLoss) for k in MDU},
    "table_3_8_encoder": ("agmr_net", {"upsampling_kernels": (), "encoder_kernels": MDU}, AGMRLoss),
    "table_3_8_skip": ("agmr_net", {"upsampling_kernels": (), "skip_kernels": MDU}, AGMRLoss),
    "table_4_1_baseline": ("train", {"residual": None, "side_outputs": False}, TSRLLoss),
    "table_4_1_crl": ("train", {}, TSRLLoss),
    "table_4_1_tal": ("train", {"residual": None, "side_outputs": False}, TSRLLoss),
    "table_4_7_reverse_attention": ("train", {"residual": "reverse"}, TSRLLoss),
    "no_residual": ("train", {"residual": None}, TSRLLoss),
    "no_side_supervision": ("train", {}, TSRLLoss),
    "mixed_by_level": ("train", {"patch_grid": (24, 12, 12, 6, 6)}, TSRLLoss),
    "mixed_in_level": ("train", {"patch_grid": (*[(6, 12)] * 4, (3, 6))}, TSRLLoss),
    "table_4_5_target_aware": ("d_unet", {}, SupervisedTotalLoss),
    **{f"table_4_6_{loss}": ("train", {}, TSRLLoss) for loss in ("cross_entropy", "dice", "cross_entropy_dice")},
    **{
        f"table_4_6_{loss}_{alpha}": ("train", {}, TSRLLoss)
        for loss in ("focal", "tversky", "mixing", "target_aware")
        for alpha in (25, 75)
    },
}


def parser_of(*names: str, **overrides: object) -> ConfigParser:
    """The configs merged as ``monai.bundle run`` merges them."""
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    parser.update(pairs=overrides)
    return parser


def experiment(name: str, **overrides: object) -> ConfigParser:
    base = EXPECTED[name][0]
    bases = ["train.json"] if base == "train" else ["train.json", f"networks/{base}.json"]
    return parser_of(*bases, f"experiments/{name}.json", **overrides)


def shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.named_parameters()}


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def label() -> torch.Tensor:
    return (torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(1)) < 0.2).float()


# The overlays


def test_every_experiment_is_described_here_and_in_the_documents() -> None:
    text = (ROOT / "docs" / "experiments.md").read_text()
    documented = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert sorted(documented) == EXPERIMENTS == sorted(EXPECTED)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_documents_give_the_base_of_the_experiment(name: str) -> None:
    text = (ROOT / "docs" / "experiments.md").read_text()
    (row,) = re.findall(rf"^\| `{name}` \|.*$", text, re.MULTILINE)
    base = EXPECTED[name][0]
    assert row.split("|")[2].strip() == ("`train.json`" if base == "train" else f"`{base}`")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_overlay_is_short_and_changes_only_network_and_loss(name: str) -> None:
    text = (CONFIGS / "experiments" / f"{name}.json").read_text()
    assert len(text.splitlines()) <= 25
    assert set(json.loads(text)) <= {"+network_def", "loss"}


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_network_is_the_one_with_the_stated_settings(name: str) -> None:
    base, settings, _ = EXPECTED[name]
    with torch.device("meta"):  # shapes without memory
        network = experiment(name).get_parsed_content("network_def")
        expected = BASES[base](**settings)
        plain = BASES[base]()
    assert type(network) is BASES[base]
    assert shapes(network) == shapes(expected)
    assert str(network) == str(expected)  # kernels, dropout and modules without parameters too
    assert (str(network) != str(plain)) == bool(settings)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("table_3_7_size_3", 12_658_163 + 9),
        ("table_3_7_size_5", 18_228_723 + 9),
        ("table_3_7_size_7", 26_584_563 + 9),
        ("table_3_7_size_9", 37_725_683 + 9),
        ("table_4_1_crl", 12_854_496),
    ],
)
def test_parameters_are_the_thesis_s(name: str, parameters: int) -> None:
    """The tool of chapter 3 leaves out the 9 PReLU parameters."""
    with torch.device("meta"):
        network = experiment(name).get_parsed_content("network_def")
    assert sum(p.numel() for p in network.parameters()) == parameters


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_loss_of_a_random_batch_is_finite_and_reaches_every_parameter(name: str) -> None:
    features = [8, 32, 32, 16, 16]  # R = 32 needs 32 channels
    parser = experiment(name, **{"network_def::features": features})
    torch.manual_seed(0)
    network, loss = parser.get_parsed_content("network_def"), parser.get_parsed_content("loss")
    assert type(loss) is EXPECTED[name][2]
    mask = torch.zeros(1, 1, 96, 96)
    mask[..., 40:60, 30:50] = 1
    value = loss(network(torch.rand(1, 4, 96, 96)), mask)
    value.backward()
    assert torch.isfinite(value)
    # DistributedDataParallel stops at a parameter without a gradient.
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def cross_entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, label)


def dice(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    p = logits.sigmoid()
    return 1 - (2 * (p * label).sum() + 1) / ((p * p).sum() + label.sum() + 1)


def focal(logits: torch.Tensor, label: torch.Tensor, alpha: float) -> torch.Tensor:
    p = logits.sigmoid()
    lesion = -alpha * (1 - p) ** 2 * p.log() * label
    rest = -(1 - alpha) * p**2 * (1 - p).log() * (1 - label)
    return (lesion + rest).mean()


def tversky(logits: torch.Tensor, label: torch.Tensor, alpha: float) -> torch.Tensor:
    p = logits.sigmoid()
    found, missed, invented = (p * label).sum(), ((1 - p) * label).sum(), (p * (1 - label)).sum()
    return 1 - (found + 1) / (found + alpha * missed + (1 - alpha) * invented + 1)


@pytest.mark.parametrize(
    ("name", "kind", "formula"),
    [
        ("cross_entropy", nn.BCEWithLogitsLoss, cross_entropy),
        ("dice", DiceLoss, dice),
        ("cross_entropy_dice", DiceCELoss, lambda x, y: cross_entropy(x, y) + dice(x, y)),
        ("focal_25", FocalLoss, lambda x, y: focal(x, y, 0.25)),
        ("focal_75", FocalLoss, lambda x, y: focal(x, y, 0.75)),
        ("tversky_25", TverskyLoss, lambda x, y: tversky(x, y, 0.25)),
        ("tversky_75", TverskyLoss, lambda x, y: tversky(x, y, 0.75)),
    ],
)
def test_table_4_6_takes_the_field_s_loss_with_alpha_on_the_lesion(
    name: str, kind: type, formula: Any, logits: torch.Tensor, label: torch.Tensor
) -> None:
    total = experiment(f"table_4_6_{name}").get_parsed_content("loss")
    assert type(total.final["final"]) is type(total.side) is kind
    assert (total.side_weight, total.patch_weight) == (1.0, 0.15)
    expected = formula(logits, label)
    torch.testing.assert_close(total(logits, label), expected)
    with_side = total((logits, [logits], []), label)
    torch.testing.assert_close(with_side, 2 * expected)


@pytest.mark.parametrize(
    ("name", "kind", "alpha", "side_weight"),
    [
        ("table_4_6_mixing_25", EnhancedMixingLoss, 0.25, 1.0),
        ("table_4_6_mixing_75", EnhancedMixingLoss, 0.75, 1.0),
        ("table_4_6_target_aware_25", TargetAwareLoss, 0.25, 1.0),
        ("table_4_6_target_aware_75", TargetAwareLoss, 0.75, 1.0),
        ("table_4_1_baseline", EnhancedMixingLoss, 0.75, 0.0),
        ("table_4_1_crl", EnhancedMixingLoss, 0.75, 0.0),
        ("table_4_1_tal", TargetAwareLoss, 0.75, 0.0),
        ("table_4_7_reverse_attention", EnhancedMixingLoss, 0.75, 0.0),
        ("no_residual", TargetAwareLoss, 0.75, 1.0),
        ("no_side_supervision", TargetAwareLoss, 0.75, 0.0),
    ],
)
def test_chapter_4_takes_the_stated_loss_alpha_and_side_weight(
    name: str, kind: type, alpha: float, side_weight: float
) -> None:
    total = experiment(name).get_parsed_content("loss")
    assert type(total.final["final"]) is kind
    assert total.final["final"].alpha == alpha
    assert (total.side_weight, total.patch_weight) == (side_weight, 0.15)


@pytest.mark.parametrize(("base", "loss"), [("agmr_net", AGMRLoss), ("d_unet", SupervisedTotalLoss)])
def test_network_files_give_the_plain_network_and_its_loss(base: str, loss: type) -> None:
    parser = parser_of("train.json", f"networks/{base}.json")
    with torch.device("meta"):
        assert shapes(parser.get_parsed_content("network_def")) == shapes(BASES[base]())
    assert type(parser.get_parsed_content("loss")) is loss


def test_d_unet_trains_with_eml_alone() -> None:
    """The loss takes what the network gives in training, and is EML of its logits."""
    parser = parser_of("train.json", "networks/d_unet.json", **{"network_def::features": list(FEATURES)})
    generator = torch.Generator().manual_seed(1)
    mask = (torch.rand(2, 1, 96, 96, generator=generator) > 0.9).float()
    output = parser.get_parsed_content("network_def").train()(torch.randn(2, 4, 96, 96, generator=generator))
    torch.testing.assert_close(
        parser.get_parsed_content("loss")(output, mask), EnhancedMixingLoss()(output.logits, mask)
    )


# What the thesis trains with


def test_defaults_are_the_thesis_s() -> None:
    parser = parser_of("train.json", **{"network_def::features": list(FEATURES)})
    assert {name: parser[name] for name in ("epochs", "batch_size", "augment", "amp")} == {
        "epochs": 150,
        "batch_size": 16,
        "augment": False,
        "amp": False,
    }
    assert parser["lesion_fraction"] is parser["samples_per_epoch"] is None  # every slice once
    optimizer, schedule = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    assert type(optimizer) is torch.optim.Adam
    assert optimizer.defaults["lr"] == 0.001
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert type(schedule) is torch.optim.lr_scheduler.ExponentialLR
    assert schedule.gamma == 0.96
    assert type(parser.get_parsed_content("loss")) is TSRLLoss


def test_every_slice_comes_once_in_an_epoch(cohort: Path) -> None:
    parser = parser_of(
        "train.json",
        dataset_dir=str(cohort),
        datalist=str(cohort / "datalist.json"),
        datalist_key="test",
        space="native",
        spacing_mm=2.0,
    )
    order = list(parser.get_parsed_content("train::sampler"))
    assert sorted(order) == list(range(len(parser.get_parsed_content("train::dataset"))))
    assert parser.get_parsed_content("train::dataset").augment is None


@pytest.mark.parametrize(
    ("options", "slice_size"),
    [({}, 192), ({"spacing_mm": 2}, 96), ({"spacing_mm": 1.5}, 128), ({"spacing_mm": 2, "box_mm": 160}, 80)],
)
def test_the_voxel_size_alone_gives_slices_of_the_same_box(options: dict[str, float], slice_size: int) -> None:
    parser = parser_of("train.json", **options)
    for part in ("train", "validate"):
        assert parser.get_parsed_content(f"{part}::preprocessing").settings["slice_size"] == slice_size
    assert parser_of("train.json", "cpu.json").get_parsed_content("settings").slice_size == 96


@pytest.mark.parametrize("names", [("inference.json",), ("train.json", "evaluate.json")])
def test_images_are_prepared_as_those_that_the_weights_were_trained_on(names: tuple[str, ...], tmp_path: Path) -> None:
    weights = tmp_path / "model.pt"
    write_settings(weights, WeightsSettings("native", 1.5, "thesis_192", 168, (-1, 0, 1, 2)))
    parser = parser_of(*names, ckpt_path=str(weights))
    prepared = parser.get_parsed_content("preprocessing" if len(names) == 1 else "image_preprocessing").settings
    expected = {"space": "native", "spacing_mm": 1.5, "box": "thesis_192", "slice_size": 112}
    assert {name: prepared[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("names", "box", "network"),
    [
        (("train.json", "networks/agmr_net.json", "thesis_chapter_3.json"), "thesis_192", AGMRNet),
        (("train.json", "thesis_chapter_4.json"), "thesis_180", TSRLNet),
    ],
)
def test_thesis_chapters_take_its_box_without_augmentation_or_validation_share(
    names: tuple[str, ...], box: str, network: type
) -> None:
    parser = parser_of(*names)
    assert (parser["box"], parser["augment"], parser["val_fraction"]) == (box, False, 0.0)
    for part in ("train", "validate"):
        settings = parser.get_parsed_content(f"{part}::preprocessing").settings
        expected = {"keys": ("image", "label"), "spacing_mm": 1.0, "box": box, "slice_size": 192, "space": "native"}
        assert settings == expected
    assert parser.get_parsed_content("settings").box == box  # what is kept beside the weights
    with torch.device("meta"):
        assert type(parser.get_parsed_content("network_def")) is network


def test_the_recipe_of_the_weights_sums_dice_per_slice_and_keeps_the_average_of_weights() -> None:
    parser = parser_of(*WEIGHTS)
    loss, network = (parser.get_parsed_content(name) for name in ("loss", "network_def"))
    assert type(loss) is TSRLLoss
    assert not loss.final["final"].batch
    assert loss.side is loss.final["final"]
    assert type(network) is TSRLNet
    assert {m.p for m in network.decoder[0].up.modules() if isinstance(m, nn.Dropout)} <= {0.0}
    average = parser.get_parsed_content("ema")
    assert average.model is network
    assert "@ema" in parser["train"]["handlers"]
    assert parser.get_parsed_content("kept_network") is average.ema_model
    assert parser["train"]["state"]["ema"] == "@kept_network"  # goes on after a stop
    assert parser["validate"]["evaluator"]["network"] == "@kept_network"
    best = parser.get_parsed_content("save_best")
    assert best.network is average.ema_model
    assert best.half


def test_the_recipe_of_the_weights_sees_a_million_slices_in_epochs_of_less_than_ten_minutes() -> None:
    """The learning rate rises over 1000 steps, and its cosine comes to 0 with the last step."""
    parser = parser_of(*WEIGHTS)
    assert parser["epochs"] * parser["samples_per_epoch"] >= 1_000_000
    assert parser["samples_per_epoch"] <= 15 * 600  # at 15 slices/s, before any of it was made faster
    steps = parser["epochs"] * parser["samples_per_epoch"] // parser["batch_size"]
    parser["optimizer"] = "$torch.optim.SGD([torch.zeros(1)], lr=@learning_rate)"
    parser["lr_scheduler"]["t_total"] = steps
    schedule = parser.get_parsed_content("lr_scheduler")
    rate = [factor(step) for factor in schedule.lr_lambdas for step in (0, 1000, (1000 + steps) // 2, steps)]
    assert rate == pytest.approx([0.01, 1.0, 0.5, 0.0], abs=1e-9)


@pytest.mark.parametrize("overlays", [(), ("cuda.json",)], ids=["cpu", "cuda"])
@pytest.mark.parametrize(("plane", "share"), [("axial", 0.5), ("coronal", 0.5), ("sagittal", 0.0)])
def test_the_recipe_of_the_weights_does_not_turn_sagittal_slices_front_to_back(
    plane: str, share: float, overlays: tuple[str, ...]
) -> None:
    parser = parser_of(*WEIGHTS, *overlays)
    parser["plane"] = plane
    assert parser.get_parsed_content("train::augmentation").flip == share


def test_the_recipe_of_the_weights_bends_and_flips_image_and_label_of_a_batch_together() -> None:
    """Samples as the loader collates them: a disk, which moves, and is bright where it is lesion."""
    torch.manual_seed(0)
    collate = parser_of(*WEIGHTS).get_parsed_content("train::dataloader::collate_fn")
    column, row = torch.meshgrid(torch.arange(96), torch.arange(96), indexing="ij")
    disk = (((column - 30) ** 2 + (row - 50) ** 2) < 200).float()[None]
    moved = collate([{"image": disk.repeat(4, 1, 1), "label": disk} for _ in range(40)])
    assert moved["image"].shape == (40, 4, 96, 96)
    assert set(moved["label"].unique().tolist()) == {0.0, 1.0}
    differs = (moved["image"][:, 2] > 0.5) != (moved["label"][:, 0] > 0)
    assert int(differs.sum(dim=(1, 2)).max()) <= 25  # at the edge, where one is interpolated and one is not
    places = (moved["label"][:, 0] * column).sum(dim=(1, 2)) / moved["label"].sum(dim=(1, 2, 3))
    assert float(places.min()) < 35
    assert float(places.max()) > 60
    assert len(places.round(decimals=1).unique()) > 10  # not flipped alone


# Planes


@pytest.mark.parametrize(
    ("configs", "inferer"),
    [(("inference.json",), "inferer"), (("train.json", "evaluate.json"), "validate::inferer")],
)
def test_planes_of_the_weights_reach_the_inferer(configs: tuple[str, ...], inferer: str, tmp_path: Path) -> None:
    network = TSRLNet(features=FEATURES)
    files = []
    for number, plane in enumerate(("coronal", "sagittal", "axial")):
        settings = json.loads((ROOT / "models" / "model.json").read_text()) | {"plane": plane}
        network.head.bias.data.fill_(number)
        files.append(tmp_path / f"{plane}.pt")
        torch.save(network.state_dict(), files[-1])
        files[-1].with_suffix(".json").write_text(json.dumps(settings))
    options = {
        "network_def::features": FEATURES,
        "ckpt_path": str(files[0]),
        "ensemble_weights": [str(file) for file in files[1:]],
    }
    made = parser_of(*configs, **options).get_parsed_content(inferer)
    own, *others = made.members
    assert own[0] == "coronal"
    assert [(plane, one.head.bias.item()) for plane, one, _ in others] == [("sagittal", 1.0), ("axial", 2.0)]
