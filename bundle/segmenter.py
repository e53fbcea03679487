"""What ``python -m scripts.segment`` runs, apart from what it is called with."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import monai
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser

from bundle.acceleration.backends import TorchBackend
from bundle.acceleration.memory import keep_freed_memory, return_freed_memory
from bundle.dicom.files import check_installed, find_dicom_files
from bundle.errors import InputError, find_input_error
from bundle.files import bundle_root, remove_unfinished, write_json
from bundle.processes import keep_to_quota
from bundle.volumes.batch import VolumeBatch
from bundle.volumes.cluster import ClusterBatch, connected
from bundle.volumes.inputs import VolumeInput, find_volumes
from bundle.volumes.lesion_table import RegionAtlas
from bundle.volumes.pipeline import VolumePipeline
from bundle.volumes.records import file_hash, write_tables
from bundle.volumes.report import write_report

__all__ = ["batch_on_machine", "begin_output", "inference_config", "load_network", "make_batch", "run"]

_DONE, _SOME_FAILED = 0, 1
# On the results; the weights have a hash of their own.
_WITHOUT_EFFECT = ("ckpt_path", "dataset_dir", "inferer::progress", "output_dir", "progress")
_SHARED = ("volumes.tsv", "lesions.tsv", "report.html")


def inference_config(overrides: Mapping[str, Any]) -> ConfigParser:
    """configs/inference.json with what was asked for in place of its own."""
    parser = ConfigParser()
    parser.read_config(str(Path(bundle_root()) / "configs" / "inference.json"))
    parser.update({name: value for name, value in overrides.items() if value is not None})
    return parser


def _version() -> str:
    return json.loads((Path(bundle_root()) / "configs" / "metadata.json").read_text())["version"]


def _versions() -> str:
    return f"stroke lesion bundle {_version()}, monai {monai.__version__}, torch {torch.__version__}"


def load_network(parser: ConfigParser) -> torch.nn.Module:
    """The config's network with its weights."""
    network: torch.nn.Module = parser.get_parsed_content("network")
    for load in parser.get_parsed_content("handlers"):
        load(Engine(lambda engine, batch: None))
    return network.eval()


def _batch(
    parser: ConfigParser,
    output: Path,
    workers: int,
    regions: str | None,
    dicom: Mapping[str, Any] | None,
    **options: Any,
) -> VolumeBatch:
    """All that is needed for a batch, from the config; with options of DicomPipeline where there is DICOM."""
    atlas = None if regions is None else RegionAtlas(regions)
    network, inferer = load_network(parser), parser.get_parsed_content("inferer")
    device = parser.get_parsed_content("device")
    weights = file_hash(Path(parser.get_parsed_content("ckpt_path")))
    asked = {
        **parser.config,
        **options,
        "trained_with": parser.get_parsed_content("trained_with"),
        "regions": regions and file_hash(Path(regions)),
        **{name: value for name, value in (dicom or {}).items() if value},
    }
    settings = json.dumps({key: asked[key] for key in sorted(asked) if key not in _WITHOUT_EFFECT}, default=str)
    threshold = parser.get_parsed_content("threshold")
    steps: Callable[..., VolumePipeline] = VolumePipeline
    if dicom is not None:
        # Here, so that a batch of images does not wait for packages that it may not have.
        from bundle.dicom.pipeline import DicomPipeline
        from bundle.dicom.segmentation import Algorithm

        name = f"{type(network).__name__} for stroke lesions"
        steps = partial(DicomPipeline, algorithm=Algorithm(name, _version(), weights, threshold), **dicom)
    pipeline = steps(
        parser.get_parsed_content("preprocessing"),
        output,
        threshold=threshold,
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
        weights,
        hashlib.sha256(settings.encode()).hexdigest(),
        _versions(),
        workers,
        parser.get_parsed_content("progress"),
    )


def make_batch(
    output: Path,
    config: Mapping[str, Any],
    pipeline: Mapping[str, Any],
    workers: int,
    regions: str | None = None,
    dicom: Mapping[str, Any] | None = None,
) -> tuple[VolumeBatch, str]:
    """A batch that is ready to run, and the name of the backend that computes its network.

    Args:
        output: the folder of the results.
        config: what stands in place of configs/inference.json's values, where it is not None.
        pipeline: options of :class:`bundle.volumes.VolumePipeline`.
        workers: processes beside this one.
        regions: a label image in MNI space.
        dicom: options of :class:`bundle.dicom.pipeline.DicomPipeline`, where volumes may come as DICOM.

    Raises:
        InputError: when an option cannot be used.
    """
    parser = inference_config(config)
    try:
        batch = _batch(parser, output, workers, regions, dicom, **pipeline)
    except (RuntimeError, TypeError, ValueError) as error:  # MONAI makes a RuntimeError of what a component raises
        if find_input_error(error) is None:
            reason = " ".join(str(error.__cause__ or error).split())
            raise InputError(f"An option cannot be used: {reason}") from error
        raise
    backend = parser.get_parsed_content("inferer").backend
    if isinstance(backend, TorchBackend):
        keep_freed_memory()
    else:  # it has memory of its own
        return_freed_memory()
    return batch, backend.name


def _find(source: str, output: Path, dicom: Mapping[str, Any]) -> tuple[list[VolumeInput], list[str] | None]:
    """The volumes of a source; and of its DICOM studies, if any, for people, which series were taken and why.

    Raises:
        InputError: when there are none, or options for DICOM and no DICOM.
    """
    files = find_dicom_files(source, output)
    if not files:
        volumes = find_volumes(source, output)
        for option in (name for name, value in dicom.items() if value):
            raise InputError(f"--{option} is for DICOM, and {source} holds none.")
        return volumes, None
    check_installed()
    from bundle.dicom.studies import find_studies  # here, so that a batch of images does not wait for it

    images = find_volumes(source, output, may_be_none=True) if Path(source).is_dir() else []
    studies = find_studies(files, source, output, dicom["series"], [volume.name for volume in images])
    lines = [f"{study.folder}: {line}" for study in studies for line in study.lines]
    return [*images, *(study.volume for study in studies)], lines


def _identity(batch: VolumeBatch, backend: str) -> dict[str, str]:
    """What has to be the same on the machines of a cluster, for masks that are."""
    return {"software": batch.versions, "network": backend, "weights": batch.weights, "settings": batch.settings}


def batch_on_machine(
    expected: Mapping[str, str],
    config: Mapping[str, Any],
    output: Path,
    regions: str | None,
    options: Mapping[str, Any],
    dicom: Mapping[str, Any] | None,
) -> VolumeBatch:
    """The batch on a machine of a cluster.

    Args:
        expected: software, network, weights and settings of the machine where the command runs.
        config: see :func:`run`, as are the others.
        output: the folder of the results.
        regions: a label image in MNI space.
        options: of :class:`bundle.volumes.VolumePipeline`.
        dicom: see :func:`make_batch`.

    Raises:
        InputError: when the machine has others, or something is missing on it.
    """
    quiet = {**config, "progress": False, "inferer::progress": False}
    batch, backend = make_batch(output, quiet, options, 0, regions, dicom)
    for kind, found in _identity(batch, backend).items():
        if found != expected[kind]:
            raise InputError(f"its {kind} is {found}, where {expected[kind]} is expected, as on the first machine.")
    return batch


def _absolute(file: str | None) -> str | None:
    """A path that holds in other working directories too."""
    return file and str(Path(file).absolute())


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


def begin_output(output: Path, alone: bool) -> None:
    """Makes the folder and the log in it.

    Args:
        output: the folder of the results.
        alone: whether nothing else writes there.

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


def _timing(records: Sequence[Mapping[str, Any]], import_seconds: float, ready_seconds: float, seconds: float) -> str:
    """Where the time of a run went."""
    done = [record["timing"] for record in records if record["status"] == "done"]
    lines = [f"Seconds: {import_seconds:.1f} for imports, {ready_seconds:.1f} for the network, {seconds:.1f} at work."]
    if done:
        medians = ", ".join(f"{step} {median(timing[step] for timing in done):.2f}" for step in done[0])
        lines.append(f"Seconds a volume, medians of {len(done)}: {medians}.")
    return "\n".join(lines)


def _work(batch: VolumeBatch | ClusterBatch, volumes: Sequence[VolumeInput]) -> None:
    """Segments volumes until all are, or it is stopped."""
    try:
        batch.run(volumes)
    except KeyboardInterrupt:
        print("Stopped: the same command goes on from here.", file=sys.stderr)
    except InputError as error:  # of a machine of the cluster
        print(f"Error: {error}", file=sys.stderr)


def run(
    source: str,
    output: str,
    config: Mapping[str, Any],
    pipeline: Mapping[str, Any],
    regions: str | None = None,
    shard: str | None = None,
    workers: int | None = None,
    dicom: Mapping[str, Any] | None = None,
    ray: str | None = None,
    import_seconds: float | None = None,
) -> int:
    """Segments volumes.

    Args:
        source: where they are.
        output: the folder of the results.
        config: what stands in place of configs/inference.json's values, where it is not None.
        pipeline: options of :class:`bundle.volumes.VolumePipeline`.
        regions: a label image in MNI space.
        shard: ``"i/n"`` for the i-th of n parts of the volumes.
        workers: processes beside this one; 2, or none for a single volume.
        dicom: ``series`` that is taken of each study, ``structured_report`` whether one is written.
        ray: the address of a Ray cluster whose machines do the work.
        import_seconds: what the imports took, when the seconds are to be told.

    Returns:
        the exit code.

    Raises:
        InputError: when nothing can be done.
    """
    begin = time.perf_counter()
    if ray is not None and workers is not None:
        raise InputError("--workers is for one machine: with --ray each core of each machine has a volume of its own.")
    keep_to_quota()
    target = Path(output).resolve()
    dicom = {"series": None, "structured_report": False} if dicom is None else dicom
    volumes, choices = _find(source, target, dicom)
    asked = _share(volumes, shard)
    reports = None if choices is None else {"structured_report": dicom["structured_report"]}
    config = {**config, "inferer::progress": config["progress"] and len(asked) == 1}
    workers = (2 if len(asked) > 1 else 0) if workers is None else workers
    batch, backend = make_batch(target, config, pipeline, workers, regions, reports)
    with nullcontext() if ray is None else connected(ray):
        begin_output(target, alone=shard is None)
        for line in (f"Network: {backend}", *(choices or ())):
            logging.getLogger("bundle").info("%s", line)
        for line in choices or ():
            print(line)
        ready = time.perf_counter()
        if ray is None:
            _work(batch, asked)
        else:
            config = {**config, "ckpt_path": _absolute(config["ckpt_path"])}
            arguments = _identity(batch, backend), config, target, _absolute(regions), pipeline, reports
            _work(ClusterBatch(batch, partial(batch_on_machine, *arguments)), asked)
    done = time.perf_counter()
    records = batch.records(volumes)
    try:
        write_tables(records, target)
        write_report(records, target)
    except OSError as error:
        print(f"Error: the tables in {target} could not be written: {error.strerror or error}.", file=sys.stderr)
        return _SOME_FAILED
    code = _summary(records, asked, target)
    if import_seconds is not None:
        print(_timing(records, import_seconds, ready - begin, done - ready))
    return code
