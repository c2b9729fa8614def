"Maps carried among patches that a stem finds alike."

import dataclasses

import pytest
import torch

from ctm.predict.masker import config_maps
from ctm.refine import walk_maps
from ctm.train.config import load_config
from ctm.train.fit import build_model

STEM = dict(stem="random:resnet10t", stem_layers="16,32", img_size=(64, 64), patch_size=16)
TINY = dict(embed_dim=16, depth=1, num_heads=2, data=dict(resize=[64, 64]))


def test_it_needs_a_stem():
    with pytest.raises(ValueError, match='affinity="stem" needs a stem'):
        load_config("voc2012", affinity="stem")
    with pytest.raises(ValueError, match="affinity='colour' is unknown"):
        load_config("voc2012", affinity="colour")


def test_an_option_of_masks_alone():
    config = load_config("voc2012", **STEM, **TINY)
    other = dataclasses.replace(config, affinity="stem")
    assert other.key() != config.key() and other.fit_config().key() == config.fit_config().key()


@pytest.mark.parametrize("views", [{}, dict(scales=(1.0, 1.5), flip=True)])
def test_maps_are_carried_in_each_view(views):
    torch.manual_seed(0)
    config = load_config("voc2012", **STEM, **TINY, **views)
    model = build_model(config, 3).eval()
    image = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits, maps = config_maps(model, image, config)
        same, carried = config_maps(model, image, dataclasses.replace(config, affinity="stem"))
    assert torch.equal(same, logits) and carried.shape == maps.shape
    if not views:
        stem = model.patch_embed
        wanted = walk_maps(maps, stem.likeness(stem.features(image), (4, 4)))
        torch.testing.assert_close(carried, wanted)
    assert (carried.std((2, 3)) < maps.std((2, 3))).all()


def test_patches_that_are_alike_share_what_one_of_them_has():
    features = torch.zeros(1, 2, 2, 4)
    features[:, 0, :, :2] = 1  # the left half is one thing, the right half another
    features[:, 1, :, 2:] = 1
    maps = torch.zeros(1, 1, 2, 4)
    maps[..., 0, 0] = 1
    walked = walk_maps(maps, features)
    torch.testing.assert_close(walked[0, 0], torch.tensor([[0.25, 0.25, 0, 0]] * 2))
