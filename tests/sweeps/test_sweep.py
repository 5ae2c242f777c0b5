"""Sweeps: what a file asks for, what is refused, and that a killed one ends with the records of one left alone."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from nasbench import BadInput, Run, plugin_files, records
from nasbench.harness import execute as run_recipe
from nasbench.recipe import Recipe
from nasbench.sweeps import sweep
from nasbench.sweeps.engines import Local, Slurm, make
from nasbench.sweeps.sweep import Job, execute, left, plan, read
from nasbench.sweeps.sweep_table import SweepTable
from nasbench.sweeps.work import work
from tests.command import nasbench
from tests.conftest import Install

TINY = {"spaces": ["tiny"], "presets": ["test"], "set": {"train.epochs": 1, "score.subset": "random:5"}}


def written(folder: Path, **content: Any) -> Path:
    path = folder / "sweep.yaml"
    path.write_text(yaml.safe_dump({**TINY, **content}))
    return path


def planned(folder: Path, **content: Any) -> list[Job]:
    return plan(read(written(folder, **content)), folder / "runs")


def all_records(runs: Path) -> list[dict[str, Any]]:
    return sorted((records.read(path) for path in records.find(runs)), key=lambda record: str(record["id"]))


# ---------------------------------------------------------------------- the matrix


def test_every_method_with_every_seed_but_what_is_excluded(tmp_path: Path) -> None:
    jobs = planned(
        tmp_path,
        methods=["spos", "fairnas+ms+calr", "random-search"],
        seeds=2,
        exclude=[{"method": "fairnas+calr+ms", "space": "tiny"}],
    )
    assert [(job.label, job.seed, job.state) for job in jobs] == [
        ("spos", 0, "waiting"),
        ("spos", 1, "waiting"),
        ("random-search", 0, "waiting"),
        ("random-search", 1, "waiting"),
    ]
    recipes = [job.recipe for job in jobs if job.recipe]
    assert [r.seed for r in recipes] == [0, 1, 0, 1]
    assert {(r.train.epochs, r.engine.threads) for r in recipes} == {(1, 1)}  # the same threads wherever it runs
    assert not (tmp_path / "runs").exists()


def test_what_is_refused_is_said_and_the_rest_stays(tmp_path: Path) -> None:
    jobs = planned(tmp_path, methods=["random-search+ms", "spos"], seeds=[3, 5])
    assert [(job.label, job.seed, job.state) for job in jobs] == [
        ("random-search+ms", 3, "refused"),
        ("random-search+ms", 5, "refused"),
        ("spos", 3, "waiting"),
        ("spos", 5, "waiting"),
    ]
    assert "ms" in jobs[0].why


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"methods": []}, "methods"),
        ({"methods": ["spos"], "method": ["x"]}, "did you mean 'methods'"),
        ({"methods": ["sposs"]}, "did you mean 'spos'"),
        ({"methods": ["spos"], "seeds": "all"}, "seeds"),
        ({"methods": ["spos"], "seeds": 0}, "seeds = 0 does not fit: expected 1 or more, or a list of different seeds"),
        ({"methods": ["spos"], "seeds": [0, -1]}, r"seeds = \[0, -1\] does not fit"),
        ({"methods": ["spos"], "seeds": [1, 1]}, r"seeds = \[1, 1\] does not fit"),
        ({"methods": ["calr+fairnas", "fairnas+calr"]}, "methods names fairnas[+]calr twice"),
        ({"methods": ["spos"], "exclude": [{"metod": "spos"}]}, "expected some of dataset, method, preset, space"),
        (
            {"methods": ["spos"], "exclude": [{"space": "tinny"}]},
            "Unknown space in exclude 'tinny'; did you mean 'tiny'",
        ),
        ({"methods": ["spos"], "exclude": [{"dataset": "digits"}]}, "Unknown dataset in exclude 'digits'"),
        ({"methods": ["spos"], "exclude": [{"space": "tiny"}]}, "exclude leaves no run"),
        ({"methods": ["spos"], "set": {"epochs": 3}}, "write it like"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path: Path, content: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        planned(tmp_path, **content)


@pytest.mark.parametrize(
    ("text", "said"), [("methods: [a[b=1]]\n  x", "line 1"), ("- spos", "must map"), ("", "must map")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "sweep.yaml").write_text(text)
    result = nasbench("sweep", "sweep.yaml", cwd=tmp_path)
    assert result.code == 2
    assert said in result.err


def test_the_time_left_comes_from_runs_alike(tmp_path: Path) -> None:
    jobs = [Job("a", 0, "", state="done", seconds=10), Job("a", 1, ""), Job("b", 0, "", seconds=30)]
    assert left(jobs, 1) == 20 + 30  # the second like the mean of what is known
    assert left(jobs, 2) == 25
    assert left([Job("a", 0, "")], 1) is None
    assert left(jobs[:1], 1) == 0


def test_a_run_of_another_seed_tells_how_long_one_takes(tmp_path: Path) -> None:
    (first,) = planned(tmp_path, methods=["spos"])
    assert first.recipe is not None
    record, _ = run_recipe(first.recipe, tmp_path / "runs")
    done, waiting = planned(tmp_path, methods=["spos"], seeds=2)
    assert (done.state, waiting.state) == ("done", "waiting")
    assert waiting.seconds == done.seconds == sum(record["measured"]["seconds"].values())


def test_where_nothing_alike_has_run_each_kind_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {"spos": (60.0, True), "fairnas": (5.0, False)}
    tried: list[str] = []
    monkeypatch.setattr("nasbench.sweeps.estimate.seconds", lambda recipe: answers[recipe.method])
    jobs = planned(tmp_path, methods=["spos", "fairnas"], seeds=2)
    sweep.try_out(jobs, lambda job: tried.append(job.label))
    assert tried == ["spos", "fairnas"]
    assert [job.seconds for job in jobs] == [60, 60, 5, 5]
    assert left(jobs, 2) == 65
    assert [bool(job.why) for job in jobs] == [False, False, True, True]


# ---------------------------------------------------------------------- running


def test_a_sweep_gives_the_records_that_single_runs_give(tmp_path: Path) -> None:
    jobs = planned(tmp_path, methods=["spos", "random-search"], seeds=1)
    execute(jobs, Local(2), every=0.05)
    assert [(job.state, job.why) for job in jobs] == [("done", ""), ("done", "")]
    sets = [f"--set={key}" for key in ("train.epochs=1", "score.subset=random:5", "engine.threads=1")]
    single = nasbench("run", "-m", "spos", "-s", "tiny", "--preset", "test", *sets, "--runs", "single", cwd=tmp_path)
    assert single.code == 0
    (alone,) = all_records(tmp_path / "single")
    (mine,) = [r for r in all_records(tmp_path / "runs") if r["id"] == alone["id"]]
    assert records.equal(mine, alone)
    assert [job.state for job in planned(tmp_path, methods=["spos", "random-search"], seeds=1)] == ["done", "done"]
    assert not list((tmp_path / "runs").rglob("progress.json"))


def test_one_that_fails_does_not_stop_the_others(
    tmp_path: Path, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install("acme", methods={"falls": "acme_falls:Falls", "dies": "acme_falls:Dies"})
    (site / "acme_falls.py").write_text(
        "import os\nfrom nasbench import Method, hookimpl\n"
        "class Falls(Method):\n    @hookimpl\n    def search(self):\n        raise ValueError('it fell')\n"
        "class Dies(Method):\n    @hookimpl\n    def search(self):\n        os.kill(os.getpid(), 9)\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    jobs = planned(tmp_path, methods=["falls", "dies", "random-search"])
    execute(jobs, Local(2), every=0.05)
    assert [job.state for job in jobs] == ["failed", "failed", "done"]
    assert jobs[0].why.startswith("ValueError: it fell (see ")
    assert jobs[1].why.startswith("killed by signal 9 (see ")
    table = SweepTable(jobs, 2)
    assert table.summary() == "3 runs: 2 failed, 1 done"


@pytest.mark.parametrize(
    ("methods", "seeds", "kills"),
    [
        (["spos", "fairnas+calr"], 1, 2),
        pytest.param(["spos", "fairnas", "fairnas+calr", "fairnas+calr+ms"], 3, 5, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_it_ends_with_the_same_records(
    tmp_path: Path, methods: list[str], seeds: int, kills: int
) -> None:
    """At full size: benchmarks/sweep.py."""
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    for folder in (alone, killed):
        folder.mkdir()
        content = {**TINY, "methods": methods, "seeds": seeds}
        content["set"] = {"train.epochs": 4, "score.subset": "random:5", "engine.checkpoint_seconds": 0}
        (folder / "sweep.yaml").write_text(yaml.safe_dump(content))
    words = ("sweep", "sweep.yaml", "--workers", "2", "--device", "cpu")
    assert nasbench(*words, cwd=alone).code == 0

    def written_so_far() -> int:
        return len([*killed.rglob("step-*"), *killed.rglob("done-*"), *killed.rglob("record.json")])

    rng = random.Random(0)
    for _ in range(kills):
        before = written_so_far()
        process = subprocess.Popen([sys.executable, "-m", "nasbench", *words], cwd=killed, stdout=subprocess.DEVNULL)
        while written_so_far() <= before and process.poll() is None:
            time.sleep(0.01)
        time.sleep(rng.random() / 10)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL  # it had not ended by itself
    done = nasbench(*words, cwd=killed)
    assert done.code == 0, done
    count = len(methods) * seeds
    assert f"{count} runs: {count} done" in done.out
    a, b = all_records(alone), all_records(killed)
    assert len(a) == count
    assert all(records.equal(x, y) for x, y in zip(a, b, strict=True))


def test_on_a_small_terminal_what_runs_is_seen(tmp_path: Path) -> None:
    states = ["done"] * 20 + ["failed", "running", "waiting", "running"] + ["waiting"] * 20 + ["refused"] * 2
    jobs = [Job(f"m{i}", 0, "tiny", state=state, folder=tmp_path) for i, state in enumerate(states)]
    table = SweepTable(jobs, 2)
    assert list(table.table(5).columns[0].cells) == ["m20", "m21", "m22", "m23", "m24"]
    assert list(table.table(1).columns[0].cells) == ["m21"]
    assert len(table.table(100).rows) == len(jobs)


def test_a_reason_is_said_once_with_all_whom_it_concerns(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job(label, seed, "tiny", state="refused", why="no GPU") for label in ("a", "b") for seed in (0, 1)]
    SweepTable(jobs, 1).show()
    assert capsys.readouterr().out.splitlines()[-2:] == ["4 runs: 4 refused", "a, b: no GPU"]


def test_the_command_line(tmp_path: Path) -> None:
    written(tmp_path, methods=["random-search", "random-search+ms"], seeds=2)
    dry = nasbench("sweep", "sweep.yaml", "--dry-run", cwd=tmp_path)
    assert (dry.code, dry.err) == (0, "")
    assert re.search(r"4 runs: 2 waiting, 2 refused; about 0:00:\d\d left", dry.out)
    assert not (tmp_path / "runs").exists()
    done = nasbench("sweep", "sweep.yaml", "--workers", "1", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "done: random-search on tiny test, seed 1" in done.out
    assert len(all_records(tmp_path / "runs")) == 2
    written(tmp_path, methods=["random-search+ms"])
    refused = nasbench("sweep", "sweep.yaml", cwd=tmp_path)
    assert (refused.code, "random-search never calls" in refused.out) == (2, True)
    wrong = nasbench("sweep", "sweep.yaml", "--engine", "rai", cwd=tmp_path)
    assert (wrong.code, wrong.err) == (2, "nasbench: Unknown engine 'rai'; did you mean 'ray'?\n")
    one = nasbench("sweep", "sweep.yaml", "--device", "cuda:1", cwd=tmp_path)
    assert (one.code, one.out) == (2, "")
    assert "use --device cuda, and CUDA_VISIBLE_DEVICES=1 for that GPU alone" in one.err


# ---------------------------------------------------------------------- engines


@pytest.mark.parametrize(("visible", "dealt"), [(None, ["0", "1", "0", "1"]), ("5,3", ["5", "3", "5", "3"])])
def test_gpus_are_dealt_out_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, visible: str | None, dealt: list[str]
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(sys, "executable", "/bin/sh")
    seen = []
    engine = Local(4, gpus=2)
    monkeypatch.setattr(subprocess, "Popen", lambda *_, env, **__: seen.append(env["CUDA_VISIBLE_DEVICES"]))
    for i in range(4):
        with pytest.raises(AttributeError):  # no process: only what it would have been given counts
            engine.submit("{}", tmp_path / f"{i}", 1)
    assert seen == dealt


def test_an_engine_whose_library_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BadInput, match=r"pip install 'nasbench\[ray\]'"):
        make("ray", tmp_path, 1, 0)


def test_what_slurm_is_handed(tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="needs the extra slurm")
    engine = Slurm(tmp_path, hours=2, cluster="debug")
    seen: dict[str, Any] = {}
    update = engine.executor.update_parameters
    engine.executor.update_parameters = lambda **kw: (seen.update(kw), update(**kw))
    engine.executor.submit = lambda *call: seen.update(call=call)
    engine.submit("{}", tmp_path / "spos-tiny-s0", 3)
    assert seen.pop("call") == (work, "{}", str(tmp_path.resolve()))
    assert seen == {"name": "spos-tiny-s0", "timeout_min": 120, "cpus_per_task": 3, "tasks_per_node": 1}
    engine.submit("{}", tmp_path / "spos-tiny-s0", 3, gpus=1)
    assert seen["gpus_per_node"] == 1


@pytest.mark.parametrize(("named", "env"), [("", {}), ("/x/mine.py", {plugin_files.VARIABLE: "/x/mine.py"})])
def test_what_ray_is_handed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str, env: dict[str, str]) -> None:
    asked: list[dict[str, Any]] = []

    def remote(**options: Any) -> Any:
        asked.append(options)
        return lambda function: SimpleNamespace(remote=lambda *call: (function, *call))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **_: None, remote=remote))
    monkeypatch.setenv(plugin_files.VARIABLE, named)
    engine = make("ray", tmp_path, 1, 0)
    for gpus in (0, 1):
        task = engine.submit("{}", tmp_path / "spos-tiny-s0", 3, gpus)
        assert vars(task)["reference"] == (work, "{}", str(tmp_path.resolve()))
    assert [(one["num_cpus"], one["num_gpus"]) for one in asked] == [(3, 0), (3, 1)]
    assert [one["runtime_env"] for one in asked] == [{"env_vars": env}] * 2


@pytest.mark.parametrize(("device", "gpus"), [("cpu", 0), ("cuda", 1)])
def test_an_engine_is_asked_for_the_device_of_the_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str, gpus: int
) -> None:
    prepared = sweep.prepare

    def elsewhere(recipe: Recipe, runs: Path) -> tuple[Run, str]:
        assert recipe.device == "auto"
        run, key = prepared(recipe, runs)
        run.recipe = run.recipe.model_copy(update={"device": device})  # what `auto` is on another machine
        return run, key

    monkeypatch.setattr(sweep, "prepare", elsewhere)
    asked: list[tuple[str, int]] = []

    class Engine:
        slots = None

        def submit(self, recipe: str, folder: Path, threads: int, gpus: int = 0) -> Any:
            asked.append((json.loads(recipe)["device"], gpus))
            return SimpleNamespace(poll=lambda: "")

    execute(plan(read(written(tmp_path, methods=["random-search"])), tmp_path / "runs", "auto"), Engine(), every=0)
    assert asked == [(device, gpus)]
