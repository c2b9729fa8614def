"The explorer of a model that has been through rounds on a stem: its mask is the one that is written."

import dataclasses

import pytest
import torch

import ctm
from ctm.explorer.state import Explorer
from ctm.predict.dataset import predict_batches
from ctm.train.fit import fit
from tests.train.test_rounds import config, discs


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    data = discs(8)
    how = dataclasses.replace(config(), refine="none", labels="given")
    return fit(how.fit_config(), data, data, tmp_path_factory.mktemp("fit")), data, how


def test_its_mask_is_the_written_one(fitted):
    model, data, how = fitted
    state = Explorer(model, data, config=how)
    (batch,) = predict_batches(model, data, how)
    assert torch.equal(state.look().pseudo_mask, batch["pseudo_mask"][0])
    cells = state.look().maps
    state.heads = [0]
    assert not torch.equal(state.look().maps, cells), "picked heads show attention"


@pytest.mark.parametrize("views", [dict(flip=True), dict(scales=(1.0, 1.5))], ids=["flip", "scales"])
@pytest.mark.parametrize("rounds", [True, False], ids=["cells", "attention"])
def test_so_it_is_with_several_views(fitted, views, rounds):
    model, data, how = fitted
    how = dataclasses.replace(how, **views, labels="predicted", affinity="stem", rounds=how.rounds if rounds else 0)
    kept, model.cells = model.cells, model.cells if rounds else None
    try:
        (batch,) = predict_batches(model, data, how)
        assert torch.equal(Explorer(model, data, config=how).look().pseudo_mask, batch["pseudo_mask"][0])
    finally:
        model.cells = kept


def test_the_photo_preset_is_operated(fitted):
    model, data, how = fitted
    photo = dataclasses.replace(how, threshold="level:0.5", refine="color", labels="predicted", affinity="stem")
    panel = ctm.explore(model, data, config=photo)
    assert panel.controls["threshold"].value == "level" and "the cells of its stem make the maps" in panel.text.value
    assert panel.pictures[0].aspect == pytest.approx(64 / 48), "without the margins of its square"
    for name, value in dict(image=1, token=1, level=0.3, refine="none", gated=False, use_evidence=False).items():
        panel.controls[name].value = value
        assert "ctm-error" not in panel.text.value
    panel.grid.place = [0, 1]
    assert "the cells" not in panel.text.value and "attention to the patch" in panel.patch.value


def test_a_stem_looks_once_at_an_image(fitted, monkeypatch):
    model, data, how = fitted
    looked, features = [], model.patch_embed.features
    monkeypatch.setattr(model.patch_embed, "features", lambda image: looked.append(1) or features(image))
    panel = ctm.explore(model, data, config=how)
    for name, value in dict(token=1, threshold="value", refine="color", labels="predicted").items():
        panel.controls[name].value = value
    panel.grid.place = [0, 1]
    assert len(looked) == 1
