"Stage two on a frozen stem: the way of every stage two, in minutes."

import dataclasses
import json

import pytest
import torch
from safetensors.torch import save_file

from ctm.checkpoint import save_model
from ctm.core import IGNORE, BadFileError
from ctm.layers.cells import CellClassifier, cell_inputs
from ctm.pseudomask import cut_level
from ctm.segmentation.network import fit_segmentation, load_network, load_segmentation_config
from ctm.segmentation.run import segment_batches
from tests.train.test_rounds import discs

HOW = dict(encoder="random:resnet10t", options=dict(layers="8,16", stride=16, hidden=64))


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    config = load_segmentation_config("photo", **HOW)
    return fit_segmentation(config, discs(), (64, 64), tmp_path_factory.mktemp("second"), seed=1)


def test_it_learns_masks_and_needs_no_label(network):
    for batch in segment_batches(network, discs(16, 2)):
        known = batch["mask"] != IGNORE
        assert (batch["pred"] == batch["mask"])[known].float().mean() > 0.85


def test_its_file_is_read_and_nothing_else(network, tmp_path):
    file = save_model(network, tmp_path / "network.safetensors")
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(load_network(file)(image), network(image))
    odd = dict(network.options, encoder="resnet10t")
    save_file(network.state_dict(), tmp_path / "odd.safetensors", {"ctm": json.dumps(odd)})
    with pytest.raises(BadFileError, match="not an architecture alone"):
        load_network(tmp_path / "odd.safetensors")


def test_its_seed_and_masks_decide_it(network, tmp_path):
    config = load_segmentation_config("photo", **HOW)
    again = fit_segmentation(config, discs(), (64, 64), tmp_path / "same", seed=1)
    other = fit_segmentation(config, discs(), (64, 64), tmp_path / "other", seed=2)
    same = [torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True)]
    assert all(same) and not torch.equal(network.cells.out.weight, other.cells.out.weight)
    assert dataclasses.replace(config, epochs=4).key() != config.key()


def test_margins_do_not_count_in_a_cells_surroundings():
    "The mean around a cell at the border is of cells that are there."
    inputs = cell_inputs([torch.ones(1, 2, 4, 4)])
    assert torch.equal(inputs, torch.ones_like(inputs))


def test_classes_compete_with_those_that_are_there():
    torch.manual_seed(0)
    cells = CellClassifier(2, [3], hidden=8).eval()
    maps = [torch.randn(1, 3, 4, 4)]
    with torch.no_grad():
        logits, shares = cells.logits(maps), cells.shares(maps, torch.tensor([[1, 0]]))
        torch.testing.assert_close(shares[:, [0, 2]], logits[:, [0, 2]].softmax(1))
        assert (shares[:, 1] == 0).all()
        torch.testing.assert_close(cells.odds(shares)[:, 0], shares[:, 0])
        cells.has_background.fill_(False)
        assert (cells.odds(cells.shares(maps, torch.ones(1, 2))) >= 0.5).all()
        assert torch.isfinite(cells.shares(maps, torch.zeros(1, 2))).all()


def test_what_is_sure_to_win_still_loses_to_what_is_surer():
    "A dog on a sofa: both all but certain against the background, and the walk must not make them equal."
    cells = CellClassifier(2, [3], hidden=8).eval()
    logits = torch.tensor([[18.0, 12.0, 0.0], [12.0, 18.0, 0.0]]).T.view(1, 3, 1, 2)  # dog, sofa
    cells.logits = lambda maps: logits
    shares = cells.shares(None, torch.ones(1, 2))
    mixed = 0.7 * shares + 0.3 * shares.flip(3)  # a walk that mixes the two cells
    assert cells.odds(mixed).argmax(1).flatten().tolist() == [0, 1]
    assert (cells.odds(mixed)[0, 0] > 0.5).sum() > 0


def test_a_level_is_the_same_for_all_maps():
    maps = torch.rand(2, 3, 4, 4)
    assert (cut_level(maps, "level:0.5") == 0.5).all() and cut_level(maps, "level:0.5").shape == (2, 3, 1, 1)
    with pytest.raises(ValueError, match="level:2"):
        cut_level(maps, "level:2")


@pytest.mark.parametrize("change", [dict(lr=0.1), dict(weight_decay=0.5), dict(batch_size=4), dict(warmup=0.5)])
def test_what_cells_do_not_read_is_refused(change):
    "An option that would change the key of a run and not the run."
    with pytest.raises(ValueError, match=f"{next(iter(change))}=.*does not read it; leave it out"):
        load_segmentation_config("photo", **change)
    assert load_segmentation_config("photo", epochs=2).epochs == 2
