"""ImageNet16-120: the first 120 classes of ImageNet at 16x16, from the files as published."""

from __future__ import annotations

import base64
from pathlib import Path

import numpy as np
import torch
from torchvision.datasets.utils import calculate_md5

from nasbench import home
from nasbench.data import Dataset, Images, Split, read_images
from nasbench.errors import BadInput
from nasbench.unpickle import load_plain

#: The files of Imagenet16_train.zip and Imagenet16_val.zip, and their MD5 as NAS-Bench-201's code checks it.
TRAIN = {
    "train_data_batch_1": "27846dcaa50de8e21a7d1a35f30f0e91",
    "train_data_batch_2": "c7254a054e0e795c69120a5727050e3f",
    "train_data_batch_3": "4333d3df2e5ffb114b05d2ffc19b1e87",
    "train_data_batch_4": "1620cdf193304f4a92677b695d70d10f",
    "train_data_batch_5": "348b3c2fdbb3940c4e9e834affd3b18d",
    "train_data_batch_6": "6e765307c242a1b3d7d5ef9139b48945",
    "train_data_batch_7": "564926d8cbf8fc4818ba23d2faac7564",
    "train_data_batch_8": "f4755871f718ccb653440b9dd0ebac66",
    "train_data_batch_9": "bb6dd660c38c58552125b1a92f86b5d4",
    "train_data_batch_10": "8f03f34ac4b42271a294f91bf480f29b",
}
VAL = {"val_data": "3410e3017fdaefba8d5073aaa65e4bd6"}
NAME, CLASSES, SIDE = "imagenet16-120", 120, 16
#: NAS-Bench-201's list of validation images (xvalid of its imagenet-16-120-test-split.txt): a bit for each of the 6,000
#: of the first 120 classes in the file's order, first bit first, base64. The others are its test images.
VALID = (
    "c8iwPL7WtoI5v6Z6/SGuyHVreiB89vPs4jgwhCUkAH4zvHnCY1fyipjaeKPZp2mAV071JYEVB6mQov0BQDDt2n1zZLCDWKuhkVBUPSG7Qb6QKe4Y"
    "rQb7uArM+dc4qKuTqRXjYoETRa9AVbihq025HlT6JGandu2tF7idqQ6IgMj+pZ3JgwcZlMF0vJJiAplLAphG92VmCBDwujBydPt4zIXgLUusjZIl"
    "mQx6lF90vF/knwrIohTozEwMIGT1D5KMwxjv/Lay7lqrpPw7GtGiZL9I9d2t0q/Zl+od+ohexsY4tcRoHhoPNHNsvIMIJ7UkX8NGGnm2O8cw4Cwd"
    "ByP7+tkYMzUqXG2FOxcA43BgDjjR9yjED1WGo/XsZ0WSjkQ88UI4er4IF3w0YUzx/d1T+49BTbOB0UGKgoMd+50KiXJIVuENTozHJVULJxEG8nAw"
    "OhlLT4Jem9ufzqRnnf1vbepXA2CSvr4mf04468I9PD3nv7shgPzudJ6Hl13hYrGtv2OGhZgOIUFGDS8SXYotYUO0mzbR++0Brv8eE41NbvfNZQZZ"
    "bWSrdI2HiSGdEnuzdX7JUkfjdmomtNgjOAF6DlkbCs2zpAjZXGmQTrertS9PEvGzblP2Br2fhYroGt+d2B8T07WTHJUux7XM98ePjBYtGZzcSFgU"
    "xW6pd1T7VSbJhg8VcpAp+j0IFvIrNVXhLlny6ZnpTsg7/N/r75gD1HNlIo50GlzTIt4BQCEIkFDO5dKIjI//Riy2imCH7iWksV1+e+qNncVGcJuy"
    "EOx3dxpSxRDTOm81OlpftULHOKYPYn7fkuqZKeu1+fWMlP6hIyH5DPdl1P8E5tc3T+Qh8DmV9jGtXeu2/pugtLcNSv39p8jf1XxGBWuByGLZDDvc"
    "vkBAXClgvpWWkrY2pDKMjAKYT34DgA5y7yNtfHNyU7U8wJzlAbw7DtKHNmjmHnRK0D0dMy/bBIv9ALQ6HJTfbtQYP4gsC6pDM5qt+tln"
)


class ImageNet16(Dataset):
    """ImageNet (Chrabaszcz et al. 2017, arXiv:1707.08819) as NAS-Bench-201 cuts it: 151,700 training images.

    ImageNet's 6,000 validation images are its `valid` and `test`, 3,000 each, by its own list.
    """

    def load(self) -> Images:
        """What `nasbench data add imagenet16-120 FOLDER` stored; the licence allows no download without an account."""
        path = home.path("datasets", f"{NAME}.safetensors")
        if not path.exists():
            raise BadInput(
                f"{NAME} is not there yet; get Imagenet16_train.zip and Imagenet16_val.zip from image-net.org, unpack "
                f"them into one folder, and add it with `nasbench data add {NAME} FOLDER`."
            )
        return read_images(path)

    def read(self, folder: Path) -> Images:
        """The images of a folder with `train_data_batch_1` to `_10` and `val_data`, checked against their MD5."""
        train = [read_batch(folder / name, md5) for name, md5 in TRAIN.items()]
        (val,) = (read_batch(folder / name, md5) for name, md5 in VAL.items())
        valid, test = nas_bench_halves()
        splits = {
            "train": Split(torch.cat([s.images for s in train]), torch.cat([s.labels for s in train])),
            "valid": val.take(valid),
            "test": val.take(test),
        }
        return Images(NAME, NAME, [str(label) for label in range(1, CLASSES + 1)], splits)


def nas_bench_halves() -> tuple[np.ndarray, np.ndarray]:
    """Indices of the images that NAS-Bench-201 validates and tests on, 3,000 each."""
    bits = np.unpackbits(np.frombuffer(base64.b64decode(VALID), np.uint8))
    return np.flatnonzero(bits), np.flatnonzero(1 - bits)


def read_batch(path: Path, md5: str) -> Split:
    """The images of one file whose label, published from 1, is among the first 120. Raises BadInput."""
    if not path.is_file():
        raise BadInput(f"{path.parent} has no file {path.name}; expected {', '.join([*TRAIN, *VAL])}.")
    if (found := calculate_md5(str(path))) != md5:
        raise BadInput(f"{path} has the MD5 {found}; the published file's is {md5}, so download it again.")
    with path.open("rb") as file:
        content = load_plain(file, path)
    labels = np.asarray(content["labels"], np.int64) - 1
    rows = np.flatnonzero(labels < CLASSES)
    images = np.asarray(content["data"])[rows].reshape(-1, 3, SIDE, SIDE)
    return Split(torch.from_numpy(images), torch.from_numpy(labels[rows]))
