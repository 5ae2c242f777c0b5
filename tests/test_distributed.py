"""Two processes under torchrun against one process that averages over the same two half-batches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nasbench import Arch, BadInput, Plugin, Run, distributed, hookimpl, records
from nasbench.data import Batch
from nasbench.harness import execute
from nasbench.hookspecs import CALLS
from nasbench.oneshot import places_rates_inside
from nasbench.recipe import parse_set, resolve
from nasbench.stages import unpack
from tests.command import nasbench
from tests.conftest import RunTiny

Tensors = dict[str, torch.Tensor]


def command(runs: Path, method: str, space: str, *sets: str) -> list[str]:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "nasbench"]
    run = ["run", "-m", method, "-s", space, "--preset", "test", "--runs", str(runs), "--device", "cpu"]
    return [sys.executable, *torchrun, *run, *(f"--set={one}" for one in sets)]


def torchrun(runs: Path, method: str, space: str, *sets: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(runs, method, space, *sets), capture_output=True, text=True, timeout=300)


def weights(runs: Path) -> Tensors:
    (path,) = runs.glob("*/stages/train/done-*")
    found: Tensors = unpack(path.read_bytes())["net"]
    return found


class Halves(Plugin):
    """One process that does what two do: a backward for each half of the batch, gradients averaged by their sizes."""

    calls = CALLS["train_step"]

    @hookimpl
    def train_step(self, run: Run, batch: Batch) -> bool:
        assert run.optimizer is not None
        archs: list[Arch] = run.hook.sample_archs(run=run)
        rates = run.hook.learning_rates(run=run, archs=archs)
        inside = places_rates_inside(run, len(archs))
        run.optimizer.zero_grad()
        middle = len(batch.labels) // 2
        for rows in (slice(0, middle), slice(middle, None)):
            half = Batch(batch.images[rows], batch.labels[rows])
            losses = run.hook.compute_loss(run=run, logits=run.forward(half.images, archs), batch=half, archs=archs)
            factors = torch.tensor(rates if inside else [1.0] * len(rates), dtype=losses.dtype)
            (torch.dot(losses, factors) * len(half.labels) / len(batch.labels)).backward()
        rate = sum(rates) / len(rates)
        for group in run.optimizer.param_groups:
            decay = group.setdefault("full", group["weight_decay"])
            group["lr"], group["weight_decay"] = (1.0, decay * rate) if inside else (rate, decay)
        run.hook.update(run=run, archs=archs)
        return True


# ---------------------------------------------------------------------- real processes

TINY = ("fairnas+calr+ms", "tiny", "engine.precision=float64", "train.batch_size=51", "train.epochs=3")
NB201 = ("spos", "nb201", "engine.precision=float64", "train.epochs=1", "score.subset=random:2")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of two processes on tiny, left alone."""
    runs = tmp_path_factory.mktemp("two")
    done = torchrun(runs, *TINY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("seed 0") == 1  # only the first process speaks
    return runs


def averaged(runs: Path, method: str, space: str, *sets: str) -> Tensors:
    recipe = resolve(method, space, preset="test", sets=parse_set(list(sets)))
    execute(recipe, runs, observers=[Halves()])
    return weights(runs)


def close(a: Tensors, b: Tensors) -> bool:
    return a.keys() == b.keys() and all(torch.allclose(a[k], b[k], rtol=1e-10, atol=1e-10) for k in a)


def test_two_processes_are_one_that_averages_over_the_halves(two: Path, tmp_path: Path, run_tiny: RunTiny) -> None:
    one = averaged(tmp_path / "one", *TINY)
    assert all(value.dtype == torch.float64 for value in one.values())
    assert close(weights(two), one)
    run_tiny(TINY[0], *TINY[2:4], "train.epochs=2", runs="shorter")
    assert not close(one, weights(tmp_path / "shorter"))  # what is compared moves with training


@pytest.mark.slow
def test_batch_norm_sees_a_half(tmp_path: Path) -> None:
    done = torchrun(tmp_path / "two", *NB201)
    assert done.returncode == 0, done.stderr
    one = averaged(tmp_path / "one", *NB201)
    assert close(weights(tmp_path / "two"), one)
    execute(resolve(*NB201[:2], preset="test", sets=parse_set(list(NB201[2:]))), tmp_path / "whole")
    assert not close(one, weights(tmp_path / "whole"))


def test_the_record_says_how_many_processes(two: Path) -> None:
    (path,) = records.find(two)
    record = records.read(path)
    assert record["recipe"]["engine"]["processes"] == 2
    verified = nasbench("verify", str(path), cwd=two)
    assert (verified.code, verified.out) == (2, "")
    assert "torchrun --nproc-per-node 2" in verified.err


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc to find a worker")
def test_killed_and_started_again_the_record_is_the_same(two: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    process = subprocess.Popen(
        command(runs, *TINY, "engine.checkpoint_seconds=0"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while not list(runs.glob("*/stages/train/step-*")):
        assert process.poll() is None
        time.sleep(0.002)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    assert process.wait(120) != 0
    assert not list(runs.glob("*/record.json"))
    done = torchrun(runs, *TINY, "engine.checkpoint_seconds=0")
    assert done.returncode == 0, done.stderr
    (alone,), (again,) = ([records.read(path) for path in records.find(folder)] for folder in (two, runs))
    assert records.equal(alone, again)


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def as_if_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables of torchrun, without a second process to meet."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("nasbench.harness.start", lambda device: None)


@pytest.mark.usefixtures("as_if_two")
@pytest.mark.parametrize(
    ("method", "sets", "said"),
    [
        ("random-search", [], "random-search has no supernet loop that 2 processes could share"),
        ("darts-v1", [], "darts-v1 trains more than the supernet in a step, which 2 processes cannot share"),
        ("spos", ["train.batch_size=3", "data.train_images=200"], "the smallest of an epoch has 2"),
        ("spos", ["engine.sync_batch_norm=true"], "engine.sync_batch_norm needs CUDA"),
    ],
)
def test_what_processes_cannot_share_is_refused(
    run_tiny: RunTiny, tmp_path: Path, method: str, sets: list[str], said: str
) -> None:
    with pytest.raises(BadInput, match=said):
        run_tiny(method, *sets)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("setting", "said"), [("processes=3", "torchrun --nproc-per-node 3"), ("sync_batch_norm=true", "several processes")]
)
def test_settings_for_several_processes_are_refused_in_one(run_tiny: RunTiny, setting: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        run_tiny("spos", f"engine.{setting}")


def test_old_records_keep_their_names_and_new_ones_name_the_processes() -> None:
    recipe = resolve("spos", "tiny", preset="test")
    ids = []
    for values in ({}, {"processes": 1}, {"processes": 2}):
        engine = recipe.engine.model_copy(update=values)
        ids.append(records.identity(recipe.model_copy(update={"engine": engine}), "content"))
    assert ids[0] == ids[1] != ids[2]


def test_which_batch_norm_can_be_synchronised() -> None:
    from nasbench_cells.nb201 import NB201 as Cells
    from nasbench_mobile.mobilenet import MobileNet
    from nasbench_mobile.mobilenet_v3 import MobileNetV3

    assert distributed.normalises_by_modules(MobileNet(image=(3, 32, 32)))
    assert not distributed.normalises_by_modules(Cells())
    assert not distributed.normalises_by_modules(MobileNetV3(image=(3, 32, 32)))  # has modules, and goes around most


def test_nothing_is_written_by_another_process_than_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from nasbench.files import write_atomic
    from nasbench.stages import Store

    state: dict[str, Any] = {"result": 1}
    monkeypatch.setattr("nasbench.files.rank", lambda: 1)
    monkeypatch.setattr("nasbench.stages.rank", lambda: 1)
    write_atomic(tmp_path / "x" / "y", "z")
    Store(tmp_path / "stage").write("done", state)
    assert not list(tmp_path.iterdir())


def test_a_step_that_takes_the_whole_batch_averages_equal_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    """As once-for-all's teacher does, which asks nobody to prepare its batch."""
    weights_: list[float] = []
    monkeypatch.setattr(distributed, "average", lambda gradients, weight: weights_.append(weight))
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    monkeypatch.setattr(distributed, "rank", lambda: 0)
    share, run = distributed.Share(), SimpleNamespace(net=torch.nn.Linear(1, 1))

    def step(prepared: bool) -> None:
        if prepared:
            preparing = share.prepare_batch(run, None)  # type: ignore[arg-type]
            next(preparing)
            with pytest.raises(StopIteration):
                preparing.send(Batch(torch.zeros(5, 1), torch.zeros(5)))
        next(share.update(run, []))  # type: ignore[arg-type]

    for prepared in (False, True, False):
        step(prepared)
    assert weights_ == [0.5, 2 / 5, 0.5]
