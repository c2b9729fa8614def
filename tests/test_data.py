"Real files of the five data sets, read by their readers; and large rasters, read in parts."

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter

from ctm.data.transforms import Resized, Tiles
from ctm.datasets import ade20k, coco2014, dfc2020, endotect, folder, kvasir_seg, voc2012
from ctm.io.images import image_size
from ctm.predict.masker import Masker
from ctm.predict.windows import block_masks, grid_of
from ctm.synthetic.sets import make_synthetic, regions
from ctm.train.config import load_config
from ctm.train.data import load_dataset

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"
real = pytest.mark.skipif(not SAMPLES.exists(), reason="no real samples beside the project")


def lines(path):
    return [line for line in (SAMPLES / path).read_text().splitlines() if line.strip()]


def check_samples(dataset, count):
    "Every sample is whole: sizes agree, pixels are numbers, mask values are classes."
    assert len(dataset) == count
    for index in range(count):
        sample = dataset[index]
        assert sample["image"].shape[1:] == sample["mask"].shape == dataset.size(index)
        assert torch.isfinite(sample["image"]).all() and sample["image"].dtype == torch.float32
        assert set(sample["mask"].unique().tolist()) <= {*range(len(dataset.mask_classes)), 255}
        assert sample["label"].shape == (len(dataset.classes),) and set(sample["label"].tolist()) <= {0, 1}


# PASCAL VOC


@real
@pytest.mark.parametrize("split, count", [("sample_train", 80), ("sample_val", 45), ("sample_train_aug_only", 31)])
def test_voc(split, count):
    "156 real pairs, with official masks and with those that SBD adds."
    check_samples(voc2012.Voc2012(SAMPLES / "voc2012", split, labels="cls_labels"), count)
    masks = voc2012.Voc2012(SAMPLES / "voc2012", split, labels="masks")
    folders = {file.parent.name for _, file, _ in masks.paths}
    assert folders == ({"SegmentationClassAug"} if split.endswith("only") else {"SegmentationClass"})
    void = any((masks.read(i)[1] == 255).any() for i in range(count))
    assert void == (not split.endswith("only")), "only the official masks have a void"


@real
def test_voc_labels_from_masks_and_boxes():
    "cls_labels were made from boxes; where they differ, the mask has lost or gained an object."
    differ = {}
    for split in ("sample_train", "sample_val", "sample_train_aug_only"):
        by_mask, by_box = (voc2012.Voc2012(SAMPLES / "voc2012", split, labels=k) for k in ("masks", "cls_labels"))
        for a, b, name in zip(map(by_mask.__getitem__, range(len(by_mask))), by_box, by_mask.names, strict=True):
            if (a["label"] != b["label"]).any():
                differ[name] = (a["label"] - b["label"]).nonzero().flatten().tolist()
    assert len(differ) == 2, differ  # of 156; over all 12,031 ids it is 818
    assert all(name in voc_list("sample_train_aug_only") for name in differ), "official masks agree with their boxes"


def voc_list(name):
    return lines(f"voc2012/VOCdevkit/VOC2012/ImageSets/Segmentation/{name}.txt")


@real
def test_voc_lists():
    labels = voc2012.read_cls_labels(SAMPLES / "voc2012" / "wsss_lists" / "cls_labels.npy")
    listed = {k: voc_list(k) for k in ("train", "val")} | {"train_aug": lines("voc2012/wsss_lists/train_aug_id.txt")}
    assert {name: len(ids) for name, ids in listed.items()} == voc2012.OFFICIAL
    assert len(labels) == 12_031 == len({*listed["train_aug"], *listed["val"]})
    assert not set(listed["train_aug"]) & set(listed["val"])
    indices = json.loads((SAMPLES / "voc2012" / "wsss_lists" / "cls_labels_indices.json").read_text())
    assert all(labels[name].nonzero()[0].tolist() == sorted(found) for name, found in indices.items())


# MS COCO


@real
@pytest.mark.parametrize("split, count", [("train", 53), ("val", 27)])
def test_coco(split, count, capsys):
    dataset = coco2014.Coco2014(SAMPLES / "coco" / "coco2014_view", split)
    check_samples(dataset, count)
    assert not capsys.readouterr().out, "pycocotools must not chatter"
    truth = COCO(str(dataset.file))
    for index, image in enumerate(dataset.ids):
        items = truth.loadAnns(truth.getAnnIds(imgIds=image))
        shapes = [truth.annToMask(item).astype(bool) for item in items]
        for item, shape in zip(items, shapes, strict=True):
            assert (coco2014.rasterise(item, dataset.size(index), "") == shape).all()
        mask = dataset.read(index)[1]
        assert ((mask > 0) == np.any(shapes, 0)).all()
        order = sorted(range(len(items)), key=lambda i: (items[i]["iscrowd"], shapes[i].sum()))  # smallest first
        for rank, i in enumerate(order):
            above = np.any([shapes[j] for j in order[:rank]], 0) if rank else np.zeros_like(shapes[i])
            own = mask[shapes[i] & ~above]
            same = {coco2014.CATEGORY_IDS.index(items[i]["category_id"]) + 1}
            ties = {
                coco2014.CATEGORY_IDS.index(items[j]["category_id"]) + 1
                for j in order
                if (items[j]["iscrowd"], shapes[j].sum()) == (items[i]["iscrowd"], shapes[i].sum())
            }
            assert set(own.tolist()) <= same | ties
        label = {coco2014.CATEGORY_IDS.index(item["category_id"]) for item in items}
        assert set(dataset.read_label(index).nonzero()[0].tolist()) == label


@real
def test_coco_lists():
    found = {s: len(lines(f"coco/wsss_lists/mctformer_{s}_id.txt")) for s in ("train", "val") if (
        SAMPLES / f"coco/wsss_lists/mctformer_{s}_id.txt").exists()}  # fmt: skip
    assert found.items() <= coco2014.OFFICIAL.items()
    assert len(lines("coco/wsss_lists/toco_train.txt")) == 82_081
    categories = json.loads((SAMPLES / "coco/coco2014_view/annotations/instances_val2014.json").read_text())[
        "categories"
    ]
    by_id = sorted((c["id"], c["name"]) for c in categories)
    assert by_id == list(zip(coco2014.CATEGORY_IDS, coco2014.CLASSES, strict=True))


# ADE20K


@real
@pytest.mark.parametrize("split, count", [("train", 1), ("val", 3)])
@pytest.mark.parametrize("other", ["ignore", "class"])
def test_ade20k(split, count, other):
    dataset = ade20k.Ade20k(SAMPLES / "ade20k", split, other)
    check_samples(dataset, count)
    wide = Resized(dataset, (200, 320), canvas=(208, 320))[0]
    assert wide["image"].shape == (3, 208, 320) and (wide["mask"][:4] == 255).all()


@real
def test_ade20k_lists():
    found = {s: len(lines(f"ade20k/lists/mseg_ade20k150_{s}.txt")) for s in ("train", "val")}
    assert found == ade20k.OFFICIAL
    names = [
        line.split("\t")[-1].split(",")[0].strip() for line in lines("ade20k/ADEChallengeData2016/objectInfo150.txt")
    ]
    assert tuple(names[1:]) == ade20k.NAMES


# DFC2020


@pytest.fixture
def patches(tmp_path):
    "Real Sentinel patches with the land cover left to be water, in the contest's layout."
    for patch, s2 in enumerate(sorted((SAMPLES / "dfc2020" / "sen12ms_cr").glob("*/s2_*/*.tif"))):
        s1 = Path(str(s2).replace("/s2_", "/s1_").replace("_s2_", "_s1_"))
        for sensor, file in dict(s2=s2, s1=s1).items():
            place = tmp_path / "ROIs0000_test" / f"{sensor}_0" / f"ROIs0000_test_{sensor}_0_p{patch}.tif"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
        label = tmp_path / "ROIs0000_test" / "dfc_0" / f"ROIs0000_test_dfc_0_p{patch}.tif"
        label.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(label, "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8") as out:
            out.write(np.full((1, 256, 256), 10, np.uint8))
    return tmp_path


@real
@pytest.mark.parametrize("sensors, bands", [("s1+s2", 15), ("s2", 13), ("s1", 2)])
def test_dfc2020(patches, sensors, bands):
    dataset = dfc2020.Dfc2020(patches, sensors=sensors)
    check_samples(dataset, 2)
    for sample in dataset:
        assert len(sample["image"]) == bands
        assert sample["image"].abs().mean() < 5, "far from the published band statistics"
        assert sample["label"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


@real
@pytest.mark.parametrize("name, count", [("test", 5128), ("validation", 986), ("validation_balanced", 2618)])
def test_dfc2020_observations(name, count):
    parts = f"{name.replace('_', '_observations_')}_classes" if "_" in name else f"{name}_observations"
    file = SAMPLES / "dfc2020" / "lists" / f"{parts}.csv"
    rows = file.read_text().split()
    rows = rows[rows[0].startswith("Season,Scene") :]
    assert len(rows) == count
    keys = sorted({("0", int(row.split(",")[2])) for row in rows})
    chosen = dfc2020._observed(file, keys, {}, "raise")
    assert [patch for _, patch in chosen] == [int(row.split(",")[2]) for row in rows]
    assert name.endswith("balanced") or len(keys) == count == dfc2020.OFFICIAL[{"test": "train"}.get(name, "val")]


# EndoTect and Kvasir-SEG


@real
def test_endotect(caplog):
    found = {s: endotect.EndoTect(SAMPLES / "endotect", s, bad="skip") for s in ("train", "val")}
    assert sum(map(len, found.values())) == 5
    assert "skipped 8536 of 8540 images" in caplog.text
    for dataset in found.values():
        check_samples(dataset, len(dataset))
        assert {dataset.classes[i] for s in dataset for i in s["label"].nonzero().flatten()} == {"polyps"}
        assert all(set(s["mask"].unique().tolist()) == {0, 5} for s in dataset)
    with pytest.raises(ValueError, match="missing, though .*image-labels.csv names it"):
        endotect.EndoTect(SAMPLES / "endotect")


@real
def test_endotect_tables():
    rows = endotect.read_table(
        SAMPLES / "endotect" / "labeled-images" / "image-labels.csv", ",", ("Video file", "Organ", "Finding")
    )
    lower = {row["Finding"] for row in rows if row["Organ"] == "Lower GI"}
    assert lower == set(endotect.LOWER) and {row["Finding"] for row in rows} == set(endotect.FINDINGS["all"])
    kind = {row["Video file"]: row["Finding"] for row in rows}
    for folds in (2, 5):
        file = SAMPLES / "endotect" / "official_splits" / f"{folds}_fold_split.csv"
        split = endotect.read_table(file, ";", ("file-name", "class-name", "split-index"))
        spelled = {Path(r["file-name"]).stem: endotect.SPELLINGS.get(r["class-name"], r["class-name"]) for r in split}
        assert spelled == kind, "both spellings name the same findings"
        inside = sum(row["split-index"] == "0" for row in split)
        assert folds == 2 or dict(train=len(rows) - inside, val=inside) == endotect.OFFICIAL


@real
def test_kvasir_seg(tmp_path):
    root = SAMPLES / "endotect" / "Kvasir-SEG_effisegnet352"
    train, val = kvasir_seg.KvasirSeg(root, "train"), kvasir_seg.KvasirSeg(root, "val")
    assert (len(train), len(val)) == (800, 100)
    check_samples(val, 100)
    tiles = Tiles(Resized(val, (192, 192)), 64)
    labels = torch.stack([tiles[i]["label"] for i in range(90)])
    assert len(tiles) == 900 and 0.2 < labels[:, 1].mean() < 0.6
    assert load_dataset(load_config("kvasir_seg"), "val", root).embedded is False
    listed = {s: len(lines(f"endotect/kvasir_seg_split/{s}.txt")) for s in ("train", "val")}
    assert listed == kvasir_seg.OFFICIAL
    for part in ("images", "masks"):  # the five originals, in the official layout
        (tmp_path / part).symlink_to(SAMPLES / "endotect" / "Kvasir-SEG" / part)
    (tmp_path / "train.txt").write_text("\n".join(p.stem for p in (tmp_path / "images").glob("*.jpg")))
    check_samples(kvasir_seg.KvasirSeg(tmp_path, "train"), 5)


# One's own


@real
def test_dubai_needs_a_table_and_a_mapping(tmp_path):
    "Aerial images with masks in colours, of many sizes, in their publisher's layout."
    base = SAMPLES / "mbrsc_dubai" / "Semantic segmentation dataset"
    rows = ["file,mask,split"]
    for image in sorted(base.glob("Tile */images/*.jpg")):
        tile, name = image.parts[-3], image.stem
        rows.append(f"{tile}/images/{name}.jpg,{tile}/masks/{name}.png,{'val' if tile == 'Tile 5' else 'train'}")
    (tmp_path / "dubai.csv").write_text("\n".join(rows))
    values = dict(building="#3C1098", land="#8429F6", road="#6EC1E4", vegetation="#FEDD3A", water="#E2A929")
    options = dict(images=base.name, labels=str(tmp_path / "dubai.csv"), masks=base.name, tile=128, resize=(64, 64))
    options |= dict(mask_values=values | dict(ignore=["#9B9B9B", "#000000"]))
    train, val = (folder.load(base.parent, split, **options) for split in ("train", "val"))
    assert len(rows) == 64 and (len(train), len(val)) == (3375, 576)
    check_samples(val, 576)
    labels = torch.stack([val[i]["label"] for i in range(0, 576, 4)])
    assert (labels.sum(0) > 0).all() and 1 < labels.sum(1).mean() < 3
    options["mask_values"] = values
    with pytest.raises(ValueError, match="pixels hold #9B9B9B, which is no class"):
        [folder.load(base.parent, "train", **options)[i] for i in range(len(train))]


@real
def test_thirteen_bands_of_floats(tmp_path):
    base = SAMPLES / "sentinel2_lulc_eolearn" / "derived_geotiff"
    scenes = sorted(p.name for p in base.glob("*.tif") if p.name != "lulc.tif")
    (tmp_path / "t.csv").write_text("file,mask\n" + "".join(f"{name},lulc.tif\n" for name in scenes))
    values = dict(ignore=0, cultivated=1, forest=2, grassland=3, shrubland=4, artificial=8)
    options = dict(images=".", labels=str(tmp_path / "t.csv"), masks=".", mask_values=values, tile=32, resize=None)
    train = folder.load(base, "train", **options)
    assert train[0]["image"].shape == (13, 32, 32)
    check_samples(train, len(train))


# Large rasters

MASK = """
import resource, sys, time
import numpy as np, torch
from ctm.train.config import build_model, load_config
from ctm.predict.raster import mask_file
from ctm.predict.windows import Masker
torch.manual_seed(0)
config = load_config("folder", in_chans=3, depth=1, embed_dim=16, num_heads=2, batch_size=64)
model = build_model(config, 3).eval()
masker = Masker(model, config, np.full(3, 128.0), np.full(3, 60.0), ("a", "b", "c"), ("#111111",) * 3)
with torch.no_grad():
    masker.model.head.bias += 3
mask_file(masker, sys.argv[1], sys.argv[2], window=64, overlap=0, block=512)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def write_raster(path, side):
    "Coloured noise in squares, written block by block."
    profile = dict(driver="GTiff", count=3, dtype="uint8", height=side, width=side, tiled=True, crs="EPSG:32632")
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", blockxsize=256, blockysize=256, **profile) as out:
        for _, window in out.block_windows(1):
            out.write(rng.integers(0, 256, (3, window.height, window.width), np.uint8), window=window)


def test_memory_does_not_grow_with_the_raster(tmp_path):
    peaks, large = {}, int(os.environ.get("CTM_RASTER_SIDE", 4096))  # 20000: five minutes
    for side in (1024, large):
        write_raster(tmp_path / f"{side}.tif", side)
        done = subprocess.run(
            [sys.executable, "-c", MASK, tmp_path / f"{side}.tif", tmp_path / f"{side}-mask.tif"],
            capture_output=True, text=True, check=True, cwd=ROOT,
        )  # fmt: skip
        peaks[side] = int(done.stdout.split()[-1]) / 1e6
        with rasterio.open(tmp_path / f"{side}-mask.tif") as file:
            assert file.shape == (side, side) and file.crs.to_epsg() == 32632
    print(peaks)
    assert peaks[large] < 1.1 * peaks[1024], peaks  # sixteen times the pixels, or more


class Seeing(torch.nn.Module):
    "In place of a trained model: its class maps are the image's own classes, coarse as patches are."

    def __init__(self, classes=6, patch=8):
        super().__init__()
        self.classes, self.patch, self.anchor = classes, patch, torch.nn.Parameter(torch.zeros(1))

    def attention_maps(self, image, layers, gated, use_evidence):
        onehot = torch.stack([(image[:, 0].round() == c).float() for c in range(self.classes)], 1)
        maps = torch.nn.functional.avg_pool2d(onehot, self.patch)
        return 20 * (maps.mean((2, 3)) - 0.02), maps + 1e-3 * torch.rand_like(maps)


def test_tiled_and_whole_agree_away_from_borders():
    "Four quarters masked apart, in blocks or in one piece: windows leave no seams."
    torch.manual_seed(0)
    scene = regions(np.random.default_rng(0), np.arange(6), 512, 14)
    config = load_config("folder", in_chans=1, img_size=(64, 64))
    masker = Masker(Seeing(), config, np.zeros(1), np.ones(1), tuple("abcdef"), ("#000000",) * 6)

    def masked(part, block=None):
        windows = grid_of(part.shape, 64)
        read = lambda y, x, h, w: (part[None, y : y + h, x : x + w], None)  # noqa: E731
        return block_masks(masker, read, windows, block or (0, 0, *part.shape))[0]

    whole, tiled = masked(scene), np.zeros_like(scene)
    for y in (0, 256):
        for x in (0, 256):
            tiled[y : y + 256, x : x + 256] = masked(scene[y : y + 256, x : x + 256])
    edges = maximum_filter(scene, 3) != minimum_filter(scene, 3)
    inside = ~binary_dilation(edges, iterations=8)  # a patch of the model from any border
    assert inside.mean() > 0.2
    agree = (whole == tiled)[inside].mean()
    print(f"tiled and whole agree on {agree:.4f} of the pixels a patch away from borders")
    assert agree >= 0.99 and (whole == scene)[inside].mean() >= 0.99


def test_cache_memory_does_not_grow_with_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CTM_DATA", str(tmp_path))
    root = make_synthetic("dfc2020", tmp_path, n=64)
    before = set(tmp_path.rglob("*"))
    dataset = load_dataset(load_config("dfc2020"), "train", root)
    new = set(tmp_path.rglob("*")) - before
    assert new and all(path.is_relative_to(tmp_path / "cache") for path in new), "nothing is written beside the data"
    assert not any(array.flags.owndata for array in (dataset.images, dataset.masks)), "arrays are on disk"
    assert image_size(dataset.files(0)[0]) == (64, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(len(dataset)):
        dataset[index]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes
