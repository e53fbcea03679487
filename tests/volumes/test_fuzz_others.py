"""Labels, datalists, settings, records and DICOM values with random damage: used, or a sentence."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from bundle.data import check_datalist, load_datalist
from bundle.errors import InputError
from bundle.files import bundle_root
from bundle.volumes import VolumeInput
from bundle.volumes.ledger import Ledger
from bundle.volumes.lesion_table import VolumeLesion
from bundle.volumes.report import write_report
from bundle.volumes.tables import write_tables
from bundle.weights import read_settings
from tests.volumes.test_fuzz import HEADER, KINDS, MUTATIONS, SLOWEST_SECONDS, damaged, head_file


def told(read: Callable[[], object], *names: Path) -> str:
    """Whether it is "used", or else the sentences without the files' names."""
    begin = time.perf_counter()
    try:
        read()
    except InputError as error:
        sentence = str(error)
        for name in names:
            sentence = sentence.replace(str(name), "FILE")
        assert "Traceback" not in sentence
        assert "FILE" in sentence or "Case" in sentence
        return sentence.split(":")[0].split("(")[0][:60]
    finally:
        assert time.perf_counter() - begin < SLOWEST_SECONDS
    return "used"


VALUES = (None, True, -1, 0, 10**30, 0.5, float("nan"), "", "2024", "a\0b", [], [[]], ["a"], {}, {"a": 1})


def changed(content: Any, random: np.random.Generator) -> bytes:
    """JSON in which one value anywhere is another one or gone, or a byte is changed."""
    text = json.dumps(content).encode()
    if random.random() < 0.3:
        return damaged(text, random, 0, len(text))
    content = json.loads(text)
    places = [(content, key) for key in (content if isinstance(content, dict) else range(len(content)))]
    for parent, key in places:
        if isinstance(parent[key], dict | list):
            inner = parent[key]
            places += [(inner, deeper) for deeper in (inner if isinstance(inner, dict) else range(len(inner)))]
    parent, key = places[random.integers(len(places))]
    if random.random() < 0.2:
        del parent[key]
    else:
        parent[key] = VALUES[random.integers(len(VALUES))]
    return json.dumps(content).encode()


def check_counts(outcomes: Counter[str]) -> None:
    print(outcomes.most_common())
    assert outcomes["used"] < sum(outcomes.values())


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_damaged_labels_are_masks_or_named(tmp_path: Path) -> None:
    random, outcomes = np.random.default_rng(1), Counter[str]()
    image, label = tmp_path / "image.nii", tmp_path / "label.nii"
    image.write_bytes(head_file())
    mask = nib.Nifti1Image((np.asarray(nib.load(image).dataobj) > 90).astype(np.int16), nib.load(image).affine)
    nib.save(mask, label)
    content = label.read_bytes()
    for number in range(-(-MUTATIONS // KINDS)):
        label.write_bytes(damaged(content, random, *((0, HEADER) if number % 2 else (HEADER, len(content)))))
        outcomes[told(lambda: check_datalist([{"image": str(image), "label": str(label)}]), image, label)] += 1
    check_counts(outcomes)


def test_damaged_datalists_are_read_or_named(tmp_path: Path) -> None:
    random, outcomes = np.random.default_rng(2), Counter[str]()
    for name in ("a.nii", "b.nii", "m.nii"):
        (tmp_path / name).write_bytes(head_file())
    cases = [{"image": f"{name}.nii", "label": "m.nii", "subject": name} for name in "ab"]
    file = tmp_path / "datalist.json"
    for _ in range(-(-MUTATIONS // KINDS)):
        file.write_bytes(changed({"name": "cohort", "training": cases, "test": cases[:1]}, random))
        outcomes[told(lambda: check_datalist(load_datalist(file)), tmp_path)] += 1
    check_counts(outcomes)


def test_damaged_settings_of_weights_are_read_or_named(tmp_path: Path) -> None:
    random, outcomes = np.random.default_rng(3), Counter[str]()
    settings = json.loads((Path(bundle_root()) / "models" / "model.json").read_text())
    weights = tmp_path / "model.pt"
    weights.touch()
    for _ in range(-(-MUTATIONS // KINDS)):
        weights.with_suffix(".json").write_bytes(changed(settings, random))
        outcomes[told(lambda: read_settings(weights), weights)] += 1
    check_counts(outcomes)


def test_damaged_records_are_done_again_and_never_stop_the_tables(tmp_path: Path) -> None:
    random, outcomes = np.random.default_rng(4), Counter[str]()
    volume, key = VolumeInput(tmp_path / "a.nii", "a"), {"input": "", "weights": "w", "settings": "s"}
    lesion = VolumeLesion(1, 2.5, 1.0, 2.0, 3.0, "left", "", 0.8, 0.3)._asdict()
    found = {"lesions": [lesion], "volume_ml": 2.5, "uncertainty": 0.2, "similarity": 0.8, "warnings": ["look"]}
    found |= {"files": [], "timing": {"load": 1.0}, "seconds": 1.0, "peak_memory_mb": 10.0}
    Ledger(tmp_path, "w", "s", "0").done(volume, key, found)
    file = Ledger(tmp_path, "w", "s", "0").path(volume)
    record = json.loads(file.read_text())
    for _ in range(-(-MUTATIONS // KINDS)):
        file.write_bytes(changed(record, random))
        ledger = Ledger(tmp_path, "w", "s", "0")
        open_volumes = list(ledger.unfinished([volume], lambda: None))
        records = ledger.records([volume])
        write_tables(records, tmp_path)
        write_report(records, tmp_path)
        assert open_volumes or records
        outcomes["done again" if open_volumes else "used"] += 1
    assert not list(tmp_path.glob(".*"))
    check_counts(outcomes)


def test_damaged_values_of_dicom_give_a_volume_or_a_sentence(tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="the DICOM packages are not installed: requirements/dicom.txt")
    from bundle.dicom.files import find_dicom_files
    from bundle.dicom.source import find_studies

    random = np.random.default_rng(5)
    series = written_series(pydicom, tmp_path / "study")
    file = series[3]
    elements = [element.tag for element in pydicom.dcmread(file) if element.VR not in ("SQ", "OW")]
    content = file.read_bytes()
    for _ in range(-(-MUTATIONS // KINDS)):
        one = pydicom.dcmread(file)
        tag = elements[random.integers(len(elements))]
        kept = one[tag]
        value = (b"", b"\xff\xfe", b"1950", b"1\\2", b"nan", b"-1", b"9" * 70, "Müller".encode())[random.integers(8)]
        one[tag] = pydicom.dataelem.RawDataElement(kept.tag, kept.VR, len(value), value, 0, False, True)
        file.write_bytes(encoded(one, content, random))
        begin = time.perf_counter()
        files = find_dicom_files(tmp_path / "study", tmp_path / "out")
        try:
            volumes, lines = find_studies(files, tmp_path / "study", tmp_path / "out")
        except InputError as error:
            assert str(error)
        else:
            assert volumes
            for volume in volumes if not lines else ():  # no series can be used
                with pytest.raises(InputError):
                    volume.prepare_source()
        assert time.perf_counter() - begin < SLOWEST_SECONDS
        file.write_bytes(content)
    assert not (tmp_path / "out").exists()


def encoded(dataset: Any, otherwise: bytes, random: np.random.Generator) -> bytes:
    """The file of a dataset, or damage of another's bytes where pydicom does not write such a value."""
    stream = BytesIO()
    try:
        dataset.save_as(stream)
    except Exception:  # what cannot be written cannot be received either
        return damaged(otherwise, random, 132, len(otherwise))
    return stream.getvalue()


def written_series(pydicom: Any, folder: Path) -> list[Path]:
    """Eight slices of 16 x 16 of a T1w series."""
    folder.mkdir()
    study, series = (pydicom.uid.generate_uid() for _ in range(2))
    for number in range(8):
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage
        meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        one = pydicom.dataset.FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
        one.SOPClassUID, one.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, study
        one.Modality, one.SeriesDescription, one.ProtocolName = "MR", "T1 MPRAGE", "T1 MPRAGE"
        one.PatientName, one.PatientID, one.PatientBirthDate = "Doe^Jane", "1", "19500101"
        one.StudyDate, one.StudyTime, one.SeriesNumber, one.InstanceNumber = "20240101", "120000", 2, number + 1
        one.SpecificCharacterSet, one.ImageType = "ISO_IR 192", ["ORIGINAL", "PRIMARY", "M"]
        one.ImageOrientationPatient, one.ImagePositionPatient = [1, 0, 0, 0, 1, 0], [0, 0, 12 * number]
        one.PixelSpacing, one.SliceThickness, one.Rows, one.Columns = [12, 12], 12, 16, 16
        one.EchoTime, one.RepetitionTime, one.InversionTime, one.FlipAngle = 3, 2000, 900, 9
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
        one.BitsAllocated, one.BitsStored, one.HighBit = 16, 16, 15
        one.PixelData = np.random.default_rng(number).integers(0, 900, (16, 16), dtype=np.uint16).tobytes()
        one.save_as(folder / f"{number}.dcm")
    return sorted(folder.iterdir())
