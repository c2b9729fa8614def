"""Milliseconds from each control of the explorer to the last picture: `python -m benchmarks.explorer`."""

import time
from functools import partial
from statistics import median

import torch

from benchmarks.timing import store
from ctm.checkpoint import load_model
from ctm.core import versions
from ctm.experiments.run import run, run_of
from ctm.explorer.app import Explore, explore
from ctm.explorer.state import CHOICES
from ctm.train.config import load_config


def time_controls(
    panel: Explore,  # at its start values
    repeats: int = 7,  # changes of each control
) -> list[dict]:  # control, median and longest ms, threads, versions
    "Milliseconds from each control's change to the last picture."
    data, (gh, gw) = panel.explorer.data, panel.explorer.look().maps.shape[1:]
    values = dict(image=range(1, repeats + 1), token=[i % len(data.classes) for i in range(repeats)])
    values |= dict(threshold=["value", "quantile", "mean"], level=[0.1 * i for i in range(1, repeats)])
    values |= dict(
        merge=CHOICES["merge"][::-1], refine=CHOICES["refine"], gated=[False, True], use_evidence=[False, True]
    )
    moves = {name: [partial(setattr, panel.controls[name], "value", v) for v in own] for name, own in values.items()}
    moves["patch"] = [partial(setattr, panel.pictures[0], "place", [i % gh, i % gw]) for i in range(1, repeats)]
    moves["head"] = [partial(setattr, panel.grid, "place", place) for place in ([0, 1], [0, 3], [-1, -1])]
    moves["layers"] = [partial(setattr, b, "value", v) for b in panel.layers.children[1:] for v in (True, False)]
    lines = []
    panel.controls["threshold"].value = "value"
    for name, calls in moves.items():
        seconds = []
        for call in calls:
            start = time.perf_counter()
            call()
            seconds.append(time.perf_counter() - start)
        lines.append(dict(control=name, median_ms=round(1000 * median(seconds)), longest_ms=round(1000 * max(seconds))))
    about = dict(threads=torch.get_num_threads(), device="cpu", versions=versions())
    return [line | dict(changes=len(moves[line["control"]])) | about for line in lines]


if __name__ == "__main__":
    config = load_config("voc2012", "demo+sharp")
    run(config)
    one = run_of(config)
    print(store("explorer", time_controls(explore(load_model(one.model_file), one.load("val"), config=config))))
