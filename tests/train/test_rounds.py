"Rounds of self-training: what a round learns from, what it may say, and that a stopped run ends as another."

import dataclasses
import shutil

import numpy as np
import pytest
import torch

from ctm.checkpoint import load_model, save_model
from ctm.core import BadFileError
from ctm.data.dataset import ImageDataset
from ctm.data.transforms import Resized
from ctm.model import ClassTokenViT
from ctm.predict.dataset import predict_batches, score_masks
from ctm.predict.masker import config_maps
from ctm.train.config import load_config
from ctm.train.fit import fit
from ctm.train.rounds import draw_cells
from ctm.train.teachers import Shown, seen_images

SHAPE = dict(img_size=(64, 64), patch_size=16, in_chans=3, embed_dim=16, depth=1, num_heads=2)
STEM = dict(stem="random:resnet10t", stem_layers="8,16", stem_stride=16, stem_views=1)
OPTIONS = SHAPE | STEM | dict(epochs=2, batch_size=8, data=dict(resize=[64, 64]))


class Discs(ImageDataset):
    "Wide pictures, each with a red or a blue disc on grey noise."

    name, source, classes, colors = "discs", "discs", ("red", "blue"), ("#000000", "#cc0000", "#0000cc")
    share, upright, background = None, True, 0
    mean, std = np.full(3, 128.0), np.full(3, 64.0)

    def __init__(self, count=24, seed=0):
        self.names = [f"disc-{i}" for i in range(count)]
        self.seed = seed

    def size(self, index):
        return 48, 64

    def read(self, index):
        draw = np.random.default_rng([self.seed, index])
        y, x = np.mgrid[:48, :64]
        disc = (y - draw.integers(14, 34)) ** 2 + (x - draw.integers(14, 50)) ** 2 < 144
        image = draw.normal(128, 12, (3, 48, 64))
        image[2 * (index % 2), disc] += 100
        image[2 - 2 * (index % 2), disc] -= 100
        return image.clip(0, 255).astype(np.uint8), np.where(disc, 1 + index % 2, 0).astype(np.uint8)

    def read_label(self, index):
        return np.eye(2, dtype=np.uint8)[index % 2]


def discs(count=24, seed=0):
    return Resized(Discs(count, seed), (64, 64), "pad")


def config(**changes):
    return load_config("voc2012", "demo+sharp", **OPTIONS | changes)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rounds")
    return fit(config().fit_config(), discs(), discs(8, 1), folder), folder


def test_a_stem_makes_the_recipe_another():
    plain, ours = load_config("voc2012", "demo+sharp"), config()
    assert (plain.rounds, plain.affinity, plain.threshold) == (0, "none", "mean")
    assert (ours.rounds, ours.affinity, ours.threshold) == (2, "stem", "level:0.5")


@pytest.mark.parametrize("odd", [dict(stem=None), dict(stem_frozen=False)])
def test_rounds_need_a_frozen_stem(odd):
    with pytest.raises(ValueError, match="rounds=2 need a frozen stem"):
        dataclasses.replace(config(affinity="none"), **odd)


def test_margins_teach_nothing(fitted):
    model, _ = fitted
    seen = next(seen_images(model, discs(), "margins"))
    assert seen.inside.shape[1:] == (4, 4)
    assert seen.inside[:, :3].all() and not seen.inside[:, 3].any(), "rows 8 to 56 show the picture"
    narrow = seen._replace(inside=torch.zeros_like(seen.inside).index_fill(1, torch.tensor([1]), True))
    target = torch.zeros(narrow.inside.shape, dtype=torch.long)
    target[:, 1] = 2
    drawn = draw_cells(narrow, target, 16, True, torch.Generator().manual_seed(0))
    assert (drawn.target == 2).all()


def test_an_image_without_a_label_is_background_or_unknown():
    seen = Shown([torch.randn(2, 3, 4, 4)], torch.tensor([[1, 0], [0, 0]]), torch.ones(2, 4, 4, dtype=torch.bool))
    target = torch.tensor([0, 2])[:, None, None].expand(2, 4, 4)
    known = draw_cells(seen, target, 5, True, torch.Generator().manual_seed(0))
    assert known.allowed.tolist() == [[True, False, True]] * 5 + [[False, False, True]] * 5
    without = draw_cells(seen, target, 5, False, torch.Generator().manual_seed(0))
    assert without.allowed.tolist() == [[True, False, False]] * 5 and len(without.target) == 5


def test_masks_of_true_masks_never_teach(fitted, tmp_path):
    "The same fit where all true masks are blank."

    class Blank(Discs):
        def read(self, index):
            image, mask = super().read(index)
            return image, np.full_like(mask, 255)

    blank = Resized(Blank(), (64, 64), "pad")
    other = fit(config().fit_config(), blank, discs(8, 1), tmp_path)
    for name, value in fitted[0].cells.state_dict().items():
        assert torch.equal(value, other.cells.state_dict()[name]), name


def test_a_stopped_run_ends_as_another(fitted, tmp_path):
    model, folder = fitted
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    (tmp_path / "cells-2.safetensors").unlink()
    again = fit(config().fit_config(), discs(), discs(8, 1), tmp_path)
    for name, value in model.cells.state_dict().items():
        assert torch.equal(value, again.cells.state_dict()[name]), name
    (tmp_path / "cells-1.safetensors").write_bytes(b"no")
    with pytest.raises(BadFileError, match="cells-1.safetensors.*remove it"):
        fit(config().fit_config(), discs(), discs(8, 1), tmp_path)


def test_a_file_keeps_the_classifier(fitted, tmp_path):
    model, _ = fitted
    loaded = load_model(save_model(model, tmp_path / "model.safetensors"))
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(config_maps(model, image, config()), config_maps(loaded, image, config()), strict=True):
            torch.testing.assert_close(mine, theirs)


def test_it_learns_discs(fitted):
    "Better than class tokens, of a random network and few pictures."
    model, _ = fitted
    val = discs(16, 2)
    given = dict(labels="given", refine="none")
    scores = []
    for options in (config(**given), config(**given, rounds=0, threshold="mean")):
        masks = predict_batches(model, val, options)
        scores.append(score_masks(masks, 3)["miou"])
    assert scores[0] > scores[1] and scores[0] > 0.5, scores


def test_without_background_every_pixel_has_a_class(tmp_path):
    class Full(Discs):
        background, colors = None, ("#cc0000", "#0000cc")

        def read(self, index):
            image, mask = super().read(index)
            return image, np.where(mask == 0, 255, mask - 1).astype(np.uint8)

    data = Resized(Full(), (64, 64), "pad")
    options = config(labels="given", refine="none")
    model = fit(options.fit_config(), data, data, tmp_path)
    assert not model.cells.has_background
    for batch in predict_batches(model, data, options):
        wanted = batch["label"].argmax(1)[:, None, None].expand_as(batch["pseudo_mask"])
        assert torch.equal(batch["pseudo_mask"], wanted)


@pytest.mark.parametrize("cells", [1024, 3 * 1024, 4 * 1024])
def test_any_number_of_cells_can_be_learnt(cells):
    "Three batches in three passes are nine steps, for which torch's schedule has no rise."
    from ctm.layers.cells import CellClassifier
    from ctm.train.rounds import Drawn, fit_cells

    network = CellClassifier(1, [1], hidden=4)
    inputs = torch.randn(cells, 3)
    drawn = Drawn(inputs, (inputs[:, 0] > 0).long(), torch.ones(cells), torch.ones(cells, 2, dtype=torch.bool))
    fit_cells(network, drawn, 3, torch.Generator().manual_seed(0))
    assert not network.training and all(torch.isfinite(p).all() for p in network.parameters())


class Threads(Discs):
    "Pictures two pixels high."

    def size(self, index):
        return 2, 64

    def read(self, index):
        return np.zeros((3, 2, 64), np.uint8), np.zeros((2, 64), np.uint8)


def test_a_very_narrow_picture_has_cells():
    "No cell's middle lies in it; the cells that it touches are taken."
    torch.manual_seed(0)
    stem = dict(source=STEM["stem"], layers="8,16", stride=16)
    model = ClassTokenViT(2, img_size=64, patch_size=16, embed_dim=16, depth=1, num_heads=2, stem=stem)
    seen = next(seen_images(model, Resized(Threads(2), (64, 64), "pad"), "threads"))
    assert seen.inside.tolist() == 2 * [[4 * [False], 4 * [True], 4 * [True], 4 * [False]]]
