# SPDX-License-Identifier: GPL-3.0-or-later
"""Metrics of a method on captured faces, pooled and in differences."""

import numpy as np
import pytest

from backend.data.captures.regions import Regions
from backend.evaluation import results, vertex_metrics
from backend.evaluation.results import METRICS, MethodResults, MetricContext, differences, pooled


def metric_context(inner=(0, 1)):
    regions = Regions(np.array([0, 1]), np.array([2]), inner, "by hand")
    return MetricContext(regions, np.array([0.0, 1.0, 0.0]), 30.0, 1000.0, True)


def test_a_perfect_prediction_has_the_best_metrics():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(50, 4, 3)) * 0.01
    found = results.sequence_metrics(truth, truth, np.zeros((4, 3)), metric_context())
    best = {"low": 0.0, "zero": 0.0, "one": 1.0}
    for name, metric in METRICS.items():
        wanted = 100.0 if name == "lrp" else best.get(metric.best, 1.0)
        assert found[name] == pytest.approx(wanted, abs=1e-9), name


def test_metrics_that_need_inner_lips_are_left_out_without_them():
    truth = np.zeros((10, 4, 3))
    found = results.sequence_metrics(truth, truth, np.zeros((4, 3)), metric_context(inner=()))
    assert [name for name, value in found.items() if np.isnan(value)] == ["mtm", "l_pcc", "l_ccc"]


def test_pooling_and_differences_by_hand():
    first, second = MethodResults("first"), MethodResults("second")
    first.metrics = {name: [1.0, 4.0, float("nan")] for name in METRICS}
    second.metrics = {name: [2.0, 6.0, 7.0] for name in METRICS}
    frames = [30, 10, 10]
    assert pooled(first, frames, by_frame=False)["lve"].value == pytest.approx(2.5)
    assert pooled(first, frames, by_frame=True)["lve"].value == pytest.approx(70 / 40)
    assert pooled(first, frames, by_frame=True)["fdd"].value == pytest.approx(2.5)
    apart = differences(first, second, frames, by_frame=False)["lve"]
    assert (apart.value, apart.sequences) == (pytest.approx(1.5), 2)
    assert 1.0 <= apart.low <= apart.high <= 2.0


def test_loudness_that_drives_the_lips_correlates():
    loud = [0.1, 0.2, 0.4, 0.5]
    assert results.pooled_speech_lip_correlation(loud, [1.0, 2.0, 4.0, 5.0]).value == pytest.approx(
        1
    )
    assert results.pooled_speech_lip_correlation(loud, [1.0] * 4).value is None
    assert results.pooled_speech_lip_correlation(loud[:2], [1.0, 2.0]).value is None


def test_diversity_compares_styles_of_one_sentence():
    def make(number, style):
        return np.full((2, 1, 3), float(style))

    wanted = 1000 * vertex_metrics.diversity([make(0, style) for style in range(4)])
    assert results.diversity(make, 2, 4, metric_context()) == pytest.approx(wanted)
    assert results.diversity(make, 2, 1, metric_context()) is None
