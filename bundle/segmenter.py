"""From the options of a command to network, pipeline and batch.

``scripts.segment``, the DICOM receiver, the machines of a Ray cluster and ``scripts.export`` use it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import monai
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser

from bundle.dicom.files import check_installed, find_dicom_files
from bundle.early_registration import EarlyRegistration
from bundle.errors import InputError, find_input_error
from bundle.files import bundle_root
from bundle.options import SegmentOptions
from bundle.processes import keep_to_quota
from bundle.volumes.batch import VolumeBatch
from bundle.volumes.cluster import ClusterBatch, connected
from bundle.volumes.inputs import Algorithm, VolumeInput, file_hash, find_volumes, take_shard
from bundle.volumes.ledger import Ledger
from bundle.volumes.lesion_table import RegionAtlas
from bundle.volumes.output import begin_output, describe_timing, report
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.sources import folders_left_out

__all__ = ["batch_on_machine", "inference_config", "load_network", "make_batch", "run"]

# On the results; the weights have their own hash.
_WITHOUT_EFFECT = ("ckpt_path", "dataset_dir", "inferer::progress", "output_dir", "progress")


def inference_config(options: SegmentOptions, **further: Any) -> ConfigParser:
    """Return configs/inference.json with the options and further values in place of its own."""
    parser = ConfigParser(ConfigParser.load_config_file(f"{bundle_root()}/configs/inference.json"))
    names = ("threshold", "smallest_lesion_ml", "tta_flips", "on_failure", "bias_correction", "space", "amp")
    values = {name: getattr(options, name) for name in (*names, "backend")}
    values |= {"save_probability": options.probability, "ckpt_path": options.weights, **further}
    parser.update({name: value for name, value in values.items() if value is not None})
    return parser


def settings_hash(options: SegmentOptions, parser: ConfigParser) -> str:
    """Return a hash of all that the results depend on besides input, weights and software.

    Args:
        options: those of the command.
        parser: the result of :func:`inference_config`.
    """
    settings = {name: value for name, value in parser.config.items() if name not in _WITHOUT_EFFECT}
    # Files enter by their content; the chosen series is part of the input.
    by_content = replace(
        options, weights=None, series=None, regions=options.regions and file_hash(Path(options.regions))
    )
    asked = {**settings, "options": asdict(by_content), "trained_with": parser.get_parsed_content("trained_with")}
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def load_network(parser: ConfigParser) -> torch.nn.Module:
    """Return the network of a config with its weights."""
    network: torch.nn.Module = parser.get_parsed_content("network")
    for load in parser.get_parsed_content("handlers"):
        load(Engine(lambda engine, batch: None))
    return network.eval()


def _batch(parser: ConfigParser, options: SegmentOptions, output: Path, workers: int) -> VolumeBatch:
    regions = None if options.regions is None else RegionAtlas(options.regions)
    network, get = load_network(parser), parser.get_parsed_content
    inferer, device, threshold = map(get, ("inferer", "device", "threshold"))
    weights = file_hash(Path(get("ckpt_path")))
    version = json.loads((Path(bundle_root()) / "configs" / "metadata.json").read_text())["version"]
    pipeline = VolumePipeline(
        get("preprocessing"),
        output,
        threshold,
        options,
        regions=regions,
        algorithm=Algorithm(f"{type(network).__name__} for stroke lesions", version, weights, threshold),
        quality=get("trained_with").quality,
    )

    @torch.inference_mode()
    def infer(image: torch.Tensor) -> torch.Tensor:
        return inferer(image.to(device), network)

    versions = f"stroke lesion bundle {version}, monai {monai.__version__}, torch {torch.__version__}"
    ledger = Ledger(output, weights, settings_hash(options, parser), versions)
    return VolumeBatch(pipeline, infer, ledger, workers, get("progress"))


def make_batch(
    options: SegmentOptions, output: Path, workers: int = 0, progress: bool = False, slice_progress: bool = False
) -> tuple[VolumeBatch, str]:
    """Return a batch that is ready to run, and the name of the backend that computes its network.

    Args:
        options: those of the command.
        output: the folder of the results.
        workers: processes besides this one.
        progress: show a bar over the volumes.
        slice_progress: show a bar over the slices of each volume.

    Raises:
        InputError: if an option cannot be used.
    """
    from bundle.acceleration.memory import keep_freed_memory, return_freed_memory

    parser = inference_config(options, progress=progress, **{"inferer::progress": slice_progress})
    try:
        batch = _batch(parser, options, output, workers)
    except (RuntimeError, TypeError, ValueError) as error:  # MONAI raises RuntimeErrors from those of components
        if find_input_error(error) is None:
            reason = " ".join(str(error.__cause__ or error).split())
            raise InputError(f"An option cannot be used: {reason}") from error
        raise
    backend = parser.get_parsed_content("inferer").backend.name
    if backend == "torch":
        keep_freed_memory()
    else:  # it manages its own memory
        return_freed_memory()
    return batch, backend


def _find(source: str, output: Path, options: SegmentOptions) -> tuple[list[VolumeInput], list[str]]:
    """Return the volumes of a source, and lines on what is left out, and on which DICOM series were chosen and why.

    Raises:
        InputError: if there are no volumes, or only slices of DICOM series, or options for DICOM and no DICOM.
    """
    files = find_dicom_files(source, output)
    if not files:
        volumes = find_volumes(source, output)
        if all(volume.file.is_file() and find_dicom_files(volume.file, output) for volume in volumes):
            folder = volumes[0].file.parent
            raise InputError(f"{source} names DICOM files: give their folder itself, such as {folder}.")
        for name in ("series", "structured_report"):
            if getattr(options, name):
                raise InputError(f"--{name} is for DICOM, but there is none in {source}.")
        return volumes, folders_left_out(source, output)
    check_installed()
    from bundle.dicom.source import find_studies  # late, so that a batch of images does not wait for it

    images = find_volumes(source, output, may_be_none=True) if Path(source).is_dir() else []
    names = [volume.name for volume in images]
    studies, lines = find_studies(files, source, output, options.series, names, options.structured_report)
    return [*images, *studies], lines


def _identity(batch: VolumeBatch, backend: str) -> dict[str, str]:
    """Return what must be equal on all machines of a cluster, so that masks are."""
    ledger = batch.ledger
    return {"software": ledger.versions, "network": backend, "weights": ledger.weights, "settings": ledger.settings}


def batch_on_machine(expected: Mapping[str, str], options: SegmentOptions, output: Path) -> VolumeBatch:
    """Return the batch on a machine of a cluster.

    Args:
        expected: software, network, weights and settings of the machine where the command runs.
        options: those of the command.
        output: the folder of the results.

    Raises:
        InputError: if those of this machine differ, or something is missing on it.
    """
    batch, backend = make_batch(options, output)
    for kind, found in _identity(batch, backend).items():
        if found != expected[kind]:
            raise InputError(f"its {kind} is {found}, but {expected[kind]} is expected, as on the first machine.")
    return batch


def _tell(backend: str, weights: str, choices: Sequence[str]) -> None:
    """Log backend and weights, and log and print the lines on which series were chosen."""
    for line in (f"Network: {backend}", f"Weights: {weights}", *choices):
        logging.getLogger("bundle").info("%s", line)
    for line in choices:
        print(line)


def run(
    source: str,
    output: str,
    options: SegmentOptions,
    shard: str | None = None,
    workers: int | None = None,
    ray: str | None = None,
    progress: bool = True,
    import_seconds: float | None = None,
    early: EarlyRegistration | None = None,
) -> int:
    """Segment volumes, and print a summary.

    Args:
        source: where the volumes are.
        output: the folder of the results.
        options: those of the command.
        shard: ``"i/n"`` for the i-th of n parts of the volumes.
        workers: processes besides this one; by default 2, or none for a single volume.
        ray: the address of a Ray cluster whose machines segment.
        progress: show a bar.
        import_seconds: how long the imports took, to print it with the seconds of the other steps.
        early: the registration of the only volume, which began before the imports.

    Returns:
        the exit code: 0 if all are segmented, else 1.

    Raises:
        InputError: if nothing can be segmented.
    """
    begin = time.perf_counter()
    if ray is not None and workers is not None:
        raise InputError("--workers is for one machine: with --ray each core of each machine segments a volume.")
    keep_to_quota()
    target = Path(output).resolve()
    volumes, choices = _find(source, target, options)
    asked = take_shard(volumes, shard)
    workers = (2 if len(asked) > 1 else 0) if workers is None else workers
    batch, backend = make_batch(options, target, workers, progress, progress and len(asked) == 1)
    batch.pipeline.early = early if workers == 0 else None  # it cannot be given to another process
    batch.ledger.check_names(asked)
    with nullcontext() if ray is None else connected(ray):
        begin_output(target, shard)
        _tell(backend, f"{options.weights or 'models/model.pt'}, SHA-256 {batch.ledger.weights}", choices)
        build = partial(batch_on_machine, _identity(batch, backend), options.for_other_machines(), target)
        ready = time.perf_counter()
        try:
            (batch if ray is None else ClusterBatch(batch.ledger, build, progress)).run(asked)
        except KeyboardInterrupt:
            print("Stopped: the same command goes on from here.", file=sys.stderr)
        except InputError as error:  # from a machine of the cluster
            print(f"Error: {error}", file=sys.stderr)
    done = time.perf_counter()
    records = batch.ledger.records(volumes)
    all_done = report(records, asked, target)
    if import_seconds is not None:
        print(describe_timing(records, import_seconds, ready - begin, done - ready))
    return 0 if all_done else 1
