"""torch's linear layer beside `ctm.layers.linear`, in turn: `python -m benchmarks.linear` fills figures/linear.json."""

import re
from functools import partial
from pathlib import Path
from statistics import median

import torch
from torch.nn import functional as F

from benchmarks.timing import in_turn, store
from ctm.core import versions
from ctm.layers.linear import product

SHAPES = [  # images, tokens, features in, features out: a block of ViT-B at 224 pixels, and one of the demo's
    (batch, tokens, wide, many * wide if grows else wide)
    for wide, tokens in ((768, 217), (96, 73))
    for batch in (1, 4, 32)
    for many, grows in ((1, True), (3, True), (4, True))
    if wide < 768 or batch < 32
]


def processor() -> str:
    "Name of the machine's processor."
    found = re.search(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    return found[1] if found else "unknown"


@torch.no_grad()
def measure_linear(
    repeats: int = 20,  # number of timed calls of each
) -> list[dict]:  # shape, GFLOP/s of torch and of ctm, ratio
    "Rates of one product at each shape, forward."
    lines = []
    for batch, tokens, wide, out in SHAPES:
        x, weight, bias = torch.randn(batch, tokens, wide), torch.randn(out, wide), torch.randn(out)
        calls = dict(torch=partial(F.linear, x, weight, bias), ctm=partial(product, x, weight, bias))
        seconds = {side: median(times) for side, times in in_turn(calls, repeats).items()}
        rates = {side: 2e-9 * batch * tokens * wide * out / time for side, time in seconds.items()}
        lines.append(dict(batch=batch, tokens=tokens, features=f"{wide} to {out}", **rates))
        lines[-1]["ratio"] = seconds["torch"] / seconds["ctm"]
    about = dict(threads=torch.get_num_threads(), processor=processor(), versions=versions())
    return [line | about for line in lines]


if __name__ == "__main__":
    found = measure_linear()
    for line in found:
        print({name: line[name] for name in ("batch", "tokens", "features", "torch", "ctm", "ratio")})
    print(found[0]["processor"], found[0]["threads"], "threads", store("linear", found))
