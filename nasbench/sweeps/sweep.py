"""`nasbench sweep`: the runs of a matrix, several at a time; what is finished is not run again."""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from nasbench import records
from nasbench.errors import BadInput, unknown
from nasbench.harness import prepare
from nasbench.plugins import build_terms, format_label, validated
from nasbench.recipe import Recipe, Settings, nested, resolve
from nasbench.results.leaderboard import settings
from nasbench.sweeps import estimate
from nasbench.sweeps.engines import Engine, Task
from nasbench.sweeps.work import PROGRESS


class Matrix(Settings):
    """What a sweep file holds: every method on every space with every dataset, preset and seed."""

    methods: list[str] = Field(min_length=1)
    """Labels, like fairnas+calr."""
    spaces: list[str] = Field(min_length=1)
    """Search spaces."""
    datasets: list[str] | None = None
    """Datasets; left out, the one that the preset names."""
    presets: list[str] = Field(["quick"], min_length=1)
    """Presets."""
    seeds: int | list[int] = 1
    """A number N for the seeds 0 to N-1, or a list."""
    set: dict[str, Any] = Field({})
    """Settings for all runs, by dotted name, as `--set` takes them."""
    exclude: list[dict[str, str]] = Field([])
    """What to leave out: each entry names some of method, space, dataset and preset, and drops what has them all."""


def read(path: Path) -> Matrix:
    """Read a sweep file. Raises BadInput for one that cannot be read or does not fit."""
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise BadInput(f"Cannot read the sweep {path} ({error.strerror}).") from None
    except (UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise BadInput(f"The sweep {path} is no valid YAML (line {line}); quote labels with brackets.") from None
    if not isinstance(content, dict):
        raise BadInput(f"The sweep {path} must map {', '.join(Matrix.model_fields)} to what they hold.")
    matrix: Matrix = validated(Matrix, content)
    axes = {"method", "space", "dataset", "preset"}
    for entry in matrix.exclude:
        if not entry or not set(entry) <= axes:
            raise BadInput(f"exclude {entry} does not fit: expected some of {', '.join(sorted(axes))}.")
    seeds = _seeds(matrix)
    if not seeds or min(seeds) < 0 or len(set(seeds)) < len(seeds):
        raise BadInput(f"seeds = {matrix.seeds} does not fit: expected 1 or more, or a list of different seeds.")
    return matrix


def _seeds(matrix: Matrix) -> list[int]:
    return list(range(matrix.seeds)) if isinstance(matrix.seeds, int) else matrix.seeds


@dataclass
class Job:
    """One run of a sweep and how it stands."""

    label: str
    seed: int
    where: str
    """Space, dataset and preset, for people."""
    recipe: Recipe | None = None
    folder: Path = Path()
    state: str = "waiting"
    """waiting, running, done, failed or refused."""
    why: str = ""
    """Why it failed or was refused."""
    seconds: float | None = None
    """How long it took, or, before it has run, how long its like took."""

    def progress(self) -> dict[str, Any]:
        """Stage, done and total of a running job, as it last told; empty before it did."""
        try:
            told: dict[str, Any] = json.loads((self.folder / PROGRESS).read_text())
        except (OSError, ValueError):
            return {}
        return told


def plan(matrix: Matrix, runs: Path, device: str = "cpu") -> list[Job]:
    """Every run of the matrix, refused ones with the reason, finished ones as done, in the order they will run.

    Raises BadInput if something stands twice, and if `exclude` names what the matrix lacks or leaves nothing.
    """
    seeds = _seeds(matrix)
    sets = nested({"engine.threads": 1, **matrix.set})
    axes = {
        "space": matrix.spaces,
        "dataset": matrix.datasets or [""],
        "preset": matrix.presets,
        "method": list(map(_spelled, matrix.methods)),
    }
    for axis, values in axes.items():
        for value in values:
            if values.count(value) > 1:
                raise BadInput(f"{axis}s names {value} twice.")
    dropped = [{k: _spelled(v) if k == "method" else v for k, v in entry.items()} for entry in matrix.exclude]
    for axis, value in itertools.chain.from_iterable(entry.items() for entry in dropped):
        if value not in axes[axis]:
            raise unknown(f"{axis} in exclude", value, filter(None, axes[axis]))
    known = _durations(runs)
    jobs = []
    for space, dataset, preset, method in itertools.product(*axes.values()):
        here = {"method": method, "space": space, "dataset": dataset, "preset": preset}
        if any(entry.items() <= here.items() for entry in dropped):
            continue
        where = " ".join(filter(None, (space, dataset, preset)))
        try:
            recipe = resolve(method, space, dataset=dataset or None, preset=preset, device=device, sets=sets)
        except BadInput as error:
            jobs += [Job(method, seed, where, state="refused", why=str(error)) for seed in seeds]
            continue
        jobs += jobs_of(recipe, method, where, seeds, runs, known)
    if not jobs:
        raise BadInput("exclude leaves no run of the sweep.")
    return jobs


def jobs_of(
    recipe: Recipe, label: str, where: str, seeds: list[int], runs: Path, known: dict[str, float] | None = None
) -> list[Job]:
    """The runs of one recipe, one for each seed: refused with the reason, done, or waiting.

    `known` says how long runs took, by their kind.
    """
    try:
        run, _ = prepare(recipe, runs)
    except BadInput as error:
        return [Job(label, seed, where, state="refused", why=str(error)) for seed in seeds]
    jobs = []
    for seed in seeds:
        seeded = run.recipe.model_copy(update={"seed": seed})
        folder = runs / records.folder_name(seeded, records.identity(seeded, run.data.content_hash))
        # Where it runs there may be another device than here; what the plan says holds.
        job = Job(label, seed, where, recipe.model_copy(update={"seed": seed, "device": seeded.device}), folder)
        if (folder / "record.json").is_file():
            job.state, job.seconds = "done", _seconds(records.read(folder / "record.json"))
        else:
            job.seconds = (known or {}).get(_kind(seeded.model_dump(mode="json"), run.data.content_hash))
        jobs.append(job)
    return jobs


def _spelled(label: str) -> str:
    return format_label(build_terms(label, {}))


def _seconds(record: dict[str, Any]) -> float:
    return float(sum(record["measured"]["seconds"].values()))


def _kind(recipe: dict[str, Any], content: str) -> str:
    return json.dumps(settings({"recipe": recipe, "dataset_hash": content}), sort_keys=True)


def _durations(runs: Path) -> dict[str, float]:
    """How long runs took, on average over the seeds, by all that determines them but the seed."""
    found: dict[str, list[float]] = {}
    for path in records.find(runs):
        record = records.read(path)
        found.setdefault(_kind(record["recipe"], record["dataset_hash"]), []).append(_seconds(record))
    return {kind: statistics.fmean(seconds) for kind, seconds in found.items()}


def try_out(jobs: list[Job], look: Callable[[Job], None] = lambda job: None) -> None:
    """Time a few steps here of whatever waits and has no like that has run; `look` is told what is tried."""
    times: dict[tuple[str, str], tuple[float, bool]] = {}
    for job in jobs:
        if job.state != "waiting" or job.seconds is not None:
            continue
        kind = (job.label, job.where)
        if kind not in times:
            look(job)
            assert job.recipe is not None
            times[kind] = estimate.seconds(job.recipe)
        job.seconds, whole = times[kind]
        job.why = "" if whole else "Takes longer than said: what follows its first stages cannot be tried without them."


def left(jobs: list[Job], slots: int | None) -> float | None:
    """Seconds until all is done, if runs take as long as their like did; None where nothing is known."""
    open_ = [job for job in jobs if job.state in ("waiting", "running")]
    known = [job.seconds for job in jobs if job.seconds is not None and job.state != "refused"]
    if not open_:
        return 0.0
    if not known:
        return None
    usual = statistics.fmean(known)
    return sum(usual if job.seconds is None else job.seconds for job in open_) / min(slots or len(open_), len(open_))


def execute(jobs: list[Job], engine: Engine, every: float = 0.2, look: Callable[[], None] = lambda: None) -> None:
    """Do what waits; a run that fails does not stop the others. `look` is called after each look at the runs.

    Interrupted, it ends what runs; the same sweep goes on with it.
    """
    waiting = [job for job in jobs if job.state == "waiting"]
    running: list[tuple[Job, Task, float]] = []
    try:
        while waiting or running:
            while waiting and (engine.slots is None or len(running) < engine.slots):
                job = waiting.pop(0)
                assert job.recipe is not None
                threads, on_gpu = job.recipe.engine.threads or 1, job.recipe.device.startswith("cuda")
                task = engine.submit(job.recipe.model_dump_json(), job.folder, threads, int(on_gpu))
                running.append((job, task, time.monotonic()))
                job.state = "running"
            for one in list(running):
                job, task, began = one
                if (why := task.poll()) is not None:
                    job.state, job.why = ("failed", why) if why else ("done", "")
                    job.seconds = time.monotonic() - began
                    running.remove(one)
            look()
            time.sleep(every)
    finally:
        for job, task, _ in running:
            task.stop()
            job.state = "waiting"
