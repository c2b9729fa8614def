"""The picture of nbs/real_tiles.ipynb: aerial images of Dubai (MBRSC, CC0), the truth, and masks.

Tiles of several classes are picked by the pixel accuracy of the paper's method, never by hand. What is kept in runs/
is read, what is not is fitted, some minutes for each method on two cores. A key of `ctm.experiments.methods.METHODS`
that is added to `METHODS` has a row of its own.

    python data_prep/tiles.py data/mbrsc_dubai figures/tiles.jpg
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import ctm
from ctm.data.plot import legend, paint, to_rgb
from ctm.data.subsets import png_name
from ctm.io.masks import read_mask

CHANGES = {
    "in_chans": 3,
    "epochs": 10,
    "data": {"tile": 128, "masks": "masks", "mask_values": "mask_values.json"},
}  # as in nbs/real_tiles.ipynb
METHODS = {"paper": "mask, by the paper"}
SHARES = (95, 75, 50, 25, 10, 2)  # percentiles of pixel accuracy


def masks_of(
    method: str,  # key of `METHODS`
    root: Path,  # folder that data_prep/mbrsc_dubai.py wrote
    names: list[str],  # tiles
) -> np.ndarray:  # (tiles, H, W) values
    "Masks of every validation tile, labels predicted."
    config = ctm.load_config("folder", "demo", **CHANGES)
    result = ctm.run(config, 0, root=root, method=method)
    return np.stack([read_mask(result.folder / "masks" / png_name(name)) for name in names])


def main() -> None:
    "A column for each tile."
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dubai", type=Path, help="folder that data_prep/mbrsc_dubai.py wrote")
    parser.add_argument("out", type=Path, help="picture to be written")
    given = parser.parse_args()
    data = ctm.load_dataset(ctm.load_config("folder", "demo", **CHANGES), "val", given.dubai)
    samples = [data[i] for i in range(len(data))]
    truth = np.stack([sample["mask"].numpy() for sample in samples])
    found = {method: masks_of(method, given.dubai, [sample["name"] for sample in samples]) for method in METHODS}
    right = ((found["paper"] == truth) & (truth != 255)).sum((1, 2)) / (truth != 255).sum((1, 2)).clip(1)
    several = np.array([len(np.unique(mask[mask != 255])) > 1 for mask in truth])
    order = np.argsort(np.where(several, right, np.inf), kind="stable")[: several.sum()]
    picked = [int(order[int((len(order) - 1) * share / 100)]) for share in SHARES]
    figure, axes = plt.subplots(2 + len(found), len(picked), figsize=(8.1, 1.5 + 1.3 * (1 + len(found))))
    for place, (index, share) in enumerate(zip(picked, SHARES, strict=True)):
        shown = {"image": to_rgb(samples[index]["image"], data), "truth": paint(truth[index], data.mask_colors)}
        shown |= {METHODS[method]: paint(masks[index], data.mask_colors) for method, masks in found.items()}
        for axis, (title, picture) in zip(axes[:, place], shown.items(), strict=True):
            axis.imshow(picture, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
            if place == 0:
                axis.set_ylabel(title, fontsize=8)
        axes[0, place].set_title(f"percentile {share}", fontsize=8)
    legend(figure, data.mask_classes, data.mask_colors)
    figure.subplots_adjust(left=0.04, right=0.99, top=0.95, bottom=0.07, wspace=0.04, hspace=0.04)
    figure.savefig(given.out, dpi=120)


if __name__ == "__main__":
    main()
