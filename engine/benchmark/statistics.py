"""Whether one method beats another: paired over cases and seeds.

Scores are float arrays [seeds, cases], NaN where a score is undefined; with folds one for each, of different cases and
different trainings. A case counts once, with its mean over seeds, because runs of several seeds on one case are not
independent observations. A score that is undefined on either side is left out on both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from utils.seeding import generator

ScoreArray = NDArray[np.float64]

RESAMPLES = 10_000


@dataclass(frozen=True)
class Comparison:
    """gain: mean difference over cases; low, high: its 95 % interval; p: two-sided, not corrected."""

    gain: float
    low: float
    high: float
    p: float
    cases: int


def compare(method: Sequence[ScoreArray], baseline: Sequence[ScoreArray], seed: int = 0) -> Comparison:
    """A method against its baseline, both a [seeds, cases] for each fold, with the same seeds and cases in order."""
    differences = [of_method - of_baseline for of_method, of_baseline in zip(method, baseline, strict=True)]
    by_case = np.concatenate([mean_over_seeds(of_fold) for of_fold in differences])
    gain = float(by_case.mean()) if len(by_case) else np.nan
    return Comparison(gain, *bootstrap_interval(differences, seed), signed_rank_p(by_case), len(by_case))


def mean_over_seeds(scores: ScoreArray) -> ScoreArray:
    """[cases that any seed defines]: each case's mean over the seeds that define it."""
    defined = ~np.isnan(scores)
    seen = defined.any(axis=0)
    sums: ScoreArray = np.where(defined, scores, 0).sum(axis=0)[seen]
    means: ScoreArray = sums / defined.sum(axis=0)[seen]
    return means


def bootstrap_interval(
    differences: Sequence[ScoreArray], seed: int = 0, resamples: int = RESAMPLES, level: float = 0.95
) -> tuple[float, float]:
    """Percentile interval of the mean over cases of the mean over seeds; NaN, NaN where nothing is defined.

    differences: [seeds, cases] of each fold. A resample draws seeds and cases of a fold with replacement, independently
    of each other, because every seed is scored on every case: A. B. Owen: The Pigeonhole Bootstrap, Annals of Applied
    Statistics 1(2), 2007 (arXiv 0712.1111). It draws one fewer than there are, because a resample of n has only
    (n - 1) / n of the variance, two thirds with three seeds: J. N. K. Rao, C. F. J. Wu: Resampling Inference With
    Complex Survey Data, Journal of the American Statistical Association 83(401), 1988. Folds are strata, as there: each
    keeps its share of the cases. With one seed the interval covers the choice of cases only.
    """
    draws = generator(seed, "bootstrap")
    sums, totals = np.zeros(resamples), np.zeros(resamples)
    for of_fold in differences:
        weights, means = resample(of_fold, draws, resamples)
        share = of_fold.shape[1] / max(1, of_fold.shape[1] - 1)
        sums += share * (weights * means).sum(axis=1)
        totals += share * weights.sum(axis=1)
    kept = totals > 0
    if not kept.any():
        return np.nan, np.nan
    low, high = np.quantile(sums[kept] / totals[kept], [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def resample(differences: ScoreArray, draws: np.random.Generator, resamples: int) -> tuple[ScoreArray, ScoreArray]:
    """How often each case was drawn and its mean over the drawn seeds, both [resamples, cases]; 0 where undefined."""
    defined = ~np.isnan(differences)
    drawn_seeds, drawn_cases = (
        draws.multinomial(max(1, count - 1), np.full(count, 1 / count), resamples) for count in differences.shape
    )
    sums = drawn_seeds @ np.where(defined, differences, 0.0)
    counts = drawn_seeds @ defined.astype(float)
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)
    return drawn_cases * (counts > 0), means


def signed_rank_p(differences: ScoreArray) -> float:
    """Two-sided p of the signed rank test on one difference per case; 1 where all are 0, NaN without any.

    It generalises to other cases, not to other seeds: a lucky seed improves all cases and looks like a gain.
    F. Wilcoxon: Individual Comparisons by Ranking Methods, Biometrics Bulletin 1(6), 1945; zeros are left out, as
    there. Exact for up to 50 cases, with ties or zeros among them for up to 13, else from the normal distribution.
    """
    if not len(differences):
        return np.nan
    if not differences.any():
        return 1.0
    return float(wilcoxon(differences).pvalue)


def least_p(cases: int, tests: int) -> float:
    """The smallest p after Holm's correction: that of a gain in every case, 2 of the 2^cases possible signs."""
    return min(1.0, tests / 2.0 ** (cases - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values corrected for the number of tests, in the given order; NaN stays NaN and is not counted.

    The i-th smallest of m is multiplied by m - i + 1; none falls below a smaller one, none exceeds 1.
    S. Holm: A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 6(2), 1979.
    """
    adjusted = [np.nan] * len(p_values)
    tested = sorted((p, place) for place, p in enumerate(p_values) if not np.isnan(p))
    largest = 0.0
    for rank, (p, place) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - rank) * p))
        adjusted[place] = largest
    return adjusted
