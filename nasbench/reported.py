"""Numbers printed in papers: data beside the tables, shown in columns of their own, never among what was measured."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from nasbench.errors import BadInput
from nasbench.plugins import validated


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
    mean: float
    std: float | None = None
    unit: str = ""
    params_m: float | None = None
    """Millions of parameters on the same row."""
    setting: dict[str, Any] = {}
    """Switches of the row, as the paper names them."""
    source_table: str
    """Where it is printed; a remark may follow in parentheses."""
    in_supplement: bool = True

    def text(self, digits: int) -> str:
        """The number and its table: `0.751 ± 0.008 (Table F)`."""
        spread = "" if self.std is None else f" ± {self.std:.{digits}f}"
        return f"{self.mean:.{digits}f}{spread} ({self.source_table.partition(' (')[0]})"


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


def read(folder: Path) -> list[Paper]:
    """The papers of a folder, one YAML file each; none where there is no such folder."""
    return [_paper(path) for path in sorted(folder.glob("*.yaml"))]


def _paper(path: Path) -> Paper:
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, ValueError, yaml.YAMLError):
        raise BadInput(f"The reported numbers in {path} cannot be read as YAML.") from None
    fits = isinstance(content, dict) and content.keys() == Paper.model_fields.keys()
    if not fits or not isinstance(content["entries"], list) or not all(isinstance(e, dict) for e in content["entries"]):
        raise BadInput(f"{path} must map paper and note to text, and entries to a list of reported numbers.")
    # One by one, so that the sentence about a mistake names the entry.
    entries = [validated(Entry, e, prefix=f"{path.name}: entry {i}: ") for i, e in enumerate(content["entries"], 1)]
    return validated(Paper, {**content, "entries": entries}, prefix=f"{path.name}: ")


def find(papers: Iterable[Paper], label: str, space: str, dataset: str, metric: str) -> tuple[Paper, Entry] | None:
    """The first number printed for these, and the paper that prints it, or None."""
    return next(((paper, e) for paper in papers if (e := paper.find(label, space, dataset, metric))), None)
