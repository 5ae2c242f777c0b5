"""Observers: the rows of a run, none of them twice, and what is said where a library is missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
from nasbench_observers.jsonl import JSONL
from nasbench_observers.mlflow import MLflow
from nasbench_observers.rows import Marked
from nasbench_observers.tensorboard import TensorBoard
from nasbench_observers.wandb import WandB

from nasbench import BadInput, Run, hookimpl
from nasbench.plugins import Observer, build_observers
from tests.command import nasbench
from tests.conftest import RunTiny

SLOW_CHECKPOINTS = ("train.epochs=3", "engine.checkpoint_seconds=1000")


class Fall:
    """Ends a run after a step of training, as a crash would; called after the observers that come later."""

    def __init__(self, step: int) -> None:
        self.step = step

    @hookimpl
    def progress(self, stage: str, done: int) -> None:
        if stage.endswith("train") and done == self.step:
            raise KeyboardInterrupt


def fallen(run_tiny: RunTiny, runs: str, method: str, observer: type[Observer], step: int) -> None:
    """A run that fell after a step of training and then went on; no checkpoint kept its steps."""
    with pytest.raises(KeyboardInterrupt):
        run_tiny(method, *SLOW_CHECKPOINTS, runs=runs, observers=[Fall(step), observer(every=2)])
    run_tiny(method, *SLOW_CHECKPOINTS, runs=runs, observers=[observer(every=2)])


def lines(folder: Path) -> list[str]:
    (path,) = folder.glob("*/rows.jsonl")
    return path.read_text().splitlines()


@pytest.mark.parametrize("method", ["spos", "fsnas"])
def test_json_lines_of_a_run_that_went_on_are_those_of_one_left_alone(
    run_tiny: RunTiny, tmp_path: Path, method: str
) -> None:
    alone = run_tiny(method, *SLOW_CHECKPOINTS, runs="alone", observers=[JSONL(every=2)])
    fallen(run_tiny, "fallen", method, JSONL, 7)
    rows = [json.loads(line) for line in lines(tmp_path / "alone")]
    assert lines(tmp_path / "fallen") == lines(tmp_path / "alone")
    trained = "train" if method == "spos" else "part-0/train"
    assert [row["step"] for row in rows if row.get("stage") == trained] == [2, 4, 6, 8, 10, 12]
    assert set(rows[0]) == {"stage", "step", "loss", "lr"}
    assert rows[-1]["results"]["top1"] == next(
        m["value"] for m in alone["results"][0]["metrics"] if m["name"] == "top1"
    )


def test_half_a_line_and_what_force_does_anew_are_dropped(run_tiny: RunTiny, tmp_path: Path) -> None:
    run_tiny("spos", observers=[JSONL(every=2)])
    before = lines(tmp_path / "runs")
    (path,) = (tmp_path / "runs").glob("*/rows.jsonl")
    path.write_text(path.read_text() + '{"stage": "tr')
    run_tiny("spos", observers=[JSONL(every=2)], force=True)
    assert lines(tmp_path / "runs") == before


def test_observers_leave_the_record_as_it_is(run_tiny: RunTiny) -> None:
    bare, watched = run_tiny("spos", runs="a"), run_tiny("spos", runs="b", observers=[JSONL(every=1)])
    assert {**bare, "measured": None} == {**watched, "measured": None}


class Service(Marked):
    """A service that keeps what it is told."""

    library: ClassVar[str | None] = "json"
    opened: ClassVar[list[str | None]] = []
    told: ClassVar[list[tuple[str, int]]] = []

    def begin(self, run: Run, known: str | None) -> str:
        self.opened.append(known)
        return known or "first"

    def tell(self, values: dict[str, float], stage: str, step: int) -> None:
        assert all(name.startswith(f"{stage}/") for name in values)
        self.told.append((stage, step))

    def results(self, run: Run, record: dict[str, Any]) -> None:
        self.told.append(("results", 0))


def test_a_service_is_told_each_row_once(run_tiny: RunTiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Service, "opened", [])
    monkeypatch.setattr(Service, "told", [])
    fallen(run_tiny, "runs", "spos", Service, 7)
    assert Service.opened == [None, "first"]
    assert Service.told[:6] == [("train", step) for step in (2, 4, 6, 8, 10, 12)]
    assert len(Service.told) == len(set(Service.told))
    run_tiny("spos", *SLOW_CHECKPOINTS, observers=[Service()], force=True)
    assert Service.opened[-1] is None


def test_tensorboard_shows_each_step_once(run_tiny: RunTiny, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def scalars(runs: str, stage: str) -> dict[str, list[tuple[int, float]]]:
        (folder,) = (tmp_path / runs).glob(f"*/tensorboard/{stage}")
        found = EventAccumulator(str(folder)).Reload()
        return {name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]}

    record = run_tiny("spos", *SLOW_CHECKPOINTS, runs="alone", observers=[TensorBoard(every=2)])
    fallen(run_tiny, "fallen", "spos", TensorBoard, 7)
    assert [step for step, _ in scalars("alone", "train")["loss"]] == [2, 4, 6, 8, 10, 12]
    assert scalars("fallen", "train") == scalars("alone", "train")
    shown = scalars("alone", "results")
    for m in record["results"][0]["metrics"]:
        if m["value"] is not None:
            assert shown[m["name"]] == [(0, pytest.approx(m["value"]))]


def test_mlflow_keeps_each_step_once(run_tiny: RunTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs the extra mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    fallen(run_tiny, "runs", "spos", MLflow, 7)
    client = mlflow.MlflowClient((tmp_path / "runs/mlruns").as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("nasbench").experiment_id])
    assert run.info.status == "FINISHED"
    assert [m.step for m in client.get_metric_history(run.info.run_id, "train/loss")] == [2, 4, 6, 8, 10, 12]
    assert run.data.params["train.epochs"] == "3"
    assert "top1" in run.data.metrics


def test_wandb_offline_goes_on_with_the_same_run(
    run_tiny: RunTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs the extra wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    with pytest.raises(KeyboardInterrupt):
        run_tiny("spos", *SLOW_CHECKPOINTS, observers=[Fall(7), WandB()])
    wandb.finish()
    run_tiny("spos", *SLOW_CHECKPOINTS, observers=[WandB()])
    folders = [path.name for path in (tmp_path / "runs").glob("*/wandb/offline-run-*")]
    assert folders
    assert len({name.rpartition("-")[2] for name in folders}) == 1


# ---------------------------------------------------------------------- the command line


def test_observers_on_the_command_line(tmp_path: Path) -> None:
    spos = ("run", "-m", "spos", "-s", "tiny", "--preset", "test")
    done = nasbench(*spos, "--seeds", "2", "--observe", "jsonl[every=4]", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert len(list(tmp_path.glob("runs/*/rows.jsonl"))) == 2
    assert "jsonl" in nasbench("list", "observers", cwd=tmp_path).out


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["jsnl"], "Unknown observer 'jsnl'; did you mean 'jsonl'?"),
        (["jsonl", "jsonl[every=3]"], "'jsonl' stands twice in the observer 'jsonl+jsonl[every=3]'; once is enough."),
        (["jsonl[every=0]"], "jsonl.every = 0 does not fit: it should be greater than or equal to 1."),
        (["jsonl[evry=3]"], "Unknown option 'jsonl.evry'; did you mean 'jsonl.every'?"),
    ],
)
def test_an_observer_that_does_not_fit(tmp_path: Path, labels: list[str], said: str) -> None:
    with pytest.raises(BadInput) as error:
        build_observers(labels)
    assert str(error.value) == said


def test_a_missing_library_is_named_with_what_installs_it(
    run_tiny: RunTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for observer, library in ((WandB, "wandb"), (MLflow, "mlflow"), (TensorBoard, "tensorboard")):
        with pytest.raises(BadInput, match=rf"needs {library}; install it with `pip install 'nasbench\[{library}\]'`"):
            run_tiny("spos", observers=[observer()])
    assert not (tmp_path / "runs").exists()
