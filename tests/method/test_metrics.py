"Scores: torchmetrics and scikit-learn give the same numbers, and properties hold for whatever masks."

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, confusion_matrix
from torchmetrics import JaccardIndex
from torchmetrics.classification import MultilabelAveragePrecision

from ctm.metrics import LabelScores, SegmentationScores, ThresholdScores, average_precision

SEEDS = range(5)


def random_masks(seed, classes=6):
    "Masks with ignored pixels; the last class is never true, in every second case never predicted either."
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes - 1, (4, 33, 27), generator=g)
    pred = torch.where(torch.rand(target.shape, generator=g) < 0.6, target, (target * 3 + seed) % (classes - seed % 2))
    target[torch.rand(target.shape, generator=g) < 0.2] = 255
    return pred, target


@pytest.mark.parametrize("seed", SEEDS)
def test_iou_is_torchmetrics(seed):
    pred, target = random_masks(seed)
    ours = SegmentationScores(6)
    theirs = JaccardIndex("multiclass", num_classes=6, ignore_index=255, average="none")
    for part in range(4):  # batch by batch
        ours.update(pred[part : part + 1], target[part : part + 1])
        theirs.update(pred[part : part + 1], target[part : part + 1])
    iou, other = ours.compute()["iou"], theirs.compute().double()
    known = ~iou.isnan()
    torch.testing.assert_close(iou[known], other[known], atol=1e-6, rtol=0)
    assert (other[~known] == 0).all(), "torchmetrics scores a class that never occurs 0, ctm leaves it out"
    torch.testing.assert_close(ours.compute()["miou"], other[known].mean(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_is_scikit_learn(seed):
    pred, target = random_masks(seed)
    scores = SegmentationScores(6)
    scores.update(pred, target)
    valid = target != 255
    theirs = confusion_matrix(target[valid].numpy(), pred[valid].numpy(), labels=range(6))
    assert np.array_equal(scores.confusion[:, :6].numpy(), theirs) and not scores.confusion[:, 6].any()
    accuracy = np.trace(theirs) / theirs.sum()
    assert abs(scores.compute()["pixel_accuracy"].item() - accuracy) < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_predicted_no_class_is_a_miss(seed):
    "A pixel that is predicted as 255 is one of scikit-learn's class 6, which is never true."
    pred, target = random_masks(seed)
    pred[torch.rand(pred.shape, generator=torch.Generator().manual_seed(seed)) < 0.1] = 255
    scores = SegmentationScores(6)
    scores.update(pred, target)
    valid = target != 255
    shown = pred[valid].numpy()
    theirs = confusion_matrix(target[valid].numpy(), np.where(shown == 255, 6, shown), labels=range(7))
    assert np.array_equal(scores.confusion.numpy(), theirs[:6])


@given(classes=st.integers(1, 8), n=st.integers(1, 60), cut=st.integers(0, 60), seed=st.integers(0, 99))
def test_metrics(classes, n, cut, seed):
    g = torch.Generator().manual_seed(seed)
    values = torch.tensor([*range(classes), 255])
    pred, target = (values[torch.randint(0, classes + 1, (1, 1, n), generator=g)] for _ in range(2))
    whole, parts, moved = (SegmentationScores(classes) for _ in range(3))
    whole.update(pred, target)
    for part in (slice(0, cut), slice(cut, None)):
        parts.update(pred[..., part], target[..., part])
    assert torch.equal(whole.confusion, parts.confusion), "batches add up"
    assert whole.confusion.sum() == (target != 255).sum(), "every pixel with a truth counts once"
    found = whole.compute()
    for value in (found["pixel_accuracy"], found["miou"], *found["iou"]):
        assert value.isnan() or 0 <= value <= 1
    order = torch.randperm(classes, generator=g)
    table = torch.cat([order, torch.arange(classes, 256)])
    table[255] = 255
    moved.update(table[pred], table[target])
    torch.testing.assert_close(moved.compute()["iou"][order], found["iou"], equal_nan=True)
    perfect = SegmentationScores(classes)
    perfect.update(target, target)
    assert not (target != 255).any() or perfect.compute()["miou"] == 1


@pytest.mark.filterwarnings("ignore:No positive samples")
@pytest.mark.parametrize("seed", SEEDS)
def test_average_precision_is_torchmetrics(seed):
    g = torch.Generator().manual_seed(seed)
    label = (torch.rand(80, 6, generator=g) < torch.tensor([0.5, 0.3, 0.1, 0.05, 0.9, 0.0])).long()
    label[0] = torch.tensor([1, 1, 1, 1, 1, 0])
    prob = (torch.rand(80, 6, generator=g) * (8 if seed % 2 else 1000)).round() / 1000  # every second time with ties
    theirs = MultilabelAveragePrecision(6, average="none")
    ours = LabelScores()
    for part in (slice(0, 30), slice(30, 80)):
        ours.update(prob[part], label[part])
        theirs.update(prob[part], label[part])
    found = ours.compute()
    assert found["ap"][5].isnan(), "a class that never occurs is left out"
    torch.testing.assert_close(found["ap"][:5].float(), theirs.compute()[:5], atol=1e-6, rtol=0)
    for c in range(5):
        assert found["ap"][c].item() == pytest.approx(average_precision_score(label[:, c], prob[:, c]))
    torch.testing.assert_close(found["mean_ap"], found["ap"][:5].mean())
    assert found["always_no"].item() == pytest.approx(1 - label.float().mean().item())


def test_average_precision_of_one_class_and_of_none():
    assert average_precision(torch.rand(5, 1), torch.ones(5, 1)).tolist() == [1.0]
    assert average_precision(torch.rand(5, 2), torch.zeros(5, 2)).isnan().all()


@pytest.mark.parametrize("background", [0, 2])
def test_one_pass_over_thresholds_is_many_passes(background):
    g = torch.Generator().manual_seed(0)
    values = torch.tensor([value for value in range(5) if value != background])
    sweep = ThresholdScores(5, background, steps=20)
    plain = [SegmentationScores(5) for _ in range(20)]
    for known in ([0, 1], [3], [], [0, 1, 2, 3]):
        maps = torch.rand(len(known), 13, 17, generator=g)
        target = torch.randint(0, 5, (13, 17), generator=g)
        target[:3] = 255
        sweep.update(maps, values[known], target)
        for step, metric in enumerate(plain):
            mask = torch.full_like(target, background)
            if known:
                most, index = maps.max(0)
                mask = torch.where((most * 20).long() >= step, values[known][index], background)
            metric.update(mask[None], target[None])
    for found, metric in zip(sweep.compute(), plain, strict=True):
        for name, value in metric.compute().items():
            torch.testing.assert_close(found[name], value, equal_nan=True)
    assert sweep.best()["miou"] == max(one["miou"] for one in sweep.compute())
