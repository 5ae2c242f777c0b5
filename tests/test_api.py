"""`nasbench.run`: what the command line does, as a typed function."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import nasbench
from nasbench import BadInput, Metric, Record, hookimpl
from nasbench.cli.options import app
from nasbench.plugins import validated
from tests import command

SMALL = {"train.epochs": 1}


def test_a_run_gives_its_record_typed(tmp_path: Path) -> None:
    record = nasbench.run(method="fairnas+calr", space="tiny", preset="test", seed=3, sets=SMALL, runs=tmp_path)
    assert isinstance(record, Record)
    assert (record.recipe.method, record.recipe.seed, record.recipe.train.epochs) == ("fairnas+calr", 3, 1)
    tau = record.metric("kendall_tau")
    assert isinstance(tau, Metric)
    assert tau.low is not None
    assert tau.high is not None
    assert tau.low <= tau.high
    with pytest.raises(BadInput, match="Unknown metric 'kendal_tau'; did you mean 'kendall_tau'"):
        record.metric("kendal_tau")
    (written,) = tmp_path.rglob("record.json")
    content = json.loads(written.read_text())
    assert record.model_dump(mode="json", exclude_unset=True) == content, "Record lacks what the file has"


def test_it_is_the_same_run_as_the_command_line_s(tmp_path: Path) -> None:
    args = "run -m spos -s tiny --preset test --seed 1 --set train.epochs=1"
    assert command.nasbench(*args.split(), cwd=tmp_path).code == 0
    seen: list[str] = []

    class Looking:
        @hookimpl
        def run_started(self) -> None:
            seen.append("started")

    def again(**more: bool) -> Record:
        runs = tmp_path / "runs"
        return nasbench.run("spos", "tiny", preset="test", seed=1, sets=SMALL, runs=runs, observers=[Looking()], **more)

    (path,) = tmp_path.rglob("record.json")
    assert again().model_dump(mode="json", exclude_unset=True) == json.loads(path.read_text())
    assert seen == []
    assert again(force=True).id == again().id
    assert seen == ["started"]


def test_it_takes_what_the_command_takes() -> None:
    verb = typer.main.get_command(app).commands["run"]  # type: ignore[attr-defined]
    options = {p.name for p in verb.params}
    # Seeds are a loop, a plan is for people, files of plugins are the environment's, retraining is a term of the label.
    others = {"seeds", "dry_run", "plugin", "observe", "again"}
    assert set(inspect.signature(nasbench.run).parameters) - {"observers"} == options - others


def test_bad_input_is_refused_in_a_sentence_before_anything_is_written(tmp_path: Path) -> None:
    for method, sets, message in [
        ("fairnass", {}, "did you mean 'fairnas'"),
        ("fairnas", {"epochs": 3}, "Cannot read the setting 'epochs'"),
        ("fairnas", {"train.epoch": 3}, "did you mean 'train.epochs'"),
    ]:
        with pytest.raises(BadInput, match=message):
            nasbench.run(method, "tiny", preset="test", sets=sets, runs=tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_record_of_a_later_version_is_refused_in_a_sentence() -> None:
    path = Path("leaderboards/records/fairnas-nb201-cifar10-jpeg-cpu-s0-422ce3b8.json")
    record = json.loads((Path(__file__).parents[1] / path).read_text())
    record["results"][0]["metrics"][0]["certainty"] = 3
    with pytest.raises(BadInput, match=r"Unknown option 'results\.0\.metrics\.0\.certainty'"):
        validated(Record, record)


def test_a_config_gives_the_seed_that_is_not_given(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("seed: 7\npreset: test\ntrain: {epochs: 1}\n")
    record = nasbench.run("spos", "tiny", config=tmp_path / "my.yaml", runs=tmp_path)
    assert record.recipe.seed == 7


@pytest.mark.parametrize("first", ["", "import nasbench.running, nasbench.harness; "])
def test_the_name_stays_a_function_whatever_was_imported_before(first: str) -> None:
    code = f"{first}from nasbench import run; import sys; print(callable(run), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == f"True {bool(first)}\n"
