"""Folders of one's own images beside what is simplest: `python -m benchmarks.folders --samples FOLDER`.

Photographs of a few classes, endoscopies, aerial images and street scenes are fitted from their labels, with the
defaults of `ctm mask`. Masks of images that no fit has seen are scored, by given labels and by predicted ones, beside a
box in the middle, the best constant class, class activation maps of the same network at their best, and full
supervision of its cells: by the true masks of the training images, or, for VOC 2012, whose training photographs here
have none, by those of as many photographs of `tune`. A run that is in figures/folders.json already is not made again.
FOLDER holds `voc2012_real`, `endotect`, `mbrsc_dubai` and `coco`.
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

import ctm
from benchmarks.timing import store_missing
from benchmarks.verdict import (
    ANIMALS,
    DUBAI,
    STREET,
    TEN,
    Sample,
    Trial,
    coco_samples,
    dubai_samples,
    kvasir_samples,
    voc_samples,
)
from ctm.core import IGNORE, versions
from ctm.datasets.voc2012 import CLASSES
from ctm.experiments.run import run
from ctm.project.overview import Plan
from ctm.segmentation.network import load_segmentation_config
from ctm.segmentation.run import run_segmentation
from ctm.train.config import Config, load_config

SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Folder:
    "Images to be fitted, and others that are scored."

    source: str  # "voc", "kvasir", "dubai" or "coco"
    images: int  # number of training images
    scored: int  # number of images that are scored
    classes: tuple[str, ...]  # in the order of the masks' values

    @property
    def name(self) -> str:
        "Name that tells folders apart."
        return f"{self.source}, {self.images} images, {len(self.classes)} classes"


FOLDERS = [
    Folder("voc", 24, 100, ANIMALS), Folder("voc", 112, 100, ANIMALS), Folder("kvasir", 112, 60, ("polyp",)),
    Folder("dubai", 112, 38, tuple(DUBAI)), Folder("coco", 33, 20, STREET), Folder("voc", 500, 150, TEN),
    Folder("voc", 500, 150, CLASSES),
]  # fmt: skip
ROWS = ("box", "constant", "cam", "cam predicted", "sharp", "sharp predicted", "full")


def _others(samples: Path, folder: Folder, random: np.random.Generator) -> list[tuple[str, Sample]]:
    "Split and sample of each image: aerial ones are scored on two places that no fit has seen."
    make = dict(kvasir=kvasir_samples, dubai=dubai_samples, coco=coco_samples)[folder.source]
    count = 80 * folder.images if folder.source == "coco" else 2 * (folder.images + folder.scored)
    found = list(make(samples, Trial(folder.source, count, folder.classes), random))
    found = [found[i] for i in random.permutation(len(found))]
    if folder.source == "dubai":
        scored = [one for one in found if one[0].startswith(("Tile5", "Tile8"))]
        fitted = [one for one in found if not one[0].startswith(("Tile5", "Tile8"))]
    else:
        scored, fitted = found[: folder.scored], found[folder.scored :]
    return [("val", one) for one in scored[: folder.scored]] + [("train", one) for one in fitted[: folder.images]]


def write_folder(
    place: Path,  # folder to be filled with images/, masks/ and labels.csv
    folder: Folder,  # its classes
    samples: Iterable[tuple[str, Sample]],  # split, and name, picture, mask, classes of each image
) -> Plan:  # with the defaults of `ctm mask`
    "Plan of a fit on images of a split, validated on those of the other."
    for kind in ("images", "masks"):
        (place / kind).mkdir(parents=True)
    rows = []
    for split, (name, picture, mask, shown) in samples:
        picture.save(place / "images" / f"{name}.jpg", quality=95)
        if mask is not None:
            Image.fromarray(mask).save(place / "masks" / f"{name}.png")
        rows.append((f"{name}.jpg", ";".join(sorted(shown)), split))
    with open(place / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "label", "split"), *rows])
    scenes = folder.source == "dubai"
    names = folder.classes if scenes else ("background", *folder.classes)
    values = {name: value for value, name in enumerate(names)} | dict(ignore=IGNORE)
    how = dict(masks=place / "masks", mask_values=values, background=not scenes)
    return ctm.plan_folder(place / "images", place / "labels.csv", place / "out", **how)


def _plain(plan: Plan) -> Config:
    "Configuration of rivals on the images of a plan, as they are seen there."
    return load_config("folder", "photo", img_size=list(plan.config.img_size), data=plan.config.data)


def _full(place: Path, plan: Plan, seed: int) -> float:
    "mIoU of cells that learnt the true masks of a folder's training images."
    found = run_segmentation(_plain(plan), load_segmentation_config("photo"), seed, root=place, masks="true")
    return found.metrics["miou"]


def measure(
    samples: Path,  # folder of real images
    folder: Folder,  # what is fitted and scored
    seed: int,  # seed of the images' choice and of the fits
) -> dict:  # line of figures/folders.json
    "Scores of the masks of `ctm mask`, and of what they are compared with."
    start, random = time.time(), np.random.default_rng(seed)
    with tempfile.TemporaryDirectory() as home:
        os.environ["CTM_RUNS"] = str(Path(home, "runs"))
        place = taught = Path(home, "folder")
        if folder.source == "voc":
            val = [("val", one) for one in voc_samples(samples, Trial("val", folder.scored, folder.classes), random)]
            lists = {
                n: [("train", one) for one in voc_samples(samples, Trial(n, folder.images, folder.classes), random)]
                for n in ("train_mini", "tune")
            }
            taught = Path(home, "taught")
            other = write_folder(taught, folder, [*lists["tune"], *val])
            plan = write_folder(place, folder, [*lists["train_mini"], *val])
        else:
            other = plan = write_folder(place, folder, _others(samples, folder, random))
        sharp = run(plan.config, seed, root=place)
        cam = run(_plain(plan), seed, root=place, method="linear_cam")
        given = {name: result.extra["given_labels"]["miou"] for name, result in dict(sharp=sharp, cam=cam).items()}
        scores = {name: sharp.extra[name]["miou"] for name in ("box", "constant") if name in sharp.extra}
        scores |= given | {"sharp predicted": sharp.metrics["miou"], "cam predicted": cam.metrics["miou"]}
        scores["full"] = _full(taught, other, seed)
    about = dict(name=f"{folder.name}, seed {seed}", folder=folder.name, seed=seed, scores=scores)
    about |= dict(images=len(plan.train), scored=len(plan.val), taught=len(other.train), config=plan.config.stored())
    return about | dict(seconds=round(time.time() - start), versions=versions())


def folder_table(
    lines: list[dict],  # lines of figures/folders.json
) -> pd.DataFrame:  # mIoU in percent, mean and deviation over the seeds; a line per folder
    "Scores of all folders."
    found = {}
    for line in lines:
        for name, score in line["scores"].items():
            found.setdefault((line["folder"], name), []).append(100 * score)
    cells = {
        key: f"{np.mean(v):.1f} ± {np.std(v, ddof=1):.1f}" if len(v) > 1 else f"{v[0]:.1f}" for key, v in found.items()
    }
    return pd.Series(cells).unstack(sort=False).reindex(columns=ROWS).astype(object).fillna("-")


def main() -> None:
    "Runs that are not in the file yet."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folders", description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=Path, required=True, help="folder of the four sets")
    samples = parser.parse_args().samples
    order = sorted(product(SEEDS, FOLDERS), key=lambda one: one[1].images)  # short ones first
    runs = {f"{folder.name}, seed {seed}": partial(measure, samples, folder, seed) for seed, folder in order}
    print(folder_table(store_missing("folders", runs)).to_string())


if __name__ == "__main__":
    main()
