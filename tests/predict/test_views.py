"Sizes and mirror images: one average for scores, files, rivals and the variants that had it first."

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ctm.experiments.methods import METHODS, method_of
from ctm.experiments.variants import VARIANTS
from ctm.predict.masker import Masker, config_maps
from ctm.train.config import Config, load_config
from ctm.train.fit import build_model

CONFIG = load_config("voc2012", embed_dim=32, depth=2, num_heads=4)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG, 3).eval()


@torch.no_grad()
def average(model, image, scales, flips=(False, True)):
    "The average as it was written for the variants, whose stored results are its."
    logits, maps = [], []
    for scale in scales:
        size = [max(1, round(scale * side / 8)) * 8 for side in image.shape[2:]]
        view = F.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
        for flip in flips:
            one, found = model.attention_maps(view.flip(3) if flip else view)
            logits.append(one)
            maps.append((found.flip(3) if flip else found) / found.amax((2, 3), keepdim=True).clamp(min=1e-12))
    maps = [F.interpolate(m, maps[-1].shape[2:], mode="bilinear", align_corners=False) for m in maps]
    return torch.stack(logits).mean(0), torch.stack(maps).mean(0)


@pytest.mark.parametrize(("name", "scales"), [("mirrored", (1.0,)), ("sizes", (1.0, 1.5))])
@torch.no_grad()
def test_variants_are_as_they_were(model, name, scales):
    image = torch.randn(2, 3, 64, 64)
    expected = average(model, image, scales)
    for found in (
        VARIANTS[name].maps(model, CONFIG, None)(model, image, None),
        config_maps(model, image, replace(CONFIG, scales=scales, flip=True)),
        config_maps(model, image, replace(CONFIG, scales=scales[::-1], flip=True)),
    ):
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)


def test_views_change_no_stored_key():
    assert CONFIG.key() == replace(CONFIG, scales=[1], flip=False, resolution="view").key()
    wide = replace(CONFIG, scales=[0.5, 1, 2], flip=True, resolution="own")
    assert wide.key() != CONFIG.key() and wide.fit_config() == CONFIG.fit_config(), "they share a fit"
    assert Config.from_stored({**wide.stored(), "scales": [0.5, 1.0, 2.0]}) == wide
    assert method_of("cam").settings(wide).scales == (0.5, 1.0, 2.0), "rivals look as often"


@pytest.mark.parametrize("wrong", [dict(scales=()), dict(scales=(0,)), dict(scales=(1, 99)), dict(scales="1"),
                                   dict(flip=1), dict(resolution="full")])  # fmt: skip
def test_odd_views_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        replace(CONFIG, **wrong)


def test_masks_of_own_pictures_are_averaged_too(model):
    picture = np.random.default_rng(0).integers(0, 256, (1, 3, 60, 80), np.uint8)
    constants = np.full(3, 127.0), np.full(3, 64.0), ("a", "b", "c"), ("#117733",) * 4, 0
    found = [Masker(model, replace(CONFIG, flip=True), *constants)(one)[2] for one in (picture, picture[..., ::-1])]
    torch.testing.assert_close(*found, atol=1e-5, rtol=0)


@torch.no_grad()
def test_cam_reads_several_sizes():
    torch.manual_seed(0)
    network = METHODS["cam"].build(CONFIG, 3).eval()
    image, given = torch.randn(1, 3, 64, 64), torch.ones(1, 3)
    maps_of = METHODS["cam"].maps(network, replace(CONFIG, scales=(1.0, 2.0), flip=True), None)
    plain = METHODS["cam"].maps(network, CONFIG, None)(network, image, given)[1]
    maps = maps_of(network, image, given)[1]
    assert maps.shape[2] == 2 * plain.shape[2] and 0 <= maps.min() and maps.max() <= 1 + 1e-6
