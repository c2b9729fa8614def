"""Speed and memory of ctm and of its naive twin, in turn: `python -m benchmarks.speed` writes figures/bench.json.

Times of different days cannot be compared, nor those of busy machines. So both sides run in turn in one process,
A B A B, after a warm-up, and their ratio is the median over the pairs. Peak memory needs a process for each side.
Beside both stands the floor: the operations of a call, counted by torch, over the best matrix-product rate of this
machine, measured in the same run, be it torch's own or that of `ctm.layers.linear`.
"""

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
from ctm.runtime.progress import Progress

BATCH = {"dfc2020": 4, "endotect": 1, "ade20k": 1, "voc2012 224": 4, "voc2012 448": 1}  # of a step; all else one image
SPARSITY = {"dfc2020": 0.69, "endotect": 0.79, "ade20k": 0.60}  # Table 8, lambda = 0.01; VOC as DFC2020


def close_heads(
    model: ClassTokenViT,  # model, changed in place
    share: float,  # share of heads to close, in [0, 1]
    seed: int = 0,  # seed of the choice
) -> ClassTokenViT:  # the same model
    "Model with a random share of its heads closed, for measurements without a training."
    layers = head_gates(model)
    gates = torch.cat([layer.log_alpha.data for layer in layers])
    chosen = torch.randperm(len(gates), generator=torch.Generator().manual_seed(seed))
    gates[chosen[: round(share * len(gates))]] = -1.0
    for layer, values in zip(layers, gates.split([len(layer.log_alpha) for layer in layers]), strict=True):
        layer.log_alpha.data = values.clone()
    return model


def both_sides(
    case: str,  # one of CASES
    task: str,  # one of TASKS
) -> dict[str, Callable[[], object]]:  # "ctm" and "naive", to be called again and again
    "The same work twice, on the same random input."
    check_choice("case", case, CASES)
    check_choice("task", task, TASKS)
    torch.manual_seed(0)
    shape = CASES[case]
    model = ClassTokenViT(**shape)
    image = torch.randn(_batch(case, task), shape["in_chans"], *shape["img_size"])
    if task == "step":
        return _steps(model, image)
    model.eval()
    if task == "forward":
        return _no_grad(lambda: model(image), lambda: naive_forward(model, image))
    if task == "masks":
        return _masks(model, image)
    if task == "maps":
        return _no_grad(lambda: model.attention_maps(image), lambda: naive_maps(model, image))
    small = prune_heads(close_heads(model, SPARSITY.get(case, SPARSITY["dfc2020"])))
    if task == "pruned maps":
        return _no_grad(lambda: small.attention_maps(image), lambda: naive_maps(model, image))
    return _no_grad(
        partial(_image_to_mask, small.attention_maps, pseudo_mask, image),
        partial(_image_to_mask, partial(naive_maps, model), naive_pseudo_mask, image),
    )


def _batch(case: str, task: str) -> int:
    "Number of images of a call."
    return BATCH[case] if task == "step" else 1


def _no_grad(ctm: Callable, naive: Callable) -> dict[str, Callable]:
    "Calls of both sides, without gradients."
    return dict(ctm=torch.no_grad()(ctm), naive=torch.no_grad()(naive))


def _steps(model: ClassTokenViT, image: torch.Tensor) -> dict[str, Callable]:
    "Training steps of both sides: forward, loss, backward, AdamW."
    loss = ClassTokenLoss(0.01)
    label = (torch.rand(len(image), model.num_classes) < 0.2).float()
    return dict(
        ctm=training_step(model, lambda: loss(model.training_logits(image, label), label, model)[0]),
        naive=training_step(model, lambda: naive_loss(model, image, label, 0.01), use_fused=False),
    )


def _masks(model: ClassTokenViT, image: torch.Tensor) -> dict[str, Callable]:
    "Pseudo-masks of one image with three classes, from maps that are there."
    with torch.no_grad():
        _, maps = model.attention_maps(image)
    size = tuple(image.shape[2:])
    prob = torch.zeros(1, model.num_classes)
    prob[0, :3] = torch.tensor([0.7, 0.8, 0.9])
    return _no_grad(lambda: pseudo_mask(maps, prob, size), lambda: naive_pseudo_mask(maps, prob, size))


def _image_to_mask(maps_of: Callable, paint: Callable, image: torch.Tensor) -> torch.Tensor:
    "Pseudo-mask of an image, its three likeliest classes taken as predicted."
    logits, maps = maps_of(image)
    prob = torch.zeros_like(logits).scatter(1, logits.topk(3).indices, torch.tensor([[0.9, 0.8, 0.7]]))
    return paint(maps, prob, tuple(image.shape[2:]))


def matmul_rates(
    tokens: int = 1024,  # number of rows
    width: int = 768,  # D
) -> dict[str, float]:  # operations per second, a multiplication and an addition are two
    "Best rates of this machine for a block's matrix products: torch's own, and that of `ctm.layers.linear`."
    x = torch.randn(2, tokens // 2, width)
    weight = torch.randn(4 * width, width)
    times = in_turn(dict(torch=lambda: F.linear(x, weight), ctm=lambda: product(x, weight, None)), repeats=20)
    return {side: 2 * tokens * width * 4 * width / min(values) for side, values in times.items()}


def copy_rate(
    megabytes: int = 256,  # size of the copy
) -> float:  # bytes per second, read and written
    "Memory bandwidth as a copy sees it."
    source = torch.zeros(megabytes * 2**18)
    target = torch.empty_like(source)
    seconds = in_turn(dict(copy=lambda: target.copy_(source)), repeats=5)["copy"]
    return 2 * 4 * source.numel() / min(seconds)


def operations(
    call: Callable,  # call of one side
) -> int:  # multiplications and additions in matrix products, convolutions and attention
    "Number of operations that a call must compute, as torch counts them."
    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def measure(
    case: str,  # one of CASES
    task: str,  # one of TASKS
    repeats: int = 5,  # number of timed calls of each side
) -> dict:  # seconds, loaded_gb and peak_gb per side, ratio, operations, rates, threads, versions
    "Measurement of one case and task: one line of figures/bench.json."
    sides = both_sides(case, task)
    rates = matmul_rates()
    bandwidth = copy_rate()
    seconds = in_turn(sides, repeats)
    memory = {side: peak(case, task, side) for side in sides}
    return dict(
        case=case,
        task=task,
        batch=_batch(case, task),
        ratio=median(naive / ctm for ctm, naive in zip(seconds["ctm"], seconds["naive"], strict=True)),
        operations=operations(sides["ctm"]),
        seconds={side: median(values) for side, values in seconds.items()},
        bytes=_moved(case, task),
        loaded_gb={side: before for side, (before, _) in memory.items()},
        peak_gb={side: most for side, (_, most) in memory.items()},
        matmul_rates=rates,
        copy_rate=bandwidth,
        threads=torch.get_num_threads(),
        repeats=repeats,
        device="cpu",
        precision="float32",
        versions=versions(),
    )


def _moved(case: str, task: str) -> int:
    "Bytes of weights that a call must move; a step reads and writes weights, gradients and two moments."
    weights = 4 * sum(p.numel() for p in ClassTokenViT(**CASES[case]).parameters())
    return {"step": 12 * weights, "masks": 0}.get(task, weights)


def peak(
    case: str,  # one of CASES
    task: str,  # one of TASKS
    side: str,  # "ctm" or "naive"
) -> tuple[float, float]:  # GB of a process with Python, torch and the weights; GB at its peak
    "Memory of two calls, in a process of their own."
    command = [sys.executable, "-m", "benchmarks.speed", "--memory", case, task, side]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=repo_root())
    return tuple(json.loads(done.stdout))


def main() -> None:
    "Measurement of all cases and tasks, or (hidden) the memory of one side in this process."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__.split("\n")[0])
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    asked = parser.parse_args().memory
    if asked:
        case, task, side = asked
        print(memory_of(both_sides(case, task)[side]))
        return
    pairs = [(case, task) for case in CASES for task in TASKS]
    print(store("bench", [measure(case, task) for case, task in Progress(pairs, desc="measuring")]))


if __name__ == "__main__":
    main()
