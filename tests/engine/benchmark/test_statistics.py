"""Paired comparisons against enumeration, hand computation and SciPy."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from engine.benchmark.statistics import bootstrap_interval, compare, holm, least_p, mean_over_seeds, signed_rank_p


def test_a_case_counts_once_with_the_seeds_that_define_it() -> None:
    scores = np.array([[0.2, np.nan, np.nan, 1.0], [0.4, 0.5, np.nan, 0.0]])
    assert mean_over_seeds(scores) == pytest.approx([0.3, 0.5, 0.5])


@pytest.mark.parametrize("level", [0.5, 0.8])
def test_the_interval_is_that_of_all_resamples(level: float) -> None:
    differences = np.random.default_rng(3).normal(0.1, 1, (3, 4))
    everything = [
        differences[np.ix_(seeds, cases)].mean()
        for seeds in product(range(3), repeat=2)
        for cases in product(range(4), repeat=3)
    ]
    expected = np.quantile(everything, [(1 - level) / 2, (1 + level) / 2])
    assert bootstrap_interval([differences], level=level, resamples=40_000) == pytest.approx(tuple(expected), abs=0.03)


def test_resamples_leave_undefined_scores_out() -> None:
    differences = np.array([[0.3, np.nan, -0.1, np.nan], [0.1, np.nan, np.nan, 0.4]])
    everything = []
    for seeds, cases in product(product(range(2), repeat=1), product(range(4), repeat=3)):
        drawn = differences[np.ix_(seeds, cases)]
        columns = [column[~np.isnan(column)].mean() for column in drawn.T if not np.isnan(column).all()]
        everything += [np.mean(columns)] if columns else []
    expected = np.quantile(everything, [0.1, 0.9])
    assert bootstrap_interval([differences], level=0.8, resamples=40_000) == pytest.approx(tuple(expected), abs=0.01)


def test_seeds_that_differ_pass_for_a_gain_no_more_often_than_promised() -> None:
    draws = np.random.default_rng(0)

    def scores(spread: float) -> np.ndarray:
        return draws.normal(0, spread, (3, 1)) + draws.normal(0, 0.05, (3, 17))

    intervals = [bootstrap_interval([scores(0.03) - scores(0.013)], resamples=500) for _ in range(400)]
    assert 0.02 < np.mean([low > 0 or high < 0 for low, high in intervals]) < 0.075


def test_folds_are_strata_that_keep_their_share_of_the_cases() -> None:
    draws = np.random.default_rng(4)
    folds = [draws.normal(0.1, 1, (2, 3)), draws.normal(-0.2, 1, (2, 4))]

    def resamples(of_fold: np.ndarray) -> list[float]:
        cases = product(range(of_fold.shape[1]), repeat=of_fold.shape[1] - 1)
        return [of_fold[seed, list(drawn)].mean() for drawn in cases for seed in range(2)]

    everything = [(3 * a + 4 * b) / 7 for a in resamples(folds[0]) for b in resamples(folds[1])]
    expected = np.quantile(everything, [0.1, 0.9])
    assert bootstrap_interval(folds, level=0.8, resamples=40_000) == pytest.approx(tuple(expected), abs=0.02)


def test_intervals_repeat_and_undefined_ones_are_nan() -> None:
    differences = np.random.default_rng(0).normal(size=(2, 9))
    assert bootstrap_interval([differences]) == bootstrap_interval([differences])
    assert bootstrap_interval([differences]) != bootstrap_interval([differences], seed=1)
    assert np.isnan(bootstrap_interval([np.full((2, 3), np.nan)])).all()
    assert bootstrap_interval([np.full((1, 1), 0.25)]) == (0.25, 0.25)


@pytest.mark.parametrize(
    ("differences", "p"),
    [
        ([1, 2, 3, 4, 5, 6], 2 / 64),  # one of the 2^6 signs is as extreme, on either side
        ([1, 2, 3, 4, 5, -6], 28 / 64),  # 14 subsets of the ranks 1..6 sum to 6 or less
        ([0.5, 0, 0.25, 0, 0.125], 2 / 8),  # zeros are left out
        ([0, 0, 0], 1),
    ],
)
def test_signed_ranks_as_computed_by_hand(differences: list[float], p: float) -> None:
    assert signed_rank_p(np.array(differences, float)) == pytest.approx(p)


def test_holm_as_computed_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9, 0.7]) == [1, 1, 1]
    assert holm([0.04, np.nan, 0.01]) == pytest.approx([0.04, np.nan, 0.02], nan_ok=True)
    assert holm([]) == []


@pytest.mark.parametrize(("cases", "tests"), [(5, 1), (8, 3), (2, 7)])
def test_the_least_p_is_that_of_gains_in_every_case_and_test(cases: int, tests: int) -> None:
    p = signed_rank_p(np.arange(1.0, cases + 1))
    assert holm([p] * tests) == pytest.approx([least_p(cases, tests)] * tests)


def test_a_comparison_is_paired_by_case_and_seed() -> None:
    draws = np.random.default_rng(1)
    baseline = draws.uniform(0, 1, (3, 12))
    method = baseline + draws.normal(0.05, 0.02, (3, 12))
    compared = compare([method], [baseline])
    assert compared.gain == pytest.approx((method - baseline).mean())
    assert 0 < compared.low < compared.gain < compared.high
    assert compared.p == pytest.approx(2 / 2**12) and compared.cases == 12
    harder = draws.normal(0, 5, (3, 12))
    moved = compare([method + harder], [baseline + harder])
    assert moved.low == pytest.approx(compared.low) and moved.high == pytest.approx(compared.high)
    method[:, 0], baseline[0, 1] = np.nan, np.nan
    fewer = compare([method], [baseline])
    pairs = (method - baseline)[:, 1:]
    assert fewer.cases == 11
    assert fewer.gain == pytest.approx(np.mean([pairs[1:, 0].mean(), *pairs[:, 1:].mean(axis=0)]))
