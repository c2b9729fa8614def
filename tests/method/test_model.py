"The model holds no N x N matrix and gives logits of one shape, in training or inference."

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT
from ctm.train.config import load_config
from ctm.train.schedule import parameter_groups
from tests.tools import TINY_MODEL


class Largest(TorchDispatchMode):
    "Remembers tensors whose last two sides both reach a limit."

    def __init__(self, limit):
        super().__init__()
        self.limit, self.found = limit, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and min(tensor.shape[-2:]) >= self.limit:
                self.found.append((str(function), tuple(tensor.shape)))
        return out


def test_no_attention_matrix_is_held():
    model = ClassTokenViT(4, img_size=(128, 160), patch_size=4, embed_dim=16, depth=2, num_heads=2)
    image, label, tokens = torch.randn(1, 3, 128, 160), torch.ones(1, 4), 32 * 40 + 5
    with Largest(tokens) as seen:
        ClassTokenLoss(0.01)(model(image, label), label, model)[0].backward()
        model.eval().attention_maps(image)
    assert not seen.found
    with Largest(tokens) as seen:  # the watch itself works
        torch.zeros(1, tokens, 8) @ torch.zeros(1, 8, tokens)
    assert seen.found


@pytest.mark.parametrize("patch_evidence", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_logits_have_one_shape(patch_evidence, training):
    "(B, C) whatever the mode; training asks for each source apart."
    torch.manual_seed(0)
    model = ClassTokenViT(4, **TINY_MODEL, patch_evidence=patch_evidence)
    model.train(training)
    image, label = torch.randn(3, 3, 16, 16), torch.eye(4)[:3]
    draw = lambda ask: (torch.manual_seed(1), ask())[1]  # noqa: E731
    logits = draw(lambda: model(image, label))
    sources = draw(lambda: model.training_logits(image, label))
    again, maps = draw(lambda: model.training_maps(image, label))
    assert logits.shape == (3, 4) and sources.shape == (1 + patch_evidence, 3, 4) and maps.shape == (3, 4, 2, 2)
    torch.testing.assert_close(sources.mean(0), logits)
    torch.testing.assert_close(again, sources)
    torch.testing.assert_close(draw(lambda: model.attention_maps(image, label=label))[0], logits)


ON_MAPS = dict(stem="random:resnet10t", img_size=(64, 96), patch_size=16, embed_dim=16, depth=2, num_heads=2)


def test_maps_of_a_stem_are_the_patches():
    torch.manual_seed(0)
    model = ClassTokenViT(3, **ON_MAPS, patch_evidence=True).eval()
    image = torch.randn(2, 3, 64, 96)
    logits, maps = model.attention_maps(image, use_evidence=True)
    assert maps.shape == (2, 3, 4, 6)
    rows = model.patch_embed.pack(model.patch_embed.features(image))
    for mine, theirs in zip(model.attention_maps(rows, use_evidence=True), (logits, maps), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)
    assert model.attention_maps(torch.randn(1, 3, 96, 64))[1].shape == (1, 3, 6, 4)
    with pytest.raises(ValueError, match="need \\(batch, channels, height, width\\)"):
        ClassTokenViT(3, **TINY_MODEL)(rows)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_stem_is_not_optimised(frozen):
    config = load_config()
    model = ClassTokenViT(3, **ON_MAPS | dict(stem=dict(source="random:resnet10t", layers="16,32", frozen=frozen)))
    groups = parameter_groups(model, config)
    trained = {id(p) for group in groups for p in group["params"]}
    network = {id(p) for p in model.patch_embed.network.parameters()}
    assert (network <= trained) is not frozen and (network & trained == set()) is frozen
    assert {id(p) for p in model.parameters()} == trained | network
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.AdamW(groups)
    model.train()(torch.randn(2, 3, 64, 96), torch.ones(2, 3)).square().sum().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert any("network" in name for name in moved) is not frozen and "patch_embed.proj.weight" in moved


@pytest.mark.parametrize("class_layer", [0, 1])
@pytest.mark.parametrize("class_reads", ["all", "patches"])
def test_features_are_what_the_classifier_reads(class_layer, class_reads):
    "All tokens after the last block: also where class tokens join late, and where nobody reads them."
    options = dict(class_layer=class_layer, class_reads=class_reads, pre_norm=True)
    model = ClassTokenViT(4, img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, **options).eval()
    image = torch.randn(2, 3, 16, 24)
    tokens = model.forward_features(image)
    assert tokens.shape == (2, 4 + 24 + 1, 16)
    torch.testing.assert_close(model.head(tokens[:, :4].flatten(1)), model(image), rtol=1e-4, atol=1e-5)
