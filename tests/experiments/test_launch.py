"Two processes do what one does: the same weights to 1e-3, the same scores, every mask once."

import json
import os
import subprocess
import sys

import pytest

from ctm.experiments import launch
from ctm.experiments.launch import _launch, launch_run
from ctm.experiments.results import load_results
from ctm.experiments.run import run
from ctm.runtime import progress
from ctm.synthetic.sets import make_synthetic
from ctm.train.config import load_config
from tests.tools import ROOT

SIZES = (16, 25)  # of batches; 72 tiles: whole batches and an odd rest
SCRIPT = "import sys; from tests.experiments.test_launch import run_sizes; run_sizes(*sys.argv[1:])"


def run_sizes(root, runs):
    for size in SIZES:
        os.environ["CTM_RUNS"] = f"{runs}/{size}"
        tiny = dict(embed_dim=32, depth=2, num_heads=4, epochs=3, batch_size=size)
        run(load_config("kvasir_seg", "demo", **tiny), seed=0, root=root)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    "Folders of runs by this process and by two: number of processes -> folder. One start does all sizes."
    place = tmp_path_factory.mktemp("launch")
    data = make_synthetic("kvasir_seg", place / "data", n=8)
    found = {processes: place / f"by-{processes}" for processes in (1, 2)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTM_RUNS", "")  # is set back in the end
        run_sizes(data, found[1])
    script = place / "run.py"
    script.write_text(SCRIPT)
    by_two = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [sys.executable, *by_two, script, data, found[2]]
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(list(map(str, command)), env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[max(done.stderr.find("Traceback"), 0) :][:3000]
    return found


def test_processes_that_are_started_are_heard_while_they_work(capsys, monkeypatch):
    monkeypatch.setattr(progress, "get_ipython", lambda: None)  # a notebook that was tested before leaves its shell
    talk = "import sys, time; print('a warning', 'ctm: fitting: 9 steps', sep=chr(10), file=sys.stderr, flush=True)"
    code, said = _launch([sys.executable, "-c", f"{talk}; time.sleep(0.5); sys.exit(3)"])
    assert (code, said) == (3, "a warning\nctm: fitting: 9 steps\n")
    assert capsys.readouterr().err == "ctm: fitting: 9 steps\n"


def test_processes_that_fail_are_quoted(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(launch, "_launch", lambda command: (1, "a line\nTraceback: out of memory\n"))
    data = make_synthetic("kvasir_seg", tmp_path / "data", n=4)
    with pytest.raises(RuntimeError, match="2 processes failed:\nTraceback: out of memory"):
        launch_run(load_config("kvasir_seg", "demo", embed_dim=32, depth=2, num_heads=4), root=data, processes=2)


@pytest.mark.xdist_group("launch")
@pytest.mark.parametrize("batch_size", SIZES)
def test_two_processes_are_one(batch_size, runs):
    found = {}
    for processes in (1, 2):
        place = runs[processes] / str(batch_size)
        (found[processes],) = load_results(place / "results")
        assert len(list(place.glob("fits/*/masks/*.png"))) == 9 * 2
        assert found[processes].extra["processes"] == processes
        json.loads(next(place.glob("results/*.json")).read_text())
    for name in ("classifier_accuracy", "pixel_accuracy", "miou", "sparsity"):
        assert found[1].metrics[name] == pytest.approx(found[2].metrics[name], abs=1e-3), name
