"""Bad input is answered by one sentence that says what would do, with exit code 2, and nothing is written."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest
from nasbench_cells.nb201 import NB201
from PIL import Image

from nasbench.files import dump_json
from nasbench.recipe import resolve
from nasbench.tables import Column, Table
from tests.command import nasbench

Content: TypeAlias = "str | bytes | Callable[[], str | bytes]"
SPOS = "run -m spos -s tiny --preset test"
NB201_WITHOUT_TABLE = "-s nb201 --preset test --target cifar10 --set score.subset=random:4"
JUNK = bytes(range(256)) * 8


@dataclass
class Case:
    """A command, what its answer must say, and what it stumbles over."""

    command: str
    says: str
    also: str = ""
    files: dict[str, Content] = field(default_factory=dict)
    plugins: dict[str, dict[str, str]] = field(default_factory=dict)
    largest_file: int | None = None


# ---------------------------------------------------------------------- files to stumble over


def truth(*, count: int = 15_625, best: float = 94.37, twist: Callable[[list[object]], None] = lambda row: None) -> str:
    """A CSV as `data add nb201` reads it: the first architecture has the known optima, the others 10 %."""
    space, out = NB201(), io.StringIO()
    optima = {"cifar10": best, "cifar100": 73.51, "imagenet16_120": 47.31}
    writer = csv.writer(out)
    writer.writerow(["arch", "base5", *(f"{dataset}_{split}" for dataset in optima for split in ("valid", "test"))])
    for number in range(count):
        row = [space.format(space.from_number(number)), number]
        row += [value if number == 0 else 10 for value in optima.values() for _ in ("valid", "test")]
        if number == 3:
            twist(row)
        writer.writerow(row)
    return out.getvalue()


def half_a_table() -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table")
        Table("nb201", NB201(), np.arange(9), {Column("cifar10", "test", 200, "mean"): np.zeros(9)}).save(path)
        return path.read_bytes()[:-20]


def image(height: int = 8, width: int = 8) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), "grey").save(out, "PNG")
    return out.getvalue()


def no_dataset() -> bytes:
    import torch
    from safetensors.torch import save

    return save({"train.images": torch.zeros(2)})


def record(**recipe: object) -> str:
    values = {**resolve("spos", "tiny", preset="test").model_dump(mode="json"), **recipe}
    measured = {"seconds": {}, "device": "", "threads": 1, "date": "2026-01-01"}
    parts = {"id": "0" * 8, "recipe": values, "dataset_hash": "", "results": [], "measured": measured}
    parts["results"] = [{"scenario": {}, "phase": "search", "arch": "", "metrics": []}]
    return dump_json({"format": 1, **parts})


def set_item(index: int, value: object) -> Callable[[list[object]], None]:
    return lambda row: row.__setitem__(index, value)


CAT_AND_DOG: dict[str, Content] = {"pets/train/cat/1.png": image, "pets/train/dog/1.png": image}

CASES = {
    # ------------------------------------------------------------------ names
    "method": Case("run -m fairnass -s tiny", "Unknown method 'fairnass'; did you mean 'fairnas'?"),
    "modifier": Case("run -m spos+calrr -s tiny", "Unknown method 'calrr'; did you mean 'calr'?"),
    "space": Case("run -m spos -s tinny", "Unknown space 'tinny'; did you mean 'tiny'?"),
    "dataset": Case(f"{SPOS} --dataset digitss", "Unknown dataset 'digitss'; did you mean 'digits'?"),
    "target": Case(f"{SPOS} --target digts", "'digts'; did you mean 'digits'?"),
    "target in a file": Case(
        f"{SPOS} --config c.yaml", "'digts'; did you mean 'digits'?", files={"c.yaml": "target: digts"}
    ),
    "preset": Case("run -m spos -s tiny --preset quik", "Unknown preset 'quik'; did you mean 'quick'?"),
    "preset without data": Case("run -m spos -s tiny --preset cpu", "preset 'cpu'", "--dataset"),
    "subset": Case(f"{SPOS} --set score.subset=tabel", "Unknown subset 'tabel'; did you mean 'table'?"),
    "option": Case(f"{SPOS} --set train.epoch=3", "Unknown option 'train.epoch'; did you mean 'train.epochs'?"),
    "option of a term": Case("run -m spos+calr[gama=3] -s tiny", "did you mean 'calr.gamma_prime'?"),
    "option of a space": Case(f"{SPOS} --set tiny.wdth=8", "did you mean 'tiny.width'?"),
    "group of another method": Case(f"{SPOS} --set calr.gamma_prime=3", "calr", "not of spos on tiny; drop them"),
    "group": Case(f"{SPOS} --set tran.epochs=3", "Unknown group of settings 'tran'; did you mean 'train'?"),
    "listing": Case("list method", "Unknown listing 'method'; did you mean 'methods'?"),
    "format": Case(
        "leaderboard --format mdd", "Unknown format 'mdd'; did you mean 'md'?", files={"runs/a/record.json": record}
    ),
    "command": Case("rn", "'rn'", "'run'"),
    "flag": Case(f"{SPOS} --sed 3", "--sed", "`nasbench run --help`"),
    "missing flag": Case("run -m spos", "--space"),
    "missing argument": Case("query -s tiny", "ARCH"),
    "device": Case(f"{SPOS} --device gpu", "Unknown device 'gpu'"),
    "cuda": Case(f"{SPOS} --device cuda:99", "CUDA", "--device cpu"),
    "decision": Case("run -m spos+ms[edge=layer9] -s tiny --preset test", "'layer9'", "layer"),
    # ------------------------------------------------------------------ compositions
    "two methods": Case("run -m fairnas+spos -s tiny", "fairnas and spos", "exactly one"),
    "no method": Case("run -m calr+ms -s tiny", "'calr+ms' has no method", "METHOD+calr+ms"),
    "twice": Case("run -m spos+ms+ms -s tiny", "'ms' stands twice"),
    "empty label": Case("run -m '' -s tiny", "write it like"),
    "open bracket": Case("run -m spos+calr[ -s tiny", "'calr['", "write it like"),
    "broken option": Case("run -m 'spos+calr[g={]' -s tiny", "'g={'", "name=value"),
    "never called": Case("run -m random-search+calr -s tiny", "calr", "which random-search never calls"),
    "no ground truth": Case(f"run -m random-search {NB201_WITHOUT_TABLE}", "no ground truth for cifar10"),
    "no table": Case(
        "run -m spos -s nb201 --preset test --target cifar10 --set score.subset=table", "`nasbench data add nb201 FILE`"
    ),
    "image size": Case(f"run -m spos {NB201_WITHOUT_TABLE} --set data.size=6", "6x6 is no multiple of 4", "data.size"),
    # ------------------------------------------------------------------ architectures
    "number": Case("query -s tiny 27", "'27'", "below 27"),
    "huge number": Case(f"query -s nb201 {'9' * 5000}", "below 15625"),
    "words": Case("query -s tiny 'layer0=skip layer1=skip layer2=conv'", "'layer0=skip layer1=skip layer2=skip'"),
    "shape": Case("query -s nb201 '|none~0|+|none~0|'", "expected", "|nor_conv_3x3~0|+"),
    "operation": Case(
        "query -s nb201 '|none~0|+|none~0|conv~1|+|none~0|none~1|none~2|'", "'conv'", "none, skip_connect, nor_conv_1x1"
    ),
    "split": Case("query -s tiny 3 --split vaild", "Unknown split 'vaild'; did you mean 'valid'?"),
    # ------------------------------------------------------------------ values
    "negative seed": Case(f"{SPOS} --seed -1", "--seed -1", "0 or more"),
    "no seeds": Case(f"{SPOS} --seeds 0", "--seeds 0", "1 or more"),
    "seed and seeds": Case(f"{SPOS} --seed 1 --seeds 2", "exclude each other"),
    "seed of words": Case(f"{SPOS} --seed one", "'--seed'", "integer"),
    "no epochs": Case(f"{SPOS} --set train.epochs=0", "train.epochs = 0", "greater than or equal to 1"),
    "epochs of words": Case(f"{SPOS} --set train.epochs=many", "train.epochs = 'many'", "integer"),
    "half an epoch": Case(f"{SPOS} --set train.epochs=0.5", "train.epochs = 0.5", "integer"),
    "rate nan": Case(f"{SPOS} --set train.lr=.nan", "train.lr = nan", "finite"),
    "rate inf": Case(f"{SPOS} --set train.lr=.inf", "train.lr = inf", "finite"),
    "option inf": Case("run -m spos+calr[gamma_prime=.inf] -s tiny", "calr.gamma_prime = inf", "finite"),
    "nesterov": Case(f"{SPOS} --set train.momentum=0", "train.nesterov needs train.momentum above 0"),
    "schedule": Case(f"{SPOS} --set train.schedule=cosin", "'cosine', 'linear' or 'constant'"),
    "images": Case(f"{SPOS} --set data.train_images=9999", "9999", "600"),
    "random subset": Case(f"{SPOS} --set score.subset=random:x", "random:500"),
    "large subset": Case(f"{SPOS} --set score.subset=random:28", "27 architectures"),
    "no equals": Case(f"{SPOS} --set train.epochs", "'train.epochs'", "--set train.epochs=3"),
    "value": Case(f"{SPOS} --set train.epochs=[1", "'[1'", "YAML"),
    "impossible date": Case(f"{SPOS} --set train.epochs=2020-13-45", "2020-13-45"),
    "impossible date in a label": Case("run -m spos+calr[gamma_prime=2020-13-45] -s tiny", "gamma_prime=2020-13-45"),
    # ------------------------------------------------------------------ files that are read
    "no config": Case(f"{SPOS} --config no.yaml", "no.yaml", "`nasbench config`"),
    "a config without a space": Case(
        "run -m spos --config my.yaml", "A run needs a space: give --space", files={"my.yaml": "space: [tiny]\n"}
    ),
    "config is a list": Case(f"{SPOS} --config my.yaml", "my.yaml", "list", files={"my.yaml": "- train\n"}),
    "config is broken": Case(
        f"{SPOS} --config my.yaml", "my.yaml", "line 2", files={"my.yaml": "train:\n  epochs: ]\n"}
    ),
    "config is junk": Case(f"{SPOS} --config my.yaml", "my.yaml", files={"my.yaml": JUNK}),
    "config's type": Case(f"{SPOS} --config my.yaml", "train.lr = 'big'", files={"my.yaml": "train: {lr: big}\n"}),
    "config's group": Case(f"{SPOS} --config my.yaml", "did you mean 'train'?", files={"my.yaml": "trian: {lr: 1}\n"}),
    "config's seed": Case(f"{SPOS} --config my.yaml", "seed = -3", files={"my.yaml": "seed: -3\n"}),
    "config's number": Case(f"{SPOS} --config my.yaml", "'1'", files={"my.yaml": "1: {lr: 1}\n"}),
    "config's dataset": Case(
        f"{SPOS} --config my.yaml", "dataset = ['a']", "name", files={"my.yaml": "dataset: [a]\n"}
    ),
    "group without settings": Case(f"{SPOS} --config my.yaml", "train = 3", files={"my.yaml": "train: 3\n"}),
    "subset file": Case(f"{SPOS} --set score.subset=few", "few holds 99", "26", files={"few": "1\n99\n"}),
    "subset file of words": Case(f"{SPOS} --set score.subset=few", "few", "numbers", files={"few": "one\ntwo\n"}),
    "empty subset file": Case(f"{SPOS} --set score.subset=few", "few", "two or more", files={"few": ""}),
    "sweep into a file": Case(
        "sweep s.yaml --runs a", "Cannot write into a", files={"s.yaml": "methods: [spos]\nspaces: [tiny]\n", "a": ""}
    ),
    "sweep without presets": Case(
        "sweep s.yaml", "presets = []", files={"s.yaml": "methods: [spos]\nspaces: [tiny]\npresets: []\n"}
    ),
    "replaced dataset": Case("reproduce dance:1 --dataset cifra10=digits --list", "'cifra10'; did you mean 'cifar10'?"),
    "no records": Case("leaderboard --runs nowhere", "nowhere", "--runs"),
    "half a record": Case("leaderboard", "runs/a/record.json", files={"runs/a/record.json": lambda: record()[:-90]}),
    "empty record": Case("leaderboard", "runs/a/record.json", files={"runs/a/record.json": ""}),
    "something else": Case("leaderboard", "runs/a/record.json", "record", files={"runs/a/record.json": "[]"}),
    "record of another version": Case(
        "leaderboard --out tables", "'budget'", files={"runs/a/record.json": lambda: record(budget=3)}
    ),
    "half a table": Case(
        f"run -m random-search {NB201_WITHOUT_TABLE}",
        "tables/nb201.safetensors",
        "`nasbench data add nb201 FILE`",
        files={"home/tables/nb201.safetensors": half_a_table},
    ),
    "empty table": Case(
        f"run -m random-search {NB201_WITHOUT_TABLE}",
        "tables/nb201.safetensors",
        files={"home/tables/nb201.safetensors": b""},
    ),
    "junk for a dataset": Case(
        f"{SPOS} --dataset pets", "datasets/pets.safetensors", files={"home/datasets/pets.safetensors": JUNK}
    ),
    "no dataset in it": Case(
        f"{SPOS} --dataset pets", "datasets/pets.safetensors", files={"home/datasets/pets.safetensors": no_dataset}
    ),
    # ------------------------------------------------------------------ data that is added
    "no such path": Case("data add nb201 nowhere", "nowhere"),
    "empty truth": Case("data add nb201 t.csv", "t.csv has no column 'arch'", files={"t.csv": ""}),
    "junk for truth": Case("data add nb201 t.csv", "t.csv", files={"t.csv": JUNK}),
    "rows missing": Case("data add nb201 t.csv", "15624", "15625", files={"t.csv": lambda: truth(count=15_624)}),
    "wrong optimum": Case("data add nb201 t.csv", "94.3", "94.37", files={"t.csv": lambda: truth(best=94.3)}),
    "bad float": Case(
        "data add nb201 t.csv", "t.csv is damaged", "'9O.5'", files={"t.csv": lambda: truth(twist=set_item(2, "9O.5"))}
    ),
    "wrong number": Case(
        "data add nb201 t.csv", "as 4; expected 3", files={"t.csv": lambda: truth(twist=set_item(1, 4))}
    ),
    "accuracy above 100": Case(
        "data add nb201 t.csv", "cifar10/valid", "0..100", files={"t.csv": lambda: truth(twist=set_item(2, 101))}
    ),
    "truth of tiny": Case("data add tiny t.csv", "tiny", files={"t.csv": "arch\n"}),
    "target of a table": Case("data add nb201 t.csv --target cifar10", "--target", files={"t.csv": ""}),
    "a built-in's name": Case("data add digits pets", "'digits'", "digits-mine", files=CAT_AND_DOG),
    "bad name": Case("data add my/pets pets", "'my/pets'", "small letters", files=CAT_AND_DOG),
    "no folder": Case("data add pets pets.tar", "pets.tar/train/CLASS/IMAGE", files={"pets.tar": ""}),
    "no train": Case("data add pets pets", "'train'", "pets/train/CLASS", files={"pets/cat/1.png": image}),
    "one class": Case("data add pets pets", "1 class", "two", files={"pets/train/cat/1.png": image}),
    "strange class": Case("data add pets pets", "'fish'", files={**CAT_AND_DOG, "pets/test/fish/1.png": image}),
    "unreadable image": Case("data add pets pets", "cat/2.png", files={**CAT_AND_DOG, "pets/train/cat/2.png": JUNK}),
    "two sizes": Case(
        "data add pets pets",
        "dog/2.png is 9x8",
        "8x8",
        files={**CAT_AND_DOG, "pets/train/dog/2.png": lambda: image(9, 8)},
    ),
    # ------------------------------------------------------------------ places that cannot be written
    "runs below a file": Case(f"{SPOS} --runs file/runs", "file/runs", "--runs", files={"file": ""}),
    "tables below a file": Case(
        "leaderboard --out file/tables", "file/tables", files={"file": "", "runs/a/record.json": record}
    ),
    "home below a file": Case("data add pets pets", "home/datasets", files={**CAT_AND_DOG, "home": ""}),
    "no room for weights": Case(SPOS, "stages/train", "room", largest_file=4000),
    "no room for data": Case("data add pets pets", "pets.safetensors", "room", files=CAT_AND_DOG, largest_file=500),
    # ------------------------------------------------------------------ plugins of others
    "broken plugin": Case(
        "run -m theirs -s tiny", "'theirs' of acme", "no_such_module", plugins={"acme": {"theirs": "no_such_module:X"}}
    ),
    "no plugin": Case(
        "run -m theirs -s tiny", "json:dumps", "nasbench.Method", plugins={"acme": {"theirs": "json:dumps"}}
    ),
    "registered twice": Case(
        "run -m theirs -s tiny", "a:A", "b:B", plugins={"acme": {"theirs": "a:A"}, "umbrella": {"theirs": "b:B"}}
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_one_sentence_and_nothing_written(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, install: Callable[..., Path]
) -> None:
    case = CASES[name]
    monkeypatch.setenv("NASBENCH_HOME", str(tmp_path / "home"))
    for place, content in case.files.items():
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        data = content() if callable(content) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    for distribution, methods in case.plugins.items():
        install(distribution, methods=methods)
    before = files_below(tmp_path)

    code, out, err = nasbench(*shlex.split(case.command), cwd=tmp_path, largest_file=case.largest_file)

    assert err.startswith("nasbench: ")
    assert err.count("\n") == 1
    assert err.endswith((".\n", "?\n"))
    assert case.says in err
    assert case.also in err
    assert code == 2
    assert files_below(tmp_path) == before
    assert not out or case.largest_file  # only a run that began has said so


def files_below(folder: Path) -> dict[Path, bytes]:
    """Every file and what it holds, but for the lock of a run that began."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def test_a_damaged_record_is_not_taken_for_a_finished_run(tmp_path: Path) -> None:
    assert nasbench(*shlex.split(SPOS), cwd=tmp_path).code == 0
    (path,) = tmp_path.rglob("record.json")
    path.write_text(path.read_text()[:-100])
    again = nasbench(*shlex.split(SPOS), cwd=tmp_path)
    assert again.code == 2
    assert str(path.relative_to(tmp_path)) in again.err
    assert "--force" in again.err
    assert nasbench(*shlex.split(SPOS), "--force", cwd=tmp_path).code == 0


def test_a_broken_plugin_harms_nobody_else(tmp_path: Path, install: Callable[..., Path]) -> None:
    install("acme", methods={"theirs": "no_such_module:X"}, evaluators={"grade": "no_such_module:Y"})

    listing = nasbench("list", "methods", cwd=tmp_path)
    run = nasbench(*shlex.split(SPOS), cwd=tmp_path)

    assert listing.code == 0
    assert "theirs" in listing.out
    assert run.code == 0
    assert "grade" in run.err  # what is missing from the record is said
    assert "Traceback" not in run.err
