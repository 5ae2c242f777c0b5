"""Ground-truth tables: columns, questions, storage."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from nasbench_cells.nb201 import NB201
from nasbench_tiny.tiny import Tiny
from safetensors.numpy import load_file, save_file

from nasbench import BadInput, tables
from nasbench.importing import add_table
from nasbench.tables import Column, Table

TEST, VALID = Column("digits", "test", 10, "mean"), Column("digits", "valid", 10, "mean")
NUMBERS = [3, 5, 8, 26]


def made(**more: np.ndarray) -> Table:
    """Four of the 27 architectures of tiny, of width 8; accuracy is the number plus a half."""
    accuracies = np.array(NUMBERS) + 0.5
    columns = {TEST: accuracies, VALID: accuracies - 1, Column("digits", "test", 10, "0"): accuracies + 1}
    return Table("made", Tiny(width=8, image=(1, 8, 8)), np.array(NUMBERS), columns, dict(more), source="by hand")


@pytest.mark.parametrize("column", [TEST, VALID, Column("imagenet16-120", "x", 200, "777")])
def test_a_column_reads_back_from_its_name(column: Column) -> None:
    assert Column.parse(str(column)) == column


def test_what_a_table_holds() -> None:
    table, space = made(), Tiny()
    assert len(table) == 4
    assert table.architectures() == [space.from_number(n) for n in NUMBERS]
    assert [n for n in range(27) if space.from_number(n) in table] == NUMBERS


def test_query() -> None:
    table, space = made(), Tiny()
    archs = [space.from_number(n) for n in (26, 3, 26)]
    assert table.query(archs, "test", "digits") == [26.5, 3.5, 26.5]
    assert table.query(archs, "valid", "digits") == [25.5, 2.5, 25.5]
    assert table.query([], "test", "digits") == []
    assert all(type(value) is float for value in table.query(archs, "test", "digits"))


@pytest.mark.parametrize(("split", "dataset"), [("train", "digits"), ("test", "cifar10")])
def test_a_column_that_is_not_there_names_those_that_are(split: str, dataset: str) -> None:
    with pytest.raises(BadInput, match="digits/test/10/mean, digits/valid/10/mean, digits/test/10/0"):
        made().query([(0, 1, 0)], split, dataset)


def test_two_training_lengths_are_not_mixed_up() -> None:
    table = made()
    table.columns[Column("digits", "test", 90, "mean")] = np.zeros(4)
    with pytest.raises(BadInput, match="no single mean test accuracy on digits"):
        table.column("test", "digits")


def test_the_truth_is_of_the_tables_own_training_length() -> None:
    table = replace(made(), epochs=10)
    table.columns[Column("digits", "test", 90, "mean")] = np.zeros(4)
    assert table.query([Tiny().from_number(3)], "test", "digits") == [3.5]
    with pytest.raises(BadInput, match="no single mean test accuracy on digits"):
        replace(table, epochs=11).column("test", "digits")
    assert table.has("test", "digits")
    assert not replace(table, epochs=11).has("test", "digits")
    assert replace(table, epochs=11).others("cifar10") == []


def test_its_digest_is_of_what_it_says() -> None:
    assert made().digest == made().digest
    other = made()
    next(iter(other.columns.values()))[0] += 1
    assert len({made().digest, other.digest, replace(made(), epochs=10).digest}) == 3


def test_an_architecture_that_is_not_there_is_named() -> None:
    with pytest.raises(BadInput, match="made does not hold layer0=skip layer1=skip layer2=skip"):
        made().query([(0, 0, 0)], "test", "digits")


def test_everything_is_labelled() -> None:
    table = made()
    rows = table.everything(Tiny().from_number(8))
    assert [(row["dataset"], row["split"], row["epochs"], row["seed"], row["value"]) for row in rows] == [
        ("digits", "test", 10, "mean", 8.5),
        ("digits", "valid", 10, "mean", 7.5),
        ("digits", "test", 10, "0", 9.5),
    ]
    for row in rows:
        assert row["params"] == Tiny(width=8, image=(1, 8, 8)).cost(Tiny().from_number(8))["params"]
        assert (row["table"], row["metric"], row["unit"]) == ("made", "top1", "%")
    assert json.loads(json.dumps(rows)) == rows
    assert table.everything((0, 0, 0)) == []


def test_a_seed_that_an_architecture_was_not_trained_with_is_left_out() -> None:
    table = made()
    table.columns[Column("digits", "test", 10, "1")] = np.array([np.nan, 1, 2, 3])
    seeds = [[row["seed"] for row in table.everything(Tiny().from_number(n))] for n in (3, 5)]
    assert seeds == [["mean", "mean", "0"], ["mean", "mean", "0", "1"]]


# ---------------------------------------------------------------------- storage


def test_saved_and_loaded(tmp_path: Path) -> None:
    """With the size of its networks, which the asking space does not decide."""
    table = replace(made(few=np.array([True, False, False, True])), epochs=10)
    table.save(tmp_path / "t.safetensors")
    back = Table.load(tmp_path / "t.safetensors", Tiny(width=32, allowed={"layer0": [1]}))
    assert (back.name, back.source, back.space) == (table.name, table.source, table.space)
    assert back.epochs == 10
    assert [str(column) for column in back.columns] == [
        "digits/test/10/mean",
        "digits/test/10/0",
        "digits/valid/10/mean",
    ]
    assert np.array_equal(back.numbers, table.numbers)
    assert back.columns.keys() == table.columns.keys()
    for column, values in table.columns.items():
        assert np.array_equal(back.columns[column], values)
        assert back.columns[column].dtype == np.float64
    assert back.subsets["few"].tolist() == [True, False, False, True]


@pytest.mark.parametrize("keep", [0, 4, 60, 200, -1])
def test_a_truncated_table_is_refused(keep: int, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    made().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"cannot be read .* add it again with `nasbench data add tiny FILE`"):
        Table.load(path, Tiny())


@pytest.mark.parametrize("missing", ["numbers", "network", "metadata"])
def test_a_file_of_something_else_is_refused(missing: str, tmp_path: Path) -> None:
    path = tmp_path / "t.safetensors"
    made().save(path)
    arrays = load_file(path)
    meta = {"name": "made", "space": "tiny", "network": "{}", "source": ""}
    if missing == "numbers":
        del arrays["numbers"]
    if missing == "network":
        meta["network"] = '{"no such option": 1}'
    save_file(arrays, path, None if missing == "metadata" else meta)
    with pytest.raises(BadInput, match=r"t\.safetensors cannot be read"):
        Table.load(path, Tiny())


def test_nothing_is_stored_until_it_is_added() -> None:
    assert tables.stored(NB201()) is None
    assert NB201().ground_truth("cifar10") is None


def test_the_real_table_is_added_and_found(shared_data: Path, home: Path) -> None:
    file = shared_data / "nb201_truth.csv"
    said = add_table("nb201", file)
    assert said.startswith("15,625 architectures, cifar10/valid/200/mean, cifar10/test/200/mean, cifar100/")
    assert said.endswith(str(home / "tables" / "nb201.safetensors"))
    table = NB201().ground_truth("cifar100")
    assert table is not None
    assert (len(table), table.space.classes) == (15_625, 100)
    best = [round(float(table.column("test", d).max()), 2) for d in ("cifar10", "cifar100", "imagenet16-120")]
    assert best == [94.37, 73.51, 47.31]
    assert table.subsets["official327"].sum() == 327
    with file.open() as text:
        rows = list(csv.DictReader(text))[::97]
    archs = [NB201().parse(row["arch"]) for row in rows]
    assert table.query(archs, "valid", "cifar100") == [float(row["cifar100_valid"]) for row in rows]
    assert (home / "tables" / "nb201.safetensors").stat().st_size < 1_000_000


def test_named_subsets_are_kept_when_a_table_is_added_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is of the same architectures, and can be read."""
    monkeypatch.setattr(Tiny, "read_ground_truth", lambda self, path: replace(made(), name="tiny"))
    place = tables.stored_path("tiny")
    made(few=np.array([True, False, False, True])).save(place)
    assert "; subsets few -> " in add_table("tiny", tmp_path)
    assert Table.load(place, Tiny()).subsets["few"].tolist() == [True, False, False, True]
    other = np.array([1, 2, 3, 4])
    replace(made(few=np.array([True, False, False, True])), numbers=other).save(place)
    assert "subsets" not in add_table("tiny", tmp_path)
    place.write_bytes(b"junk")
    assert "subsets" not in add_table("tiny", tmp_path)


# ---------------------------------------------------------------------- tables of the project's own


def test_an_embedded_csv(tmp_path: Path) -> None:
    """Rows in any order, seeds by name, means over them."""
    path = tmp_path / "tiny-made.csv"
    path.write_text(
        "arch,index,valid_7,valid_8,test_7,test_8\n"
        "layer0=skip layer1=skip layer2=bottleneck,2,10,20,30,50\n"
        "layer0=skip layer1=skip layer2=skip,0,1,2,3,4\n"
    )
    table = tables.read_csv(path, "digits", 60, Tiny())
    assert table.name == "tiny-made"
    assert table.numbers.tolist() == [0, 2]
    assert {str(column): values.tolist() for column, values in table.columns.items()} == {
        "digits/valid/60/7": [1, 10],
        "digits/valid/60/8": [2, 20],
        "digits/valid/60/mean": [1.5, 15],
        "digits/test/60/7": [3, 30],
        "digits/test/60/8": [4, 50],
        "digits/test/60/mean": [3.5, 40],
    }


def test_the_embedded_table_of_tiny() -> None:
    table = Tiny().ground_truth("digits")
    assert table is not None
    assert table.architectures() == list(Tiny().architectures())
    assert table.space == Tiny(width=16, classes=10, image=(1, 8, 8))
    assert all(((values > 50) & (values < 100)).all() for values in table.columns.values())
    text = (Path(tables.__file__).parents[1] / "search_spaces/nasbench_tiny/tables/tiny-digits.csv").read_text()
    for row in csv.DictReader(text.splitlines()):
        assert Tiny().number(Tiny().parse(row["arch"])) == int(row["index"])
