"""Cost over classes, image size and batch, for the paper's layout and gentler ones: `python -m benchmarks.growth`."""

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from statistics import median

import torch

from benchmarks.timing import in_turn, memory_of, step_and_maps, store
from ctm.core import check_choice, repo_root, versions
from ctm.model import ClassTokenViT
from ctm.reports.speed import AXES, LAYOUTS, USUAL


def growth_calls(
    layout: str,  # of LAYOUTS
    num_classes: int = 20,  # C
    img_size: int = 224,  # side in pixels
    batch: int = 2,  # images
    **shape,  # as `ClassTokenViT`: another width or depth
) -> tuple[int, dict[str, Callable]]:  # parameters; a training step, and maps, to be called again and again
    "One point of a curve."
    check_choice("layout", layout, LAYOUTS)
    torch.manual_seed(0)
    model = ClassTokenViT(num_classes, img_size=img_size, **LAYOUTS[layout] | shape)
    image, label = torch.randn(batch, 3, img_size, img_size), (torch.rand(batch, num_classes) < 0.1).float()
    return sum(p.numel() for p in model.parameters()), step_and_maps(model, image, label)


def measure_growth(
    layouts: Sequence[str] = tuple(LAYOUTS),  # on the axis of classes; elsewhere the first and the last
    axes: dict[str, Sequence[int]] | None = None,  # None: AXES
    repeats: int = 3,  # timed calls of each
) -> list[dict]:  # layout, axis, value, parameters, step and maps in s, peak_gb of a step in a process of its own
    "All curves."
    lines = []
    for axis, values in (axes or AXES).items():
        for value in values:
            for layout in layouts if axis == "num_classes" else (layouts[0], layouts[-1]):
                point = USUAL | {axis: value}
                parameters, calls = growth_calls(layout, **point)
                seconds = {name: median(times) for name, times in in_turn(calls, repeats).items()}
                del calls
                line = dict(layout=layout, axis=axis, value=value, parameters=parameters) | point | seconds
                lines.append(line | dict(peak_gb=step_memory(layout, point)))
    about = dict(threads=torch.get_num_threads(), device="cpu", precision="float32", versions=versions())
    return [line | about for line in lines]


def step_memory(
    layout: str,  # of LAYOUTS
    point: dict,  # of `growth_calls`
) -> float:  # GB, of the whole process
    "Peak memory of two training steps."
    command = [sys.executable, "-m", "benchmarks.growth", "--memory", layout, json.dumps(point)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=repo_root())
    return json.loads(done.stdout)[1]


def main() -> None:
    "Measurement of all curves, or the memory of two training steps in this process."
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth", description="Cost over classes, size and batch"
    )
    parser.add_argument("--memory", nargs=2, metavar=("LAYOUT", "POINT"), help="memory of a step, as JSON")
    asked = parser.parse_args().memory
    if asked:
        layout, point = asked
        print(memory_of(growth_calls(layout, **json.loads(point))[1]["step"]))
    else:
        print(store("growth", measure_growth()))


if __name__ == "__main__":
    main()
