"""What all observers here have in common: the rows, and that a run which goes on writes none of them twice."""

from __future__ import annotations

import importlib.util
import json
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, PrivateAttr

from nasbench import Run, hookimpl
from nasbench.files import dump_json, write_atomic
from nasbench.plugins import Observer


class Rows(Observer):
    """Turns the progress of a run into rows: a stage, a step counted from 1, and named numbers."""

    library: ClassVar[str | None] = None
    """The module that it needs, which the extra of the same name installs."""

    every: int = Field(10, ge=1)
    """Steps from one row to the next; the last step of a stage has one as well."""
    _entered: set[str] = PrivateAttr(default_factory=set)

    @abstractmethod
    def enter(self, run: Run, stage: str, step: int) -> None:
        """A stage begins, or goes on after a crash, with this step: what was told of it and later ones is void."""

    @abstractmethod
    def row(self, run: Run, stage: str, step: int, values: dict[str, float]) -> None:
        """A step is done; `run` is the whole one, and a part's stage is named `part/stage`."""

    @abstractmethod
    def results(self, run: Run, record: dict[str, Any]) -> None:
        """The run is complete."""

    @hookimpl
    def refuse(self) -> str | None:
        if self.library is None or importlib.util.find_spec(self.library) is not None:
            return None
        return f"The observer needs {self.library}; install it with `pip install 'nasbench[{self.library}]'`."

    @hookimpl
    def progress(self, run: Run, stage: str, done: int, total: int, info: dict[str, Any]) -> None:
        run = whole(run)
        if stage not in self._entered:
            self._entered.add(stage)
            self.enter(run, stage, done)
        if done % self.every == 0 or done == total:
            self.row(run, stage, done, {name: float(value) for name, value in info.items()})

    @hookimpl
    def run_finished(self, run: Run, record: dict[str, Any]) -> None:
        self.results(run, record)


class Marked(Rows):
    """Of a service that keeps what it was once told: rows told before a crash are not told again.

    The steps after a checkpoint are done twice and give the same numbers. How far each stage was told, and the
    service's name of the run, stand among the stages, so that `--force` forgets them.
    """

    _told: dict[str, int] = PrivateAttr(default_factory=dict)
    _known: str | None = PrivateAttr(None)

    @abstractmethod
    def begin(self, run: Run, known: str | None) -> str:
        """Open the service's run, or go on with the one known by this name; returns the name."""

    @abstractmethod
    def tell(self, values: dict[str, float], stage: str, step: int) -> None:
        """Hand numbers over; their names begin with the stage."""

    @hookimpl
    def run_started(self, run: Run) -> None:
        path = self.marks(run)
        saved = json.loads(path.read_text()) if path.exists() else {"known": None, "told": {}}
        self._told, self._known = saved["told"], self.begin(run, saved["known"])
        self.mark(run)

    def marks(self, run: Run) -> Path:
        """Where it stands how far the service was told."""
        return run.folder / "stages" / f"{self.library}.json"

    def mark(self, run: Run) -> None:
        """Note how far the service was told."""
        write_atomic(self.marks(run), dump_json({"known": self._known, "told": self._told}))

    def enter(self, run: Run, stage: str, step: int) -> None:
        pass

    def row(self, run: Run, stage: str, step: int, values: dict[str, float]) -> None:
        if step > self._told.get(stage, 0):
            self.tell({f"{stage}/{name}": value for name, value in values.items()}, stage, step)
            self._told[stage] = step
            self.mark(run)


def whole(run: Run) -> Run:
    """The run that a part belongs to."""
    while run.parent is not None:
        run = run.parent
    return run


def numbers(record: dict[str, Any]) -> dict[str, float]:
    """The metrics of a record, by name; `<scenario>/<phase>/<name>` where there are several choices."""
    several = len(record["results"]) > 1
    found: dict[str, float] = {}
    for result in record["results"]:
        prefix = "/".join([*map(str, result["scenario"].values()), result["phase"], ""]) if several else ""
        found |= {f"{prefix}{m['name']}": float(m["value"]) for m in result["metrics"] if m["value"] is not None}
    return found
