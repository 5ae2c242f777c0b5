"""The ground truth of NAS-Bench-201: verified before it is believed, and what the real one says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from nasbench_cells.nb201 import CONV3, NB201, NONE
from nasbench_cells.nb201_truth import OPTIMA

from nasbench import BadInput
from nasbench.importing import add_table
from nasbench.metrics import kendall_tau
from nasbench.subsets import resolve_subset
from nasbench.tables import Column, Table, stored

SPACE = NB201()
HEADER = (
    "index,arch,base5,cifar10_valid,cifar10_test,cifar100_valid,cifar100_test,imagenet16_120_valid,imagenet16_120_test"
)


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """A made-up table of the right form: its best test accuracies are the benchmark's optima."""
    rng = random.Random(0)
    numbers = rng.sample(range(15_625), 15_625)
    rows = []
    for index, number in enumerate(numbers):
        cells = [str(v) for best in OPTIMA.values() for v in (10.0, best if index == 77 else round(rng.random(), 2))]
        rows.append(",".join([str(index), SPACE.format(SPACE.from_number(number)), str(number), *cells]))
    return [HEADER, *rows]


Write = Callable[[list[str]], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_(lines: list[str]) -> Path:
        (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
        return tmp_path / "table.csv"

    return write_


@pytest.mark.invariant("nb201", 12)
def test_a_table_is_read_sorted_and_labelled(lines: list[str], write: Write) -> None:
    table = SPACE.read_ground_truth(write(lines))
    assert len(table) == 15_625
    assert (np.diff(table.numbers) == 1).all()
    number, accuracy = (lines[123].split(",")[i] for i in (2, 4))
    assert table.query([SPACE.from_number(int(number))], "test", "cifar10") == [float(accuracy)]
    assert [str(column) for column in table.columns] == [
        f"{dataset}/{split}/200/mean"
        for dataset in ("cifar10", "cifar100", "imagenet16-120")
        for split in ("valid", "test")
    ]
    assert table.subsets == {}


@pytest.mark.invariant("nb201", 12)
def test_a_stored_table_is_read_back(lines: list[str], write: Write) -> None:
    path = write([f"{line},{'tau_subset_327' if not i else int(i <= 327)}" for i, line in enumerate(lines)])
    assert add_table("nb201", path).startswith("15,625 architectures")
    small = NB201(channels=4, cells=1, classes=3, image=(1, 8, 8))  # what is trained; the truth keeps its own size
    table = small.ground_truth("imagenet16-120")
    assert isinstance(table, Table)
    assert table.space == NB201(classes=120, image=(3, 16, 16))
    assert table.column("test", "imagenet16-120").max() == 47.31
    assert len(resolve_subset("official327", small, table)) == 327
    assert small.ground_truth("svhn") is None


Damage = Callable[[list[str]], list[str]]


def edit(row: int, column: int, text: str) -> Damage:
    """Put another text into one cell."""

    def change(lines: list[str]) -> list[str]:
        cells = lines[row].split(",")
        cells[column] = text
        return [*lines[:row], ",".join(cells), *lines[row + 1 :]]

    return change


@pytest.mark.invariant("nb201", 12)
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda lines: [], "has no column 'arch'"),
        (lambda lines: ["not", "a table"], "has no column 'arch'"),
        (edit(0, 4, "cifar10_tset"), "has no column 'cifar10_test'"),
        (lambda lines: lines[:-1], "holds 15624 architectures in 15624 rows; expected 15625"),
        (lambda lines: [*lines[:-1], lines[-2]], "holds 15624 architectures in 15625 rows"),
        (lambda lines: [*lines, lines[-1]], "holds 15625 architectures in 15626 rows"),
        (lambda lines: [*lines[:-1], lines[-1][:40]], "damaged|Cannot read"),
        (lambda lines: [*lines[:-1], lines[-1][:3]], "damaged|Cannot read"),
        (lambda lines: [*lines[:-1], lines[-1].rpartition(",")[0]], "is damaged"),
        (edit(5, 1, "|conv~0|"), "Cannot read the nb201 architecture"),
        (edit(5, 2, "15625"), "numbers .* as 15625; expected"),
        (edit(5, 4, "high"), "is damaged"),
        (edit(5, 4, "nan"), r"has no test accuracy of \|.*\| on cifar10\."),
        (edit(5, 5, "nan"), r"has no valid accuracy of \|.*\| on cifar100\."),
        (edit(5, 4, "inf"), "accuracies outside 0..100 in cifar10/test/200/mean"),
        (edit(5, 5, "-1"), "accuracies outside 0..100 in cifar100/valid/200/mean"),
        (edit(5, 4, "99.5"), "has 99.50 as the best cifar10 test accuracy; the benchmark's is 94.37"),
        (edit(78, 8, "1.0"), "as the best imagenet16-120 test accuracy; the benchmark's is 47.31"),
    ],
)
def test_a_table_that_is_not_the_benchmarks_is_refused(
    lines: list[str], write: Write, damage: Damage, message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        SPACE.read_ground_truth(write(damage(lines)))
    assert stored(SPACE) is None


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes(bytes(range(256)) * 50)
    with pytest.raises(BadInput, match="cannot be read"):
        SPACE.read_ground_truth(tmp_path / "table.csv")
    with pytest.raises(BadInput, match=r"has no file meta|takes the package"):
        SPACE.read_ground_truth(tmp_path)


@pytest.fixture(scope="module")
def real(shared_data: Path) -> Table:
    return SPACE.read_ground_truth(shared_data / "nb201_truth.csv")


@pytest.mark.invariant("nb201", 13)
def test_the_real_table_has_the_known_optima_and_subset(real: Table) -> None:
    best = {dataset: real.column("test", dataset).max() for dataset in ("cifar10", "cifar100", "imagenet16-120")}
    assert {k: round(float(v), 2) for k, v in best.items()} == {
        "cifar10": 94.37,
        "cifar100": 73.51,
        "imagenet16-120": 47.31,
    }
    listed = resolve_subset("official327", SPACE, real)
    assert len(listed) == 327
    params = [SPACE.cost(arch)["params"] for arch in listed]
    assert round(sum(params) / 327) == 317_678


@pytest.mark.invariant("nb201", 13)
@pytest.mark.parametrize(("subset", "tau"), [("official327", 0.6380), ("all", 0.5778)])
def test_how_well_the_parameter_count_alone_ranks(real: Table, subset: str, tau: float) -> None:
    archs = resolve_subset(subset, SPACE, real)
    params = [float(SPACE.cost(arch)["params"]) for arch in archs]
    assert kendall_tau(params, real.query(archs, "test", "cifar10")) == pytest.approx(tau, abs=5e-5)


@pytest.mark.invariant("nb201", 13)
def test_equal_cells_have_close_accuracies_in_the_real_table(real: Table) -> None:
    """The forms are about the network that was trained, too: they explain nearly all of the variance."""
    accuracy, groups = real.column("test", "cifar10"), dict[object, list[int]]()
    for number, arch in enumerate(SPACE.architectures()):
        if SPACE.canonical(arch):
            groups.setdefault(SPACE.canonical(arch), []).append(number)
    within = sum(((accuracy[rows] - accuracy[rows].mean()) ** 2).sum() for rows in groups.values())
    rows = [number for group in groups.values() for number in group]
    assert within / ((accuracy[rows] - accuracy[rows].mean()) ** 2).sum() < 0.05


def test_the_best_known_cell_is_found_by_its_string(real: Table) -> None:
    best = SPACE.from_number(int(real.numbers[real.column("test", "cifar10").argmax()]))
    rows = real.everything(best)
    assert {(row["dataset"], row["split"]): row["value"] for row in rows}["cifar10", "test"] == pytest.approx(
        94.37, abs=0.005
    )
    assert CONV3 in best
    assert real.query([(NONE,) * 6], "test", "cifar10") == [pytest.approx(10, abs=0.1)]
    assert Column("cifar10", "test", 200, "mean") in real.columns
