"""The runs of the thesis's experiments on one dataset, in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ConfigParser

from bundle.errors import InputError
from scripts.command import shown_python
from scripts.thesis.evaluations import read_cases
from scripts.thesis.runs import config_files, is_trained, run
from scripts.thesis.tables import Run

__all__ = ["Cases", "Experiments", "find_datalists", "read_configs"]

Cases = Mapping[str, Mapping[str, float]]
"""The metrics of the test cases, by ``<datalist>/<label file>``."""


def read_configs(names: Sequence[str], **options: Any) -> ConfigParser:
    """A parser of the merged configs.

    Args:
        names: as :func:`scripts.thesis.runs.config_files` takes them.
        options: settings over them.
    """
    parser = ConfigParser()
    parser.read_config(config_files(names))
    parser.update(options)
    return parser


def find_datalists(dataset_dir: str) -> tuple[Path, ...]:
    """A datalist, or those in a folder of ``scripts.prepare``: one, or one for each fold.

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
    """Runs that share their data and settings.

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

    def configs(self, planned: Run) -> tuple[str, ...]:
        """What a run is trained with."""
        return ("train.json", *planned.configs, *self.overlays)

    def parser(self, planned: Run) -> ConfigParser:
        """The same, merged with all settings."""
        return read_configs(self.configs(planned), **{**planned.options, **self.options})

    def folder(self, name: str, datalist: Path) -> Path:
        """Of a run on one datalist."""
        return self.output / name / datalist.stem

    def finish(self, name: str, planned: Run) -> None:
        """Trains and tests what is not yet.

        Raises:
            InputError: when one of the processes fails.
        """
        configs, options = self.configs(planned), {**planned.options, **self.options}
        epochs = self.parser(planned).get_parsed_content("epochs")
        for datalist in self.datalists:
            options |= {"datalist": datalist, "dataset_dir": datalist.parent}
            last = self.folder(name, datalist) / "train" / "last.pt"
            if not is_trained(last, epochs):
                paths = {"output_dir": last.parent, "cache_dir": self.output / "cache", "resume": last.exists()}
                run("training", name, configs, **options, **paths)
            self._test(name, planned, datalist, [last.with_name("model.pt")])

    def finish_average(self, name: str, runs: Mapping[str, Run]) -> None:
        """Tests what is not yet of networks that are trained, averaged.

        Args:
            name: of a run with an average.
            runs: all runs.

        Raises:
            InputError: when the process fails.
        """
        parts = runs[name].average
        for datalist in self.datalists:
            weights = [self.folder(part, datalist) / "train" / "model.pt" for part in parts]
            self._test(name, runs[parts[0]], datalist, weights)

    def _test(self, name: str, planned: Run, datalist: Path, weights: Sequence[Path]) -> None:
        target = self.folder(name, datalist) / "test"
        if (target / "summary.json").exists():
            return
        options = {**planned.options, **self.options, "datalist": datalist, "dataset_dir": datalist.parent}
        further = {"ensemble_weights": [str(path) for path in weights[1:]]} if len(weights) > 1 else {}
        paths = {"output_dir": target, "ckpt_path": weights[0], "save_masks": True, **further}
        run("evaluating", name, (*self.configs(planned), "evaluate.json"), **options, **paths)

    def cases(self, name: str) -> Cases | None:
        """What a run's tests gave; None where one is missing."""
        folders = {datalist.stem: self.folder(name, datalist) / "test" for datalist in self.datalists}
        if not all((folder / "summary.json").exists() for folder in folders.values()):
            return None
        tables = {fold: read_cases(folder / "cases.csv") for fold, folder in folders.items()}
        return {f"{fold}/{case}": metrics for fold, cases in tables.items() for case, metrics in cases.items()}
