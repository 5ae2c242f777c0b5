"""`nasbench data add`: take in a table or a folder of images, after looking closely."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import numpy as np

from nasbench import home, tables
from nasbench.errors import BadInput
from nasbench.plugins import discover, load


def add_table(space: str, path: Path) -> str:
    """Verify and store the ground truth of a space; says what was stored.

    Named subsets of the table that was there are kept, since not every form of it names them.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist; expected the ground truth of the search space {space}.")
    made = load("space", space)()
    table = made.read_ground_truth(path)
    with contextlib.suppress(BadInput):  # one that cannot be read is replaced
        old = tables.stored(made)
        if old is not None and np.array_equal(old.numbers, table.numbers):
            table.subsets.update({name: rows for name, rows in old.subsets.items() if name not in table.subsets})
    destination = tables.stored_path(space)
    table.save(destination)
    subsets = f"; subsets {', '.join(table.subsets)}" if table.subsets else ""
    return f"{len(table):,} architectures, {', '.join(map(str, table.columns))}{subsets} -> {destination}"


def add_images(name: str, path: Path, target: str | None, size: int | None = None) -> str:
    """Read and store a folder of images as a dataset, or a built-in one's original files; says what was stored.

    `size` is the side that images of a folder are resized to.
    """
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", name):
        raise BadInput(f"{name!r} is no dataset name; use small letters, digits, '-', '_' and '.'.")
    if not path.is_dir():
        raise BadInput(
            f"{path} is no folder; expected {path}/train/CLASS/IMAGE files for the dataset {name!r}, "
            f"or the name of a search space ({', '.join(discover('space'))}) before a file of ground truth."
        )
    from nasbench.data import write_images  # brings torch in, which a table does not need
    from nasbench.datasets import read_folder

    if name in discover("dataset"):
        images = load("dataset", name)().read(path)
        if images is None:
            raise BadInput(f"{name!r} is a built-in dataset; choose another name, such as {name}-mine.")
        if target not in (None, images.target):
            raise BadInput(f"{name} is ranked against {images.target}; leave --target {target} out.")
        if size is not None:
            raise BadInput(f"The images of {name} are kept as they are; run with --set data.size={size} instead.")
    else:
        images = read_folder(name, path, target or name, size)
    destination = home.path("datasets", f"{name}.safetensors")
    write_images(images, destination)
    sizes = ", ".join(f"{len(split):,} {key}" for key, split in images.splits.items())
    return f"{sizes} images of {len(images.classes)} classes, ranked against {images.target} -> {destination}"
