# SPDX-License-Identifier: GPL-3.0-or-later
"""Each metric against numbers worked by hand."""

import numpy as np
import pytest

from backend.evaluation import curve_metrics

FPS = 50.0


def test_closed_intervals_are_runs_below_the_threshold():
    opening = np.array([0.1, 0.2, 3.0, 0.4, 0.5, 0.1])
    assert curve_metrics.closed_intervals(opening, 10.0, 0.5) == [
        (0.0, 0.2),
        (0.3, 0.4),
        (0.5, 0.6),
    ]


def test_runs_join_neighbouring_phones_of_the_set():
    phones = [("M", 0.0, 0.1), ("B", 0.1, 0.2), ("AH", 0.2, 0.3), ("P", 0.3, 0.4)]
    assert curve_metrics.runs_of(phones, frozenset("PBM")) == [(0.0, 0.2), (0.3, 0.4)]


def test_closures_meet_within_the_tolerance_and_one_to_one():
    reference = [(0.0, 0.1), (0.5, 0.6), (0.7, 0.8)]
    predicted = [(0.14, 0.2), (0.45, 0.85), (1.0, 1.1)]
    counts = curve_metrics.match_closures(reference, predicted)
    assert counts == curve_metrics.ClosureCounts(hits=2, missed=1, extra=1)
    assert counts.precision == pytest.approx(2 / 3)
    assert counts.recall == pytest.approx(2 / 3)
    assert counts.f1 == pytest.approx(2 / 3)


def test_closures_farther_apart_than_the_tolerance_do_not_meet():
    assert curve_metrics.match_closures([(0.0, 0.1)], [(0.16, 0.2)]).hits == 0


def test_predictions_mostly_in_silence_do_not_count():
    predicted = [(0.0, 0.4), (1.0, 1.1)]
    counts = curve_metrics.match_closures([], predicted, silences=[(0.0, 0.3), (1.06, 1.1)])
    assert counts == curve_metrics.ClosureCounts(hits=0, missed=0, extra=1)


def test_counts_of_clips_add_up():
    total = curve_metrics.ClosureCounts(1, 2, 3) + curve_metrics.ClosureCounts(4, 0, 1)
    assert total == curve_metrics.ClosureCounts(5, 2, 4)


def test_rates_of_nothing_to_find_are_one():
    assert curve_metrics.ClosureCounts().f1 == 1.0


def test_correlation_finds_a_late_prediction():
    reference = np.sin(np.arange(200) / 7.0)
    late = np.roll(reference, 2)
    value, lag = curve_metrics.lagged_correlation(late, reference, FPS)
    assert value == pytest.approx(1.0, abs=1e-6)
    assert lag == pytest.approx(0.04)


def test_correlation_of_a_constant_is_zero():
    assert curve_metrics.lagged_correlation(np.ones(50), np.arange(50.0), FPS)[0] == 0.0


def test_style_error_ratio_is_one_for_neutral_motion_and_zero_for_the_reference():
    truth, neutral = np.array([1.0, 3.0]), np.array([0.0, 1.0])
    assert curve_metrics.style_error_ratio(neutral, truth, neutral) == 1.0
    assert curve_metrics.style_error_ratio(truth, truth, neutral) == 0.0
    assert curve_metrics.style_error_ratio((truth + neutral) / 2, truth, neutral) == pytest.approx(
        0.5
    )


def test_retrieval_counts_nearest_by_cosine():
    gallery = np.eye(3)
    queries = np.array([[5.0, 0.1, 0.0], [0.0, 1.0, 0.2], [0.9, 0.0, 0.1]])
    assert curve_metrics.retrieval_accuracy(queries, gallery) == pytest.approx(2 / 3)


def test_jerk_ratio():
    reference = np.array([0.0, 1.0, 0.0, 1.0, 0.0])
    assert curve_metrics.jerk_ratio(2 * reference, reference) == pytest.approx(2.0)


def test_bootstrap_interval_holds_the_mean_and_narrows_to_a_constant():
    low, high = curve_metrics.bootstrap_interval([1.0, 2.0, 3.0, 4.0])
    assert low < 2.5 < high
    assert curve_metrics.bootstrap_interval([3.0, 3.0]) == (3.0, 3.0)


def test_bootstrap_interval_counts_by_weight():
    assert curve_metrics.bootstrap_interval([1.0, 9.0], weights=[1.0, 1e-9], seed=3)[
        0
    ] == pytest.approx(1.0)
    low, high = curve_metrics.bootstrap_interval(
        [1.0] * 9 + [5.0] * 9, weights=[1.0] * 9 + [3.0] * 9
    )
    assert low < 4.0 < high  # the weighted mean is 4, the plain one 3
