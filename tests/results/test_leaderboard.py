"""Records in, tables out."""

from __future__ import annotations

import csv
import io
import random
from pathlib import Path
from typing import Any

import pytest

from nasbench import BadInput, records
from nasbench.results.leaderboard import (
    everywhere,
    file_name,
    key_of,
    publish,
    read_all,
    render,
    render_all,
    stale,
    tables,
)
from nasbench.results.reported import Entry, Paper
from tests.boards import made, result, written
from tests.conftest import Install, Record, RunTiny


def rows(*found: Record) -> list[dict[str, str]]:
    """The rows of the only table, as the text of its cells."""
    ((key, table),) = tables((f"run{i}", record) for i, record in enumerate(found)).items()
    return list(csv.DictReader(io.StringIO(render(key, table, "csv"))))


def test_a_row_is_mean_spread_and_interval_over_seeds() -> None:
    (row,) = rows(*(made(tau=tau, seed=seed) for seed, tau in enumerate([0.1, 0.2, 0.3])))
    assert row == {
        **dict(zip(("space", "target", "dataset", "preset", "subset"), key_of(made()), strict=True)),
        "method": "spos",
        "Kendall's tau": "0.200 ± 0.100",
        "95 % interval": "[-0.048, 0.448]",
        "tau by params": "0.400 ± 0.000",
        "true top-1 (%)": "90.00 ± 0.00",
        "95 % interval (top-1)": "[90.00, 90.00]",
        "params (M)": "0.002 ± 0.000",
        "density (%/M)": "45000.0 ± 0.0",
        "minutes": "1.5 ± 0.0",
        "n": "3",
    }


def test_one_seed_has_neither_spread_nor_interval() -> None:
    (row,) = rows(made())
    assert (row["Kendall's tau"], row["n"]) == ("0.500", "1")
    assert "95 % interval" not in row  # a column that no row has


def test_what_is_undefined_is_left_out() -> None:
    (row,) = rows(made(tau=None), made(tau=0.3, seed=1))
    assert (row["Kendall's tau"], row["n"]) == ("0.300", "2")
    assert [r["Kendall's tau"] for r in rows(made(tau=0.3), made("fairnas", None))] == ["0.300", ""]


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
        "spos",  # as the preset has it
        "spos, train.epochs=7",
        "spos+calr",
        "spos+calr[g=exp]",
    }
    assert {row["n"] for row in found} == {"1"}
    assert rows(made("spos", 0.5, "train.epochs=7"))[0]["method"] == "spos, train.epochs=7"  # also where it is alone
    moved = made("spos", 0.5, "engine.precision=bfloat16")
    assert rows(moved)[0]["method"] == "spos, engine.precision=bfloat16"  # the preset test says float32


def test_a_setting_that_an_older_record_lacks_has_its_default() -> None:
    old, new = made(tau=0.1), made(tau=0.3, seed=1)
    del old["recipe"]["score"]["batch_norm"], old["recipe"]["score"]["recalibration_images"]
    (row,) = rows(old, new)
    assert (row["method"], row["n"], row["Kendall's tau"]) == ("spos", "2", "0.200 ± 0.141")
    found = rows(old, new, made("spos", 0.5, "score.batch_norm=recalibrated"))
    assert [row["method"] for row in found] == ["spos, score.batch_norm=recalibrated", "spos"]


def test_what_cannot_be_compared_stands_in_tables_of_its_own(tmp_path: Path) -> None:
    found = [made(), made("spos", 0.5, "score.subset=all"), made("spos", 0.5, "score.subset=random:9")]
    keys = list(tables((str(i), record) for i, record in enumerate(found)))
    assert [key[-1] for key in keys] == ["all", "random:9", "table"]
    names = {file_name(key) for key in keys}
    assert names == {f"tiny-digits-digits-test-{subset}.md" for subset in ("all", "random9", "table")}


def test_scores_ranked_against_another_dataset_too_stand_in_a_table_of_its_own() -> None:
    elsewhere = {"kendall_tau.other": 0.1, "params_tau.other": 0.3, "top1.other": 40.0}
    run, lookup = made("spos", 0.5, **elsewhere), made("random-search", None, **{"top1.other": 41.0})
    found = tables(everywhere([("a", run), ("b", lookup)]))
    assert {key[1]: [row["method"] for row in rows] for key, rows in found.items()} == {
        "digits": ["spos", "random-search"],
        "other": ["spos"],  # what was looked up for one dataset is no search for another
    }
    ((key, rows),) = ((key, rows) for key, rows in found.items() if key[1] == "other")
    cited = paper(printed(0.751), printed(0.7, dataset="other"))
    (row,) = csv.DictReader(io.StringIO(render(key, rows, "csv", [cited])))
    assert (row["Kendall's tau"], row["tau by params"], row["true top-1 (%)"]) == ("0.100", "0.300", "40.00")
    assert (row["params (M)"], row["n"], row["reported tau (paper)"]) == ("0.002", "1", "0.700 (Table F)")
    assert "those of the runs ranked against digits: nothing was trained or chosen anew" in render(key, rows)
    assert render_all([("a", run), ("b", lookup)]).count("nothing was trained or chosen anew") == 1


def test_a_run_made_for_a_target_counts_before_one_only_seen_from_there() -> None:
    own = made(tau=0.9)
    own["recipe"]["target"] = "other"
    seen = [made(tau=0.5, seed=seed, **{"kendall_tau.other": 0.1}) for seed in (0, 1)]
    found = tables(everywhere([("a", seen[0]), ("b", own), ("c", seen[1])]))
    (row,) = next(rows for key, rows in found.items() if key[1] == "other")
    assert (row["seeds"], row["values"]["kendall_tau"]) == ([0, 1], [0.9, 0.1])


@pytest.mark.parametrize(
    ("taus", "verdict"),
    [
        ([0.80, 0.81, 0.82], "ranks better than"),
        ([0.10, 0.11, 0.12], "ranks worse than"),
        ([0.20, 0.50, 0.80], "cannot be told from"),
    ],
)
def test_a_difference_within_noise_is_not_called_better(taus: list[float], verdict: str) -> None:
    text = render_all([(f"{s}", made(tau=tau, seed=s)) for s, tau in enumerate(taus)])
    assert f"- spos {verdict} the parameter count (tau 0.400)." in text


def test_two_seeds_give_no_verdict() -> None:
    text = render_all([("run", made(tau=0.9)), ("run2", made(tau=0.91, seed=1))])
    assert "\n- Rows of fewer than three seeds get no verdict.\n" in text
    assert "parameter count" not in text


def test_the_parameter_count_is_not_compared_with_itself() -> None:
    assert "parameter count" not in render_all([(f"{s}", made("params", 0.4, seed=s)) for s in range(3)])


def test_no_interval_leaves_what_an_accuracy_can_be() -> None:
    found = rows(*(made(tau=tau, seed=s, top1=top1) for s, (tau, top1) in enumerate([(1, 99), (0.9, 60), (-0.9, 98)])))
    assert (found[0]["95 % interval"], found[0]["95 % interval (top-1)"]) == ("[-1.000, 1.000]", "[30.44, 100.00]")
    found = rows(*(made(seed=seed, top1=top1) for seed, top1 in enumerate([91, 89, 10])))
    assert found[0]["95 % interval (top-1)"] == "[0.00, 100.00]"


def test_what_a_search_was_told_is_a_column() -> None:
    told, ranked = made("random-search", None), made()
    for record, subset in ((told, ""), (ranked, "table")):
        record["results"][0]["metrics"].append({"name": "anytime_valid", "value": 9.0, "n": 20, "subset": subset})
    (one,), (other,) = rows(told), rows(ranked)
    assert (one["looked up"], "looked up" in other) == ("20", False)
    assert "Looked up: networks trained alone that a search was told" in render_all([("a", told)])


def test_latex_and_unknown_formats() -> None:
    latex = render_all([("run", made())], "latex")
    assert latex.startswith("% tiny, digits, trained on digits, preset test, subset table\n\\begin{tabular}")
    with pytest.raises(BadInput, match="Unknown format 'mdd'; did you mean 'md'"):
        render_all([("run", made())], "mdd")


def test_a_run_counts_once_however_often_its_record_lies_there(tmp_path: Path) -> None:
    assert len(read_all(written(tmp_path, made(), made(), made(seed=1)))) == 2


def test_runs_of_several_folders_stand_in_one_table(tmp_path: Path) -> None:
    mine = written(tmp_path / "mine", made("fairnas", 0.6), made())
    theirs = written(tmp_path / "theirs", made())
    found = read_all(mine, theirs)
    assert [path for path, _ in found] == [str(mine / f"run{i}" / "record.json") for i in (0, 1)]
    ((_, rows),) = tables(found).items()
    assert [row["method"] for row in rows] == ["fairnas", "spos"]
    with pytest.raises(BadInput, match=r"no records below \S+/a or \S+/b;"):
        read_all(tmp_path / "a", tmp_path / "b")


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
    (tmp_path / "out" / "README.md").write_text("Not a table.")
    orphan = tmp_path / "out" / "nb201-digits-gone-quick-table.md"
    orphan.write_text("Its records are gone.")
    assert stale(tmp_path / "out") == [table, orphan]


def test_rows_of_csv_say_which_table_they_are_of() -> None:
    lines = render_all([("run", made())], "csv").splitlines()
    assert lines[0].startswith("space,target,dataset,preset,subset,method,")
    assert lines[1].startswith("tiny,digits,digits,test,table,spos,")


# ---------------------------------------------------------------------- what papers print


def printed(
    mean: float, std: float | None = None, label: str = "spos", metric: str = "kendall_tau", **more: str
) -> Entry:
    where = {"space": "tiny", "dataset": "digits", "source_table": "Table F (a scan)"} | more
    return Entry(label=label, method="Printed", metric=metric, mean=mean, std=std, **where)


def paper(*entries: Entry) -> Paper:
    return Paper(paper="A paper (2020)", note="At its own setting.", entries=list(entries))


def text(format: str, *papers: Paper) -> str:
    return render_all([("a", made("spos", 0.2)), ("b", made("fairnas", 0.1))], format, papers)


def test_reported_numbers_stand_in_columns_of_their_own() -> None:
    shown = text("csv", paper(printed(0.751, 0.008), printed(93.5, label="fairnas", metric="top1")))
    spos, fairnas = csv.DictReader(io.StringIO(shown))
    assert list(spos)[-3:] == ["n", "reported tau (paper)", "reported top-1 (paper)"]
    assert (spos["reported tau (paper)"], spos["reported top-1 (paper)"]) == ("0.751 ± 0.008 (Table F)", "")
    assert (fairnas["reported tau (paper)"], fairnas["reported top-1 (paper)"]) == ("", "93.50 (Table F)")
    assert (spos["Kendall's tau"], fairnas["Kendall's tau"]) == ("0.200", "0.100")


def test_every_format_has_the_reported_column() -> None:
    for format in ("md", "csv", "latex"):
        shown = text(format, paper(printed(0.751, 0.008)))
        assert "reported tau (paper)" in shown
        assert "0.751 ± 0.008 (Table F)" in shown
        assert "reported top-1" not in shown


def test_the_note_names_the_paper_once_and_only_if_it_is_cited() -> None:
    cited = paper(printed(0.7), printed(0.6, label="fairnas"), printed(90.0, metric="top1"))
    other = Paper(paper="Another", note="", entries=[printed(0.1, label="fairnas")])
    shown = text("md", cited, other)
    assert shown.count("Reported: as printed in A paper (2020). At its own setting.\n\nMeasured on") == 1
    assert "Another" not in shown


def test_the_first_printed_number_is_shown() -> None:
    shown = text("csv", paper(printed(0.1), printed(0.2, source_table="Table J")), paper(printed(0.3)))
    assert "0.100 (Table F)" in shown
    assert "Table J" not in shown


@pytest.mark.parametrize("other", [{"space": "nb201"}, {"dataset": "cifar10"}, {"label": "spos+ms"}, {"metric": "CB"}])
def test_a_number_for_something_else_is_not_shown(other: dict[str, Any]) -> None:
    unlabelled = Entry(method="spos", space="tiny", dataset="digits", metric="kendall_tau", mean=1, source_table="")
    assert text("md", paper(printed(0.751, **other), unlabelled)) == text("md")


def test_reported_numbers_go_by_the_target_and_not_by_the_images() -> None:
    ((_, table),) = tables([("a", made())]).items()
    cited = [paper(printed(0.751))]
    assert "0.751" in render(("tiny", "digits", "digits-jpeg", "test", "table"), table, papers=cited)
    assert "0.751" not in render(("tiny", "other", "digits", "test", "table"), table, papers=cited)


def test_a_row_with_other_settings_has_no_reported_number() -> None:
    found = [("b", made("spos", 0.5, "train.momentum=0", "train.nesterov=false"))]
    assert render_all(found, papers=[paper(printed(0.751))]) == render_all(found)


def test_reported_numbers_come_from_every_installed_paper(tmp_path: Path, install: Install) -> None:
    runs, out = written(tmp_path / "runs", made()), tmp_path / "out"
    (table,) = publish(runs, out)
    assert "reported" not in table.read_text()
    site = install("press", papers={"press": "press_of_a_paper:HERE"})
    (site / "press_of_a_paper.py").write_text(f"HERE = {str(site)!r}")
    entry = "{label: spos, method: SPOS, space: tiny, dataset: digits, metric: top1, mean: 93, source_table: Table A}"
    (site / "reported.yaml").write_text(f"paper: P\nnote: N\nentries:\n- {entry}\n")
    assert stale(out) == [table]
    assert publish(runs, out) == [table]
    assert "| 93.00 (Table A)" in table.read_text()
    assert stale(out) == []


# ---------------------------------------------------------------------- several scenarios


def several(method: str, seed: int, *top1s: float) -> Record:
    """A record with a choice for each of two budgets, before and after tuning."""
    places = [(budget, phase) for budget in ("keep=0.3", "keep=0.5") for phase in ("sampled", "tuned")]
    results = [
        result({"budget": budget}, phase, top1=top1, madds=5e6, params=1e6)
        for (budget, phase), top1 in zip(places, top1s, strict=True)
    ]
    return made(method, seed=seed) | {"results": results}


def test_a_row_for_each_scenario_and_phase() -> None:
    found = rows(
        several("spos", 0, 10, 60, 20, 80), several("spos", 1, 12, 62, 22, 82), several("fairnas", 0, 1, 2, 3, 4)
    )
    third = rows(*(several("spos", seed, top1, 0, 0, 0) for seed, top1 in enumerate((1, 2, 3))))
    assert [(r["budget"], r["phase"], r["method"], r["top-1 (%)"], r["n"]) for r in found] == [
        ("keep=0.3", "sampled", "spos", "11.00 ± 1.41", "2"),
        ("keep=0.3", "sampled", "fairnas", "1.00", "1"),
        ("keep=0.3", "tuned", "spos", "61.00 ± 1.41", "2"),
        ("keep=0.3", "tuned", "fairnas", "2.00", "1"),
        ("keep=0.5", "sampled", "spos", "21.00 ± 1.41", "2"),
        ("keep=0.5", "sampled", "fairnas", "3.00", "1"),
        ("keep=0.5", "tuned", "spos", "81.00 ± 1.41", "2"),
        ("keep=0.5", "tuned", "fairnas", "4.00", "1"),
    ]
    assert third[0]["95 % interval (top-1)"] == "[0.00, 4.48]"
    assert "95 % interval (top-1)" not in found[0]  # of two seeds it would be six times as wide as they are apart
    assert {r["MAdds (M)"] for r in found} == {"5.0 ± 0.0", "5.0"}
    assert not {"Kendall's tau", "tau by params"} & set(found[0])  # nothing was ranked


def test_what_was_not_measured_is_left_out_beside_what_was() -> None:
    searched, trained = result(params=1e6), result(None, "retrain", params=1e6, top1=90.0)
    assert [r["method"] for r in rows(made() | {"results": [searched]})] == ["spos"]
    (row,) = rows(made() | {"results": [searched, trained]})
    assert (row["top-1 (%)"], row.get("phase", "retrain")) == ("90.00", "retrain")


def test_options_of_the_preset_are_not_told() -> None:
    """A label names what differs from the preset of its table, not from the class's defaults."""
    plain, changed = made("enas"), made("enas[samples=3]")
    assert "[" in plain["recipe"]["method"]  # the preset test has options of its own
    assert {row["method"] for row in rows(plain, changed)} == {"enas", "enas[samples=3]"}
