"""A run as far as it may refuse."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from nasbench.harness import prepare
from nasbench.recipe import resolve


def train_refused(method: str, space: str = "tiny", **train: Any) -> None:
    """Prepare a run with the preset test; nothing is trained."""
    prepare(resolve(method, space, preset="test", sets={"train": train}), Path(tempfile.gettempdir()))
