"""The arithmetic of every number nasbench reports: pure functions, no state, no torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import stats


def kendall_tau(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Kendall's tau-b, ties handled; None where it is undefined (fewer than two values, one constant, a NaN).

    >>> kendall_tau([1, 2, 3, 4], [1, 2, 3, 4]), kendall_tau([1, 2, 3, 4], [4, 3, 2, 1])
    (1.0, -1.0)
    >>> round(kendall_tau([1, 1, 2, 3], [1, 2, 2, 3]), 4)
    0.8
    >>> kendall_tau([1, 1, 1], [1, 2, 3]) is None
    True
    """
    if len(x) != len(y):
        raise ValueError(f"the two rankings have {len(x)} and {len(y)} values")
    if len(x) < 2 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return _defined(stats.kendalltau(x, y).statistic)


def tau_interval(
    x: Sequence[float], y: Sequence[float], *, resamples: int = 500, seed: int = 0
) -> tuple[float, float] | None:
    """A 95 % percentile-bootstrap interval of Kendall's tau-b, resampling the architectures.

    It says how far tau depends on which architectures were ranked; the spread over seeds is another matter.

    >>> low, high = tau_interval(range(50), range(50)); (round(low, 6), high)
    (1.0, 1.0)
    """
    a, b, rng = np.asarray(x), np.asarray(y), np.random.default_rng(seed)
    draws = (rng.integers(0, len(a), len(a)) for _ in range(resamples))
    taus = [t for i in draws if (t := kendall_tau(a[i].tolist(), b[i].tolist())) is not None]
    if len(taus) < resamples / 2:
        return None
    low, high = np.percentile(taus, [2.5, 97.5])
    return float(low), float(high)


#: Where the values of a metric lie; those of others anywhere.
RANGES = {
    "kendall_tau": (-1.0, 1.0),
    "params_tau": (-1.0, 1.0),
    **dict.fromkeys(("top1", "average_top1"), (0.0, 100.0)),
}


def mean_interval(values: Sequence[float], metric: str = "") -> tuple[float, float] | None:
    """A 95 % Student-t interval of the mean, cut off where no value of the metric can lie; None for fewer than three.

    Of two it would be a dozen times as wide as they are apart, which says nothing.

    >>> [round(v, 3) for v in mean_interval([1.0, 2.0, 3.0])]
    [-0.484, 4.484]
    >>> [round(v, 3) for v in mean_interval([1.0, 2.0, 3.0], "top1")]
    [0.0, 4.484]
    """
    if len(values) < 3:
        return None
    spread = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    least, most = RANGES.get(metric, (-np.inf, np.inf))
    return float(max(np.mean(values) - spread, least)), float(min(np.mean(values) + spread, most))


def spearman(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None where it is undefined.

    >>> round(spearman([1, 2, 3, 4], [1, 2, 4, 3]), 3)
    0.8
    """
    if len(x) < 2 or len(set(x)) < 2 or len(set(y)) < 2:
        return None
    return _defined(stats.spearmanr(x, y).statistic)


def _defined(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def precision_at(k: int, scores: Sequence[float], truth: Sequence[float]) -> float | None:
    """Share of the k best by score that are among the k truly best; ties fall to the earlier one.

    >>> precision_at(2, [4, 3, 2, 1], [4, 1, 3, 2])
    0.5
    """
    if k > len(scores):
        return None
    return len(set(_best(k, scores)) & set(_best(k, truth))) / k


def best_rank_at(k: int, scores: Sequence[float], truth: Sequence[float]) -> int | None:
    """True rank (1 is best) of the truly best among the k best by score.

    >>> best_rank_at(2, [1, 4, 3, 2], [4, 1, 3, 2])
    2
    """
    if k > len(scores):
        return None
    best = max(truth[i] for i in _best(k, scores))
    return 1 + sum(value > best for value in truth)


def _best(k: int, values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda i: (-values[i], i))[:k]


def improvements(values: Sequence[float]) -> list[int]:
    """Indices of the values that are above all before them: the steps of `the best so far`.

    >>> improvements([3, 1, 3, 5, 4])
    [0, 3]
    """
    steps: list[int] = []
    for i, value in enumerate(values):
        if not steps or value > values[steps[-1]]:
            steps.append(i)
    return steps


def complexity_bias_inferred(
    complexity: Sequence[float], scores: Sequence[float], truth: Sequence[float]
) -> float | None:
    """Of the pairs that the scores order against the truth, the share in which they prefer the smaller one.

    0.5 is unbiased. The paper prints a Complexity Bias (supplement, Table D) without its formula; this is
    an inference that matches the printed range, never to stand beside the printed values.

    >>> complexity_bias_inferred([1, 2, 3], [3, 2, 1], [1, 2, 3])
    1.0
    """
    c, s, t = (np.asarray(v, dtype=np.float64) for v in (complexity, scores, truth))
    against, smaller = 0, 0
    for i in range(len(c) - 1):
        dc, ds, dt = c[i + 1 :] - c[i], s[i + 1 :] - s[i], t[i + 1 :] - t[i]
        contradicted = (dc != 0) & (ds * dt < 0)
        against += int(contradicted.sum())
        smaller += int((contradicted & (dc * ds < 0)).sum())
    return smaller / against if against else None


def complexity_convergence_inferred(
    complexity: Sequence[float], scores: Sequence[float], truth: Sequence[float]
) -> float | None:
    """Kendall's tau between complexity and score/truth: whether larger subnets are left behind (0 is fair).

    An inference of the paper's C3 (supplement, Table D), whose formula is not printed there. None where it is
    undefined, as it is if an accuracy is 0.

    >>> complexity_convergence_inferred([1, 2, 3], [30, 20, 10], [90, 90, 90])
    -1.0
    """
    if 0 in truth:
        return None
    return kendall_tau(complexity, [s / t for s, t in zip(scores, truth, strict=True)])


def accuracy_density(top1: float, params: int) -> float:
    """Top-1 accuracy in percent per million parameters (MG-DARTS, section V).

    >>> round(accuracy_density(97.47, 2_200_000), 2)
    44.3
    """
    return top1 / (params / 1e6)


def regret(best: float, found: float) -> float:
    """How much of the best accuracy was missed, in percentage points.

    >>> round(regret(94.37, 93.12), 2)
    1.25
    """
    return best - found
