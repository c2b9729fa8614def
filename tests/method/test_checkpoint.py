"Model files that ask for more than they hold, and bugs that are not called damaged files."

import json

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from ctm.checkpoint import load_model, save_model
from ctm.core import BadFileError
from ctm.layers.pretrained import load_backbone
from ctm.model import ClassTokenViT
from ctm.pruning import prune_heads
from ctm.reference import load_reference_checkpoint
from tests.tools import TINY_MODEL


def with_header(file, model, options):
    save_file(model.state_dict(), file, metadata={"ctm": json.dumps(options)})
    return file


@pytest.mark.parametrize(
    "change", [dict(embed_dim=2**20), dict(depth=10**9), dict(pretrained="vit_base_patch16_224"), dict(img_size=2**24)]
)
def test_weights_decide_how_large_a_model_is(change, tmp_path):
    model = ClassTokenViT(3, **TINY_MODEL)
    file = with_header(tmp_path / "m.safetensors", model, model.options | change)
    with pytest.raises(BadFileError, match="m.safetensors: damaged, or not written by save_model"):
        load_model(file)


NAMES = "num_heads depth mlp_ratio img_size classifier act_layer mlp_layer norm_layer block_fn"


@pytest.mark.parametrize("value", [None, True, -1, 0.5, 1e308, float("nan"), 10**400, "x", [], [8, 8], [[8]], {}])
@pytest.mark.parametrize("name", NAMES.split())
def test_any_option_of_any_kind(name, value, tmp_path):
    "A model or one typed error, whatever the header says."
    model = ClassTokenViT(3, **TINY_MODEL)
    file = with_header(tmp_path / "m.safetensors", model, model.options | {name: value})
    try:
        load_model(file)
    except BadFileError as error:
        assert "m.safetensors: damaged, or not written by save_model" in str(error)


def test_older_headers_have_fewer_options(tmp_path):
    model = ClassTokenViT(3, **TINY_MODEL).eval()
    later = {"position_rule", "norm_eps", "classifier", "class_layer", "class_reads", "patch_evidence"}
    older = {name: value for name, value in model.options.items() if name not in later}
    loaded = load_model(with_header(tmp_path / "m.safetensors", model, older))
    image = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded(image), model(image))


@pytest.mark.parametrize("error", [TypeError, ValueError, AttributeError])
def test_a_bug_is_not_a_damaged_file(error, tmp_path, monkeypatch):
    "What fails in building a model, or in adapting weights that were checked, surfaces as itself."
    model = ClassTokenViT(3, **TINY_MODEL)
    file = save_model(model, tmp_path / "m.safetensors")
    reference = {"cls_token": (1, 3, 16), "register_token": (1, 1, 16), "pos_embed": (1, 8, 16)}
    reference |= {"patch_embed.proj.weight": (16, 3, 8, 8), "blocks.0.mlp.fc1.weight": (64, 16)}
    state = {f"mct.{name}": torch.zeros(shape) for name, shape in reference.items()}
    torch.save({"state_dict": state | {"classifier_head_test.weight": torch.zeros(3, 48)}}, tmp_path / "r.ckpt")
    save_file(VisionTransformer(**TINY_MODEL).state_dict(), tmp_path / "donor.safetensors")

    def broken(*args, **kwargs):
        raise error("a bug")

    monkeypatch.setattr("ctm.checkpoint.ClassTokenViT", broken)
    monkeypatch.setattr("ctm.reference.ClassTokenViT", broken)
    monkeypatch.setattr("ctm.layers.pretrained._adapt", broken)
    for read in (
        lambda: load_model(file),
        lambda: load_reference_checkpoint(tmp_path / "r.ckpt"),
        lambda: load_backbone(model, str(tmp_path / "donor.safetensors")),
    ):
        with pytest.raises(error, match="^a bug$"):
            read()


ON_MAPS = dict(stem="random:resnet10t", img_size=(64, 96), patch_size=16, embed_dim=16, depth=2, num_heads=2)


def test_a_stem_is_in_the_file(tmp_path):
    torch.manual_seed(0)
    model = ClassTokenViT(3, **ON_MAPS).eval()
    image = torch.randn(2, 3, 64, 96)
    model.patch_embed.standardise([model.patch_embed.features(image)])
    file = save_model(prune_heads(model), tmp_path / "m.safetensors")
    again = load_model(file)
    assert again.options == model.options
    assert again.patch_embed.frozen and again.patch_embed.digest() == model.patch_embed.digest()
    for mine, theirs in zip(again.attention_maps(image), model.attention_maps(image), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        None,
        "random:resnet10t",
        dict(source="resnet10t"),
        dict(source="random:resnet14t"),
        dict(source="random:no_such_net"),
        dict(source="random:vit_tiny_patch16_224"),
        dict(source="/etc/passwd.safetensors"),
        dict(layers="3"),
        dict(layers="16"),
        dict(frozen=1),
        dict(other=1),
    ],
)
def test_a_stem_that_the_file_does_not_hold(change, tmp_path):
    model = ClassTokenViT(3, **ON_MAPS)
    stem = model.options["stem"] | change if isinstance(change, dict) else change
    file = with_header(tmp_path / "m.safetensors", model, model.options | dict(stem=stem))
    with pytest.raises(BadFileError, match="m.safetensors: damaged, or not written by save_model"):
        load_model(file)
