"""Verdicts beside true scores: `python -m benchmarks.verdict --samples FOLDER`.

Folders of photographs, of endoscopy and of aerial images are made, of different size, classes and quality: wrong or
missing labels, one epoch in place of all, a network from nothing in place of a pretrained one. Each is masked as a
user's folder is, without its true masks; then the masks are scored, and what the verdict measured is kept beside the
score. A run that is in figures/verdict.json already is not made again. FOLDER holds `voc2012_real`, `endotect`,
`mbrsc_dubai` and `coco`.
"""

import argparse
import csv
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.stats import spearmanr

import ctm
from benchmarks.timing import store_missing
from ctm.core import IGNORE, versions
from ctm.datasets.coco2014 import CLASSES as COCO_CLASSES
from ctm.datasets.coco2014 import Coco2014
from ctm.datasets.voc2012 import CLASSES
from ctm.io.masks import read_mask
from ctm.io.record import read_masked
from ctm.metrics import SegmentationScores
from ctm.project.overview import Plan
from ctm.project.verdict import predicted_quality

ANIMALS, OTHERS, ROOMS = ("cat", "cow", "dog"), ("bird", "horse", "train"), ("chair", "person", "sheep")
STREET = ("bottle", "car", "person")
TEN = ("aeroplane", "bird", "bus", "cat", "cow", "dog", "horse", "person", "sheep", "train")


CHANGES = {  # kind of a fit -> changes of the plan
    "full": {}, "ten epochs": dict(epochs=10), "one epoch": dict(epochs=1), "scratch": dict(preset="demo+sharp"),
}  # fmt: skip


@dataclass(frozen=True)
class Trial:
    "One run."

    source: str  # "tune" or "val" of VOC 2012, "kvasir", "dubai" or "coco"
    images: int  # number of images
    classes: tuple[str, ...] = ()  # classes of VOC 2012 or of COCO
    wrong: float = 0.0  # share of labels that are replaced by another class
    missing: float = 0.0  # share of labels that are taken out
    how: str = "full"  # a kind of `CHANGES`; "scratch": a network from nothing
    size: int = 448  # side in pixels of what a pretrained network sees
    seed: int = 0  # seed of the images' choice and of what is done to the labels

    @property
    def name(self) -> str:
        "Name that tells runs apart."
        kind = f"{len(self.classes)} classes" if self.classes else ""
        spoilt = f"{self.wrong:.0%} wrong" if self.wrong else f"{self.missing:.0%} missing" if self.missing else ""
        small = f"{self.size} pixels" if self.size < 448 and self.how != "scratch" else ""
        return ", ".join(part for part in (self.source, f"{self.images} images", kind, spoilt, self.how, small) if part)


TEN_EPOCHS = dict(how="ten epochs", size=224)  # a quarter of the pixels
ONE_EPOCH = dict(how="one epoch", size=224)
TRIALS = [  # those of `tune` choose the verdict's form; a failure among the others led to its sign of edges
    Trial("val", 24, OTHERS), Trial("tune", 112, ANIMALS), Trial("tune", 112, ANIMALS, wrong=0.4),
    Trial("kvasir", 112), Trial("tune", 24, ANIMALS), Trial("dubai", 112, how="scratch"), Trial("val", 37, OTHERS),
    Trial("val", 37, OTHERS, wrong=0.4, **TEN_EPOCHS), Trial("tune", 24, ANIMALS, wrong=0.4, **TEN_EPOCHS),
    Trial("tune", 8, ANIMALS, **TEN_EPOCHS), Trial("dubai", 37, **TEN_EPOCHS), Trial("tune", 37, ROOMS, **TEN_EPOCHS),
    Trial("kvasir", 24, **TEN_EPOCHS), Trial("val", 8, OTHERS, **TEN_EPOCHS), Trial("val", 112, OTHERS, **ONE_EPOCH),
    Trial("kvasir", 24, wrong=0.4, **TEN_EPOCHS), Trial("val", 24, OTHERS, wrong=0.2, **TEN_EPOCHS),
    Trial("val", 200, CLASSES, **ONE_EPOCH), Trial("dubai", 37, wrong=0.4, **ONE_EPOCH),
    Trial("val", 37, OTHERS, missing=0.1, **TEN_EPOCHS), Trial("tune", 37, ROOMS, wrong=0.2, **TEN_EPOCHS),
    Trial("tune", 24, ANIMALS, **ONE_EPOCH), Trial("tune", 200, TEN, **ONE_EPOCH),
    Trial("val", 24, OTHERS, **ONE_EPOCH), Trial("tune", 24, ANIMALS, how="scratch"),
    Trial("val", 200, TEN, wrong=0.2, **ONE_EPOCH),
    Trial("val", 112, OTHERS, wrong=0.4, **ONE_EPOCH), Trial("kvasir", 112, wrong=0.2, **ONE_EPOCH),
    Trial("kvasir", 37, how="scratch"), Trial("coco", 40, STREET), Trial("coco", 24, STREET, wrong=0.2, **TEN_EPOCHS),
]  # fmt: skip
Sample = tuple[str, Image.Image, np.ndarray | None, set[str]]  # name, picture, mask of values, names of its classes


def voc_samples(samples: Path, trial: Trial, random: np.random.Generator) -> Iterator[Sample]:
    "Photographs with at least one of the classes, as many of each as can be."
    root = samples / "voc2012_real" / "VOCdevkit" / "VOC2012"
    labels = json.loads((root / "labels.json").read_text())
    ids = (root / "ImageSets" / "Segmentation" / f"{trial.source}.txt").read_text().split()
    wanted = {CLASSES.index(name): name for name in trial.classes}
    order = [ids[i] for i in random.permutation(len(ids))]
    taken = {}
    for turn in range(trial.images):
        number = list(wanted)[turn % len(wanted)]
        found = next((one for one in order if number in labels[one] and one not in taken), None)
        if found:
            taken[found] = {wanted[i] for i in labels[found] if i in wanted}
    for one, names in taken.items():
        file = root / "SegmentationClass" / f"{one}.png"
        values = np.full(256, IGNORE, np.uint8)
        values[[0, *(i + 1 for i in wanted)]] = [0, *(1 + n for n in range(len(wanted)))]
        mask = values[np.array(Image.open(file))] if file.exists() else None  # most training photographs have none
        yield one, Image.open(root / "JPEGImages" / f"{one}.jpg"), mask, names


def coco_samples(samples: Path, trial: Trial, random: np.random.Generator) -> Iterator[Sample]:
    "Photographs with at least one of the classes; objects of others do not count."
    numbers = [COCO_CLASSES.index(name) for name in trial.classes]
    values = np.full(256, IGNORE, np.uint8)
    values[[0, *(i + 1 for i in numbers)]] = range(1 + len(numbers))
    sets = [Coco2014(samples / "coco" / "coco2014_view", split) for split in ("train", "val")]
    places = [(data, i) for data in sets for i in range(len(data)) if data.read_label(i)[numbers].any()]
    for place in random.permutation(len(places))[: trial.images]:
        data, index = places[place]
        image, mask = data.read(index)
        shown = {name for name, i in zip(trial.classes, numbers, strict=True) if data.read_label(index)[i]}
        yield data.names[index], Image.fromarray(image.transpose(1, 2, 0)), values[mask], shown


def kvasir_samples(samples: Path, trial: Trial, random: np.random.Generator) -> Iterator[Sample]:
    "Quarters of endoscopy images: as many with a polyp as without."
    files = sorted((samples / "endotect" / "Kvasir-SEG_effisegnet352" / "train" / "images").iterdir())
    counts = {True: 0, False: 0}
    for index in random.permutation(len(files)):
        mask = np.array(Image.open(next(files[index].parents[1].glob(f"masks/{files[index].stem}.*"))).convert("L"))
        picture = Image.open(files[index]).convert("RGB")
        half = mask.shape[0] // 2
        for corner in random.permutation(4):
            top, left = half * (corner // 2), half * (corner % 2)
            part = (mask[top : top + half, left : left + half] > 127).astype(np.uint8)
            shown = part.mean() > 0.1
            if (shown or not part.any()) and counts[shown] < trial.images // 2:
                counts[shown] += 1
                crop = picture.crop((left, top, left + half, top + half))
                yield f"{files[index].stem}_{corner}", crop, part, {"polyp"} if shown else set()
                break


DUBAI = {"Building": "3C1098", "Land": "8429F6", "Road": "6EC1E4", "Vegetation": "FEDD3A", "Water": "E2A929"}


def dubai_samples(samples: Path, trial: Trial, random: np.random.Generator) -> Iterator[Sample]:
    "Squares of aerial images; a class is there if it fills a tenth."
    files = sorted((samples / "mbrsc_dubai").glob("*/Tile */images/*.jpg"))
    for turn in range(trial.images):
        file = files[turn % len(files)]
        colors = np.array(Image.open(file.parents[1] / "masks" / f"{file.stem}.png").convert("RGB"))
        mask = np.full(colors.shape[:2], IGNORE, np.uint8)
        for value, color in enumerate(DUBAI.values()):
            mask[(colors == list(bytes.fromhex(color))).all(2)] = value
        top, left = (int(random.integers(0, side - 256)) for side in mask.shape)
        part = mask[top : top + 256, left : left + 256]
        names = {name for value, name in enumerate(DUBAI) if (part == value).mean() > 0.1}
        picture = Image.open(file).convert("RGB").crop((left, top, left + 256, top + 256))
        yield f"{file.parents[1].name}_{file.stem}_{turn}".replace(" ", ""), picture, part, names


def _spoilt(names: set[str], classes: list[str], trial: Trial, random: np.random.Generator) -> set[str]:
    "Classes of an image, some of them wrong or missing."
    if len(classes) == 1:  # there or not
        return names ^ {*classes} if random.random() < trial.wrong else names
    kept = set()
    for name in sorted(names):
        if random.random() < trial.missing:
            continue
        others = [one for one in classes if one not in names]
        kept.add(others[random.integers(len(others))] if others and random.random() < trial.wrong else name)
    return kept


def write_trial(
    samples: Path,  # folder of real images
    trial: Trial,  # what is wanted
    place: Path,  # folder to be filled with images/ and labels.csv
) -> tuple[list[str], dict[str, np.ndarray]]:  # names of the masks' values; true masks by the image's name
    "Folder of images and a table, and the truth about it, which stays in memory."
    makers = dict(tune=voc_samples, val=voc_samples, kvasir=kvasir_samples, dubai=dubai_samples, coco=coco_samples)
    random = np.random.default_rng(trial.seed)
    spoil = np.random.default_rng(trial.seed + 1)
    classes = sorted(trial.classes) or dict(kvasir=["polyp"], dubai=[*DUBAI])[trial.source]
    given = list(trial.classes) or classes
    values = given if trial.source == "dubai" else ["background", *given]
    (place / "images").mkdir(parents=True)
    truth, rows = {}, []
    for name, picture, mask, shown in makers[trial.source](samples, trial, random):
        picture.save(place / "images" / f"{name}.jpg", quality=95)
        truth[f"{name}.jpg"] = mask
        labels = _spoilt(shown, classes, trial, spoil)
        if labels or trial.source == "kvasir":
            rows.append((f"{name}.jpg", ";".join(sorted(labels))))
    with open(place / "labels.csv", "w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])
    return values, truth


def true_scores(
    place: Path,  # folder with masks/ and their record
    values: list[str],  # names of the true masks' values
    truth: dict[str, np.ndarray],  # true masks by the image's name
) -> dict:  # miou, and iou by class, in [0, 1]
    "Scores of all masks that were written."
    masked = read_masked(place)
    lookup = np.full(256, IGNORE, np.uint8)
    lookup[: len(values)] = [masked.classes.index(name) for name in values]
    scores = SegmentationScores(len(values))
    for name, mask in truth.items():
        found = read_mask(masked.mask_file(name))
        scores.update(*(torch.from_numpy(one.astype(np.int64))[None] for one in (found, lookup[mask])))
    found = scores.compute()
    iou = {name: None if np.isnan(v) else v for name, v in zip(masked.classes, found["iou"].tolist(), strict=True)}
    return dict(miou=found["miou"].item(), iou=iou)


def run_trial(
    samples: Path,  # folder of real images
    trial: Trial,  # what is wanted
) -> dict:  # line of figures/verdict.json
    "Signals of a run, and the true score of its masks."
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        values, truth = write_trial(samples, trial, place)
        changes = CHANGES[trial.how] | ({} if trial.how == "scratch" else dict(size=trial.size))
        where = (place / "images", place / "labels.csv", place / "out")
        plan = ctm.plan_folder(*where, background=trial.source != "dubai", **changes)
        masker, _ = ctm.train_folder(plan)
        found = ctm.mask_folder(plan, masker).attrs["verdict"].facts
        line = dict(name=trial.name, trial=asdict(trial), truth=true_scores(plan.out, values, truth), signals=found)
        line |= dict(config=plan.config.stored(), seconds=round(time.time() - start), versions=versions())
    return line


def rank_correlation(
    lines: list[dict],  # lines of figures/verdict.json
    held_out: bool = False,  # whether runs that chose the constants are left out
    background: bool = False,  # whether the background's IoU counts, which grows with images that show no class
) -> tuple[float, int]:  # Spearman's correlation in [-1, 1], and the number of runs
    "Correlation of the verdict's number with the mean IoU of the true classes."
    runs = [line for line in lines if "truth" in line and not (held_out and line["trial"]["source"] == "tune")]
    found = [predicted_quality(line["signals"]) for line in runs]
    true = [_mean_iou(line["truth"], background) for line in runs]
    return float(spearmanr(found, true).statistic), len(runs)


def _mean_iou(truth: dict, background: bool) -> float:
    "Mean IoU of the values that are known, with or without the background."
    known = {name: value for name, value in truth["iou"].items() if value is not None}
    return float(np.mean([value for name, value in known.items() if background or name != "background"]))


CURVE = (10, 30, 100, 300)  # images of each class
SCORED = 60  # photographs of `tune`, not trained on


def curve_plan(
    samples: Path,  # folder of real images
    place: Path,  # folder to be filled
    count: int,  # number of training images of each class
    seed: int = 0,  # seed of the images' choice
    scored: int = SCORED,  # number of validation photographs
) -> Plan:
    "Plan of a fit on photographs of three animals, validated on others."
    root = samples / "voc2012_real" / "VOCdevkit" / "VOC2012"
    labels = json.loads((root / "labels.json").read_text())
    lists = {n: (root / "ImageSets" / "Segmentation" / f"{n}.txt").read_text().split() for n in ("train_here", "tune")}
    numbers = [CLASSES.index(name) for name in ANIMALS]
    random = np.random.default_rng(seed)
    alone = {n: [one for one in ids if len({*labels[one]} & {*numbers}) == 1] for n, ids in lists.items()}
    train = [one for one in alone["train_here"] if one not in {*lists["tune"]}]
    train = [train[i] for i in random.permutation(len(train))]
    chosen = [one for n in numbers for one in [one for one in train if n in labels[one]][:count]]
    rows = [(one, "train") for one in chosen] + [(one, "val") for one in alone["tune"][:scored]]
    (place / "images").mkdir()
    for one, _ in rows:
        (place / "images" / f"{one}.jpg").symlink_to((root / "JPEGImages" / f"{one}.jpg").resolve())
    names = [";".join(CLASSES[n] for n in numbers if n in labels[one]) for one, _ in rows]
    with open(place / "labels.csv", "w", newline="") as file:
        table = [(f"{one}.jpg", name, side) for (one, side), name in zip(rows, names, strict=True)]
        csv.writer(file).writerows([("file", "label", "split"), *table])
    values = {name: n + 1 for name, n in zip(ANIMALS, numbers, strict=True)} | dict(background=0)
    values["ignore"] = [IGNORE, *(n + 1 for n in range(len(CLASSES)) if n not in numbers)]
    truth = dict(masks=root / "SegmentationClass", mask_values=values, background=True)
    return ctm.plan_folder(place / "images", place / "labels.csv", place / "out", **truth)


def _curve_name(count: int, seed: int) -> str:
    "Name of a fit of the curve; those of the first seed have none in it."
    return f"curve, {count} images a class" + (f", seed {seed}" if seed else "")


def run_curve(
    samples: Path,  # folder of real images
    count: int,  # number of training images of each class
    seed: int = 0,  # seed of the images' choice and of the fit
) -> dict:  # line of figures/verdict.json
    "Quality of masks, by given labels, of photographs that a fit has not seen."
    start = time.time()
    with tempfile.TemporaryDirectory() as folder:
        plan = curve_plan(samples, Path(folder), count, seed)
        scores = ctm.train_folder(plan, seed)[1].loc["labels given"]
    line = dict(name=_curve_name(count, seed), images_a_class=count, seed=seed, miou=float(scores["miou"]))
    return line | dict(config=plan.config.stored(), seconds=round(time.time() - start), versions=versions())


def main() -> None:
    "Runs that are not in the file yet."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdict", description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=Path, required=True, help="folder of the four sets")
    samples = parser.parse_args().samples
    runs = {trial.name: partial(run_trial, samples, trial) for trial in TRIALS}
    curve = product(range(3), CURVE)
    runs |= {_curve_name(count, seed): partial(run_curve, samples, count, seed) for seed, count in curve}
    lines = store_missing("verdict", runs)
    for held_out, background in product((False, True), repeat=2):
        correlation, count = rank_correlation(lines, held_out, background)
        about = f"{', held out' if held_out else ''}{', background counted' if background else ''}"
        print(f"rank correlation {correlation:.2f} over {count} runs{about}")


if __name__ == "__main__":
    main()
