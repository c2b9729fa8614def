"""Tools of every benchmark: calls timed in turn, memory of a process, and the file that keeps the measurements."""

import json
import os
import re
import tempfile
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


def store_missing(
    name: str,  # name of the file in figures/, without suffix
    runs: dict[str, Callable[[], dict]],  # name of a line -> call that measures it; the line has that name
) -> list[dict]:  # all lines of the file
    "Measurements that the file does not have yet, stored one by one; kept features serve all of them."
    file = repo_root() / "figures" / f"{name}.json"
    lines = json.loads(file.read_text()) if file.exists() else []
    with tempfile.TemporaryDirectory() as kept:
        os.environ.setdefault("CTM_RUNS", kept)
        for line, run in runs.items():
            if line not in {known["name"] for known in lines}:
                lines.append(run())
                store(name, lines)
    return lines


def in_turn(
    sides: dict[str, Callable],  # name -> call to be timed
    repeats: int = 5,  # number of timed calls of each
) -> dict[str, list[float]]:  # name -> seconds of each call
    "Seconds of calls made in turn (A B A B), after one call of each."
    seconds = {side: [] for side in sides}
    for turn in range(repeats + 1):
        for side, call in sides.items():
            start = time.perf_counter()
            call()
            if turn:
                seconds[side].append(time.perf_counter() - start)
    return seconds


def training_step(
    model: torch.nn.Module,  # model to be trained
    loss: Callable[[], torch.Tensor],  # forward pass and loss
    use_fused: bool = True,  # whether AdamW is one kernel, as in `ctm.train.trainer`, or torch's default
) -> Callable[[], None]:  # step, to be called again and again
    "Training step: forward, backward, AdamW."
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), fused=use_fused)

    def call():
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()

    return call


def step_and_maps(
    model: ClassTokenViT,  # model of any layout
    image: torch.Tensor,  # image batch (B, K, H, W)
    label: torch.Tensor,  # image-level labels (B, C) multi-hot
    **of_maps,  # options of `ClassTokenViT.attention_maps`
) -> dict[str, Callable]:  # "step" and "maps", to be called again and again
    "Training step with Equation 1, and maps of a batch."
    loss = ClassTokenLoss(0.01)
    step = training_step(model, lambda: loss(model.train().training_logits(image, label), label, model)[0])
    maps = torch.no_grad()(lambda: model.eval().attention_maps(image, **of_maps))
    return dict(step=step, maps=maps)


def process_gb(
    field: str,  # field of /proc/self/status, such as "VmRSS"
) -> float:  # GB
    "Memory of this process as the system counts it (Linux alone)."
    status = Path("/proc/self/status").read_text()
    return int(re.search(rf"{field}:\s+(\d+) kB", status)[1]) / 2**20


def memory_of(
    call: Callable,  # call to be made twice
) -> str:  # JSON: GB of this process before the calls, and at their peak
    "Memory before and during two calls; `getrusage` would count the parent's memory before exec (Linux alone)."
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = process_gb("VmRSS")
    call()
    call()
    return json.dumps([before, process_gb("VmHWM")])
