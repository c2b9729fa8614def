"""The README's pictures, of photographs that their licences let us show: labels, masks and truth, and the explorer.

The photographs are of COCO 2014; its annotations say the licence of each (4: CC BY 2.0, 7: no known copyright
restrictions), name their source on Flickr, and draw the truth. The masks are made by a model that `make real` has
trained on VOC 2012, which has none of these photographs; it is told the labels that are written below each.

    python data_prep/photographs.py <folder of COCO 2014> <model.safetensors> figures/photographs.jpg
    python data_prep/photographs.py ... figures/photographs.jpg --explorer figures/explorer.jpg
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from pycocotools import mask as coco_mask

from ctm.checkpoint import load_model
from ctm.data.colors import color_bytes
from ctm.data.dataset import PHOTO_MEAN, PHOTO_STD
from ctm.datasets.voc2012 import CLASSES, COLORS
from ctm.explorer.panels import still
from ctm.explorer.state import Explorer
from ctm.io.images import read_image
from ctm.predict.masker import Masker
from ctm.train.config import load_config

SHOWN = {  # photograph -> what is in it, in the words of VOC
    "COCO_val2014_000000204805": ("boat", "person"),
    "COCO_train2014_000000491525": ("dog", "person", "sofa"),
    "COCO_train2014_000000360452": ("person",),
    "COCO_train2014_000000196610": ("bicycle",),
}
EXPLORED = "COCO_train2014_000000491525"
PALETTE = ("#000000", *COLORS)  # by the value of a mask, background first
COCO_NAMES = {"couch": "sofa"}  # COCO's name -> VOC's, where they differ here
LICENCES = {4: "CC BY 2.0", 7: "no known copyright restrictions"}


def find_record(
    root: Path,  # folder of COCO 2014
    name: str,  # name of a photograph without its suffix
) -> tuple[dict, dict, list[dict]]:  # image, names of the categories, annotations
    "What COCO says of a photograph; `ValueError` where its licence does not let us show it."
    split = name.split("_")[1]
    table = json.loads((root / "annotations" / f"instances_{split}.json").read_text())
    (image,) = (one for one in table["images"] if one["file_name"] == f"{name}.jpg")
    if image["license"] not in LICENCES:
        raise ValueError(f"{name}: licence {image['license']} does not let us show it; choose another photograph")
    names = {one["id"]: one["name"] for one in table["categories"]}
    return image, names, [one for one in table["annotations"] if one["image_id"] == image["id"]]


def truth_of(
    image: dict,  # COCO's record of a photograph
    names: dict[int, str],  # names of the categories
    annotations: list[dict],  # outlines
    labels: tuple[str, ...],  # classes to be drawn
) -> np.ndarray:  # (H, W) values of VOC's masks
    "True mask of a photograph."
    size = image["height"], image["width"]
    mask = np.zeros(size, np.uint8)
    for one in sorted(annotations, key=lambda one: -one["area"]):
        name = COCO_NAMES.get(names[one["category_id"]], names[one["category_id"]])
        if name not in labels:
            continue
        runs = coco_mask.frPyObjects(one["segmentation"], *size)
        runs = coco_mask.merge(runs) if isinstance(runs, list) else runs
        mask[coco_mask.decode(runs).astype(bool)] = 1 + CLASSES.index(name)
    return mask


def painted(
    photograph: np.ndarray,  # (3, H, W) uint8
    mask: np.ndarray,  # (H, W) values
) -> np.ndarray:  # (H, W, 3) uint8
    "Photograph under its mask."
    grey = photograph.mean(0)[..., None].repeat(3, 2)
    mixed = np.where(mask[..., None] > 0, 0.45 * grey + 0.55 * color_bytes(PALETTE)[mask], grey)
    return mixed.astype(np.uint8)


def photograph_of(
    root: Path,  # folder of COCO 2014
    name: str,  # name of a photograph without its suffix
) -> Path:  # its file
    "File of a photograph."
    return root / name.split("_")[1] / f"{name}.jpg"


def draw_strip(
    root: Path,  # folder of COCO 2014
    masker: Masker,  # trained on VOC 2012
    out: Path,  # picture to be written
) -> None:
    "Strip of photographs, a column each: itself, its mask, its truth."
    figure, axes = plt.subplots(3, len(SHOWN), figsize=(2.4 * len(SHOWN), 5.4), layout="constrained")
    for column, (name, labels) in zip(axes.T, SHOWN.items(), strict=True):
        image, names, annotations = find_record(root, name)
        photograph, _ = read_image(photograph_of(root, name), rgb=True)
        known = np.isin(CLASSES, labels)
        mask = masker(photograph[None], label=known, whole=True)[0][0].numpy()
        truth = truth_of(image, names, annotations, labels)
        shown = (photograph.transpose(1, 2, 0), painted(photograph, mask), painted(photograph, truth))
        for axis, picture in zip(column, shown, strict=True):
            axis.imshow(picture, aspect="auto")
            axis.set(xticks=[], yticks=[])
        column[0].set_title(", ".join(labels), fontsize=9)
        print(f"{name}: {image['flickr_url']}, {LICENCES[image['license']]}")
    for axis, title in zip(axes[:, 0], ("photograph", "mask, from labels", "truth"), strict=True):
        axis.set_ylabel(title, fontsize=9)
    figure.savefig(out, dpi=110)


def main() -> None:
    "The strip, and a still picture of the explorer if it is asked for."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("coco", type=Path, help="folder with annotations/ and the photographs")
    parser.add_argument("model", type=Path, help="model.safetensors of a run of photo+sharp on VOC 2012")
    parser.add_argument("out", type=Path, help="picture to be written")
    parser.add_argument("--explorer", type=Path, help="picture of the explorer to be written, too")
    given = parser.parse_args()
    config = load_config("voc2012", "photo+sharp")
    masker = Masker(load_model(given.model), config, PHOTO_MEAN, PHOTO_STD, CLASSES, PALETTE, 0)
    draw_strip(given.coco, masker, given.out)
    if given.explorer:
        explorer = Explorer(masker, [photograph_of(given.coco, EXPLORED)])
        still(explorer).savefig(given.explorer, dpi=110)


if __name__ == "__main__":
    main()
