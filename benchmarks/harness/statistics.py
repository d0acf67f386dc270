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


def paired_bootstrap(
    difference: Numbers, clusters: NDArray[np.int32] | None = None, draws: int = 10_000
) -> tuple[float, float, float]:
    """95 % interval of the mean of difference (seeds, test items), and the two-sided p of "no difference". Test items are drawn
    anew, those of one cluster (items,) together (Field and Welsh 2007); without clusters every item is one by itself. Seeds are
    too few to be drawn anew (three of three vary by 2/3 of what they should): their mean is moved by what Student's t leaves open.
    """
    from scipy.stats import t

    rng = np.random.default_rng(0)
    seeds, items = difference.shape
    numbers = np.arange(items) if clusters is None or not len(clusters) else clusters
    sizes, sums = np.bincount(numbers), np.bincount(numbers, difference.mean(0))
    means = np.empty(draws)
    for i in range(draws):
        chosen = rng.integers(len(sizes), size=len(sizes))
        means[i] = sums[chosen].sum() / sizes[chosen].sum()
    if seeds > 1:
        spread = difference.mean(1).std(ddof=1) / np.sqrt(seeds)
        means += spread * t.rvs(seeds - 1, size=draws, random_state=rng)
    tail = min((means <= 0).sum(), (means >= 0).sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high), min(1.0, 2 * float(tail + 1) / (draws + 1))


def wilcoxon(first: Numbers, second: Numbers) -> float:
    """Two-sided p of the signed-rank test over paired seeds (Wilcoxon 1945); at least 2^(1−n) for n seeds, 1 if all are equal."""
    from scipy.stats import wilcoxon as test

    return 1.0 if (first == second).all() else float(test(first, second).pvalue)
