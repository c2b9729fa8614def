"Kept features: the same fit with and without them, goes on after a kill, made again where damaged, found by content."

import errno
import json
import logging
import shutil
from collections import namedtuple

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback

from ctm.core import DiskFullError
from ctm.data.dataset import ImageDataset
from ctm.layers.stem import Stem
from ctm.predict.dataset import predict_batches, score_masks
from ctm.runtime.rng import holding
from ctm.train import features
from ctm.train.config import load_config
from ctm.train.features import keep_features, whole_views
from ctm.train.fit import build_model, fit
from ctm.train.trainer import read_log

SIZE = (32, 64)
ON_MAPS = dict(
    stem="random:resnet10t", img_size=SIZE, patch_size=16, in_chans=3, embed_dim=16, depth=1, num_heads=2,
    epochs=2, batch_size=4, classifier="per_class", logit_start="frequency", patch_evidence=True,
)  # fmt: skip


class Photos(ImageDataset):
    "Noise, a little larger than the model reads, with given labels."

    name, source, classes, colors = "photos", "photos", ("a", "b"), ("#117733", "#999933")
    share, upright = None, True
    mean, std = np.zeros(3), np.ones(3)

    def __init__(self, count=10, seed=0, labels=0, scale=1.0):
        self.names = [f"photo-{i}" for i in range(count)]
        self.seed, self.labels, self.scale = seed, labels, scale

    def read(self, index):
        draw = np.random.default_rng([self.seed, index])
        image = draw.normal(size=(3, 32, 68)).astype(np.float32)
        return self.scale * image, draw.integers(0, 2, (32, 68)).astype(np.uint8)

    def read_label(self, index):
        return np.array([(index + self.labels) % 2, 1])


def stem(layers="16,head", size=SIZE, seed=0):
    torch.manual_seed(seed)
    return Stem("random:resnet10t", layers, img_size=size, embed_dim=8)


@pytest.fixture
def computed(monkeypatch):
    "Numbers of images that a stem looks at, call by call; a call that is named fails."
    seen = dict(calls=[], fails=None)
    usual = Stem.features

    def watched(self, image):
        if len(seen["calls"]) == seen["fails"]:
            raise KeyboardInterrupt
        seen["calls"].append(len(image))
        return usual(self, image)

    monkeypatch.setattr(Stem, "features", watched)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)  # calls in their order
    return seen


def test_kept_maps_are_those_of_the_images(tmp_path, computed):
    data, network = Photos(), stem()
    kept = keep_features(network, data, tmp_path)
    assert sum(computed["calls"]) == 2 * len(data)
    again = keep_features(network, data, tmp_path)
    assert sum(computed["calls"]) == 2 * len(data), "computed once"
    for index in (0, 9):
        middle = data[index]["image"][:, :, 2:66]
        wanted = network.pack(network.features(torch.stack([middle, middle.flip(-1)])))
        assert torch.allclose(again[index]["image"].float(), wanted.float(), atol=2e-3, rtol=2e-3)
        for part in ("mask", "label"):
            assert torch.equal(kept[index][part], data[index][part])
    assert kept.names == data.names and kept[3]["name"] == "photo-3"


def test_the_number_of_cores_changes_nothing(tmp_path, monkeypatch):
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        found.append(np.array(keep_features(stem(), Photos(22), tmp_path / str(threads)).features))
    assert np.array_equal(*found)


def test_a_killed_run_goes_on(tmp_path, computed, monkeypatch):
    monkeypatch.setattr(features, "_NOTED", 4)
    data = Photos(14)
    whole = np.array(keep_features(stem(), data, tmp_path / "straight").features)
    before = computed["calls"].copy()
    computed["fails"] = len(before) + 2  # after eight images
    with pytest.raises(KeyboardInterrupt):
        keep_features(stem(), data, tmp_path / "cut")
    computed["fails"] = None
    rest = len(computed["calls"])
    assert np.array_equal(keep_features(stem(), data, tmp_path / "cut").features, whole)
    assert sum(computed["calls"][rest:]) == 2 * 6


@pytest.mark.parametrize("damage", ["number", "note", "odd note", "no array", "short", "shape"])
def test_damage_is_noticed(damage, tmp_path, caplog):
    kept = keep_features(stem(), Photos(), tmp_path)
    whole, place = np.array(kept.features), kept.place
    array, note = place / "features.npy", place / "features.json"
    if damage == "number":
        changed = np.load(array)
        changed[3, 1, 5] += 1
        np.save(array, changed)
    if damage == "note":
        note.write_text("{")
    if damage == "odd note":
        note.write_text(json.dumps(dict(sums=["a"] * 10)))
    if damage == "no array":
        array.unlink()
    if damage == "short":
        array.write_bytes(array.read_bytes()[:-100])
    if damage == "shape":
        np.save(array, whole[:, :, 1:])
    with caplog.at_level(logging.WARNING, "ctm"):
        assert np.array_equal(keep_features(stem(), Photos(), tmp_path).features, whole)
    assert "features made again" in caplog.text


def test_found_by_weights_size_layers_and_content(tmp_path):
    first = keep_features(stem(), Photos(), tmp_path).place
    assert keep_features(stem(), Photos(labels=1), tmp_path).place == first, "labels are no part of it"
    others = [
        keep_features(stem(seed=1), Photos(), tmp_path),
        keep_features(stem("16"), Photos(), tmp_path),
        keep_features(stem(size=(32, 32)), Photos(), tmp_path),
        keep_features(stem(), Photos(seed=1), tmp_path),
        keep_features(stem(), Photos(9), tmp_path),
        keep_features(stem(), Photos(), tmp_path, views=1),
    ]
    assert len({first, *(kept.place for kept in others)}) == 7


def test_room_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: namedtuple("Usage", "free")(1000))
    with pytest.raises(DiskFullError, match="bytes needed for the features of photos") as found:
        keep_features(stem(), Photos(), tmp_path)
    assert found.value.errno == errno.ENOSPC


def test_features_beyond_16_bits_are_refused(tmp_path):
    network = stem()
    with torch.no_grad():
        network.network.bn1.bias.fill_(1e6)
        network.network.layer4[0].bn2.weight.fill_(1e4)
    with pytest.raises(ValueError, match="photo-0.*too large for 16 bits"):
        keep_features(network, Photos(scale=1e3), tmp_path)


def test_views_do_not_depend_on_who_holds_a_batch():
    batch = dict(image=torch.arange(8.0).expand(6, 2, 8), mask=torch.zeros(6, 1, 8))
    batch["image"] = batch["image"] + 100 * torch.arange(2)[None, :, None]
    torch.manual_seed(0)
    whole = whole_views(batch, (1, 8), training=True)[0]
    torch.manual_seed(0)
    with holding(4, 6):
        part = whole_views({name: value[4:] for name, value in batch.items()}, (1, 8), training=True)[0]
    assert torch.equal(part, whole[4:])
    assert set(whole[:, 0].tolist()) == {0.0, 100.0}


def test_a_fit_is_the_same_with_and_without_kept_features(tmp_path, monkeypatch):
    data, config = Photos(), load_config(**ON_MAPS)
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    by_kept = fit(config, data, Photos(6, seed=1), tmp_path / "kept")
    assert len(list((tmp_path / "cache").glob("photos-features-*"))) == 2
    monkeypatch.setenv("CTM_CACHE", "off")
    by_images = fit(config, data, Photos(6, seed=1), tmp_path / "off")
    logs = [read_log(tmp_path / name).drop(columns="sparsity") for name in ("kept", "off")]
    assert np.allclose(*logs, atol=2e-3)
    for name, value in by_kept.state_dict().items():
        if "network" in name:
            assert torch.equal(value, by_images.state_dict()[name]), "a frozen stem stands still"
    assert by_kept.patch_embed.mean.abs().sum() > 0
    found = score_masks(predict_batches(by_kept, data, config), 2)
    assert 0 <= found["miou"] <= 1


class PowerCut(Callback):
    "Failure of the program after the first epoch."

    def on_train_epoch_start(self, trainer, module):
        if trainer.current_epoch == 1:
            raise InterruptedError


def test_a_fit_on_features_goes_on(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    data, config = Photos(), load_config(**ON_MAPS)
    straight = fit(config, data, data, tmp_path / "straight")
    with pytest.raises(InterruptedError):
        fit(config, data, data, tmp_path / "cut", callbacks=[PowerCut()])
    again = fit(config, data, data, tmp_path / "cut")
    assert all(
        torch.equal(a, b) for a, b in zip(straight.state_dict().values(), again.state_dict().values(), strict=True)
    )


def test_a_stem_that_is_trained_moves(tmp_path):
    data, config = Photos(), load_config(**ON_MAPS | dict(stem_frozen=False, epochs=1))
    model = fit(config, data, data, tmp_path)
    torch.manual_seed(0)
    before = build_model(config, 2)
    name = "patch_embed.network.layer3.0.conv1.weight"
    assert not torch.equal(model.state_dict()[name], before.state_dict()[name])
    assert not before.patch_embed.mean.any() and model.patch_embed.mean.any()


def test_patches_come_from_one_network():
    with pytest.raises(ValueError, match="patches come from one"):
        load_config(**ON_MAPS, pretrained="vit_tiny_patch16_224")
