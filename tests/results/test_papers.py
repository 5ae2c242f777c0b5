"""The tables of papers: every printed number stands in one, and says what it is run by or why it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from nasbench import BadInput
from nasbench.plugins import discover
from nasbench.results.papers import Printed, Rule, select, tables
from nasbench.results.reported import Entry, installed
from nasbench.results.reproduce import measure

TABLES = select(installed())
PRESETS = ["paper", "cpu", "quick"]
#: Printed in the text beside a figure, or quoted: no table.
TEXT = {"Section 3.6 text", "Section V-E2", "Section V-D1", "Section 4.2 text", "Section D text"}


def test_every_number_of_a_table_stands_in_exactly_one() -> None:
    shown = [entry for printed in TABLES for entry in printed.entries]
    papers = {printed.paper.paper: printed.paper for printed in TABLES}.values()
    assert len(shown) == len({id(entry) for entry in shown}) == 1002
    assert {e.source for paper in papers for e in paper.entries} - {e.source for e in shown} == TEXT


@pytest.mark.parametrize("printed", TABLES, ids=lambda p: p.name)
def test_every_rule_is_about_a_number_and_every_cell_is_one_of_its_own(printed: Printed) -> None:
    """Rules for all tables of a paper may leave some out."""
    for rule in printed.table.rules:
        assert any(rule.fits(entry, preset) for entry in printed.entries for preset in PRESETS), rule
    for preset in PRESETS:
        cells = printed.cells(preset)
        places = [(cell.row, cell.column) for cell in cells]
        assert len(places) == len(set(places)), [place for place in places if places.count(place) > 1]
        for cell in cells:
            assert not cell.run.reported_only or cell.run.why, f"{cell.row} is reported only and does not say why"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("printed", TABLES, ids=lambda p: p.name)
def test_every_run_resolves_where_its_method_is_installed(printed: Printed, preset: str) -> None:
    """Also those whose images are not here, as if they were."""
    here = {name: name for name in ("food101", "stanford_cars", "cub200", "imagenet1k", *SUPERCLASSES)}
    for one in measure(printed, preset, here, {}):
        run = one.cell.run
        names = {term.partition("[")[0] for term in (run.run or "").split("+")} | {run.space or one.cell.entry.space}
        absent = names - {name for kind in ("method", "modifier", "space") for name in discover(kind)}
        assert one.recipe or one.reason or absent, f"{one.cell.row}, {one.cell.column}: {one.why}"


SUPERCLASSES = ("imagenet-10", "imagenet-12", "car-20")


@pytest.mark.parametrize("name", SUPERCLASSES)
def test_superclass_t_is_the_t_th_of_its_list(name: str) -> None:
    import nasbench_eas

    file = Path(nasbench_eas.__file__).parent / "superclasses" / f"{name}.yaml"
    order = [str(superclass) for superclass in yaml.safe_load(file.read_text())]
    mine = [cell for one in TABLES for cell in one.cells("paper") if cell.entry.dataset == name and one.key in "12DE"]
    found = {
        (cell.entry.setting["superclass"], (cell.run.scenario or {})["superclass"])
        for cell in mine
        if "superclass" in cell.entry.setting
    }
    assert found == {(f"T-{t}", superclass) for t, superclass in enumerate(order, 1)}


# ---------------------------------------------------------------------- rules

ENTRY = Entry(
    method="A", space="tiny", dataset="digits", metric="top1", mean=1.0, setting={"beta": 0}, source_table="T"
)


def with_rules(tmp_path: Path, *rules: dict[str, Any], **table: Any) -> Printed:
    entry = ENTRY.model_dump() | table.pop("entry", {})
    (tmp_path / "reported.yaml").write_text(yaml.safe_dump({"paper": "P", "note": "N", "entries": [entry]}))
    whole = {"title": "T", "source": "T", "rules": [*rules], **table}
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump({"tables": {"1": whole}}))
    (printed,) = tables("p", tmp_path)
    return printed


@pytest.mark.parametrize(
    ("where", "fits"),
    [
        ({}, True),
        ({"method": "A"}, True),
        ({"method": ["B", "A"], "beta": 0}, True),
        ({"beta": 0.9}, False),
        ({"gamma": None}, True),
        ({"gamma": 1}, False),
        ({"preset": "cpu"}, True),
        ({"preset": ["quick", "paper"]}, False),
    ],
)
def test_where_a_rule_fits(where: dict[str, Any], fits: bool) -> None:
    assert Rule(where=where).fits(ENTRY, "cpu") is fits


def test_a_later_rule_adds_changes_and_takes_back(tmp_path: Path) -> None:
    printed = with_rules(
        tmp_path,
        {"run": "spos", "set": {"train.epochs": 1, "train.lr": 0.1}, "phase": "retrain"},
        {"set": {"train.epochs": 2}, "where": {"method": "A"}},
        {"run": "fairnas", "phase": None},
        {"where": {"preset": "paper"}, "set": None, "reported_only": "compute"},
    )
    (cpu,), (paper,) = printed.cells("cpu"), printed.cells("paper")
    assert (cpu.run.run, cpu.run.set, cpu.run.phase) == ("fairnas", {"train.epochs": 2, "train.lr": 0.1}, None)
    assert (paper.run.set, paper.run.reported_only) == (None, "compute")


def test_what_is_printed_beside_a_number_fills_its_rule(tmp_path: Path) -> None:
    rule = {"run": "a[b={beta}]", "set": {"a.c": ["params={params_m}M"]}, "scenario": {"budget": "keep={beta}"}}
    (cell,) = with_rules(tmp_path, rule, entry={"params_m": 2.1}).cells("cpu")
    assert cell.run.run == "a[b=0]"
    assert (cell.run.set, cell.run.scenario) == ({"a.c": ["params=2.1M"]}, {"budget": "keep=0"})
    for wrong in ("a[b={gamma}]", "a[b={]"):
        (printed,) = [with_rules(tmp_path, {"run": wrong})]
        with pytest.raises(BadInput, match="in braces a rule may name beta, params_m, madds_m"):
            printed.cells("cpu")


def test_the_label_of_a_number_is_its_run(tmp_path: Path) -> None:
    (cell,) = with_rules(tmp_path, entry={"label": "spos+ms"}).cells("cpu")
    assert cell.run.run == "spos+ms"


def test_a_number_that_nothing_is_said_of_is_named(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"p:1: nothing says what A \{'beta': 0\} is run by; add a rule."):
        with_rules(tmp_path).cells("cpu")


def test_switches_tell_rows_apart_unless_they_are_columns(tmp_path: Path) -> None:
    entries = [ENTRY.model_dump() | {"setting": {"beta": beta, "level": 1, "same": 3}} for beta in (0, 0.9)]
    (tmp_path / "reported.yaml").write_text(yaml.safe_dump({"paper": "P", "note": "N", "entries": entries}))
    table = {"title": "T", "source": "T", "columns": ["level"], "rules": [{"run": "spos"}]}
    (tmp_path / "tables.yaml").write_text(yaml.safe_dump({"tables": {"1": table}}))
    cells = tables("p", tmp_path)[0].cells("cpu")
    assert [cell.row for cell in cells] == ["A, beta=0", "A, beta=0.9"]
    assert {cell.column for cell in cells} == {"top1, tiny, digits, level=1"}


# ---------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("danse", "Unknown paper 'danse'; did you mean 'dance'?"),
        ("danse:1", "Unknown paper 'danse'; did you mean 'dance'?"),
        ("dance:3", "Unknown table 'dance:3'; did you mean 'dance:"),
        ("dynamic-supernet:mian", "Unknown table 'dynamic-supernet:mian'; did you mean 'dynamic-supernet:main'?"),
        ("", "Unknown paper ''"),
        (":", "Unknown paper ':'"),
    ],
)
def test_an_unknown_name_gets_the_nearest(name: str, sentence: str) -> None:
    with pytest.raises(BadInput) as caught:
        select([name])
    assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read as YAML"),
        ("[]", "must map tables to what they hold"),
        ("tables: {}", "must map tables to what they hold"),
        ("tables: {'1': 3}", "must map tables to what they hold"),
        ("tables: [a]", "must map tables to what they hold"),
        ("table: {'1': {title: T, source: T}}", "must map tables to what they hold"),
        ("rules: 3\ntables: {'1': {title: T, source: T}}", "rules must be a list"),
        ("tables: {'1': {source: T}}", "table 1: title"),
        ("tables: {'1': {title: T, source: T, column: []}}", "did you mean"),
        ("tables: {'1': {title: T, source: U}}", "table 1: no number is printed in 'U'"),
        (
            "tables: {'1': {title: T, source: T, rules: [{reported_only: lazy}]}}",
            "table 1: rule 1: reported_only = 'lazy' does not fit",
        ),
        ("tables: {'1': {title: T, source: T, rules: [{runs: spos}]}}", "did you mean"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: str, sentence: str) -> None:
    with_rules(tmp_path, {"run": "spos"})
    (tmp_path / "tables.yaml").write_text(content)
    with pytest.raises(BadInput, match=r"tables\.yaml") as caught:
        tables("p", tmp_path)
    assert sentence in str(caught.value)
