"""HW-NAS-Bench: a made-up file of the published layout, read by architecture string; what is not right is refused."""

from __future__ import annotations

import json
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nasbench_cells.hw_nas_bench import DATASETS, DEVICES, read
from nasbench_cells.nb201 import NB201

from nasbench import BadInput
from nasbench.costs import CostColumn, CostTable, add_costs, stored
from tests.command import nasbench

SPACE = NB201()
COLUMNS = [f"{device}_{cost}" for device, costs in DEVICES.items() for cost in costs]


def cost(number: int, dataset: str, column: str) -> float:
    """A made-up cost that says what it is of."""
    return 1 + number + 20_000 * list(DATASETS.values()).index(dataset) + 100_000 * COLUMNS.index(column)


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    """The published layout, architectures in an order of its own for each dataset."""
    space: dict[str, Any] = {}
    for dataset in DATASETS.values():
        order = random.Random(dataset).sample(range(SPACE.size), SPACE.size)
        config = [
            {"name": "infer.tiny", "C": 16, "N": 5, "arch_str": SPACE.format(SPACE.from_number(n)), "num_classes": 10}
            for n in order
        ]
        costs: dict[str, Any] = {c: [cost(n, dataset, c) for n in order] for c in COLUMNS}
        costs["pixel3_latency"] = [np.float64(v) for v in costs["pixel3_latency"]]
        costs["fpga_energy"] = np.array(costs["fpga_energy"])
        costs["eyeriss_arithmetic_intensity"] = [1.0] * len(order)
        space[dataset] = {"config": config, **costs}
    return {"nasbench201": space, "fbnet": {"edgegpu_latency": {"Skip_H32": 0.1}}}


Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_(content: Any) -> Path:
        path = tmp_path / "HW-NAS-Bench-v1_0.pickle"
        path.write_bytes(pickle.dumps(content))
        return path

    return write_


def changed(content: dict[str, Any], dataset: str, key: str, value: Any) -> dict[str, Any]:
    space = content["nasbench201"]
    return {"nasbench201": {**space, dataset: {**space[dataset], key: value}}}


@pytest.mark.invariant("hw-nas-bench", 1)
def test_every_cost_belongs_to_its_architecture_whatever_the_order(content: Any, write: Write) -> None:
    table = read(write(content))
    assert table.space == "nb201"
    assert len(table.columns) == 27
    for (dataset, name, device), values in table.columns.items():
        first = cost(0, DATASETS[dataset], f"{device}_{name}")
        assert (values == first + np.arange(15_625)).all()


@pytest.mark.invariant("hw-nas-bench", 2)
@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("raspi4_latency", [1.0] * 15_624, "15624 costs in raspi4_latency of cifar100; expected 15625, all above 0"),
        ("raspi4_latency", [0.0] * 15_625, "expected 15625, all above 0"),
        ("raspi4_latency", [float("nan")] * 15_625, "expected 15625, all above 0"),
        ("raspi4_latency", ["fast"] * 15_625, "costs in raspi4_latency of cifar100 that are no numbers"),
        ("config", [{"C": 16}] * 15_625, "does not say which architecture row 0 of cifar100 is"),
        ("config", [{"arch_str": SPACE.format((0,) * 6)}] * 15_625, "has 1 architectures in 15625 rows of cifar100"),
        ("config", [{"arch_str": "conv"}] * 15_625, "Cannot read the nb201 architecture 'conv'"),
    ],
)
def test_a_file_that_is_not_right_is_refused(content: Any, write: Write, key: str, value: Any, said: str) -> None:
    path = write(changed(content, "cifar100", key, value))
    with pytest.raises(BadInput, match=said):
        add_costs("hw-nas-bench", path)
    assert stored(SPACE) == []


@pytest.mark.invariant("hw-nas-bench", 2)
@pytest.mark.parametrize("content_", [{}, {"nasbench201": []}, {"nasbench201": {"cifar10": {}}}, [1, 2]])
def test_something_else_is_refused(write: Write, content_: Any) -> None:
    with pytest.raises(BadInput, match=r"has no '\w+'; expected HW-NAS-Bench-v1_0.pickle"):
        read(write(content_))


class Evil:
    """A pickle that would run a command."""

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


@pytest.mark.invariant("hw-nas-bench", 3)
def test_nothing_of_the_file_is_run(content: Any, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write({**content, "extra": Evil()})
    monkeypatch.chdir(path.parent)
    with pytest.raises(BadInput, match="nothing of it was run"):
        read(path)
    assert not Path("ran").exists()


@pytest.mark.invariant("hw-nas-bench", 4)
def test_one_query_answers_cost_and_accuracy(content: Any, write: Write, tmp_path: Path) -> None:
    path = write(content)
    done = nasbench("data", "add", "hw-nas-bench", str(path), cwd=tmp_path)
    assert (done.code, done.err) == (0, "")
    assert "15,625 architectures of nb201, latency.edgegpu, energy.edgegpu, latency.raspi4" in done.out
    listed = json.loads(nasbench("data", "list", "--json", cwd=tmp_path).out)
    assert listed["costs"] == ["hw-nas-bench"]
    number = SPACE.ground_truth("digits").numbers[7]  # type: ignore[union-attr]
    arch = SPACE.format(SPACE.from_number(int(number)))
    answer = json.loads(nasbench("query", "--space", "nb201", arch, "--json", cwd=tmp_path).out)
    assert len(answer["measured"]) == 27
    assert {
        "table": "hw-nas-bench",
        "dataset": "cifar100",
        "cost": "energy",
        "device": "eyeriss",
        "unit": "mJ",
        "value": cost(int(number), "cifar100", "eyeriss_energy"),
    } in answer["measured"]
    assert any(row["dataset"] == "digits" for row in answer["ground_truth"])
    text = nasbench("query", "--space", "nb201", arch, cwd=tmp_path).out
    assert "raspi4" in text
    assert f"{cost(int(number), 'cifar10', 'raspi4_latency'):.4f} ms" in text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("nothing.pickle",), "nothing.pickle is no file; expected the costs hw-nas-bench"),
        (("x", "--target", "cifar10"), "--target and --size belong to a folder of images"),
    ],
)
def test_bad_input(args: tuple[str, ...], said: str, tmp_path: Path) -> None:
    done = nasbench("data", "add", "hw-nas-bench", *args, cwd=tmp_path)
    assert done.code == 2
    assert said in done.err


def test_a_damaged_store_says_how_to_mend_it(home: Path) -> None:
    path = home / "costs" / "hw-nas-bench.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"no")
    with pytest.raises(BadInput, match="add them again with `nasbench data add hw-nas-bench FILE`"):
        CostTable.load(path)


def test_a_table_comes_back_as_it_was_stored(tmp_path: Path) -> None:
    columns = {CostColumn("cifar10", "latency", "raspi4"): np.array([1.5, 2.5])}
    CostTable("mine", "nb201", np.array([3, 8]), columns, "test").save(tmp_path / "mine.safetensors")
    table = CostTable.load(tmp_path / "mine.safetensors")
    assert table.value(8, CostColumn("cifar10", "latency", "raspi4")) == 2.5
    assert table.value(9, CostColumn("cifar10", "latency", "raspi4")) is None
    assert (table.name, table.source) == ("mine", "test")
