"Donors of timm's families: the architecture is theirs, and so is what the model computes before training."

import json
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from ctm.checkpoint import load_model, save_model
from ctm.core import BadFileError
from ctm.layers.architectures import find_donor
from ctm.layers.families import activation
from ctm.model import ClassTokenViT

C = 3
SMALL = dict(depth=2, embed_dim=48, num_heads=3)
FAMILIES = {  # name of the family -> timm's name, what makes a small member of it
    "AugReg": ("vit_tiny_patch16_224", {}),
    "DeiT": ("deit_tiny_patch16_224", {}),
    "distilled DeiT": ("deit_tiny_distilled_patch16_224", {}),
    "DeiT-III": ("deit3_small_patch16_224", {}),
    "DINO": ("vit_small_patch16_224.dino", {}),
    "DINOv2": ("vit_small_patch14_dinov2", {}),
    "DINOv2 with registers": ("vit_small_patch14_reg4_dinov2", {}),
    "DINOv2, SwiGLU": ("vit_giant_patch14_dinov2", {}),
    "CLIP": ("vit_base_patch32_clip_224", {}),
    "CLIP, quick GELU": ("vit_base_patch32_clip_quickgelu_224", {}),
    "MAE": ("vit_base_patch16_224.mae", {}),
    "SigLIP": ("vit_base_patch16_siglip_224", {}),
    "SigLIP 2, so400m": ("vit_so400m_patch16_siglip_256", {}),
    "EVA-CLIP's large": ("eva_large_patch14_196", {}),
    "registers and mean": ("vit_base_patch16_reg4_gap_256", {}),
    "no last norm": ("vit_base_patch16_radio_v3", {}),
    "AIMv2": ("aimv2_large_patch14_224", {}),
    "norms of queries and keys": ("vit_tiny_patch16_224", dict(qk_norm=True, scale_mlp_norm=True)),
    "RMS norms": ("test_vit4", {}),
}


def small_member(name, **options):
    "Random member of a family with two narrow blocks, whose weights are all different."
    torch.manual_seed(0)
    side = 4 * int(re.search(r"patch(\d+)|$", name)[1] or 16)
    donor = timm.create_model(name, img_size=side, dynamic_img_size=True, num_classes=5, **SMALL | options).eval()
    with torch.no_grad():
        for part in donor.parameters():
            part.mul_(2).add_(0.1 * torch.randn(part.shape))
    return donor, side


@pytest.fixture(scope="module", params=FAMILIES)
def pair(request, tmp_path_factory):
    "Small member of a family, and the model that began with its file and nothing else."
    name, options = FAMILIES[request.param]
    donor, side = small_member(name, **options)
    file = tmp_path_factory.mktemp("donor") / "donor.safetensors"
    block = donor.blocks[0]
    says = dict(num_heads="3", img_size=str(side), act_layer=activation(block), norm_eps=str(block.norm1.eps))
    save_file(donor.state_dict(), file, says)
    model = ClassTokenViT(C, pretrained=str(file), class_reads="patches").eval()
    return donor, model, file


def images(donor, *grid):
    patch = donor.patch_embed.patch_size
    return torch.randn(2, 3, *(n * step for n, step in zip(grid, patch, strict=True)))


@torch.no_grad()
def features(donor, image):
    "timm's tokens after the norm that its classifier reads through, whether that comes before or after the mean."
    return donor.fc_norm(donor.forward_features(image))


@pytest.mark.parametrize("grid", [(4, 4), (6, 6), (3, 5)])
def test_the_start_is_the_donors_function(pair, grid):
    donor, model, _ = pair
    image = images(donor, *grid)
    theirs = features(donor, image)
    with torch.no_grad():
        ours = model.forward_features(image)
    before = donor.num_prefix_tokens
    end = C + theirs.shape[1] - before
    assert theirs.std() > 0.1 and theirs.isfinite().all()
    torch.testing.assert_close(ours[:, C:end], theirs[:, before:], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours[:, end:], theirs[:, :before], rtol=1e-5, atol=1e-5)
    if donor.cls_token is not None:  # each class token is the donor's
        torch.testing.assert_close(ours[:, :C], theirs[:, :1].expand(-1, C, -1), rtol=1e-5, atol=1e-5)


def test_positions_are_stretched_as_timm_does(pair):
    "A model of another size than the donor's, to which timm can be set as well."
    donor, _, file = pair
    state = {name: value.clone() for name, value in donor.state_dict().items()}
    size = tuple(images(donor, 3, 6).shape[2:])
    model = ClassTokenViT(C, img_size=size, pretrained=str(file), class_reads="patches").eval()
    try:
        donor.set_input_size(size)
        theirs = features(donor, image := images(donor, 3, 6))
    finally:
        donor.set_input_size(tuple(images(donor, 4, 4).shape[2:]))
        donor.load_state_dict(state)
    with torch.no_grad():
        ours = model.forward_features(image)[:, C : C + 18]
    torch.testing.assert_close(ours, theirs[:, donor.num_prefix_tokens :], rtol=1e-5, atol=1e-5)


def test_the_file_keeps_what_the_donor_decided(pair, tmp_path):
    donor, model, _ = pair
    loaded = load_model(save_model(model, tmp_path / "m.safetensors"))
    image = images(donor, 4, 4)
    assert torch.equal(loaded(image), model(image))
    assert json.loads(json.dumps(loaded.options)) == json.loads(json.dumps(model.options))


def test_what_is_left_is_named(pair, caplog):
    donor, _, file = pair
    with caplog.at_level("INFO"):
        model = ClassTokenViT(C, pretrained=str(file), patch_evidence=True)
    (line,) = [record.getMessage() for record in caplog.records if "left at their" in record.getMessage()]
    left = set(line.split("initial value: ")[1].split(", "))
    new = {"head.weight", "head.bias"} | {f"evidence.{name}" for name in model.evidence.state_dict()}
    new |= {f"blocks.{i}.attn.head_gate.log_alpha" for i in range(2)}
    assert left == new | (set() if donor.cls_token is not None else {"cls_token"})
    assert "no place" not in caplog.text


@pytest.mark.parametrize("name", ["aimv2_large_patch14_224", "vit_giant_patch14_dinov2"])
def test_step_0_in_training_has_gradients_everywhere(name, tmp_path):
    donor, side = small_member(name)
    save_file(donor.state_dict(), tmp_path / "d.safetensors", dict(num_heads="3", img_size=str(side)))
    model = ClassTokenViT(C, pretrained=str(tmp_path / "d.safetensors"), class_reads="patches").train()
    model(images(donor, 4, 4), torch.tensor([[1.0, 0, 1], [0, 1, 1]])).square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_another_patch_and_other_channels_are_said(tmp_path, caplog):
    donor, side = small_member("vit_small_patch14_dinov2")
    save_file(donor.state_dict(), tmp_path / "d.safetensors", dict(num_heads="3", img_size=str(side)))
    with caplog.at_level("INFO"):
        model = ClassTokenViT(C, img_size=32, patch_size=8, in_chans=5, pretrained=str(tmp_path / "d.safetensors"))
    assert model.patch_embed.proj.weight.shape == (48, 5, 8, 8)
    assert "patches resampled from (14, 14) to (8, 8); channels resampled from 3 to 5" in caplog.text


@pytest.mark.parametrize("family", ["AugReg", "CLIP, quick GELU", "DINOv2 with registers"])
def test_a_folder_of_the_hub_says_everything(family, tmp_path, caplog):
    name, _ = FAMILIES[family]
    donor, side = small_member(name)
    save_for_hf(donor, tmp_path, model_args=dict(img_size=side, **SMALL), safe_serialization="both")
    model = ClassTokenViT(C, pretrained=str(tmp_path / "model.safetensors"), class_reads="patches").eval()
    image = images(donor, 4, 4)
    with torch.no_grad():
        ours = model.forward_features(image)[:, C : C + 16]
    torch.testing.assert_close(ours, features(donor, image)[:, donor.num_prefix_tokens :], rtol=1e-5, atol=1e-5)
    assert "assumed" not in caplog.text


def test_a_name_is_enough(monkeypatch):
    "Architecture and weights of a name; the weights are asked for once, after everything fits."
    real = timm.create_model
    donor, side = small_member("vit_tiny_patch16_224")
    asked = []

    def create(name, pretrained=False, **options):
        asked.append(pretrained)
        return donor if pretrained else real(name, img_size=side, **SMALL | options)

    monkeypatch.setattr(timm, "create_model", create)
    model = ClassTokenViT(C, pretrained="vit_tiny_patch16_224", class_reads="patches").eval()
    image = images(donor, 4, 4)
    with torch.no_grad():
        ours = model.forward_features(image)[:, C : C + 16]
    torch.testing.assert_close(ours, features(donor, image)[:, 1:], rtol=1e-5, atol=1e-5)
    assert asked == [False, True]


MISFITS = {
    "width": (dict(embed_dim=384), "has embed_dim=192, asked for is embed_dim=384; leave that out"),
    "depth": (dict(depth=6), "has depth=12, asked for is depth=6"),
    "heads": (dict(num_heads=16), "has num_heads=3, asked for is num_heads=16"),
    "ratio": (dict(mlp_ratio=2.0), "has mlp_ratio=4.0, asked for is mlp_ratio=2.0"),
    "biases": (dict(qkv_bias=False, proj_bias=False), "has qkv_bias=True, proj_bias=True, asked for is qkv_bias=False"),
    "norms": (dict(norm_eps=1e-5, pre_norm=True), "has norm_eps=1e-06, pre_norm=False"),
    "scales": (dict(init_values=1e-5), "has init_values=None"),
    "activation": (dict(act_layer="quick_gelu"), "has act_layer=gelu"),
}


@pytest.mark.parametrize("what", MISFITS)
def test_what_does_not_fit_is_refused_before_weights_are_fetched(what, monkeypatch):
    real = timm.create_model

    def create(name, pretrained=False, **options):
        assert not pretrained, "weights that cannot be used are asked for"
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create)
    wrong, message = MISFITS[what]
    with pytest.raises(ValueError, match=f"^vit_tiny_patch16_224: {message}"):
        ClassTokenViT(C, pretrained="vit_tiny_patch16_224", **wrong)


def test_the_papers_heads_are_not_those_of_the_donors():
    with pytest.raises(ValueError, match="Table 7 of the paper has 16 heads at width 768.*that width have 12"):
        ClassTokenViT(C, pretrained="vit_base_patch16_224", num_heads=16)


OTHERS = {
    "eva02_tiny_patch14_224": "rotary",
    "vit_small_patch16_dinov3": "rotary",
    "vit_pe_core_tiny_patch16_384": "rotary",
    "swin_tiny_patch4_window7_224": "stage to stage.*stem=",
    "convnext_tiny": "stage to stage.*stem=",
    "resnet18": "stage to stage.*stem=",
    "vit_tiny_r_s16_p8_224": "features of a CNN.*stem=",
    "vit_relpos_small_patch16_224": "relative positions",
    "beit_base_patch16_224": "relative positions",
    "samvit_base_patch16": "relative positions",
    "beit3_base_patch16_224": "normalised together",
    "vit_base_patch16_rpn_224": "norms come after",
    "vit_pwee_patch16_reg1_gap_256": "side by side",
    "vit_small_patch16_18x2_224": "side by side",
    "vit_dwee_patch16_reg1_gap_256": "difference of two",
    "mixer_s16_224": "MlpMixer",
    "naflexvit_base_patch16_gap": "NaFlexVit",
    "cait_xxs24_224": "projections of another kind",
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_families_are_refused_by_their_reason(name, tmp_path):
    with pytest.raises(BadFileError, match=f"^{name}: is no plain ViT .*{OTHERS[name]}"):
        ClassTokenViT(C, pretrained=name)
    save_file({"pos_embed": torch.zeros(1, 5, 8)}, tmp_path / "a.safetensors", dict(architecture=name))
    with pytest.raises(BadFileError, match=f"{name}: is no plain ViT .*{OTHERS[name]}"):
        find_donor(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_relpos_small_patch16_224", "vit_small_patch16_dinov3"])
def test_files_of_other_families_are_known_by_their_tensors(name, tmp_path):
    with torch.device("meta"):
        shapes = timm.create_model(name, depth=1, embed_dim=48, num_heads=3, num_classes=0).state_dict()
    save_file({part: torch.zeros(value.shape) for part, value in shapes.items()}, tmp_path / "a.safetensors")
    with pytest.raises(BadFileError, match="a.safetensors: is no plain ViT"):
        find_donor(str(tmp_path / "a.safetensors"))


ODD = {
    "a bomb of registers": dict(reg_token=torch.zeros(0, 10**9, 48)),
    "a bomb of positions": dict(pos_embed=torch.zeros(0, 10**9, 48)),
    "an empty kernel": {"patch_embed.proj.weight": torch.zeros(2**20, 3, 0, 0)},
    "a wide kernel": {"patch_embed.proj.weight": torch.zeros(2**16, 1, 1, 1)},
    "a scalar": {"blocks.0.mlp.fc2.weight": torch.zeros(())},
    "a missing block": {"blocks.7.norm1.weight": torch.zeros(48)},
    "a scale without its twin": {"blocks.0.ls1.gamma": torch.zeros(48)},
    "a scale of another width": {f"blocks.{i}.ls{k}.gamma": torch.zeros(7) for i in range(2) for k in (1, 2)},
    "two class tokens": dict(cls_token=torch.zeros(1, 2, 48)),
    "a token of its own": dict(storage_tokens=torch.zeros(1, 4, 48)),
    "a tensor of its own": {"blocks.1.attn.temperature": torch.zeros(3)},
    "a norm without its bias": {"blocks.1.norm1.bias": None},
    "no blocks": {"blocks.0.norm1.weight": None},
}


@pytest.mark.parametrize("what", ODD)
def test_odd_files_are_refused_before_a_model_is_built(what, tmp_path, monkeypatch):
    donor, side = small_member("vit_tiny_patch16_224")
    state = {name: value for name, value in (donor.state_dict() | ODD[what]).items() if value is not None}
    save_file(state, tmp_path / "odd.safetensors", dict(num_heads="3", img_size=str(side)))
    monkeypatch.setattr("ctm.model.layer_classes", None)  # the next step
    with pytest.raises(BadFileError, match="odd.safetensors: is no plain ViT"):
        ClassTokenViT(C, pretrained=str(tmp_path / "odd.safetensors"))


@pytest.mark.parametrize("said", [dict(num_heads="5"), dict(img_size="9999999"), dict(num_heads="3", norm_eps="[]")])
def test_odd_metadata_are_refused_or_not_heard(said, tmp_path, caplog):
    donor, _ = small_member("vit_tiny_patch16_224")
    save_file(donor.state_dict(), tmp_path / "odd.safetensors", said)
    if "norm_eps" in said:
        ClassTokenViT(C, pretrained=str(tmp_path / "odd.safetensors"))
        assert "norms of epsilon 1e-06" in caplog.text
        return
    with pytest.raises(BadFileError, match="odd.safetensors: "):
        ClassTokenViT(C, pretrained=str(tmp_path / "odd.safetensors"))
