"What a person does in the explorer, driven from Python: no browser is needed."

import datetime

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

import ctm
from ctm.explorer.example import load_example
from ctm.explorer.widgets import TIPS
from ctm.model import ClassTokenViT
from ctm.synthetic.sets import make_synthetic
from ctm.train.config import load_config
from ctm.train.data import load_dataset
from ctm.train.fit import build_model

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    "Pictures of three shapes."
    place = tmp_path_factory.mktemp("pictures")
    for name, (h, w) in {"wide": (40, 120), "tall": (90, 30), "square": (50, 50)}.items():
        pixels = np.random.default_rng(h).integers(0, 255, (h, w, 3), np.uint8)
        Image.fromarray(pixels).save(place / f"{name}.png")
    return place


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return ClassTokenViT(4, 64, 8, embed_dim=16, depth=2, num_heads=2, patch_evidence=True).eval()


@pytest.fixture
def panel(model, files):
    return ctm.explore(model, files)


def name_of(panel):
    return panel.explorer.data.names[panel.explorer.image]


def test_mask_and_map_are_saved_in_the_files_own_shape(panel, tmp_path):
    panel.controls["image"].value = panel.explorer.data.names.index("wide.png")
    panel.folder.value = str(tmp_path / "new")
    panel.save.click()
    assert "wide-mask.png" in panel.saved.value
    mask = Image.open(tmp_path / "new" / "wide-mask.png")
    assert (mask.size, mask.mode) == ((120, 40), "P")
    (written,) = (tmp_path / "new").glob("wide-map-*.tif")
    with rasterio.open(written) as raster:
        assert raster.shape == (40, 120) and raster.read(1).max() > 0
    (tmp_path / "file").write_text("")
    panel.folder.value = str(tmp_path / "file")
    panel.save.click()
    assert "written" not in panel.saved.value, "a folder that cannot be made is one line, not a traceback"


def test_opacity_and_zoom_are_the_browsers_work(panel):
    before = [picture.png for picture in panel.pictures]
    panel.controls["opacity"].value = 0.25
    panel.controls["zoom"].value = 3
    assert {(p.opacity, p.zoom) for p in panel.pictures} == {(0.25, 3)}
    assert before == [picture.png for picture in panel.pictures] and panel.explorer.opacity == 0.25


@pytest.mark.parametrize("how", ["stretch", "pad"])
def test_pictures_have_the_files_aspect(model, files, how):
    config = load_config("folder", in_chans=3, patch_size=8, img_size=(64, 64), data=dict(how=how))
    panel = ctm.explore(model, files, config=config)
    panel.controls["image"].value = panel.explorer.data.names.index("wide.png")
    assert {p.aspect for p in panel.pictures[:4]} == {3}
    look = panel.explorer.look()
    assert (look.picture.shape, look.size) == ((40, 120, 3), (40, 120)), "all of the file's pixels"
    top, bottom, left, right = look.part
    assert (left, right) == (0, 1) and (bottom - top < 0.4) == (how == "pad"), "margins are not shown"


def test_a_large_file_is_shown_large(model, tmp_path):
    Image.new("RGB", (2000, 500)).save(tmp_path / "large.png")
    look = ctm.explore(model, tmp_path).explorer.look()
    assert (look.picture.shape, look.size) == ((256, 1024, 3), (500, 2000))


def test_files_are_chosen_dropped_and_named(panel, files, tmp_path):
    content = (files / "tall.png").read_bytes()
    panel.adder.upload.value = (
        dict(name="chosen.png", type="image/png", size=1, content=memoryview(content), last_modified=NOW),
    )
    assert name_of(panel) == "chosen.png"
    panel.pictures[2].set_state(dict(dropped_name="../dropped.png", dropped=memoryview(content)))
    assert name_of(panel) == "dropped.png" and panel.pictures[0].aspect == pytest.approx(1 / 3)
    Image.new("RGB", (20, 20)).save(tmp_path / "named.png")
    panel.adder.path.value = str(tmp_path)
    assert name_of(panel) == "named.png" and len(panel.explorer.data) == 6


def test_a_bad_file_is_refused_with_one_line(panel):
    for name, content in {"text.png": b"words", "empty.png": b"", "..": b"x"}.items():
        panel.adder.receive(name, content)
        assert "ctm-error" in panel.adder.said.value
    panel.adder.path.value = "nowhere/<b>"
    assert "ctm-error" in panel.adder.said.value and "<b>" not in panel.adder.said.value.replace("<b class", "")
    assert len(panel.explorer.data) == 3


def test_a_file_that_is_gone_is_one_line(model, tmp_path):
    for i in range(2):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{i}.png")
    panel = ctm.explore(model, tmp_path)
    (tmp_path / "1.png").unlink()
    panel.controls["image"].value = 1
    assert "ctm-error" in panel.text.value and "1.png" in panel.text.value
    panel.controls["image"].value = 0
    assert "ctm-error" not in panel.text.value


def test_two_settings_side_by_side(panel):
    button, box = panel.folds["compare"]
    button.value = True
    assert box.layout.display is None and "no difference yet" in panel.told.value
    kept = panel.others[1].png
    panel.controls["threshold"].value = "value"
    assert "threshold mean" in panel.told.value and panel.others[1].png == kept != panel.pictures[2].png
    panel.controls["image"].value = 2
    assert panel.others[1].png != kept, "the second row shows the same image"
    button.value = False
    assert panel.beside is None and box.layout.display == "none"


def test_two_models_side_by_side(model, files):
    torch.manual_seed(1)
    other = ClassTokenViT(4, 64, 16, embed_dim=16, depth=1, num_heads=2).eval()
    for beside in (other, ctm.explore(other, files, threshold="value:0.3")):
        panel = ctm.explore(model, files, beside=beside)
        assert "another model" in panel.told.value and panel.others[0].cells == [4, 4]
        panel.adder.receive("more.png", (files / "wide.png").read_bytes())
        assert panel.others[0].title and len(panel.beside.data) == 4
        panel.folds["compare"][0].value = False
        panel.adder.receive("again.png", (files / "tall.png").read_bytes())
        panel.folds["compare"][0].value = True
        assert "another model" in panel.told.value and "ctm-error" not in panel.text.value


def test_colour_bar_and_values_under_the_pointer(panel):
    look = panel.explorer.look()
    amap, mask = panel.pictures[1], panel.pictures[3]
    assert amap.bar == pytest.approx([look.maps[look.token].min().item(), look.maps[look.token].max().item()])
    assert np.frombuffer(amap.values, "<f4").reshape(amap.grid) == pytest.approx(look.maps[look.token].numpy())
    told = np.frombuffer(mask.values, np.uint8).reshape(mask.grid)
    assert (told == look.pseudo_mask.numpy()).all() and mask.names == list(panel.explorer.data.mask_classes)


def test_the_legend_is_full(panel):
    assert panel.legend.value.count("<i ") == len(panel.explorer.data.mask_classes)
    assert "<b>" in panel.legend.value, "what is in the mask is bold"


def test_thumbnails_and_search(panel):
    panel.folds["files"][0].value = True
    assert panel.thumbs.strip.title == "3 of 3 images"
    panel.thumbs.search.value = "Squ"
    assert panel.thumbs.strip.title == "1 of 3 images" and panel.thumbs.strip.names[0] == "square.png"
    panel.thumbs.strip.place = [0, 0]
    assert name_of(panel) == "square.png"
    panel.thumbs.search.value = "nothing"
    assert panel.thumbs.strip.title == "0 of 3 images" and panel.thumbs.strip.place == [-1, -1]


def test_reset(panel):
    start = panel.explorer.look()
    changes = dict(image=2, token=1, threshold="quantile", level=0.9, opacity=1, zoom=5, merge="argmax", gated=False)
    for name, value in changes.items():
        panel.controls[name].value = value
    panel.layers.children[2].value = panel.heads.children[1].value = True
    panel.pictures[0].place = [1, 1]
    panel.reset.click()
    now = panel.explorer.look()
    assert (now.name, now.token, now.patch) == (start.name, start.token, start.patch)
    assert torch.equal(now.pseudo_mask, start.pseudo_mask) and panel.controls["zoom"].value == 1
    assert not any(button.value for button in [*panel.layers.children[1:], *panel.heads.children[1:]])


def test_every_control_says_what_it_does(panel):
    assert {name: widget.tooltip for name, widget in panel.controls.items()} == TIPS
    buttons = [panel.save, panel.reset, panel.keep, *(button for button, _ in panel.folds.values())]
    assert all(len(button.tooltip) > 15 for button in buttons)


def test_layers_and_heads_are_counted_from_1(panel):
    for row in (panel.layers, panel.heads):
        assert [button.description for button in row.children[1:]] == ["1", "2"]
    panel.layers.children[1].value = True
    assert panel.explorer.layers == (0,), "code counts from 0"
    panel.pictures[0].place = [0, 0]
    assert "row 1, column 1" in panel.patch.value


def test_the_authors_controls_are_behind_more(panel):
    def inside(box):
        return {id(widget) for child in getattr(box, "children", ()) for widget in (child, *found(child))}

    def found(box):
        return [one for child in getattr(box, "children", ()) for one in (child, *found(child))]

    button, box = panel.folds["more"]
    hidden = {name for name, widget in panel.controls.items() if id(widget) in inside(box)}
    assert hidden == {"labels", "refine", "merge", "fill", "gated", "use_evidence"}
    assert box.layout.display == "none" and {id(panel.layers), id(panel.heads), id(panel.grid)} <= inside(box)
    button.value = True
    assert box.layout.display is None


def test_every_threshold_of_a_configuration_is_offered(model, files):
    for threshold in ("mean", "value:0.3", "quantile:0.9", "level:0.5"):
        panel = ctm.explore(model, files, threshold=threshold)
        panel.controls["opacity"].value = 0.5
        panel.controls["gated"].value = False
        assert panel.explorer.threshold == threshold


def test_a_new_threshold_repeats_no_forward_pass(panel, monkeypatch):
    look = panel.explorer.look()
    monkeypatch.setattr("ctm.explorer.state.view_rows", None)
    monkeypatch.setattr("ctm.explorer.state.mean_rows", None)
    panel.controls["threshold"].value = "value"
    assert not torch.equal(panel.explorer.look().binary, look.binary)


def test_the_example_is_small_and_good(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_DATA", str(tmp_path))
    example = load_example()
    assert sum(p.numel() for p in example.model.parameters()) < 600_000
    right = total = 0
    for i in range(len(example.data)):
        sample = example.data[i]
        predicted = example.model(sample["image"][None])[0] > 0
        right += int((predicted == sample["label"].bool()).sum())
        total += len(predicted)
    assert right / total > 0.9
    assert "synthetic" in ctm.explore().text.value


def test_images_without_a_model_are_refused(files):
    with pytest.raises(ValueError, match="give a model with images"):
        ctm.explore(images=files)


def test_an_added_photograph_is_not_called_synthetic(files, tmp_path):
    data = load_dataset(load_config("voc2012", "demo"), "val", make_synthetic("voc2012", tmp_path, n=4), cache=False)
    model = build_model(load_config("voc2012", "demo", embed_dim=16, depth=1, num_heads=2), len(data.classes)).eval()
    panel = ctm.explore(model, data)
    assert "synthetic" in panel.text.value
    panel.adder.path.value = str(files / "wide.png")
    assert "synthetic" not in panel.text.value
