"""The command without the SDK, which needs an environment of its own; tests/deploy has the other tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from bundle.errors import InputError
from scripts.deploy import deploy


def test_a_missing_sdk_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scripts.deploy.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"^The MONAI Deploy App SDK is not installed: pip install -r requirements/d"):
        deploy(str(tmp_path), str(tmp_path / "output"))
    assert list(tmp_path.iterdir()) == []
