"""Ground truth: what each architecture reaches when trained alone. Read, verify, query; torch-free."""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from nasbench import home
from nasbench.errors import BadInput
from nasbench.files import write_atomic
from nasbench.space import Arch, SearchSpace


class Column(NamedTuple):
    """What one column of a table holds: top-1 accuracy (%) on a split after so many epochs."""

    dataset: str
    split: str
    epochs: int
    seed: str
    """A seed's number, or `mean` over `seeds` of them."""

    def __str__(self) -> str:
        return f"{self.dataset}/{self.split}/{self.epochs}/{self.seed}"

    @property
    def place(self) -> tuple[str, str, int, bool, str]:
        """What a list of columns is sorted by: the longest training first, the mean before its seeds."""
        return self.dataset, self.split, -self.epochs, self.seed != "mean", self.seed

    @classmethod
    def parse(cls, text: str) -> Column:
        """The column of a text form."""
        dataset, split, epochs, seed = text.split("/")
        return cls(dataset, split, int(epochs), seed)


@dataclass(frozen=True, eq=False)
class Table:
    """True accuracies of some or all architectures of a space.

    `numbers` [R] int64 are the architectures (see `SearchSpace.number`), ascending; `columns` maps a
    `Column` to [R] float64 top-1 accuracies in percent, NaN where there is none; `subsets` names boolean masks [R].
    """

    name: str
    space: SearchSpace
    """The space at the size of the networks that were trained, whose parameters the accuracies belong to."""
    numbers: np.ndarray
    columns: dict[Column, np.ndarray]
    subsets: dict[str, np.ndarray] = field(default_factory=dict)
    source: str = ""
    epochs: int | None = None
    """The training length whose accuracies are the truth; None where there is only one."""
    seconds: dict[str, np.ndarray] = field(default_factory=dict)
    """For a dataset, [R] float64 seconds that training one network for that length takes, where it is known."""

    @cached_property
    def _rows(self) -> dict[int, int]:
        return {int(number): row for row, number in enumerate(self.numbers)}

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits of what it says."""
        content = hashlib.blake2b(self.numbers.tobytes(), digest_size=8)
        for name, values in (*sorted(self.columns.items()), *sorted(self.subsets.items())):
            content.update(f"{name} after {self.epochs}".encode() + values.tobytes())
        return content.hexdigest()

    def __contains__(self, arch: Arch) -> bool:
        return self.space.number(arch) in self._rows

    def __len__(self) -> int:
        return len(self.numbers)

    def architectures(self) -> list[Arch]:
        """Every architecture of the table, by number."""
        return [self.space.from_number(int(n)) for n in self.numbers]

    def column(self, split: str, dataset: str) -> np.ndarray:
        """The mean column of a split, after the table's `epochs`. Raises BadInput if there is none or more than one."""
        found = [c for c in self._means(split) if c.dataset == dataset]
        if len(found) != 1:
            have = ", ".join(map(str, self.columns)) or "none"
            raise BadInput(f"The table {self.name} has no single mean {split} accuracy on {dataset}; it has {have}.")
        return self.columns[found[0]]

    def query(self, archs: list[Arch], split: str, dataset: str) -> list[float]:
        """Top-1 accuracies (%), mean over seeds, of architectures that the table holds."""
        column = self.column(split, dataset)
        try:
            return [float(column[self._rows[self.space.number(arch)]]) for arch in archs]
        except KeyError as error:
            missing = self.space.format(self.space.from_number(error.args[0]))
            raise BadInput(f"The table {self.name} does not hold {missing}.") from None

    def has(self, split: str, dataset: str) -> bool:
        """Whether `query` can answer for a split."""
        return any(c.dataset == dataset for c in self._means(split))

    def others(self, dataset: str) -> list[str]:
        """The other datasets on which it has test accuracies."""
        return sorted({c.dataset for c in self._means("test")} - {dataset})

    def _means(self, split: str) -> list[Column]:
        """The mean columns of a split, after the table's `epochs`."""
        return [c for c in self.columns if (c.split, c.seed) == (split, "mean") and self.epochs in (None, c.epochs)]

    def training_seconds(self, archs: list[Arch], dataset: str) -> list[float]:
        """Seconds that training each of these alone takes; `seconds` must have the dataset."""
        return [float(self.seconds[dataset][self._rows[self.space.number(arch)]]) for arch in archs]

    def everything(self, arch: Arch) -> list[dict[str, Any]]:
        """Every number known of an architecture, each with its labels; a seed it was not trained with is left out."""
        row = self._rows.get(self.space.number(arch))
        if row is None:
            return []
        return [
            {
                "table": self.name,
                **column._asdict(),
                "metric": "top1",
                "unit": "%",
                "value": round(float(v[row]), 4),
                "params": self.space.cost(arch)["params"],
            }
            for column, v in self.columns.items()
            if not np.isnan(v[row])
        ]

    # ------------------------------------------------------------------ storage

    def save(self, path: Path) -> None:
        """Write one safetensors file, atomically."""
        arrays = {"numbers": self.numbers.astype(np.int64)}
        arrays |= {f"column:{c}": v.astype(np.float64) for c, v in self.columns.items()}
        arrays |= {f"seconds:{d}": v.astype(np.float64) for d, v in self.seconds.items()}
        arrays |= {f"subset:{n}": v.astype(np.bool_) for n, v in self.subsets.items()}
        network = json.dumps(self.space.model_dump(mode="json"))
        meta = {"name": self.name, "space": self.space.name, "network": network, "source": self.source}
        meta["epochs"] = json.dumps(self.epochs)
        write_atomic(path, save(arrays, meta))

    @classmethod
    def load(cls, path: Path, space: SearchSpace) -> Table:
        """Read what `save` wrote. Raises BadInput if the file is damaged or something else."""
        try:
            with safe_open(path, "np") as file:
                meta = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - it is no dictionary
            pick = lambda kind: {k.removeprefix(kind): v for k, v in arrays.items() if k.startswith(kind)}  # noqa: E731
            found = {Column.parse(k): v for k, v in pick("column:").items()}
            columns = {c: found[c] for c in sorted(found, key=lambda c: c.place)}
            network = space.with_(allowed={}, **json.loads(meta["network"]))
            epochs = json.loads(meta.get("epochs", "null"))
            return cls(
                meta["name"],
                network,
                arrays["numbers"],
                columns,
                pick("subset:"),
                meta["source"],
                epochs,
                pick("seconds:"),
            )
        except (OSError, SafetensorError, ValueError, KeyError) as error:
            raise BadInput(
                f"The table {path} cannot be read ({error}); add it again with `nasbench data add {space.name} FILE`."
            ) from None


def stored_path(space: str) -> Path:
    """Where the imported table of a space lies."""
    return home.path("tables", f"{space}.safetensors")


def stored(space: SearchSpace) -> Table | None:
    """The table that `nasbench data add SPACE FILE` stored, if any."""
    path = stored_path(space.name)
    return Table.load(path, space) if path.exists() else None


def read_csv(path: Path, dataset: str, epochs: int, space: SearchSpace) -> Table:
    """A table that the project made itself: columns arch, index, and `valid_<seed>`, `test_<seed>` in percent."""
    with path.open(newline="") as file:
        header = next(csv.reader(file))
    cells = np.loadtxt(path, delimiter=",", skiprows=1, usecols=range(1, len(header)), ndmin=2)
    cells = cells[np.argsort(cells[:, 0])]
    columns: dict[Column, np.ndarray] = {}
    for split in ("valid", "test"):
        seeds = [
            (name.removeprefix(f"{split}_"), i) for i, name in enumerate(header[1:]) if name.startswith(f"{split}_")
        ]
        columns |= {Column(dataset, split, epochs, seed): cells[:, i] for seed, i in seeds}
        columns[Column(dataset, split, epochs, "mean")] = cells[:, [i for _, i in seeds]].mean(1)
    return Table(path.stem, space, cells[:, 0].astype(np.int64), columns, source=f"{path.name}, embedded")
