"""ImageNet16-120 from small files in the published form."""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nasbench import BadInput, imagenet16
from nasbench.data import load_images
from nasbench.imagenet16 import TRAIN, VAL, nas_bench_halves
from nasbench.importing import add_images
from tests.command import nasbench


def write(path: Path, content: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pickle as Python 3 wrote them in 2017, and its MD5 in place of the published one."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(pickle.dumps(content, protocol=3))
    known = VAL if path.name in VAL else TRAIN
    monkeypatch.setitem(known, path.name, hashlib.md5(path.read_bytes()).hexdigest())


def batch(labels: list[int], seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "data": rng.integers(0, 256, (len(labels), 3 * 16 * 16), dtype=np.uint8),
        "labels": labels,
        "mean": rng.random(3 * 16 * 16),
    }


@pytest.fixture
def batches() -> dict[str, dict[str, Any]]:
    """Ten training batches and the validation one, labels from 1 up to 130 as in ImageNet up to 1000."""
    rng = np.random.default_rng(0)
    made = {name: batch(rng.integers(1, 131, 30).tolist(), seed) for seed, name in enumerate(TRAIN)}
    return {**made, "val_data": batch(rng.permutation(np.repeat(np.arange(1, 131), 50)).tolist(), 99)}


@pytest.fixture
def folder(tmp_path: Path, batches: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, content in batches.items():
        write(tmp_path / "files" / name, content, monkeypatch)
    return tmp_path / "files"


def test_the_first_120_classes_are_kept_in_order(folder: Path, batches: dict[str, dict[str, Any]], home: Path) -> None:
    said = add_images("imagenet16-120", folder, None)
    images = load_images("imagenet16-120")

    train = [
        (row, label) for name in TRAIN for row, label in zip(*map(batches[name].get, ("data", "labels")), strict=True)
    ]  # type: ignore[arg-type]
    kept = [(row, label) for row, label in train if label <= 120]
    assert 0 < len(kept) < len(train)
    assert said == (
        f"{len(kept)} train, 3,000 valid, 3,000 test images of 120 classes, ranked against imagenet16-120 -> "
        f"{home / 'datasets' / 'imagenet16-120.safetensors'}"
    )
    split = images.splits["train"]
    assert split.labels.tolist() == [label - 1 for _, label in kept]
    assert split.images.dtype == torch.uint8
    assert np.array_equal(split.images.numpy(), np.stack([row for row, _ in kept]).reshape(-1, 3, 16, 16))
    assert images.target == "imagenet16-120"
    assert images.classes == [str(label) for label in range(1, 121)]


@pytest.mark.invariant("nb201", 16)
def test_validation_images_are_halved_by_the_authors_list(folder: Path, batches: dict[str, dict[str, Any]]) -> None:
    """It holds what their code asserts, and the ends of the lists."""
    valid, test = (half.tolist() for half in nas_bench_halves())
    assert valid[:10] == [1, 2, 3, 6, 7, 8, 9, 12, 16, 18]
    assert test[:10] == [0, 4, 5, 10, 11, 13, 14, 15, 17, 20]
    assert (valid[-3:], test[-3:]) == ([5997, 5998, 5999], [5992, 5995, 5996])
    assert len(valid) == len(test) == 3_000
    assert sorted(valid + test) == list(range(6_000))

    add_images("imagenet16-120", folder, "imagenet16-120")
    splits = load_images("imagenet16-120").splits
    val = zip(batches["val_data"]["data"], batches["val_data"]["labels"], strict=True)
    kept = [(row, label - 1) for row, label in val if label <= 120]
    for key, rows in (("valid", valid), ("test", test)):
        assert splits[key].labels.tolist() == [kept[i][1] for i in rows]
        assert np.array_equal(splits[key].images.flatten(1).numpy(), np.stack([kept[i][0] for i in rows]))


def test_the_published_files_are_named(folder: Path) -> None:
    assert list(TRAIN) == [f"train_data_batch_{i}" for i in range(1, 11)]
    (folder / "train_data_batch_7").unlink()
    with pytest.raises(BadInput, match=r"has no file train_data_batch_7; expected train_data_batch_1, .*, val_data"):
        add_images("imagenet16-120", folder, None)


def test_a_file_that_is_not_the_published_one_is_refused(folder: Path, home: Path) -> None:
    content = (folder / "val_data").read_bytes()
    (folder / "val_data").write_bytes(content[:-1] + b"!")
    with pytest.raises(BadInput, match=r"val_data has the MD5 [0-9a-f]{32}; the published file's is [0-9a-f]{32}"):
        add_images("imagenet16-120", folder, None)
    assert not list(home.iterdir())


def test_a_file_that_would_run_something_is_refused(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "evil"),)

    write(folder / "train_data_batch_3", {"data": Evil(), "labels": []}, monkeypatch)
    with pytest.raises(BadInput, match=r"train_data_batch_3 asks for posix\.mkdir"):
        add_images("imagenet16-120", folder, None)
    assert not (tmp_path / "evil").exists()


def test_before_it_is_added_it_says_how(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="`nasbench data add imagenet16-120 FOLDER`"):
        load_images("imagenet16-120")
    answer = nasbench("data", "add", "imagenet16-120", ".", cwd=tmp_path)
    assert (answer.code, answer.out) == (2, "")
    assert "has no file train_data_batch_1" in answer.err


def test_it_is_ranked_against_its_own_truth_alone(folder: Path) -> None:
    with pytest.raises(BadInput, match="leave --target cifar10 out"):
        add_images("imagenet16-120", folder, "cifar10")


def test_the_constants_are_those_of_the_published_dataset() -> None:
    """MD5s differ from file to file, so that none was copied twice."""
    digests = [*imagenet16.TRAIN.values(), *imagenet16.VAL.values()]
    assert len(set(digests)) == 11
    assert all(len(digest) == 32 for digest in digests)
