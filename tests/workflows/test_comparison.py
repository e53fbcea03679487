"""The comparison: MONAI's own networks under the bundle's configs, the masks of an evaluation, one budget for all."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.engines.utils import IterationEvents
from monai.networks.nets import AttentionUnet, BasicUNet

from bundle.errors import InputError
from bundle.losses import EnhancedMixingLoss, TargetAwareLoss, TSRLLoss
from scripts.thesis.compare import NETWORKS, compare
from tests.workflows.conftest import CONFIGS, FEATURES
from tests.workflows.test_configs import parser_of
from tests.workflows.test_inference import segment

THIN: dict[str, dict[str, object]] = {
    "basic_unet": {"network_def::features": [4, 8, 8, 16, 16, 4]},
    "attention_unet": {"network_def::channels": [4, 8, 8, 16, 16]},
}
QUICK = {"space": "native", "samples_per_epoch": 8, "batch_size": 4, "lesion_fraction": 1.0}


@pytest.fixture(scope="module")
def slabs(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 mm of two cases around their lesions, and the same without lesion in healthy/."""
    folder = tmp_path_factory.mktemp("slabs")
    for number in range(2):
        name = f"case_{number}.nii.gz"
        image, label = (nib.load(cohort / kind / name) for kind in ("images", "labels"))
        middle = int(np.argmax(np.asanyarray(label.dataobj).sum(axis=(0, 1))))
        part = np.s_[:, :, max(middle - 20, 0) : middle + 20]
        empty = nib.Nifti1Image(np.zeros(label.slicer[part].shape, np.uint8), label.slicer[part].affine)
        for place, truth in ((folder, label.slicer[part]), (folder / "healthy", empty)):
            for kind, content in (("images", image.slicer[part]), ("labels", truth)):
                (place / kind).mkdir(parents=True, exist_ok=True)
                nib.save(content, place / kind / name)
    return folder


def read_probabilities(folder: Path) -> tuple[list[np.ndarray], float]:
    """Those of both cases, and a threshold that some tenth of the voxels reach: at 0.5 a new network marks all or none.

    It lies in the widest gap nearby: the last bit of a probability depends on how many slices a batch has.
    """
    files = [folder / f"case_{number}_probability.nii.gz" for number in range(2)]
    probabilities = [nib.load(file).get_fdata(dtype=np.float32) for file in files]
    values = np.unique(np.stack(probabilities))
    nearby = values[np.abs(values - np.percentile(np.stack(probabilities), 90)).argsort()[:100]]
    nearby.sort()
    widest = int(np.diff(nearby).argmax())
    threshold = float(nearby[widest : widest + 2].mean(dtype=np.float64))
    assert 0 < np.mean(np.stack(probabilities) >= threshold) < 0.2
    return probabilities, threshold


# Networks whose output is the logits alone


@pytest.mark.parametrize(
    ("name", "kind", "parameters"), [("basic_unet", BasicUNet, 7_783_713), ("attention_unet", AttentionUnet, 7_940_609)]
)
def test_overlay_gives_monai_s_network_and_the_target_aware_loss(name: str, kind: type, parameters: int) -> None:
    parser = parser_of("train.json", *NETWORKS[name].overlays)
    with torch.device("meta"):
        network = parser.get_parsed_content("network_def")
    assert type(network) is kind
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network(torch.rand(2, 4, 96, 96, device="meta")).shape == (2, 1, 96, 96)
    assert type(parser.get_parsed_content("loss")) is TargetAwareLoss


@pytest.mark.slow
@pytest.mark.parametrize("name", THIN)
def test_it_trains_evaluates_and_infers(name: str, slabs: Path, tmp_path: Path) -> None:
    (overlay,), common = NETWORKS[name].overlays, {"dataset_dir": str(slabs), **THIN[name]}
    trained, tested = tmp_path / "train", tmp_path / "test"
    training = parser_of(
        *("train.json", overlay, "cpu.json"), output_dir=str(trained), epochs=1, warmup_steps=1, **QUICK, **common
    )
    untrained = copy.deepcopy(training.get_parsed_content("network_def")).train()
    trainer = training.get_parsed_content("train::trainer")
    steps: list[dict[str, Any]] = []
    trainer.add_event_handler(IterationEvents.LOSS_COMPLETED, lambda engine: steps.append(dict(engine.state.output)))
    trainer.inferer.amp = False
    trainer.run()
    first = steps[0]
    expected = TargetAwareLoss()(untrained(first["image"]), first["label"])
    assert first["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert 0 <= trainer.state.metrics["train_dice"] <= 1
    weights = torch.load(trained / "model.pt", weights_only=True)
    assert weights.keys() == untrained.state_dict().keys()  # MONAI's own names
    assert not all(torch.equal(weights[key], value) for key, value in untrained.state_dict().items())

    common["ckpt_path"] = str(trained / "model.pt")
    inference = parser_of("inference.json", overlay, **common | {"dataset_dir": str(slabs / "images")})
    inference.update({"output_dir": str(tmp_path / "masks"), "save_probability": True, "progress": False, "amp": False})
    inference.get_parsed_content("evaluator").run()
    probabilities, threshold = read_probabilities(tmp_path / "masks")
    evaluation = parser_of(
        *("train.json", overlay, "cpu.json", "evaluate.json"),
        output_dir=str(tested),
        save_masks=True,
        threshold=threshold,
        smallest_lesion_ml=0.0,
        amp=False,
        **common,
    )
    evaluation.get_parsed_content("validate::evaluator").run()
    assert len((tested / "cases.csv").read_text().splitlines()) == 3
    for number, probability in enumerate(probabilities):
        mask = nib.load(tested / "masks" / f"case_{number}_lesion.nii.gz")
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj), probability >= threshold)


# The masks of an evaluation


@pytest.mark.slow
def test_masks_are_those_of_inference_and_stay_apart_by_folder(
    slabs: Path, small_weights: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    items = []
    for number, subject in enumerate(("sub-1", "sub-2")):
        for kind in ("images", "labels"):
            (data / subject / kind).mkdir(parents=True)
            (data / subject / kind / "scan.nii.gz").symlink_to(slabs / kind / f"case_{number}.nii.gz")
        items.append({kind: f"{subject}/{kind}s/scan.nii.gz" for kind in ("image", "label")})
    (data / "datalist.json").write_text(json.dumps({"test": items}))
    thin = {"network_def::features": list(FEATURES)}
    segment(slabs / "images", tmp_path / "masks", ckpt_path=str(small_weights), save_probability=True, **thin)
    probabilities, threshold = read_probabilities(tmp_path / "masks")
    evaluation = parser_of(
        *("train.json", "evaluate.json"),
        dataset_dir=str(data),
        datalist=str(data / "datalist.json"),
        output_dir=str(tmp_path / "out"),
        ckpt_path=str(small_weights),
        save_masks=True,
        threshold=threshold,
        smallest_lesion_ml=0.0,
        amp=False,
        **thin,
    )
    evaluation.get_parsed_content("validate::evaluator").run()
    for subject, probability in zip(("sub-1", "sub-2"), probabilities, strict=True):
        mask = nib.load(tmp_path / "out" / "masks" / subject / "images" / "scan_lesion.nii.gz")
        assert mask.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(mask.affine, nib.load(data / subject / "images" / "scan.nii.gz").affine)
        np.testing.assert_array_equal(np.asanyarray(mask.dataobj), probability >= threshold)


# One budget


def test_the_two_other_tsrl_nets_differ_as_their_names_say() -> None:
    with torch.device("meta"):
        eml = parser_of("train.json", *NETWORKS["tsrl_net_eml"].overlays)
        no_crl = parser_of("train.json", *NETWORKS["tsrl_net_no_crl"].overlays)
        plain = parser_of("train.json")
        assert str(eml.get_parsed_content("network_def")) == str(plain.get_parsed_content("network_def"))
        assert str(no_crl.get_parsed_content("network_def")) != str(plain.get_parsed_content("network_def"))
    total: TSRLLoss = eml.get_parsed_content("loss")
    assert type(total.final["final"]) is type(total.side) is EnhancedMixingLoss
    assert no_crl["loss"] == plain["loss"]


def test_the_rate_rises_for_the_warm_up_and_falls_to_0_at_the_last_step(slabs: Path) -> None:
    overrides = {"epochs": 3, "samples_per_epoch": 40, "batch_size": 8, "warmup_steps": 5, "learning_rate": 0.002}
    parser = parser_of(
        *("train.json", "networks/monai_basic_unet.json", "cpu.json"),
        dataset_dir=str(slabs),
        space="native",
        **THIN["basic_unet"],
        **overrides,
    )
    optimizer, schedule = parser.get_parsed_content("optimizer"), parser.get_parsed_content("lr_scheduler")
    rates = []
    for _ in range(15):  # 3 epochs of 5 steps
        rates.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert rates[:6] == pytest.approx([0.002 * f for f in (0.01, 0.208, 0.406, 0.604, 0.802, 1.0)])
    assert rates[10] == pytest.approx(0.001)  # half of the 10 steps after the warm-up
    assert schedule.get_last_lr()[0] == pytest.approx(0.0, abs=1e-12)


@pytest.mark.slow
def test_networks_are_trained_and_tested_go_on_when_stopped_and_are_left_when_finished(
    slabs: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [str(slabs), str(slabs), str(slabs / "healthy"), str(tmp_path)]
    settings: dict[str, Any] = {
        "epochs": 2,
        "networks": ("basic_unet",),
        **QUICK,
        **THIN["basic_unet"],
        "warmup_steps": 1,
    }
    for part in ("test", "healthy"):  # evaluated already: a slab cannot be registered, as the shipped weights ask for
        (tmp_path / "shipped" / part).mkdir(parents=True)
        (tmp_path / "shipped" / part / "summary.json").write_text("{}")
    compare(*folders, **settings)
    log = "".join(capfd.readouterr())
    assert "Epoch[1] Metrics -- loss:" in log
    results = tmp_path / "basic_unet"
    assert (results / "train" / "model.json").exists()
    assert {file.name for file in (results / "test").iterdir()} == {"cases.csv", "lesions.csv", "summary.json", "masks"}
    assert (results / "healthy" / "lesions.csv").read_text() == "case,size_ml,found,share\n"
    assert not (results / "healthy" / "masks").exists()
    plan = json.loads((tmp_path / "comparison.json").read_text())
    assert plan["cases"] == {"training": 2, "test": 2, "healthy": 2}
    assert plan["settings"]["epochs"] == 2
    assert plan["settings"]["amp"] == json.loads((CONFIGS / "cpu.json").read_text())["amp"]
    last = torch.load(results / "train" / "last.pt", weights_only=True)
    assert last["lr_scheduler"]["_last_lr"][0] == pytest.approx(0.0, abs=1e-12)

    # As a stop after the first epoch leaves it.
    last["trainer"]["iteration"] = last["lr_scheduler"]["last_epoch"] = 2
    torch.save(last, results / "train" / "last.pt")
    compare(*folders, **settings)
    log = "".join(capfd.readouterr())
    assert "Epoch[2] Metrics -- loss:" in log
    assert "Epoch[1] Metrics -- loss:" not in log

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a finished network was run again"))
    compare(*folders, **settings)
    with pytest.raises(InputError, match="begun with other options, settings: the networks must have one budget"):
        compare(*folders, **(settings | {"epochs": 3}))


def test_a_network_that_is_not_of_the_comparison_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no network 'u_net' to compare: choose from tsrl_net, agmr_net, d_unet"):
        compare("a", "b", "c", str(tmp_path), networks=("tsrl_net", "u_net"))


def test_the_shipped_weights_are_evaluated_with_their_own_settings(
    slabs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[list[str]] = []
    monkeypatch.setattr(
        subprocess, "run", lambda words, **_: (jobs.append(words), subprocess.CompletedProcess(words, 0))[1]
    )
    compare(str(slabs), str(slabs), str(slabs / "healthy"), str(tmp_path), networks=(), learning_rate=0.5)
    assert [job[4] for job in jobs] == ["evaluating", "evaluating"]
    for job, folder in zip(jobs, (slabs, slabs / "healthy"), strict=True):
        assert job[job.index("--ckpt_path") + 1] == str(CONFIGS.parent / "models" / "model.pt")
        assert job[job.index("--dataset_dir") + 1] == str(folder)
        assert "--learning_rate" not in job
