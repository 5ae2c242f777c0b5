"""Networks beside the record, stages that runs share, and a network for another budget from a finished run."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from filelock import FileLock
from nasbench_tiny.tiny import Tiny

from nasbench import BadInput, Run, hookimpl, records
from nasbench.data import Data
from nasbench.networks import load_network
from nasbench.results.specialize import specialize
from tests.command import nasbench
from tests.conftest import Install, Record, RunTiny


class Counts:
    """Counts the steps of each stage that are truly done."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}

    @hookimpl
    def progress(self, stage: str) -> None:
        self.steps[stage] = self.steps.get(stage, 0) + 1


@pytest.fixture(autouse=True)
def twins(install: Install) -> None:
    install("twins", methods={n: f"tests.shapes:{n.capitalize()}" for n in ("backbone", "uniform")})


def counted(run_tiny: RunTiny, *sets: str, **more: object) -> tuple[Record, dict[str, int]]:
    counts = Counts()
    return run_tiny("backbone", *sets, observers=[counts], **more), counts.steps


def folder_of(record: Record, runs: Path) -> Path:
    (folder,) = runs.glob(f"*-{record['id']}")
    return folder


# ---------------------------------------------------------------------- networks


def test_each_choice_leaves_its_network_and_what_its_text_does_not_say(run_tiny: RunTiny, tmp_path: Path) -> None:
    record = run_tiny("backbone")
    folder, space = folder_of(record, tmp_path / "runs"), Tiny(classes=10, image=(1, 8, 8))
    assert [r["scenario"] for r in record["results"]] == [{"budget": f"params={b}K"} for b in (1.3, 1.6, 2.1)]
    for result in record["results"]:
        arch = space.parse(result["arch"])
        assert json.loads((folder / result["arch_file"]).read_text()) == {"decisions": list(arch)}
        network = load_network(space, arch, folder / result["network"])
        metrics = {m["name"]: m for m in result["metrics"]}
        assert metrics["params"]["value"] == sum(p.numel() for p in network.parameters())
        assert (metrics["top1"]["split"], metrics["top1"]["dataset"]) == ("test", "digits")
        assert metrics["accuracy_density"]["value"] == pytest.approx(
            metrics["top1"]["value"] / (metrics["params"]["value"] / 1e6)
        )


def test_the_test_top1_is_that_of_the_kept_network(run_tiny: RunTiny, tmp_path: Path) -> None:
    class Sees:
        data: Data

        @hookimpl
        def run_finished(self, run: Run) -> None:
            self.data = run.data

    sees = Sees()
    record = run_tiny("backbone", observers=[sees])
    result = record["results"][0]
    space = Tiny(classes=10, image=(1, 8, 8))
    path = folder_of(record, tmp_path / "runs") / result["network"]
    network = load_network(space, space.parse(result["arch"]), path)
    right = sum(int((network(b.images).argmax(1) == b.labels).sum()) for b in sees.data.batches("test", 64))
    top1 = next(m["value"] for m in result["metrics"] if m["name"] == "top1")
    assert top1 == 100 * right / len(sees.data.test)


# ---------------------------------------------------------------------- shared stages


def test_runs_that_agree_share_a_stage(run_tiny: RunTiny, tmp_path: Path) -> None:
    alone, did = counted(run_tiny, "backbone.tune=5", runs="alone")
    assert did == {"backbone": 6, "tune": 5}
    _, did = counted(run_tiny, "backbone.tune=3")
    assert did == {"backbone": 6, "tune": 3}
    second, did = counted(run_tiny, "backbone.tune=5")
    assert did == {"tune": 5}
    assert records.equal(second, alone)  # whoever did the shared stage
    assert second["measured"]["shared"] == ["backbone"]
    assert second["measured"]["seconds"]["backbone"] > 0  # its cost is charged to each
    assert len(list((tmp_path / "runs" / "shared").iterdir())) == 1


@pytest.mark.parametrize(
    ("sets", "seed"),
    [
        (["train.lr=0.3"], 0),
        (["tiny.width=12"], 0),
        (["data.train_images=300"], 0),
        (["engine.precision=float64"], 0),
        ([], 1),
    ],
)
def test_runs_that_differ_in_what_determines_it_do_not(run_tiny: RunTiny, sets: list[str], seed: int) -> None:
    counted(run_tiny)
    _, did = counted(run_tiny, *sets, seed=seed)
    assert did["backbone"] == 6


def test_force_does_a_shared_stage_anew(run_tiny: RunTiny) -> None:
    first, _ = counted(run_tiny)
    again, did = counted(run_tiny, force=True)
    assert did == {"backbone": 6, "tune": 3}
    assert records.equal(first, again)


def test_one_waits_for_who_does_the_stage(run_tiny: RunTiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    counted(run_tiny)
    (shared,) = (tmp_path / "runs" / "shared").iterdir()
    taken, seen = threading.Event(), threading.Event()

    def hold() -> None:
        with FileLock(shared / ".lock"):
            taken.set()
            seen.wait(60)

    other = threading.Thread(target=hold)
    other.start()
    taken.wait()
    monkeypatch.setattr("warnings.warn", lambda text: (said.append(text), seen.set()))
    counted(run_tiny, "backbone.tune=4")
    other.join()
    assert said == [f"Waiting for another run that does the shared stage 'backbone' in {shared}."]


# ---------------------------------------------------------------------- specialize


def test_a_finished_run_answers_for_another_budget(run_tiny: RunTiny, tmp_path: Path) -> None:
    record = run_tiny("backbone")
    folder = folder_of(record, tmp_path / "runs")
    answer, place = specialize(folder / "record.json", {"budget": "params=1.6K"})
    assert answer["arch"] == record["results"][1]["arch"]
    assert answer["metrics"] == record["results"][1]["metrics"]
    assert place == folder / "specialized" / "params=1.6K"
    assert json.loads((place / "result.json").read_text()) == answer
    assert (place / answer["network"]).read_bytes() == (folder / record["results"][1]["network"]).read_bytes()


def test_the_command_line_tells_the_same(run_tiny: RunTiny, tmp_path: Path) -> None:
    record = run_tiny("backbone")
    said = nasbench("specialize", record["id"][:4], "--budget", "params=1600", "--json", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    assert json.loads(said.out)["arch"] == record["results"][1]["arch"]
    text = nasbench("specialize", record["id"], "--budget", "params=1.6K", "--out", "here", cwd=tmp_path).out
    assert "budget params=1.6K" in text
    assert (tmp_path / "here" / "result.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{id}"], "give --budget, for example --budget keep=0.4"),
        (["{id}", "--budget", "parms=2M"], "did you mean 'params'"),
        (["zzz", "--budget", "params=2M"], "Unknown run 'zzz'"),
        (["backbone", "--budget", "params=2M", "--runs", "elsewhere"], "Unknown run 'backbone'; known: none"),
    ],
)
def test_what_is_refused(run_tiny: RunTiny, tmp_path: Path, arguments: list[str], said: str) -> None:
    identity = run_tiny("backbone")["id"]
    result = nasbench("specialize", *(a.format(id=identity) for a in arguments), cwd=tmp_path)
    assert result.code == 2
    assert said in result.err
    assert not list(tmp_path.rglob("specialized"))


def test_a_method_that_has_no_answer_is_refused(run_tiny: RunTiny, tmp_path: Path) -> None:
    folder = folder_of(run_tiny("uniform"), tmp_path / "runs")
    with pytest.raises(BadInput, match="uniform chooses once"):
        specialize(folder / "record.json", {"budget": "keep=0.5"})


def test_a_run_without_its_stages_is_refused_and_not_trained_again(run_tiny: RunTiny, tmp_path: Path) -> None:
    folder = folder_of(run_tiny("backbone"), tmp_path / "runs")
    (done,) = (folder / "stages" / "tune").glob("done-*")
    done.unlink()
    with pytest.raises(BadInput, match="no longer holds the stage 'tune'"):
        specialize(folder / "record.json", {"budget": "params=1.6K"})


def test_a_record_that_was_moved_is_refused(run_tiny: RunTiny, tmp_path: Path) -> None:
    folder = folder_of(run_tiny("backbone"), tmp_path / "runs")
    moved = folder.rename(folder.with_name("moved"))
    with pytest.raises(BadInput, match="is not where its run left it"):
        specialize(moved / "record.json", {"budget": "params=1.6K"})
