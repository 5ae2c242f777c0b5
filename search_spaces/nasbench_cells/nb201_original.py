"""The files of NAS-Bench-201 and NATS-Bench as their authors published them, asked through their own packages."""

from __future__ import annotations

import bz2
import importlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from nasbench import BadInput
from nasbench.tables import Column, Table
from nasbench.unpickle import ADMITTED, load_plain

if TYPE_CHECKING:
    from nasbench_cells.nb201 import NB201

#: Our datasets and splits, and the benchmark's names: what was trained on, and what was evaluated on.
#: `cifar10-valid` is half of CIFAR-10's training images, `cifar10` all of them: two networks, never one column.
ORIGINAL = {
    ("cifar10", "valid"): ("cifar10-valid", "x-valid"),
    ("cifar10", "half-test"): ("cifar10-valid", "ori-test"),
    ("cifar10", "test"): ("cifar10", "ori-test"),
    ("cifar100", "valid"): ("cifar100", "x-valid"),
    ("cifar100", "test"): ("cifar100", "x-test"),
    ("cifar100", "valid+test"): ("cifar100", "ori-test"),
    ("imagenet16-120", "valid"): ("ImageNet16-120", "x-valid"),
    ("imagenet16-120", "test"): ("ImageNet16-120", "x-test"),
    ("imagenet16-120", "valid+test"): ("ImageNet16-120", "ori-test"),
}
#: The training length of the ground truth; there is also one of 12 epochs.
EPOCHS = 200


def read_pth(path: Path, space: NB201) -> Table:
    """The table of `NAS-Bench-201-v1_*.pth`, complete or not. Raises BadInput if it is not such a file.

    The file is one pickle of plain containers and of numpy's numbers: it is loaded whole, with torch's
    `weights_only`, and given back to memory architecture by architecture.
    """
    import torch

    results = package("nas_201_api", "nas-bench-201", path)
    admitted: list[Any] = [(thing, name) for name, thing in ADMITTED.items() if name.startswith("numpy")]
    try:
        with torch.serialization.safe_globals(admitted):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file may fail anywhere in the reader
        raise BadInput(
            f"{path} cannot be read as plain data, and nothing of it was run ({reason(error)}); "
            "expected NAS-Bench-201-v1_1-096897.pth."
        ) from None

    def archs() -> Iterator[tuple[str, dict[int, Any]]]:
        for index in sorted(content["arch2infos"]):
            states = content["arch2infos"].pop(index)
            lengths = {12: states["less"], EPOCHS: states["full"]}
            yield content["meta_archs"][index], {n: results.create_from_state_dict(s) for n, s in lengths.items()}

    return collect(archs(), path, space, "NAS-Bench-201 (.pth)")


def read_folder(path: Path, space: NB201) -> Table:
    """The table of a folder like `NATS-tss-v1_0-3ffb9-simple`. Raises BadInput if it is not such a folder."""
    results = package("nats_bench", "nats-bench", path)

    def load(name: str) -> Any:
        try:
            with bz2.open(path / name) as file:
                return load_plain(file, path / name)
        except FileNotFoundError:
            raise BadInput(f"{path} has no file {name}; expected the folder NATS-tss-v1_0-3ffb9-simple.") from None

    def archs() -> Iterator[tuple[str, dict[int, Any]]]:
        for index, text in enumerate(load("meta.pickle.pbz2")["meta_archs"]):
            states = load(f"{index:06d}.pickle.pbz2")
            yield text, {int(n): results.create_from_state_dict(s) for n, s in states.items()}

    return collect(archs(), path, space, "NATS-Bench topology")


def package(module: str, name: str, path: Path) -> Any:
    """The class of the benchmark's package that answers for one architecture at one training length."""
    try:
        return importlib.import_module(module).ArchResults
    except ImportError:
        raise BadInput(
            f"Reading {path} takes the package {name}, which is not installed; `pip install 'nasbench[nb201]'` has it."
        ) from None


def collect(archs: Iterable[tuple[str, dict[int, Any]]], path: Path, space: NB201, source: str) -> Table:
    """The table of what the benchmark's `ArchResults` answer, for each architecture by training length.

    An architecture has one to three seeds; where a column's seed is not one of them it holds NaN. Training time
    is in the table for a dataset where it is known of all.
    """
    cells: dict[Column, dict[int, float]] = defaultdict(dict)
    times: dict[str, dict[int, float]] = defaultdict(dict)
    numbers: set[int] = set()
    try:
        for text, results in archs:
            number = space.number(space.parse(text))
            if number in numbers:
                raise BadInput(f"{path} holds {text} twice.")
            numbers.add(number)
            for epochs, result in results.items():
                if result.arch_str != text:
                    raise BadInput(f"{path} lists {text} where it holds the results of {result.arch_str}.")
                for column, accuracy in answers(result, epochs, path):
                    cells[column][number] = accuracy
            for dataset, seconds in training_times(results[EPOCHS]):
                times[dataset][number] = seconds
    except BadInput:
        raise
    except Exception as error:  # the packages ask what they are given, which may be anything
        raise BadInput(f"{path} is not of the benchmark's form ({reason(error)}).") from None

    def array(known: dict[int, float]) -> np.ndarray:
        return np.array([known.get(n, np.nan) for n in sorted(numbers)], np.float64)

    return Table(
        space.name,
        space.with_(channels=16, cells=5, classes=10, image=(3, 32, 32), allowed={}),
        np.array(sorted(numbers), np.int64),
        {column: array(cells[column]) for column in sorted(cells, key=lambda c: c.place)},
        source=source,
        epochs=EPOCHS,
        seconds={dataset: array(known) for dataset, known in times.items() if len(known) == len(numbers)},
    )


def answers(result: Any, epochs: int, path: Path) -> Iterator[tuple[Column, float]]:
    """Every top-1 accuracy (%) after the last epoch: the mean over seeds, and each seed's."""
    for (dataset, split), (trained_on, evaluated_on) in ORIGINAL.items():
        if trained_on not in result.get_dataset_names():
            continue
        if (found := result.get_total_epoch(trained_on)) != epochs:
            raise BadInput(f"{path} has {found} epochs of {result.arch_str} on {trained_on} where {epochs} belong.")
        trials = result.query(trained_on)
        if all(evaluated_on in trial.get_eval_set() for trial in trials.values()):
            for seed in (False, *trials):  # the packages' word for the mean is False
                accuracy = result.get_metrics(trained_on, evaluated_on, is_random=seed)["accuracy"]
                yield Column(dataset, split, epochs, "mean" if seed is False else str(seed)), float(accuracy)


def training_times(result: Any) -> Iterator[tuple[str, float]]:
    """Seconds that training once took, mean over seeds, of the networks whose validation accuracy a search asks for."""
    for (dataset, split), (trained_on, _) in ORIGINAL.items():
        if split == "valid" and trained_on in result.get_dataset_names():
            seconds = [trial.get_train()["all_time"] for trial in result.query(trained_on).values()]
            if None not in seconds:
                yield dataset, fmean(seconds)


def reason(error: Exception) -> str:
    """What went wrong, in one line; torch wraps it into advice to trust the file."""
    cause = error.__context__ or error
    return f"{type(cause).__name__}: {cause}".partition("\n")[0].rstrip(".")
