"""What may be said about a difference."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


def interval(values: Numbers) -> float:
    """Half width of the 95 % interval of a mean over seeds (Student's t); NaN for one seed."""
    from scipy.stats import t

    if len(values) < 2:
        return float("nan")
    return float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))


def paired_bootstrap(difference: Numbers, draws: int = 10_000) -> tuple[float, float, float]:
    """95 % interval of the mean difference per test item, and the two-sided p of "no difference"."""
    rng = np.random.default_rng(0)
    means = np.array([difference[rng.integers(len(difference), size=len(difference))].mean() for _ in range(draws)])
    p = 2 * min((means <= 0).mean(), (means >= 0).mean())
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975)), min(1.0, float(p))


def wilcoxon(first: Numbers, second: Numbers) -> float:
    """Two-sided p of the signed-rank test over paired seeds (Wilcoxon 1945); at least 2^(1−n) for n seeds, 1 if all are equal."""
    from scipy.stats import wilcoxon as test

    return 1.0 if (first == second).all() else float(test(first, second).pvalue)
