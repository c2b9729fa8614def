"Whole runs: killed and continued, and without a network."

import os
import signal
import subprocess
import sys
import time

import pytest

from ctm.experiments.results import load_results
from ctm.synthetic.sets import make_synthetic
from tests.tools import ROOT

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
    env = os.environ | {"CTM_RUNS": str(runs), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", RUN, str(data)], env=env, stderr=subprocess.DEVNULL)


def test_killed_run_ends_as_if_never_killed(polyps, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    undisturbed = start(polyps, whole)
    kills = 0
    for _ in range(3):
        process = start(polyps, cut)
        before = {p: p.stat().st_mtime_ns for p in cut.glob("fits/*/last.ckpt")}
        while process.poll() is None and before == {p: p.stat().st_mtime_ns for p in cut.glob("fits/*/last.ckpt")}:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
    assert undisturbed.wait() == 0
    assert kills >= 2, "the run was too fast to be killed"
    assert not list(cut.glob("results/*.json")), "a killed run left a result"
    assert start(polyps, cut).wait() == 0
    (a,), (b,) = load_results(whole / "results"), load_results(cut / "results")
    assert a.metrics == b.metrics and a.extra == b.extra
    assert len(list(cut.glob("fits/*/masks/*.png"))) == 9 * 6
    assert not list(cut.rglob("fits/*/.masks")), "half-written masks were left"


FIT = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        if event != "socket.connect" or arguments[0].family != socket.AF_UNIX:
            print("asked for the network:", event, arguments, flush=True)
            os._exit(9)

sys.addaudithook(watch)
if len(sys.argv) > 2:  # the watch works
    socket.create_connection(("127.0.0.1", 9))
from ctm.train.config import load_config
from ctm.experiments.run import run
result = run(load_config("kvasir_seg", "demo", embed_dim=16, depth=1, num_heads=2, epochs=1), root=sys.argv[1])
print(result.metrics["miou"])
"""


@pytest.mark.parametrize("ask", [False, True])
def test_the_demo_asks_for_no_network(ask, tmp_path):
    root = make_synthetic("kvasir_seg", tmp_path, 6)
    command = [sys.executable, "-c", FIT, str(root), *(["x"] if ask else [])]
    env = os.environ | dict(CTM_RUNS=str(tmp_path / "runs"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == (9 if ask else 0), done.stdout + done.stderr
    assert ("asked for the network" in done.stdout) == ask
