"""TensorBoard: `tensorboard --logdir runs` shows every run, a curve for each stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import PrivateAttr

from nasbench import Run
from nasbench_observers.rows import Rows, numbers


class TensorBoard(Rows):
    """Writes event files below `tensorboard` in the run's folder; the results are scalars at step 0.

    Each stage has a folder of its own, since steps are counted in stages and TensorBoard purges, when a run goes
    on, all steps of a folder that are done again.
    """

    library: ClassVar[str | None] = "tensorboard"
    _writers: dict[str, Any] = PrivateAttr(default_factory=dict)

    def enter(self, run: Run, stage: str, step: int) -> None:
        self._writers[stage] = self.writer(run, stage, step)

    def row(self, run: Run, stage: str, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self._writers[stage].add_scalar(name, value, step)
        self._writers[stage].flush()

    def results(self, run: Run, record: dict[str, Any]) -> None:
        self._writers["results"] = writer = self.writer(run, "results", 0)
        writer.add_text("recipe", f"```\n{run.recipe.model_dump_json(indent=2)}\n```", 0)
        for name, value in numbers(record).items():
            writer.add_scalar(name, value, 0)
        for one in self._writers.values():
            one.close()

    def writer(self, run: Run, part: str, step: int) -> Any:
        """A writer that voids what stands there from this step on."""
        from torch.utils.tensorboard import SummaryWriter  # takes seconds to import

        folder: Path = run.folder / "tensorboard" / part
        return SummaryWriter(folder, purge_step=step)
