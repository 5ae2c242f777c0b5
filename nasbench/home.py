"""Where data and tables live: $NASBENCH_HOME, else the platform's folder for caches."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

#: The built-in datasets that are not bundled: the file below the home folder that holds each, and how it gets there.
FETCHED = {
    "cifar10": ("downloads/cifar-10-binary.tar.gz", "downloaded by torchvision at first use"),
    "cifar100": ("downloads/cifar-100-binary.tar.gz", "downloaded by torchvision at first use"),
    "imagenet16-120": (
        "datasets/imagenet16-120.safetensors",
        "`nasbench data add imagenet16-120 FOLDER`, with the files from image-net.org",
    ),
}


def path(*parts: str) -> Path:
    """A path below the home folder; nothing is created."""
    base = os.environ.get("NASBENCH_HOME") or platformdirs.user_cache_dir("nasbench")
    return Path(base, *parts)


def stored(kind: str) -> list[str]:
    """Names of the `datasets` or `tables` that `nasbench data add` stored."""
    return sorted(file.name.removesuffix(".safetensors") for file in path(kind).glob("*.safetensors"))


def missing() -> dict[str, str]:
    """The built-in datasets that are not at hand, and how each is got."""
    return {name: how for name, (file, how) in FETCHED.items() if not path(file).exists()}
