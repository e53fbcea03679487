"""``run training`` with configs/simulated.json: it ends, renews its pool and goes on where it stopped."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monai.data.meta_tensor import MetaTensor

from bundle.data import SliceDataset
from bundle.data.simulate import Head, simulate_case
from bundle.data.simulate.parts import masks_of
from bundle.mni import TEMPLATE, atlas_grid
from tests.workflows.conftest import COARSE, CONFIGS, Run, command

pytestmark = pytest.mark.slow

CONFIG_FILES = ("train.json", "simulated.json")
STEPS = 2
QUICK = COARSE | {
    "space": "mni",
    "heads": str(TEMPLATE),
    "test_masks": 0.2,
    "volumes": 2,
    "renewed_per_epoch": 1,
    "healthy_fraction": 0.0,
    "lesion_fraction": 0.5,
    "batch_size": 4,
    "samples_per_epoch": 4 * STEPS,
}


@pytest.fixture(scope="module")
def masks(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six real masks."""
    folder = tmp_path_factory.mktemp("masks")
    for file in sorted((shared_data / "lesion_masks" / "soop").iterdir())[:6]:
        (folder / file.name).symlink_to(file)
    return folder


@pytest.fixture(scope="module")
def trained(masks: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Two epochs: the output folder, beside which the head is kept, and the console."""
    folder = tmp_path_factory.mktemp("simulated")
    words = command(
        "training",
        *CONFIG_FILES,
        masks=masks,
        heads_cache=folder / "heads",
        output_dir=folder / "out",
        epochs=2,
        **QUICK,
    )
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder, done.stdout + done.stderr


def test_a_training_on_simulated_volumes_ends_well(trained: tuple[Path, str]) -> None:
    folder, log = trained
    losses = re.findall(r"Epoch\[(\d+)\] Metrics -- loss: ([\d.]+)", log)
    assert [epoch for epoch, _ in losses] == ["1", "2"]
    assert all(float(loss) > 0 for _, loss in losses)
    last = torch.load(folder / "out" / "last.pt", weights_only=True)
    assert last["trainer"]["iteration"] == 2 * STEPS
    kept = torch.load(folder / "out" / "model.pt", weights_only=True)
    assert all(torch.equal(kept[name], value) for name, value in last["model"].items())  # nothing is validated
    assert '"space": "mni"' in (folder / "out" / "model.json").read_text()
    assert [file.suffix for file in (folder / "heads").iterdir()] == [".npz"]


def test_the_overlay_for_a_gpu_trains_on_a_cpu_too_without_its_graphs(masks: Path, tmp_path: Path) -> None:
    """The pool begins with one volume and grows."""
    words = command(
        "training",
        *CONFIG_FILES,
        "cpu.json",
        "weights.json",
        "cuda.json",
        masks=masks,
        heads_cache=tmp_path / "heads",
        output_dir=tmp_path / "out",
        epochs=2,
        network="$@network_def.to(@device)",
        **QUICK,
        first_volumes=1,
        simulation_workers=1,
        scanned_fraction="$None",
    )
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    last = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert last["trainer"]["iteration"] == 2 * STEPS
    assert last["ema"].keys() == last["model"].keys()


@pytest.fixture(scope="module")
def validation(template_head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two simulated cases in the MNI template, one of them without lesion."""
    folder = tmp_path_factory.mktemp("validation")
    for name, volume_ml in (("lesion", 20.0), ("healthy", 0.0)):
        case = simulate_case(template_head, np.random.default_rng(5), None, volume_ml)
        for part, array in (("images", case.image), ("labels", case.label)):
            (folder / part).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(array, atlas_grid()[0]), folder / part / f"{name}.nii.gz")
    return folder


def weights_workflow(folder: Path, masks: Path, shared_data: Path, **options: object) -> ConfigWorkflow:
    """The recipe of the weights, three epochs of one step."""
    heads = [str(TEMPLATE), str(shared_data / "label_maps" / "training_seg_01.nii.gz")]
    short = {"epochs": 3, "samples_per_epoch": 4, "first_volumes": 2, "simulation_workers": 1, "warmup_steps": 1}
    places = {"masks": str(masks), "heads_cache": str(folder / "heads"), "output_dir": str(folder / "out")}
    workflow = ConfigWorkflow(
        [str(CONFIGS / name) for name in (*CONFIG_FILES, "cpu.json", "weights.json")],
        run_id="training",
        workflow_type="train",
        **QUICK | short | places | {"heads": heads} | options,
    )
    workflow.initialize()
    return workflow


def test_the_recipe_of_the_weights_stops_goes_on_and_comes_to_its_end(
    masks: Path, validation: Path, shared_data: Path, tmp_path: Path
) -> None:
    """Stopped after two of three steps: rate, average of weights and validations go on as if it had not been."""
    options = {"validation_dir": str(validation), "val_interval": 1, "learning_rate": 0.01}
    workflow = weights_workflow(tmp_path, masks, shared_data, **options)
    trainer = workflow.parser.get_parsed_content("train::trainer")
    trainer.add_event_handler(Events.EPOCH_COMPLETED(once=2), trainer.terminate)
    workflow.run()
    workflow.parser.get_parsed_content("train::dataset").pool.shutdown()
    stopped = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    resumed = weights_workflow(tmp_path, masks, shared_data, resume=True, **options)
    resumed.run()
    resumed.parser.get_parsed_content("train::dataset").pool.shutdown()
    ended = torch.load(tmp_path / "out" / "last.pt", weights_only=True)
    assert [state["trainer"]["iteration"] for state in (stopped, ended)] == [2, 3]
    # After the warm-up's one step the cosine falls over two: from 0.01 by half, and to 0.
    rates = [state["optimizer"]["param_groups"][0]["lr"] for state in (stopped, ended)]
    assert rates == pytest.approx([0.005, 0.0], abs=1e-9)
    name = "head.weight"
    assert torch.allclose(ended["ema"][name], 0.999 * stopped["ema"][name] + 0.001 * ended["model"][name], atol=1e-7)
    assert not torch.equal(ended["ema"][name], stopped["ema"][name])
    kept = torch.load(tmp_path / "out" / "model.pt", weights_only=True)
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.float16}
    rows = (tmp_path / "out" / "validation.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["iteration", "1", "2", "3"]
    columns = rows[0].split(",")
    for row in rows[1:]:
        values = dict(zip(columns, row.split(","), strict=True))
        assert values["dsc"] == values["dsc_10-50"] != ""  # one case with lesion, of some 20 mL
        assert values["dsc_<0.5"] == ""
        assert float(values["false_ml"]) == float(values["false_ml_max"]) >= 0  # one without


def test_the_recipe_of_the_weights_begins_with_weights_that_are_given(
    trained: tuple[Path, str], masks: Path, shared_data: Path, tmp_path: Path
) -> None:
    """With a learning rate of next to nothing they stay as they were, to half precision."""
    folder, _ = trained
    begun = folder / "out" / "model.pt"
    workflow = weights_workflow(tmp_path, masks, shared_data, finetune=str(begun), learning_rate=1e-9)
    workflow.run()
    workflow.parser.get_parsed_content("train::dataset").pool.shutdown()
    before, after = (torch.load(file, weights_only=True) for file in (begun, tmp_path / "out" / "model.pt"))
    learned = [name for name, value in before.items() if value.is_floating_point() and "running" not in name]
    assert len(learned) > 100
    assert all(torch.allclose(after[name].float(), before[name], rtol=1e-3, atol=1e-6) for name in learned)


def test_the_recipe_of_the_weights_asks_for_scanned_heads_and_for_maps(masks: Path, tmp_path: Path) -> None:
    words = command(
        "training",
        *CONFIG_FILES,
        "weights.json",
        masks=masks,
        heads_cache=tmp_path,
        output_dir=tmp_path / "out",
        **QUICK,
    )
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode != 0
    assert "needs heads of both kinds: 1 T1w scans and 0 label maps were given." in done.stderr


def prepared(workflow: ConfigWorkflow, number: int) -> SliceDataset:
    """A case of the config, as the network sees it."""
    case = workflow.parser.get_parsed_content("cases")[number]
    steps = workflow.parser.get_parsed_content("train::preprocessing").after_registration
    affine = torch.as_tensor(atlas_grid()[0])

    def prepare(item: dict) -> dict:
        volumes = {"image": case.image, "label": case.label}
        return steps({key: MetaTensor(torch.from_numpy(array)[None], affine=affine) for key, array in volumes.items()})

    return SliceDataset([{"image": "", "label": ""}], prepare, progress=False)


def test_a_resumed_training_goes_on_and_has_renewed_its_pool(trained: tuple[Path, str], masks: Path) -> None:
    """After three epochs that replace one of two volumes, cases 3 and 4 of five are left."""
    folder, _ = trained
    workflow = ConfigWorkflow(
        [str(CONFIGS / name) for name in CONFIG_FILES],
        run_id="training",
        workflow_type="train",
        masks=str(masks),
        heads_cache=str(folder / "heads"),
        output_dir=str(folder / "out"),
        epochs=3,
        resume=True,
        **QUICK,
    )
    workflow.initialize()
    workflow.run()
    assert torch.load(folder / "out" / "last.pt", weights_only=True)["trainer"]["iteration"] == 3 * STEPS
    dataset = workflow.parser.get_parsed_content("train::dataset")
    dataset.pool.shutdown()
    assert len(dataset.cases) == 5
    files = sorted(str(file) for file in masks.iterdir())
    assert dataset.cases.masks.files == masks_of("training", files, 0.2)
    for place, number in ((0, 4), (1, 3)):
        for key, tensor in prepared(workflow, number).volumes[0].items():
            assert torch.equal(dataset.volumes[place][key], tensor)


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        ({"heads": "nowhere"}, r"nowhere does not exist: a folder of T1w images"),
        ({"test_heads": ["chris*"]}, r"No head is called chris\*: a pattern of file names among the heads"),
        ({"renewed_per_epoch": 3}, r"2 simulated volumes, 3 renewed: 0 <= renewed <= volumes is needed\."),
    ],
    ids=["no head", "a pattern that fits none", "more renewed than there are"],
)
def test_bad_input_ends_in_one_sentence(
    overrides: dict, sentence: str, trained: tuple[Path, str], masks: Path, tmp_path: Path, run: Run
) -> None:
    common = {"masks": masks, "heads_cache": trained[0] / "heads", "output_dir": tmp_path, "epochs": 1}
    done = run("training", *CONFIG_FILES, **{**QUICK, **common, **overrides})
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert re.search(rf"^Error: .*{sentence}", done.stderr, re.MULTILINE)
