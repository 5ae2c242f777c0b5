"""Numbers printed in papers: data beside the tables, shown in columns of their own, never among what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from nasbench.errors import BadInput
from nasbench.plugins import discover, load, validated
from nasbench.recipe import FastLoader


class Entry(BaseModel):
    """One printed number."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
    label: str | None = None
    """The canonical label of the runs it corresponds to; null where there are none."""
    method: str
    """As printed."""
    space: str
    dataset: str
    metric: str
    mean: float | None
    """Null where the paper prints a bound or a range, which then stands in `about`."""
    std: float | None = None
    unit: str = ""
    params_m: float | None = None
    """Millions of parameters on the same row."""
    madds_m: float | None = None
    """Millions of multiply-adds on the same row."""
    setting: dict[str, Any] = {}
    """Switches of the row, as the paper names them."""
    about: dict[str, Any] = {}
    """What else is printed with it."""
    source_table: str
    """Where it is printed; a remark may follow in parentheses."""
    in_supplement: bool = True

    @property
    def source(self) -> str:
        """Where it is printed, without a remark."""
        return self.source_table.partition(" (")[0]

    def number(self, digits: int) -> str:
        """`0.751 ± 0.008`; a bound or a range in the paper's words."""
        if self.mean is None:
            return ", ".join(f"{name} {value}" for name, value in self.about.items())
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread}"

    def text(self, digits: int) -> str:
        """The number and its table: `0.751 ± 0.008 (Table F)`."""
        return f"{self.number(digits)} ({self.source})"


class Paper(BaseModel):
    """The numbers of one paper, in the order of its tables."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    paper: str
    note: str
    """What a reader must know to compare them."""
    entries: list[Entry]

    def find(self, label: str, space: str, dataset: str, metric: str) -> Entry | None:
        """The first number printed for these, or None."""
        wanted = (label, space, dataset, metric)
        return next((e for e in self.entries if (e.label, e.space, e.dataset, e.metric) == wanted), None)


def installed() -> dict[str, Path]:
    """The folder of every paper that a distribution registers as `nasbench.papers`, by name."""
    found = {}
    for name, entry in discover("paper").items():
        folder: Any = load("paper", name)
        if not isinstance(folder, str | Path):
            raise BadInput(f"{entry.value}, registered as the paper {name!r}, is no folder.")
        found[name] = Path(folder)
    return found


def read_all() -> list[Paper]:
    """The numbers of every installed paper."""
    return [read(folder) for folder in installed().values()]


def read(folder: Path) -> Paper:
    """The numbers of a paper: `reported.yaml` in its folder. Raises BadInput for a file that does not fit."""
    path = folder / "reported.yaml"
    content = read_yaml(path)
    fits = isinstance(content, dict) and content.keys() == Paper.model_fields.keys()
    if not fits or not isinstance(content["entries"], list) or not all(isinstance(e, dict) for e in content["entries"]):
        raise BadInput(f"{path} must map paper and note to text, and entries to a list of reported numbers.")
    # One by one, so that the sentence about a mistake names the entry.
    where = f"{folder.name}/{path.name}: "
    entries = [validated(Entry, e, prefix=f"{where}entry {i}: ") for i, e in enumerate(content["entries"], 1)]
    paper: Paper = validated(Paper, {**content, "entries": entries}, prefix=where)
    return paper


def read_yaml(path: Path) -> Any:
    """What a file of a paper holds. Raises BadInput if it cannot be read."""
    try:
        return yaml.load(path.read_text(), FastLoader)
    except (OSError, ValueError, yaml.YAMLError):
        raise BadInput(f"The file {path} of a paper cannot be read as YAML.") from None


def find(papers: Iterable[Paper], label: str, space: str, dataset: str, metric: str) -> tuple[Paper, Entry] | None:
    """The first number printed for these, and the paper that prints it, or None."""
    return next(((paper, e) for paper in papers if (e := paper.find(label, space, dataset, metric))), None)
