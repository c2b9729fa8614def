"Lists, tables and links name files within their folder, whatever they say."

import json

import pandas as pd
import pytest
from PIL import Image

from ctm.core import BadFileError
from ctm.datasets import coco2014, endotect, folder, kvasir_seg, voc2012
from ctm.synthetic.sets import make_synthetic

OUT = ["../../secret", "/etc/passwd", "..\\..\\secret", "a/../../../secret", "x" * 300, "a\0b"]


@pytest.mark.parametrize("name", OUT)
def test_lists_stay_in_their_folder(name, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "secret.jpg")
    voc = make_synthetic("voc2012", tmp_path, 4)
    base = voc / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation" / "mine.txt").write_text(name)
    flat = tmp_path / "flat"
    (flat / "images").mkdir(parents=True)
    (flat / "train.txt").write_text(name)
    for read in (lambda: voc2012.Voc2012(voc, "mine", labels="none"), lambda: kvasir_seg.KvasirSeg(flat)):
        with pytest.raises(BadFileError, match="leads out of|longer than a file's name|missing, though"):
            read()
    endo = make_synthetic("endotect", tmp_path, 6)
    table = endo / "labeled-images" / "image-labels.csv"
    frame = pd.read_csv(table)
    frame["Classification"] = name.replace("\0", "\1")
    frame.to_csv(table, index=False)
    with pytest.raises(BadFileError, match="leads out of|longer than a file's name|missing, though"):
        endotect.EndoTect(endo)


@pytest.mark.parametrize("name", OUT)
def test_tables_and_json_stay_in_their_folder(name, tmp_path):
    root = make_synthetic("folder", tmp_path, 6)
    (root / "t.csv").write_text(f'file,label\n"{name}",a\n')
    with pytest.raises(BadFileError, match="is not in the folder of images|line"):
        folder.load(root, "train", labels="t.csv")
    image = folder.find_images(root / "images")[0]
    (root / "t.csv").write_text(f'file,mask\n{image},"{name}"\n')
    with pytest.raises(BadFileError, match="leads out of|longer than a file's name|missing, though|contains NUL"):
        folder.load(root, "train", labels="t.csv", masks="masks", mask_values=dict(a=0))
    coco = make_synthetic("coco2014", tmp_path, 4)
    file = coco / "annotations" / "instances_val2014.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    try:
        data = coco2014.Coco2014(coco, "val")
    except BadFileError:
        return
    assert all(path.resolve().is_relative_to(coco.resolve()) for path in data.paths)


def test_a_link_in_a_folder_leads_nowhere(tmp_path):
    root = make_synthetic("folder", tmp_path, 6)
    (root / "masks" / "link.tif").symlink_to(tmp_path / "secret.tif")
    image = folder.find_images(root / "images")[0]
    (root / "t.csv").write_text(f"file,mask\n{image},link.tif\n")
    with pytest.raises(BadFileError, match="link.tif: leads out of"):
        folder.load(root, "train", labels="t.csv", masks="masks", mask_values=dict(a=0))
