"""Series made from the real one with pydicom: other scans of a study, and broken series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    generate_uid,
)

FACTOR = 4


def thin(folder: Path) -> list[Dataset]:
    """Return every fourth slice, row and column of a series, sorted by slice; the voxels keep their positions."""
    slices = sorted((pydicom.dcmread(file) for file in folder.iterdir()), key=lambda one: int(one.InstanceNumber))
    thinned = slices[::FACTOR]
    for number, one in enumerate(thinned, start=1):
        one.PixelData = np.ascontiguousarray(one.pixel_array[::FACTOR, ::FACTOR]).tobytes()
        one.Rows, one.Columns = one.Rows // FACTOR, one.Columns // FACTOR
        one.PixelSpacing = [FACTOR * float(size) for size in one.PixelSpacing]
        one.SliceThickness = FACTOR * float(one.SliceThickness)
        one.InstanceNumber = number
    return thinned


def save(series: Iterable[Dataset], folder: Path, name: str = "{:03}.dcm") -> Path:
    """Write instances as files that are named by their index in the list."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, one in enumerate(series):
        one.save_as(folder / name.format(number))
    return folder


def another(series: Sequence[Dataset], number: int, description: str, **changes: object) -> list[Dataset]:
    """Return a copy of a series as another one of its study, with new UIDs; a change to None removes an attribute."""
    copies = deepcopy(list(series))
    uid = generate_uid()
    for one in copies:
        one.SeriesInstanceUID, one.SeriesNumber, one.SeriesDescription = uid, number, description
        one.ProtocolName = description
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        for keyword, value in changes.items():
            if value is None:
                one.pop(keyword, None)
            else:
                setattr(one, keyword, value)
    return copies


def in_study(series: Sequence[Dataset], patient: str) -> list[Dataset]:
    """Return a copy of a series as that of another patient."""
    study_uid = generate_uid()
    copies = another(series, int(series[0].SeriesNumber), series[0].SeriesDescription)
    for one in copies:
        one.StudyInstanceUID, one.PatientID = study_uid, patient
    return copies


def turned(one: Dataset) -> Dataset:
    """Turn a slice across the others: its rows run along their normal."""
    row, column = np.array(one.ImageOrientationPatient, dtype=float).reshape(2, 3)
    one.ImageOrientationPatient = [*np.cross(row, column).round(12).tolist(), *column.tolist()]
    return one


def enhanced(series: Sequence[Dataset]) -> Dataset:
    """Return a series as one multi-frame object, its frames in the order of the list."""
    first = series[0]
    whole = deepcopy(first)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        whole.pop(keyword, None)
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    whole.NumberOfFrames = len(series)
    measures, orientation = Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    shared = Dataset()
    shared.PixelMeasuresSequence = DicomSequence([measures])
    shared.PlaneOrientationSequence = DicomSequence([orientation])
    whole.SharedFunctionalGroupsSequence = DicomSequence([shared])
    frames = []
    for one in series:
        frame, position, content = Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = one.ImagePositionPatient
        number = int(one.InstanceNumber)
        content.DimensionIndexValues, content.StackID, content.InStackPositionNumber = [1, number], "1", number
        frame.PlanePositionSequence = DicomSequence([position])
        frame.FrameContentSequence = DicomSequence([content])
        frames.append(frame)
    whole.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    indices = []
    for pointer in ("StackID", "InStackPositionNumber"):
        index = Dataset()
        index.DimensionIndexPointer = pydicom.datadict.tag_for_keyword(pointer)
        index.FunctionalGroupPointer = pydicom.datadict.tag_for_keyword("FrameContentSequence")
        indices.append(index)
    whole.DimensionIndexSequence = DicomSequence(indices)
    whole.PixelData = b"".join(one.PixelData for one in series)
    return whole


def _compressed(syntax: UID) -> Callable[[Dataset], None]:
    return lambda one: one.compress(syntax)


def _jpeg_2000(one: Dataset) -> None:
    content = BytesIO()
    Image.fromarray(one.pixel_array).save(content, "JPEG2000", irreversible=False, no_jp2=True)
    one.PixelData = encapsulate([content.getvalue()])
    one["PixelData"].VR = "OB"
    one.file_meta.TransferSyntaxUID = JPEG2000Lossless


def _deflated(one: Dataset) -> None:
    one.file_meta.TransferSyntaxUID = pydicom.uid.DeflatedExplicitVRLittleEndian


def without_preamble(file: Path, keep_meta: bool = False) -> None:
    """Cut the preamble off a file, and the group of its meta information, as old archives and some exports do."""
    content = file.read_bytes()
    length = int.from_bytes(content[140:144], "little")
    file.write_bytes(content[132 if keep_meta else 144 + length :])


COMPRESSED: dict[str, Callable[[Dataset], None]] = {
    "RLE": _compressed(pydicom.uid.RLELossless),
    "JPEG-LS": _compressed(pydicom.uid.JPEGLSLossless),
    "JPEG 2000": _jpeg_2000,
    "deflated": _deflated,
}
"""Lossless compressions of an instance."""


def save_implicit(one: Dataset, file: Path) -> None:
    """Save an instance with implicit VRs, the default on the network."""
    one.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    pydicom.dcmwrite(file, one, implicit_vr=True, little_endian=True, force_encoding=True)


def save_big_endian(one: Dataset, file: Path) -> None:
    """Save an instance with big-endian numbers, without private elements, whose bytes pydicom cannot swap."""
    assert one.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    one.remove_private_tags()
    one.PixelData = one.pixel_array.astype(">u2").tobytes()
    one.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    pydicom.dcmwrite(file, one, implicit_vr=False, little_endian=False, force_encoding=True)
