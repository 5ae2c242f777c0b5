"""A recipe in, a record out."""

from __future__ import annotations

import contextlib
import datetime
import math
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from filelock import Timeout

import nasbench
from nasbench import plugin_files, records
from nasbench.data import Data, load_images
from nasbench.distributed import processes, rank, start, together
from nasbench.errors import BadInput
from nasbench.files import drop_half_written, dump_json, lock, write_atomic
from nasbench.machine import cpu_name, keep_freed_memory, peak_memory, repeat_results, resolve_engine
from nasbench.networks import save_files
from nasbench.plugins import build, load
from nasbench.recipe import Recipe
from nasbench.records import Choice, Metric
from nasbench.running import Run
from nasbench.subsets import pinned

if TYPE_CHECKING:
    from nasbench.space import SearchSpace


def prepare(recipe: Recipe, runs: Path, observers: Sequence[Any] = (), kind: type[Run] = Run) -> tuple[Run, str]:
    """Compose a run and refuse what cannot work, before anything is written. Returns it and its identity."""
    plugin_files.require(recipe.plugin_files)
    recipe = resolve_engine(recipe)
    torch.set_num_threads(recipe.engine.threads or 1)
    keep_freed_memory()
    start(torch.device(recipe.device))
    if recipe.device.startswith("cuda"):
        repeat_results()
    images = load_images(recipe.dataset)
    data = Data(images, recipe.data, torch.device(recipe.device), recipe.engine.memory_format == "channels_last")
    options = {**recipe.options[recipe.space], "classes": data.classes, "image": list(data.image)}
    recipe = recipe.model_copy(update={"options": {**recipe.options, recipe.space: options}})
    space: SearchSpace = build(load("space", recipe.space), recipe.space, options)
    truth = space.ground_truth(recipe.target)
    score = recipe.score.model_copy(update={"subset": pinned(recipe.score.subset, truth)})
    recipe = recipe.model_copy(update={"score": score})
    key = records.identity(recipe, data.content_hash)
    run = kind(recipe, space, data, truth, runs / records.folder_name(recipe, key), observers)
    run.subset()  # an unknown subset, or one without ground truth, is found out now
    reasons = [reason for reason in run.hook.refuse(run=run) if reason]
    if reasons:
        raise BadInput(reasons[0])
    return run, key


def execute(
    recipe: Recipe, runs: Path, *, observers: Sequence[Any] = (), force: bool = False
) -> tuple[dict[str, Any], Path]:
    """Run a recipe, or return the record it already has. Returns the record and its path.

    Raises BadInput before training for whatever cannot work, and if another process runs the same recipe.
    """
    run, key = prepare(recipe, runs, observers)
    path = run.folder / "record.json"
    if path.exists() and not force and processes() == 1:  # several look below, where all see the same
        return _finished(run, path), path
    try:
        held = lock(run.folder).acquire(timeout=0) if rank() == 0 else contextlib.nullcontext()
    except Timeout:
        raise BadInput(f"Another process is running {run.folder}; wait for it or use another --runs.") from None
    with held:
        if force and rank() == 0:
            path.unlink(missing_ok=True)
            shutil.rmtree(run.folder / "stages", ignore_errors=True)
        run.forced = force
        if rank() == 0:
            drop_half_written(run.folder)
        together()
        if path.exists() and not force:  # by now another process may have finished it
            record = _finished(run, path)
            together()
            return record, path
        record = _execute(run, key)
        run.hook.run_finished(run=run, record=record)  # before the record, which says that there is nothing left to do
        write_atomic(path, records.dumps(record))
    return record, path


def _finished(run: Run, path: Path) -> dict[str, Any]:
    """The record that a run has already. Raises BadInput if it is by another ground truth than is here."""
    record, here = records.read(path), run.truth.digest if run.truth else None
    if record["measured"].get("ground_truth", here) != here:  # older records do not say
        raise BadInput(f"{path} was made with another ground truth of {run.space.name}; run it again with --force.")
    return record


def _execute(run: Run, key: str) -> dict[str, Any]:
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    run.hook.run_started(run=run)
    choices: list[Choice] = run.hook.search(run=run)
    metrics = [m for answer in run.hook.evaluate(run=run, choices=choices) for m in answer]
    if run.scores:
        write_atomic(run.folder / "scores.json", dump_json(scores(run)))
    return {
        "format": records.FORMAT,
        "id": key,
        "recipe": run.recipe.model_dump(
            mode="json", exclude={"device": True, "engine": {"threads", "checkpoint_seconds"}}
        ),
        "dataset_hash": run.data.content_hash,
        "results": [result(run, i, choice, metrics) for i, choice in enumerate(choices)],
        "measured": _measured(run),
    }


def scores(run: Run) -> dict[str, list[Any]]:
    """What the run said of each architecture it ranked, column by column: a picture needs that, a table does not.

    `true`, the test accuracy in the table, stands beside `arch` and `score` where there is ground truth; a score
    that is not finite is null.
    """
    archs = [arch for arch in run.scores if run.truth is None or arch in run.truth]
    said = [run.scores[arch] if math.isfinite(run.scores[arch]) else None for arch in archs]
    truth = {"true": run.truth.query(archs, "test", run.recipe.target)} if run.truth else {}
    return {"arch": [run.space.format(arch) for arch in archs], "score": said, **truth}


def result(run: Run, index: int, choice: Choice, metrics: list[Metric], folder: Path | None = None) -> dict[str, Any]:
    """What a record says of a choice; its network and artefact are written below `folder` (the run's)."""
    mine = [m for m in metrics if m.choice == index]
    names = [m.name for m in mine]
    for name in names:
        if names.count(name) > 1:
            raise BadInput(f"Two evaluators report {name!r}; rename one of them.")
    for m in mine:
        if not all(map(math.isfinite, _numbers(m))):
            raise BadInput(f"The metric {m.name!r} holds NaN or infinity; its evaluator must say None instead.")
    return {
        "scenario": choice.scenario,
        "phase": choice.phase,
        "arch": run.space.format(choice.arch),
        **save_files(choice, folder or run.folder, index),
        "metrics": [m.model_dump(exclude={"choice", *(() if m.curve else ("curve",))}) for m in mine],
    }


def _numbers(metric: Metric) -> list[float]:
    alone = [value for value in (metric.value, metric.low, metric.high) if value is not None]
    return [*alone, *(value for column in (metric.curve or {}).values() for value in column)]


def _measured(run: Run) -> dict[str, Any]:
    on_gpu = run.device.type == "cuda"
    return {
        "seconds": {name: round(value, 3) for name, value in run.seconds.items()},
        **({"shared": run.shared} if run.shared else {}),
        "peak_memory_bytes": max(peak_memory(run.device), *(each.peak for each in (run, *run.parts.values()))),
        "peak_memory_of": "allocator" if on_gpu else "process",
        **({"machines": run.machines} if len(run.machines) > 1 else {}),
        "device": torch.cuda.get_device_name(run.device) if on_gpu else cpu_name(),
        "threads": run.recipe.engine.threads,
        "bit_exact": run.device.type == "cpu",
        "ground_truth": run.truth.digest if run.truth else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "nasbench": nasbench.__version__,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
