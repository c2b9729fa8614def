"The explorer's mask of a model that has been through rounds is the one that is written."

import dataclasses

import torch

from ctm.explorer.state import Explorer
from ctm.predict.dataset import predict_batches
from ctm.train.fit import fit
from tests.train.test_rounds import config, discs


def test_its_mask_is_the_written_one(tmp_path):
    data = discs(8)
    how = dataclasses.replace(config(), refine="none", labels="given")
    model = fit(how.fit_config(), data, data, tmp_path)
    state = Explorer(model, data, config=how)
    (batch,) = predict_batches(model, data, how)
    assert torch.equal(state.look().pseudo_mask, batch["pseudo_mask"][0])
    cells = state.look().maps
    state.heads = [0]
    assert not torch.equal(state.look().maps, cells), "picked heads show attention"
