"""Cost of the recipe `sharp` beside the paper's method: `python -m benchmarks.cost` writes figures/sharp_cost.json.

The same training step, maps and masks of both, called in turn.
"""

import argparse
from collections.abc import Callable
from statistics import median

import torch

from benchmarks.timing import in_turn, step_and_maps, store
from ctm.core import versions
from ctm.model import ClassTokenViT
from ctm.pseudomask import pseudo_mask

COST_SHAPES = {  # options of `ClassTokenViT`, and images in a batch
    "demo: 64 px": dict(num_classes=20, img_size=64, patch_size=8, embed_dim=96, depth=6, num_heads=8, batch=32),
    "ViT-B/16: 224 px": dict(num_classes=20, img_size=224, batch=2),
    "ViT-B/16: 512 px": dict(num_classes=20, img_size=512, batch=1),
}
SIDES = ("paper", "sharp")


def cost_calls(
    shape: dict,  # one of COST_SHAPES
    side: str,  # one of SIDES
) -> dict[str, Callable]:  # "step", "maps" and "masks", to be called again and again
    "Calls to be timed, of the paper's method or of the recipe."
    torch.manual_seed(0)
    options = {name: value for name, value in shape.items() if name != "batch"}
    if side == "sharp":
        options |= dict(classifier="per_class", mask_ratio=0.0, patch_evidence=True)
    model = ClassTokenViT(**options)
    size = (shape["img_size"], shape["img_size"])
    image = torch.randn(shape["batch"], 3, *size)
    label = torch.zeros(shape["batch"], shape["num_classes"])
    label[:, :3] = 1
    calls = step_and_maps(model, image, label, use_evidence=side == "sharp")
    _, maps = calls["maps"]()
    prob = torch.rand(label.shape)
    guide = dict(guide=image, merge="argmax") if side == "sharp" else {}
    return calls | dict(masks=lambda: pseudo_mask(maps, prob, size, label, **guide))


def measure_cost(
    repeats: int = 5,  # number of timed calls of each
) -> list[dict]:  # shape, task, seconds per image of the paper's method and of the recipe, and their ratio
    "Seconds per image of both, for all shapes and tasks: the lines of figures/sharp_cost.json."
    about = dict(threads=torch.get_num_threads(), versions=versions())
    lines = []
    for name, shape in COST_SHAPES.items():
        calls = {side: cost_calls(shape, side) for side in SIDES}
        for task in ("step", "maps", "masks"):
            times = in_turn({side: calls[side][task] for side in SIDES}, repeats)
            seconds = {side: median(found) / shape["batch"] for side, found in times.items()}
            line = dict(shape=name, task=task, **seconds, ratio=seconds["sharp"] / seconds["paper"])
            lines.append(line | about)
    return lines


def main() -> None:
    "Measurement of all shapes and tasks."
    argparse.ArgumentParser(prog="python -m benchmarks.cost", description=__doc__.split("\n")[0]).parse_args()
    print(store("sharp_cost", measure_cost()))


if __name__ == "__main__":
    main()
