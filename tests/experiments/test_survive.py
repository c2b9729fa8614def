"Nothing is lost: short versions of the experiments in tests/survive.py."

import json
import subprocess
import sys

import pytest

from tests.tools import ROOT

EXPERIMENTS = {"kill", "kill_command", "damaged", "two", "sleep", "stop", "full", "long", "determinism", "bad"}
pytestmark = pytest.mark.xdist_group("survive")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    "All experiments, by one process: its imports are the children's, a run in peace is compared with by all."
    out = tmp_path_factory.mktemp("survive") / "found.json"
    command = [sys.executable, str(ROOT / "tests" / "survive.py"), "--short", "--out", str(out)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    return json.loads(out.read_text())


def check_equal_ends(counts, times):
    assert counts["same"] == counts[times] > 0, counts
    assert not counts.get("broken") and not counts["left"], counts


def test_every_experiment_is_tested(found):
    assert EXPERIMENTS == found.keys() - {"command", "seed", "versions", "seconds", "short"}


@pytest.mark.parametrize("name", ["kill", "kill_command"])
def test_killed_anywhere(found, name):
    for counts in found[name].values():
        check_equal_ends(counts, "kills")


def test_asked_to_stop(found):
    for what, counts in found["stop"].items():
        if what != "under a time limit":
            check_equal_ends(counts, "stops")
            assert counts["code_75"] == counts["stops"], what


def test_a_time_limit_cuts_a_run_into_slices(found):
    counts = found["stop"]["under a time limit"]
    assert counts["starts"] > 1 and counts["same"] and not counts["left"], counts


def test_full_disk(found):
    if "not_permitted" in found["full"]:
        pytest.skip(f"no small file system may be mounted here: {found['full']['not_permitted']}")
    for what, counts in found["full"].items():
        assert counts["clear"] and counts["same"] and not counts["broken"] and not counts["left"], (what, counts)


def test_two_at_once(found):
    check_equal_ends(found["two"], "pairs")
    assert found["two"]["waited"] == found["two"]["pairs"]


def test_a_run_that_slept(found):
    check_equal_ends(found["sleep"], "sleeps")


def test_damaged_checkpoint(found):
    check_equal_ends(found["damaged"], "damaged")
    assert found["damaged"]["said"] == found["damaged"]["damaged"]


def test_long_runs_hold_no_more(found):
    for work in ("steps", "masks"):
        assert found["long"][work]["more_files"] == 0 and found["long"][work]["more_mb"] < 20, found["long"]


def test_same_everywhere(found):
    assert found["determinism"]["same"] == found["determinism"]["runs"]


def test_bad_images(found):
    counts = found["bad"]
    assert counts["refused_by_name"] == counts["skipped_each_named"] == counts["sets"], counts
