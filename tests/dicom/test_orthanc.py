"""The receiver with a real Orthanc: a mask comes back, and no kill of either loses one."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from bundle.dicom.conversion import to_slices
from bundle.dicom.series import find_slices, read_series
from bundle.files import bundle_root
from tests.dicom.orthanc import Orthanc, free_port
from tests.dicom.scans import another, in_study, save

pytestmark = pytest.mark.dicom

STUDIES, KILLS = 6, 5
LONGEST_S = 1500


class Program:
    """scripts.dicom_receiver as a user starts it, with Orthanc as its peer."""

    def __init__(self, spool: Path, orthanc: Orthanc, port: int) -> None:
        self.spool, self.port = spool, port
        peer = f"ORTHANC@127.0.0.1:{orthanc.dicom_port}"
        words = [sys.executable, "-m", "scripts.dicom_receiver", str(spool), "--peer", peer, f"--port={port}"]
        self.words = [*words, "--quiet_seconds=2", "--space=native"]

    def start(self) -> None:
        self.process = subprocess.Popen(self.words, cwd=bundle_root(), stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said.startswith(f"Listening as STROKE at 127.0.0.1:{self.port}; masks go to ORTHANC@127.0.0.1:"), said

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()

    def log(self) -> str:
        return (self.spool / "results" / "segment.log").read_text(encoding="utf-8")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[tuple[Orthanc, Program]]:
    """A running Orthanc and a running receiver."""
    port = free_port()
    orthanc = Orthanc(tmp_path, port)
    program = Program(tmp_path / "spool", orthanc, port)
    orthanc.start()
    try:
        program.start()
        yield orthanc, program
    finally:
        program.kill()
        orthanc.kill()


def wait_until(reached: Callable[[], object], seconds: float = LONGEST_S) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.5)


def voxels_as_in_mask(spool: Path, segmentation: Dataset) -> int:
    """Compare a segmentation with the NIfTI mask of its study, and return its number of voxels."""
    study = segmentation.StudyInstanceUID
    (mask,) = (spool / "results" / study).glob("*_mask.nii.gz")
    (series, *_), _ = read_series(sorted((spool / "studies" / study).glob("*.dcm")))
    expected = to_slices(nib.load(mask), find_slices(series), mask)
    found = highdicom.seg.Segmentation.from_dataset(segmentation).get_pixels_by_source_instance(
        [header.SOPInstanceUID for header in series.headers],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    assert np.array_equal(found, expected)
    return int(found.sum())


def test_the_mask_of_the_real_series_comes_back_into_orthanc(
    nodes: tuple[Orthanc, Program], real_series: Path, head_series: list[Dataset], tmp_path: Path
) -> None:
    orthanc, program = nodes
    orthanc.echo()
    orthanc.upload(sorted(real_series.iterdir()))
    bad = save(another(in_study(head_series, "bad"), 3, "T2"), tmp_path / "bad")
    orthanc.upload(sorted(bad.iterdir()))
    source = pydicom.dcmread(next(real_series.iterdir()))
    studies = orthanc.studies()
    jobs = [orthanc.send(study) for study in studies.values()]
    wait_until(lambda: all(orthanc.job(job) == "Success" for job in jobs))
    wait_until(lambda: len(list((program.spool / "states").glob("*.json"))) == 2)
    (segmentation,) = orthanc.segmentations(studies[source.StudyInstanceUID])
    assert segmentation.PatientID == source.PatientID
    assert voxels_as_in_mask(program.spool, segmentation) > 100
    (bad_study,) = set(studies) - {source.StudyInstanceUID}
    assert orthanc.segmentations(studies[bad_study]) == []
    assert (
        f"Study {bad_study}: {program.spool}/studies/{bad_study} holds no T1w series (series 3 (T2):" in program.log()
    )


def test_kills_of_both_at_random_moments_lose_no_study_and_no_mask(
    nodes: tuple[Orthanc, Program], head_series: list[Dataset], tmp_path: Path
) -> None:
    """Orthanc sends each study until all of it is confirmed as stored, as an archive does, and never again."""
    orthanc, program = nodes
    for number in range(STUDIES):
        orthanc.upload(sorted(save(in_study(head_series, f"P{number}"), tmp_path / str(number)).iterdir()))
    studies = orthanc.studies()
    assert len(studies) == STUDIES
    random = np.random.default_rng()
    undelivered = dict(studies)
    moments = []
    for kill in range(KILLS):
        jobs = {uid: orthanc.send(study) for uid, study in undelivered.items()}
        moments.append(float(random.uniform(0.1, 20)))
        time.sleep(moments[-1])
        # A job whose success Orthanc has not told before it is killed counts as none.
        undelivered = {uid: studies[uid] for uid, job in jobs.items() if orthanc.job(job) != "Success"}
        if kill % 2:
            orthanc.kill()
        program.kill()
        if kill % 2:
            orthanc.start()
        program.start()
    while undelivered:
        jobs = {uid: orthanc.send(study) for uid, study in undelivered.items()}
        wait_until(lambda jobs=jobs: all(orthanc.job(job) in ("Success", "Failure") for job in jobs.values()))
        undelivered = {uid: studies[uid] for uid, job in jobs.items() if orthanc.job(job) != "Success"}

    def masks() -> dict[str, int]:
        try:
            return {uid: len(orthanc.segmentations(study)) for uid, study in studies.items()}
        except URLError:
            return {}

    wait_until(lambda: all(masks().values()) and len(list((program.spool / "states").iterdir())) == STUDIES)
    assert masks() == dict.fromkeys(studies, 1), f"killed {moments} s after sending"
    found = [voxels_as_in_mask(program.spool, *orthanc.segmentations(study)) for study in studies.values()]
    assert min(found) > 0
    assert len({len(list(folder.iterdir())) for folder in (program.spool / "studies").iterdir()}) == 1
    unexpected = [file.name for file in program.spool.rglob(".*") if file.is_file()]
    assert set(unexpected) <= {".bidsignore", ".lock-all"}
    print(f"{KILLS} kills, {moments}: {STUDIES} studies, {sum(masks().values())} masks, {found} voxels")
