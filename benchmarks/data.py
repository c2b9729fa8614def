"""A million tiles, COCO's annotations and each reader's speed, on data that are drawn: `python -m benchmarks.data`."""

import argparse
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks.timing import store
from ctm.core import repo_root, versions
from ctm.data.cache import cached
from ctm.data.dataset import ImageDataset
from ctm.data.loader import loader, random_order
from ctm.datasets.coco2014 import CATEGORY_IDS
from ctm.train.config import DATASETS, load_config
from ctm.train.data import load_dataset


class Drawn(ImageDataset):
    "Tiles whose pixels follow from their number."

    name, classes, colors = "drawn", ("low", "high"), np.array([[0, 0, 0], [255, 255, 255]], np.uint8)
    mean, std, background, upright, share = np.full(3, 127.0), np.full(3, 64.0), None, False, 0.1

    def __init__(self, n: int, side: int = 64):
        self.n, self.side, self.names = n, side, [f"{i:07}" for i in range(n)]
        self.embedded, self.source = True, f"drawn-{n}"

    def settings(self) -> dict:
        return dict(n=self.n, side=self.side)

    def files(self, index: int) -> list[Path]:
        return []

    def size(self, index: int) -> tuple[int, int]:
        return self.side, self.side

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:  # (3, side, side), (side, side), uint8
        "Pixels and mask."
        return np.full((3, self.side, self.side), index % 251, np.uint8), np.full((self.side,) * 2, index % 2, np.uint8)

    def read_label(self, index: int) -> np.ndarray:
        return np.eye(2, dtype=np.uint8)[index % 2]


def anonymous_gb() -> float:
    "Memory of this process without mapped files, which the system can drop."
    return int(re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20


def measure_tiles(
    n: int,  # tiles
    folder: str,  # for the cache: 16 kB per tile
    samples: int = 20_000,  # read in each order
    workers: int = 0,  # of the loader
) -> dict:  # seconds to write and to open, GB, samples per second
    "Write a cache of drawn tiles, open it, and read batches in three orders."
    start = time.perf_counter()
    data = cached(Drawn(n), folder)
    write, start = time.perf_counter() - start, time.perf_counter()
    before = anonymous_gb()
    data = cached(Drawn(n), folder)
    found = dict(tiles=n, write_s=write, open_s=time.perf_counter() - start, gb_before=before, gb_open=anonymous_gb())
    draw = torch.Generator().manual_seed(0)
    orders = {
        "in order": torch.arange(n),
        "in runs": random_order(n, draw),
        "at random": torch.randperm(n, generator=draw),
    }
    for name, order in orders.items():
        chosen = order[:samples].split(32)
        start = time.perf_counter()
        count = sum(len(batch["image"]) for batch in loader(data, [part.tolist() for part in chosen], workers))
        found[f"{name}, samples per s"] = count / (time.perf_counter() - start)
    return found | dict(gb_read=anonymous_gb(), workers=workers)


def write_instances(
    folder: Path,  # gets annotations/instances_train2014.json and empty image files
    images: int,  # as many as asked for
    objects: int,  # triangles to decagons, spread at random
) -> None:
    "An instances file of COCO's make."
    draw = random.Random(0)
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2014").mkdir()
    names = [f"COCO_train2014_{i:012}.jpg" for i in range(images)]
    for name in names:
        (folder / "train2014" / name).touch()
    with open(folder / "annotations" / "instances_train2014.json", "w") as file:
        listed = [dict(id=i, file_name=name, height=480, width=640) for i, name in enumerate(names)]
        kinds = json.dumps([dict(id=i, name=str(i)) for i in CATEGORY_IDS])
        file.write(f'{{"images": {json.dumps(listed)}, "categories": {kinds}, "annotations": [')
        for i in range(objects):
            outline = [round(draw.uniform(0, 480), 2) for _ in range(2 * draw.randint(3, 40))]
            item = dict(id=i, image_id=draw.randrange(images), category_id=draw.choice(CATEGORY_IDS), iscrowd=0)
            file.write(json.dumps(item | dict(segmentation=[outline])) + (", " if i + 1 < objects else "]}"))


def measure_instances(
    images: int = 82_783,  # of COCO's training split
    objects: int = 604_907,  # in them
) -> dict:  # seconds and GB of the first opening and of the next, in a process each
    "Start-up of the reader of COCO."
    with tempfile.TemporaryDirectory() as folder:
        write_instances(Path(folder), images, objects)
        megabytes = (Path(folder) / "annotations" / "instances_train2014.json").stat().st_size / 1e6
        first, later = (_open_apart(folder) for _ in range(2))
    return dict(images=images, objects=objects, megabytes=megabytes, first=first, later=later)


def _open_apart(folder: str) -> dict:
    "Open a training split in a process of its own, its packed annotations beside it."
    code = f"""
import json, time
from ctm.datasets.coco2014 import Coco2014
from benchmarks.data import anonymous_gb
before, start = anonymous_gb(), time.perf_counter()
data = Coco2014({folder!r})
[data.annotations(i) for i in range(0, len(data), 1000)]
print(json.dumps(dict(seconds=time.perf_counter() - start, gb=anonymous_gb() - before)))
"""
    place = dict(os.environ, CTM_CACHE=f"{folder}/cache")
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True, env=place, cwd=repo_root()
    )
    return json.loads(done.stdout.splitlines()[-1])


def measure_scale(
    tiles: int = 1_000_000,  # 16 GB of cache
    images: int = 82_783,  # of COCO's training split
    objects: int = 604_907,  # in them
) -> list[dict]:  # one line for the tiles, one for the annotations
    "Measurements of the tiles and of the annotations."
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        lines = [measure_tiles(tiles, folder)]
    return [line | dict(versions=versions()) for line in [*lines, measure_instances(images, objects)]]


def reading_speed(
    dataset: ImageDataset,  # read from its files
    folder: str | Path,  # for the cache
    samples: int = 256,  # read at most, from the first on
) -> pd.Series:  # samples per second from files and from the cache, and their ratio
    "Samples per second without and with a cache, second epoch each."
    rates = {}
    for name, source in (("files", dataset), ("cache", cached(dataset, folder))):
        for _ in range(2):  # the first epoch warms the disk
            start = time.perf_counter()
            for index in range(min(samples, len(dataset))):
                source[index]
            rates[name] = min(samples, len(dataset)) / (time.perf_counter() - start)
    return pd.Series(rates | dict(ratio=rates["cache"] / rates["files"]))


def reading_table(
    datasets: tuple[str, ...] = DATASETS,  # synthetic sets to be read
    samples: int = 256,  # of each, at most
) -> pd.DataFrame:  # samples per second from files and from the cache, and their ratio
    "How fast each reader delivers demo samples, decoded again and from the cache."
    rows = {}
    for name in datasets:
        config = load_config(name, "demo")
        with tempfile.TemporaryDirectory() as folder:
            rows[name] = reading_speed(load_dataset(config, "train", cache=False), folder, samples)
    return pd.DataFrame(rows).T


def reading_lines() -> list[dict]:  # data set, samples per second from files and from the cache, ratio
    "Reading speed of every synthetic set."
    table = reading_table()
    return [{"data set": name} | row | dict(versions=versions()) for name, row in table.to_dict("index").items()]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description="Readers, caches and annotations")
    parser.add_argument("--reading", action="store_true", help="measure the readers' speed alone")
    if not parser.parse_args().reading:
        print(store("scale", measure_scale()))
    print(store("reading", reading_lines()))
