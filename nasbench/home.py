"""Where data and tables live: $NASBENCH_HOME, else the platform's folder for caches."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def path(*parts: str) -> Path:
    """A path below the home folder; nothing is created."""
    base = os.environ.get("NASBENCH_HOME") or platformdirs.user_cache_dir("nasbench")
    return Path(base, *parts)


def stored(kind: str) -> list[str]:
    """Names of the `datasets` or `tables` that `nasbench data add` stored."""
    return sorted(file.name.removesuffix(".safetensors") for file in path(kind).glob("*.safetensors"))
