"Every notebook runs, one test each, by nbdev's own runner."

import os

import nbdev.test
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

CFG = get_config()


def library_first(path):
    "nbs/00_core before nbs/datasets/x before nbs/sensitivity: what breaks first explains the rest."
    return not path.name[0].isdigit(), path.parent.name != "datasets", path


@pytest.mark.parametrize("path", sorted(nbglob(as_path=True), key=library_first), ids=lambda p: p.stem)
def test_notebook(path):
    before = dict(os.environ)  # the runner shares this process: a notebook's variables end with it
    try:
        ok, _ = nbdev.test.test_nb(path.absolute(), skip_flags=CFG.tst_flags.split(), basepath=CFG.config_path)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert ok, f"{path.name} failed: its traceback is above"
