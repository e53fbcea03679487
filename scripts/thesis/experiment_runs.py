"""The runs of the thesis's experiments on one dataset, in one folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from bundle.errors import InputError
from scripts.command import shown_python
from scripts.thesis.evaluations import Cases, read_cases
from scripts.thesis.runs import config_files, is_trained, run
from scripts.thesis.tables import Run, load_runs

__all__ = ["Experiments", "find_datalists"]


def find_datalists(dataset_dir: str) -> tuple[Path, ...]:
    """Return a datalist, or those in a folder of ``scripts.prepare``: one, or one for each fold.

    Raises:
        InputError: when there is none.
    """
    source = Path(dataset_dir).resolve()
    if source.is_file():
        return (source,)
    found = sorted(source.glob("fold_*.json")) or sorted(source.glob("datalist.json"))
    if not found:
        raise InputError(
            f"{dataset_dir} holds neither datalist.json nor fold_1.json ...: "
            f"make them with {shown_python()} -m scripts.prepare."
        )
    return tuple(found)


class Experiments(NamedTuple):
    """Runs that share their data and settings, by the names in ``configs/experiments.json``.

    Attributes:
        datalists: one of the training and test cases; or one for each fold, whose test cases are pooled.
        output: the folder; a run on a datalist is in ``<run>/<datalist>/train`` and ``test`` there.
        overlays: configs that come after each run's own.
        options: settings for all of them.
    """

    datalists: tuple[Path, ...]
    output: Path
    overlays: tuple[str, ...]
    options: Mapping[str, Any]

    def _configs(self, planned: Run) -> tuple[str, ...]:
        return ("train.json", *planned.configs, *self.overlays)

    def parser(self, name: str) -> ConfigParser:
        """Return a parser of the configs and settings that a run is trained with."""
        planned, parser = load_runs()[name], ConfigParser()
        parser.read_config(config_files(self._configs(planned)))
        parser.update({**planned.options, **self.options})
        return parser

    def folder(self, name: str, datalist: Path) -> Path:
        """Return the folder of a run on one datalist."""
        return self.output / name / datalist.stem

    def _run(self, job: str, name: str, planned: Run, datalist: Path, *overlays: str, **paths: Any) -> None:
        data = {"datalist": datalist, "dataset_dir": datalist.parent}
        configs = (*self._configs(planned), *overlays)
        run(job, name, configs, **{**planned.options, **self.options, **data, **paths})

    def train(self, name: str) -> None:
        """Train a run on each datalist on which it is not trained yet.

        Raises:
            InputError: when one of the processes fails.
        """
        epochs = self.parser(name).get_parsed_content("epochs")
        for datalist in self.datalists:
            last = self.folder(name, datalist) / "train" / "last.pt"
            if not is_trained(last, epochs):
                paths = {"output_dir": last.parent, "cache_dir": self.output / "cache", "resume": last.exists()}
                self._run("training", name, load_runs()[name], datalist, **paths)

    def test(self, name: str) -> None:
        """Test a run, or the average of the runs that it names, on each datalist on which it is not tested yet.

        Raises:
            InputError: when one of the processes fails.
        """
        members = load_runs()[name].members(name)
        for datalist in self.datalists:
            target = self.folder(name, datalist) / "test"
            if (target / "summary.json").exists():
                continue
            first, *others = (str(self.folder(member, datalist) / "train" / "model.pt") for member in members)
            paths = {"output_dir": target, "ckpt_path": first, "save_masks": True}
            if others:
                paths["ensemble_weights"] = others
            self._run("evaluating", name, load_runs()[members[0]], datalist, "evaluate.json", **paths)

    def cases(self, name: str) -> Cases:
        """Return the metrics of a run's test cases by ``<datalist>/<label file>``; none while a test is missing."""
        folders = {datalist.stem: self.folder(name, datalist) / "test" for datalist in self.datalists}
        if not all((folder / "summary.json").exists() for folder in folders.values()):
            return {}
        tables = {fold: read_cases(folder / "cases.csv") for fold, folder in folders.items()}
        return {f"{fold}/{case}": metrics for fold, cases in tables.items() for case, metrics in cases.items()}
