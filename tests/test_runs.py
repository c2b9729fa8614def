"Whole runs: killed and resumed, refused, on real files; and what no notebook can show about memory."

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctm.experiments.results import load_results
from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT
from ctm.synthetic.sets import make_synthetic

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import sys
from ctm.train.config import load_config
from ctm.experiments.run import run
tiny = dict(embed_dim=32, depth=2, num_heads=4, epochs=6)
run(load_config("kvasir_seg", "demo", **tiny), seed=0, root=sys.argv[1])
"""


@pytest.fixture(scope="module")
def polyps(tmp_path_factory):
    return make_synthetic("kvasir_seg", tmp_path_factory.mktemp("data"), n=24)


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
