"""torch's linear layer beside the convolution of `ctm.layers.linear`: `python -m benchmarks.linear` writes
figures/linear.json.

Which of them is faster depends on the processor and on torch's build, so both are named with the numbers. The shapes
are the products of a block: output projection, queries with keys and values, the MLP's two layers; of ViT-B/16 at 224
pixels and of the demo preset, both with 20 classes.
"""

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from statistics import median

import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.timing import in_turn, store
from ctm.core import versions
from ctm.layers.linear import convolved
from ctm.runtime.progress import Progress

MODELS = {  # width D, tokens of an image (patches, 20 classes, [REG]), images in a batch
    "ViT-B/16": (768, 196 + 20 + 1, (1, 2, 4)),
    "demo": (96, 64 + 20 + 1, (1, 2, 4, 32)),
}
SIDES = {"torch": F.linear, "ctm": convolved}  # "ctm": what a processor with AVX-512 computes


def places() -> list[dict]:  # model, batch, tokens, features in and out
    "Shapes that are measured."
    return [
        dict(model=model, batch=batch, tokens=tokens, features_in=n * d, features_out=m * d)
        for model, (d, tokens, batches) in MODELS.items()
        for batch in batches
        for n, m in ((1, 1), (1, 3), (1, 4), (4, 1))
    ]


def calls_of(
    place: dict,  # one of `places`
    task: str,  # "forward", or "step": forward and backward
) -> dict[str, Callable]:  # "torch" and "ctm", to be called again and again
    "The same product by both sides, on the same random input."
    torch.manual_seed(0)
    train = task == "step"
    x = torch.randn(place["batch"], place["tokens"], place["features_in"], requires_grad=train)
    weight = torch.randn(place["features_out"], place["features_in"], requires_grad=train)
    bias = torch.randn(place["features_out"], requires_grad=train)
    return {side: _call(linear, task, x, weight, bias) for side, linear in SIDES.items()}


def _call(linear: Callable, task: str, x: Tensor, weight: Tensor, bias: Tensor) -> Callable:
    "Call of one side."
    if task == "forward":
        return torch.no_grad()(lambda: linear(x, weight, bias))

    def step():
        out = linear(x, weight, bias)
        return torch.autograd.grad(out, (x, weight, bias), torch.ones_like(out))

    return step


def processor() -> str:
    "Name of this machine's processor, by /proc/cpuinfo where there is one, and what torch computes with."
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.+)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return f"{found[1] if found else 'unknown'}, {torch.backends.cpu.get_cpu_capability()}"


def measure_linear(
    shapes: list[dict] | None = None,  # what is measured; None: `places`
    repeats: int = 20,  # number of timed calls of each
) -> list[dict]:  # shape, task, GFLOP/s of torch and of ctm, ratio of their rates, processor, versions
    "Rates of both sides at each shape: the lines of figures/linear.json."
    about = dict(threads=torch.get_num_threads(), processor=processor(), versions=versions())
    lines = []
    for place in Progress(shapes or places(), desc="measuring"):
        count = 2e-9 * place["batch"] * place["tokens"] * place["features_in"] * place["features_out"]
        for task, passes in (("forward", 1), ("step", 3)):
            times = in_turn(calls_of(place, task), repeats)
            rates = {side: passes * count / median(seconds) for side, seconds in times.items()}
            ratio = median(a / b for a, b in zip(times["torch"], times["ctm"], strict=True))
            lines.append(place | dict(task=task) | rates | dict(ratio=ratio) | about)
    return lines


def main() -> None:
    "Measurement of all shapes."
    argparse.ArgumentParser(prog="python -m benchmarks.linear", description=__doc__.split("\n")[0]).parse_args()
    lines = measure_linear()
    table = pd.DataFrame(lines)
    shown = ["torch", "ctm", "ratio"]
    print(table.set_index([*places()[0], "task"])[shown].round(2).to_string())
    print(f"{lines[0]['processor']}, {lines[0]['threads']} threads, torch {lines[0]['versions']['torch']}")
    print("medians of ratios:", table.groupby(["model", "task"])["ratio"].median().round(2).to_dict())
    print(store("linear", lines))


if __name__ == "__main__":
    main()
