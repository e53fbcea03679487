"""The thesis's figures for made-up runs: what is drawn of the networks is what they compute."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from bundle.files import stem
from bundle.metrics import CASE_METRICS
from bundle.networks import AGMRNet, SliceStackUNet, TSRLNet
from scripts.thesis.evaluations import read_cases
from scripts.thesis.experiment import experiment
from scripts.thesis.experiment_runs import Experiments
from scripts.thesis.features import channel_weights, patch_attention, residuals, side_outputs
from scripts.thesis.figures import FIGURES, save_figure
from tests.conftest import ellipsoid
from tests.scripts.thesis.test_results import write
from tests.workflows.conftest import COARSE, FEATURES

SHAPE = (100, 104, 12)
OPTIONS = {**COARSE, "box": "brain"}
SESSIONS = ("t01", "t02")  # in which ATLAS R1.1 gives files the same name


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Experiments:
    """Two test cases of one subject; every run of a figure with a new thin network, masks and metrics."""
    folder = tmp_path_factory.mktemp("figures")
    affine, items = np.diag([2.0, 2.0, 2.0, 1.0]), []
    texture = np.random.default_rng(0).integers(-20, 20, SHAPE)
    head = (1000 + texture) * ellipsoid(SHAPE, (50, 52, 6), (40, 46, 30))
    for session, radius in zip(SESSIONS, (6, 9), strict=True):
        lesion = ellipsoid(SHAPE, (34, 50, 6), (radius, radius, 4))
        item = {kind: str(folder / "data" / session / f"1_{kind}.nii.gz") for kind in ("image", "label")}
        Path(item["image"]).parent.mkdir(parents=True)
        nib.save(nib.Nifti1Image((head - 600 * lesion).astype(np.int16), affine), item["image"])
        nib.save(nib.Nifti1Image(lesion.astype(np.uint8), affine), item["label"])
        items.append({**item, "case": f"1_{session}"})
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"training": items[:1], "test": items}))
    made = Experiments((datalist,), folder / "runs", (), OPTIONS)
    for number, name in enumerate(sorted({run for figure in FIGURES.values() for run in figure.runs})):
        _make_run(made, name, number, items)
    return made


def draw(name: str, work: Experiments, case: str | None = None) -> Figure:
    figure = FIGURES[name]
    return figure.draw(work, figure.runs, case)


def _make_run(work: Experiments, name: str, number: int, items: list[dict[str, Any]]) -> None:
    folder = work.folder(name, work.datalists[0])
    cases = [
        {"case": item["label"], "tp": 8, "fp": 1, "fn": 2} | dict.fromkeys(CASE_METRICS, 0.5 + number / 100)
        for item in items
    ]
    write(folder / "test" / "cases.csv", cases)
    for item in items:
        label = nib.load(item["label"])
        file = folder / "test" / "masks" / Path(item["image"]).parent.name / f"{stem(item['image'])}_lesion.nii.gz"
        file.parent.mkdir(parents=True)
        # Shifted by a few voxels: some is missed, some is falsely found.
        nib.save(nib.Nifti1Image(np.roll(label.get_fdata(), 5, axis=0).astype(np.uint8), label.affine), file)
    (folder / "train").mkdir(parents=True)
    if name in ("agmr_net", "tsrl_net") or name.startswith("table_"):
        torch.manual_seed(number)
        network = work.parser(name).get_parsed_content("network_def")
        torch.save(network.state_dict(), folder / "train" / "model.pt")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn(name: str, work: Experiments) -> None:
    save_figure(name, work, None)
    with Image.open(work.output / f"{name}.png") as image:
        assert np.asarray(image.convert("L")).std() > 10


@pytest.mark.parametrize("name", ["figure_3_6", "figure_4_5"])
def test_what_is_missed_and_falsely_found_is_painted(name: str, work: Experiments, tmp_path: Path) -> None:
    painted = {}
    for case in ("1_t01", "1_t02"):
        draw(name, work, case).savefig(tmp_path / f"{case}.png")
        pixels = np.asarray(Image.open(tmp_path / f"{case}.png").convert("RGB")).astype(int)
        colours = [ImageColor.getrgb(colour) for colour in ("#F0E442", "#CC79A7")]
        painted[case] = [int((np.abs(pixels - colour).max(axis=-1) < 3).sum()) for colour in colours]
    for missed, false in painted.values():
        assert missed > 200
        assert false == pytest.approx(missed, rel=0.2)  # the mask is the lesion, shifted
    # The session with the larger lesion has more of both: each mask is that of its own case.
    assert all(one < two for one, two in zip(painted["1_t01"], painted["1_t02"], strict=True))


def test_recall_and_boxes_are_of_all_cases_of_one_name(work: Experiments) -> None:
    for name in ("agmr_net", "tsrl_net"):
        assert len(work.cases(name) or {}) == len(SESSIONS)
    table = work.folder("tsrl_net", work.datalists[0]) / "test" / "cases.csv"
    assert list(read_cases(table)) == [f"{session}/1_label.nii.gz" for session in SESSIONS]


def test_boxes_have_the_names_of_the_networks_and_not_those_of_one_of_their_settings(
    work: Experiments,
) -> None:
    (axis,) = draw("figure_4_7", work).axes
    names = [label.get_text() for label in axis.get_yticklabels()]
    assert names == ["UNet++", "ACSNet", "Attention U-Net", "D-UNet", "AGMR-Net", "TSRL-Net"]
    assert axis.get_xlabel() == "DSC of a test case"


def test_focus_is_drawn_in_the_order_of_its_settings(work: Experiments) -> None:
    left, right = draw("figure_4_8", work).axes
    names = ["tsrl_net_alpha_75_beta_1", "tsrl_net_gamma_2_beta_2", "tsrl_net", "tsrl_net_gamma_2_beta_8"]
    dsc = [next(iter((work.cases(name) or {}).values()))["dsc"] for name in names]
    np.testing.assert_allclose(right.lines[0].get_ydata(), dsc)
    assert [label.get_text() for label in right.get_xticklabels()] == ["1", "2", "4", "8"]
    assert [label.get_text() for label in left.get_xticklabels()] == ["0.25", "0.5", "0.75"]


def test_a_figure_says_which_runs_it_waits_for(
    work: Experiments, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The second machine of three has none of the two runs to train.
    experiment("figure_4_9", str(work.datalists[0]), str(tmp_path), shard="3/3", **OPTIONS)
    assert "figure_4_9 waits for table_4_1_crl, table_4_7_reverse_attention." in capsys.readouterr().out
    assert not (tmp_path / "figure_4_9.png").exists()


# What is inside


def made(kind: type[SliceStackUNet]) -> tuple[SliceStackUNet, torch.Tensor]:
    torch.manual_seed(0)
    return kind(features=FEATURES), torch.rand(1, 4, 96, 96)


def test_patch_scores_are_those_of_the_training_and_weigh_the_features() -> None:
    network, stack = made(AGMRNet)
    for part in network.modules():
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm | torch.nn.Dropout):
            part.eval()
    with torch.inference_mode():
        expected = network.train(False)(stack)
        scores = _training_scores(network, stack)
    levels = patch_attention(network, stack)
    assert len(levels) == 5
    for (before, seen, after), score in zip(levels, scores, strict=True):
        np.testing.assert_allclose(seen, score, atol=1e-6)
        size = before.shape[0] // 6
        np.testing.assert_allclose(after, before * (1 + seen.repeat(size, 0).repeat(size, 1)), atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(network(stack), expected)  # the hooks are gone


def _training_scores(network: SliceStackUNet, stack: torch.Tensor) -> list[np.ndarray]:
    """With the batch norms and dropouts of ``eval()``."""
    network.training = True
    scores = [score[0, 0].numpy() for score in network(stack).patch_scores]
    network.training = False
    return scores


def test_channel_weights_are_of_both_scales_and_in_0_to_1() -> None:
    network, stack = made(AGMRNet)
    weights = channel_weights(network.eval(), stack)
    assert [len(of_scale) for of_scale in weights] == [FEATURES[1], FEATURES[2]]
    assert all(0 < of_scale.min() < of_scale.max() < 1 for of_scale in weights)


def test_residual_is_the_sum_of_its_two_attentions() -> None:
    network, stack = made(TSRLNet)
    levels = residuals(network.eval(), stack)
    assert [maps["CRL"].shape for maps in levels] == [(12, 12), (24, 24), (48, 48), (96, 96)]
    for maps in levels:
        np.testing.assert_allclose(maps["RA"] + maps["PA"], maps["CRL"], atol=1e-5)
        assert (maps["RA"] <= maps["C x C"] + 1e-6).all()


def test_side_outputs_end_with_the_network_s_own() -> None:
    network, stack = made(TSRLNet)
    outputs = side_outputs(network.eval(), stack)
    assert [output.shape[0] for output in outputs] == [12, 24, 48, 96, 96]
    with torch.inference_mode():
        np.testing.assert_allclose(outputs[-1], torch.sigmoid(network(stack))[0, 0].numpy(), atol=1e-6)
