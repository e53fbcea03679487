"""Reading of DICOM headers whose values do not follow the standard: files are never changed, only what is read."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pydicom
from pydicom.charset import convert_encodings, decode_bytes, default_encoding, python_encoding
from pydicom.datadict import keyword_for_tag
from pydicom.dataset import Dataset

__all__ = ["PATIENT_AND_STUDY", "Patient", "differences", "drop_unreadable", "patient_and_study", "read_dicom"]

# What does not follow the standard is reported in one sentence per series, not in a warning for each slice.
warnings.filterwarnings("ignore", category=UserWarning, module="pydicom")

_ESCAPE = b"\x1b"
_ESCAPED = sorted({code for name, code in python_encoding.items() if name.startswith("ISO 2022")})
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_TIME = re.compile(r"([01]\d|2[0-3])(?::?([0-5]\d)(?::?([0-5]\d|60)(?:(\.\d{1,6})\d*)?)?)?")
_SEXES = {**{sex: sex for sex in "MFO"}, "MALE": "M", "FEMALE": "F", "OTHER": "O"}


def read_dicom(file: Path, **options: Any) -> Dataset:
    """Read a DICOM file, also one without preamble.

    Args:
        file: the file.
        options: those of :func:`pydicom.dcmread`.
    """
    return pydicom.dcmread(file, force=True, **options)


def drop_unreadable(dataset: Dataset) -> list[str]:
    """Remove the elements that cannot be decoded, and return their keywords."""
    dropped = []
    for tag in list(dataset.keys()):
        try:
            dataset[tag]
        except Exception:  # pydicom raises errors of many kinds
            dropped.append(keyword_for_tag(tag) or str(tag))
            del dataset[tag]
    return dropped


def _date(text: str) -> str:
    digits = re.sub(r"[-./: ]", "", text)
    try:
        return digits if len(digits) == 8 and datetime.strptime(digits, "%Y%m%d") else ""
    except ValueError:
        return ""


def _time(text: str) -> str:
    parts = _TIME.fullmatch(text)
    return "".join(part or "" for part in parts.groups()) if parts else ""


def _sex(text: str) -> str:
    return _SEXES.get(text.upper(), "")


def _line(length: int, text: str) -> str:
    return text.replace("\\", " ")[:length].rstrip()


def _person(text: str) -> str:
    """Return at most three groups of at most five components, each group of at most 64 characters."""
    groups = (group.split("^") for group in text.replace("\\", " ").split("=")[:3])
    return "=".join("^".join([*parts[:4], " ".join(parts[4:])][: len(parts)])[:64] for parts in groups)


PATIENT_AND_STUDY: dict[str, Callable[[str], str]] = {
    "PatientName": _person,
    "PatientID": partial(_line, 64),
    "PatientBirthDate": _date,
    "PatientSex": _sex,
    "StudyDate": _date,
    "StudyTime": _time,
    "StudyID": partial(_line, 16),
    "AccessionNumber": partial(_line, 16),
    "ReferringPhysicianName": _person,
}
"""What every object must say of patient and study, each with the function that makes it follow the standard."""


def _decode(value: bytes, encodings: list[str]) -> tuple[str, bool]:
    """Return the text, and whether its character set had to be guessed."""
    if _ESCAPE in value or encodings != [default_encoding]:
        known = [*encodings, *(code for code in _ESCAPED if code not in encodings)] if _ESCAPE in value else encodings
        text = decode_bytes(value, known, set(b"^=\\"))
        if "\ufffd" not in text:
            return text, False
    try:
        return value.decode("utf-8"), not value.isascii()
    except UnicodeDecodeError:
        return value.decode("latin-1"), True


def patient_and_study(header: Dataset) -> tuple[Dataset, list[str]]:
    """Return patient and study for an object made from an instance, in UTF-8, and the attributes that had to change.

    Dates, times and the sex are normalised or, where they mean nothing, emptied; texts that are too long are cut. What
    is missing is empty.

    Args:
        header: of the instance, as read from its file.
    """
    found, changed = Dataset(), list[str]()
    found.SpecificCharacterSet = "ISO_IR 192"
    encodings = convert_encodings(header.get("SpecificCharacterSet"))
    for keyword, tidy in PATIENT_AND_STUDY.items():
        value = header.get_item(keyword).value if keyword in header else None
        text, guessed = _decode(value, encodings) if isinstance(value, bytes) else (str(value or ""), False)
        given = text.strip(" \0")
        tidied = tidy(_CONTROL.sub("", given).strip())
        setattr(found, keyword, tidied)
        if guessed or tidied != given:
            changed.append(keyword)
    return found, changed


class Patient(NamedTuple):
    """The values that tell patients apart, ignoring case, padding and punctuation; empty if the header has none.

    Args:
        id: the PatientID.
        name: letters and digits of the PatientName, in the first of its scripts.
        characters: the character set of both.
    """

    id: str
    name: str
    characters: str

    @classmethod
    def of(cls, header: Dataset) -> Patient:
        """Return the patient of an instance, from its header as read from its file."""
        found, _ = patient_and_study(header)
        number, name = str(found.PatientID).casefold(), str(found.PatientName).casefold()
        alphabetic = next(filter(None, name.split("=")), "")
        return cls(number, "".join(filter(str.isalnum, alphabetic)), str(header.get("SpecificCharacterSet") or ""))


def differences(patients: Collection[Patient]) -> list[str]:
    """Return the keywords in which patients differ; an empty value differs from none.

    Where instances declare different character sets, one of which may be wrong, only ASCII is compared.
    """
    of_one_set = len({patient.characters for patient in patients}) == 1
    found = {"PatientID": {each.id for each in patients}, "PatientName": {each.name for each in patients}}
    if not of_one_set:
        found = {name: {text.encode("ascii", "ignore").decode() for text in texts} for name, texts in found.items()}
    return [keyword for keyword, texts in found.items() if len(texts - {""}) > 1]
