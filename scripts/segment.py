"""A batch of T1w volumes to lesion masks, tables and a report: ``python -m scripts.segment INPUT OUTPUT``."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fire
import monai
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser

from bundle import bundle_root
from bundle.errors import InputError, find_input_error
from bundle.files import remove_unfinished, write_json
from bundle.inferers.engines import EngineName
from bundle.transforms.registration import OnFailure
from bundle.volumes.batch import VolumeBatch
from bundle.volumes.inputs import VolumeInput, find_volumes
from bundle.volumes.lesion_table import RegionAtlas
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.records import file_hash, write_tables
from bundle.volumes.report import write_report

__all__ = ["segment"]

_DONE, _SOME_FAILED, _NOTHING_DONE = 0, 1, 2
# On the results; the weights have a hash of their own.
_WITHOUT_EFFECT = ("ckpt_path", "dataset_dir", "inferer::progress", "output_dir", "progress")
_SHARED = ("volumes.tsv", "lesions.tsv", "report.html")


def _parser(**overrides: Any) -> ConfigParser:
    """configs/inference.json with what was asked for in place of its own."""
    parser = ConfigParser()
    parser.read_config(str(Path(bundle_root()) / "configs" / "inference.json"))
    parser.update({name: value for name, value in overrides.items() if value is not None})
    return parser


def _versions() -> str:
    metadata = json.loads((Path(bundle_root()) / "configs" / "metadata.json").read_text())
    return f"stroke lesion bundle {metadata['version']}, monai {monai.__version__}, torch {torch.__version__}"


def _network(parser: ConfigParser) -> torch.nn.Module:
    """The config's network with its weights."""
    network: torch.nn.Module = parser.get_parsed_content("network")
    for load in parser.get_parsed_content("handlers"):
        load(Engine(lambda engine, batch: None))
    return network.eval()


def _batch(parser: ConfigParser, output: Path, workers: int, regions: str | None, **options: Any) -> VolumeBatch:
    """All that is needed for a batch, from the config."""
    atlas = None if regions is None else RegionAtlas(str(regions))
    network, inferer = _network(parser), parser.get_parsed_content("inferer")
    device = parser.get_parsed_content("device")
    asked = {
        **parser.config,
        **options,
        "trained_with": parser.get_parsed_content("trained_with"),
        "regions": regions and file_hash(Path(str(regions))),
    }
    settings = json.dumps({key: asked[key] for key in sorted(asked) if key not in _WITHOUT_EFFECT}, default=str)
    pipeline = VolumePipeline(
        parser.get_parsed_content("preprocessing"),
        output,
        threshold=parser.get_parsed_content("threshold"),
        save_probability=parser.get_parsed_content("save_probability"),
        regions=atlas,
        **options,
    )

    @torch.inference_mode()
    def infer(image: torch.Tensor) -> torch.Tensor:
        return inferer(image.to(device), network)

    return VolumeBatch(
        pipeline,
        infer,
        file_hash(Path(parser.get_parsed_content("ckpt_path"))),
        hashlib.sha256(settings.encode()).hexdigest(),
        _versions(),
        workers,
        parser.get_parsed_content("progress"),
    )


def _share(volumes: Sequence[VolumeInput], shard: str | None) -> list[VolumeInput]:
    """Every n-th volume from the i-th on, for a shard of ``"i/n"``."""
    if shard is None:
        return list(volumes)
    try:
        number, count = map(int, str(shard).split("/"))
    except ValueError:
        number, count = 0, 0
    if not 1 <= number <= count:
        raise InputError(f"--shard {shard} is none: i/n is expected, 1/4 to 4/4 for instance.")
    return list(volumes[number - 1 :: count])


def _begin_output(output: Path, alone: bool) -> None:
    """Makes the folder and the log in it.

    Raises:
        InputError: when nothing can be written there.
    """
    description = {
        "Name": "Stroke lesions",
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "stroke lesion bundle", "Description": "Not for clinical use."}],
    }
    try:
        write_json(description, output / "dataset_description.json")
        for name in _SHARED if alone else ():
            remove_unfinished(output / name)
        log = logging.FileHandler(output / "segment.log", encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"{output} cannot be written to: {error.strerror or error}.") from error
    log.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("bundle")
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _summary(records: Sequence[dict[str, Any]], asked: Sequence[VolumeInput], output: Path) -> int:
    """Says what came of it; the exit code."""
    names = {volume.name for volume in asked}
    mine = [record for record in records if record["name"] in names]
    failed = [record for record in mine if record["status"] == "failed"]
    checked = [record for record in mine if record["status"] == "done" and record["warnings"]]
    for record in failed:
        print(f"Failed: {record['error']}", file=sys.stderr)
    print(
        f"{len(mine) - len(failed)} of {len(asked)} volumes are segmented, {len(checked)} of these should be looked at."
        f"\nReport: {output / 'report.html'}\nTables: {output / 'volumes.tsv'}, {output / 'lesions.tsv'}"
        f"\nLog:    {output / 'segment.log'}\nNot for clinical use."
    )
    return _SOME_FAILED if failed or len(mine) < len(asked) else _DONE


def segment(
    source: str,
    output: str,
    threshold: float | None = None,
    smallest_lesion_ml: float = 0.025,
    probability: bool = False,
    uncertainty: bool = False,
    views: bool = False,
    flips: Sequence[Sequence[int]] | None = None,
    on_failure: OnFailure = "raise",
    bias_correction: bool = False,
    regions: str | None = None,
    weights: str | None = None,
    space: str | None = None,
    amp: bool = True,
    engine: EngineName = "auto",
    shard: str | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> None:
    """Segments stroke lesions in T1w volumes. Not for clinical use.

    Each volume gets a mask on its own grid, OUTPUT/<name>_space-orig_label-L_desc-lesion_mask.nii.gz, and a picture;
    the batch gets volumes.tsv, lesions.tsv, report.html and segment.log. A volume that cannot be used is named in one
    sentence and never stops the others. The same command goes on after a stop: what is finished is left as it is,
    unless its input, the weights or the settings have changed. Exit code 0: all segmented; 1: some failed; 2: nothing
    could be done.

    Args:
        source: a file (NIfTI, MGH), a folder with its subfolders, a BIDS dataset, a pattern such as 'scans/*.nii.gz',
            or a list of paths (.txt, or .csv or .tsv with a column "image").
        output: the folder of the results.
        threshold: probability from which a voxel is lesion; 0.5 unless given.
        smallest_lesion_ml: smaller lesions are left out; three voxels of the network are 0.024 mL.
        probability: write the probability of each voxel too.
        uncertainty: write the entropy of that probability too, 0 to 1 bit.
        views: write a page for each volume too, to look through it in three planes; the report links to it.
        flips: "[[0]]" averages with a left-right mirrored pass; twice the time.
        on_failure: of the registration to MNI space: "raise" fails the volume, "native" segments it where it lies and
            flags it.
        bias_correction: take the scanner's bias field out first (N4), for images that are bright on one side.
        regions: a label image in MNI space, of arterial territories or lobes, to name where each lesion is.
        weights: other weights than models/model.pt.
        space: "native" for weights that were trained without registration.
        amp: bfloat16 where the processor has it.
        engine: "openvino" (pip install -r requirements-openvino.txt) is faster on a CPU than "torch"; "auto" takes it
            where it is installed. "openvino_int8" is faster still, with masks that differ a little.
        shard: "i/n" takes the i-th of n parts of the volumes, for job arrays; all may share OUTPUT.
        workers: processes beside this one that read, register and write; 2, or none for a single volume.
        progress: show a bar.
    """
    # Fire makes a number of a folder that is called 2024.
    target = Path(str(output)).resolve()
    volumes = find_volumes(str(source), target)
    asked = _share(volumes, shard)
    parser = _parser(
        threshold=threshold,
        save_probability=probability,
        flips=flips,
        on_failure=on_failure,
        bias_correction=bias_correction,
        ckpt_path=weights,
        space=space,
        amp=amp,
        engine=engine,
        progress=progress,
        **{"inferer::progress": progress and len(asked) == 1},
    )
    workers = (2 if len(asked) > 1 else 0) if workers is None else workers
    options = {"smallest_lesion_ml": smallest_lesion_ml, "save_uncertainty": uncertainty, "save_view": views}
    try:
        batch = _batch(parser, target, workers, regions, **options)
    except (RuntimeError, TypeError, ValueError) as error:  # MONAI makes a RuntimeError of what a component raises
        if find_input_error(error) is None:
            reason = " ".join(str(error.__cause__ or error).split())
            raise InputError(f"An option cannot be used: {reason}") from error
        raise
    _begin_output(target, alone=shard is None)
    logging.getLogger("bundle").info("Network: %s", parser.get_parsed_content("inferer").engine.name)
    try:
        batch.run(asked)
    except KeyboardInterrupt:
        print("Stopped: the same command goes on from here.", file=sys.stderr)
    records = batch.records(volumes)
    try:
        write_tables(records, target)
        write_report(records, target)
    except OSError as error:
        print(f"Error: the tables in {target} could not be written: {error.strerror or error}.", file=sys.stderr)
        raise SystemExit(_SOME_FAILED) from error
    raise SystemExit(_summary(records, asked, target))


if __name__ == "__main__":
    try:
        fire.Fire(segment)
    except Exception as error:
        if (told := find_input_error(error)) is None:
            raise
        print(f"Error: {told}", file=sys.stderr)
        raise SystemExit(_NOTHING_DONE) from None
