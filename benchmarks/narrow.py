"""Why more images of a class do not make masks better: `python -m benchmarks.narrow --samples FOLDER`.

Photographs of three animals are fitted, 10 and 300 of each. Masks of photographs that the fit has not seen are scored
at the cells of the stem, by given labels: the first maps, and what each round of self-training makes of them. Beside
the mean IoU stands the area of all objects in the masks over their true area. The first round is run once more with
maps that are cut lower. FOLDER holds `voc2012_real`; figures/narrow.json keeps what was measured.
"""

import argparse
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import ctm
from benchmarks.timing import store_missing
from benchmarks.verdict import curve_plan
from ctm.core import IGNORE, versions
from ctm.data.dataset import ImageDataset
from ctm.layers.cells import competing_maps
from ctm.metrics import SegmentationScores
from ctm.train import rounds
from ctm.train.teachers import Shown, activation, as_kept, at_middles, first_maps, own_cuts, seen_images

COUNTS, SEEDS, LOWER = (10, 300), (0, 1), 0.7


def scores_at_cells(
    model: nn.Module,  # trained model on a frozen stem
    data: ImageDataset,  # photographs with masks
    kinds: dict[str, Callable[[Shown], Tensor]],  # name -> class of each cell (B, gh, gw), the number of classes = none
) -> dict[str, dict]:  # name -> miou, area
    "Mean IoU of cells, and the area of all objects over their true one."
    none = len(data.classes)
    found = {kind: [SegmentationScores(none + 1), 0, 0] for kind in kinds}
    values = torch.full((256,), IGNORE)
    values[[data.background, *(v for v in range(none + 1) if v != data.background)]] = torch.tensor(
        [none, *range(none)]
    )
    first = 0
    for seen in seen_images(model, as_kept(model, data), "scores"):
        masks = [torch.from_numpy(data.read(i)[1].copy()) for i in range(first, first + len(seen.label))]
        first += len(masks)
        truth = values[at_middles(torch.stack(masks), model.patch_embed).long()]
        truth[~seen.inside] = IGNORE
        for kind, classify in kinds.items():
            cells = classify(seen)
            found[kind][0].update(cells, truth)
            found[kind][1] += int(((cells < none) & (truth != IGNORE)).sum())
            found[kind][2] += int((truth < none).sum())
    return {kind: dict(miou=s.compute()["miou"].item(), area=area / true) for kind, (s, area, true) in found.items()}


def _name(count: int, seed: int) -> str:
    return f"{count} images a class, seed {seed}"


def measure(
    samples: Path,  # folder of real images
    count: int,  # number of training images of each class
    seed: int,  # seed of the choice of images and of the fit
) -> dict:  # line of figures/narrow.json
    "Scores of the first maps and of each round, of one fit."
    with tempfile.TemporaryDirectory() as folder:
        plan = curve_plan(samples, Path(folder), count, seed, scored=1000)
        model = ctm.train_folder(plan, seed)[0].model.eval()
        (home,) = (path.parent for path in plan.out.glob("fits/*/cells-1.safetensors"))
        train = as_kept(model, plan.train)
        weight = activation(model, train)[0]

        def cut_at(share: float) -> Callable[[Shown], tuple[Tensor, Tensor]]:
            def read(seen: Shown) -> tuple[Tensor, Tensor]:
                maps = first_maps(model, weight, seen)
                return maps, share * own_cuts(maps, seen.inside)

            return read

        def by_cells(seen: Shown) -> Tensor:
            maps = competing_maps(model.cells, model.patch_embed, seen.maps, seen.label, walks=True)
            return rounds._targets(maps, seen.label, 0.5)

        def by_first(seen: Shown) -> Tensor:
            maps, cut = cut_at(1.0)(seen)
            return rounds._targets(maps, seen.label, cut)

        with torch.no_grad():
            found = scores_at_cells(model, plan.val, {"first maps": by_first, "round 2": by_cells})
            rounds._load_cells(model, home / "cells-1.safetensors")
            found |= scores_at_cells(model, plan.val, {"round 1": by_cells})
        generator = torch.Generator().manual_seed(seed)
        drawn = rounds._taught(model, train, cut_at(LOWER), generator, "cells, cut lower,")
        torch.manual_seed(seed)
        rounds.add_cells(model, rounds._WIDTH)
        model.cells.has_background.fill_(True)
        rounds.fit_cells(model.cells, drawn, rounds._EPOCHS[0], generator)
        with torch.no_grad():
            found |= scores_at_cells(model, plan.val, {f"round 1, cut at {LOWER}": by_cells})
    line = dict(name=_name(count, seed), count=count, seed=seed, scores=found)
    return line | dict(config=plan.config.stored(), versions=versions())


def main() -> None:
    "Fits that are not in the file yet."
    parser = argparse.ArgumentParser(prog="python -m benchmarks.narrow", description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=Path, required=True, help="folder of `voc2012_real`")
    samples = parser.parse_args().samples
    fits = list(product(SEEDS, COUNTS))
    lines = store_missing(
        "narrow", {_name(count, seed): partial(measure, samples, count, seed) for seed, count in fits}
    )
    for count, kind in product(COUNTS, lines[0]["scores"]):
        runs = [line["scores"][kind] for line in lines if line["count"] == count]
        miou, area = (np.mean([run[name] for run in runs]) for name in ("miou", "area"))
        print(f"{count} images a class, {kind}: {100 * miou:.1f} mIoU, area {area:.2f} of the true one")


if __name__ == "__main__":
    main()
