"""Where the runs of a sweep run: processes here, a Ray cluster, or SLURM. All do the same work on the same recipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from nasbench.errors import BadInput, unknown
from nasbench.plugin_files import VARIABLE
from nasbench.sweeps.work import work


class Task(Protocol):
    """A run that was handed to an engine."""

    def poll(self) -> str | None:
        """None while it runs or waits, "" when it is done, else why it failed."""

    def stop(self) -> None:
        """End it; the run can be resumed."""


class Engine(Protocol):
    """Takes runs and does them."""

    @property
    def slots(self) -> int | None:
        """How many it does at once; None leaves that to the cluster."""

    def submit(self, recipe: str, folder: Path, threads: int, gpus: int = 0) -> Task:
        """Start the run of a recipe (JSON), whose folder lies in the folder of runs, on so many GPUs (0 or 1)."""


# ---------------------------------------------------------------------- processes on this machine


class Local:
    """A process for each run, so that one that crashes takes nothing with it; GPUs are dealt out in turn, of those
    that this process may use."""

    def __init__(self, slots: int, gpus: int = 0) -> None:
        self.slots = slots
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",")[:gpus] if visible else [str(i) for i in range(gpus)]
        self.free = [names[i % gpus] if gpus else None for i in range(slots)]

    def submit(self, recipe: str, folder: Path, threads: int, gpus: int = 0) -> Task:
        folder.mkdir(parents=True, exist_ok=True)
        gpu = self.free.pop(0)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        if gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = gpu
        return _Process(self, gpu, recipe, folder, env)


class _Process:
    def __init__(self, engine: Local, gpu: str | None, recipe: str, folder: Path, env: dict[str, str]) -> None:
        self.engine, self.gpu, self.log = engine, gpu, folder / "log.txt"
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "nasbench.sweeps.work", str(folder.parent)]
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env=env)
        assert self.process.stdin is not None
        self.process.stdin.write(recipe.encode() + b"\n")
        self.process.stdin.flush()  # and stays open: see nasbench.sweeps.work

    def poll(self) -> str | None:
        code = self.process.poll()
        if code is None:
            return None
        self.engine.free.append(self.gpu)
        if code == 0:
            return ""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        why = lines[-1] if code > 0 and lines else f"killed by signal {-code}"
        return f"{why} (see {self.log})"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


# ---------------------------------------------------------------------- clusters that share the folder of runs


class Ray:
    """Tasks on a Ray cluster (the one RAY_ADDRESS names, else one on this machine); a lost worker is retried."""

    slots = None
    RETRIES = 3

    def __init__(self, **settings: Any) -> None:
        self.ray = _library("ray", "ray")
        self.ray.init(ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, **settings)

    def submit(self, recipe: str, folder: Path, threads: int, gpus: int = 0) -> Task:
        # No process of its own beside the worker's: Ray must see a run die, to start it again.
        plugins = {VARIABLE: os.environ[VARIABLE]} if os.environ.get(VARIABLE) else {}
        remote = self.ray.remote(
            num_cpus=threads, num_gpus=gpus, max_retries=self.RETRIES, runtime_env={"env_vars": plugins}
        )(work)
        return _RayTask(self.ray, remote.remote(recipe, str(folder.parent.resolve())))


class _RayTask:
    def __init__(self, ray: Any, reference: Any) -> None:
        self.ray, self.reference = ray, reference

    def poll(self) -> str | None:
        if not self.ray.wait([self.reference], timeout=0)[0]:
            return None
        try:
            self.ray.get(self.reference)
        except Exception as error:  # whatever the run raised, in Ray's wrapping
            cause = getattr(error, "cause", None) or error
            return f"{type(cause).__name__}: {cause}".strip().splitlines()[0]
        return ""

    def stop(self) -> None:
        self.ray.cancel(self.reference, force=True)


class Slurm:
    """Jobs of a SLURM cluster through submitit; its scripts and logs lie in `slurm` beside the runs."""

    slots = None

    def __init__(self, runs: Path, hours: float = 24.0, **settings: Any) -> None:
        submitit = _library("submitit", "slurm")
        self.executor = submitit.AutoExecutor(folder=runs / "slurm", **settings)
        self.hours = hours

    def submit(self, recipe: str, folder: Path, threads: int, gpus: int = 0) -> Task:
        self.executor.update_parameters(
            name=folder.name[:60],
            timeout_min=int(60 * self.hours),
            cpus_per_task=threads,
            tasks_per_node=1,
            **({"gpus_per_node": gpus} if gpus else {}),  # a cluster without GPUs may not know the word
        )
        return _SlurmTask(self.executor.submit(work, recipe, str(folder.parent.resolve())))


class _SlurmTask:
    def __init__(self, job: Any) -> None:
        self.job = job

    def poll(self) -> str | None:
        if not self.job.done():
            return None
        error = self.job.exception()
        return "" if error is None else str(error).strip().splitlines()[-1]

    def stop(self) -> None:
        self.job.cancel()


def _library(name: str, extra: str) -> Any:
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise BadInput(f"The engine needs {name}; install it with `pip install 'nasbench[{extra}]'`.") from None


ENGINES = ("local", "ray", "slurm")


def make(name: str, runs: Path, slots: int, gpus: int) -> Engine:
    """An engine by name. Raises BadInput for another name, or if its library is not there."""
    if name == "local":
        return Local(slots, gpus)
    if name == "ray":
        return Ray()
    if name == "slurm":
        return Slurm(runs)
    raise unknown("engine", name, ENGINES)
