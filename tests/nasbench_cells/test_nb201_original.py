"""The benchmark's own files: our columns are what its own packages answer, and no pickle runs anything."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nasbench_cells import nb201_original, nb201_truth
from nasbench_cells.nb201 import NB201
from nasbench_cells.nb201_original import read_folder, read_pth

from nasbench import BadInput, tables
from nasbench.importing import add_table
from nasbench.tables import Column, Table
from tests.command import nasbench
from tests.nasbench_cells import official
from tests.nasbench_cells.official import ARCHS, SPACE, texts, write_folder, write_pth

nas_201_api = pytest.importorskip("nas_201_api", reason="needs nas-bench-201, which pip install -e '.[test]' has")
nats_bench = pytest.importorskip("nats_bench", reason="needs nats-bench, which pip install -e '.[test]' has")

#: What the packages' `get_more_info` calls each of our columns.
QUESTIONS = {
    ("cifar10", "valid"): ("cifar10-valid", "valid-accuracy"),
    ("cifar10", "half-test"): ("cifar10-valid", "test-accuracy"),
    ("cifar10", "test"): ("cifar10", "test-accuracy"),
    ("cifar100", "valid"): ("cifar100", "valid-accuracy"),
    ("cifar100", "test"): ("cifar100", "test-accuracy"),
    ("cifar100", "valid+test"): ("cifar100", "valtest-accuracy"),
    ("imagenet16-120", "valid"): ("ImageNet16-120", "valid-accuracy"),
    ("imagenet16-120", "test"): ("ImageNet16-120", "test-accuracy"),
    ("imagenet16-120", "valid+test"): ("ImageNet16-120", "valtest-accuracy"),
}


def agrees(table: Table, api: Any, short: set[str]) -> None:
    """Every number of the table is the package's answer, and no answer of the package is missing.

    `short` are the training sets that 12-epoch networks were trained on.
    """
    expected: dict[Column, dict[int, float]] = {}
    for index, (number, seeds) in enumerate(ARCHS.items()):
        for (dataset, split), (trained_on, name) in QUESTIONS.items():
            lengths = {200: seeds, 12: (777, 888) if trained_on == "cifar10-valid" else (777,)}
            for epochs, trials in lengths.items():
                if epochs == 12 and trained_on not in short:
                    continue
                for seed in (False, *trials):
                    column = Column(dataset, split, epochs, str(seed) if seed else "mean")
                    answer = api.get_more_info(index, trained_on, hp=str(epochs), is_random=seed)[name]
                    expected.setdefault(column, {})[number] = answer
    assert set(table.columns) == set(expected)
    assert table.numbers.tolist() == sorted(ARCHS)
    timed = short == set(official.EVALUATED)  # the first version of the file has no training times
    assert set(table.seconds) == ({"cifar10", "cifar100", "imagenet16-120"} if timed else set())
    for index, number in enumerate(ARCHS if timed else ()):
        arch = [SPACE.from_number(number)]
        for dataset, trained_on in (("cifar10", "cifar10-valid"), ("imagenet16-120", "ImageNet16-120")):
            total = api.get_cost_info(index, trained_on, hp="200")["T-train@total"]
            assert table.training_seconds(arch, dataset) == [pytest.approx(total, rel=1e-12)]
    for column, values in table.columns.items():
        for number, value in zip(table.numbers.tolist(), values.tolist(), strict=True):
            answer = expected[column].get(number)
            assert math.isnan(value) if answer is None else value == answer, (column, number)


@pytest.mark.invariant("nb201", 14)
@pytest.mark.parametrize("new_zip", [False, True])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_the_pth_says_what_nas_bench_201_answers(version: str, new_zip: bool, tmp_path: Path) -> None:
    content = write_pth(tmp_path / "t.pth", nas_201_api, version, new_zip)
    api = nas_201_api.NASBench201API(content, verbose=False)
    agrees(read_pth(tmp_path / "t.pth", SPACE), api, set(official.EVALUATED) if version == "1.1" else {"cifar10-valid"})


@pytest.mark.invariant("nb201", 14)
def test_the_folder_says_what_nats_bench_answers(tmp_path: Path) -> None:
    write_folder(tmp_path / "tss", nats_bench)
    api = nats_bench.create(str(tmp_path / "tss"), "tss", fast_mode=True, verbose=False)
    agrees(read_folder(tmp_path / "tss", SPACE), api, set(official.EVALUATED))


@pytest.mark.invariant("nb201", 14)
@pytest.mark.parametrize("dataset", ["cifar10", "cifar100", "imagenet16-120"])
@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_best_is_the_one_that_the_package_finds(dataset: str, split: str, tmp_path: Path) -> None:
    api = nas_201_api.NASBench201API(write_pth(tmp_path / "t.pth", nas_201_api), verbose=False)
    table, name = read_pth(tmp_path / "t.pth", SPACE), dataset.replace("imagenet", "ImageNet")
    index, accuracy = api.find_best(name, split, hp="200")
    column = table.column(split, dataset)
    assert (list(ARCHS)[index], accuracy) == (table.numbers[column.argmax()], column.max())


@pytest.fixture
def table(tmp_path: Path) -> Table:
    write_pth(tmp_path / "t.pth", nas_201_api)
    return read_pth(tmp_path / "t.pth", SPACE)


def test_the_truth_is_that_of_200_epochs(table: Table) -> None:
    arch = SPACE.from_number(7)
    (truth,) = table.query([arch], "test", "cifar10")
    at = table.numbers.tolist().index(7)
    assert truth == table.columns[Column("cifar10", "test", 200, "mean")][at]
    assert truth != table.columns[Column("cifar10", "test", 12, "mean")][at]
    two = [table.columns[Column("cifar10", "test", 200, seed)][at] for seed in ("777", "999")]
    assert truth == pytest.approx(sum(two) / 2, abs=1e-12)


def test_it_survives_storage(table: Table, tmp_path: Path) -> None:
    table.save(tmp_path / "table.safetensors")
    back = Table.load(tmp_path / "table.safetensors", NB201(channels=4))
    assert (back.epochs, back.space, list(back.columns)) == (200, table.space, list(table.columns))
    for column, values in table.columns.items():
        assert np.array_equal(back.columns[column], values, equal_nan=True)


# ---------------------------------------------------------------------- what is stored


def test_a_file_of_a_few_architectures_is_read_but_not_stored(tmp_path: Path) -> None:
    write_pth(tmp_path / "t.pth", nas_201_api)
    answer = nasbench("data", "add", "nb201", "t.pth", cwd=tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == "nasbench: t.pth holds 4 architectures in 4 rows; expected 15625.\n"
    assert tables.stored(SPACE) is None


@pytest.mark.invariant("nb201", 12)
@pytest.mark.parametrize("form", ["pth", "folder"])
def test_it_is_stored_once_all_is_there(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the size and the optima of the small file in place of the benchmark's; the named subset is kept."""
    path = tmp_path / "t.pth" if form == "pth" else tmp_path / "tss"
    if form == "pth":
        write_pth(path, nas_201_api)
    else:
        write_folder(path, nats_bench)
    table = (read_pth if form == "pth" else read_folder)(path, SPACE)
    best = {dataset: round(float(table.column("test", dataset).max()), 2) for dataset in nb201_truth.OPTIMA}
    monkeypatch.setattr(nb201_truth, "ROWS", len(ARCHS))
    monkeypatch.setattr(nb201_truth, "OPTIMA", best)
    table.subsets["few"] = np.array([True, False, False, True])
    table.save(tables.stored_path("nb201"))

    said = add_table("nb201", path)

    assert said.startswith("4 architectures, cifar10/half-test/200/mean, cifar10/half-test/200/777, ")
    assert "; subsets few -> " in said
    stored = SPACE.ground_truth("cifar100")
    assert stored is not None
    assert stored.query([SPACE.from_number(7)], "test", "cifar100") == table.query(
        [SPACE.from_number(7)], "test", "cifar100"
    )
    assert stored.subsets["few"].tolist() == [True, False, False, True]


def test_one_number_is_asked_for_by_split_epochs_and_seed(table: Table, home: Path, tmp_path: Path) -> None:
    table.save(tables.stored_path("nb201"))
    question = ["query", "--space", "nb201", "7", "--dataset", "cifar10", "--split", "test", "--epochs", "200"]
    answer = nasbench(*question, "--seed", "777", cwd=tmp_path)
    value = table.columns[Column("cifar10", "test", 200, "777")][table.numbers.tolist().index(7)]
    (line,) = [line for line in answer.out.splitlines() if line.startswith("nb201")]
    assert line.split()[1:] == [
        "cifar10",
        "test",
        "200",
        "777",
        f"{SPACE.cost(SPACE.from_number(7))['params']}",
        f"{value:.4f}",
    ]
    absent = nasbench(*question, "--seed", "888", cwd=tmp_path)
    assert absent.code == 2
    assert "Unknown seed '888'" in absent.err


# ---------------------------------------------------------------------- what is refused


class Evil:
    """Unpickled freely, it would make a folder."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("evil",)


@pytest.mark.invariant("nb201", 15)
@pytest.mark.parametrize("new_zip", [False, True])
def test_a_pth_that_would_run_something_is_refused(
    new_zip: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    content = write_pth(tmp_path / "t.pth", nas_201_api)
    content["arch2infos"][3]["full"]["arch_str"] = Evil()
    torch.save(content, tmp_path / "t.pth", _use_new_zipfile_serialization=new_zip)
    with pytest.raises(BadInput, match=r"t\.pth cannot be read as plain data, and nothing of it was run \(.*mkdir"):
        read_pth(tmp_path / "t.pth", SPACE)
    assert not Path("evil").exists()


@pytest.mark.invariant("nb201", 15)
@pytest.mark.parametrize("place", ["meta", "000002"])
def test_a_folder_that_would_run_something_is_refused(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_folder(tmp_path / "tss", nats_bench)
    nats_bench.pickle_save({"meta_archs": Evil()}, str(tmp_path / "tss" / f"{place}.pickle"))
    with pytest.raises(BadInput, match=rf"{place}\.pickle\.pbz2 asks for posix\.mkdir; .* nothing of it was run"):
        read_folder(tmp_path / "tss", SPACE)
    assert not Path("evil").exists()


@pytest.mark.parametrize(("name", "form"), [("nas_201_api", "t.pth"), ("nats_bench", "tss")])
def test_without_its_package_a_file_says_what_to_install(
    name: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tss").mkdir()
    (tmp_path / "t.pth").touch()
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        BadInput, match=r"takes the package na(s-bench-201|ts-bench), .*`pip install 'nasbench\[nb201\]'`"
    ):
        SPACE.read_ground_truth(tmp_path / form)


Change = Callable[[dict[str, Any]], Any]


def swapped(content: dict[str, Any]) -> None:
    content["meta_archs"][0], content["meta_archs"][1] = content["meta_archs"][1], content["meta_archs"][0]


def twice(content: dict[str, Any]) -> None:
    content["meta_archs"][1] = content["meta_archs"][0]
    content["arch2infos"][1] = content["arch2infos"][0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swapped, r"lists \|.* where it holds the results of \|"),
        (twice, r"holds \|.* twice"),
        (lambda c: c["arch2infos"][0].update(less=c["arch2infos"][0]["full"]), "has 200 epochs of .* where 12 belong"),
        (lambda c: c["arch2infos"][2].pop("full"), "not of the benchmark's form .*full"),
        (lambda c: c.pop("arch2infos"), "not of the benchmark's form .*arch2infos"),
        (lambda c: c["meta_archs"].pop(), "not of the benchmark's form"),
        (lambda c: c["arch2infos"][1]["full"].update(get_metrics=3), "not of the benchmark's form"),
        (lambda c: c["meta_archs"].__setitem__(0, "|conv~0|"), r"Cannot read the nb201 architecture '\|conv~0\|'"),
    ],
)
def test_a_pth_that_contradicts_itself_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    content = write_pth(tmp_path / "t.pth", nas_201_api)
    change(content)
    torch.save(content, tmp_path / "t.pth")
    with pytest.raises(BadInput, match=message):
        read_pth(tmp_path / "t.pth", SPACE)


@pytest.mark.parametrize("new_zip", [False, True])
@pytest.mark.parametrize("keep", [0, 10, 1_000, -100])
def test_a_truncated_pth_is_refused(keep: int, new_zip: bool, tmp_path: Path) -> None:
    path = tmp_path / "t.pth"
    write_pth(path, nas_201_api, new_zip=new_zip)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(BadInput, match=r"t\.pth cannot be read as plain data"):
        read_pth(path, SPACE)


@pytest.mark.parametrize("damage", ["no meta", "no file", "truncated", "junk", "no dictionary"])
def test_a_damaged_folder_is_refused(damage: str, tmp_path: Path) -> None:
    folder = tmp_path / "tss"
    write_folder(folder, nats_bench)
    file = folder / "000001.pickle.pbz2"
    if damage == "no meta":
        (folder / "meta.pickle.pbz2").unlink()
    elif damage == "no file":
        file.unlink()
    elif damage == "truncated":
        file.write_bytes(file.read_bytes()[:200])
    elif damage == "junk":
        file.write_bytes(bytes(range(256)))
    else:
        nats_bench.pickle_save([1, 2], str(folder / "000001.pickle"))
    what = {"no meta": "no file meta", "no file": "no file 000001", "no dictionary": "not of the benchmark's form"}
    with pytest.raises(BadInput, match=what.get(damage, "000001.pickle.pbz2 is damaged")):
        read_folder(folder, SPACE)


def test_every_name_of_the_benchmark_has_one_column() -> None:
    pairs = {(trained_on, name) for trained_on, names in official.EVALUATED.items() for name in names}
    assert sorted(nb201_original.ORIGINAL.values()) == sorted(pairs)
    assert len(texts()) == len(set(texts()))
