# SPDX-License-Identifier: GPL-3.0-or-later
"""Each metric of captured faces against numbers worked by hand, and against torchmetrics."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.multimodal import lip_vertex_error as torchmetrics_lve
from torchmetrics.multimodal import LipVertexError

from backend.evaluation import vertex_metrics

FPS = 50.0
LIPS = np.array([0, 1])


@pytest.fixture
def pair():
    """Two frames of three vertices; the lips are 3 and 4 off, then 0 and 2; the last one far."""
    truth = np.zeros((2, 3, 3))
    predicted = truth.copy()
    predicted[0, 0, 0] = 3.0
    predicted[0, 1, 1] = 4.0
    predicted[1, 1, 2] = 2.0
    predicted[:, 2] = 99.0
    return predicted, truth


def along_x(*places):
    return np.array([[[place, 0.0, 0.0]] for place in places])


def test_lip_errors_take_the_worst_lip_vertex_of_each_frame(pair):
    assert vertex_metrics.lip_vertex_error_squared(*pair, LIPS) == pytest.approx((16 + 4) / 2)
    assert vertex_metrics.lip_vertex_error(*pair, LIPS) == pytest.approx((4 + 2) / 2)


def test_readability_counts_frames_below_the_threshold(pair):
    assert vertex_metrics.lip_readability(*pair, LIPS, threshold=3.0) == 0.5
    assert vertex_metrics.lip_readability(*pair, LIPS, threshold=4.0) == 0.5
    assert vertex_metrics.lip_readability(*pair, LIPS, threshold=4.1) == 1.0


def test_lip_error_agrees_with_torchmetrics():
    rng = np.random.default_rng(0)
    predicted, truth = rng.normal(size=(2, 5, 7, 3))
    ours = vertex_metrics.lip_vertex_error_squared(predicted, truth, np.array([1, 2, 5]))
    tensors = torch.tensor(predicted), torch.tensor(truth)
    assert ours == pytest.approx(float(torchmetrics_lve(*tensors, mouth_map=[1, 2, 5])))


def test_pooling_over_frames_agrees_with_torchmetrics_over_sequences():
    rng = np.random.default_rng(1)
    metric = LipVertexError(mouth_map=[0, 3])
    values, frames = [], []
    for count in (4, 9):
        predicted, truth = rng.normal(size=(2, count, 5, 3))
        metric.update(torch.tensor(predicted), torch.tensor(truth))
        values.append(vertex_metrics.lip_vertex_error_squared(predicted, truth, np.array([0, 3])))
        frames.append(count)
    assert np.average(values, weights=frames) == pytest.approx(float(metric.compute()))


def test_dynamics_deviation_is_positive_for_a_still_prediction():
    truth = along_x(0.0, 2.0)  # squared displacement 0 and 4: standard deviation 2
    still, wild = np.zeros((2, 1, 3)), along_x(0.0, 4.0)  # 0 and 16: standard deviation 8
    template, region = np.zeros((1, 3)), np.array([0])
    assert vertex_metrics.dynamics_deviation(still, truth, template, region) == pytest.approx(2.0)
    assert vertex_metrics.dynamics_deviation(wild, truth, template, region) == pytest.approx(-6.0)


def test_dynamics_deviation_is_measured_from_the_template():
    truth, template = along_x(1.0, 3.0), np.array([[1.0, 0.0, 0.0]])
    value = vertex_metrics.dynamics_deviation(truth[[0, 0]], truth, template, np.array([0]))
    assert value == pytest.approx(2.0)


def test_mean_vertex_error_and_opening_difference():
    truth = np.zeros((1, 2, 3))
    predicted = truth.copy()
    predicted[0, 1] = [3.0, 4.0, 0.0]
    assert vertex_metrics.mean_vertex_error(predicted, truth) == pytest.approx(2.5)
    assert vertex_metrics.mouth_opening_difference(predicted, truth, LIPS) == pytest.approx(4.0)
    sideways = vertex_metrics.mouth_opening_difference(
        predicted, truth, LIPS, up=np.array([1.0, 0.0, 0.0])
    )
    assert sideways == pytest.approx(3.0)


def test_time_warping_ignores_a_pause_but_not_another_position():
    truth = along_x(0.0, 1.0, 2.0)
    lips = np.array([0])
    assert vertex_metrics.lip_dtw(truth[[0, 0, 1, 2]], truth, lips) == 0.0
    assert vertex_metrics.lip_dtw(truth + np.array([0.0, 1.0, 0.0]), truth, lips) == pytest.approx(
        1.0
    )
    # 0 meets 0 and 1, then 5 meets 2: 0 + 1 + 3 over three frames
    assert vertex_metrics.lip_dtw(along_x(0.0, 5.0), truth, lips) == pytest.approx(4 / 3)


def test_frechet_distance_is_the_longest_stretch_of_the_best_walk():
    truth = along_x(0.0, 1.0, 2.0)
    lips = np.array([0])
    assert vertex_metrics.lip_frechet(truth[[0, 0, 1, 2]], truth, lips) == 0.0
    assert vertex_metrics.lip_frechet(along_x(0.0, 5.0), truth, lips) == pytest.approx(3.0)


def test_mouth_timing_error_of_a_shifted_curve_is_the_shift():
    curve = np.sin(np.arange(120) / 6.0)
    early = np.sin((np.arange(120) + 2) / 6.0)
    assert vertex_metrics.mouth_timing_error_ms(curve, curve, FPS) == 0.0
    assert vertex_metrics.mouth_timing_error_ms(early, curve, FPS) == pytest.approx(40.0, abs=8.0)


def test_mouth_timing_error_of_a_still_mouth_is_not_a_number():
    curve = np.sin(np.arange(60) / 6.0)
    assert np.isnan(vertex_metrics.mouth_timing_error_ms(np.ones(60), curve, FPS))


def test_concordance_falls_with_another_scale_or_offset():
    curve = np.array([0.0, 1.0, 2.0])  # variance 2/3
    assert vertex_metrics.concordance(curve, curve) == pytest.approx(1.0)
    # covariance 4/3, variances 8/3 and 2/3, means 1 apart
    assert vertex_metrics.concordance(2 * curve, curve) == pytest.approx((8 / 3) / (13 / 3))
    # covariance and variances 2/3, means 1 apart
    assert vertex_metrics.concordance(curve + 1, curve) == pytest.approx((4 / 3) / (7 / 3))


def test_lip_motion_intensity_is_a_root_mean_square():
    vertices = np.zeros((2, 2, 3))
    vertices[0, :, 0] = [1.0, 5.0]  # mean distance 3 in the first frame, 0 + 4 over 2 in the next
    vertices[1, 1, 1] = 8.0
    value = vertex_metrics.lip_motion_intensity(vertices, np.zeros((2, 3)), LIPS)
    assert value == pytest.approx(np.sqrt((9 + 16) / 2))


def test_speech_lip_correlation_and_diversity():
    loud = np.array([1.0, 2.0, 3.0])
    assert vertex_metrics.speech_lip_correlation(loud, 5 * loud + 1) == pytest.approx(1.0)
    still, moved = np.zeros((2, 1, 3)), np.full((2, 1, 3), 2.0)
    assert vertex_metrics.diversity([still, moved]) == pytest.approx(np.sqrt(12.0))
    assert vertex_metrics.diversity([still, still, moved, still]) == pytest.approx(
        np.sqrt(12.0) / 2
    )


def test_a_signature_holds_means_spreads_and_speeds():
    offsets = along_x(0.0, 2.0, 4.0)
    signature = vertex_metrics.style_signature(offsets, np.array([0]))
    assert signature.shape == (9,)
    assert signature[0] == pytest.approx(2.0)
    assert signature[3] == pytest.approx(np.sqrt(8 / 3))
    assert signature[6] == 0.0  # its speed never changes


def test_retrieval_ranks_clips_by_their_speaker():
    gallery = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-0.9, -0.1]])
    labels = ["a", "a", "b", "b"]
    assert vertex_metrics.style_retrieval(gallery[:1], ["a"], gallery, labels) == (1.0, 1.0)
    top, precision = vertex_metrics.style_retrieval(gallery[:1], ["b"], gallery, labels)
    assert top == 0.0
    assert precision == pytest.approx((1 / 3 + 2 / 4) / 2)
