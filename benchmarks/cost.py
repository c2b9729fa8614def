"""Cost of the recipe `sharp` beside the paper's method: `python -m benchmarks.cost` writes figures/sharp_cost.json."""

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


def cost_calls(
    shape: dict,  # one of COST_SHAPES
    sharp: bool,  # the recipe, else the paper's method
) -> dict[str, Callable]:  # step, maps and masks, to be called again and again
    "Calls to be timed."
    torch.manual_seed(0)
    batch = shape["batch"]
    options = {name: value for name, value in shape.items() if name != "batch"}
    if sharp:
        options |= dict(classifier="per_class", mask_ratio=0.0, patch_evidence=True)
    model = ClassTokenViT(**options)
    size = (shape["img_size"],) * 2
    image = torch.randn(batch, 3, *size)
    label = torch.zeros(batch, shape["num_classes"])
    label[:, :3] = 1
    calls = step_and_maps(model, image, label, use_evidence=sharp)
    found = calls["maps"]()[1]
    prob = torch.rand(label.shape)
    guide = dict(guide=image, merge="argmax") if sharp else {}
    return calls | dict(masks=lambda: pseudo_mask(found, prob, size, label, **guide))


def measure_cost(
    repeats: int = 5,  # number of timed calls of each
) -> list[dict]:  # shape, task, seconds per image of the paper's method and of the recipe, and their ratio
    "Seconds per image of both, for all shapes and tasks."
    lines = []
    for name, shape in COST_SHAPES.items():
        sides = {side: cost_calls(shape, side == "sharp") for side in ("paper", "sharp")}
        for task in ("step", "maps", "masks"):
            times = in_turn({side: calls[task] for side, calls in sides.items()}, repeats)
            seconds = {side: median(found) / shape["batch"] for side, found in times.items()}
            lines.append(dict(shape=name, task=task, **seconds, ratio=seconds["sharp"] / seconds["paper"]))
    about = dict(threads=torch.get_num_threads(), versions=versions())
    return [line | about for line in lines]


if __name__ == "__main__":
    print(store("sharp_cost", measure_cost()))
