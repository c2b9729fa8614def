"Settings beyond what float32 holds are refused; a donor's shape stands in place of a preset's."

import pytest
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

from ctm.baselines.mctformer import build_mctformer
from ctm.baselines.vit import build_vit
from ctm.train.config import Config, config_table, load_config
from ctm.train.fit import build_model
from tests.train.made import SMALL


@pytest.mark.parametrize("name", ["lr", "gate_lr", "lam", "weight_decay", "diversity"])
@pytest.mark.parametrize("value", [1e38, float("inf"), float("nan"), -1.0])
def test_rates_beyond_float32_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}=.* is out of range"):
        load_config(**SMALL | {name: value})


@pytest.fixture(scope="module")
def donor_file(tmp_path_factory):
    shape = dict(patch_size=16, embed_dim=48, depth=3, num_heads=3, reg_tokens=2, pre_norm=True, qkv_bias=False)
    donor = VisionTransformer(img_size=64, init_values=0.5, num_classes=0, **shape)
    file = tmp_path_factory.mktemp("donor") / "donor.safetensors"
    save_file(donor.state_dict(), file, dict(num_heads="3", img_size="64", act_layer="quick_gelu", norm_eps="1e-5"))
    return str(file)


def test_a_donors_shape_wins_over_the_presets(donor_file, caplog):
    with caplog.at_level("INFO"):
        config = load_config("voc2012", "demo+gentle", pretrained=donor_file)
    assert (config.patch_size, config.embed_dim, config.depth, config.num_heads) == (16, 48, 3, 3)
    assert (config.qkv_bias, config.final_norm, config.reg_tokens, config.class_layer) == (False, True, 3, 2)
    assert all(text in caplog.text for text in ("patch_size=16 instead of 8", "embed_dim=48 instead of 96"))
    source = config_table(config).loc["embed_dim", "source"]
    assert source == "the donor's, or asked for; the preset has 96"
    assert Config.from_stored(config.stored()) == config


@pytest.mark.parametrize("build", [build_model, build_vit, build_mctformer])
def test_every_network_is_built_as_the_donor(build, donor_file):
    model = build(load_config("voc2012", "demo", pretrained=donor_file), 4)
    assert type(model.blocks[0].mlp.act).__name__ == "QuickGELU" and model.norm_pre.eps == 1e-5
    assert len(model.blocks) == 3 and model.blocks[0].attn.qkv.bias is None


def test_what_is_asked_for_beside_a_donor_has_to_fit(donor_file):
    with pytest.raises(ValueError, match="has depth=3, asked for is depth=6; leave that out"):
        load_config("voc2012", "demo", pretrained=donor_file, depth=6)
    config = load_config("voc2012", "demo", pretrained=donor_file, patch_size=8, reg_tokens=0)
    assert (config.patch_size, config.reg_tokens) == (8, 0)
    with pytest.raises(ValueError, match="'vit_hug' is neither a timm model nor a local .safetensors file"):
        load_config("voc2012", "demo", pretrained="vit_hug")


def test_sizes_of_the_preset_follow_the_patch():
    config = load_config("voc2012", "demo", pretrained="vit_small_patch14_dinov2")
    assert (config.img_size, config.patch_size) == ((56, 56), 14)
    with pytest.raises(ValueError, match="is not a multiple of patch_size=14"):
        load_config("voc2012", "demo", pretrained="vit_small_patch14_dinov2", img_size=(64, 64))


def test_the_paper_with_a_vit_b_has_twelve_heads(caplog):
    with caplog.at_level("INFO"):
        config = load_config("voc2012", "paper", pretrained="vit_base_patch16_224")
    assert (config.embed_dim, config.depth, config.num_heads, config.reg_tokens) == (768, 12, 12, 1)
    assert "vit_base_patch16_224 decides num_heads=12 instead of 16" in caplog.text
    asked = load_config("voc2012", "paper", pretrained="vit_base_patch16_224", num_heads=12)
    assert asked.key() == config.key()
    with pytest.raises(ValueError, match="Table 7 of the paper has 16 heads at width 768"):
        load_config("voc2012", "paper", pretrained="vit_base_patch16_224", num_heads=16)


def test_keys_of_runs_without_layer_decay_are_as_before():
    assert load_config("dfc2020").key() == "9fe1a90a44"
    assert load_config("dfc2020", layer_decay=0.75).key() != "9fe1a90a44"
    with pytest.raises(ValueError, match="layer_decay=1.5 is out of range"):
        load_config("dfc2020", layer_decay=1.5)


@pytest.mark.parametrize("lost", ["dataset", "preset", "img_size", "patch_size", "in_chans"])
def test_a_stored_configuration_without_a_field_is_refused(lost):
    stored = load_config("dfc2020").stored()
    del stored[lost]
    with pytest.raises(ValueError, match=f"no {lost}: not the configuration of a result"):
        Config.from_stored(stored)
