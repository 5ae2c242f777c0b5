"""`nasbench reproduce`: which records answer for a printed number, the order of rows, and the whole command."""

from __future__ import annotations

import csv
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nasbench import records
from nasbench.results.papers import Cell, Rule, RunSpec, select
from nasbench.results.reported import Entry
from nasbench.results.reproduce import Order, Outcome, measure, order, plan, read_records
from nasbench.results.reproduced import counts
from tests.boards import made, result, written
from tests.command import nasbench
from tests.conftest import Record, RunTiny

ROOT = Path(__file__).parents[2]
TOY = ROOT / "tests" / "toy_paper"


def toy(folder: Path, preset: str = "test", **datasets: str) -> dict[tuple[str, str], Outcome]:
    """The first table of the toy, by row and column."""
    (printed,) = select([f"{TOY}:1"])
    return {(one.cell.row, one.cell.column): one for one in measure(printed, preset, datasets, read_records(folder))}


TOP1, TAU = "top1 (%), tiny, digits", "kendall_tau, tiny, digits"

# ---------------------------------------------------------------------- records


def test_records_answer_seed_by_seed_and_metric_by_metric(tmp_path: Path) -> None:
    third = made(tau=None, seed=3, top1=91.0)
    found = toy(written(tmp_path, made(seed=0, top1=91.0), made(tau=0.25, seed=2, top1=88.0), third))
    top1, tau = found["SPOS", TOP1], found["SPOS", TAU]
    assert (top1.state, top1.values, tau.values) == ("measured", {0: 91.0, 2: 88.0, 3: 91.0}, {0: 0.5, 2: 0.25})
    assert (top1.mean, top1.difference) == (90.0, 0.0)
    assert top1.interval == pytest.approx((90 - 4.30265, 90 + 4.30265), rel=1e-6)  # t of 2 degrees, standard error 1
    assert tau.interval is None
    assert [path.parent.name for path in top1.paths.values()] == ["run0", "run1", "run2"]


def test_a_record_with_another_setting_answers_for_another_row_or_none(tmp_path: Path) -> None:
    clips = [made("fairnas", None, f"train.clip={clip}", top1=top1) for clip, top1 in ((1, 81.0), (5, 82.0), (3, 83.0))]
    found = toy(written(tmp_path, *clips))
    assert found["FairNAS, clip=5", TOP1].values == {0: 82.0}
    assert found["FairNAS, clip=1", TOP1].values == {0: 81.0}
    assert found["SPOS", TOP1].values == {}


def test_of_two_records_with_one_seed_the_last_made_counts(tmp_path: Path) -> None:
    old, new = made(top1=91.0), made(top1=92.0)
    new["measured"]["date"] = "2026-01-02T04"
    new["recipe"]["engine"]["precision"] = "bfloat16"
    assert toy(written(tmp_path / "a", old, new))["SPOS", TOP1].values == {0: 92.0}
    assert toy(written(tmp_path / "b", new, old))["SPOS", TOP1].values == {0: 92.0}


def test_a_record_without_the_number_says_so_and_is_not_run_again(tmp_path: Path) -> None:
    one = toy(written(tmp_path, made(tau=None, kendall_tau=None)))["SPOS", TAU]
    assert (one.state, one.why) == ("open", "The records of spos do not hold one kendall_tau for it.")
    assert plan([one], 1, tmp_path, "cpu") == []


def test_what_a_space_learns_from_the_images_and_older_records_lack_makes_no_difference(tmp_path: Path) -> None:
    record = made()
    record["recipe"]["options"]["tiny"] = {"classes": 10, "image": [1, 8, 8]}
    del record["recipe"]["score"]["batch_norm"]
    assert toy(written(tmp_path, record))["SPOS", TOP1].values == {0: 90.0}


def test_another_dataset_takes_the_place_of_one(tmp_path: Path) -> None:
    record = made()
    record["recipe"]["dataset"] = "digits-jpeg"
    written(tmp_path, record)
    assert toy(tmp_path)["SPOS", TOP1].values == {}
    one = toy(tmp_path, digits="digits-jpeg")["SPOS", TOP1]
    assert one.values == {0: 90.0}
    assert one.recipe is not None
    assert (one.recipe.dataset, one.recipe.target) == ("digits-jpeg", "digits")


def test_the_states_of_a_table(tmp_path: Path) -> None:
    found = toy(written(tmp_path, made()))
    assert counts([*found.values()]) == {
        "rows": 5, "numbers": 8, "measured": 2, "to run": 3, "data": 1, "description": 1, "compute": 0, "refused": 1,
    }  # fmt: skip
    assert found["SPOS", "top1 (%), tiny, imagenet"].reason == "data"
    assert found["Guess", TOP1].why == "Nobody says how."
    assert found["Newest", TOP1].state == "refused"
    assert found["Newest", TOP1].why.startswith("Unknown method 'newest'")


def cell(metric: str = "top1", **run: Any) -> Cell:
    entry = Entry(method="A", space="tiny", dataset="digits", metric=metric, mean=1.0, source_table="T")
    return Cell(entry, "A", metric, RunSpec(run="spos", **run))


def value_of(record: Record, one: Cell, tmp_path: Path) -> float | None:
    """What a folder with this record says of a number."""
    (printed,) = select([f"{TOY}:2"])
    rule = Rule(**{name: getattr(one.run, name) for name in one.run.model_fields_set})
    (found,) = measure(
        replace(printed, entries=[one.entry], rules=[rule]), "test", {}, read_records(written(tmp_path, record))
    )
    return found.mean


def test_scenario_and_phase_name_one_of_several_choices(tmp_path: Path) -> None:
    record = made()
    record["results"] = [
        result({"budget": budget}, phase, top1=top1)
        for budget, phase, top1 in (("params=3M", "a", 1.0), ("params=3M", "b", 2.0), ("keep=1", "a", 3.0))
    ]
    three = {"budget": "params=3.0M"}  # however it is written
    assert value_of(record, cell(scenario=three, phase="b"), tmp_path / "1") == 2.0
    assert value_of(record, cell(scenario={"budget": "keep=1"}), tmp_path / "2") == 3.0
    assert value_of(record, cell(scenario=three), tmp_path / "3") is None  # two numbers are none
    record["results"][1]["metrics"][0]["value"] = 1.0
    assert value_of(record, cell(scenario=three), tmp_path / "4") == 1.0  # all choices share it


def test_hours_and_memory_are_those_of_a_gpu_alone(tmp_path: Path) -> None:
    record = made()
    record["measured"] |= {"peak_memory_bytes": 5e6, "peak_memory_of": "process"}
    hours, memory = cell("gpu_hours"), cell("gpu_mb")
    assert value_of(record, hours, tmp_path / "1") is None
    record["measured"]["peak_memory_of"] = "allocator"
    assert value_of(record, hours, tmp_path / "2") == 90 / 3600
    assert value_of(record, memory, tmp_path / "3") == 5.0


# ---------------------------------------------------------------------- order


def row(reported: float | None, *values: float) -> Outcome:
    entry = Entry(method="A", space="s", dataset="d", metric="m", mean=reported, source_table="T")
    return Outcome(Cell(entry, "A", "m", RunSpec()), values=dict(enumerate(values)))


def test_the_order_of_rows() -> None:
    rows = [
        *(row(1.0, 10.0, 10.2, 10.1), row(2.0, 20.0, 20.3, 20.0), row(3.0, 9.0, 23.0, 10.0)),
        *(row(4.0), row(None, 1.0)),
    ]
    # 1<2 agrees and is told apart; 1<3 agrees within noise; 2<3 is against, within noise: 11, -2.7 and 10.
    assert order(rows) == Order(rows=3, tau=pytest.approx(1 / 3), agree=2, against=1, agree_told=1, against_told=0)


def test_a_tie_orders_nothing() -> None:
    assert order([row(1.0, 5.0), row(1.0, 6.0)]) == Order(2, None, 0, 0, 0, 0)
    assert order([row(1.0, 5.0), row(2.0, 5.0), row(3.0, 6.0)]) == Order(3, pytest.approx(2 / 6**0.5), 2, 0, 0, 0)


def test_one_row_has_no_order() -> None:
    assert order([row(1.0, 5.0), row(2.0)]) is None


# ---------------------------------------------------------------------- the command


def test_a_table_from_one_end_to_the_other(tmp_path: Path, run_tiny: RunTiny) -> None:
    """What has a record is not run again, what has none is, and both stand beside the printed numbers."""
    spos = [run_tiny("spos", seed=seed) for seed in (0, 1)]
    run_tiny("fairnas")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("record.json")}
    command = ("reproduce", f"{TOY}:1", "--preset", "test", "--out", "table.md")
    done = nasbench(*command, "--seeds", "1", "--workers", "1", "--device", "cpu", cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "1 runs: 1 done" in done.out
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    found = {records.read(path)["recipe"]["train"]["clip"]: records.read(path) for path in records.find(tmp_path)}
    lines = {(line["row"], line["column"]): line for line in csv.DictReader((tmp_path / "table.csv").open())}
    fairnas = lines["FairNAS, clip=1", TOP1]
    assert (fairnas["state"], fairnas["reported"], fairnas["n"]) == ("measured", "85.0", "1")
    metric = records.metric(found[1.0], "top1")
    assert metric is not None
    assert float(fairnas["measured"]) == pytest.approx(metric["value"], rel=1e-5)
    values = [m["value"] for record in spos if (m := records.metric(record, "top1"))]
    assert float(lines["SPOS", TOP1]["measured"]) == pytest.approx(sum(values) / 2, rel=1e-5)
    assert float(lines["SPOS", TOP1]["difference"]) == pytest.approx(sum(values) / 2 - 90.0, rel=1e-5)
    page = (tmp_path / "table.md").read_text()
    assert "8 numbers: 5 measured, 0 that can be run and have no record, 2 reported only" in page
    for target in re.findall(r"\]\(([^)]+)\)", page):
        assert (tmp_path / target).is_file()
    text = {path: path.read_bytes() for path in (tmp_path / "table.md", tmp_path / "table.csv")}
    again = nasbench(*command, "--dry-run", cwd=tmp_path)
    assert again.code == 0
    assert (tmp_path / "table.csv").read_bytes() == text[tmp_path / "table.csv"]


def test_a_dry_run_runs_nothing(tmp_path: Path) -> None:
    shown = nasbench("reproduce", f"{TOY}:1", "--preset", "test", "--dry-run", cwd=tmp_path)
    assert shown.code == 0
    assert "8 numbers: 0 measured, 5 that can be run and have no record" in shown.out
    assert list(tmp_path.iterdir()) == []


def test_the_list_shows_every_table(tmp_path: Path) -> None:
    shown = nasbench("reproduce", "--list", "--runs", str(ROOT / "leaderboards"), cwd=tmp_path)
    assert (shown.code, shown.err) == (0, "")
    rows = [line.split("|") for line in shown.out.splitlines() if re.match(r"\| [a-z-]+:\w+ ", line)]
    assert len(rows) == len(select(["dance", "dynamic-supernet", "eas", "mg-darts"]))
    for _, _, _, numbers, *states, _, _ in rows:
        assert int(numbers) == sum(map(int, states))
    (total,) = (line.split("|") for line in shown.out.splitlines() if line.startswith("| all "))
    for place in range(2, len(total) - 2):
        assert int(total[place]) == sum(int(row[place]) for row in rows)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["dance:9"], "Unknown table 'dance:9'; did you mean 'dance:"),
        (["danse:1"], "Unknown paper 'danse'; did you mean 'dance'?"),
        ([], "No table is named; give one like dance:1, or --list to see them all."),
        (["dance:1", "--preset", "papers"], "Unknown preset 'papers'; did you mean 'paper'?"),
        (["dance:1", "--seeds", "0"], "--seeds 0 does not fit: expected 1 or more."),
        (["dance:1", "--dataset", "cifar10"], "Cannot read --dataset 'cifar10'; write it like"),
        (["dance:1", "--engine", "loca"], "Unknown engine 'loca'; did you mean 'local'?"),
        (["dance:1", "--workers", "0"], "--workers 0 does not fit"),
        (["dance", "--out", "a.md", "--dry-run"], "--out a.md is one file for 2 tables"),
    ],
)
def test_bad_input(tmp_path: Path, words: list[str], sentence: str) -> None:
    refused = nasbench("reproduce", *words, cwd=tmp_path)
    assert (refused.code, refused.out) == (2, "")
    assert refused.err.startswith(f"nasbench: {sentence}")
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------- what is committed


def test_no_reported_number_is_typed_twice() -> None:
    """Tables name rows, and the numbers stay where they are."""
    for folder in (ROOT / "plugins" / "nasbench_papers").iterdir():
        if (folder / "tables.yaml").is_file():
            assert not re.search(r"\b(mean|std|reported):", (folder / "tables.yaml").read_text())
