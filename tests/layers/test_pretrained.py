"Donors of timm: positions arrive where they were, bands, heads and scales are kept, or the donor is refused."

import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer

from ctm.checkpoint import save_model
from ctm.core import BadFileError
from ctm.layers.pretrained import load_backbone, stretch_positions
from ctm.model import ClassTokenViT

C = 3
SHAPE = dict(patch_size=8, embed_dim=16, depth=2, num_heads=2)


def saved(donor, folder, metadata=None):
    "File of a donor whose weights are all different."
    with torch.no_grad():
        for n, part in enumerate(donor.parameters()):
            part.copy_(torch.randn(part.shape, generator=torch.Generator().manual_seed(n)))
    save_file(donor.state_dict(), folder / "donor.safetensors", metadata)
    return str(folder / "donor.safetensors")


def model_of(source=None, size=(16, 16), **options):
    torch.manual_seed(0)
    return ClassTokenViT(C, img_size=size, pretrained=source, **SHAPE | options)


def patches(model):
    return model.pos_embed[:, C : C + model.patch_embed.num_patches]


PREFIXES = {
    "no class token": dict(class_token=False, global_pool="avg"),
    "class token": {},
    "class token without a position": dict(no_embed_class=True),
    "registers": dict(reg_tokens=2),
    "four registers": dict(reg_tokens=4),
    "registers without a position": dict(reg_tokens=4, no_embed_class=True),
    "registers and no class token": dict(reg_tokens=2, class_token=False, global_pool="avg"),
    "distilled": dict(kind=VisionTransformerDistilled),
}


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("size", [(16, 16), (24, 24), (16, 32), (8, 72)])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_positions_arrive_where_they_were(prefix, size, said, tmp_path):
    options = dict(PREFIXES[prefix])
    donor = options.pop("kind", VisionTransformer)(img_size=size, num_classes=0, **SHAPE, **options)
    file = saved(donor, tmp_path, dict(num_heads="2", img_size=json.dumps(size)) if said else None)
    extra = 0 if options.get("no_embed_class") else donor.num_prefix_tokens
    square = size[0] == size[1] and extra == donor.num_prefix_tokens  # and no other square
    if not said and (not square or (prefix == "four registers" and size == (16, 16))):
        with pytest.raises(BadFileError, match="donor.safetensors: .* positions.*img_size="):
            model_of(file, size)
        return
    model = model_of(file, size)
    assert torch.equal(patches(model), donor.pos_embed[:, extra:])
    if donor.cls_token is not None:
        wanted = donor.pos_embed[:, :1] if extra else torch.zeros(1, 1, 16)
        assert torch.equal(model.pos_embed[:, :C], wanted.expand(1, C, 16))
        assert torch.equal(model.cls_token[:, :1], donor.cls_token)
    tokens = [getattr(donor, name, None) for name in ("cls_token", "dist_token", "reg_token")]
    tokens = [token for token in tokens if token is not None]
    if tokens:  # all that the donor's patches read are [REG]
        assert torch.equal(model.reg_token, torch.cat(tokens, 1))
        wanted = donor.pos_embed[:, :extra] if extra else torch.zeros(1, donor.num_prefix_tokens, 16)
        assert torch.equal(model.pos_embed[:, C + model.patch_embed.num_patches :], wanted)
    else:
        assert model.reg_token is None


def test_a_grid_that_could_be_the_models_is_refused(tmp_path):
    donor = VisionTransformer(img_size=32, num_classes=0, **SHAPE)
    with pytest.raises(BadFileError, match="16 positions, a grid of 4 x 4 or of the model's 2 x 8"):
        model_of(saved(donor, tmp_path), (16, 64))
    model = model_of(saved(donor, tmp_path, dict(img_size="32")), (16, 64))
    assert torch.allclose(patches(model), stretch_positions(donor.pos_embed[:, 1:], (4, 4), (2, 8)))


def test_grids_of_as_many_patches_are_stretched():
    positions = torch.arange(16.0).view(1, 16, 1)
    square = stretch_positions(positions, (2, 8), (4, 4)).view(4, 4)
    assert square[0, -1] > 5 and square[3, 0] < 10  # the corners are those of the grid of 2 x 8


def test_positions_that_contradict_their_grid_are_refused(tmp_path):
    donor = VisionTransformer(img_size=16, num_classes=0, **SHAPE)
    with pytest.raises(BadFileError, match="5 positions, its .3, 3. patches and 1 other tokens need 10"):
        model_of(saved(donor, tmp_path, dict(img_size="24")))


def test_unknown_tokens_are_refused(tmp_path):
    donor = VisionTransformer(img_size=16, num_classes=0, **SHAPE)
    donor.storage_tokens = torch.nn.Parameter(torch.zeros(1, 4, 16))
    with pytest.raises(BadFileError, match="storage_tokens, which is none of timm's tokens"):
        model_of(saved(donor, tmp_path))


def test_models_of_ctm_are_no_donors(tmp_path):
    torch.manual_seed(0)
    save_model(ClassTokenViT(1, img_size=16, **SHAPE), tmp_path / "a.safetensors")
    with pytest.raises(BadFileError, match="a.safetensors: is a model of ctm"):
        model_of(str(tmp_path / "a.safetensors"))


@pytest.mark.parametrize("bands", [1, 2, 4, 13])
def test_bands_of_the_donor_are_kept(bands, tmp_path):
    donor = VisionTransformer(img_size=16, in_chans=bands, num_classes=0, **SHAPE)
    file = saved(donor, tmp_path)
    assert torch.equal(model_of(file, in_chans=bands).patch_embed.proj.weight, donor.patch_embed.proj.weight)
    with pytest.raises(BadFileError, match=f"{bands} channels, need 3 or the model's 5"):
        model_of(file, in_chans=5)


SAYS = {
    "metadata": dict(num_heads="4"),
    "JSON": dict(config=json.dumps(dict(model_args=dict(num_heads=4)))),
    "config.json": dict(architecture="some_vit", model_args=dict(num_heads=4)),
}


@pytest.mark.parametrize("where", SAYS)
def test_heads_that_a_file_says(where, tmp_path, caplog):
    donor = VisionTransformer(img_size=16, num_classes=0, **SHAPE | dict(num_heads=4))
    file = saved(donor, tmp_path, SAYS[where] if where != "config.json" else None)
    if where == "config.json":
        (tmp_path / "config.json").write_text(json.dumps(SAYS[where]))
        (tmp_path / "donor.safetensors").rename(tmp_path / "model.safetensors")
        file = str(tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="has num_heads=4, asked for is num_heads=2; leave that out"):
        model_of(file)
    model_of(file, num_heads=4)
    assert "heads per block" not in caplog.text


def test_heads_that_a_file_does_not_say(tmp_path, caplog):
    donor = VisionTransformer(img_size=16, num_classes=0, **SHAPE | dict(embed_dim=64, num_heads=4))
    model_of(saved(donor, tmp_path), embed_dim=64)
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    said = "2 heads per block (timm's models of width 64 have 1), GELU activations, norms of epsilon 1e-06"
    assert f"{said}, a grid of 2 x 2 patches assumed" in line


@pytest.mark.parametrize("name, heads", [("vit_base_patch16_224", 12), ("vit_tiny_patch16_224.augreg_in21k", 3)])
def test_heads_of_a_name_are_its_architectures(name, heads, monkeypatch):
    "They are refused before any weight is fetched."
    real = timm.create_model

    def create(name, pretrained=False, **options):
        assert not pretrained, "the network is asked for weights that cannot be used"
        return real(name, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", create)
    with pytest.raises(ValueError, match=f"^{name}: has num_heads={heads}, asked for is num_heads=16"):
        ClassTokenViT(C, img_size=32, pretrained=name, num_heads=16)
    model = ClassTokenViT(C, img_size=32, embed_dim=64 * heads, depth=1, num_heads=16)
    with pytest.raises(BadFileError, match=f"{name}: .*{heads} heads per block, the model has 16: .*num_heads={heads}"):
        load_backbone(model, name)


def test_a_name_is_taken_with_its_grid(monkeypatch):
    real = timm.create_model
    donor = real("vit_tiny_patch16_224", depth=1, img_size=(32, 64), num_classes=0)
    given = lambda name, pretrained=False, **options: (  # noqa: E731
        donor if pretrained else real(name, depth=1, img_size=(32, 64), **options)
    )
    monkeypatch.setattr(timm, "create_model", given)
    shape = dict(img_size=(32, 64), patch_size=16, embed_dim=192, depth=1, num_heads=3)
    model = ClassTokenViT(C, pretrained="vit_tiny_patch16_224", **shape)
    assert torch.equal(patches(model), donor.pos_embed[:, 1:])


@pytest.mark.parametrize("proj_bias", [True, False])
def test_scales_of_layers_become_part_of_the_projections(proj_bias, tmp_path, caplog):
    options = dict(img_size=16, num_classes=0, init_values=0.3, proj_bias=proj_bias, global_pool="")
    donor = VisionTransformer(**options, **SHAPE).eval()
    file = saved(donor, tmp_path)
    plain = VisionTransformer(**options | dict(init_values=None), **SHAPE).eval()
    plain.in_chans = 3
    load_backbone(plain, file)
    image = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(plain(image), donor(image), rtol=1e-4, atol=1e-4)
    assert "no place" not in caplog.text
    block = model_of(file, proj_bias=proj_bias).blocks[1]
    theirs = donor.blocks[1]
    assert torch.equal(block.attn.proj.weight, theirs.ls1.gamma[:, None] * theirs.attn.proj.weight)
    assert torch.equal(block.mlp.fc2.weight, theirs.ls2.gamma[:, None] * theirs.mlp.fc2.weight)
    own = model_of(file, proj_bias=proj_bias, init_values=1.0).blocks[1]
    assert torch.equal(own.ls1.gamma, theirs.ls1.gamma)
    assert torch.equal(own.attn.proj.weight, theirs.attn.proj.weight)


def test_tokens_without_a_place_are_named(tmp_path, caplog):
    donor = VisionTransformer(img_size=16, num_classes=0, reg_tokens=3, **SHAPE)
    file = saved(donor, tmp_path)
    model = model_of(file, reg_tokens=2)
    assert "no place for 2 of its registers" in caplog.text
    assert torch.equal(model.reg_token, torch.cat([donor.cls_token, donor.reg_token[:, :1]], 1))
    model = model_of(file, reg_tokens=6)
    assert torch.equal(model.reg_token[:, 1:4], donor.reg_token) and torch.isfinite(model.reg_token).all()
    caplog.clear()
    model_of(saved(VisionTransformerDistilled(img_size=16, num_classes=0, **SHAPE), tmp_path), reg_tokens=1)
    assert "no place for its distillation token" in caplog.text
    model_of(
        saved(VisionTransformer(img_size=16, num_classes=0, **SHAPE), tmp_path), reg_tokens=0, class_reads="patches"
    )
    assert "no place for its class token, and does not begin with the donor's function; reg_tokens=1" in caplog.text
    caplog.clear()
    model_of(file, reg_tokens=0)  # class tokens are read, and are copies of the donor's
    assert "no place" not in caplog.text
