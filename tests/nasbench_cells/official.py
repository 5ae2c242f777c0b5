"""Small files in the forms of NAS-Bench-201 and NATS-Bench, written with their own packages' classes."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nasbench_cells.nb201 import NB201

SPACE = NB201()
#: What a network trained on each set is evaluated on, in the benchmark's words.
EVALUATED = {
    "cifar10-valid": ("x-valid", "ori-test"),
    "cifar10": ("ori-test",),
    "cifar100": ("x-valid", "x-test", "ori-test"),
    "ImageNet16-120": ("x-valid", "x-test", "ori-test"),
}
#: Architectures, in the benchmark's order, each with its seeds at 200 epochs.
ARCHS = {4_000: (777, 888, 999), 15_624: (888,), 7: (777, 999), 11_718: (777,)}


def texts() -> list[str]:
    """The architectures' strings in the benchmark's order."""
    return [SPACE.format(SPACE.from_number(number)) for number in ARCHS]


def states(classes: Any, version: str = "1.1") -> list[dict[str, Any]]:
    """For each architecture the state dicts of its `ArchResults`: 12 epochs and 200, random accuracies.

    `classes` is the package that has `ArchResults` and `ResultsCount`. Version 1.0 has 12 epochs on half of
    CIFAR-10 alone, and all but one evaluation after the last epoch only.
    """
    rng, found = random.Random(0), []
    for index, (text, seeds) in enumerate(zip(texts(), ARCHS.values(), strict=True)):
        less, full = classes.ArchResults(index, text), classes.ArchResults(index, text)
        for trained_on in EVALUATED:
            for seed in seeds:
                full.update(trained_on, seed, trial(classes, rng, trained_on, text, seed, 200, version))
            short = {"cifar10-valid": (777, 888)}.get(trained_on, (777,) if version == "1.1" else ())
            for seed in short:
                less.update(trained_on, seed, trial(classes, rng, trained_on, text, seed, 12, version))
        found.append({"12": less.state_dict(), "200": full.state_dict()})
    return found


def trial(classes: Any, rng: random.Random, trained_on: str, text: str, seed: int, epochs: int, version: str) -> Any:
    """One training of one architecture; costs are numpy's numbers, as in the real files."""

    def series(top: float) -> dict[int, float]:
        return {epoch: rng.random() * top for epoch in range(epochs)}

    config = {"channel": 16, "num_cells": 5, "arch_str": text, "class_num": 10}
    params, flop = np.float64(0.316), np.float64(45.7)
    result = classes.ResultsCount(trained_on, None, series(100), series(2), params, flop, config, seed, epochs, None)
    if version == "1.1":
        result.update_train_info(series(100), series(100), series(2), series(30))
        result.update_eval(
            *({f"{s}@{e}": rng.random() * 100 for s in EVALUATED[trained_on] for e in range(epochs)} for _ in range(3))
        )
    else:
        every_epoch = "x-valid" if trained_on == "cifar10-valid" else "ori-test"
        for name in EVALUATED[trained_on]:
            last = {epochs - 1: 100 * rng.random()}
            result.update_OLD_eval(name, series(100) if name == every_epoch else last, {**series(2), **last})
        result.update_latency([rng.random() for _ in range(3)])
    return result


def write_pth(path: Path, classes: Any, version: str = "1.1", new_zip: bool = False) -> dict[str, Any]:
    """A file like `NAS-Bench-201-v1_1-096897.pth`; returns what it holds. The real one is no zip file."""
    infos = {i: {"less": s["12"], "full": s["200"]} for i, s in enumerate(states(classes, version))}
    content = {
        "meta_archs": texts(),
        "total_archs": len(infos),
        "arch2infos": infos,
        "evaluated_indexes": sorted(infos) if version == "1.1" else set(infos),
    }
    torch.save(content, path, _use_new_zipfile_serialization=new_zip)
    return content


def write_folder(folder: Path, package: Any) -> None:
    """A folder like `NATS-tss-v1_0-3ffb9-simple`, written by the package's own `pickle_save`."""
    from collections import OrderedDict

    folder.mkdir(parents=True, exist_ok=True)
    meta = {"meta_archs": texts(), "total_archs": len(ARCHS), "arch2infos": None, "evaluated_indexes": set()}
    package.pickle_save(meta, str(folder / "meta.pickle"))
    for index, state in enumerate(states(package)):
        package.pickle_save(OrderedDict(state), str(folder / f"{index:06d}.pickle"))
