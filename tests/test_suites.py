"""No suite passes by skipping what its name promises."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from bundle.files import bundle_root

SKIPPING = """
import pytest
pytestmark = pytest.mark.{suite}

def test_of_a_tool():
    pytest.{skip}

def test_that_runs():
    pass
"""


def run(folder: Path, suite: str, skip: str, *words: str) -> subprocess.CompletedProcess:
    (folder / "test_one.py").write_text(SKIPPING.format(suite=suite, skip=skip))
    command = [sys.executable, "-m", "pytest", "-p", "tests.suites", f"--rootdir={folder}", "-c/dev/null", *words]
    where = {"PYTHONPATH": bundle_root()}
    return subprocess.run([*command, str(folder)], cwd=folder, env=where, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("suite", "skip", "reason"),
    [
        ("browser", "skip('there is no Chromium: apt-get install chromium')", "there is no Chromium: apt-get install"),
        ("onnx", "importorskip('no_such_package', reason='make test-onnx installs it')", "make test-onnx installs it"),
        ("cluster", "skip('the real images are not here')", "the real images are not here"),
    ],
)
def test_a_missing_tool_fails_its_suite_with_a_sentence_and_no_other_run(
    suite: str, skip: str, reason: str, tmp_path: Path
) -> None:
    done = run(tmp_path, suite, skip, "-m", suite)
    assert done.returncode == 1
    assert "1 failed, 1 passed" in done.stdout
    assert f"make test-{suite} promises this test. Skipped: {reason}" in done.stdout
    assert "1 passed, 1 skipped" in run(tmp_path, suite, skip).stdout


def test_what_a_processor_lacks_is_skipped(tmp_path: Path) -> None:
    done = run(tmp_path, "openvino", "skip('this processor has no bfloat16')", "-m", "openvino")
    assert "1 passed, 1 skipped" in done.stdout


def test_a_suite_whose_packages_are_missing_is_refused(tmp_path: Path) -> None:
    """The Deploy SDK is never in this environment."""
    done = run(tmp_path, "deploy", "skip('')", "-m", "deploy")
    assert done.returncode == 4
    assert "monai.deploy is missing: make test-deploy installs it" in done.stderr


def test_the_target_of_the_dicom_suite_installs_orthanc_or_says_how(tmp_path: Path) -> None:
    """Without it and without the right to install it."""
    recipe = (Path(bundle_root()) / "Makefile").read_text()
    (line,) = (line for line in recipe.splitlines() if "apt-get install" in line and "Orthanc" in line)
    script = line.strip().lstrip("@").replace("$$", "$").replace("/usr/sbin/Orthanc", str(tmp_path / "none"))
    for name, answer in (("id", "echo 1000"), ("apt-get", "echo installed")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    shell = ["/bin/sh", "-c", script]
    refused = subprocess.run(shell, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert "Orthanc is missing: as root, apt-get install orthanc" in refused.stderr
    (tmp_path / "id").write_text("#!/bin/sh\necho 0\n")
    done = subprocess.run(shell, env={"PATH": str(tmp_path)}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["installed"])
