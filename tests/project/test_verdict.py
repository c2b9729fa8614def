"The verdict without masks: what is measured, what is said, where it is kept; no true mask is read."

import json
import re

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import ctm
from ctm.io.record import read_masked
from ctm.project.overview import overview
from ctm.project.signals import held_out_scores, never_apart
from ctm.project.verdict import conclusion, doubtful_classes, predicted_quality, promise, verdict_before
from tests.tools import ROOT, TINY_PLAN, write_labelled

ENDINGS = ("usable", "look at these classes first", "do not use these masks")


def write_folder(place, labels):
    "Pictures of noise and the table of their labels."
    noise = (np.random.default_rng(i).integers(0, 255, (24, 32 + 8 * (i % 2), 3), np.uint8) for i in range(len(labels)))
    return write_labelled(place, ((f"p{i}.png", x, labels[i]) for i, x in enumerate(noise)))


def good(**changes):
    "Facts of a folder whose masks can be used."
    table = dict(images=60, background=True, classes=dict(cat=30, dog=30), everywhere=[], together=[])
    classifier = dict(accuracy=0.95, always_no=0.5, held_back=60, by="folds")
    classifier |= dict(ap=dict(cat=0.95, dog=0.9), rate=dict(cat=0.5, dog=0.5))
    masks = dict(masks=60, odd=0.02, doubtful=dict(cat=0.0, dog=0.03))
    views = dict(mirrored=0.9, smaller=0.8, unasked=0.9, free=dict(cat=1.0, dog=0.9))
    facts = dict(table=table, classifier=classifier, views=views, masks=masks)
    return facts | {name: facts[name] | change for name, change in changes.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    "Plan and pixels of a small folder whose masks were written."
    place = tmp_path_factory.mktemp("verdict")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTM_RUNS", str(place / "runs"))
        plan = ctm.plan_folder(*write_folder(place, ["a", "b", "a;b", "b"] * 3), background=False, **TINY_PLAN)
        masker, _ = ctm.train_folder(plan)
        yield plan, masker, ctm.mask_folder(plan, masker)


# Endings


def test_a_good_folder_is_usable():
    assert conclusion(good()) == "usable"


@pytest.mark.parametrize(
    ("changes", "ending"),
    [
        (dict(table=dict(classes=dict(cat=30, dog=4))), "look at these classes first: dog (4 images alone)"),
        (dict(table=dict(everywhere=["cat"])), "look at these classes first: cat (in every image"),
        (dict(table=dict(together=[["dog", "cat"]])), "look at these classes first: dog (never without cat"),
        (dict(classifier=dict(ap=dict(cat=0.95, dog=0.55))), "look at these classes first: dog (told from the others"),
        (dict(masks=dict(doubtful=dict(cat=0.8))), "look at these classes first: cat (80% of its masks"),
        (dict(views=dict(free=dict(cat=0.2, dog=1.0))), "look at these classes first: cat (it covers 80%"),
        (dict(masks=dict(odd=0.7)), "do not use these masks: 70% of them are empty or one value"),
        (dict(classifier=dict(ap=dict(cat=0.5, dog=0.5))), "do not use these masks: labels of held-back images"),
        (dict(classifier=dict(ap=dict(cat=None, dog=None))), "do not use these masks: no held-back image"),
        (dict(views=dict(mirrored=0.1, smaller=0.1)), "do not use these masks: the signs together give"),
        (dict(table=dict(classes=dict(cat=2, dog=1))), "do not use these masks: no class has 3 images"),
    ],
)
def test_what_is_wrong_is_said_in_the_ending(changes, ending):
    assert conclusion(good(**changes)).startswith(ending)


def test_many_doubtful_classes_are_counted():
    classes = {f"c{i}": 4 for i in range(50)}
    ending = conclusion(dict(table=good()["table"] | dict(classes=classes)))
    assert ending.endswith("more") and len(ending) < 500


def test_a_class_in_all_held_back_images_says_nothing():
    facts = good(classifier=dict(ap=dict(cat=1.0, dog=0.9), rate=dict(cat=1.0, dog=0.5)))
    assert not doubtful_classes(facts)


@pytest.mark.parametrize(
    "worse",
    [
        dict(classifier=dict(ap=dict(cat=0.7, dog=0.7))),
        dict(views=dict(mirrored=0.5, smaller=0.5)),
        dict(views=dict(free=dict(cat=0.1, dog=0.9))),
        dict(masks=dict(odd=0.5)),
    ],
)
def test_the_number_falls_with_each_sign(worse):
    assert 0 <= predicted_quality(good(**worse)) < predicted_quality(good()) <= 1


# Signs


def test_what_is_promised_lies_between_the_measurements():
    said = [promise(n, 3) for n in (10, 20, 30, 100, 300)]
    values = [float(re.search(r"about (0\.\d\d)", one)[1]) for one in said]
    assert min(values[0], values[2]) <= values[1] <= max(values[0], values[2])
    assert all(0.7 < value < 0.8 for value in values)
    for images, words in ((3, "3 images, fewer than was"), (1000, "1000 images, more than was")):
        assert words in promise(images, 3) and "about" not in promise(images, 3), "no promise beyond what was measured"
    assert "Twenty classes" in promise(20, 20) and "Twenty" not in promise(20, 3)


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        ([[1, 1], [1, 1], [0, 0]], [(0, 1)]),  # never apart: said once
        ([[1, 1], [1, 1], [0, 1], [0, 0]], [(0, 1)]),  # a never without b
        ([[1, 1], [1, 1]], []),  # in every image, which is said otherwise
        ([[1, 1], [0, 0], [0, 1]], []),  # once is not always
        ([[1, 0], [0, 1]], []),
    ],
)
def test_classes_that_always_come_together(labels, pairs):
    assert never_apart(np.array(labels)) == pairs


def test_an_image_is_judged_by_others_alone():
    "Features that name their image tell nothing about another one."
    labels = np.random.default_rng(1).integers(0, 2, (50, 1))
    right = (held_out_scores(np.eye(50), labels) > 0.5) == labels
    assert right.mean() < 0.7


# Before and after the fit


def test_before_any_fit(tmp_path, caplog):
    plan = ctm.plan_folder(*write_folder(tmp_path, ["a", "b"] * 5 + ["b;c"]), **TINY_PLAN)
    assert verdict_before(plan).quality is None
    assert "labels.csv, before any fit: look at these classes first: a (5 images alone)" in caplog.text
    assert "c (1 image alone)" in caplog.text


def test_after_the_fit(made):
    plan, _, pixels = made
    verdict = pixels.attrs["verdict"]
    stored = json.loads((plan.out / "verdict.json").read_text())
    assert stored["ending"] == verdict.ending and stored["ending"].startswith(ENDINGS)
    assert stored["quality"] == verdict.quality and 0 <= verdict.quality <= 1
    text = (plan.out / "verdict.txt").read_text()
    assert text == f"{verdict}\n" and text.splitlines()[-1] == f"Verdict: {verdict.ending}"
    assert all(any(c.isdigit() for c in sentence) for sentence in verdict.sentences)


def test_no_true_mask_is_read(made, tmp_path, monkeypatch):
    "With masks and without them, the verdict is the same."
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    _, masker, pixels = made
    images, labels, out = write_folder(tmp_path, ["a", "b", "a;b", "b"] * 3)
    (tmp_path / "masks").mkdir()
    for file in images.iterdir():
        mask = np.random.default_rng(7).integers(0, 2, Image.open(file).size[::-1], np.uint8)
        Image.fromarray(mask).save(tmp_path / "masks" / file.name)
    scored = dict(masks=tmp_path / "masks", mask_values=dict(a=0, b=1), background=False)
    plan = ctm.plan_folder(images, labels, out, **scored, **TINY_PLAN)
    assert ctm.mask_folder(plan, masker).attrs["verdict"].facts == pixels.attrs["verdict"].facts


def test_other_images_have_a_verdict_beside_their_masks(made, tmp_path):
    plan, masker, _ = made
    (tmp_path / "new").mkdir()
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "new" / "x.png")
    verdict = ctm.mask_folder(plan, masker, images=tmp_path / "new").attrs["verdict"]
    (file,) = (plan.out / "other").glob("new-*/verdict.json")
    assert json.loads(file.read_text())["facts"]["masks"] == verdict.facts["masks"]
    assert verdict.facts["masks"]["masks"] == 1


def test_a_folder_of_one_class(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    plan = ctm.plan_folder(*write_folder(tmp_path, ["polyp", ""] * 6), background=True, **TINY_PLAN)
    verdict = ctm.mask_folder(plan, ctm.train_folder(plan)[0]).attrs["verdict"]
    assert [*verdict.facts["classifier"]["ap"]] == ["polyp"]


def test_a_frozen_network_judges_every_image_once(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    stem = dict(stem="random:test_efficientnet", stem_layers="8,16", patch_size=16)
    how = TINY_PLAN | stem | dict(size=32)
    plan = ctm.plan_folder(*write_folder(tmp_path, ["a", "b"] * 6), background=True, preset="demo", **how)
    verdict = ctm.mask_folder(plan, ctm.train_folder(plan)[0]).attrs["verdict"]
    told = verdict.facts["classifier"]
    assert (told["by"], told["held_back"], told["rate"]) == ("folds", 12, dict(a=0.5, b=0.5))


def test_a_picture_that_has_broken_is_refused_or_skipped(made, monkeypatch):
    plan, masker, _ = made
    from ctm.project import signals

    def broken(*_):
        raise ctm.BadFileError("p1.png: cannot be read")

    monkeypatch.setattr(signals, "_central", broken)
    with pytest.raises(ctm.BadFileError, match="p1.png"):
        signals.view_signals(plan, masker)
    monkeypatch.setitem(plan.config.data, "bad", "skip")
    assert signals.view_signals(plan, masker) == dict(mirrored=None, smaller=None, unasked=None, free={})


# Worst first


def test_the_worst_are_shown_first(made):
    plan, masker, _ = made
    ctm.mask_folder(plan, masker)
    figure = overview(plan, columns=4)
    shown = [ax.get_title() for ax in figure.axes if ax.get_title()]
    plt.close(figure)
    assert shown[:2] == read_masked(plan.out).worst_first()[:2] and len({*shown}) == 4


def test_views_of_a_model_that_sees_all_alike_agree(made):
    "A mask that is the same everywhere agrees with itself in every view."
    from ctm.project.signals import view_signals

    plan, masker, _ = made

    class Same(type(masker)):
        def __call__(self, images, *args, **options):
            return torch.zeros(len(images), *images.shape[2:], dtype=torch.long), None, None

    found = view_signals(plan, Same(**{name: getattr(masker, name) for name in masker.__dataclass_fields__}))
    assert found["mirrored"] == found["smaller"] == 1.0


def test_an_empty_mask_of_an_image_that_shows_nothing_is_not_odd(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    plan = ctm.plan_folder(*write_folder(tmp_path, ["polyp", ""] * 6), background=True, **TINY_PLAN)
    ctm.mask_folder(plan, ctm.train_folder(plan)[0])
    nothing = [one for one in read_masked(plan.out).facts.values() if one["label"] == []]
    assert len(nothing) == 6 and {one["odd"] for one in nothing} == {""}
    assert all(one["confidence"] > 0 for one in nothing)


# Beside true masks


def test_the_number_ranks_runs_as_true_masks_do():
    "As it was measured; runs on `tune` chose the form, but the sign of edges came after a failure among the others."
    from benchmarks.verdict import rank_correlation

    lines = json.loads((ROOT / "figures" / "verdict.json").read_text())
    correlation, count = rank_correlation(lines)
    assert count >= 20 and correlation > 0.7
    held_out, some = rank_correlation(lines, held_out=True)
    assert count > some >= 12 and held_out > 0.7
    assert rank_correlation(lines, background=True)[0] < correlation, "say so where it is told"


def test_the_curve_is_the_one_that_was_measured():
    "The mean over the draws of each number of images."
    lines = json.loads((ROOT / "figures" / "verdict.json").read_text())
    for count in (10, 30, 100, 300):
        found = [line["miou"] for line in lines if line.get("images_a_class") == count]
        assert f"about {np.mean(found):.2f} (" in promise(count, 3)
