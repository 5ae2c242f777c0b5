"""Weights & Biases: online, or offline with `WANDB_MODE=offline` and `wandb sync` later."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from pydantic import PrivateAttr

from nasbench import Run
from nasbench_observers.rows import Marked, numbers


class WandB(Marked):
    """A run of Weights & Biases for each run, its files beside the record; entity and mode as its own variables say."""

    library: ClassVar[str | None] = "wandb"

    project: str = "nasbench"
    """The project that runs go into."""
    _run: Any = PrivateAttr(None)

    def begin(self, run: Run, known: str | None) -> str:
        import wandb

        name = known or uuid.uuid4().hex[:12]
        self._run = wandb.init(
            project=self.project,
            id=name,
            resume="allow",
            name=run.folder.name,
            dir=run.folder,
            config=run.recipe.model_dump(mode="json"),
        )
        return name

    def tell(self, values: dict[str, float], stage: str, step: int) -> None:
        self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
        self._run.log({**values, f"{stage}/step": step})

    def results(self, run: Run, record: dict[str, Any]) -> None:
        self._run.summary.update(numbers(record))
        self._run.finish()
