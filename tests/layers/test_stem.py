"Stems: timm's maps, whatever the family; weights of files; a frozen network that stands still; one grid."

import copy
import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from ctm.core import BadFileError, DatasetNotFoundError
from ctm.layers.maps import folded
from ctm.layers.stem import Stem

SIZE = (64, 96)
FAMILIES = (
    "tf_efficientnet_lite0",
    "resnet10t",
    "convnext_atto",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
)


def shaken(network):
    "The same network, whose numbers are all different, statistics of norms too."
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.normal_(0, 0.1, generator=draw)
                part.running_var.uniform_(0.5, 2, generator=draw)
    return network.eval()


def saved(name, folder, said=True, **options):
    "File of a network's weights, and the network."
    torch.manual_seed(0)
    network = shaken(timm.create_model(name, **options))
    file = folder / f"{name}.safetensors"
    save_file(network.state_dict(), file, dict(architecture=name) if said else None)
    return file, network


def filled(*args, **options):
    stem = Stem(*map(str, args), img_size=SIZE, **options)
    stem.fill()
    return stem.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_maps_are_those_of_timm(name, tmp_path):
    sizes = dict(img_size=SIZE) if "swin" in name else {}
    file, network = saved(name, tmp_path, num_classes=7, **sizes)
    plain = timm.create_model(name, features_only=True, out_indices=(-2, -1), **sizes).eval()
    names = {key: re.sub(r"^([a-z]+)_(\d)\.", r"\1.\2.", key) for key in plain.state_dict()}
    plain.load_state_dict({key: network.state_dict()[theirs] for key, theirs in names.items()})
    image = torch.randn(2, 3, *SIZE)
    stem = filled(file, "16,32,head", frozen=False, embed_dim=8)
    with torch.no_grad():
        seen = image * stem.scale + stem.shift
        wanted = [*plain(seen), network.forward_features(seen)]
        wanted = [part.permute(0, 3, 1, 2) if "swin" in name else part for part in wanted]
        for mine, theirs in zip(stem.features(image), wanted, strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-5 * theirs.abs().max())
        for mine, theirs in zip(filled(file, "16,32,head", embed_dim=8).features(image), wanted, strict=True):
            assert torch.allclose(mine, theirs, rtol=1e-3, atol=1e-4 * theirs.abs().max()), (
                "more than 16 bits' rounding"
            )
    assert stem(torch.randn(1, 3, 32, 64)).shape == (1, 2, 4, 8), "another size"


def test_frozen_stands_still():
    stem = Stem("random:resnet10t", img_size=SIZE, embed_dim=8)
    before = copy.deepcopy(stem.network.state_dict())
    stem.train()
    stem(torch.randn(2, 3, *SIZE)).sum().backward()
    assert not any(part.training for part in stem.network.modules())
    assert {name for name, p in stem.named_parameters() if p.grad is not None} == {"proj.weight", "proj.bias"}
    assert {name for name, p in stem.named_parameters() if p.requires_grad} == {"proj.weight", "proj.bias"}
    assert all(torch.equal(before[name], value) for name, value in stem.network.state_dict().items())
    free = Stem("random:resnet10t", frozen=False, img_size=SIZE, embed_dim=8).train()
    free(torch.randn(2, 3, *SIZE)).sum().backward()
    assert free.network.training and free.network.layer3[0].conv1.weight.grad is not None


def test_the_fast_network_follows_the_weights(tmp_path):
    stem = Stem("random:resnet10t", img_size=SIZE, embed_dim=8)
    image = torch.randn(1, 3, *SIZE)
    before = stem.features(image)[0]
    file, _ = saved("resnet10t", tmp_path)
    other = filled(file, embed_dim=8)
    stem.load_state_dict(other.state_dict())
    assert not torch.equal(stem.features(image)[0], before)
    assert torch.equal(stem.features(image)[0], other.features(image)[0])


class Twice(nn.Module):
    "Convolution whose output is read by a norm and by somebody else."

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.feature_info = [dict(reduction=1, num_chs=4)]

    def forward_features(self, x):
        x = self.conv(x)
        return self.norm(x) + x


def test_a_fold_that_would_change_the_maps_is_not_made():
    torch.manual_seed(0)
    network = shaken(Twice())
    image = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert torch.allclose(folded(network, image, ["head"]).forward_features(image), network.forward_features(image))


def test_bands_and_tokens():
    stem = Stem("random:resnet10t", "16", in_chans=5, img_size=SIZE, embed_dim=8)
    assert stem(torch.randn(1, 5, *SIZE)).shape == (1, 4, 6, 8)
    fine = Stem("random:resnet10t", "4,32", img_size=SIZE, patch_size=(16, 32), embed_dim=8, bias=False)
    assert fine(torch.randn(1, 3, *SIZE)).shape == (1, 4, 3, 8)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("random:no_such_net", {}, "timm has no model 'no_such_net'"),
        ("random:resnet10t", dict(layers="16,64"), "has 2, 4, 8, 16, 32, head"),
        ("random:resnet10t", dict(layers="16,16"), "each once"),
        ("random:vit_tiny_patch16_224", {}, "one size alone|pass it as pretrained="),
        ("random:vit_base_patch16_rope_reg1_gap_256", {}, "one size alone|maps|pretrained="),
    ],
)
def test_refused(source, options, words):
    with pytest.raises(ValueError, match=words):
        Stem(source, **options)


def test_files_that_do_not_fit(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_WEIGHTS", str(tmp_path))
    with pytest.raises(DatasetNotFoundError, match=r"data_prep/weights\.py"):
        Stem("lost.safetensors")
    file, network = saved("resnet10t", tmp_path, said=False)
    with pytest.raises(ValueError, match="architecture='resnet50'"):
        Stem(file.name)
    state = network.state_dict()
    state.pop("layer1.0.conv1.weight")
    save_file(state, file, dict(architecture="resnet10t"))
    with pytest.raises(BadFileError, match=r"layer1\.0\.conv1\.weight"):
        filled(file.name)
    file.write_bytes(b"nothing")
    with pytest.raises(BadFileError, match="is not a file of weights"):
        Stem(file.name)


def test_the_digest_tells_weights_and_layers_apart(tmp_path):
    file, _ = saved("resnet10t", tmp_path)
    stem = filled(file, embed_dim=8)
    assert stem.digest() == filled(file, embed_dim=16).digest()
    others = [filled(file, "16,32"), Stem("random:resnet10t", img_size=SIZE)]
    assert len({part.digest() for part in [stem, *others]}) == 3


def test_packed_maps_are_those_of_their_size():
    stem = Stem("random:resnet10t", img_size=SIZE, embed_dim=8)
    image = torch.randn(2, 3, *SIZE)
    rows = stem.pack(stem.features(image))
    assert rows.dtype == torch.float16
    assert torch.allclose(stem(rows), stem(image), atol=1e-5)
    with pytest.raises(ValueError, match="kept features have"):
        stem(rows[:, 1:])
