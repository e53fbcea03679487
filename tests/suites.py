"""A suite that is asked for by its name, as ``pytest -m dicom``, fails where it would skip for want of something."""

from __future__ import annotations

from collections.abc import Generator
from importlib.util import find_spec
from typing import Any

import pytest

# Packages without which a suite's tests cannot even be collected.
_PACKAGES = {"dicom": "highdicom", "deploy": "monai.deploy"}
_PROCESSOR = "processor has no"  # nobody can install one


def pytest_configure(config: pytest.Config) -> None:
    suite = config.option.markexpr
    if suite in _PACKAGES and find_spec(_PACKAGES[suite]) is None:
        raise pytest.UsageError(f"{_PACKAGES[suite]} is missing: make test-{suite} installs it")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    report = yield
    suite = item.config.option.markexpr
    if report.skipped and suite.isidentifier() and _PROCESSOR not in (reason := str(report.longrepr[2])):
        report.outcome = "failed"
        report.longrepr = f"make test-{suite} promises this test. {reason}"
    return report
