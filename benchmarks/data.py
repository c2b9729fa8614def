"""A million tiles, COCO's annotations and each reader's speed, on data that are drawn: `python -m benchmarks.data`.

What a reader does for each image at start-up, it does 82,783 times for COCO; what a cache holds in memory for each
sample, it holds a million times for a country cut into tiles. Both are tried with data of that size that mean nothing
(figures/scale.json). The readers are timed on the synthetic sets (figures/reading.json).
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.timing import process_gb, store
from ctm.core import repo_root, versions
from ctm.data.cache import cached
from ctm.data.dataset import ImageDataset
from ctm.data.loader import loader, random_order
from ctm.datasets.coco2014 import CATEGORY_IDS, CLASSES, Coco2014
from ctm.train.config import DATASETS, load_config
from ctm.train.data import load_dataset


class Drawn(ImageDataset):
    "Tiles whose pixels follow from their number."

    name = "drawn"
    classes = ("low", "high")
    colors = ("#000000", "#FFFFFF")
    mean = np.full(3, 127.0)
    std = np.full(3, 64.0)
    synthetic = True

    def __init__(self, n: int, side: int = 64):
        self.n = n
        self.side = side
        self.names = [f"{i:07}" for i in range(n)]
        self.source = f"drawn-{n}"

    def settings(self) -> dict:
        return dict(n=self.n, side=self.side)

    def files(self, index: int) -> list[Path]:
        return []

    def size(self, index: int) -> tuple[int, int]:
        return self.side, self.side

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = np.full((3, self.side, self.side), index % 251, np.uint8)
        mask = np.full((self.side, self.side), index % 2, np.uint8)
        return image, mask


def measure_tiles(
    n: int,  # number of tiles
    folder: str,  # folder for the cache: 16 kB per tile
    samples: int = 20_000,  # number of samples read in each order
    workers: int = 0,  # processes of the loader
) -> dict:  # seconds to write and to open, GB, samples per second
    "Measurement of a cache of drawn tiles: written, opened, and read in three orders."
    start = time.perf_counter()
    cached(Drawn(n), folder)
    written = time.perf_counter()
    before = process_gb("RssAnon")  # without mapped files, which the system can drop
    data = cached(Drawn(n), folder)
    found = dict(tiles=n, write_s=written - start, open_s=time.perf_counter() - written)
    found |= dict(gb_before=before, gb_open=process_gb("RssAnon"))
    draw = torch.Generator().manual_seed(0)
    orders = {
        "in order": torch.arange(n),
        "in runs": random_order(n, draw),
        "at random": torch.randperm(n, generator=draw),
    }
    for name, order in orders.items():
        chosen = [part.tolist() for part in order[:samples].split(32)]
        start = time.perf_counter()
        count = sum(len(batch["image"]) for batch in loader(data, chosen, workers))
        found[f"{name}, samples per s"] = count / (time.perf_counter() - start)
    return found | dict(gb_read=process_gb("RssAnon"), workers=workers)


def write_instances(
    folder: Path,  # folder that gets annotations/instances_train2014.json and empty image files
    images: int,  # number of images
    objects: int,  # number of triangles to 40-gons, placed at random
) -> Path:  # the instances file
    "Instances file of COCO's make."
    names = [f"COCO_train2014_{i:012}.jpg" for i in range(images)]
    (folder / "train2014").mkdir(parents=True)
    for name in names:
        (folder / "train2014" / name).touch()
    path = folder / "annotations" / "instances_train2014.json"
    path.parent.mkdir()
    listed = [dict(id=i, file_name=name, height=480, width=640) for i, name in enumerate(names)]
    kinds = [dict(id=i, name=name) for i, name in zip(CATEGORY_IDS, CLASSES, strict=True)]
    draw = random.Random(0)
    with open(path, "w") as file:
        file.write(f'{{"images": {json.dumps(listed)}, "categories": {json.dumps(kinds)}, "annotations": [')
        for i in range(objects):
            outline = [round(draw.uniform(0, 480), 2) for _ in range(2 * draw.randint(3, 40))]
            item = dict(id=i, image_id=draw.randrange(images), category_id=draw.choice(CATEGORY_IDS), iscrowd=0)
            item["segmentation"] = [outline]
            file.write(json.dumps(item))
            file.write(", " if i + 1 < objects else "]}")
    return path


def measure_instances(
    images: int = 82_783,  # number of images of COCO's training split
    objects: int = 604_907,  # number of objects in them
) -> dict:  # seconds and GB of the first opening and of the next, in a process each
    "Measurement of the start-up of COCO's reader."
    with tempfile.TemporaryDirectory() as folder:
        megabytes = write_instances(Path(folder), images, objects).stat().st_size / 1e6
        first = _opened_apart(folder)
        later = _opened_apart(folder)
    return dict(images=images, objects=objects, megabytes=megabytes, first=first, later=later)


def _opened_apart(folder: str) -> dict:
    "Seconds and GB of an opening in a process of its own; packed annotations stay beside the data."
    command = [sys.executable, "-m", "benchmarks.data", "--open", folder]
    place = dict(os.environ, CTM_CACHE=f"{folder}/cache")
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=place, cwd=repo_root())
    return json.loads(done.stdout.splitlines()[-1])


def open_instances(
    folder: str,  # folder as `write_instances` makes it
) -> dict:  # seconds, gb
    "Seconds and memory of COCO's reader in this process: opened, and every thousandth image asked for."
    before = process_gb("RssAnon")
    start = time.perf_counter()
    data = Coco2014(folder)
    for index in range(0, len(data), 1000):
        data.annotations(index)
    return dict(seconds=time.perf_counter() - start, gb=process_gb("RssAnon") - before)


def measure_scale(
    tiles: int = 1_000_000,  # number of tiles: 16 GB of cache in the current folder, for a while
    images: int = 82_783,  # number of images of COCO's training split
    objects: int = 604_907,  # number of objects in them
) -> list[dict]:  # one line for the tiles, one for the annotations
    "Measurements of tiles and annotations: the lines of figures/scale.json."
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        lines = [measure_tiles(tiles, folder)]
    lines.append(measure_instances(images, objects))
    return [line | dict(versions=versions()) for line in lines]


def reading_speed(
    dataset: ImageDataset,  # data set read from its files
    folder: str | Path,  # folder for the cache
    samples: int = 256,  # number of samples read at most, from the first on
) -> dict[str, float]:  # samples per second from files and from the cache, and their ratio
    "Samples per second without and with a cache, second epoch each."
    count = min(samples, len(dataset))
    rates = {}
    for name, source in (("files", dataset), ("cache", cached(dataset, folder))):
        for _ in range(2):  # the first epoch warms the disk
            start = time.perf_counter()
            for index in range(count):
                source[index]
            rates[name] = count / (time.perf_counter() - start)
    return rates | dict(ratio=rates["cache"] / rates["files"])


def reading_lines(
    datasets: Sequence[str] = DATASETS,  # names of synthetic sets
    samples: int = 256,  # number of samples of each, at most
) -> list[dict]:  # data set, samples per second from files and from the cache, ratio, versions
    "Reading speed of synthetic sets at the demo's sizes: the lines of figures/reading.json."
    lines = []
    for name in datasets:
        config = load_config(name, "demo")
        with tempfile.TemporaryDirectory() as folder:
            rates = reading_speed(load_dataset(config, "train", cache=False), folder, samples)
        lines.append({"data set": name} | rates | dict(versions=versions()))
    return lines


def main() -> None:
    "Measurement of scale and of the readers, or (hidden) an opening in this process."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__.split("\n")[0])
    parser.add_argument("--reading", action="store_true", help="measure the readers' speed alone")
    parser.add_argument("--open", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.open:
        print(json.dumps(open_instances(args.open)))
        return
    if not args.reading:
        print(store("scale", measure_scale()))
    lines = reading_lines()
    print(pd.DataFrame(lines).drop(columns="versions").set_index("data set").round(1))
    print(store("reading", lines))


if __name__ == "__main__":
    main()
