"""The package: its contents, the same bytes each time, no lost files, and the Model Zoo's checks."""

from __future__ import annotations

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch

from bundle.errors import InputError
from bundle.mni import TEMPLATE
from scripts.package import NAME, write_package
from tests.package.conftest import ROOT

SCHEMA = ROOT.parent / "shared" / "schema" / "meta_schema_20240725.json"
METADATA = json.loads((ROOT / "configs" / "metadata.json").read_text())
VERSION = METADATA["version"]
MIB = 1 << 20
REQUIREMENTS = (
    "requirements.txt",
    *(f"requirements/{of}.txt" for of in ("deploy", "dicom", "label", "onnx", "openvino", "ray")),
)
USERS_PAGES = (
    *("README.md", "hospital.md", "simulation.md", "cohorts.md", "model_zoo.md"),
    *("dicom.md", "many_machines.md", "monai-deploy.md", "monai-label.md", "runtimes.md"),
)
"""The pages of docs/ about the use of the bundle; the others are about this repository's own results."""
NOT_PACKAGED = {
    "scripts.package",
    "benchmarks.agreement",
    "benchmarks.boxes",
    "benchmarks.inputs",
    "benchmarks.many_volumes",
    "benchmarks.placement",
}
"""Commands on these pages that are run in the repository."""


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


# What is in it


def test_the_zip_holds_the_folder_file_by_file(package: tuple[Path, Path]) -> None:
    folder, archive = package
    assert archive.name == f"stroke_lesion_t1w_segmentation_v{VERSION}.zip"
    with ZipFile(archive) as opened:
        assert opened.testzip() is None
        contents = {name: opened.read(name) for name in opened.namelist()}
    assert contents == {f"{NAME}/{name}": (folder / name).read_bytes() for name in names(folder)}


@pytest.mark.parametrize(
    "name",
    [
        "LICENSE",
        "bundle/networks/nets.py",
        "bundle/mni/icbm152/LICENSE.txt",
        "bundle/volumes/niivue/niivue.umd.js",
        "configs/evaluate.json",
        "configs/experiments/table_3_5_add.json",
        "configs/inference.json",
        "configs/logging.conf",
        "configs/metadata.json",
        "configs/multi_gpu_train.json",
        "configs/train.json",
        "docs/README.md",
        "docs/data_license.txt",
        "models/model.json",
        "models/model.pt",
        "requirements.txt",
        "scripts/command.py",
        "scripts/segment.py",
    ],
)
def test_files_that_a_user_needs_are_in_the_package_unchanged(name: str, packaged: Path) -> None:
    assert (packaged / name).read_bytes() == (ROOT / name).read_bytes()


def test_all_code_that_configs_name_is_in_the_package(packaged: Path) -> None:
    assert {name for name in names(ROOT / "bundle") if name.endswith(".py")} <= set(names(packaged / "bundle"))


def test_nothing_else_is_in_the_package(packaged: Path) -> None:
    parts = {"LICENSE", "bundle", "configs", "docs", "models", "scripts"}
    assert {path.name for path in packaged.iterdir()} == parts | {"requirements", "requirements.txt"}
    assert {f"requirements/{path.name}" for path in (packaged / "requirements").iterdir()} == set(REQUIREMENTS[1:])
    unwanted = re.compile(
        r"(^|/)(\.|__pycache__|tests?/|test_|conftest|benchmarks)|\.(pyc|nii|nii\.gz|mgz|zip|ts|log)$"
    )
    template = TEMPLATE.relative_to(ROOT).as_posix()
    assert [name for name in names(packaged) if unwanted.search(name)] == [template]
    assert max((packaged / name).stat().st_size for name in names(packaged)) <= 25 * MIB


def test_no_path_of_a_machine_is_in_any_text(packaged: Path) -> None:
    personal = re.compile(r"(?<![\w.])/(home|root|tmp|Users|workspace)/")
    texts = [name for name in names(packaged) if name.endswith((".py", ".json", ".md", ".txt", ".conf"))]
    assert len(texts) > 150
    assert [name for name in texts if personal.search((packaged / name).read_text())] == []


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)


def test_no_module_imports_a_module_outside_the_package(packaged: Path) -> None:
    modules = {module for file in packaged.rglob("*.py") for module in imported(file)}
    ours = {module for module in modules if module.split(".")[0] in ("bundle", "scripts", "tests", "benchmarks")}
    assert "bundle.segmenter" in ours
    paths = [packaged / module.replace(".", "/") for module in sorted(ours)]
    assert [path for path in paths if not path.with_suffix(".py").is_file() and not path.is_dir()] == []


def test_links_of_the_documents_lead_to_files_of_the_package(packaged: Path) -> None:
    links = [
        page.parent / target.split("#")[0]
        for page in (packaged / "docs").glob("*.md")
        for target in re.findall(r"\]\(([^)]+)\)", page.read_text())
        if not target.startswith("http")
    ]
    assert len(links) > 20
    assert [link for link in links if not link.resolve().is_relative_to(packaged) or not link.is_file()] == []


@pytest.mark.parametrize("page", USERS_PAGES)
def test_commands_of_a_page_are_in_the_package(page: str, packaged: Path) -> None:
    named = set(re.findall(r"python -m ((?:scripts|benchmarks)\.\w+)", (packaged / "docs" / page).read_text()))
    there = {f"scripts.{file.stem}" for file in (packaged / "scripts").glob("*.py")}
    assert named - there <= NOT_PACKAGED
    configs = re.findall(r"configs/[\w/]+\.json", (packaged / "docs" / page).read_text())
    assert [config for config in configs if not (packaged / config).is_file()] == []


# How it is written


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A copy of the bundle with weights of a few bytes."""
    root = tmp_path / "small"
    for part in ("bundle", "configs", "docs", "requirements", "scripts"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("LICENSE", "requirements.txt"):
        shutil.copy(ROOT / file, root)
    (root / "models").mkdir()
    shutil.copy(ROOT / "models" / "model.json", root / "models")
    (root / "models" / "model.pt").write_bytes(b"weights")
    return root


def test_the_same_files_give_the_same_bytes(small: Path, tmp_path: Path) -> None:
    _, first = write_package(small, tmp_path / "first")
    for number, file in enumerate(file for file in sorted(small.rglob("*"), reverse=True) if file.is_file()):
        os.utime(file, (number, number))
        file.chmod(0o600)
    _, second = write_package(small, tmp_path / "second")
    assert first.read_bytes() == second.read_bytes()
    (small / "models" / "model.pt").write_bytes(b"Weights")
    _, third = write_package(small, tmp_path / "third")
    assert first.read_bytes() != third.read_bytes()


def test_a_package_replaces_an_earlier_one_and_leaves_nothing_else(small: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    folder, archive = write_package(small, output)
    (folder / "bundle" / "__pycache__").mkdir()  # it was run
    (folder / "bundle" / "__pycache__" / "errors.cpython-311.pyc").write_bytes(b"")
    (small / "models" / "model.pt").write_bytes(b"better weights")
    assert write_package(small, output) == (folder, archive)
    assert (folder / "models" / "model.pt").read_bytes() == b"better weights"
    assert not (folder / "bundle" / "__pycache__").exists()
    assert sorted(path.name for path in output.iterdir()) == [folder.name, archive.name]


def test_a_user_s_own_file_is_not_lost(small: Path, tmp_path: Path) -> None:
    folder, _ = write_package(small, tmp_path)
    (folder / "models" / "mine.pt").write_bytes(b"my own")
    with pytest.raises(InputError, match=r"models/mine\.pt is not part of the package and would be lost: move it"):
        write_package(small, tmp_path)
    assert (folder / "models" / "mine.pt").read_bytes() == b"my own"


def test_a_failed_write_leaves_the_earlier_package(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, archive = write_package(small, tmp_path / "output")
    before = archive.read_bytes()
    (small / "models" / "model.pt").write_bytes(b"better weights")
    written = Path.write_bytes

    def full_disk(path: Path, content: bytes) -> int:
        if path.name == "nets.py":
            raise OSError(28, "No space left on device")
        return written(path, content)

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_package(small, tmp_path / "output")
    assert (folder / "models" / "model.pt").read_bytes() == b"weights"
    assert archive.read_bytes() == before
    assert sorted(path.name for path in (tmp_path / "output").iterdir()) == [folder.name, archive.name]


def test_a_missing_file_is_named(small: Path, tmp_path: Path) -> None:
    (small / "models" / "model.json").unlink()
    with pytest.raises(InputError, match=r"models/model\.json is missing: the package needs it"):
        write_package(small, tmp_path)


def test_a_version_without_changelog_is_named(small: Path, tmp_path: Path) -> None:
    (small / "configs" / "metadata.json").write_text(json.dumps(METADATA | {"version": "9.9.9"}))
    with pytest.raises(InputError, match=r"metadata\.json has version 9\.9\.9, and no entry of that version"):
        write_package(small, tmp_path)


def test_a_file_over_the_zoo_s_limit_needs_an_address(small: Path, tmp_path: Path) -> None:
    weights = small / "models" / "model.pt"
    weights.write_bytes(bytes(25 * MIB))
    folder, _ = write_package(small, tmp_path)
    assert not (folder / "large_files.yml").exists()
    weights.write_bytes(bytes(25 * MIB + 1))
    with pytest.raises(InputError, match=r"model\.pt has more than 25 MiB, .* with --large_files_url"):
        write_package(small, tmp_path)
    folder, _ = write_package(small, tmp_path, "https://example.org/weights/")
    assert (folder / "large_files.yml").read_text() == (
        "large_files:\n"
        '  - path: "models/model.pt"\n'
        '    url: "https://example.org/weights/model.pt"\n'
        f'    hash_val: "{hashlib.sha256(bytes(25 * MIB + 1)).hexdigest()}"\n'
        '    hash_type: "sha256"\n'
    )


def test_an_output_that_is_a_file_is_named_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    words = [sys.executable, "-m", "scripts.package", str(tmp_path / "file")]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr == f"Error: {tmp_path / 'file'} cannot be written to: Not a directory.\n"


# The Model Zoo's checks, as its continuous integration runs them: from elsewhere, with the bundle first on the path


def monai_bundle(packaged: Path, folder: Path, *words: str) -> str:
    """Return the output of ``python -m monai.bundle``, which must succeed."""
    command = [sys.executable, "-m", "monai.bundle", *words]
    environment = {**os.environ, "PYTHONPATH": str(packaged)}
    ended = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


def test_metadata_fits_the_schema(packaged: Path, tmp_path: Path) -> None:
    if not SCHEMA.is_file():
        pytest.skip("the schema of ../shared/schema is not here")
    shutil.copy(SCHEMA, tmp_path / "schema.json")
    words = ("--meta_file", str(packaged / "configs" / "metadata.json"), "--filepath", str(tmp_path / "schema.json"))
    assert "metadata is verified with no error" in monai_bundle(packaged, tmp_path, "verify_metadata", *words)


def test_shapes_of_the_network_s_input_and_output_are_those_in_metadata(packaged: Path, tmp_path: Path) -> None:
    configs = packaged / "configs"
    words = ("--meta_file", str(configs / "metadata.json"), "--config_file", str(configs / "inference.json"))
    said = monai_bundle(packaged, tmp_path, "verify_net_in_out", "--net_id", "network_def", *words)
    assert "data shape of network is verified with no error" in said


@pytest.mark.parametrize(
    "key", ["name", "changelog", "data_source", "eval_metrics", "intended_use", "references", "supported_apps"]
)
def test_metadata_has_what_the_zoo_s_browser_shows(key: str) -> None:
    assert key in METADATA
    assert METADATA[key] or key == "supported_apps"


def test_versions_are_exact() -> None:
    versions = [METADATA[f"{name}_version"] for name in ("monai", "pytorch", "numpy")]
    assert all(re.fullmatch(r"\d+(\.\d+)+", v) for v in [*versions, *METADATA["required_packages_version"].values()])
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) and said for version, said in METADATA["changelog"].items())


def test_scores_in_metadata_are_those_of_the_card() -> None:
    card = (ROOT / "docs" / "README.md").read_text()
    (mean,) = re.findall(r"^\| all \| \d+ \| ([\d.]+) \(sd", card, re.MULTILINE)
    (middle,) = re.findall(r"^Median DSC ([\d.]+),", card, re.MULTILINE)
    scores = {"simulated_mean_dice": float(mean), "simulated_median_dice": float(middle)}
    assert METADATA["eval_metrics"] == scores


@pytest.mark.parametrize(
    "section",
    [
        "Model overview",
        "Data",
        "Training configuration",
        "Input and output",
        "Performance",
        "Limitations",
        "MONAI bundle commands",
        "References",
        "License",
    ],
)
def test_the_card_has_the_section(section: str, packaged: Path) -> None:
    assert re.search(rf"^#+ {section}", (packaged / "docs" / "README.md").read_text(), re.MULTILINE)


def test_the_card_and_the_metadata_say_not_for_clinical_use(packaged: Path) -> None:
    card = (packaged / "docs" / "README.md").read_text()
    assert all("Not for clinical use." in text for text in (card, METADATA["intended_use"], METADATA["description"]))


LOADED = """
import sys, torch, monai.bundle
folder, kind, file = sys.argv[1:]
network = monai.bundle.load("stroke_lesion_t1w_segmentation", bundle_dir=folder, workflow_type=kind, device="cpu")
torch.save(network.state_dict(), file)
"""


@pytest.mark.parametrize("kind", ["inference", "train"])
def test_load_gives_the_network_with_its_weights(kind: str, packaged: Path, tmp_path: Path) -> None:
    words = [sys.executable, "-c", LOADED, str(packaged.parent), kind, str(tmp_path / "loaded.pt")]
    environment = {**os.environ, "PYTHONPATH": str(packaged)}
    subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, check=True)
    loaded, shipped = (
        torch.load(file, weights_only=True) for file in (tmp_path / "loaded.pt", packaged / "models" / "model.pt")
    )
    assert loaded.keys() == shipped.keys()
    assert all(torch.equal(loaded[name], value.to(loaded[name].dtype)) for name, value in shipped.items())
