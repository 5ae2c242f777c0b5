"""A run: what names it, what it leaves behind, and how it goes on after whatever ended it."""

from __future__ import annotations

import contextlib
import math
import random
import resource
import signal
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from filelock import FileLock
from nasbench_tiny.tiny import Tiny

from nasbench import BadInput, Run, harness, hookimpl, records
from nasbench.harness import execute, prepare
from nasbench.plugins import build_observers
from nasbench.recipe import Recipe, parse_set, resolve
from nasbench.stages import unpack
from tests import command, shapes
from tests.conftest import Install, Record, RunTiny
from tests.test_stages import DAMAGES

EVERY_STEP = "engine.checkpoint_seconds=0"
STEPS = {"train": 8, "score": 4}  # of the preset test on tiny


class Watcher:
    """Notes what was done, and raises `error` after step `at` of `stage`."""

    def __init__(self, at: int = 0, stage: str = "train", error: type[BaseException] = KeyboardInterrupt) -> None:
        self.at, self.stage, self.error = at, stage, error
        self.seen: list[tuple[str, int]] = []
        self.events: list[str] = []

    @hookimpl
    def run_started(self) -> None:
        self.events.append("started")

    @hookimpl
    def progress(self, stage: str, done: int) -> None:
        self.seen.append((stage, done))
        if (stage, done) == (self.stage, self.at):
            raise self.error

    @hookimpl
    def run_finished(self, record: Record) -> None:
        self.events.append(f"finished {record['id']}")


def interrupted(run_tiny: RunTiny, label: str, *sets: str, at: int, stage: str = "train", **more: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_tiny(label, EVERY_STEP, *sets, observers=[Watcher(at, stage)], **more)


def new(method: str = "spos", *sets: str, space: str = "tiny", **more: Any) -> Recipe:
    return resolve(method, space, preset="test", sets=parse_set(list(sets)), **more)


def stage_files(folder: Path, stage: str) -> list[Path]:
    return sorted(folder.glob(f"*/stages/{stage}/*"))


# ---------------------------------------------------------------------- records


def test_what_a_run_leaves_behind(run_tiny: RunTiny, tmp_path: Path) -> None:
    watcher = Watcher()
    record = run_tiny("fairnas+calr+ms", seed=3, observers=[watcher])
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == f"fairnas+calr+ms-tiny-digits-test-s3-{record['id']}"
    assert records.read(folder / "record.json") == record
    left = {str(p.relative_to(folder)).partition("-")[0] for p in folder.rglob("*") if p.is_file()}
    assert left - {".lock"} == {"record.json", "scores.json", "stages/train/done", "stages/score/done"}
    assert watcher.seen == [(stage, n + 1) for stage, total in STEPS.items() for n in range(total)]
    assert watcher.events == ["started", f"finished {record['id']}"]
    assert set(record["measured"]["seconds"]) == {"train", "score"}
    assert 2**20 < record["measured"]["peak_memory_bytes"] < 2**40  # of the process: it has imported torch
    assert record["measured"]["peak_memory_of"] == "process"
    names = [m["name"] for m in record["results"][0]["metrics"]]
    assert {"kendall_tau", "params_tau", "top1", "regret", "params", "ms_edge"} <= set(names)


def test_equal_recipes_give_equal_records_whatever_torch_drew_before(run_tiny: RunTiny, install: Install) -> None:
    install("twins", methods={"dropout": "tests.shapes:Dropout"})
    torch.manual_seed(1)
    one = run_tiny("dropout", runs="one")
    torch.manual_seed(2)
    two = run_tiny("dropout", runs="two")
    assert records.equal(one, two)
    assert not records.equal(one, run_tiny("dropout", runs="two", seed=1))


def test_a_finished_run_is_not_run_again(run_tiny: RunTiny) -> None:
    first, watcher = run_tiny("spos"), Watcher()
    assert run_tiny("spos", observers=[watcher]) == first
    assert watcher.seen == watcher.events == []


def test_a_finished_run_is_not_taken_for_one_by_another_ground_truth(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, true = run_tiny("random-search"), Tiny.ground_truth

    def doubtful(space: Tiny, target: str) -> Any:
        table = true(space, target)
        assert table is not None
        return replace(table, columns={name: values - 1 for name, values in table.columns.items()})

    monkeypatch.setattr(Tiny, "ground_truth", doubtful)
    with pytest.raises(BadInput, match="was made with another ground truth of tiny; run it again with --force"):
        run_tiny("random-search")
    again = run_tiny("random-search", force=True)
    assert again["id"] == first["id"]
    assert again["measured"]["ground_truth"] != first["measured"]["ground_truth"]


@pytest.mark.parametrize("label", ["spos", "parts"])
def test_force_starts_over_also_in_the_parts(run_tiny: RunTiny, install: Install, label: str) -> None:
    install("twins", methods={"parts": "tests.shapes:Parts"})
    first, before, after = (Watcher() for _ in range(3))
    records_ = [run_tiny(label, observers=[w], force=f) for w, f in ((first, False), (before, False), (after, True))]
    assert before.seen == []
    assert after.seen == first.seen != []
    assert records.equal(records_[2], records_[0])


def test_force_does_not_go_on_after_an_interruption(run_tiny: RunTiny) -> None:
    interrupted(run_tiny, "spos", at=5)
    watcher = Watcher()
    run_tiny("spos", EVERY_STEP, observers=[watcher], force=True)
    assert watcher.seen[0] == ("train", 1)


# ---------------------------------------------------------------------- identity


def key(recipe: Recipe, content: str = "0") -> str:
    return records.identity(recipe, content)


@pytest.mark.parametrize(
    "same",
    [
        new(device="cuda"),
        new("spos", "engine.threads=2"),
        new("spos", "engine.checkpoint_seconds=1"),
        new("spos", "train.epochs=2"),  # what the preset says already
        new("spos", "tiny.width=16"),  # the default
    ],
    ids=["device", "threads", "checkpoints", "preset", "default"],
)
def test_what_does_not_change_the_result_does_not_change_the_identity(same: Recipe) -> None:
    assert key(same) == key(new())


def test_what_changes_the_result_changes_the_identity() -> None:
    different = [
        key(new()),
        key(new(), "1"),
        key(new(seed=1)),
        key(new("fairnas")),
        key(new("spos+calr")),
        key(new("spos+calr[gamma_prime=3]")),
        key(new("spos+calr+ms")),
        *(key(new("spos", s)) for s in ("train.epochs=3", "tiny.width=8", "engine.precision=bfloat16")),
        *(key(new("spos", s)) for s in ("score.subset=all", "data.train_images=100")),
    ]
    assert len(set(different)) == len(different)


@pytest.mark.parametrize("spelling", ["ms+calr[g=linear]+fairnas", "calr[g=linear]+fairnas+ms[edge=random]"])
def test_the_spelling_of_a_label_does_not_matter(spelling: str) -> None:
    assert new(spelling) == new("fairnas+calr[g=linear]+ms")
    assert new(spelling) == new("fairnas+calr+ms", "calr.g=linear")


# ---------------------------------------------------------------------- going on


@pytest.mark.parametrize(("stage", "at"), [("train", 1), ("train", 5), ("train", 8), ("score", 2), ("score", 4)])
def test_an_interrupted_run_goes_on_where_it_was(run_tiny: RunTiny, stage: str, at: int) -> None:
    undisturbed = run_tiny("fairnas+calr+ms", runs="undisturbed")
    interrupted(run_tiny, "fairnas+calr+ms", at=at, stage=stage)
    watcher = Watcher()
    assert records.equal(run_tiny("fairnas+calr+ms", EVERY_STEP, observers=[watcher]), undisturbed)
    assert watcher.seen[0] == (stage, at)  # whose checkpoint was not yet written
    assert len(watcher.seen) == STEPS[stage] - at + 1 + (STEPS["score"] if stage == "train" else 0)


def test_training_that_diverges_is_no_result(run_tiny: RunTiny, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"The loss is nan in step \d of train: training has diverged; lower the rate"):
        run_tiny("spos", "train.lr=1e30")
    assert not [*tmp_path.rglob("record.json")]


def test_what_cannot_be_ranked_is_not_chosen_from(run_tiny: RunTiny) -> None:
    class Lost:
        scores_by = "nothing"

        @hookimpl(wrapper=True)
        def score(self, archs: list[Any]) -> Generator[None, Any, list[float]]:
            yield
            return [math.nan] * len(archs)

    with pytest.raises(BadInput, match="None of 27 ranked architectures has a finite score"):
        run_tiny("spos", observers=[Lost()])


def test_a_run_that_goes_on_elsewhere_says_so(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted(run_tiny, "spos", at=3)
    with monkeypatch.context() as patch:
        patch.setattr("nasbench.running.described", lambda *_: "another machine")
        before, now = run_tiny("spos", EVERY_STEP)["measured"]["machines"]
    assert before.endswith(f"1 threads, torch {torch.__version__}")
    assert now == "another machine"
    assert "machines" not in run_tiny("spos", seed=1)["measured"]


def test_without_a_checkpoint_a_stage_starts_again(run_tiny: RunTiny) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_tiny("spos", observers=[Watcher(at=5)])
    watcher = Watcher()
    assert records.equal(run_tiny("spos", observers=[watcher]), run_tiny("spos", runs="undisturbed"))
    assert watcher.seen[0] == ("train", 1)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("how_many", [1, 2])
def test_damaged_checkpoints_cost_time_and_nothing_else(
    run_tiny: RunTiny, tmp_path: Path, damage: Callable[[Path], None], how_many: int
) -> None:
    undisturbed = run_tiny("spos+ms", runs="undisturbed")
    interrupted(run_tiny, "spos+ms", at=6)
    for path in stage_files(tmp_path / "runs", "train")[-how_many:]:
        damage(path)
    watcher = Watcher()
    assert records.equal(run_tiny("spos+ms", EVERY_STEP, observers=[watcher]), undisturbed)
    assert watcher.seen[0] == ("train", {1: 5, 2: 1}[how_many])


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_stage_whose_end_is_damaged_runs_again(
    run_tiny: RunTiny, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    undisturbed = run_tiny("spos+ms", runs="undisturbed")
    interrupted(run_tiny, "spos+ms", at=2, stage="score")
    (done,) = stage_files(tmp_path / "runs", "train")
    damage(done)
    watcher = Watcher()
    assert records.equal(run_tiny("spos+ms", EVERY_STEP, observers=[watcher]), undisturbed)
    assert watcher.seen == [("train", n + 1) for n in range(8)] + [("score", n) for n in (2, 3, 4)]


def test_a_record_that_was_lost_is_made_again_from_the_stages(run_tiny: RunTiny, tmp_path: Path) -> None:
    record, watcher = run_tiny("spos"), Watcher()
    next(tmp_path.glob("runs/*/record.json")).unlink()
    again = run_tiny("spos", observers=[watcher])
    assert records.equal(again, record)
    assert again["measured"]["seconds"] == record["measured"]["seconds"]
    assert watcher.seen == []


def test_what_was_left_half_written_is_swept_away(run_tiny: RunTiny, tmp_path: Path) -> None:
    interrupted(run_tiny, "spos", at=3)
    (folder,) = (tmp_path / "runs").iterdir()
    for name in (".record.json.abc", "stages/train/.step-000000003-0123456789abcdef.safetensors.xyz"):
        (folder / name).write_bytes(b"half")
    run_tiny("spos", EVERY_STEP)
    assert {p.name for p in folder.rglob(".*")} <= {".lock"}


# ---------------------------------------------------------------------- time


class Clock:
    """Time that passes only where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        for module in ("nasbench.running", "nasbench.stages"):
            read = SimpleNamespace(perf_counter=lambda: self.now, monotonic=lambda: self.now)
            monkeypatch.setattr(f"{module}.time", read)

    @hookimpl(wrapper=True)
    def build_supernet(self) -> Generator[None, Any, Any]:
        self.now += 100
        return (yield)

    @hookimpl(wrapper=True)
    def train_step(self) -> Generator[None, Any, Any]:
        self.now += 10
        return (yield)

    @hookimpl(wrapper=True)
    def score(self) -> Generator[None, Any, Any]:
        self.now += 1
        return (yield)


@pytest.mark.parametrize("kills", [[], [("train", 3)], [("train", 3), ("train", 4), ("score", 2)], [("score", 4)]])
def test_time_is_that_of_the_work_that_counted(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, kills: list[tuple[str, int]]
) -> None:
    clock = Clock(monkeypatch)
    for stage, at in kills:
        with pytest.raises(KeyboardInterrupt):
            run_tiny("spos", EVERY_STEP, observers=[clock, Watcher(at, stage)])
        clock.now += 10_000
    assert run_tiny("spos", EVERY_STEP, observers=[clock])["measured"]["seconds"] == {"train": 180, "score": 4}


def test_checkpoints_are_written_by_time(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch)
    with pytest.raises(KeyboardInterrupt):  # 100 for building, then 10 a step: written after steps 1, 4 and 7
        run_tiny("spos", "engine.checkpoint_seconds=30", observers=[clock, Watcher(8)])
    steps = [path.name[:14] for path in stage_files(tmp_path / "runs", "train")]
    assert steps == ["step-000000004", "step-000000007"]


# ---------------------------------------------------------------------- one process a run, and room to write


def test_a_run_has_one_process_at_a_time(run_tiny: RunTiny, tmp_path: Path) -> None:
    interrupted(run_tiny, "spos", at=3)
    (folder,) = (tmp_path / "runs").iterdir()
    with FileLock(folder / ".lock"), pytest.raises(BadInput, match="Another process is running"):
        run_tiny("spos", EVERY_STEP)
    run_tiny("spos", EVERY_STEP)


def test_what_another_process_finished_meanwhile_is_not_replayed(
    run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch
) -> None:
    first: Record = {}
    watcher, locked = Watcher(), harness.lock

    def finish_first(folder: Path) -> FileLock:
        monkeypatch.setattr(harness, "lock", locked)
        first.update(run_tiny("spos"))
        return locked(folder)

    monkeypatch.setattr(harness, "lock", finish_first)
    assert run_tiny("spos", observers=[watcher]) == first  # its date too
    assert watcher.events == []


def test_observers_are_told_of_the_end_whenever_it_is_killed(
    run_tiny: RunTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, first, told = harness.write_atomic, Watcher(), list[list[str]]()

    def killed(path: Path, content: Any) -> None:
        if path.name == "record.json":
            told.append(first.events)
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(harness, "write_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            run_tiny("spos", observers=[first, *build_observers(["jsonl"])])
    watcher = Watcher()
    record = run_tiny("spos", observers=[watcher, *build_observers(["jsonl"])])
    assert told == [watcher.events] == [["started", f"finished {record['id']}"]]
    run_tiny("spos", observers=build_observers(["jsonl"]), runs="alone")
    rows = [path.read_text() for path in sorted(tmp_path.rglob("rows.jsonl"))]
    assert rows[0] == rows[1]


def test_an_error_does_not_keep_the_run_locked(run_tiny: RunTiny) -> None:
    with pytest.raises(ZeroDivisionError) as _held:  # as a notebook holds the last error and its frames
        run_tiny("spos", EVERY_STEP, observers=[Watcher(3, error=ZeroDivisionError)])
    run_tiny("spos", EVERY_STEP)


def test_a_refused_run_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="decision"):
        execute(new("spos+ms[edge=nowhere]"), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@contextlib.contextmanager
def file_size_limit(size: int) -> Generator[None, None, None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_checkpoint_that_does_not_fit_is_an_error_and_no_loss(run_tiny: RunTiny, tmp_path: Path) -> None:
    undisturbed = run_tiny("spos", runs="undisturbed")
    interrupted(run_tiny, "spos", at=3)
    before = stage_files(tmp_path / "runs", "train")
    with file_size_limit(4096), pytest.raises(BadInput, match=r"Cannot write .*step-000000003"):
        run_tiny("spos", EVERY_STEP)
    assert stage_files(tmp_path / "runs", "train") == before
    assert {p.name for p in tmp_path.glob("runs/**/.*")} <= {".lock"}
    assert records.equal(run_tiny("spos", EVERY_STEP), undisturbed)


# ---------------------------------------------------------------------- stages, as a method sees them


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return prepare(new(), tmp_path)[0]


def test_a_stage_is_done_once(run: Run, tmp_path: Path) -> None:
    work = iter([{"value": (1, 2)}])
    assert run.stage("once", lambda: next(work)) == {"value": (1, 2)}
    again, _ = prepare(new(), tmp_path)
    assert again.stage("once", lambda: next(work)) == {"value": (1, 2)}


def test_stages_follow_one_another(run: Run) -> None:
    with pytest.raises(RuntimeError, match="inside stage 'outer'"):
        run.stage("outer", lambda: run.stage("inner", lambda: None))
    run.stage("inner", lambda: None)
    with pytest.raises(RuntimeError, match="'inner' comes twice"):
        run.stage("inner", lambda: None)


def test_one_loop_a_stage_and_none_outside(run: Run) -> None:
    with pytest.raises(RuntimeError, match=r"run\.steps needs a stage"):
        next(run.steps(3))
    with pytest.raises(RuntimeError, match="one loop in work"):
        run.stage("twice", lambda: [list(run.steps(2)), list(run.steps(2))])


def test_what_follows_a_loop_sees_the_same_before_and_after_a_resume(tmp_path: Path) -> None:
    def work(run: Run, fail: bool) -> Callable[[], Any]:
        def inner() -> Any:
            for step in run.steps(4):
                run.state["sum"] = run.state.get("sum", 0) + step
            if fail:
                raise KeyboardInterrupt
            return [run.step, run.progress, run.state["sum"], run.rng("after").random(), torch.rand(1).item()]

        return inner

    def start(runs: str, fail: bool) -> Any:
        run, _ = prepare(new("spos", EVERY_STEP), tmp_path / runs)
        return run.stage("work", work(run, fail))

    with pytest.raises(KeyboardInterrupt):
        start("resumed", fail=True)
    resumed = start("resumed", fail=False)
    assert resumed == start("other", fail=False)
    assert resumed[:3] == [3, 0.75, 6]


def test_what_follows_a_stage_sees_the_same_when_it_is_replayed(tmp_path: Path) -> None:
    def start() -> list[Any]:
        run, _ = prepare(new(), tmp_path)

        def work() -> None:
            run.net = run.hook.build_supernet(run=run)
            run.optimizer = run.hook.make_optimizer(run=run)
            run.track("twin", run.optimizer)
            run.state["steps"] = list(run.steps(4))

        run.stage("work", work)
        return [run.optimizer, run.state, run.step, run.rng("after").random()]

    assert start() == start()
    assert start()[:3] == [None, {"steps": [0, 1, 2, 3]}, 0]
    (done,) = stage_files(tmp_path, "work")
    assert not {"optimizer", "groups"} & set(unpack(done.read_bytes()))


def test_streams_of_parts_and_stages_are_their_own(run: Run) -> None:
    def draw(run: Run) -> list[float]:
        with run.seeded("init"):
            weight = torch.rand(1).item()
        return [weight, run.rng("a").random(), torch.rand(1, generator=run.generator("a")).item()]

    a, b = run.child("a", run.space), run.child("b", run.space)
    inner = a.child("a", run.space)
    drawn = [draw(r) for r in (run, a, b, inner)]
    drawn += [r.stage(name, lambda r=r: draw(r)) for r in (run, a, b, inner) for name in ("one", "two")]
    for values in zip(*drawn, strict=True):
        assert len(set(values)) == len(values) == 12
    fixed = [r.fixed_rng("a").random() for r in (run, a, b, inner)]
    assert len(set(fixed)) == 4
    assert set(run.seconds) == {f"{part}{name}" for part in ("", "a/", "b/", "a/a/") for name in ("one", "two")}


# ---------------------------------------------------------------------- nets that change their shape


def grouped(run: Run, make: Callable[..., torch.optim.Optimizer]) -> torch.optim.Optimizer:
    """Weights in one group, biases and a parameter of no net in another, the head in none; after one step."""
    run.net = run.to_device(shapes.Prunable(run.space))
    named = dict(run.net.named_parameters())
    body = {k: v for k, v in named.items() if not k.startswith("head")}
    extra = torch.nn.Parameter(torch.ones(3))
    biases = [v for k, v in body.items() if k.endswith("bias")]
    run.optimizer = make([{"params": [v for v in body.values() if v.dim() > 1]}, {"params": [extra, *biases], "lr": 1}])
    for parameter in (*named.values(), extra):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    run.optimizer.step()
    return run.optimizer


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), lambda p: torch.optim.AdamW(p, lr=0.1)]
)
def test_a_net_of_another_shape_takes_over_momentum_and_groups(
    run: Run, make: Callable[..., torch.optim.Optimizer]
) -> None:
    optimizer = grouped(run, make)
    old_net, extra = run.net, optimizer.param_groups[1]["params"][0]
    old = {name: dict(optimizer.state[p]) for name, p in old_net.named_parameters()}
    kept = {k: v.clone() for k, v in optimizer.state[extra].items() if v is not None}
    narrow = old_net.rebuild({"width": 8})
    cut = {name: tuple(map(slice, p.shape)) for name, p in narrow.named_parameters()}
    forgotten = "layers.0.0.1.weight"
    run.replace_net(narrow, {name: (name, index) for name, index in cut.items() if name != forgotten})
    assert run.optimizer is optimizer
    by_group = run._named_groups()
    assert all(name is not None and name.endswith("weight") for name in by_group[0])
    assert by_group[1][0] is None
    assert optimizer.param_groups[1]["params"][0] is extra
    assert all(torch.equal(optimizer.state[extra][k], v) for k, v in kept.items())
    names = {name for group in by_group for name in group if name}
    assert names == {name for name in cut if not name.startswith("head")}
    for name, parameter in run.net.named_parameters():
        if name == forgotten or name not in names:
            assert parameter not in optimizer.state
            continue
        for k, v in old[name].items():
            if isinstance(v, torch.Tensor):
                expected = v[cut[name]] if v.dim() else v
                assert torch.equal(optimizer.state[parameter][k], expected)
                assert optimizer.state[parameter][k].data_ptr() != v.data_ptr()
    old_parameters = set(map(id, old_net.parameters()))
    assert not old_parameters & {id(p) for p in optimizer.state}


def test_a_widened_net_may_take_one_place_twice(run: Run) -> None:
    run.net = torch.nn.Linear(2, 2)
    run.optimizer = torch.optim.SGD(run.net.parameters(), lr=0.1, momentum=0.9)
    run.net(torch.tensor([[1.0, 2.0]])).sum().backward()
    run.optimizer.step()
    twice = torch.tensor([0, 1, 1])
    run.replace_net(torch.nn.Linear(2, 3), {"weight": ("weight", twice), "bias": ("bias", twice)})
    assert run.optimizer.state[run.net.weight]["momentum_buffer"].tolist() == [[1, 2]] * 3
    assert run.optimizer.state[run.net.bias]["momentum_buffer"].tolist() == [1] * 3


def test_groups_of_a_changed_net_come_back(tmp_path: Path) -> None:
    """The narrow net's parameters are in groups and in an order that a fresh optimizer would not give."""

    def work(run: Run, fail: bool) -> Callable[[], Any]:
        def inner() -> Any:
            optimizer = grouped(run, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9))
            for step in run.steps(3):
                if step == 1:
                    narrow = run.net.rebuild({"width": 8})
                    swapped = {"layers.0.0.1.bias": ("layers.0.0.1.weight", (0, slice(8)))}
                    run.replace_net(narrow, {"stem.weight": ("stem.weight", slice(8)), **swapped})
                if fail and step == 2:
                    raise KeyboardInterrupt
            state = {
                n: optimizer.state[p]["momentum_buffer"] for n, p in run.net.named_parameters() if optimizer.state[p]
            }
            return [run._named_groups(), [g["lr"] for g in optimizer.param_groups], state]

        return inner

    def start(runs: str, fail: bool) -> Any:
        run, _ = prepare(new("spos", EVERY_STEP), tmp_path / runs)
        return run.stage("work", work(run, fail))

    with pytest.raises(KeyboardInterrupt):
        start("resumed", fail=True)
    groups, rates, state = start("resumed", fail=False)
    expected_groups, expected_rates, expected = start("other", fail=False)
    assert (groups, rates) == (expected_groups, expected_rates)
    assert "layers.0.0.1.bias" in groups[0]
    assert set(state) == set(expected) == {"stem.weight", "layers.0.0.1.bias"}
    assert all(torch.equal(state[name], expected[name]) for name in state)


# ---------------------------------------------------------------------- the real thing


def test_sigkill_at_random_moments(tmp_path: Path) -> None:
    label, epochs = "fairnas+calr+ms", "train.epochs=80"
    words = ["run", "-m", label, "-s", "tiny", "--preset", "test", "--device=cpu", "--set", epochs, "--set", EVERY_STEP]
    rng, folder, log = random.Random(0), tmp_path / "runs", tmp_path / "log"
    for _ in range(3):
        before = stage_files(folder, "train")
        process = command.start(*words, cwd=tmp_path, streams=(log, log))
        while process.is_alive() and stage_files(folder, "train") == before:
            time.sleep(0.001)
        time.sleep(rng.random() / 10)
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, log.read_text()
        assert not list(folder.glob("*/record.json"))
    done = command.nasbench(*words, cwd=tmp_path)
    assert done.code == 0, done.err
    (path,) = folder.glob("*/record.json")
    assert records.equal(records.read(path), execute(new(label, epochs), tmp_path / "undisturbed")[0])
