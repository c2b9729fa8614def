"Whole runs: killed and resumed, refused, on real files; and what no notebook can show about memory."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctm.config import load_config, load_dataset
from ctm.data import Tiles
from ctm.datasets.dfc2020 import Dfc2020
from ctm.datasets.kvasir_seg import KvasirSeg
from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT
from ctm.results import load_results
from ctm.synthetic import make

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples"
RUN = """
import sys
from ctm.config import load_config
from ctm.experiment import run
tiny = dict(embed_dim=32, depth=2, num_heads=4, epochs=6)
run(load_config("kvasir_seg", "demo", **tiny), seed=0, root=sys.argv[1])
"""


@pytest.fixture(scope="module")
def polyps(tmp_path_factory):
    return make("kvasir_seg", tmp_path_factory.mktemp("data"), n=24)


def start(data, runs):
    env = os.environ | {"CTM_RUNS": str(runs)}
    return subprocess.Popen([sys.executable, "-c", RUN, str(data)], env=env, stderr=subprocess.DEVNULL)


# Killed and resumed


def test_killed_run_ends_as_if_never_killed(polyps, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(polyps, whole).wait() == 0
    kills = 0
    for _ in range(3):
        process = start(polyps, cut)
        before = {p: p.stat().st_mtime_ns for p in cut.glob("fits/*/last.ckpt")}
        while process.poll() is None and before == {p: p.stat().st_mtime_ns for p in cut.glob("fits/*/last.ckpt")}:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert kills >= 2, "the run was too fast to be killed"
    assert not list(cut.glob("results/*.json")), "a killed run left a result"
    assert start(polyps, cut).wait() == 0
    (a,), (b,) = load_results(whole / "results"), load_results(cut / "results")
    assert a.metrics == b.metrics and a.extra == b.extra
    assert len(list(cut.glob("fits/*/masks/*.png"))) == 9 * 6
    assert not list(cut.rglob("fits/*/.masks")), "half-written masks were left"


# Refused before any work


@pytest.mark.parametrize(
    "parameter, message",
    [
        (["dataset", "dfc"], "dataset='dfc' is unknown"),
        (["lam", "-1"], "lam=-1.0 is out of range"),
        (["lamda", "0.1"], "parameter='lamda' is unknown"),
        (["root", "/nowhere"], "/nowhere/ROIs0000_validation: no DFC2020 labels"),
    ],
)
def test_papermill_refuses(parameter, message, tmp_path):
    command = [
        sys.executable,
        "-m",
        "papermill",
        "nbs/sensitivity.ipynb",
        str(tmp_path / "out.ipynb"),
        "-p",
        *parameter,
    ]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 1
    assert message in done.stderr


# No N x N matrix, in training or inference


class Largest(TorchDispatchMode):
    "Remembers tensors whose last two sides both reach a limit."

    def __init__(self, limit):
        super().__init__()
        self.limit, self.found = limit, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and min(tensor.shape[-2:]) >= self.limit:
                self.found.append((str(function), tuple(tensor.shape)))
        return out


def test_no_attention_matrix_is_held():
    model = ClassTokenViT(4, img_size=(128, 160), patch_size=4, embed_dim=16, depth=2, num_heads=2)
    image, label, tokens = torch.randn(1, 3, 128, 160), torch.ones(1, 4), 32 * 40 + 5
    with Largest(tokens) as seen:
        ClassTokenLoss(0.01)(model(image, label), label, model)[0].backward()
        model.eval().attention_maps(image)
    assert not seen.found
    with Largest(tokens) as seen:  # the watch itself works
        torch.zeros(1, tokens, 8) @ torch.zeros(1, 8, tokens)
    assert seen.found


# Real files


@pytest.mark.skipif(not SAMPLES.exists(), reason="no real samples beside the project")
def test_real_endoscopy():
    root = SAMPLES / "endotect" / "Kvasir-SEG_effisegnet352"
    train, val = KvasirSeg(root, "train"), KvasirSeg(root, "val")
    assert (len(train), len(val)) == (800, 100)
    tiles = Tiles(val, 64)
    labels = torch.stack([tiles[i]["label"] for i in range(90)])
    assert len(tiles) == 900 and 0.2 < labels[:, 1].mean() < 0.6
    assert all(torch.isfinite(tiles[i]["image"]).all() for i in range(9))
    assert load_dataset(load_config("kvasir_seg"), "val", root).embedded is False


@pytest.mark.skipif(not SAMPLES.exists(), reason="no real samples beside the project")
def test_real_sentinel(tmp_path):
    scenes = sorted((SAMPLES / "dfc2020" / "sen12ms_cr").glob("*/s2_*/*.tif"))
    assert scenes
    for patch, s2 in enumerate(scenes):
        s1 = Path(str(s2).replace("/s2_", "/s1_").replace("_s2_", "_s1_"))
        for sensor, file in dict(s2=s2, s1=s1).items():
            folder = tmp_path / "ROIs0000_test" / f"{sensor}_0"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"ROIs0000_test_{sensor}_0_p{patch}.tif").symlink_to(file)
        folder = tmp_path / "ROIs0000_test" / "dfc_0"
        folder.mkdir(parents=True, exist_ok=True)
        label = folder / f"ROIs0000_test_dfc_0_p{patch}.tif"
        with rasterio.open(label, "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8") as out:
            out.write(np.full((1, 256, 256), 10, np.uint8))
    for sample in Dfc2020(tmp_path):
        assert sample["image"].shape == (15, 256, 256) and torch.isfinite(sample["image"]).all()
        assert sample["image"].abs().mean() < 5, "far from the published band statistics"
        assert sample["label"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
