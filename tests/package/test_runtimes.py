"""Other runtimes: OpenVINO's files, the TensorRT overlay, and the Hugging Face Hub without the upload."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, push_to_hf_hub
from monai.networks import convert_to_torchscript

from bundle.errors import InputError
from bundle.inferers import SliceStackInferer
from bundle.networks import TSRLNet
from scripts.export import export
from scripts.package import NAME
from tests.package.conftest import ROOT, dice

# OpenVINO


@pytest.mark.openvino
def test_masks_of_openvino_s_files_are_torch_s_at_any_batch_and_size(
    network: TSRLNet, stacks: torch.Tensor, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="make test-openvino installs it")
    export(str(tmp_path / "network.xml"))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["network.bin", "network.xml"]
    compiled = openvino.compile_model(tmp_path / "network.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    larger = torch.nn.functional.pad(stacks[-2:], (0, 32, 0, 16))
    for slices in (stacks, stacks[-1:], larger):
        with torch.no_grad():
            expected = network(slices).numpy()
        (logits,) = compiled(slices.numpy()).values()
        np.testing.assert_allclose(logits, expected, atol=1e-3)
        assert dice(logits > 0, expected > 0) > 0.999


@pytest.mark.openvino
def test_a_missing_file_of_weights_is_named(tmp_path: Path) -> None:
    words = [
        sys.executable,
        "-m",
        "scripts.export",
        str(tmp_path / "network.xml"),
        "--weights",
        str(tmp_path / "no.pt"),
    ]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].startswith(f"Error: {tmp_path / 'no.pt'}")
    assert list(tmp_path.iterdir()) == []


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"network\.onnx does not end in \.xml: OpenVINO keeps a network as"):
        export(str(tmp_path / "network.onnx"))


def test_missing_openvino_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.export.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^OpenVINO is not installed: pip install -r requirements/openvino\.txt"):
        export(str(tmp_path / "network.xml"))


# TensorRT, which is not here: TorchScript is loaded and called in the same way


@pytest.mark.slow
def test_the_tensorrt_overlay_gives_the_volume_to_the_network_in_the_file(
    network: TSRLNet, stacks: torch.Tensor, tmp_path: Path
) -> None:
    torch.jit.save(convert_to_torchscript(network), tmp_path / "model_trt.ts")
    parser = ConfigParser()
    parser.read_config([str(ROOT / "configs" / name) for name in ("inference.json", "inference_trt.json")])
    parser.update({"trt_path": str(tmp_path / "model_trt.ts"), "device": "cpu", "progress": False})
    assert parser.get_parsed_content("handlers") == []  # no weights are loaded over those of the file
    loaded, inferer = parser.get_parsed_content("network"), parser.get_parsed_content("inferer")
    assert isinstance(loaded, torch.jit.ScriptModule)
    volume = stacks[-1].permute(1, 2, 0)[None, None]
    with torch.no_grad():
        torch.testing.assert_close(inferer(volume, loaded), SliceStackInferer()(volume, network), rtol=1e-4, atol=1e-4)


# The Hugging Face Hub


class FakeHub:
    """The part of ``huggingface_hub`` that MONAI calls; it keeps the calls and the files that would be uploaded."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, bytes] = {}

    def HfApi(self, token: str | None = None) -> FakeHub:  # noqa: N802  # the library's own name
        self.calls.append(("HfApi", {"token": token}))
        return self

    def create_repo(self, **options: Any) -> None:
        self.calls.append(("create_repo", options))

    def create_tag(self, **options: Any) -> None:
        self.calls.append(("create_tag", options))

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> str:
        self.calls.append(("upload_folder", {"repo_id": repo_id, **options}))
        root = Path(folder_path)
        self.files = {f.relative_to(root).as_posix(): f.read_bytes() for f in root.rglob("*") if f.is_file()}
        return f"https://huggingface.co/{repo_id}"


def test_the_whole_package_goes_to_the_hub_with_a_card_and_a_tag(
    packaged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = FakeHub()
    monkeypatch.setattr("monai.bundle.scripts.huggingface_hub", hub)
    shutil.copytree(packaged, tmp_path / NAME)
    before = {f.relative_to(packaged).as_posix(): f.read_bytes() for f in packaged.rglob("*") if f.is_file()}
    url = push_to_hf_hub("someone/stroke", NAME, str(tmp_path), token="secret", version="0.1.0")
    assert url == "https://huggingface.co/someone/stroke"
    assert hub.calls == [
        ("HfApi", {"token": "secret"}),
        ("create_repo", {"repo_id": "someone/stroke", "private": True, "exist_ok": True}),
        ("upload_folder", {"repo_id": "someone/stroke"}),
        ("create_tag", {"repo_id": "someone/stroke", "tag": "0.1.0", "exist_ok": True}),
    ]
    card = hub.files.pop("README.md").decode()
    assert hub.files == before
    head = "---\ntags:\n- monai\n- medical\nlibrary_name: monai\nlicense: apache-2.0\n---\n"
    assert card == head + before["docs/README.md"].decode()
