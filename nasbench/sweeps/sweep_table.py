"""How a sweep stands: one table, live on a terminal, and a line for each change where there is none."""

from __future__ import annotations

import datetime
from collections import Counter
from types import TracebackType

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from nasbench.sweeps.sweep import Job, left

STYLES = {"done": "green", "failed": "red", "refused": "yellow", "running": "bold"}
#: What is seen first on a terminal with too few lines for all.
ORDER = ("running", "failed", "waiting", "done", "refused")


class SweepTable:
    """`with SweepTable(jobs, slots) as table: ... table.look()` follows the jobs; `show` prints how they stand."""

    def __init__(self, jobs: list[Job], slots: int | None) -> None:
        self.jobs, self.slots = jobs, slots
        self.console = Console(highlight=False, emoji=False)
        self.live = Live(console=self.console, auto_refresh=False, transient=True)
        self.told = {id(job): job.state for job in jobs}

    def __enter__(self) -> SweepTable:
        if self.console.is_terminal:
            self.live.start()
        else:
            self.line(self.summary())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        self.show()

    def look(self) -> None:
        """Bring what is shown up to date."""
        if self.console.is_terminal:
            self.live.update(Group(self.table(self.console.height - 4), self.summary()), refresh=True)
            return
        for job in self.jobs:
            if job.state != self.told[id(job)]:
                self.told[id(job)] = job.state
                took = f", {duration(job.seconds)}" if job.state == "done" else ""
                why = f": {job.why}" if job.why else ""
                self.line(f"{job.state}: {job.label} on {job.where}, seed {job.seed}{took}{why}")

    def show(self) -> None:
        """Print every job, what is left to do, and why something failed or was refused."""
        self.console.print(self.table(len(self.jobs)))
        self.line(self.summary())
        whose: dict[str, dict[str, None]] = {}
        for job in self.jobs:
            if job.why:
                whose.setdefault(job.why, {})[job.label] = None
        for why, labels in whose.items():
            self.line(f"{', '.join(labels)}: {why}")

    def summary(self) -> str:
        """How many stand where, and the time left."""
        states = Counter(job.state for job in self.jobs)
        text = f"{len(self.jobs)} runs: " + ", ".join(f"{count} {state}" for state, count in states.items())
        if not states.keys() & {"waiting", "running"}:
            return text
        seconds = left(self.jobs, self.slots)
        return f"{text}; " + ("time left unknown" if seconds is None else f"about {duration(seconds)} left")

    def table(self, rows: int) -> Table:
        """A row for each job; where they are more than `rows`, for those that matter most."""
        table = Table(box=None, pad_edge=False)
        for title in ("method", "on", "seed", "state", "stage", "progress", "time"):
            table.add_column(
                title,
                justify="right" if title in ("seed", "progress", "time") else "left",
                no_wrap=title not in ("method", "on"),
                overflow="fold",
            )
        matter = sorted(self.jobs, key=lambda job: ORDER.index(job.state))
        shown = set(map(id, matter[: max(1, rows)]))
        for job in self.jobs:
            if id(job) not in shown:
                continue
            told = job.progress() if job.state == "running" else {}
            progress = f"{100 * told['done'] / told['total']:.0f} %" if told else ""
            time = duration(job.seconds)
            if job.state in ("waiting", "running") and time:
                time = f"~{time}"
            cells = (job.label, job.where, str(job.seed), job.state, told.get("stage", ""), progress, time)
            table.add_row(*cells, style=STYLES.get(job.state, ""))
        return table

    def line(self, text: str) -> None:
        """One line, as it is."""
        self.console.print(text, markup=False, soft_wrap=True)


def duration(seconds: float | None) -> str:
    """A time for people, or nothing.

    >>> duration(75), duration(0.4), duration(None)
    ('0:01:15', '0:00:00', '')
    """
    return "" if seconds is None else str(datetime.timedelta(seconds=round(seconds)))
