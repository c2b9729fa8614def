"""The pictures of nbs/tutorials/own_images.ipynb: 80 tiles of MBRSC's aerial images of Dubai (CC0), labels, and masks.

Squares of 384 pixels of the scenes 1 to 7, at half their size. Houses and roads are one class, `built-up`: at this size
they cannot be told apart. A class that covers 8% of a tile is in its label. Tiles are picked by a rule, never by hand:
few classes, and those first that have been seen least; a tile of water alone is picked four times at most.

    python data_prep/aerial_tiles.py data/mbrsc_dubai nbs/tutorials/aerial
"""

import argparse
import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from ctm.core import IGNORE, atomic_folder
from ctm.data.mask_values import MaskValues

CLASSES = {"built-up": ("building", "road"), "land": ("land",), "vegetation": ("vegetation",), "water": ("water",)}
SIDE, SMALL = 384, 192  # pixels of a tile, and of its file
SHARE, UNLABELLED = 0.08, 0.05  # least share of a class that is in the label; largest of pixels without one
ABOUT = """Tiles of aerial images of Dubai by the Mohammed bin Rashid Space Centre, published as *Semantic segmentation
of aerial imagery* by Humans in the Loop under CC0 1.0. Made by `data_prep/aerial_tiles.py`; the masks serve to score.
"""
COUNT, WATER = 80, 4  # number of tiles, and of those of water alone


class Tile(NamedTuple):
    "Part of an image."

    name: str
    image: Image.Image  # of SMALL pixels
    mask: np.ndarray  # (SMALL, SMALL) indices of CLASSES
    present: tuple[int, ...]  # classes of its label


def tiles_of(root: Path) -> Iterator[Tile]:
    "Tiles side by side that are labelled nearly everywhere."
    colors = json.loads((root / "mask_values.json").read_text())
    painted = {name: [colors[part] for part in parts] for name, parts in CLASSES.items()}
    values = MaskValues([*CLASSES], painted | dict(ignore=colors["ignore"]))
    for file in sorted((root / "images").glob("tile_[1-7]_*.jpg")):
        image = Image.open(file).convert("RGB")
        mask = values.read(root / "masks" / f"{file.stem}.png")
        for y in range(0, mask.shape[0] - SIDE + 1, SIDE):
            for x in range(0, mask.shape[1] - SIDE + 1, SIDE):
                part = mask[y : y + SIDE, x : x + SIDE]
                present = tuple(i for i in range(len(CLASSES)) if (part == i).mean() > SHARE)
                if present and (part == IGNORE).mean() <= UNLABELLED:
                    small = image.crop((x, y, x + SIDE, y + SIDE)).resize((SMALL, SMALL), Image.Resampling.LANCZOS)
                    yield Tile(f"{file.stem}_{y}_{x}", small, part[:: SIDE // SMALL, :: SIDE // SMALL], present)


def pick(tiles: list[Tile]) -> list[Tile]:
    "Tiles of few classes, balanced."
    left = [tiles[i] for i in np.random.default_rng(0).permutation(len(tiles))]
    dearer = {1: 3, 2: 0}  # number of classes -> price in tiles; more classes: 4
    water = (len(CLASSES) - 1,)
    seen = np.zeros(len(CLASSES))
    chosen = []
    for _ in range(COUNT):
        if sum(tile.present == water for tile in chosen) == WATER:
            left = [tile for tile in left if tile.present != water]
        chosen.append(min(left, key=lambda tile: seen[[*tile.present]].mean() + dearer.get(len(tile.present), 4)))
        left = [tile for tile in left if tile is not chosen[-1]]
        seen[[*chosen[-1].present]] += 1
    return sorted(chosen, key=lambda tile: tile.name)


def main() -> None:
    "Folder of images, masks, and a table."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dubai", type=Path, help="folder that data_prep/mbrsc_dubai.py wrote")
    parser.add_argument("out", type=Path, help="folder to be written")
    given = parser.parse_args()
    chosen = pick([*tiles_of(given.dubai)])
    with atomic_folder(given.out) as folder:
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        with open(folder / "labels.csv", "w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(("file", "label"))
            for tile in chosen:
                tile.image.save(folder / "images" / f"{tile.name}.jpg", quality=80)
                Image.fromarray(tile.mask).save(folder / "masks" / f"{tile.name}.png", optimize=True)
                rows.writerow((f"{tile.name}.jpg", ";".join([*CLASSES][i] for i in tile.present)))
        values = {name: i for i, name in enumerate(CLASSES)} | dict(ignore=IGNORE)
        (folder / "mask_values.json").write_text(json.dumps(values, indent=1) + "\n")
        (folder / "README.md").write_text(ABOUT)


if __name__ == "__main__":
    main()
