"""Datalists of images and their labels, checked before training and evaluation."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from monai.data import partition_dataset

from bundle.bids import find_subject
from bundle.errors import InputError, explain, missing_content
from bundle.files import IMAGE_SUFFIXES, check_readable, images_below, read_json, refuse_no_image, stem
from bundle.headers import check_same_grid, open_image
from bundle.lesions import lesion_voxels

__all__ = ["check_datalist", "find_images", "load_datalist", "split_datalist"]


def find_images(source: str | Path | Sequence[str | Path], outside: str | Path | None = None) -> list[str]:
    """Return the images in a folder and its subfolders, sorted, or the one image, as :func:`images_below` finds them.

    Args:
        source: a folder or an image, or several of them.
        outside: a folder to leave out, because results are written there.

    Raises:
        InputError: when the source does not exist or has no image in it, or two images differ only in their suffix, so
            that their results would have the same name.
    """
    if not isinstance(source, str | Path):
        return [file for one in source for file in find_images(one, outside)]
    path = Path(source)
    if not path.is_dir():
        if sentence := missing_content(path):
            expected = f"a folder of T1w images ({', '.join(IMAGE_SUFFIXES)}) is expected."
            raise InputError(f"{sentence.removesuffix('.')}: {expected}" if not path.exists() else sentence)
        return [str(path)]
    if not (found := sorted(images_below(path, None if outside is None else Path(outside)))):
        raise refuse_no_image(path, outside, f"files ending in {', '.join(IMAGE_SUFFIXES)}")
    names = Counter(file.parent / stem(file) for file in found)
    if doubled := [str(name) for name, count in names.items() if count > 1]:
        raise InputError(f"{doubled[0]} exists with several suffixes: one image of that name is expected.")
    return [str(file) for file in found]


def _from_folder(folder: Path) -> list[dict[str, str]]:
    """Return the pairs of ``images/`` and ``labels/`` by name; a label may end in _label, _lesion or _mask."""
    labels: dict[str, str] = {}
    images, masks = find_images(folder / "images"), find_images(folder / "labels")
    check_readable([Path(file) for file in (*images, *masks)])
    for file in masks:
        name = stem(file)
        for ending in ("_label", "_lesion", "_mask"):
            name = name.removesuffix(ending)
        if name in labels:
            raise InputError(f"{labels[name]} and {file} are both labels of {name}: one label per image is expected.")
        labels[name] = file
    names = [stem(file) for file in images]
    lonely = sorted(set(names) - set(labels)) + sorted(set(labels) - set(names))
    if lonely:
        raise InputError(
            f"{folder} has {len(lonely)} images or labels without a partner of the same name: {', '.join(lonely[:5])}"
            f"{' ...' if len(lonely) > 5 else ''}."
        )
    return [{"image": file, "label": labels[name]} for file, name in zip(images, names, strict=True)]


def load_datalist(source: str | Path, key: str = "training", base_dir: str | Path | None = None) -> list[dict]:
    """Return a list of ``{"image": file, "label": file}``.

    Args:
        source: a MONAI (Decathlon) datalist in JSON, or a folder with ``images/`` and ``labels/``.
        key: section of the JSON datalist; not used for a folder.
        base_dir: folder that relative paths in the JSON start from; that of the JSON if None.

    Raises:
        InputError: when the source is neither of them, or the section is missing or empty.
    """
    path = Path(source)
    if not path.exists():
        raise InputError(f"{path} does not exist: a datalist in JSON or a folder with images/ and labels/ is expected.")
    if path.is_dir():
        return _from_folder(path)
    try:
        sections = read_json(path)
    except InputError as error:
        raise InputError(str(error).replace("is not JSON", "is not a datalist in JSON")) from error
    if not isinstance(sections, dict) or not sections.get(key):
        present = ", ".join(sections) if isinstance(sections, dict) else "none"
        raise InputError(f"{path} has no cases under {key!r}; its sections are: {present}.")
    cases, folder = sections[key], Path(path.parent if base_dir is None else base_dir)
    if not isinstance(cases, list) or not all(isinstance(case, dict) for case in cases):
        raise InputError(f'{path}: {key!r} must be a list of cases like {{"image": file, "label": file}}.')
    for number, case in enumerate(cases, start=1):
        for part in ("image", "label"):
            if part in case and not (isinstance(case[part], str) and case[part].strip() and "\0" not in case[part]):
                raise InputError(
                    f"{path}: case {number} of {key!r} has {json.dumps(case[part])} as its {part}: the path of one "
                    "file is expected."
                )
    return [
        {**case, **{part: os.path.normpath(folder / case[part]) for part in ("image", "label") if part in case}}
        for case in cases
    ]


def _problems(item: dict, allow_empty_labels: bool) -> str | None:
    """Return a sentence on what is wrong with a case, or None."""
    missing = [sentence for key in ("image", "label") if (sentence := missing_content(item[key]))]
    if missing:
        return " ".join(missing)
    try:
        image, label = open_image(item["image"]), open_image(item["label"])
        check_same_grid(item["label"], label, item["image"], image)
        lesion = lesion_voxels(np.asanyarray(label.dataobj), item["label"])
    except Exception as error:  # whatever a damaged file makes a reader raise
        return explain(item["image"], error, item["label"])
    if not allow_empty_labels and not lesion.any():
        return f"{item['label']} has no lesion voxel: set allow_empty_labels if that is intended."
    return None


def check_datalist(data: Sequence[dict], allow_empty_labels: bool = False) -> list[dict]:
    """Return the datalist if every case in it can be used.

    Args:
        data: items with the files ``image`` and ``label``.
        allow_empty_labels: accept cases without lesion.

    Raises:
        InputError: a sentence for every case without image or label, missing or damaged file, duplicated image, label
            without lesion voxels, and label on another grid than its image.
    """
    problems = [
        f"Case {number} has no {key!r}: an image and its label are expected."
        for number, item in enumerate(data, start=1)
        for key in ("image", "label")
        if key not in item
    ]
    whole = [item for item in data if "image" in item and "label" in item]
    counts = Counter(os.path.realpath(item["image"]) for item in whole)
    problems += [f"{image} is listed {count} times: once is expected." for image, count in counts.items() if count > 1]
    problems += [problem for item in whole if (problem := _problems(item, allow_empty_labels))]
    if problems:
        raise InputError("\n".join([f"{len(problems)} problems in the datalist.", *problems]))
    return list(data)


def _subject(item: dict) -> str:
    """Return the subject of a case: its ``subject`` key, the ``sub-<label>`` of a BIDS path, or the image's path."""
    if "subject" in item:
        return str(item["subject"])
    return find_subject(item["image"]) or str(item["image"])


def split_datalist(data: Sequence[dict], val_fraction: float, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Return training and validation cases, the same for the same seed; no subject is in both.

    Args:
        data: the cases; their subject is the key ``subject`` or the ``sub-<label>`` of a BIDS path.
        val_fraction: fraction of the subjects to validate on, from 0 (none, as in the thesis) to below 1; above 0, at
            least one subject.
        seed: of the shuffle.

    Raises:
        InputError: when the fraction is out of range, or there is only one subject to split.
    """
    if not 0 <= val_fraction < 1:
        raise InputError(f"val_fraction must be 0 to below 1, got {val_fraction}.")
    if val_fraction == 0:
        return list(data), []
    subjects = sorted({_subject(item) for item in data})
    if len(subjects) < 2:
        raise InputError(f"val_fraction {val_fraction} needs two subjects or more, the datalist has one: set it to 0.")
    count = min(max(round(val_fraction * len(subjects)), 1), len(subjects) - 1)
    chosen = set(partition_dataset(subjects, ratios=[len(subjects) - count, count], shuffle=True, seed=seed)[1])
    training = [item for item in data if _subject(item) not in chosen]
    return training, [item for item in data if _subject(item) in chosen]
