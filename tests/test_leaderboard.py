"""Records in, tables out."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path
from typing import Any

import pytest

from nasbench import BadInput, records
from nasbench.leaderboard import file_name, publish, read_all, render, render_all, stale, tables
from nasbench.recipe import parse_set, resolve
from tests.conftest import Record, RunTiny


def made(method: str = "spos", tau: float | None = 0.5, *sets: str, seed: int = 0, **more: Any) -> Record:
    """A record as a run would leave it, with these numbers."""
    recipe = resolve(method, "tiny", preset="test", seed=seed, sets=parse_set(list(sets)))
    values = {"kendall_tau": tau, "params_tau": 0.4, "top1": 90.0, "params": 2_000, "accuracy_density": 45_000.0} | more
    exclude: Any = {"device": True, "engine": {"threads", "checkpoint_seconds"}}
    return {
        "format": records.FORMAT,
        "id": records.identity(recipe, "0"),
        "recipe": recipe.model_dump(mode="json", exclude=exclude),
        "dataset_hash": "0",
        "results": [{"arch": "", "metrics": [{"name": name, "value": value} for name, value in values.items()]}],
        "measured": {"seconds": {"train": 60.0, "score": 30.0}, "device": "cpu", "threads": 2, "date": "2026-01-02T03"},
    }


def written(folder: Path, *found: Record) -> Path:
    for i, record in enumerate(found):
        path = folder / f"run{i}" / "record.json"
        path.parent.mkdir(parents=True)
        path.write_text(records.dumps(record))
    return folder


def rows(*found: Record) -> list[dict[str, str]]:
    """The rows of the only table, as the text of its cells."""
    ((key, table),) = tables((f"run{i}", record) for i, record in enumerate(found)).items()
    return list(csv.DictReader(io.StringIO(render(key, table, "csv"))))


def test_a_row_is_mean_spread_and_interval_over_seeds() -> None:
    (row,) = rows(*(made(tau=tau, seed=seed) for seed, tau in enumerate([0.1, 0.2, 0.3])))
    assert row == {
        "method": "spos",
        "Kendall's tau": "0.200 ± 0.100",
        "95 % interval": "[-0.048, 0.448]",
        "tau by params": "0.400 ± 0.000",
        "true top-1 (%)": "90.00 ± 0.00",
        "params (M)": "0.002 ± 0.000",
        "density (%/M)": "45000.0 ± 0.0",
        "minutes": "1.5 ± 0.0",
        "n": "3",
    }


def test_one_seed_has_neither_spread_nor_interval() -> None:
    (row,) = rows(made())
    assert (row["Kendall's tau"], row["95 % interval"], row["n"]) == ("0.500", "", "1")


def test_what_is_undefined_is_left_out() -> None:
    (row,) = rows(made(tau=None), made(tau=0.3, seed=1))
    assert (row["Kendall's tau"], row["n"]) == ("0.300", "2")
    assert rows(made(tau=None))[0]["Kendall's tau"] == ""


def test_the_best_tau_stands_first() -> None:
    found = rows(made("spos", 0.2), made("fairnas", 0.6), made("fairnas+calr", 0.4), made("random-search", None))
    assert [row["method"] for row in found] == ["fairnas", "fairnas+calr", "spos", "random-search"]


def test_the_order_of_the_records_does_not_matter() -> None:
    found = [(f"{m}{s}", made(m, s / 10, seed=s)) for m in ("spos", "fairnas", "spos+ms") for s in range(4)]
    shuffled = random.Random(0).sample(found, len(found))
    assert render_all(shuffled) == render_all(found)


def test_runs_with_other_settings_are_rows_of_their_own() -> None:
    found = rows(made(), made("spos", 0.5, "train.epochs=7"), made("spos+calr[g=exp]"), made("spos+calr"))
    assert {row["method"] for row in found} == {
        "spos, train.epochs=2",
        "spos, train.epochs=7",
        "spos+calr",
        "spos+calr[g=exp]",
    }
    assert {row["n"] for row in found} == {"1"}


def test_what_cannot_be_compared_stands_in_tables_of_its_own(tmp_path: Path) -> None:
    found = [made(), made("spos", 0.5, "score.subset=all"), made("spos", 0.5, "score.subset=random:9")]
    keys = list(tables((str(i), record) for i, record in enumerate(found)))
    assert [key[-1] for key in keys] == ["all", "random:9", "table"]
    names = {file_name(key) for key in keys}
    assert names == {f"tiny-digits-digits-test-{subset}.md" for subset in ("all", "random9", "table")}


@pytest.mark.parametrize(
    ("taus", "verdict"),
    [
        ([0.80, 0.81, 0.82], "ranks better than"),
        ([0.10, 0.11, 0.12], "ranks worse than"),
        ([0.20, 0.50, 0.80], "cannot be told from"),
        ([0.90], "cannot be told from"),
    ],
)
def test_a_difference_within_noise_is_not_called_better(taus: list[float], verdict: str) -> None:
    text = render_all([(f"{s}", made(tau=tau, seed=s)) for s, tau in enumerate(taus)])
    assert f"- spos {verdict} the parameter count (tau 0.400)." in text


def test_latex_and_unknown_formats() -> None:
    assert r"\begin{tabular}" in render_all([("run", made())], "latex")
    with pytest.raises(BadInput, match="Unknown format 'mdd'; did you mean 'md'"):
        render_all([("run", made())], "mdd")


def test_a_run_counts_once_however_often_its_record_lies_there(tmp_path: Path) -> None:
    assert len(read_all(written(tmp_path, made(), made(), made(seed=1)))) == 2


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": 1}', '{"format": 99}', "\0"])
def test_a_damaged_record_is_named(tmp_path: Path, content: str) -> None:
    written(tmp_path, made())
    (tmp_path / "run0" / "record.json").write_text(content)
    with pytest.raises(BadInput, match=r"record\.json"):
        read_all(tmp_path)


def test_no_records_is_bad_input(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(BadInput, match="There are no records below"):
            read_all(folder)


# ---------------------------------------------------------------------- published tables


def test_published_tables_stand_beside_their_records(tmp_path: Path, run_tiny: RunTiny) -> None:
    for seed in (0, 1):
        run_tiny("random-search", seed=seed)
    (table,) = publish(tmp_path / "runs", tmp_path / "out")
    assert table.name == "tiny-digits-digits-test-table.md"
    for link in table.read_text().split("](")[1:]:
        assert (tmp_path / "out" / link.partition(")")[0]).is_file()
    assert stale(tmp_path / "out") == []
    assert publish(tmp_path / "runs", tmp_path / "out") == [table]
    assert len(list((tmp_path / "out" / "records").iterdir())) == 2


def test_publishing_adds_to_what_is_there(tmp_path: Path) -> None:
    publish(written(tmp_path / "a", made(seed=0)), tmp_path / "out")
    (table,) = publish(written(tmp_path / "b", made(seed=1), made("fairnas")), tmp_path / "out")
    assert [line.split("|")[1].strip() for line in table.read_text().splitlines() if "0.500" in line] == [
        "fairnas",
        "spos",
    ]


def test_a_table_that_its_records_do_not_give_is_stale(tmp_path: Path) -> None:
    (table,) = publish(written(tmp_path / "runs", made()), tmp_path / "out")
    text = table.read_text()
    table.write_text(text.replace("0.500", "0.900"))
    assert stale(tmp_path / "out") == [table]
    table.unlink()
    assert stale(tmp_path / "out") == [table]
    table.write_text(text)
    assert stale(tmp_path / "out") == []
    (record,) = (tmp_path / "out" / "records").iterdir()
    record.write_text(records.dumps(made(tau=0.6)))
    assert stale(tmp_path / "out") == [table]
