"""Accuracy figures against scikit-learn's and SciPy's."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, log_loss, top_k_accuracy_score

from rcompress.errors import RcompressError
from rcompress.measure.accuracy import Tally, evaluate, score, wilson_interval

CLASSES = 7


@pytest.fixture(scope="module")
def outputs() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    labels = generator.integers(0, CLASSES, 400)
    logits = generator.standard_normal((400, CLASSES)).astype(np.float32)
    logits[np.arange(400), labels] += 1.0
    return logits, labels


def test_scores_are_those_of_scikit_learn(outputs):
    logits, labels = outputs
    scores = score(logits, labels)
    chances = torch.softmax(torch.from_numpy(logits).double(), 1).numpy()
    assert (scores.confusion == confusion_matrix(labels, logits.argmax(1))).all()
    assert scores.confusion.dtype == np.int64
    assert scores.top1_percent == pytest.approx(100 * (logits.argmax(1) == labels).mean())
    assert scores.top5_percent == pytest.approx(100 * top_k_accuracy_score(labels, logits, k=5))
    assert scores.loss == pytest.approx(log_loss(labels, chances), rel=1e-5)
    own = [100 * (logits[labels == c].argmax(1) == c).mean() for c in range(CLASSES)]
    assert scores.per_class_percent == pytest.approx(own)


def test_batches_add_up_to_the_whole(outputs):
    logits, labels = outputs
    tally = Tally()
    for cut in (slice(0, 1), slice(1, 150), slice(150, 400)):
        tally.add(torch.from_numpy(logits[cut]), torch.from_numpy(labels[cut]))
    whole, parts = score(logits, labels), tally.scores()
    assert (parts.confusion == whole.confusion).all()
    assert parts.top5_correct == whole.top5_correct
    assert parts.loss == pytest.approx(whole.loss)
    assert parts.images == 400


@pytest.mark.parametrize("classes", [2, 5])
def test_top5_needs_more_than_five_classes(classes):
    scores = score(torch.eye(classes), torch.arange(classes))
    assert scores.top5_percent is None
    assert "top5_percent" not in scores.metrics()
    assert scores.top1_percent == 100


def test_a_class_without_images_has_no_share():
    scores = score(torch.eye(3)[:2], torch.tensor([0, 0]))
    assert scores.per_class_percent == (50.0, None, None)


@pytest.mark.parametrize(("hits", "trials"), [(0, 10), (10, 10), (9263, 10000), (1, 3)])
def test_interval_is_wilsons(hits, trials):
    expected = binomtest(hits, trials).proportion_ci(0.95, method="wilson")
    assert wilson_interval(hits, trials) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_metrics_hold_the_interval(outputs):
    metrics = score(*outputs).metrics()
    assert metrics["top1_percent_low"] < metrics["top1_percent"] < metrics["top1_percent_high"]


def test_half_precision_logits_are_scored(outputs):
    logits, labels = outputs
    halves = logits.astype(np.float16)
    assert score(halves, labels).top1_percent == score(halves.astype(np.float32), labels).top1_percent


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_outputs_that_are_no_numbers_are_refused(broken):
    logits = torch.zeros(4, 3)
    logits[1, 2] = broken
    with pytest.raises(RcompressError, match="1 of 4 images are not finite"):
        score(logits, torch.zeros(4, dtype=torch.int64))


def test_outputs_that_are_no_row_of_classes_are_refused():
    with pytest.raises(RcompressError, match=r"gives \(3, 1, 1\) values for an image"):
        score(torch.zeros(2, 3, 1, 1), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_of_other_data_are_refused(label):
    with pytest.raises(RcompressError, match="--dataset"):
        score(torch.zeros(1, 3), torch.tensor([label]))


def test_evaluate_runs_every_batch_and_tells(outputs):
    logits, labels = outputs
    heard: list[tuple[str, float]] = []

    class Listener:
        def start(self, description, total):
            heard.append((description, total))

        def advance(self, units=1, **figures):
            heard.append(("advance", units))

        def note(self, message): ...

    batches = [(logits[:300], labels[:300]), (logits[300:], labels[300:])]
    scores = evaluate(lambda images: images, batches, 400, Listener())
    assert scores.top1_percent == score(logits, labels).top1_percent
    assert heard == [("evaluating", 400), ("advance", 300), ("advance", 100)]


def test_nothing_to_evaluate_is_an_error():
    with pytest.raises(RcompressError, match="no images"):
        evaluate(lambda images: images, [], 0)
