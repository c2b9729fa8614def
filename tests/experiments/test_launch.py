"Two processes do what one does: the same weights to 1e-3, the same scores, every mask once."

import json
import os
import subprocess
import sys

import pytest

from ctm.experiments.results import load_results
from ctm.synthetic.sets import make_synthetic
from tests.tools import ROOT

RUN = """
import sys
from ctm.train.config import load_config
from ctm.experiments.run import run
tiny = dict(embed_dim=32, depth=2, num_heads=4, epochs=3, batch_size=int(sys.argv[2]))
run(load_config("kvasir_seg", "demo", **tiny), seed=0, root=sys.argv[1])
"""


@pytest.mark.parametrize("batch_size", [16, 25])  # 72 tiles: whole batches and an odd rest
def test_two_processes_are_one(batch_size, tmp_path):
    data = make_synthetic("kvasir_seg", tmp_path / "data", n=8)
    script = tmp_path / "run.py"
    script.write_text(RUN)
    found = {}
    for processes in (1, 2):
        runs = tmp_path / f"by-{processes}"
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *(launch if processes > 1 else []), str(script), str(data), str(batch_size)]
        env = os.environ | {"CTM_RUNS": str(runs), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        (found[processes],) = load_results(runs / "results")
        assert len(list(runs.glob("fits/*/masks/*.png"))) == 9 * 2
        assert found[processes].extra["processes"] == processes
        json.loads(next(runs.glob("results/*.json")).read_text())
    for name in ("classifier_accuracy", "pixel_accuracy", "miou", "sparsity"):
        assert found[1].metrics[name] == pytest.approx(found[2].metrics[name], abs=1e-3), name
