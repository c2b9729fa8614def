"Baselines on a stem: the same tokens as the paper's method, images or kept features, views of any size."

import dataclasses

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from ctm.baselines.cam import (
    LinearCAM,
    build_cam,
    build_resnet,
    fit_linear_cam,
    grad_cam,
    linear_cam_maps,
    stem_cam_maps,
    stem_grad_cam,
)
from ctm.baselines.mctformer import build_mctformer, mctformer_maps, stem_mctformer_maps
from ctm.baselines.vit import build_vit, relevance_maps, rollout_maps, vit_grad_cam
from ctm.experiments.methods import LINEAR_CAMS, METHODS
from ctm.layers.maps import Seen
from ctm.refine import walk_maps
from ctm.synthetic.sets import make_synthetic
from ctm.train.config import load_config
from ctm.train.data import load_dataset
from ctm.train.fit import build_model
from ctm.train.teachers import activation

CONFIG = load_config(
    "voc2012", stem="random:resnet10t", stem_layers="16,head", img_size=(64, 96), patch_size=16, embed_dim=16, depth=2,
    num_heads=2, data=dict(resize=[64, 96]),
)  # fmt: skip
BUILDERS = (build_cam, build_vit, build_mctformer)
READERS = [(build_vit, rollout_maps), (build_vit, relevance_maps), (build_vit, vit_grad_cam)]
READERS += [(build_mctformer, mctformer_maps)]
ON_STEM = [(build_cam, stem_cam_maps), (build_cam, stem_grad_cam), (build_mctformer, stem_mctformer_maps)]


def built(build, config=CONFIG, seed=0):
    "Network whose stem is standardised by noise."
    torch.manual_seed(seed)
    model = build(config, 4).eval()
    stem = model.patch_embed
    with torch.no_grad():
        stem.standardise([stem.features(torch.randn(4, 3, *config.img_size))])
        stem.proj.weight.mul_(5)
    return model


@pytest.mark.parametrize("build", BUILDERS)
def test_logits_of_kept_features_are_those_of_the_images(build):
    model, image = built(build), torch.randn(3, 3, 64, 96)
    stem = model.patch_embed
    with torch.no_grad():
        rows, wanted = stem.pack(stem.features(image)), model(image)
        torch.testing.assert_close(model(rows), wanted, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(model(stem.seen(image)), wanted, rtol=0, atol=0)
    assert wanted.std() > 0.01


@pytest.mark.parametrize("build", BUILDERS)
def test_every_network_has_the_papers_stem(build, tmp_path):
    torch.manual_seed(0)
    save_file(timm.create_model("resnet10t").state_dict(), tmp_path / "w.safetensors", dict(architecture="resnet10t"))
    config = dataclasses.replace(CONFIG, stem=str(tmp_path / "w.safetensors"), stem_layers="8,32")
    torch.manual_seed(1)
    ours, papers = build(config, 4).eval(), build_model(config, 4).eval()
    assert ours.patch_embed.digest() == papers.patch_embed.digest(), "weights of the file, layers and pixels"
    assert ours.patch_embed.fill() == papers.options["stem"], "all options"
    if build is not build_cam:
        image = torch.randn(1, 3, 64, 96)
        assert ours.patch_embed(image).shape == papers.patch_embed(image).shape
        assert len(ours.blocks) == len(papers.blocks)


@pytest.mark.parametrize("layers", ["16,32,head", "32"])
def test_cam_by_weights_is_cam_by_gradients(layers):
    model = built(build_cam, dataclasses.replace(CONFIG, stem_layers=layers))
    image, grid = torch.randn(2, 3, 64, 96), (4, 6)
    logits, maps = stem_cam_maps(model, image)
    torch.testing.assert_close(logits, model(image).detach())
    seen = [part.requires_grad_() for part in model.patch_embed.features(image)]
    for c in range(4):
        gradients = torch.autograd.grad(model(Seen(seen, grid))[:, c].sum(), seen)
        scores = 0
        for part, gradient in zip(seen, gradients, strict=True):
            one = (gradient.sum((2, 3), keepdim=True) * part).sum(1, keepdim=True)
            finer = one.shape[2:] == grid
            scores = scores + (one if finer else F.interpolate(one, grid, mode="bilinear"))
        torch.testing.assert_close(maps[:, c], scores[:, 0].relu().detach(), rtol=1e-4, atol=1e-4 * maps.max().item())


def test_grad_cam_is_the_librarys():
    model = built(build_cam, dataclasses.replace(CONFIG, stem_frozen=False, stem_layers="16,32"))
    image, present = torch.randn(2, 3, 64, 96), torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0]])
    found = stem_grad_cam(model, image, present)
    wanted = grad_cam(model, model.patch_embed.network.layer4, image, present)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert found[1].shape == (2, 4, 2, 3) and found[1].amax() > 0.99
    assert not found[1][present == 0].any()


def test_grad_cam_of_one_layer_is_cam():
    config = dataclasses.replace(CONFIG, stem_layers="32", patch_size=32)
    model, image = built(build_cam, config), torch.randn(2, 3, 64, 96)
    cam, grad = stem_cam_maps(model, image)[1], stem_grad_cam(model, image, torch.ones(2, 4))[1]
    cam = cam - cam.amin((2, 3), keepdim=True)
    torch.testing.assert_close(grad, cam / cam.amax((2, 3), keepdim=True).clamp(min=1e-7), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("build", "read"), READERS)
@pytest.mark.parametrize("stem", [True, False])
def test_transformers_read_other_sizes(build, read, stem):
    config = CONFIG if stem else dataclasses.replace(CONFIG, stem=None)
    torch.manual_seed(0)
    model, given = build(config, 4).eval(), torch.ones(2, 4)
    for size in ((64, 96), (96, 144), (32, 32)):
        image = torch.randn(2, 3, *size)
        logits, maps = read(model, image, given)
        assert maps.shape == (2, 4, size[0] // 16, size[1] // 16) and torch.isfinite(maps).all()
        torch.testing.assert_close(logits, model(image).detach(), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("build", "read"),
    [*READERS, *ON_STEM],
)
def test_what_the_stem_sees_is_read_in_place_of_the_images(build, read):
    model, image, given = built(build), torch.randn(9, 3, 64, 96), torch.ones(9, 4)
    found = read(model, model.patch_embed.seen(image), given)
    for one, other in zip(found, read(model, image, given), strict=True):
        torch.testing.assert_close(one, other, atol=3e-3, rtol=1e-2)  # 16 bits, rounded in other batches


def test_a_resnet_is_no_stem():
    with pytest.raises(ValueError, match="resnet18 has maps of its own"):
        build_resnet(CONFIG, 4)
    assert hasattr(build_cam(dataclasses.replace(CONFIG, stem=None), 4), "layer4")


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="image has 4 channels, the model was built with in_chans=3"):
        build_cam(CONFIG, 4)(torch.randn(1, 4, 64, 96))


@torch.no_grad()
def test_affinity_of_mctformer_is_the_pretrained_networks():
    "Blocks that began at random attend to all patches alike: carried along that, maps would be flat."
    model, image = built(build_mctformer), torch.randn(2, 3, 64, 96)
    stem = model.patch_embed
    plain = mctformer_maps(model, image, affinity=False)[1]
    logits, maps = stem_mctformer_maps(model, image)
    torch.testing.assert_close(logits, model(image))
    torch.testing.assert_close(maps, walk_maps(plain, stem.likeness(stem.features(image), (4, 6))))
    assert METHODS["mctformer"].maps(model, CONFIG, None)(model, image, None)[1].equal(maps)


def linear_cam(config=CONFIG):
    "Linear classifier whose weights are drawn."
    torch.manual_seed(0)
    return LinearCAM(config, 4).eval()


def test_the_linear_classifiers_logit_is_the_mean_of_its_positions():
    model, image = linear_cam(), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        features = model.patch_embed.head(model.patch_embed.seen(image).maps[-1])
        positions = torch.einsum("cd,bdhw->bchw", model.linear.weight, features)
        logits, maps = linear_cam_maps(model, image)
    torch.testing.assert_close(logits, positions.mean((2, 3)) + model.linear.bias, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps, positions.relu())


def test_the_linear_classifier_reads_kept_maps_and_several_sizes():
    model, image = linear_cam(), torch.randn(2, 3, 64, 96)
    rows = model.patch_embed.pack(model.patch_embed.features(image))
    torch.testing.assert_close(linear_cam_maps(model, rows)[1], linear_cam_maps(model, image)[1], rtol=1e-3, atol=1e-3)
    method = LINEAR_CAMS["linear_cam_views"]
    logits, maps = method.maps(model, method.settings(CONFIG), None)(model, image, None)
    turned = method.maps(model, method.settings(CONFIG), None)(model, image.flip(3), None)[1]
    torch.testing.assert_close(maps, turned.flip(3), rtol=1e-3, atol=1e-4)
    assert logits.shape == (2, 4)


def test_the_linear_classifier_is_at_its_optimum(tmp_path):
    train = load_dataset(CONFIG, "train", make_synthetic("voc2012", tmp_path, n=6))
    model = fit_linear_cam(CONFIG, train, train)
    weight, bias = activation(model, train, margins=True)
    assert weight.equal(model.linear.weight), "no seed, no step"
    assert not model.training and model.linear.bias.isfinite().all()


def test_the_linear_classifier_needs_a_frozen_stem():
    with pytest.raises(ValueError, match="reads a frozen stem; pass stem="):
        LinearCAM(load_config("voc2012"), 20)
    with pytest.raises(ValueError, match="reads a frozen stem"):
        LinearCAM(dataclasses.replace(CONFIG, stem_frozen=False), 20)
