"""Whole runs as the engine computes them on a CPU with instructions for bfloat16, beside the plain computation."""

from __future__ import annotations

from pathlib import Path

import pytest
from scipy.stats import kendalltau

from nasbench.harness import prepare
from nasbench.recipe import resolve

PLAIN = {"precision": "float32", "memory_format": "contiguous"}
FAST = {"precision": "bfloat16", "memory_format": "channels_last"}


@pytest.mark.slow
def test_a_ranking_in_bfloat16_differs_from_the_plain_one_no_more_than_another_seeds_does(tmp_path: Path) -> None:
    """A tenth of preset `quick`: supernets trained and scored in either precision, and from another seed.

    tau of unrelated rankings of n has the standard error sqrt(2 (2n + 5) / (9n (n - 1))), 0.07 for n = 100.
    """

    def scores(seed: int, engine: dict[str, str]) -> list[float]:
        sets = {"train": {"epochs": 30}, "score": {"subset": "random:100"}, "engine": engine}
        run, _ = prepare(resolve("spos", "nb201", preset="quick", seed=seed, sets=sets), tmp_path)
        run.hook.search(run=run)
        return [run.scores[arch] for arch in run.subset()]

    def agreement(a: list[float], b: list[float]) -> float:
        return float(kendalltau(a, b).statistic)

    plain, fast, other = scores(0, PLAIN), scores(0, FAST), scores(1, PLAIN)
    assert agreement(plain, fast) > agreement(plain, other) - 2 * 0.07
    assert agreement(plain, other) > 0.5  # so that there is something to lose
