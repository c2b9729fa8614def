"""Cost over classes, image size and batch, for the paper's layout and gentler ones: `python -m benchmarks.growth`.

The paper's classifier has C x C x D weights, and each of its C class tokens passes through every block and is read by
all others. Three options grow more gently; each is measured alone and all together, as ViT-B/16. The measurements go
to figures/growth.json.
"""

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
from ctm.runtime.progress import Progress


def growth_calls(
    layout: str,  # one of LAYOUTS
    num_classes: int = 20,  # C
    img_size: int = 224,  # side of an image in pixels
    batch: int = 2,  # number of images
    **shape,  # options of `ClassTokenViT`: another width or depth
) -> tuple[int, dict[str, Callable]]:  # number of parameters; "step" and "maps", to be called again and again
    "One point of a curve: the model's size, and the calls to be timed."
    check_choice("layout", layout, LAYOUTS)
    torch.manual_seed(0)
    model = ClassTokenViT(num_classes, img_size=img_size, **LAYOUTS[layout] | shape)
    image = torch.randn(batch, 3, img_size, img_size)
    label = (torch.rand(batch, num_classes) < 0.1).float()
    return sum(p.numel() for p in model.parameters()), step_and_maps(model, image, label)


def measure_growth(
    layouts: Sequence[str] = tuple(LAYOUTS),  # layouts on the axis of classes; elsewhere the first and the last
    axes: dict[str, Sequence[int]] | None = None,  # values of each axis; None: AXES
    repeats: int = 3,  # number of timed calls of each
    **shape,  # options of `ClassTokenViT`: another width or depth
) -> list[dict]:  # layout, axis, value, parameters, step and maps in s, peak_gb of a step in a process of its own
    "Measurements of all curves: the lines of figures/growth.json."
    about = dict(threads=torch.get_num_threads(), device="cpu", precision="float32", versions=versions())
    lines = []
    for axis, value, layout in Progress(_places(layouts, axes or AXES), desc="measuring"):
        point = USUAL | {axis: value}
        parameters, calls = growth_calls(layout, **point, **shape)
        seconds = {name: median(times) for name, times in in_turn(calls, repeats).items()}
        del calls  # else the next model is made beside this one
        line = dict(layout=layout, axis=axis, value=value, parameters=parameters) | point | seconds
        line["peak_gb"] = step_memory(layout, point | shape)
        lines.append(line | about)
    return lines


def _places(layouts: Sequence[str], axes: dict[str, Sequence[int]]) -> list[tuple[str, int, str]]:
    "Axis, value and layout of every point."
    ends = (layouts[0], layouts[-1])
    return [
        (axis, value, layout)
        for axis, values in axes.items()
        for value in values
        for layout in (layouts if axis == "num_classes" else ends)
    ]


def step_memory(
    layout: str,  # one of LAYOUTS
    point: dict,  # options of `growth_calls`
) -> float:  # GB of the whole process
    "Peak memory of two training steps, in a process of their own."
    command = [sys.executable, "-m", "benchmarks.growth", "--memory", layout, json.dumps(point)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=repo_root())
    return json.loads(done.stdout)[1]


def main() -> None:
    "Measurement of all curves, or (hidden) the memory of two training steps in this process."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__.split("\n")[0])
    parser.add_argument("--memory", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args().memory
    if asked:
        layout, point = asked
        print(memory_of(growth_calls(layout, **json.loads(point))[1]["step"]))
        return
    print(store("growth", measure_growth()))


if __name__ == "__main__":
    main()
