"Folders of one's own: aerial images of Dubai, thirteen bands, hostile names from the table to the masks."

import warnings

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from PIL import Image

from ctm.data.plot import describe_samples
from ctm.datasets import folder
from ctm.io.masks import read_mask
from ctm.model import ClassTokenViT
from ctm.predict.raster import mask_file
from tests.datasets.samples import SAMPLES, check_samples, real
from tests.tools import HOSTILE_NAMES, TINY_MODEL


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
    with pytest.raises(ValueError, match="pixels hold #9B9B9B, which is not a class"):
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


def test_hostile_folder_of_ones_own(tmp_path):
    "Classes and files with such names, from the table to masks of every image."
    from ctm.predict.masker import Masker
    from ctm.train.config import load_config

    images, files = tmp_path / "im\nages $x^", []
    images.mkdir()
    for i, name in enumerate(HOSTILE_NAMES[:6] + ["_hidden", "名前", "\udcff"]):
        stem = name.replace("/", "_").replace("\0", "_")[:120]
        files.append(f"{stem}.{('png', 'tif')[i % 2]}")
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8)
        Image.fromarray(pixels).save(images / "plain.png")
        if i % 2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with rasterio.open(
                    images / "plain.tif", "w", driver="GTiff", width=16, height=16, count=1, dtype="uint8"
                ) as out:
                    out.write(pixels[None])
            (images / "plain.png").unlink()
            (images / "plain.tif").rename(images / files[-1])
        else:
            (images / "plain.png").rename(images / files[-1])
    classes = tuple(dict.fromkeys(name.replace(";", "") or "empty" for name in HOSTILE_NAMES))
    rows = pd.DataFrame(dict(file=files[:-1], label=[classes[i] for i in range(len(files) - 1)]))
    rows.to_csv(tmp_path / "labels.csv", index=False)
    data = folder.Folder(images, tmp_path / "labels.csv", classes=[c.strip() for c in classes])
    for index in range(len(data)):
        assert data[index]["image"].shape == (1, 16, 16)
    model = ClassTokenViT(len(data.classes), in_chans=1, **TINY_MODEL).eval()
    config = load_config("folder", in_chans=1, img_size=(16, 16), patch_size=8)
    masker = Masker(model, config, data.mean, data.std, data.classes, data.colors)
    for i, name in enumerate(files[:-1]):
        counts = mask_file(masker, images / name, tmp_path / "out" / name, maps=tmp_path / f"maps{i}.tif")
        assert sum(counts.values()) == 256 and read_mask(tmp_path / "out" / name).shape == (16, 16)
    samples = [data[i] for i in range(3)]
    from ctm.data.plot import class_table

    warnings.simplefilter("ignore")
    describe_samples(samples, data, class_table(samples, data), 3).savefig(tmp_path / "a.png")
    plt.close("all")


def table(images, classes, shown, alone=0):
    "Labels of images that show so many classes each, but for those with one."
    labels = np.zeros((images, classes))
    labels[:, :shown] = 1
    labels[:alone, 1:] = 0
    return labels


@pytest.mark.parametrize(
    ("labels", "objects"),
    [
        (table(10, 3, 2, alone=5), True),  # half with one class at most
        (table(10, 3, 2, alone=4), False),
        (table(10, 16, 2), True),  # an eighth of the classes
        (table(10, 15, 2), False),
        (table(10, 80, 4), True),  # COCO has 2.9 of 80 on average
        (table(10, 150, 5), False),  # ADE20K has more than four, and things fill the image
        (table(10, 8, 2), False),  # land cover
    ],
)
def test_a_table_of_objects(labels, objects):
    assert folder.shows_objects(labels, "labels.csv") == objects


@pytest.mark.parametrize("name", ["file", "label", "encoding", "group"])
def test_a_column_is_named_by_text(name, tmp_path):
    with pytest.raises(ValueError, match=f"{name}=1 is not text: name the column as {name}='1'"):
        folder.load(tmp_path, "train", **{name: 1})


def test_folders_that_are_classes_are_no_groups(tmp_path):
    "Each class would be on one side alone."
    for number, name in enumerate(["cat"] * 4 + ["dog"] * 4):
        (tmp_path / "pets" / name).mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((9, 9, 3), 20 * number, np.uint8)).save(tmp_path / "pets" / name / f"{number}.png")
    with pytest.raises(ValueError, match="here each folder holds a class; leave group out"):
        folder.load(tmp_path, "train", images="pets", labels=None, group="folder")
    assert len(folder.load(tmp_path, "train", images="pets", labels=None)) > 0
