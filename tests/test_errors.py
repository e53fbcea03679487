"""User errors: sentences instead of tracebacks."""

from __future__ import annotations

import gzip
import subprocess
import sys
import zlib
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.errors import InputError, check_gzip, explain

REPOSITORY = Path(__file__).resolve().parents[1]


def raised(*errors: Exception) -> Exception:
    """The last error, raised from the one before, and so on."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii"
    path.touch()
    return path


def test_an_input_error_keeps_its_sentence_even_if_the_file_is_missing() -> None:
    assert explain("none.nii", InputError("scan.nii is 4D.")) == "scan.nii is 4D."


def test_an_input_error_is_found_among_wrapped_causes(file: Path) -> None:
    error = raised(InputError("scan.nii is 4D."), RuntimeError("applying transform"), RuntimeError("in a worker"))
    assert explain(file, error) == "scan.nii is 4D."


def test_an_input_error_is_found_in_an_implicit_chain(file: Path) -> None:
    with pytest.raises(RuntimeError) as caught:
        try:
            raise InputError("scan.nii is 4D.")
        except InputError:
            raise RuntimeError("applying transform")  # noqa: B904  # without "from", as libraries do
    assert explain(file, caught.value) == "scan.nii is 4D."


def test_the_innermost_reason_is_given_in_one_line(file: Path) -> None:
    error = raised(OSError("the disk\n  is full"), RuntimeError("applying transform"))
    assert explain(file, error) == f"{file} could not be processed: the disk is full"


def test_an_error_without_text_is_named_by_its_kind(file: Path) -> None:
    assert explain(file, MemoryError()) == f"{file} could not be processed: MemoryError"


def test_a_missing_file_is_reported_before_the_reader_s_message(tmp_path: Path) -> None:
    error = RuntimeError("cannot find a suitable reader for file")
    assert explain(str(tmp_path / "none.nii"), error) == f"{tmp_path / 'none.nii'} does not exist."


def test_a_file_that_no_reader_takes_is_reported_with_what_is_expected(file: Path) -> None:
    error = raised(RuntimeError("LoadImage cannot find a suitable reader for file: scan.nii.\n  Please install"))
    assert explain(file, error) == (
        f"{file} is not an image that can be read: NIfTI (.nii, .nii.gz) or MGH (.mgz) is expected."
    )


def test_a_damaged_gzip_file_is_reported_whatever_was_raised(tmp_path: Path) -> None:
    file = tmp_path / "scan.nii.gz"
    whole = gzip.compress(bytes(range(256)) * 100)
    file.write_bytes(whole)
    assert explain(file, ValueError("too short")) == f"{file} could not be processed: too short"
    file.write_bytes(whole[:-20])
    assert explain(file, ValueError("too short")).startswith(f"{file} is a damaged gzip file (Compressed file ended")
    file.write_bytes(whole[:-8] + bytes(8))  # the checksum
    assert explain(file, ValueError("too short")).startswith(f"{file} is a damaged gzip file (CRC check failed")
    file.write_bytes(whole[:20] + b"\xff" * 20 + whole[40:])
    assert explain(file, ValueError("too short")).startswith(f"{file} is a damaged gzip file (")


def test_a_circular_chain_of_errors_ends(file: Path) -> None:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert explain(file, first) == f"{file} could not be processed: second"


def program(body: str) -> subprocess.CompletedProcess[str]:
    """A program that asks for sentences, then does what ``body`` says."""
    source = f"from bundle.errors import InputError, print_input_errors_as_sentences as ask\nask()\n{body}"
    return subprocess.run([sys.executable, "-c", source], cwd=REPOSITORY, capture_output=True, text=True, check=False)


def test_a_program_ends_with_the_sentence_of_a_wrapped_input_error() -> None:
    ended = program(
        "try:\n    raise InputError('scan.nii is 4D.')\n"
        "except InputError as error:\n    raise RuntimeError('workflow') from error"
    )
    assert ended.returncode == 1
    assert ended.stderr == "Error: scan.nii is 4D.\n"
    assert ended.stdout == ""


def test_a_program_keeps_the_traceback_of_any_other_error() -> None:
    ended = program("raise ValueError('a bug')")
    assert ended.returncode == 1
    assert "Traceback (most recent call last)" in ended.stderr
    assert ended.stderr.endswith("ValueError: a bug\n")


# Damage that readers do not notice


@pytest.mark.parametrize(("name", "kind"), [("scan.nii.gz", nib.Nifti1Image), ("scan.mgz", nib.MGHImage)])
def test_a_flipped_bit_in_a_gzip_file_is_reported(name: str, kind: type, tmp_path: Path) -> None:
    """nibabel reads as many voxels as the header says, and never reaches the checksum."""
    voxels = np.random.default_rng(0).integers(0, 200, (40, 40, 40)).astype(np.int16)
    file = tmp_path / name
    nib.save(kind(voxels, np.eye(4)), file)
    content = bytearray(file.read_bytes())
    check_gzip(file)
    changed_unnoticed = 0
    for place in range(len(content) // 2, len(content) - 200, len(content) // 40):
        content[place] ^= 1
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"is a damaged gzip file \(.+\): copy or export it again\."):
            check_gzip(file)
        with suppress(OSError, EOFError, zlib.error):
            changed_unnoticed += not np.array_equal(nib.load(file).dataobj, voxels)
        content[place] ^= 1
    assert changed_unnoticed > 0, "readers notice the damage now: check_gzip is not needed any more"
    with pytest.raises(InputError, match="damaged gzip file"):
        file.write_bytes(content[:-4])
        check_gzip(file)


def test_a_gzip_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bundle.errors._MOST_READ_MIB", 2)
    file = tmp_path / "scan.nii.gz"
    file.write_bytes(gzip.compress(bytes(1 << 20)))
    check_gzip(file)
    file.write_bytes(gzip.compress(bytes(3 << 20)))
    with pytest.raises(InputError, match="unpacks to more than"):
        check_gzip(file)


def test_an_unreadable_gzip_file_is_not_called_damaged(tmp_path: Path) -> None:
    folder = tmp_path / "scan.nii.gz"
    folder.mkdir()
    assert explain(folder, RuntimeError("in a reader")) == f"{folder} could not be read: Is a directory"
