"""HW-NAS-Bench: Li and others, HW-NAS-Bench: Hardware-Aware Neural Architecture Search Benchmark, ICLR 2021."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from nasbench import BadInput
from nasbench.costs import CostColumn, CostTable
from nasbench.unpickle import load_plain
from nasbench_cells.nb201 import NB201

#: Our datasets, and the file's.
DATASETS = {"cifar10": "cifar10", "cifar100": "cifar100", "imagenet16-120": "ImageNet16-120"}
#: Devices and what is known of each.
DEVICES = {
    "edgegpu": ("latency", "energy"),
    "raspi4": ("latency",),
    "edgetpu": ("latency",),
    "pixel3": ("latency",),
    "eyeriss": ("latency", "energy"),
    "fpga": ("latency", "energy"),
}


def read(path: Path) -> CostTable:
    """The costs of NAS-Bench-201's architectures in `HW-NAS-Bench-v1_0.pickle`: latency (ms) and energy (mJ).

    The file holds, for a dataset, a list of configurations and for each cost a list in the same order, the benchmark's
    own. An architecture is known by its configuration's string, never by its place. Raises BadInput unless each
    dataset has every architecture once, and every cost is a positive number.
    """
    with path.open("rb") as file:
        content = load_plain(file, path)
    columns: dict[CostColumn, np.ndarray] = {}
    for dataset, name in DATASETS.items():
        part = _inside(content, path, "nasbench201", name)
        order = np.argsort(_numbers(part, path, name))
        for device, costs in DEVICES.items():
            for cost in costs:
                values = _costs(part, f"{device}_{cost}", path, name)
                columns[CostColumn(dataset, cost, device)] = values[order]
    return CostTable("hw-nas-bench", NB201.name, np.arange(NB201().size), columns, source="HW-NAS-Bench 1.0")


def _inside(content: Any, path: Path, *keys: str) -> Any:
    for key in keys:
        if not isinstance(content, dict) or key not in content:
            raise BadInput(f"{path} has no {key!r}; expected HW-NAS-Bench-v1_0.pickle.")
        content = content[key]
    return content


def _numbers(part: Any, path: Path, dataset: str) -> np.ndarray:
    """The number of each row's architecture."""
    space, found = NB201(), []
    for row, config in enumerate(_inside(part, path, "config")):
        text = config.get("arch_str") if isinstance(config, dict) else None
        if not isinstance(text, str):
            raise BadInput(f"{path} does not say which architecture row {row} of {dataset} is.")
        found.append(space.number(space.parse(text)))
    if sorted(found) != list(range(space.size)):
        raise BadInput(f"{path} has {len(set(found))} architectures in {len(found)} rows of {dataset}; expected 15625.")
    return np.array(found)


def _costs(part: Any, name: str, path: Path, dataset: str) -> np.ndarray:
    try:
        values = np.array([float(value) for value in _inside(part, path, name)])
    except (TypeError, ValueError):
        raise BadInput(f"{path} has costs in {name} of {dataset} that are no numbers.") from None
    if len(values) != NB201().size or not (np.isfinite(values) & (values > 0)).all():
        raise BadInput(f"{path} has {len(values)} costs in {name} of {dataset}; expected 15625, all above 0.")
    return values
