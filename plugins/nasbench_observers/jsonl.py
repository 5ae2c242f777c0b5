"""JSON lines beside the record, for whoever reads them with a few lines of code."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from nasbench import Run, hookimpl
from nasbench.files import write_atomic
from nasbench_observers.rows import Rows, numbers


class JSONL(Rows):
    """Writes `rows.jsonl` into the run's folder; of a run that was killed and went on it is the same, byte for byte."""

    @hookimpl
    def run_started(self, run: Run) -> None:
        self.keep(run, lambda row: "step" in row and not run.forced)

    def enter(self, run: Run, stage: str, step: int) -> None:
        self.keep(run, lambda row: row["stage"] != stage or row["step"] < step)

    def row(self, run: Run, stage: str, step: int, values: dict[str, float]) -> None:
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        self.append(run, {"stage": stage, "step": step, **finite})

    def results(self, run: Run, record: dict[str, Any]) -> None:
        self.append(run, {"results": numbers(record)})

    def path(self, run: Run) -> Path:
        """Where the lines are."""
        return run.folder / "rows.jsonl"

    def append(self, run: Run, row: dict[str, Any]) -> None:
        """Add a line."""
        with self.path(run).open("a") as file:
            file.write(json.dumps(row) + "\n")

    def keep(self, run: Run, wanted: Any) -> None:
        """Drop the rows that are not wanted, and what a crash left of a line."""
        path = self.path(run)
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        kept = [line for line in lines if line.endswith("\n") and wanted(json.loads(line))]
        if kept != lines:
            write_atomic(path, "".join(kept))
