"""What the searches with a predictor share: a code of architectures, and the table that they need."""

from __future__ import annotations

import numpy as np

from nasbench import Arch, Run, SearchSpace


def refuse(run: Run) -> str | None:
    """Why a search on a table cannot run, or None."""
    if run.truth is None:
        return f"{run.recipe.method} looks results up; {run.space.name} has no ground truth for {run.recipe.target}."
    return None


def one_hot(space: SearchSpace, archs: list[Arch]) -> np.ndarray:
    """Architectures as float32 [N, sum of option counts]: of each decision 1 at its option, else 0."""
    counts = [len(names) for names in space.choices.values()]
    starts = np.cumsum([0, *counts[:-1]])
    codes = np.zeros((len(archs), sum(counts)), np.float32)
    np.put_along_axis(codes, np.array(archs).reshape(len(archs), -1) + starts, 1, axis=1)
    return codes


def nearest(pool: np.ndarray, arch: Arch) -> Arch:
    """The first architecture of a pool [N, decisions] that differs in the fewest decisions."""
    return tuple(pool[(pool != np.array(arch)).sum(1).argmin()].tolist())
