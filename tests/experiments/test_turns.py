"Two runs that share a fit take turns from end to end, whatever their method."

import os
import subprocess
import sys
from pathlib import Path

from ctm.experiments.results import load_results
from ctm.synthetic.sets import make_synthetic

ROOT = Path(__file__).resolve().parents[2]
RUN = """
import sys
import ctm
config = ctm.load_config("kvasir_seg", embed_dim=32, depth=3, num_heads=4, epochs=2)
ctm.run(config, root=sys.argv[1], method=sys.argv[2], again=True)
"""


def test_both_start_over(tmp_path):
    "Each deletes the fit and trains again; none deletes what the other is working on."
    data = make_synthetic("kvasir_seg", tmp_path / "data", n=8)
    env = os.environ | {"CTM_RUNS": str(tmp_path / "runs"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    start = lambda method: subprocess.Popen(  # noqa: E731
        [sys.executable, "-c", RUN, str(data), method], env=env, stderr=subprocess.PIPE, text=True
    )
    processes = [start(method) for method in ("cam", "grad_cam")]
    said = [process.communicate()[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert any("another run" in text for text in said), "they never met"
    results = load_results(tmp_path / "runs" / "results", "all")
    assert sorted(r.method for r in results) == ["cam", "grad_cam"]
    assert len(list(tmp_path.glob("runs/fits/*/masks/*.png"))) == 18 * 2
