"A folder of results: a predictor for tomorrow, objects or scenes, exports, corrections, stage two."

import json
import shutil

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from PIL import Image

import ctm
from ctm.core import BadFileError, DatasetNotFoundError
from ctm.io.masks import read_mask
from ctm.io.record import read_masked
from ctm.project.export import KINDS
from ctm.segmentation.network import load_segmentation_config
from tests.tools import JSON, TINY_PLAN, TYPED, link_elsewhere, write_labelled

NETWORK = dict(depth=3, options=dict(decoder_channels=16), epochs=1, batch_size=4)
SQUARES = {"a": (0, 60, 200), "b": (200, 60, 0)}


def write_folder(place, labels="ab"):
    "Eight pictures in two sizes and the table of their labels."
    pictures = []
    for i in range(8):
        label = labels[i % len(labels)]
        pixels = np.random.default_rng(i).integers(0, 90, (24, 32 + 8 * (i % 2), 3), np.uint8)
        pixels[8:16, 8:24] += np.array(SQUARES.get(label, (90, 90, 90)), np.uint8) // 2
        pictures.append((f"p{i}.jpg", pixels, ";".join(label)))
    return write_labelled(place, pictures)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    "Folder of pictures, its plan, its predictor; results are in `out`."
    place = tmp_path_factory.mktemp("results")
    where = write_folder(place)
    link_elsewhere(place / "images" / "p7.jpg")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTM_RUNS", str(place / "runs"))
        plan = ctm.plan_folder(*where, how="pad", **TINY_PLAN)
        masker, _ = ctm.train_folder(plan)
        ctm.mask_folder(plan, masker)
        yield place, plan, masker


# Tomorrow


def test_a_new_picture_in_one_line(trained, tmp_path):
    "Without images, checkpoints and plan; the mask is that of the predictor that was trained."
    place, _, masker = trained
    for name in ("model.safetensors", "masker.json"):
        shutil.copy(place / "out" / name, tmp_path)
    picture = place / "images" / "p1.jpg"
    mask = ctm.load_masker(tmp_path)(picture)
    assert mask.shape == (24, 40) and mask.dtype == np.uint8
    wanted = masker(np.asarray(Image.open(picture)).transpose(2, 0, 1)[None])[0][0].numpy()
    assert (mask == wanted).all()
    one = ctm.load_masker(tmp_path)(picture, target=tmp_path / "m.png", classes=["a"])
    assert set(np.unique(one)) <= {0, 1} and (read_mask(tmp_path / "m.png") == one).all()
    with pytest.raises(ValueError, match="class='z' is unknown, choose one of 'a', 'b'"):
        ctm.load_masker(tmp_path)(picture, classes=["z"])
    assert not list(tmp_path.rglob("*.ckpt"))


def test_the_saved_predictor_is_a_masker(trained, tmp_path):
    place, plan, _ = trained
    saved = ctm.load_masker(place / "out")
    pixels = saved.mask_images(place / "images", tmp_path / "masks")
    assert len(pixels) == 8 and len(read_masked(tmp_path / "masks").facts) == 8
    assert len(ctm.mask_folder(plan, saved)) == 8
    with pytest.raises(ValueError, match="lies within the images"):
        saved.mask_images(place / "images", place / "images" / "masks")


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(classes=["a"]), "go together"),
        (dict(classes=["a", "a"]), "is there twice"),
        (dict(mean=[1, 2]), "mean and std"),
        (dict(std=[0, 1, 1]), "mean and std"),
        (dict(mean=[1, 2, "x"]), "could not convert"),
        (dict(background=7), "background is 7"),
        (dict(seen=[0, 3]), "seen is"),
        (dict(rgb=[0, 1, 9]), "rgb is"),
        (dict(model="0" * 16), "is not the model that masker.json was written for"),
    ],
)
def test_an_odd_predictor_is_named(trained, tmp_path, change, message):
    place = trained[0]
    shutil.copy(place / "out" / "model.safetensors", tmp_path)
    facts = json.loads((place / "out" / "masker.json").read_text()) | change
    (tmp_path / "masker.json").write_text(json.dumps(facts))
    with pytest.raises(BadFileError, match=message):
        ctm.load_masker(tmp_path)


@pytest.mark.parametrize(
    "change", [dict(depth=2), dict(img_size=[32, 32]), dict(threshold="x"), dict(data=dict(how="x")), dict(lr="1"),
               dict(data=dict(tile=-1)), dict(data=3), dict(stem="resnet18"), dict(scales=3), dict(nonsense=1)]
)  # fmt: skip
def test_an_odd_configuration_is_named(trained, tmp_path, change):
    place = trained[0]
    shutil.copy(place / "out" / "model.safetensors", tmp_path)
    facts = json.loads((place / "out" / "masker.json").read_text())
    (tmp_path / "masker.json").write_text(json.dumps(facts | dict(config=facts["config"] | change)))
    with pytest.raises(BadFileError, match="masker.json"):
        ctm.load_masker(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(JSON)
def test_a_predictor_of_any_json(trained, tmp_path, content):
    shutil.copy(trained[0] / "out" / "model.safetensors", tmp_path)
    (tmp_path / "masker.json").write_text(json.dumps(content))
    with pytest.raises(TYPED):
        ctm.load_masker(tmp_path)


def test_what_is_missing_is_named(trained, tmp_path):
    with pytest.raises(DatasetNotFoundError, match="train_folder writes it"):
        ctm.load_masker(tmp_path)
    shutil.copy(trained[0] / "out" / "masker.json", tmp_path)
    with pytest.raises(FileNotFoundError, match="model.safetensors"):
        ctm.load_masker(tmp_path)


# Objects or scenes


@pytest.mark.parametrize(
    "labels, options, background, words",
    [
        ("ab", {}, 0, "taken for objects.*background=False"),
        (["a", "b", "ab", "a"], {}, 0, "75% of the images have one class"),
        (["ab", "b", "ab"], {}, None, "scenes that their classes fill.*background=True"),
        ("ab", dict(background=False), None, ""),
        (["ab"], dict(background=True), 0, ""),
    ],
)
def test_the_table_says_objects_or_scenes(tmp_path, monkeypatch, caplog, labels, options, background, words):
    import re

    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    write_folder(tmp_path, labels)
    plan = ctm.plan_folder(tmp_path / "images", tmp_path / "labels.csv", tmp_path / "out", **TINY_PLAN, **options)
    assert plan.train.background == background
    said = [r.getMessage() for r in caplog.records if "have one class at most" in r.getMessage()]
    assert len(said) == bool(words) and (not words or re.search(words, said[0]))


# Exports


def test_every_form_is_written_and_no_other(trained):
    place = trained[0]
    written = {kind: ctm.export_masks(place / "out", kind) for kind in KINDS}
    assert all(path.exists() for path in written.values())
    with pytest.raises(ValueError, match="kind='yolo' is unknown, choose one of 'png', 'qgis'"):
        ctm.export_masks(place / "out", "yolo")
    with pytest.raises(ValueError, match="lies among the images or the masks"):
        ctm.export_masks(place / "out", "png", place / "images")
    with pytest.raises(ValueError, match="is a folder, coco is one file"):
        ctm.export_masks(place / "out", "coco", place)
    with pytest.raises(DatasetNotFoundError, match="has no masks yet"):
        ctm.export_masks(place, "coco")
    masked = read_masked(place / "out")
    for name in masked.facts:
        assert (read_mask(written["png"] / name.replace("jpg", "png")) == masked.mask(name)).all()
        with rasterio.open(written["qgis"] / name.replace("jpg", "tif")) as file:
            assert (file.read(1) == masked.mask(name)).all() and file.colormap(1)[0][:3] == (221, 221, 221)
    assert [t["data"]["image"].split("/")[-1] for t in json.loads((written["label_studio"] / "tasks.json").read_text())]
    first = masked.worst_first()[0]
    assert json.loads(written["coco"].read_text())["images"][0]["file_name"] == first


def test_a_mask_that_holds_something_else_is_named(trained, tmp_path):
    place = trained[0]
    shutil.copytree(place / "out" / "masks", tmp_path / "out" / "masks")
    shutil.copy(place / "out" / "masks.json", tmp_path / "out")
    Image.fromarray(np.full((24, 32), 9, np.uint8)).save(tmp_path / "out" / "masks" / "p0.png")
    with pytest.raises(BadFileError, match="p0.png: holds 9, need 0..2 or 255"):
        ctm.export_masks(tmp_path / "out", "coco")


def test_a_georeferenced_mask_keeps_its_place(tmp_path):
    from ctm.io.record import Masked, write_record

    (tmp_path / "images").mkdir()
    (tmp_path / "out" / "masks").mkdir(parents=True)
    profile = dict(driver="GTiff", height=6, width=8, count=1, dtype="uint8", crs="EPSG:32633")
    profile |= dict(transform=rasterio.Affine(10, 0, 500, 0, -10, 900))
    for folder in ("images", "out/masks"):
        with rasterio.open(tmp_path / folder / "a.tif", "w", **profile) as file:
            file.write(np.ones((1, 6, 8), np.uint8))
    facts = {"a.tif": dict(label=None, confidence=1, odd="")}
    write_record(Masked(tmp_path / "out", tmp_path / "images", ("x", "y"), ("#112233",) * 2, None, (0, 0, 0), facts))
    with rasterio.open(ctm.export_masks(tmp_path / "out", "qgis") / "a.tif") as file:
        assert file.crs.to_epsg() == 32633 and file.transform == profile["transform"]
    drawn = json.loads((ctm.export_masks(tmp_path / "out", "geojson") / "a.geojson").read_text())
    assert drawn["crs"]["properties"]["name"].endswith("EPSG::32633")
    assert [500, 900] in drawn["features"][0]["geometry"]["coordinates"][0]


# Corrections and stage two


def corrected(place, folder):
    "Folder with a mask of one picture, the left half of class b."
    folder.mkdir()
    mask = np.zeros((24, 40), np.uint8)
    mask[:, :20] = 2
    Image.fromarray(mask).save(folder / "p1.png")
    return mask


def test_stage_two_learns_corrected_masks_and_keeps_them(trained, tmp_path, caplog):
    place, _, masker = trained
    mask = corrected(place, tmp_path / "hand")
    options = dict(how="pad", corrected=tmp_path / "hand", **TINY_PLAN)
    plan = ctm.plan_folder(place / "images", place / "labels.csv", place / "out", **options)
    small = load_segmentation_config("demo", **NETWORK)
    ctm.mask_folder(plan, masker, refine_with_network=small)
    found = json.loads((place / "out" / "refined" / "summary.json").read_text())
    assert found["corrected"]["number"] == 1 and 0 <= found["miou"] <= 1
    assert "agree with those that it was trained on by a mIoU of" in caplog.text
    refined = read_masked(place / "out" / "refined")
    assert len(refined.facts) == 8 and (refined.mask("p1.jpg") == mask).all()
    assert refined.mask("p0.jpg").shape == (24, 32)
    assert ctm.export_masks(place / "out" / "refined", "coco").is_file()


def test_the_network_sees_the_corrected_mask(trained, tmp_path):
    from ctm.data.mask_values import Corrected
    from ctm.project.stage_two import Taught

    place, plan, _ = trained
    mask = corrected(place, tmp_path / "hand")
    masked = read_masked(place / "out")
    hand = Corrected(tmp_path / "hand", place / "images", plan.train.names + plan.val.names, plan.train)
    data = Taught(masked, hand, plan.train)
    assert (data.read(1)[1] == mask).all() and (data.read(0)[1] == masked.mask("p0.jpg")).all()
    assert data.files(1)[1] == tmp_path / "hand" / "p1.png"


@pytest.mark.parametrize(
    "content, message",
    [
        (np.zeros((9, 9), np.uint8), "p1.png: .*where its image has"),
        (np.full((24, 40), 7, np.uint8), "p1.png: 960 pixels hold 7, which is not a class"),
        (np.full((24, 40, 3), (1, 200, 3), np.uint8), "p1.png: 960 pixels hold #01C803"),
    ],
)
def test_corrected_masks_are_checked_before_any_work(trained, tmp_path, content, message):
    place = trained[0]
    (tmp_path / "hand").mkdir()
    Image.fromarray(content).save(tmp_path / "hand" / "p1.png")
    where = (place / "images", place / "labels.csv", tmp_path / "out")
    with pytest.raises(BadFileError, match=message):
        ctm.plan_folder(*where, corrected=tmp_path / "hand", **TINY_PLAN)


def test_no_corrected_mask_at_all_is_said(trained, tmp_path):
    place = trained[0]
    corrected(place, tmp_path / "hand")
    (tmp_path / "hand" / "p1.png").rename(tmp_path / "hand" / "other.png")
    with pytest.raises(DatasetNotFoundError, match="no mask has the name of an image"):
        ctm.plan_folder(
            place / "images", place / "labels.csv", tmp_path / "out", corrected=tmp_path / "hand", **TINY_PLAN
        )


def test_masks_come_back_from_cvat(trained, tmp_path):
    "The archive that is written, unpacked, is read as corrected masks."
    place, plan, _ = trained
    shutil.unpack_archive(ctm.export_masks(place / "out", "cvat"), tmp_path / "cvat")
    again = ctm.plan_folder(
        place / "images", place / "labels.csv", place / "out", corrected=tmp_path / "cvat", **TINY_PLAN
    )
    from ctm.project.overview import check_corrected

    masked = read_masked(place / "out")
    hand = check_corrected(again, sorted(masked.facts))
    assert len(hand.files) == 8
    for name in masked.facts:
        mask = masked.mask(name)
        assert (hand.mask(name) == np.where(mask == 255, 0, mask)).all()


def test_a_network_masks_with_the_given_classes(trained):
    from ctm.project.stage_two import NetworkMasker
    from ctm.segmentation.network import SegmentationNet

    _, plan, masker = trained
    torch.manual_seed(0)
    network = SegmentationNet(3, 3, "DeepLabV3Plus", "resnet18", None, 3, dict(decoder_channels=16)).eval()
    fields = {name: getattr(masker, name) for name in ("config", "mean", "std", "classes", "colors", "background")}
    second = NetworkMasker(network, **fields)
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 24, 40), np.uint8)
    masks, maps, prob = second(image, label=np.array([0, 1]))
    assert masks.shape == (1, 24, 40) and set(masks.unique().tolist()) <= {0, 2} and prob.shape == (1, 2)
    assert set(second(image, label=np.array([0, 0]))[0].unique().tolist()) == {0}


def test_stage_two_of_a_frozen_stem_classifies_its_cells(tmp_path, monkeypatch):
    "By default, and what is written is the network that it says."
    from ctm.segmentation.cells import CellNetwork
    from ctm.segmentation.network import load_network

    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    write_folder(tmp_path)
    stem = dict(stem="random:test_efficientnet", stem_layers="8,16", patch_size=16, size=32, background=True)
    plan = ctm.plan_folder(tmp_path / "images", tmp_path / "labels.csv", tmp_path / "out", **TINY_PLAN | stem)
    ctm.mask_folder(plan, ctm.train_folder(plan)[0], refine_with_network=True)
    network = load_network(tmp_path / "out" / "refined" / "network.safetensors")
    assert isinstance(network, CellNetwork) and network.options["layers"] == "8,16"
    assert len(read_masked(tmp_path / "out" / "refined").facts) == 8
