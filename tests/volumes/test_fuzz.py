"""Headers of any kind and files with random damage: a volume that can be used, or one sentence; no crash, no hang."""

from __future__ import annotations

import gzip
import os
import time
from collections import Counter
from functools import cache
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bundle.errors import InputError, explain
from bundle.headers import check_header
from bundle.transforms import VolumePreprocessing
from bundle.volumes import VolumeInput, VolumePipeline
from tests.conftest import ellipsoid
from tests.test_checks import with_header

MUTATIONS = int(os.environ.get("FUZZ_MUTATIONS", "400"))
"""``make test-fuzz`` sets it to 10,000."""
KINDS = 8
"""Three of images here; in test_fuzz_others.py labels, datalists, model.json, records and DICOM."""
SLOWEST_SECONDS = 20.0
HEADER = 352


@cache
def head_file() -> bytes:
    """An uncompressed NIfTI of a round head with a brighter inside, 30 voxels of 3 mm a side."""
    image = np.zeros((30, 30, 30), dtype=np.int16)
    image[ellipsoid(image.shape, (15, 15, 15), (12, 13, 12))] = 70
    image[ellipsoid(image.shape, (15, 15, 15), (9, 10, 9))] = 110
    image += np.where(image > 0, np.random.default_rng(0).integers(-3, 4, image.shape), 0).astype(np.int16)
    return nib.Nifti1Image(image, np.diag([3.0, 3.0, 3.0, 1.0])).to_bytes()


@pytest.fixture(scope="module")
def whole() -> bytes:
    return head_file()


def damaged(content: bytes, random: np.random.Generator, first: int, last: int) -> bytes:
    """One to four bytes between two places set at random; now and then cut off there, or with bytes in between."""
    changed = bytearray(content)
    for place in random.integers(first, last, random.integers(1, 5)):
        changed[place] = random.integers(256)
    place = int(random.integers(first, last))
    match random.integers(8):
        case 0:
            return bytes(changed[:place])
        case 1:
            return bytes(changed[:place]) + random.bytes(int(random.integers(1, 64))) + bytes(changed[place:])
    return bytes(changed)


def outcome(pipeline: VolumePipeline, file: Path, expected: torch.Tensor | None = None) -> str:
    """Whether it is "used", finite and as expected, or else the sentence without the file's name."""
    try:
        prepared = pipeline.prepare(VolumeInput(file, "scan"))
    except Exception as error:
        sentence = explain(file, error)
        assert sentence.startswith(str(file))
        assert "\n" not in sentence
        return sentence.removeprefix(str(file))
    assert bool(prepared.image.isfinite().all())
    assert expected is None or torch.equal(prepared.image.as_tensor(), expected)
    return "used"


# nibabel computes with the numbers of a damaged header before it refuses them.
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", ["header", "header in gzip", "gzip stream"])
def test_random_damage_gives_a_volume_or_a_sentence(kind: str, whole: bytes, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    pipeline = VolumePipeline(VolumePreprocessing("image", spacing_mm=3.0, slice_size=32), tmp_path / "results")
    file = tmp_path / ("scan.nii" if kind == "header" else "scan.nii.gz")
    compressed = gzip.compress(whole, mtime=0)
    # Data protected by a checksum is used unchanged, or not at all.
    file.write_bytes(whole if kind == "header" else compressed)
    intact = pipeline.prepare(VolumeInput(file, "scan")).image.as_tensor()
    outcomes: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(-(-MUTATIONS // KINDS)):
        if kind == "gzip stream":
            content = damaged(compressed, random, 0, len(compressed))
        else:
            content = damaged(whole, random, 0, HEADER)
            content = content if kind == "header" else gzip.compress(content, 1, mtime=0)
        file.write_bytes(content)
        begin = time.perf_counter()
        found = outcome(pipeline, file, intact if kind == "gzip stream" else None)
        slowest = max(slowest, time.perf_counter() - begin)
        outcomes[found if found == "used" else found.split(":")[0].split("(")[0]] += 1
    print(f"{kind}: slowest {slowest:.1f} s, {outcomes.most_common()}")
    assert slowest < SLOWEST_SECONDS
    assert outcomes["used"] < sum(outcomes.values())
    assert outcomes["used"] > 0 or kind == "gzip stream"


axes = st.integers(1, 40)
sizes_mm = st.floats(0.125, 30, width=32)


@given(
    shape=st.lists(axes, min_size=2, max_size=5),
    spacing_mm=st.tuples(sizes_mm, sizes_mm, sizes_mm),
    codes=st.tuples(st.integers(0, 4), st.integers(0, 4)),
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_header_passes_when_it_says_what_a_head_s_says(
    shape: list[int], spacing_mm: tuple[float, float, float], codes: tuple[int, int], tmp_path: Path
) -> None:
    file = tmp_path / "scan.nii"
    image = nib.Nifti1Image(np.zeros(shape, dtype=np.uint8), np.diag([*spacing_mm, 1.0]))
    nib.save(image, file)
    with_header(file, sform_code=codes[0], qform_code=codes[1])
    extents_mm = np.multiply(shape[:3], spacing_mm[: len(shape)])
    is_head = (
        len(shape) >= 3
        and np.prod(shape[3:]) == 1
        and min(shape[:3]) >= 8
        and max(spacing_mm) <= 6
        and extents_mm.min() >= 80
        and any(codes)
    )
    if is_head:
        check_header(file)
    else:
        with pytest.raises(InputError) as error:
            check_header(file)
        assert str(error.value).startswith(str(file))
