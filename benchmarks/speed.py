"""Speed and memory of ctm and of its naive twin, in turn: `python -m benchmarks.speed` writes figures/bench.json."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.naive import naive_forward, naive_loss, naive_maps, naive_pseudo_mask
from benchmarks.timing import in_turn, memory_of, store, training_step
from ctm.core import check_choice, repo_root, versions
from ctm.layers.linear import product
from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT
from ctm.pruning import head_gates, prune_heads
from ctm.pseudomask import pseudo_mask
from ctm.reports.speed import CASES, TASKS

BATCH = {"dfc2020": 4, "endotect": 1, "ade20k": 1, "voc2012 224": 4, "voc2012 448": 1}  # of a step; all else one image


SPARSITY = {"dfc2020": 0.69, "endotect": 0.79, "ade20k": 0.60}  # Table 8, lambda = 0.01; VOC as DFC2020


def close_heads(
    model: ClassTokenViT,  # changed in place
    share: float,  # of heads to close, in [0, 1]
    seed: int = 0,  # which ones
) -> ClassTokenViT:  # the same model
    "Close a random share of the heads, for measurements without a training."
    gates = torch.cat([g.log_alpha.data for g in head_gates(model)])
    closed = torch.randperm(len(gates), generator=torch.Generator().manual_seed(seed))[: round(share * len(gates))]
    gates[closed] = -1.0
    for gate, values in zip(head_gates(model), gates.split([len(g.log_alpha) for g in head_gates(model)]), strict=True):
        gate.log_alpha.data = values.clone()
    return model


def both_sides(
    case: str,  # of CASES
    task: str,  # of TASKS
) -> dict[str, Callable[[], object]]:  # ctm and naive: to be called again and again
    "The same work twice, on the same random input."
    check_choice("case", case, CASES)
    check_choice("task", task, TASKS)
    torch.manual_seed(0)
    shape, batch = CASES[case], BATCH[case] if task == "step" else 1
    model, image = ClassTokenViT(**shape), torch.randn(batch, shape["in_chans"], *shape["img_size"])
    if task == "step":
        return _steps(model, image)
    model.eval()
    if task == "masks":
        return _masks(model, image)
    if task == "forward":
        return _no_grad(lambda: model(image), lambda: naive_forward(model, image))
    small = model
    if task != "maps":
        small = prune_heads(close_heads(model, SPARSITY.get(case, SPARSITY["dfc2020"])))
    if task != "end to end":
        return _no_grad(lambda: small.attention_maps(image), lambda: naive_maps(model, image))
    size = tuple(image.shape[2:])
    ctm = partial(_image_to_mask, small.attention_maps, pseudo_mask, image, size)
    return _no_grad(ctm, partial(_image_to_mask, partial(naive_maps, model), naive_pseudo_mask, image, size))


def _image_to_mask(maps_of: Callable, paint: Callable, image: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    "The pseudo-mask of an image, its three likeliest classes taken as predicted."
    logits, maps = maps_of(image)
    prob = torch.zeros_like(logits).scatter(1, logits.topk(3).indices, torch.tensor([[0.9, 0.8, 0.7]]))
    return paint(maps, prob, size)


def _no_grad(ctm: Callable, naive: Callable) -> dict[str, Callable]:
    "Both without gradients."
    return dict(ctm=torch.no_grad()(ctm), naive=torch.no_grad()(naive))


def _steps(model: ClassTokenViT, image: torch.Tensor) -> dict[str, Callable]:
    "Training steps: forward, loss, backward, AdamW."
    loss, label = ClassTokenLoss(0.01), (torch.rand(len(image), model.num_classes) < 0.2).float()
    ctm = training_step(model, lambda: loss(model.training_logits(image, label), label, model)[0])
    return dict(ctm=ctm, naive=training_step(model, lambda: naive_loss(model, image, label, 0.01), use_fused=False))


def _masks(model: ClassTokenViT, image: torch.Tensor) -> dict[str, Callable]:
    "Pseudo-masks of one image with three classes, from maps that are there."
    with torch.no_grad():
        _, maps = model.attention_maps(image)
    prob, size = torch.zeros(1, model.num_classes), tuple(image.shape[2:])
    prob[0, :3] = torch.tensor([0.7, 0.8, 0.9])
    return _no_grad(lambda: pseudo_mask(maps, prob, size), lambda: naive_pseudo_mask(maps, prob, size))


def matmul_rates(
    tokens: int = 1024,  # rows
    width: int = 768,  # D
) -> dict[str, float]:  # operations per second, a multiplication and an addition are two
    "The best rates of this machine for a block's matrix products: torch's own, and `ctm.layers.linear`'."
    x, weight = torch.randn(2, tokens // 2, width), torch.randn(4 * width, width)
    sides = dict(torch=lambda: F.linear(x, weight), ctm=lambda: product(x, weight, None))
    times = in_turn(sides, repeats=20)
    return {side: 2 * tokens * width * 4 * width / min(values) for side, values in times.items()}


def copy_rate(
    megabytes: int = 256,  # copied
) -> float:  # bytes per second, read and written
    "Memory bandwidth as a copy sees it."
    source = torch.zeros(megabytes * 2**18)
    target = torch.empty_like(source)
    return 2 * 4 * source.numel() / min(in_turn(dict(copy=lambda: target.copy_(source)), repeats=5)["copy"])


def operations(
    call: Callable,  # one side
) -> int:  # multiplications and additions in matrix products, convolutions and attention
    "What a call must compute, as torch counts it."
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def measure(
    case: str,  # of CASES
    task: str,  # of TASKS
    repeats: int = 5,  # timed calls of each side
) -> dict:  # seconds, loaded_gb and peak_gb per side, ratio, operations, rates, threads, versions
    "One line of the benchmark."
    sides = both_sides(case, task)
    rates, bandwidth = matmul_rates(), copy_rate()
    seconds, count = in_turn(sides, repeats), operations(sides["ctm"])
    weights = sum(p.numel() for p in ClassTokenViT(**CASES[case]).parameters()) * 4
    moved = {"step": 12 * weights, "masks": 0}.get(task, weights)  # a step reads and writes weights, gradients, moments
    ratio = median(b / a for a, b in zip(seconds["ctm"], seconds["naive"], strict=True))
    found = dict(case=case, task=task, batch=BATCH[case] if task == "step" else 1, ratio=ratio, operations=count)
    found |= dict(seconds={side: median(values) for side, values in seconds.items()}, bytes=moved)
    memory = {side: peak(case, task, side) for side in sides}
    found |= dict(loaded_gb={side: before for side, (before, _) in memory.items()})
    found |= dict(peak_gb={side: most for side, (_, most) in memory.items()}, matmul_rates=rates, copy_rate=bandwidth)
    found |= dict(threads=torch.get_num_threads(), repeats=repeats)
    return found | dict(device="cpu", precision="float32", versions=versions())


def peak(
    case: str,  # of CASES
    task: str,  # of TASKS
    side: str,  # "ctm" or "naive"
) -> tuple[float, float]:  # GB of a process with Python, torch and the weights; GB at its peak
    "Memory of two calls, in a process of their own."
    command = [sys.executable, "-m", "benchmarks.speed", "--memory", case, task, side]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=repo_root())
    return tuple(json.loads(done.stdout))


def main() -> None:
    "Measurement of all cases and tasks, or the memory of one side in this process."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description="ctm beside its naive twin")
    parser.add_argument("--memory", nargs=3, metavar=("CASE", "TASK", "SIDE"), help="memory of one side, as JSON")
    asked = parser.parse_args().memory
    if asked:
        case, task, side = asked
        print(memory_of(both_sides(case, task)[side]))
    else:
        print(store("bench", [measure(case, task) for case in CASES for task in TASKS]))


if __name__ == "__main__":
    main()
