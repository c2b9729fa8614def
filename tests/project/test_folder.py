"One's own folder, from plan to overview: what cannot be read, other images, scores of what is written."

import json
import shutil
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

import ctm
from ctm.core import BadFileError, DatasetNotFoundError
from ctm.io.masks import read_mask
from ctm.io.record import read_masked
from ctm.metrics import SegmentationScores
from ctm.project import folder
from ctm.project.folder import own_or_example
from ctm.runtime.distributed import OutOfMemoryError
from tests.tools import ROOT, TINY_PLAN, link_elsewhere, write_labelled


def noise(seed, size=(24, 40)):
    "Coloured noise."
    return np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8)


def picture(path, seed, size=(24, 40)):
    "File of coloured noise."
    Image.fromarray(noise(seed, size)).save(path)


def write_folder(place):
    "Ten pictures in three sizes, their table and their masks."
    sizes = [(24 + 8 * (i % 3), 40) for i in range(10)]
    (place / "masks").mkdir()
    for i, size in enumerate(sizes):
        mask = np.random.default_rng(i).integers(0, 2, (2, 2), np.uint8)
        Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST).save(place / "masks" / f"p{i}.png")
    labels = ("a", "b", "a;b")
    return write_labelled(place, ((f"p{i}.png", noise(i, size), labels[i % 3]) for i, size in enumerate(sizes)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "Folder, its plan, and a model of it."
    place = tmp_path_factory.mktemp("own")
    where = write_folder(place)
    link_elsewhere(place / "masks" / "p7.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTM_RUNS", str(place / "runs"))
        options = dict(masks=place / "masks", mask_values=dict(a=0, b=1), how="pad", **TINY_PLAN)
        plan = ctm.plan_folder(*where, **options)
        masker, scores = ctm.train_folder(plan)
        yield place, plan, masker, scores


@pytest.fixture
def own(tmp_path, monkeypatch):
    "Folder of its own, to be spoilt."
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    write_folder(tmp_path)
    return tmp_path


def shown(figure):
    "Titles of the images in a figure."
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    plt.close(figure)
    return titles


def test_the_scores_are_those_of_the_masks_written(trained):
    place, plan, masker, scores = trained
    ctm.mask_folder(plan, masker)
    metric = SegmentationScores(2)
    for name in plan.val.names:
        files = [place / "out" / "masks" / name, place / "masks" / name]
        pair = [torch.from_numpy(read_mask(file).astype(int))[None] for file in files]
        metric.update(*pair)
    wanted = metric.compute()
    assert scores.loc["labels given", "miou"] == pytest.approx(wanted["miou"].item(), abs=1e-6)
    assert scores.loc["labels given", "pixel_accuracy"] == pytest.approx(wanted["pixel_accuracy"].item(), abs=1e-6)
    assert json.loads((place / "out" / "summary.json").read_text())["scores"]["labels given"]["miou"] > 0


@pytest.mark.parametrize("name", ["new.png", "p3.png"])
def test_masks_of_other_images_replace_none(trained, tmp_path, name):
    place, plan, masker, _ = trained
    ctm.mask_folder(plan, masker)
    before = {file.name: file.read_bytes() for file in (place / "out" / "masks").iterdir()}
    assert len(shown(ctm.project.overview.overview(plan))) == 6
    other = tmp_path / "images"  # a folder of the same name
    other.mkdir()
    picture(other / name, 99, (30, 60))
    pixels = ctm.mask_folder(plan, masker, images=other)
    assert list(pixels.index) == [name] and pixels.sum(axis=1).item() == 30 * 60
    assert {file.name: file.read_bytes() for file in (place / "out" / "masks").iterdir()} == before
    assert shown(ctm.project.overview.overview(plan)) == [name]
    (mask,) = (place / "out" / "other").glob(f"images-*/masks/{name}")
    assert read_mask(mask).shape == (30, 60)
    shutil.rmtree(place / "out" / "other")


def test_an_overview_needs_masks(own):
    plan = ctm.plan_folder(own / "images", own / "labels.csv", own / "out", **TINY_PLAN)
    with pytest.raises(DatasetNotFoundError, match="holds no mask of the images"):
        ctm.project.overview.overview(plan)


@pytest.mark.parametrize("name", ["0_preview.png", "z_preview.png"])
def test_a_preview_that_no_table_names(own, caplog, name):
    "Refused before the fit with its name, or left without a mask; the bands are those of the images in the table."
    Image.new("L", (9, 9)).save(own / "images" / name)
    Image.open(own / "images" / "p0.png").save(own / "images" / "half.png")
    (own / "images" / "half.png").write_bytes((own / "images" / "half.png").read_bytes()[:600])
    where = (own / "images", own / "labels.csv", own / "out")
    with pytest.raises(BadFileError, match=f"{name}: has 1 bands of uint8, the model reads 3.*bad='skip'"):
        ctm.plan_folder(*where, **TINY_PLAN)
    plan = ctm.plan_folder(*where, bad="skip", **TINY_PLAN)
    assert plan.config.in_chans == 3
    masker, _ = ctm.train_folder(plan)
    assert sorted(ctm.mask_folder(plan, masker).index) == sorted([*plan.train.names, *plan.val.names])
    assert name in caplog.text and "half.png" in caplog.text
    assert len(shown(ctm.project.overview.overview(plan, 20))) == 10


@pytest.mark.parametrize("cache", ["off", "cache"])
def test_broken_images_are_skipped_all_the_way(own, monkeypatch, caplog, cache):
    monkeypatch.setenv("CTM_CACHE", cache if cache == "off" else str(own / cache))
    (own / "images" / "p0.png").write_bytes(b"")
    for name in ("p1.png", "p2.png"):
        file = own / "images" / name
        file.write_bytes(file.read_bytes()[:700])
    (own / "images" / "p4.png").unlink()
    plan = ctm.plan_folder(own / "images", own / "labels.csv", own / "out", bad="skip", **TINY_PLAN)
    assert sorted([*plan.train.names, *plan.val.names]) == [f"p{i}.png" for i in (3, 5, 6, 7, 8, 9)]
    if cache == "off":  # a file that breaks in mid-training
        file = own / "images" / plan.train.names[1]
        file.write_bytes(file.read_bytes()[:700])
    masker, _ = ctm.train_folder(plan)
    assert len(ctm.mask_folder(plan, masker)) == (5 if cache == "off" else 6)
    assert all(f"p{i}.png" in caplog.text for i in (0, 1, 2, 4))


def test_options_are_given_by_their_names(own):
    Image.open(own / "images" / "p0.png").convert("L").save(own / "images" / "p0.png")
    where = (own / "images", own / "labels.csv", own / "out")
    with pytest.raises(BadFileError, match="as_rgb=True"):
        ctm.plan_folder(*where, **TINY_PLAN)
    plan = ctm.plan_folder(*where, as_rgb=True, classes=["b", "a"], **TINY_PLAN)
    assert plan.train.classes == ("b", "a") and plan.config.data["as_rgb"]


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(size=20), "size=20 is not a multiple of the patch, which has 8 pixels; choose 16"),
        (dict(resize=[32, 32]), "resize=.* is not what the model sees, size=16"),
        (dict(mask_values=dict(a=0, b=1)), "there are no masks; give masks="),
        (dict(tile=8), "tile=8: a tile's label"),
        (dict(group="patient"), "no column 'patient'; its columns are .*; group by one of them"),
    ],
)
def test_options_are_checked_together(own, options, message):
    with pytest.raises(ValueError, match=message):
        ctm.plan_folder(own / "images", own / "labels.csv", own / "out", **TINY_PLAN | options)


def test_a_table_without_its_images_is_refused():
    with pytest.raises(ValueError, match="labels='mine.csv' was given without images"):
        own_or_example(None, {}, labels="mine.csv", masks=None)


def test_own_data_takes_what_messages_advise_and_leaves_the_recipe_alone():
    cells = json.loads((ROOT / "nbs" / "own_data.ipynb").read_text())["cells"]
    (parameters,) = ["".join(c["source"]) for c in cells if "parameters" in c["metadata"].get("tags", [])]
    values = {}
    exec("from typing import Optional\n" + parameters, values)
    assert values["mask_ratio"] is None and values["lam"] is None
    assert {"as_rgb", "classes", "file", "label", "encoding", "bad", "group", "masks", "mask_values"} <= set(values)


def test_a_recipe_is_left_alone(own):
    plan = ctm.plan_folder(own / "images", own / "labels.csv", own / "out", preset="demo+sharp", **TINY_PLAN)
    assert plan.config.mask_ratio == 0


def test_what_was_assumed_is_said_once(own, caplog):
    (own / "labels.csv").write_text((own / "labels.csv").read_text().replace("a;b", "a|b"))
    ctm.plan_folder(own / "images", own / "labels.csv", own / "out", **TINY_PLAN)
    assert sum("separates classes" in record.getMessage() for record in caplog.records) == 1


def test_names_that_differ_by_case_alone_would_share_a_mask(own):
    Image.open(own / "images" / "p0.png").save(own / "images" / "P0.PNG", format="png")
    table = own / "labels.csv"
    table.write_text(table.read_text() + "\nP0.PNG,a")
    with pytest.raises(ValueError, match="P0.PNG and p0.png would both have the mask p0.png where the case of letters"):
        ctm.plan_folder(own / "images", table, own / "out", **TINY_PLAN)


@pytest.mark.parametrize("halves", [False, True])
def test_a_folder_per_class_needs_no_table(tmp_path, monkeypatch, caplog, halves):
    "Masks hold the class of the image's folder; folders train and val above them decide who trains."
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    for i in range(8):
        place = tmp_path / "images" / (("train" if i < 6 else "val") if halves else "") / "ab"[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(i, (24, 32))).save(place / f"p{i}.png")
    plan = ctm.plan_folder(tmp_path / "images", None, tmp_path / "out", background=False, **TINY_PLAN)
    assert plan.train.classes == ("a", "b") and (
        not halves or sorted(plan.val.names) == ["val/a/p6.png", "val/b/p7.png"]
    )
    assert caplog.text.count("no table, so each image is of the class that its folder is called by: a, ...") == 1
    masker, _ = ctm.train_folder(plan)
    ctm.mask_folder(plan, masker)
    masked = read_masked(plan.out)
    assert len(masked.facts) == 8
    for name, facts in masked.facts.items():
        assert facts["label"] == [Path(name).parent.name]
        assert set(np.unique(masked.mask(name))) <= {"ab".index(Path(name).parent.name), 255}
    (tmp_path / "images" / "lost.png").write_bytes(next((tmp_path / "images").rglob("p0.png")).read_bytes())
    with pytest.raises(
        BadFileError, match="'lost.png' has no label; give a table, masks=, or put images into a folder"
    ):
        ctm.plan_folder(tmp_path / "images", None, tmp_path / "out", **TINY_PLAN)


def test_batches_are_halved_where_memory_is_short(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    plan = ctm.plan_folder(*write_folder(tmp_path), **TINY_PLAN)
    usual = folder.fit

    def small(config, *rest, **options):
        if config.batch_size > 1:
            raise OutOfMemoryError("a batch: the device has too little memory; lower batch_size")
        return usual(config, *rest, **options)

    monkeypatch.setattr(folder, "fit", small)
    masker, _ = ctm.train_folder(plan)
    assert (plan.config.batch_size, masker.config.batch_size) == (4, 1)
    assert "too little memory for 4 images at once: 2 are taken from now on" in caplog.text
    assert ctm.load_masker(plan.out).config.batch_size == 1
    monkeypatch.setattr(folder, "fit", lambda *_, **__: (_ for _ in ()).throw(OutOfMemoryError("not even one")))
    with pytest.raises(OutOfMemoryError, match="not even one"):
        ctm.train_folder(plan)
