"""Which architectures are ranked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from nasbench_cells.nb201 import NB201
from nasbench_tiny.tiny import Tiny

from nasbench import Arch, BadInput, subsets
from nasbench.subsets import pinned, resolve_subset
from nasbench.tables import Column, Table

SPACE = Tiny()
HELD = list(range(0, 27, 2))
FEW = {"few": np.arange(14) < 3}
TABLE = Table("made", SPACE, np.array(HELD), {Column("digits", "test", 10, "mean"): np.zeros(14)}, FEW)


def archs(numbers: list[int]) -> list[Arch]:
    return [SPACE.from_number(n) for n in numbers]


@pytest.mark.parametrize("name", ["table", "all"])
def test_where_there_is_a_table_its_architectures_are_ranked(name: str) -> None:
    assert resolve_subset(name, SPACE, TABLE) == archs(HELD)


def test_without_a_table_all_is_the_space() -> None:
    assert resolve_subset("all", SPACE, None) == list(SPACE.architectures())
    assert resolve_subset("all", SPACE.restrict({"layer0": [1]}), None) == list(SPACE.architectures())


def test_a_subset_that_the_table_names() -> None:
    assert resolve_subset("few", SPACE, TABLE) == archs([0, 2, 4])


@pytest.mark.parametrize("truth", [TABLE, None])
def test_random(truth: Table | None) -> None:
    """So many different ones, by number, the same every time; in the table where there is one."""
    drawn = resolve_subset("random:9", SPACE, truth)
    assert len(set(drawn)) == len(drawn) == 9
    assert drawn == sorted(drawn)
    assert drawn == resolve_subset("random:9", SPACE, truth)
    assert set(drawn) <= set(resolve_subset("all", SPACE, truth))
    whole = len(resolve_subset("all", SPACE, truth))
    assert resolve_subset(f"random:{whole}", SPACE, truth) == resolve_subset("all", SPACE, truth)


def test_of_a_space_too_large_to_list_some_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subsets, "LISTED", 10_000)
    space = NB201()
    drawn = resolve_subset("random:500", space, None)
    assert len(set(drawn)) == len(drawn) == 500  # of 15,625, some are drawn twice
    assert drawn == resolve_subset("random:500", space, None)
    assert all(arch in space for arch in drawn)
    with pytest.raises(BadInput, match="asks for more than the 15625"):
        resolve_subset("random:15626", space, None)
    with pytest.raises(BadInput, match="nb201 has 15625 architectures, too many to rank all; use random:N"):
        resolve_subset("all", space, None)


def test_a_file_of_numbers(tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text("4\n26 0\n4\n")
    assert resolve_subset(str(tmp_path / "numbers"), SPACE, TABLE) == archs([4, 26, 0])


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    numbers = tmp_path / "numbers"
    numbers.write_text("4 26 0")
    name = pinned(str(numbers), TABLE)
    assert resolve_subset(name, SPACE, TABLE) == archs([4, 26, 0])
    assert pinned(name, TABLE) == name
    numbers.write_text("4 26 2")
    assert pinned(str(numbers), TABLE) != name
    with pytest.raises(BadInput, match="has changed: a record names it"):
        resolve_subset(name, SPACE, TABLE)
    numbers.unlink()
    with pytest.raises(BadInput, match="numbers is not here"):
        resolve_subset(name, SPACE, TABLE)


def test_what_is_no_file_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("table", "all", "random:9", "few"):
        Path(name).write_text("5 26 0")
        assert pinned(name, TABLE) == name


def test_of_a_file_only_what_the_table_holds_is_ranked(tmp_path: Path) -> None:
    known = Table("some", SPACE, np.array([3, 5, 8]), {})
    (tmp_path / "numbers").write_text("5 26 3")
    assert resolve_subset(str(tmp_path / "numbers"), SPACE, known) == archs([5, 3])
    (tmp_path / "numbers").write_text("5 26 0")
    with pytest.raises(BadInput, match="The table some holds 1 of the architectures in the subset file"):
        resolve_subset(str(tmp_path / "numbers"), SPACE, known)


@pytest.mark.parametrize("content", ["", "3", "3 3", "3 x", "3 -1", "3 27", "3.5 4", "\N{SUPERSCRIPT TWO} 3"])
def test_a_file_that_will_not_do(content: str, tmp_path: Path) -> None:
    (tmp_path / "numbers").write_text(content)
    with pytest.raises(BadInput, match="numbers"):
        resolve_subset(str(tmp_path / "numbers"), SPACE, TABLE)


@pytest.mark.parametrize(
    "name", ["random:", "random:1", "random:-3", "random:x", "random:3.5", "random:\N{SUPERSCRIPT TWO}"]
)
def test_a_number_that_will_not_do(name: str) -> None:
    with pytest.raises(BadInput, match="write it like random:500"):
        resolve_subset(name, SPACE, TABLE)


def test_more_than_there_are() -> None:
    with pytest.raises(BadInput, match="'random:15' asks for more than the 14"):
        resolve_subset("random:15", SPACE, TABLE)


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(BadInput, match="Unknown subset 'fw'; did you mean 'few'"):
        resolve_subset("fw", SPACE, TABLE)


@pytest.mark.parametrize("name", ["table", "few"])
def test_what_needs_a_table_says_how_to_get_one(name: str) -> None:
    with pytest.raises(BadInput, match=f"'{name}' needs ground truth.*`nasbench data add tiny FILE`.*random:N"):
        resolve_subset(name, SPACE, None)
