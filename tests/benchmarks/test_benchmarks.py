"The benchmarks: ctm computes what its naive twin does, and every measurement runs, on toys."

import copy
from statistics import median

import pytest
import torch

import ctm
from benchmarks import cost, data, growth, speed, timing
from benchmarks.explorer import time_controls
from benchmarks.naive import naive_loss, naive_maps, naive_pseudo_mask
from ctm.reports.speed import AXES, LAYOUTS, TASKS, growth_figure, growth_table

TOY = dict(num_classes=5, img_size=(64, 64), patch_size=8, embed_dim=32, depth=2, num_heads=4, in_chans=3)


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = ctm.ClassTokenViT(5, img_size=(32, 48), patch_size=8, embed_dim=32, depth=3, num_heads=4)
    for block in model.blocks:
        block.attn.head_gate.log_alpha.data = torch.tensor([3.0, -9.0, 0.5, 4.0])
    return model


@torch.no_grad()
def test_the_naive_twin_has_the_same_maps_and_masks(model):
    image, prob = torch.randn(4, 3, 32, 48), torch.rand(4, 5)
    logits, maps = model.eval().attention_maps(image)
    naive_logits, naive = naive_maps(model, image)
    torch.testing.assert_close(logits, naive_logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps, naive, atol=1e-6, rtol=0)
    masks = [make(maps, prob, (32, 48)) for make in (ctm.pseudo_mask, naive_pseudo_mask)]
    assert (masks[0] == masks[1]).float().mean() > 0.99  # ties between classes in a window are broken in another order


def test_the_naive_twin_has_the_same_gradients(model):
    image, label = torch.randn(4, 3, 32, 48), torch.eye(5)[:4]
    model.train()
    model.mask_ratio = 1.0  # no chance in it
    for block in model.blocks:
        block.attn.head_gate.log_alpha.data.fill_(30.0)  # nor in the gates
    twin = copy.deepcopy(model)
    ctm.ClassTokenLoss(0.01)(model(image, label), label, model)[0].backward()
    naive_loss(twin, image, label, 0.01).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=0)


def test_every_task_is_timed(monkeypatch):
    monkeypatch.setitem(speed.CASES, "toy", TOY)
    monkeypatch.setitem(speed.BATCH, "toy", 2)
    sides = speed.both_sides("toy", "pruned maps")
    torch.testing.assert_close(sides["ctm"]()[1], sides["naive"]()[1], atol=1e-5, rtol=0)
    assert speed.operations(speed.both_sides("toy", "forward")["ctm"]) > 1e5
    ends = speed.both_sides("toy", "end to end")
    assert (ends["ctm"]() == ends["naive"]()).float().mean() > 0.9
    for task in TASKS:
        times = timing.in_turn(speed.both_sides("toy", task), repeats=2)
        assert {len(found) for found in times.values()} == {2} and median(times["ctm"]) > 0
    with pytest.raises(ValueError, match="case='voc' is unknown"):
        speed.both_sides("voc", "step")


def test_memory_is_measured_in_a_process_of_its_own():
    before, peak = speed.peak("voc2012 224", "masks", "ctm")
    assert 0 < before <= peak < 8


def test_growth():
    small = dict(embed_dim=32, depth=4, num_heads=4, patch_size=8, img_size=32, batch=1)
    gentle = {c: growth.growth_calls("gentle: all three", c, **small | dict(class_layer=3))[0] for c in (8, 1000)}
    assert gentle[1000] - gentle[8] == 992 * (3 * 32 + 1), "a token, a position and a row of the classifier per class"
    paper = [growth.growth_calls("paper's layout", c, **small)[0] for c in (8, 9)]
    assert paper[0] < paper[1]
    with pytest.raises(ValueError, match="layout='mild' is unknown"):
        growth.growth_calls("mild")
    timing.in_turn(growth.growth_calls("gentle: all three", 8, **small | dict(class_layer=3))[1], repeats=1)


def test_growth_is_drawn():
    score = dict(parameters=1e6, step=1 / 9, maps=1 / 30, peak_gb=1.0)
    lines = [
        dict(layout=layout, axis=axis, value=value) | {name: factor * value for name, factor in score.items()}
        for axis, values in AXES.items()
        for value in values
        for layout in LAYOUTS
    ]
    assert growth_table(lines).loc["paper's layout", "last / first"] == pytest.approx(125)
    assert growth_figure(lines).axes[0].get_ylabel() == "million parameters"


def test_cost_of_the_recipe(monkeypatch):
    monkeypatch.setattr(cost, "COST_SHAPES", {"toy": TOY | dict(img_size=64, batch=2)})
    lines = cost.measure_cost(repeats=1)
    assert [line["task"] for line in lines] == ["step", "maps", "masks"]


def test_data_at_scale(tmp_path):
    tiles = data.measure_tiles(2000, str(tmp_path), samples=500)
    assert tiles["tiles"] == 2000 and tiles["in runs, samples per s"] > 0
    assert data.measure_instances(200, 1000)["later"]["gb"] < 0.1
    assert data.reading_table(("dfc2020",), samples=8).loc["dfc2020", "cache"] > 0


def test_controls_of_the_explorer(tmp_path):
    root = ctm.make_synthetic("dfc2020", tmp_path, n=64)
    config = ctm.load_config("dfc2020", "demo+sharp", embed_dim=32, depth=3, num_heads=4)
    from ctm.train.fit import build_model

    panel = ctm.explore(build_model(config, 8).eval(), ctm.load_dataset(config, "val", root))
    assert len(time_controls(panel, 2)) == 11
