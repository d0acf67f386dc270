"""What may be said about a difference."""

from __future__ import annotations

from itertools import combinations

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
    anew, those of one cluster together (Field and Welsh 2007); without clusters every item is one by itself. Of several kinds of
    clusters (kinds, items), such as pictures and sounds that recur independently, the first is drawn and what is drawn stretched to
    the variance of all. Seeds are too few to be drawn anew (three of three vary by 2/3 of what they should): their mean is moved by
    what Student's t leaves open.
    """
    from scipy.stats import t

    rng = np.random.default_rng(0)
    seeds, items = difference.shape
    kinds = np.arange(items)[None] if clusters is None or not len(clusters) else clusters
    mean = difference.mean(0)
    sizes, sums = np.bincount(kinds[0]), np.bincount(kinds[0], mean)
    means = np.empty(draws)
    for i in range(draws):
        chosen = rng.integers(len(sizes), size=len(sizes))
        means[i] = sums[chosen].sum() / sizes[chosen].sum()
    means = mean.mean() + (means - mean.mean()) * _stretch(mean, kinds)
    if seeds > 1:
        spread = difference.mean(1).std(ddof=1) / np.sqrt(seeds)
        means += spread * t.rvs(seeds - 1, size=draws, random_state=rng)
    tail = min((means <= 0).sum(), (means >= 0).sum())
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high), min(1.0, 2 * float(tail + 1) / (draws + 1))


def _stretch(values: Numbers, kinds: NDArray[np.int32]) -> float:
    """The deviation of the mean of values (items,) whose items depend on each other within every kind of clusters (kinds, items),
    over that with the first kind alone: variances by every set of kinds, those of even sets subtracted (Cameron, Gelbach and Miller
    2011); never less than that of one kind.
    """
    if len(kinds) == 1:
        return 1.0
    total, single = 0.0, []
    for size in range(1, len(kinds) + 1):
        for some in combinations(kinds, size):
            variance = _variance(values, np.unique(np.stack(some), axis=1, return_inverse=True)[1].ravel())
            total += variance if size % 2 else -variance
            single += [variance] if size == 1 else []
    return float(np.sqrt(max(total, *single) / single[0])) if single[0] else 1.0


def _variance(values: Numbers, clusters: NDArray[np.intp]) -> float:
    """Of the mean of values (items,), items of one cluster (items,) depending on each other."""
    sums = np.bincount(clusters, values - values.mean())
    return float(len(sums) / (len(sums) - 1) * (sums**2).sum() / len(values) ** 2) if len(sums) > 1 else 0.0
