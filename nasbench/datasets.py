"""The built-in datasets, and folders of images. Nothing here unpickles what was downloaded."""

from __future__ import annotations

import random
import tarfile
from pathlib import Path
from typing import ClassVar
from urllib.error import URLError

import numpy as np
import torch
from PIL import Image, ImageOps

from nasbench import home
from nasbench.data import Dataset, Images, Split, stratified, stratified_order
from nasbench.errors import BadInput


class Digits(Dataset):
    """Handwritten digits bundled with scikit-learn: 1,797 images, 8x8, one channel, ten classes."""

    TRAIN, VALID, SEED = 60, 40, 20_190_000

    def load(self) -> Images:
        from sklearn.datasets import load_digits

        bunch = load_digits()
        pixels = np.rint(bunch.images * 255 / 16).astype(np.uint8)[:, None]
        everything = Split(torch.from_numpy(pixels), torch.from_numpy(bunch.target.astype(np.int64)))
        order = stratified_order(bunch.target, self.SEED)
        bounds = {"train": (0, self.TRAIN), "valid": (self.TRAIN, self.TRAIN + self.VALID)}
        bounds["test"] = (self.TRAIN + self.VALID, len(pixels))
        splits = {k: everything.take(np.concatenate([rows[a:b] for rows in order])) for k, (a, b) in bounds.items()}
        return Images("digits", "digits", [str(c) for c in range(10)], splits)


class CIFAR(Dataset):
    """The binary version of a CIFAR dataset (Krizhevsky 2009): plain bytes, checked against the published MD5."""

    name: str
    count: int
    label_bytes: int
    md5: str
    files: ClassVar[dict[str, list[str]]]

    def load(self) -> Images:
        from torchvision.datasets.utils import check_integrity, download_url

        archive = home.path(home.FETCHED[self.name][0])
        url = f"https://www.cs.toronto.edu/~kriz/{archive.name}"
        if not check_integrity(str(archive), self.md5):
            try:
                download_url(url, str(archive.parent), md5=self.md5)
            except (URLError, OSError, RuntimeError) as error:
                raise BadInput(
                    f"{self.name} could not be downloaded ({error}); fetch {url} elsewhere and put it at {archive}, "
                    f"or add a folder of images with `nasbench data add NAME FOLDER --target {self.name}`."
                ) from None
        with tarfile.open(archive) as tar:
            raw = {Path(m.name).name: tar.extractfile(m).read() for m in tar if m.isfile() and m.name.endswith(".bin")}  # type: ignore[union-attr]
        splits = {key: self.parse(b"".join(raw[name] for name in names)) for key, names in self.files.items()}
        return Images(self.name, self.name, [str(c) for c in range(self.count)], splits)

    @classmethod
    def parse(cls, content: bytes) -> Split:
        """Records of `label_bytes` label bytes (the last is the fine label) and 3,072 pixels, as published."""
        records = np.frombuffer(content, np.uint8).reshape(-1, cls.label_bytes + 3 * 32 * 32)
        labels = records[:, cls.label_bytes - 1].astype(np.int64)
        images = records[:, cls.label_bytes :].reshape(-1, 3, 32, 32).copy()
        return Split(torch.from_numpy(images), torch.from_numpy(labels))


class CIFAR10(CIFAR):
    """CIFAR-10: 60,000 colour images, 32x32, ten classes.

    The training images come in the halves that NAS-Bench-201 trains and validates on.
    """

    name, count, label_bytes = "cifar10", 10, 1
    md5 = "c32a1d4ab5d03f1284b67883e8d87530"
    files: ClassVar[dict[str, list[str]]] = {
        "train": [f"data_batch_{i}.bin" for i in range(1, 6)],
        "test": ["test_batch.bin"],
    }

    def load(self) -> Images:
        images = super().load()
        everything = images.splits.pop("train")
        train, valid = nas_bench_halves(len(everything))
        images.splits.update(train=everything.take(train), valid=everything.take(valid))
        return images


def nas_bench_halves(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The two halves of CIFAR-10's `count` training images, as NAS-Bench-201's authors drew them.

    Dong and Yang give the rule in their code: Python's generator seeded with 1021 shuffles the indices.
    """
    order = list(range(count))
    random.Random(1021).shuffle(order)
    return np.sort(order[: count // 2]), np.sort(order[count // 2 :])


class CIFAR100(CIFAR):
    """CIFAR-100: 60,000 colour images, 32x32, a hundred classes."""

    name, count, label_bytes = "cifar100", 100, 2
    md5 = "03b5dce01913d631647c71ecec9e9cb8"
    files: ClassVar[dict[str, list[str]]] = {"train": ["train.bin"], "test": ["test.bin"]}


def read_folder(name: str, folder: Path, target: str, size: int | None = None) -> Images:
    """A folder `train/<class>/*`, optionally `valid/...` and `test/...`, as one dataset.

    Without `test`, a seeded, stratified fifth of the training images becomes it. With `size`, the largest square in
    the middle of each image is resized to that side (bilinear); without, all images must have one size.
    """
    if not (folder / "train").is_dir():
        raise BadInput(f"{folder} has no folder 'train'; expected {folder}/train/CLASS/IMAGE files.")
    classes = _folders(folder / "train")
    if len(classes) < 2:
        raise BadInput(f"{folder}/train holds {len(classes)} class folders; expected two or more.")
    splits, shape = {}, None
    for key in ("train", "valid", "test"):
        if not (folder / key).is_dir():
            continue
        if strange := sorted(set(_folders(folder / key)) - set(classes)):
            raise BadInput(f"{folder}/{key} has the class {strange[0]!r}, which {folder}/train has not.")
        images, labels = [], []
        for label, cls in enumerate(classes):
            for file in sorted((folder / key / cls).glob("[!.]*")):
                images.append(_pixels(file, size))
                labels.append(label)
                shape = shape or images[0].shape
                if images[-1].shape != shape:
                    here, first = ("x".join(map(str, s[:2])) for s in (images[-1].shape, shape))
                    raise BadInput(f"{file} is {here} and the images before it {first}; make them one with --size.")
        if not images:
            raise BadInput(f"{folder}/{key} holds no images.")
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
        splits[key] = Split(stacked, torch.tensor(labels))
    if "test" not in splits:
        source, count = splits["train"], len(splits["train"]) // 5
        splits["test"] = stratified(source, count, seed=0)
        splits["train"] = stratified(source, len(source) - count, seed=0, skip=count)
    return Images(name, target, classes, splits)


def _pixels(file: Path, size: int | None) -> np.ndarray:
    """An image as uint8 [H,W,3]."""
    try:
        with Image.open(file) as image:
            colours = image.convert("RGB")
            return np.asarray(ImageOps.fit(colours, (size, size), Image.Resampling.BILINEAR) if size else colours)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises
        raise BadInput(f"{file} cannot be read as an image ({error}).") from None


def _folders(place: Path) -> list[str]:
    return sorted(p.name for p in place.iterdir() if p.is_dir() and not p.name.startswith("."))
