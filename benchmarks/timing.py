"""What every benchmark needs: calls in turn, memory of a process, and where measurements are kept."""

import json
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch

from ctm.core import repo_root, write_whole
from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT


def store(
    name: str,  # name of the file in figures/, without suffix
    lines: list[dict],  # measurements
) -> Path:  # the file
    "File of measurements that `ctm.reports` reads."
    path = repo_root() / "figures" / f"{name}.json"
    write_whole(path, json.dumps(lines, indent=1))
    return path


def training_step(
    model: torch.nn.Module,  # to be trained
    loss: Callable[[], torch.Tensor],  # forward
    use_fused: bool = True,  # AdamW's one kernel, as `ctm.train.trainer` has it, or torch's default
) -> Callable[[], None]:  # to be called again and again
    "Forward, backward, AdamW."
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=use_fused)

    def call():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return call


def step_and_maps(
    model: ClassTokenViT,  # of either layout
    image: torch.Tensor,  # (B, K, H, W)
    label: torch.Tensor,  # (B, C) multi-hot
    **of_maps,  # as `ClassTokenViT.attention_maps`
) -> dict[str, Callable]:  # step and maps, to be called again and again
    "A training step with Equation 1, and a batch's maps."
    loss = ClassTokenLoss(0.01)
    step = training_step(model, lambda: loss(model.train().training_logits(image, label), label, model)[0])
    return dict(step=step, maps=torch.no_grad()(lambda: model.eval().attention_maps(image, **of_maps)))


def in_turn(
    sides: dict[str, Callable],  # name -> call to be timed
    repeats: int = 5,  # number of timed calls of each
) -> dict[str, list[float]]:  # side -> seconds of each call
    "Seconds of calls made in turn (A B A B), after one call of each."
    seconds = {side: [] for side in sides}
    for turn in range(repeats + 1):
        for side, call in sides.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[side].append(time.perf_counter() - start)
    return seconds


def memory_of(
    call: Callable,  # call to be made twice
) -> str:  # JSON: GB of this process before the calls, and at their peak; Linux alone
    "Memory of the process, and its peak. `getrusage` would count the parent's memory before exec."
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    found = []
    for repeats, field in ((0, "VmRSS"), (2, "VmHWM")):
        for _ in range(repeats):
            call()
        found.append(int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 2**20)
    return json.dumps(found)
