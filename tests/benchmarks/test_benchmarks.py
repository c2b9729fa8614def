"The benchmarks: ctm computes what its naive twin does, every measurement runs on toys, and nothing in ctm needs them."

import ast
import copy
import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import ctm
from benchmarks import cost, data, explorer, folders, growth, linear, narrow, speed, timing
from benchmarks.naive import naive_fill, naive_forward, naive_loss, naive_maps, naive_masking, naive_pseudo_mask
from ctm.reports.speed import CASES, LAYOUTS, TASKS, stored_lines
from ctm.train.fit import build_model

ROOT = Path(__file__).resolve().parents[2]
TOY = dict(num_classes=5, img_size=(64, 64), patch_size=8, embed_dim=32, depth=2, num_heads=4, in_chans=3)
SMALL = dict(embed_dim=32, depth=4, num_heads=4, patch_size=8)


@pytest.fixture
def model():
    "A small model of oblong images, one head of each layer closed."
    torch.manual_seed(0)
    model = ctm.ClassTokenViT(5, img_size=(32, 48), patch_size=8, embed_dim=32, depth=3, num_heads=4)
    for block in model.blocks:
        block.attn.head_gate.log_alpha.data = torch.tensor([3.0, -9.0, 0.5, 4.0])
    return model


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setitem(speed.CASES, "toy", TOY)
    monkeypatch.setitem(speed.BATCH, "toy", 2)
    return "toy"


# The naive twin


@torch.no_grad()
def test_maps_are_the_same(model):
    image = torch.randn(4, 3, 32, 48)
    logits, maps = model.eval().attention_maps(image)
    naive_logits, naive = naive_maps(model, image)
    torch.testing.assert_close(logits, naive_logits, atol=1e-5, rtol=0)
    torch.testing.assert_close(maps, naive, atol=1e-6, rtol=0)


@torch.no_grad()
def test_masks_are_the_same(model):
    maps = torch.rand(4, 5, 4, 6)
    prob = torch.rand(4, 5)
    masks = [make(maps, prob, (32, 48)) for make in (ctm.pseudo_mask, naive_pseudo_mask)]
    assert (masks[0] == masks[1]).float().mean() > 0.99  # ties between classes in a window are broken in another order


def test_gradients_are_the_same(model):
    image = torch.randn(4, 3, 32, 48)
    label = torch.eye(5)[:4]
    model.train()
    model.mask_ratio = 1.0  # no chance in it
    for block in model.blocks:
        block.attn.head_gate.log_alpha.data.fill_(30.0)  # nor in the gates
    twin = copy.deepcopy(model)
    ctm.ClassTokenLoss(0.01)(model.training_logits(image, label), label, model)[0].backward()
    naive_loss(twin, image, label, 0.01).backward()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=0)


@torch.no_grad()
def test_attention_rows_sum_to_their_gate(model):
    _, matrices = naive_forward(model.eval(), torch.randn(2, 3, 32, 48))
    assert len(matrices) == 3 and matrices[0].shape == (2, 4, 30, 30)  # 24 patches, 5 classes, [REG]
    gate = model.blocks[0].attn.head_gate()[:, None].expand(2, 4, 30)
    torch.testing.assert_close(matrices[0].sum(-1), gate, atol=1e-5, rtol=0)


def test_masking_spares_present_classes():
    tokens = torch.ones(2, 3, 4)
    label = torch.tensor([[1.0, 0, 0], [0, 1, 0]])
    assert naive_masking(tokens, label, 1.0).mean(2).tolist() == label.tolist()
    assert torch.equal(naive_masking(tokens, label, 0.0), tokens)


def test_empty_pixels_take_the_nearest_class():
    mask = np.full((4, 6), 255)
    mask[:, 0] = 1
    mask[:, 5] = 0
    assert naive_fill(mask, 2)[0].tolist() == [1, 1, 1, 0, 0, 0]


# The measurements


def test_both_sides_of_each_task_agree(toy):
    sides = speed.both_sides(toy, "pruned maps")
    torch.testing.assert_close(sides["ctm"]()[1], sides["naive"]()[1], atol=1e-5, rtol=0)
    ends = speed.both_sides(toy, "end to end")
    assert (ends["ctm"]() == ends["naive"]()).float().mean() > 0.9
    with pytest.raises(ValueError, match="case='voc' is unknown"):
        speed.both_sides("voc", "step")


def test_a_share_of_the_heads_is_closed():
    model = speed.close_heads(ctm.ClassTokenViT(**TOY), 0.25)
    assert sum((block.attn.head_gate.log_alpha < 0).sum().item() for block in model.blocks) == 2


def test_speed(toy, monkeypatch):
    monkeypatch.setattr(speed, "peak", lambda *which: (1.0, 2.0))
    rates = speed.matmul_rates(64, 32)
    monkeypatch.setattr(speed, "matmul_rates", lambda: rates)
    monkeypatch.setattr(speed, "copy_rate", partial(speed.copy_rate, 1))
    lines = [speed.measure(toy, task, repeats=2) for task in TASKS]
    assert lines[0].keys() == stored_lines("bench")[0].keys()
    assert [line["batch"] for line in lines] == [2, 1, 1, 1, 1, 1]
    assert all(line["seconds"].keys() == {"ctm", "naive"} and line["ratio"] > 0 for line in lines)
    assert lines[1]["operations"] > 1e5


def test_memory_is_measured_in_a_process_of_its_own():
    before, peak = speed.peak("voc2012 224", "masks", "ctm")
    assert 0 < before <= peak < 8


def test_gentle_layout_grows_by_a_token_a_position_and_a_row_per_class():
    gentle = [growth.growth_calls("gentle: all three", c, 32, 1, **SMALL | dict(class_layer=3))[0] for c in (8, 1000)]
    assert gentle[1] - gentle[0] == 992 * (3 * 32 + 1)
    paper = [growth.growth_calls("paper's layout", c, 32, 1, **SMALL)[0] for c in (8, 9)]
    assert paper[0] < paper[1]
    with pytest.raises(ValueError, match="layout='mild' is unknown"):
        growth.growth_calls("mild")


def test_growth(monkeypatch):
    monkeypatch.setattr(growth, "step_memory", lambda layout, point: 1.0)
    monkeypatch.setitem(growth.USUAL, "img_size", 32)
    axes = dict(num_classes=(2, 3), batch=(1,))
    lines = growth.measure_growth(axes=axes, repeats=1, **SMALL | dict(class_layer=0))
    assert len(lines) == 2 * len(LAYOUTS) + 2  # elsewhere the first and the last layout
    assert lines[0].keys() == stored_lines("growth")[0].keys()


def test_cost_of_the_recipe(monkeypatch):
    monkeypatch.setattr(cost, "COST_SHAPES", {"toy": TOY | dict(img_size=64, batch=2)})
    lines = cost.measure_cost(repeats=1)
    assert [line["task"] for line in lines] == ["step", "maps", "masks"]
    assert lines[0].keys() == stored_lines("sharp_cost")[0].keys()


def test_tiles(tmp_path):
    line = data.measure_tiles(2000, str(tmp_path), samples=500)
    assert line["tiles"] == 2000 and line["in runs, samples per s"] > 0
    assert line.keys() | {"versions"} == stored_lines("scale")[0].keys()


def test_annotations(tmp_path):
    path = data.write_instances(tmp_path, 200, 1000)
    assert len(json.loads(path.read_text())["annotations"]) == 1000
    opened = data.open_instances(str(tmp_path))
    assert opened.keys() == stored_lines("scale")[1]["first"].keys() and opened["gb"] < 0.1


def test_reading(monkeypatch, tmp_path):
    root = ctm.make_synthetic("kvasir_seg", tmp_path, n=8)
    read = data.load_dataset
    monkeypatch.setattr(data, "load_dataset", lambda config, split, cache: read(config, split, root, cache=cache))
    (line,) = data.reading_lines(("kvasir_seg",), samples=4)
    assert line["ratio"] == line["cache"] / line["files"]
    assert line.keys() == stored_lines("reading")[0].keys()


def test_controls_of_the_explorer(tmp_path):
    root = ctm.make_synthetic("dfc2020", tmp_path, n=64)
    config = ctm.load_config("dfc2020", "demo+sharp", embed_dim=32, depth=3, num_heads=4)
    panel = ctm.explore(build_model(config, 8).eval(), ctm.load_dataset(config, "val", root))
    lines = explorer.time_controls(panel, 2)
    assert [line["control"] for line in lines] == [line["control"] for line in stored_lines("explorer")]


def test_linear_layers():
    place = dict(linear.places()[-1], batch=2)
    lines = linear.measure_linear([place], repeats=2)
    assert [line["task"] for line in lines] == ["forward", "step"]
    for task in ("forward", "step"):
        torch_out, ctm_out = (call() for call in linear.calls_of(place, task).values())
        torch.testing.assert_close(torch_out, ctm_out, atol=1e-2, rtol=1e-3)


def test_measurements_are_stored_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "repo_root", lambda: tmp_path)
    (tmp_path / "figures").mkdir()
    assert json.loads(timing.store("toy", [dict(a=1)]).read_text()) == [dict(a=1)]


# What is stored, and who may ask for it


def test_the_stored_benchmark_is_complete():
    found = [(line["case"], line["task"]) for line in stored_lines("bench")]
    assert found == [(case, task) for case in CASES for task in TASKS]


@pytest.mark.parametrize(
    "script", [speed, growth, cost, data, explorer, folders, linear], ids=lambda script: script.__name__
)
def test_each_script_says_what_it_does(script, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [script.__name__, "--help"])
    with pytest.raises(SystemExit):
        script.main()
    told = capsys.readouterr().out
    assert f"usage: python -m {script.__name__} [-h]" in told
    assert "--memory" not in told and "--open" not in told, "what a child process is asked is hidden"
    assert f"python -m {script.__name__}" in (ROOT / "benchmarks" / "README.md").read_text()


def test_a_child_prints_json(toy, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "--memory", toy, "masks", "naive"])
    speed.main()
    before, peak = json.loads(capsys.readouterr().out)
    assert 0 < before <= peak
    data.write_instances(tmp_path, 20, 100)
    monkeypatch.setattr(sys, "argv", ["data", "--open", str(tmp_path)])
    data.main()
    assert json.loads(capsys.readouterr().out)["seconds"] > 0


def test_the_library_does_without_benchmarks():
    for path in (ROOT / "ctm").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", "")]
            assert not any((name or "").split(".")[0] == "benchmarks" for name in names), path


def test_cells_are_scored_by_area_too(monkeypatch):
    "Two classes and none, in a view of two rows, whose last column is margin: half of the object is found."
    label, inside = torch.ones(1, 2), torch.tensor([[[1, 1, 0], [1, 1, 0]]], dtype=torch.bool)
    masks = np.array([[[1, 1, 1], [0, 2, 255]]], np.uint8)
    data = SimpleNamespace(classes=("cat", "dog"), background=0, read=lambda index: (None, masks[index]))
    for name, value in dict(
        seen_images=lambda *_: [SimpleNamespace(label=label, inside=inside)],
        as_kept=lambda model, data: data,
        at_middles=lambda masks, stem: masks,
    ).items():
        monkeypatch.setattr(narrow, name, value)
    found = torch.tensor([[[0, 2, 0], [2, 1, 1]]])
    scores = narrow.scores_at_cells(SimpleNamespace(patch_embed=None), data, {"x": lambda seen: found})
    assert scores == {"x": dict(miou=pytest.approx((1 / 2 + 1 + 1 / 2) / 3), area=2 / 3)}


def test_a_folder_is_fitted_on_one_part_and_scored_on_the_other(tmp_path):
    random = np.random.default_rng(0)
    mask = np.zeros((40, 50), np.uint8)
    mask[:, 25:] = 1
    one = folders.Folder("kvasir", 6, 3, ("polyp",))
    picture = lambda: Image.fromarray(random.integers(0, 255, (40, 50, 3), np.uint8))  # noqa: E731
    made = [("val" if n < 3 else "train", (f"{n}", picture(), mask, {"polyp"} if n % 2 else set())) for n in range(9)]
    plan = folders.write_folder(tmp_path, one, made)
    assert (len(plan.train), len(plan.val), plan.val.background) == (6, 3, 0)
    lines = [dict(folder=one.name, scores=dict(box=0.4 + 0.1 * n, sharp=0.75)) for n in range(2)]
    table = folders.folder_table(lines)
    assert table.loc[one.name, ["box", "cam", "sharp"]].tolist() == ["45.0 ± 7.1", "-", "75.0 ± 0.0"]
