"""What Model Zoo's checks ask of a bundle: files, metadata, ids, export and small runs, whose output is looked at."""

from __future__ import annotations

import csv
import inspect
import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from pydoc import locate
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow, ckpt_export, verify_metadata, verify_net_in_out
from monai.bundle.config_item import ComponentLocator, ConfigComponent
from monai.transforms import LoadImaged, SaveImaged

from bundle.networks import TSRLNet
from bundle.transforms import LogitsToMaskd
from bundle.weights import read_settings
from tests.workflows.conftest import COARSE, CONFIGS, FEATURES, ROOT

Make = Callable[..., ConfigWorkflow]

WEIGHTS = ROOT / "models" / "model.pt"
SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
METADATA = json.loads((CONFIGS / "metadata.json").read_text())
CONFIG_FILES = sorted(file for file in CONFIGS.rglob("*.json") if file.name != "metadata.json")
MIB = 1 << 20

TRAIN_IDS = """
bundle_root device dataset_dir network_def network train::trainer train::trainer::max_epochs train::dataset
train::dataset::data train::inferer train::preprocessing train::postprocessing train::handlers train::key_metric
validate::evaluator validate::dataset validate::dataset::data validate::handlers validate::inferer
validate::key_metric val_interval initialize run training"""
INFERENCE_IDS = """
bundle_root device dataset_dir dataset dataset::data evaluator network_def network inferer preprocessing postprocessing
handlers dataloader output_dir output_ext output_dtype output_postfix datalist run inference"""
TRAIN_CONFIGS = [
    ("train.json",),
    ("train.json", "evaluate.json"),
    ("train.json", "multi_gpu_train.json"),
    ("train.json", "evaluate.json", "multi_gpu_evaluate.json"),
]


def entries(node: object) -> Iterator[tuple[str, Any]]:
    """Every key and value of nested dictionaries and lists; list items come without a key."""
    for key, value in node.items() if isinstance(node, dict) else (("", item) for item in node):
        yield key, value
        if isinstance(value, dict | list):
            yield from entries(value)


def components(node: object) -> Iterator[dict]:
    """Every dictionary with a ``_target_``."""
    return (value for _, value in entries([node]) if isinstance(value, dict) and "_target_" in value)


def resolve(target: str) -> Any:
    """Return the component that MONAI finds for a ``_target_``."""
    name = ConfigComponent({"_target_": target}, "", locator=ComponentLocator()).resolve_module_name()
    return locate(str(name))


COMPONENTS = [
    pytest.param(component, id=f"{file.relative_to(CONFIGS)}-{component['_target_']}")
    for file in CONFIG_FILES
    for component in components(json.loads(file.read_text()))
]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes workflows in this process; what they change in ``sys`` is taken back."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)

    def maker(workflow_type: str, *names: str, **overrides: object) -> ConfigWorkflow:
        files = [str(CONFIGS / name) for name in names]
        return ConfigWorkflow(files, workflow_type=workflow_type, logging_file=False, **overrides)

    return maker


@pytest.fixture(scope="module")
def quick_training(cohort: Path, small_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Overrides for two cases of the cohort, prepared once for all tests."""
    return COARSE | {
        "dataset_dir": str(cohort),
        "datalist": str(cohort / "datalist.json"),
        "datalist_key": "test",
        "cache_dir": str(tmp_path_factory.mktemp("cache")),
        "ckpt_path": str(small_weights),
        "batch_size": 8,
        "samples_per_epoch": 16,
        "lesion_fraction": 0.5,
        "epochs": 1,
    }


@pytest.fixture(scope="module")
def quick_inference(cohort: Path, small_weights: Path) -> dict[str, object]:
    """Overrides for one case of the cohort and the thin network."""
    return {
        "dataset_dir": str(cohort / "images" / "case_0.nii.gz"),
        "ckpt_path": str(small_weights),
        "network_def::features": list(FEATURES),
    }


# Files


@pytest.mark.parametrize(
    "file",
    [
        "LICENSE",
        "README.md",
        "requirements.txt",
        "configs/metadata.json",
        "configs/inference.json",
        "configs/train.json",
        "configs/evaluate.json",
        "configs/multi_gpu_train.json",
        "configs/multi_gpu_evaluate.json",
        "configs/logging.conf",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.pt",
        "models/model.json",
    ],
)
def test_required_file_is_there_and_says_something(file: str) -> None:
    assert (ROOT / file).stat().st_size > 100


def test_every_model_file_is_small_enough_to_be_kept_as_it_is() -> None:
    sizes = {file.name: file.stat().st_size / MIB for file in (ROOT / "models").iterdir()}
    assert sizes
    assert max(sizes.values()) < 25, sizes


def test_weights_are_a_plain_state_dict_of_the_network_of_inference() -> None:
    weights = torch.load(WEIGHTS, map_location="cpu", weights_only=True)
    network = parsed_network()
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    assert all(torch.isfinite(value.float()).all() for value in weights.values())


def test_settings_beside_the_weights_say_how_images_are_prepared_and_the_threshold() -> None:
    settings = read_settings(WEIGHTS)
    image = METADATA["network_data_format"]["inputs"]["image"]
    assert image["spatial_shape"] == [settings.slice_size] * 2
    assert image["num_channels"] == len(settings.offsets)
    assert list(image["channel_def"].values()) == [f"slice z{o:+d}" if o else "slice z" for o in settings.offsets]


# Metadata


def test_version_is_in_the_changelog_and_is_the_packages() -> None:
    assert METADATA["version"] in METADATA["changelog"]
    assert f'version = "{METADATA["version"]}"' in (ROOT / "pyproject.toml").read_text()


def verify(metadata: dict, folder: Path) -> None:
    if not SCHEMA.is_file():
        pytest.skip("the schema of ../shared/schema is not here")
    shutil.copy(SCHEMA, folder / "schema.json")
    (folder / "metadata.json").write_text(json.dumps(metadata))
    verify_metadata(meta_file=str(folder / "metadata.json"), filepath=folder / "schema.json")


def test_metadata_fits_the_schema(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        verify(METADATA, tmp_path)
    assert "metadata is verified with no error" in caplog.text


def test_metadata_without_a_task_does_not_fit_the_schema(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'task' is a required property"):
        verify({key: value for key, value in METADATA.items() if key != "task"}, tmp_path)


def test_versions_in_metadata_are_those_required_and_installed() -> None:
    lines = (ROOT / "requirements.txt").read_text().split()
    required = dict(line.split("==") for line in lines)
    in_metadata = METADATA["required_packages_version"] | {
        "torch": METADATA["pytorch_version"],
        "monai": METADATA["monai_version"],
        "numpy": METADATA["numpy_version"],
    }
    assert in_metadata == required
    # "+cpu" and the like are the same release.
    assert {name: version(name).split("+")[0] for name in required} == required


# Components, network, export


@pytest.mark.parametrize("component", COMPONENTS)
def test_target_resolves_and_takes_the_arguments(component: dict) -> None:
    target = resolve(component["_target_"])
    assert callable(target), f"{component['_target_']} does not resolve"
    arguments = {key: value for key, value in component.items() if not re.fullmatch(r"_.*_", key)}
    inspect.signature(target).bind_partial(**arguments)


def test_a_target_that_does_not_exist_does_not_resolve() -> None:
    assert resolve("bundle.losses.NoSuchLoss") is None


def parsed_network() -> torch.nn.Module:
    """The network of inference.json, for the weights that come with the bundle."""
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / "inference.json"))
    network: torch.nn.Module = parser.get_parsed_content("network_def")
    return network.eval()


def test_input_and_output_of_the_network_are_those_of_the_metadata() -> None:
    files = {"meta_file": str(CONFIGS / "metadata.json"), "config_file": str(CONFIGS / "inference.json")}
    verify_net_in_out(net_id="network_def", device="cpu", **files)
    with pytest.raises(ValueError, match="output channel number `1` doesn't match: `2`"):
        verify_net_in_out(
            net_id="network_def",
            device="cpu",
            **files,
            **{
                "_meta_::network_data_format::outputs::pred::num_channels": 2,
                "_meta_::network_data_format::inputs::image::spatial_shape": [96, 96],
            },
        )


def test_logits_have_the_spatial_shape_that_metadata_says() -> None:
    data = METADATA["network_data_format"]
    image, pred = data["inputs"]["image"], data["outputs"]["pred"]
    network = TSRLNet(in_channels=image["num_channels"], features=FEATURES).eval()
    with torch.no_grad():
        logits = network(torch.rand(1, image["num_channels"], *image["spatial_shape"]))
    assert list(logits.shape) == [1, pred["num_channels"], *pred["spatial_shape"]]


def test_the_exported_network_gives_the_values_of_the_eager_one(tmp_path: Path) -> None:
    ckpt_export(
        net_id="network_def",
        filepath=str(tmp_path / "model.ts"),
        ckpt_file=str(WEIGHTS),
        meta_file=str(CONFIGS / "metadata.json"),
        config_file=str(CONFIGS / "inference.json"),
    )
    kept = {"metadata.json": "", "inference.json": ""}
    scripted = torch.jit.load(str(tmp_path / "model.ts"), _extra_files=kept)
    eager = parsed_network()
    eager.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    stacks = torch.rand(2, 4, 96, 112, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(scripted(stacks), eager(stacks), rtol=1e-4, atol=1e-4)
    assert json.loads(kept["inference.json"]) == json.loads((CONFIGS / "inference.json").read_text())
    assert json.loads(kept["metadata.json"])["version"] == METADATA["version"]


# Configs


@pytest.mark.parametrize(
    ("names", "ids"),
    [*((names, TRAIN_IDS) for names in TRAIN_CONFIGS), (("inference.json",), INFERENCE_IDS)],
    ids=lambda value: "+".join(value) if isinstance(value, tuple) else "",
)
def test_ids_that_tools_rely_on_exist(names: tuple[str, ...], ids: str) -> None:
    parser = ConfigParser()
    parser.read_config([str(CONFIGS / name) for name in names])
    assert [name for name in ids.split() if name not in parser] == []


@pytest.mark.parametrize("names", TRAIN_CONFIGS, ids="+".join)
def test_training_has_every_property_under_its_id(
    names: tuple[str, ...],
    make: Make,
    quick_training: dict[str, object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    environment = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    workflow = make("train", *names, output_dir=str(tmp_path), **quick_training)
    workflow.initialize()
    try:
        assert workflow.check_properties() == []
        assert len(workflow.train_dataset_data) + len(workflow.val_dataset_data) >= 2
        assert workflow.version == METADATA["version"]
    finally:
        workflow.finalize()
    assert not torch.distributed.is_initialized()


def test_inference_has_every_property_under_its_id(
    make: Make, quick_inference: dict[str, object], tmp_path: Path
) -> None:
    workflow = make("infer", "inference.json", output_dir=str(tmp_path), **quick_inference)
    workflow.initialize()
    assert workflow.check_properties() == []
    assert workflow.dataset_data == [{"image": quick_inference["dataset_dir"]}]


def test_transforms_have_the_order_that_tools_rely_on(
    make: Make, quick_inference: dict[str, object], tmp_path: Path
) -> None:
    workflow = make("infer", "inference.json", output_dir=str(tmp_path), **quick_inference)
    workflow.initialize()
    assert isinstance(workflow.preprocessing.transforms[0], LoadImaged)
    after = [type(transform) for transform in workflow.postprocessing.transforms]
    assert after[-1] is SaveImaged
    assert after[0] is LogitsToMaskd
    assert workflow.inferer.progress  # the setting reaches the bar


@pytest.mark.parametrize("names", [("inference.json",), *TRAIN_CONFIGS], ids="+".join)
def test_data_keys_are_image_label_pred_and_its_probability(names: tuple[str, ...]) -> None:
    config = ConfigParser.load_config_files([str(CONFIGS / name) for name in names])
    keys = {
        key
        for name, value in entries(config)
        if name in ("keys", "orig_keys")
        for key in ([value] if isinstance(value, str) else value)
    }
    assert {"image", "pred"} <= keys <= {"image", "label", "pred", "probability"}


def test_inference_and_training_have_the_same_network() -> None:
    # Training's offsets are those of its settings, which MONAI Label replaces by the weights' own.
    texts = ((CONFIGS / name).read_text().replace("@settings.", "@") for name in ("inference.json", "train.json"))
    inference, train = map(json.loads, texts)
    assert inference["network_def"] == train["network_def"]


@pytest.mark.parametrize("file", CONFIG_FILES, ids=lambda file: str(file.relative_to(CONFIGS)))
def test_config_has_no_absolute_path(file: Path) -> None:
    texts = [value for _, value in entries(json.loads(file.read_text())) if isinstance(value, str)]
    # In an expression a path may follow a "+", behind the bundle's root or an output folder.
    absolute = re.compile(r"^[/~]|^[A-Za-z]:\\|(?<!\+ )['\"][/~]")
    assert [text for text in texts if absolute.search(text)] == []


# Small runs


def test_a_small_training_changes_the_network_and_saves_it(
    make: Make, quick_training: dict[str, object], tmp_path: Path
) -> None:
    overrides = quick_training | {"val_fraction": 0.5, "output_dir": str(tmp_path)}
    workflow = make("train", "train.json", **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    before = {name: value.clone() for name, value in workflow.network_def.state_dict().items()}
    workflow.run()
    workflow.finalize()
    trainer, evaluator = workflow.trainer, workflow.evaluator
    assert (trainer.state.epoch, trainer.state.iteration) == (1, 2)
    parts = {name: value for name, value in trainer.state.metrics.items() if name.startswith("loss_")}
    assert trainer.state.metrics["loss"] == pytest.approx(sum(parts.values()), rel=1e-5)
    assert 0 <= evaluator.state.metrics["val_dice"] <= 1
    saved = torch.load(tmp_path / "model.pt", weights_only=True)
    assert {name: value.shape for name, value in saved.items()} == {n: v.shape for n, v in before.items()}
    kernels = [name for name, value in saved.items() if value.dim() >= 4]
    assert [name for name in kernels if torch.equal(saved[name], before[name])] == []


def segment(make: Make, output: Path, **overrides: object) -> tuple[nib.Nifti1Image, np.ndarray]:
    """Runs inference on case 0: the mask it wrote and the probabilities."""
    workflow = make("infer", "inference.json", output_dir=str(output), save_probability=True, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    assert {file.name for file in output.iterdir()} == {"case_0_lesion.nii.gz", "case_0_probability.nii.gz"}
    probability = nib.load(output / "case_0_probability.nii.gz").get_fdata(dtype=np.float32)
    return nib.load(output / "case_0_lesion.nii.gz"), probability


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """2 |a and b| / (|a| + |b|)."""
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


@pytest.mark.slow
def test_small_inference_and_evaluation_agree_and_repeat_themselves(
    make: Make, cohort: Path, quick_training: dict[str, object], quick_inference: dict[str, object], tmp_path: Path
) -> None:
    _, probability = segment(make, tmp_path / "first", **quick_inference)
    threshold = float(np.percentile(probability, 90))  # an untrained network's mask holds all or nothing at 0.5
    mask, again = segment(make, tmp_path / "second", threshold=threshold, smallest_lesion_ml=0.0, **quick_inference)
    np.testing.assert_array_equal(again, probability)

    source = nib.load(cohort / "images" / "case_0.nii.gz")
    voxels = np.asanyarray(mask.dataobj)
    assert mask.shape == source.shape
    np.testing.assert_allclose(mask.affine, source.affine, atol=1e-5)
    assert voxels.dtype == mask.get_data_dtype() == np.uint8
    assert set(np.unique(voxels)) == {0, 1}
    np.testing.assert_array_equal(voxels, probability >= threshold)

    overrides = quick_training | {"threshold": threshold, "smallest_lesion_ml": 0.0}
    overrides["output_dir"] = str(tmp_path / "table")
    workflow = make("train", "train.json", "evaluate.json", **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.run()
    workflow.finalize()
    with (tmp_path / "table" / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["case"]).name for row in rows] == ["case_0.nii.gz", "case_1.nii.gz"]
    label = np.asanyarray(nib.load(cohort / "labels" / "case_0.nii.gz").dataobj)
    assert float(rows[0]["dsc"]) == pytest.approx(dice(voxels > 0, label > 0), abs=1e-6)
