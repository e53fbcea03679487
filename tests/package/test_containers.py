"""The Dockerfiles: their steps are done in a fresh environment, because no image can be built here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.package.conftest import ROOT

RECIPES = ("Dockerfile", "Dockerfile.cuda")


def instructions(recipe: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with their arguments, continued lines joined."""
    text = (ROOT / "containers" / recipe).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines)]


def values(recipe: str, instruction: str) -> list[str]:
    return [rest for word, rest in instructions(recipe) if word == instruction]


@pytest.mark.parametrize("recipe", RECIPES)
def test_base_is_pinned_and_the_user_is_not_root(recipe: str) -> None:
    (base,) = values(recipe, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    (user,) = values(recipe, "USER")
    assert int(user) > 1000
    assert [word for word, _ in instructions(recipe)].index("USER") < len(instructions(recipe)) - 2
    assert values(recipe, "ENTRYPOINT") == ['["python", "-m", "scripts.segment"]']


@pytest.mark.parametrize("recipe", RECIPES)
def test_all_copied_files_exist_and_are_not_ignored(recipe: str) -> None:
    copied = [word for rest in values(recipe, "COPY") for word in shlex.split(rest)[:-1]]
    assert [name for name in copied if not (ROOT / name).exists()] == []
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert [name for name in copied if not any(Path(name).match(pattern) for pattern in kept)] == []
    assert {"bundle", "configs", "models", "scripts"} <= set(copied)


@pytest.fixture(scope="module", params=RECIPES)
def image(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A Dockerfile's name and a folder in which its steps were done: ``files``, its working folder, and ``python``.

    Left out is what needs root (the user) and the address of CPU packages, which is an option of pip's.
    """
    recipe, folder = request.param, tmp_path_factory.mktemp("image")
    subprocess.run([sys.executable, "-m", "venv", folder / "python"], check=True)
    files = folder / "files"
    files.mkdir()
    path = f"{folder / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    for word, rest in instructions(recipe):
        if word == "COPY":
            *sources, target = shlex.split(rest)
            for source in sources:
                place = files / target
                if (ROOT / source).is_dir():
                    shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(ROOT / source, place)
        elif word == "RUN" and not rest.startswith("useradd "):
            subprocess.run(["sh", "-c", rest], cwd=files, env={**os.environ, "PATH": path}, check=True)
    yield recipe, folder
    shutil.rmtree(folder)


@pytest.mark.container
def test_a_head_is_segmented_without_a_network(image: tuple[str, Path], scan: Path, tmp_path: Path) -> None:
    recipe, folder = image
    settings = dict(word.split("=", 1) for rest in values(recipe, "ENV") for word in shlex.split(rest))
    environment = {**os.environ, **settings, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment["PATH"] = f"{folder / 'python' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    command = ["python", "-m", "scripts.segment", str(scan), str(tmp_path / "masks")]
    offline = ["unshare", "--net", *command] if os.geteuid() == 0 else ["unshare", "--user", "--net", *command]
    subprocess.run(offline, cwd=folder / "files", env=environment, check=True)
    (mask,) = (tmp_path / "masks").rglob("*_mask.nii.gz")
    assert 10_000 < np.asanyarray(nib.load(mask).dataobj).sum() < 60_000  # of 35,000 mm3
    log = (tmp_path / "masks" / "segment.log").read_text()
    assert ("Network: OpenVINO" in log) == (recipe == "Dockerfile")
    assert list((folder / "files").rglob("__pycache__")) == []  # nothing is written beside the code
