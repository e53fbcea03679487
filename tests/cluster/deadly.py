"""A batch of which one volume ends the process at work on it: ``python -m tests.cluster.deadly SCANS OUTPUT``."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

from bundle.volumes.batch import VolumeBatch
from bundle.volumes.cluster import ClusterBatch, connected
from bundle.volumes.inputs import find_volumes
from bundle.volumes.ledger import Ledger
from bundle.volumes.pipeline import VolumePipeline
from tests.cluster.machines import ADDRESS
from tests.volumes.conftest import find_bright
from tests.volumes.test_batch import Killed


def ledger(output: Path) -> Ledger:
    return Ledger(output, "weights", "settings", "versions")


def build(output: Path) -> VolumeBatch:
    pipeline = VolumePipeline(Killed("image", spacing_mm=6.0, slice_size=96), output)
    return VolumeBatch(pipeline, find_bright, ledger(output), workers=0, progress=False)


if __name__ == "__main__":
    scans, output = map(Path, sys.argv[1:])
    with connected(ADDRESS):
        records = ClusterBatch(ledger(output), partial(build, output)).run(find_volumes(scans, output))
    print(json.dumps({record["name"]: [record["status"], record["error"]] for record in records}))
