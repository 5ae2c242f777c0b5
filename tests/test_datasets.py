"""The built-in datasets, and folders of images that are added."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision.datasets.utils
from PIL import Image

from nasbench import BadInput
from nasbench.data import load_images
from nasbench.datasets import CIFAR, CIFAR10, CIFAR100, nas_bench_halves, read_folder
from nasbench.importing import add_images
from tests.command import nasbench

# ---------------------------------------------------------------------- CIFAR


def record(*labels: int, seed: int = 0) -> tuple[bytes, np.ndarray]:
    """One record of a CIFAR file and its pixels: all red ones, then green, then blue, row by row."""
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 32, 32), dtype=np.uint8)
    return bytes(labels) + pixels.tobytes(), pixels


def test_cifar10_records_have_one_label() -> None:
    (first, pixels), (second, others) = record(7), record(0, seed=1)
    split = CIFAR10.parse(first + second)
    assert split.labels.tolist() == [7, 0]
    assert split.labels.dtype == torch.int64
    assert np.array_equal(split.images.numpy(), np.stack([pixels, others]))


def test_cifar100_records_have_a_coarse_and_a_fine_label() -> None:
    content, pixels = record(11, 92)
    split = CIFAR100.parse(content)
    assert split.labels.tolist() == [92]
    assert np.array_equal(split.images[0].numpy(), pixels)


@pytest.mark.parametrize(("cls", "labels"), [(CIFAR10, [3]), (CIFAR100, [1, 42])])
def test_cifar_is_read_from_the_published_archive(
    cls: type[CIFAR], labels: list[int], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches in order; what else is in the archive is left alone; a whole archive is not downloaded again."""
    archive = home / "downloads" / f"{cls.name[:5]}-{cls.name[5:]}-binary.tar.gz"
    archive.parent.mkdir()
    files = [name for names in cls.files.values() for name in names]
    with tarfile.open(archive, "w:gz") as tar:
        for seed, name in [*reversed(list(enumerate(files))), (99, "batches.meta.txt")]:
            content = record(*labels, seed=seed)[0]
            info = tarfile.TarInfo(f"{cls.name}-batches-bin/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    monkeypatch.setattr(cls, "md5", torchvision.datasets.utils.calculate_md5(str(archive)))
    monkeypatch.setattr(torchvision.datasets.utils, "download_url", lambda *_, **__: pytest.fail("downloaded"))

    images = load_images(cls.name)

    halves = {"train": [0, 3], "valid": [1, 2, 4]} if cls is CIFAR10 else {"train": [0]}  # nas_bench_halves(5)
    assert {key: len(split) for key, split in images.splits.items()} == {k: len(v) for k, v in halves.items()} | {
        "test": 1
    }
    for key, rows in halves.items():
        for image, seed in zip(images.splits[key].images, rows, strict=True):
            assert np.array_equal(image.numpy(), record(*labels, seed=seed)[1])
    assert images.splits["test"].labels.tolist() == labels[-1:]
    assert len(images.classes) == cls.count


@pytest.mark.invariant("nb201", 16)
def test_the_halves_of_cifar10_are_those_of_nas_bench_201() -> None:
    """The members that its authors' code asserts."""
    train, valid = (half.tolist() for half in nas_bench_halves(50_000))
    assert train[:10] == [0, 5, 7, 11, 13, 15, 16, 17, 20, 24]
    assert valid[:10] == [1, 2, 3, 4, 6, 8, 9, 10, 12, 14]
    assert (train[10], train[111], valid[10], valid[111]) == (26, 203, 18, 242)
    assert len(train) == len(valid) == 25_000
    assert sorted(train + valid) == list(range(50_000))


@pytest.mark.parametrize("error", [URLError("no route"), RuntimeError("File not found or corrupted."), OSError("full")])
def test_a_failed_download_says_what_to_put_where(
    error: Exception, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download_url(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(torchvision.datasets.utils, "download_url", download_url)
    with pytest.raises(BadInput) as refused:
        load_images("cifar100")
    said = str(refused.value)
    assert "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz" in said
    assert str(home / "downloads" / "cifar-100-binary.tar.gz") in said
    assert "`nasbench data add NAME FOLDER --target cifar100`" in said


# ---------------------------------------------------------------------- folders


def draw(path: Path, grey: int, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, grey if mode == "L" else (grey, 0, 255)).save(path)


def pets(folder: Path, per_class: int = 10, split: str = "train") -> Path:
    for i in range(per_class):
        draw(folder / split / "dog" / f"{i}.png", 100 + i)
        draw(folder / split / "cat" / f"{i}.png", i)
    return folder


def test_a_folder_of_images(tmp_path: Path, home: Path) -> None:
    pets(tmp_path), pets(tmp_path, 2, "valid"), pets(tmp_path, 3, "test")
    said = add_images("pets", tmp_path, "cifar10")
    images = load_images("pets")
    assert said.startswith("20 train, 4 valid, 6 test images of 2 classes, ranked against cifar10")
    assert str(home / "datasets" / "pets.safetensors") in said
    assert (images.name, images.target, images.classes) == ("pets", "cifar10", ["cat", "dog"])
    train = images.splits["train"]
    assert train.images.shape == (20, 3, 5, 6)
    assert train.labels.tolist() == [0] * 10 + [1] * 10
    assert train.images[:, 0, 0, 0].tolist() == [*range(10), *range(100, 110)]
    assert train.images[0, :, 0, 0].tolist() == [0, 0, 255]


def test_without_test_images_a_stratified_fifth_of_training_is_taken(tmp_path: Path) -> None:
    splits = read_folder("pets", pets(tmp_path), "pets").splits
    assert splits.keys() == {"train", "test"}
    assert Counter(splits["test"].labels.tolist()) == {0: 2, 1: 2}
    greys = torch.cat([split.images[:, 0, 0, 0] for split in splits.values()])
    assert sorted(greys.tolist()) == [*range(10), *range(100, 110)]


def test_images_of_any_size_are_made_one(tmp_path: Path) -> None:
    """The largest square in the middle, resized: a white column at the far left of a wide image is gone."""
    pets(tmp_path, 3)
    wide = Image.new("RGB", (12, 6), (50, 60, 70))
    wide.paste((255, 255, 255), (0, 0, 2, 6))
    wide.save(tmp_path / "train" / "cat" / "0.png")
    with pytest.raises(BadInput, match="make them one with --size"):
        read_folder("pets", tmp_path, "pets")
    said = nasbench("data", "add", "pets", str(tmp_path), "--size", "4", cwd=tmp_path)
    assert (said.code, said.err) == (0, "")
    images = torch.cat([split.images for split in load_images("pets").splits.values()])
    assert images.shape == (6, 3, 4, 4)
    (mine,) = [image for image in images if image[1].float().mean() == 60]
    assert mine.unique().tolist() == [50, 60, 70]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["nb201", "x.csv", "--size", "32"], "--size belongs to a folder of images"),
        (["pets", ".", "--size", "3"], "--size 3 does not fit: expected 4 or more"),
    ],
)
def test_a_size_that_does_not_fit(tmp_path: Path, command: list[str], said: str) -> None:
    result = nasbench("data", "add", *command, cwd=tmp_path)
    assert result.code == 2
    assert said in result.err


def test_without_a_target_a_dataset_is_its_own(tmp_path: Path) -> None:
    add_images("pets", pets(tmp_path), None)
    assert load_images("pets").target == "pets"


def test_grey_images_get_three_channels_and_hidden_files_are_left_alone(tmp_path: Path) -> None:
    pets(tmp_path, 1)
    draw(tmp_path / "train" / "cat" / "grey.png", 77, mode="L")
    for hidden in ("train/.thumbnails/x.png", "train/cat/.DS_Store"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).touch()
    images = read_folder("pets", tmp_path, "pets")
    assert images.classes == ["cat", "dog"]
    assert images.splits["train"].images[1, :, 0, 0].tolist() == [77, 77, 77]


def test_the_real_images(tmp_path: Path, shared_data: Path) -> None:
    """A few of each class of CIFAR-10 as JPEG files, through `data add`, bit for bit what Pillow decodes."""
    seen: Counter[str] = Counter()
    first: dict[str, bytes] = {}
    with tarfile.open(shared_data / "cifar10_jpeg.tar.xz", "r|xz") as tar:
        for member in tar:
            folder = str(Path(member.name).parent)
            if member.isfile() and seen[folder] < (12 if folder.startswith("train") else 4):
                path = tmp_path / member.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(tar.extractfile(member).read())  # type: ignore[union-attr]
                first.setdefault(folder, path.read_bytes())
                seen[folder] += 1

    add_images("cifar10-jpeg", tmp_path, "cifar10")
    images = load_images("cifar10-jpeg")

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    assert images.classes == names
    assert images.target == "cifar10"
    assert images.splits["train"].labels.tolist() == [c for c in range(10) for _ in range(12)]
    assert images.splits["test"].labels.tolist() == [c for c in range(10) for _ in range(4)]
    for label, name in enumerate(names):
        pixels = np.asarray(Image.open(io.BytesIO(first[f"train/{name}"]))).transpose(2, 0, 1)
        assert np.array_equal(images.splits["train"].images[12 * label].numpy(), pixels)
