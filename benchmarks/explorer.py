"""Milliseconds from each control of the explorer to the last picture: `python -m benchmarks.explorer`.

The model is the one that comes with the package; the measurements go to figures/explorer.json. Those of a folder that
`ctm.mask_folder` filled (`python -m benchmarks.explorer FOLDER --threads 2`) are printed; `--store` keeps them in
figures/explorer_folder.json.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from statistics import median

import torch

from benchmarks.timing import store
from ctm.core import versions
from ctm.explorer.app import Explore, explore
from ctm.train.config import CHOICES


def moves(
    panel: Explore,  # explorer at its start values
    repeats: int,  # number of changes of controls with many values
) -> dict[str, list[Callable]]:  # control -> changes, to be called one after another
    "Changes of every control."
    gh, gw = panel.explorer.look().maps.shape[1:]
    classes = len(panel.explorer.data.classes)
    values = {
        "image": range(1, repeats + 1),
        "token": [i % classes for i in range(repeats)],
        "threshold": ["value", "quantile", "mean"],
        "level": [0.1 * i for i in range(1, repeats)],
        "opacity": [0.1 * i for i in range(1, repeats)],
        "zoom": range(2, repeats + 1),
        "merge": CHOICES["merge"][::-1],
        "refine": CHOICES["refine"],
        "gated": [False, True],
        "use_evidence": [False, True],
    }
    found = {}
    for name, chosen in values.items():
        found[name] = [partial(setattr, panel.controls[name], "value", value) for value in chosen]
    found["patch"] = [partial(setattr, panel.pictures[0], "place", [i % gh, i % gw]) for i in range(1, repeats)]
    found["head"] = [partial(setattr, panel.grid, "place", place) for place in ([0, 1], [0, 3], [-1, -1])]
    found["compare"] = [partial(setattr, panel.folds["compare"][0], "value", value) for value in (True, False)]
    buttons = panel.layers.children[1:]
    found["layers"] = [partial(setattr, button, "value", value) for button in buttons for value in (True, False)]
    return found


def time_controls(
    panel: Explore,  # explorer at its start values
    repeats: int = 7,  # number of changes of controls with many values
) -> list[dict]:  # control, median and longest ms, number of changes, threads, device, versions
    "Milliseconds from each control's change to the last picture: the lines of figures/explorer.json."
    about = dict(threads=torch.get_num_threads(), device="cpu", versions=versions())
    changes = moves(panel, repeats)
    panel.controls["threshold"].value = "value"
    lines = []
    for name, calls in changes.items():
        times = [1000 * _seconds(call) for call in calls]
        line = dict(control=name, median_ms=round(median(times)), longest_ms=round(max(times)), changes=len(calls))
        lines.append(line | about)
    return lines


def _seconds(call: Callable) -> float:
    "Duration of a call."
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main() -> None:
    "Measurement of all controls."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.explorer", description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", help="folder of results; without it the model of the package")
    parser.add_argument("--store", action="store_true", help="keep the measurements of a folder, too")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    panel = explore(*filter(None, [given.folder]))
    size = " x ".join(map(str, panel.explorer.look().image.shape[1:]))
    lines = [dict(line, view=size) for line in time_controls(panel)]
    if given.folder is None or given.store:
        print(store("explorer_folder" if given.folder else "explorer", lines))
        return
    for line in lines:
        print(f"{line['control']}: {line['median_ms']} ms, longest {line['longest_ms']}")


if __name__ == "__main__":
    main()
