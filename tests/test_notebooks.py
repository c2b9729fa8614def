"Every notebook runs, one test each, by nbdev's own runner."

import os

import nbdev.test
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob

CFG = get_config()
NOTEBOOKS = sorted(nbglob(as_path=True), key=lambda path: (not path.name[0].isdigit(), path))  # the library first


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.relative_to(CFG.nbs_path).as_posix())
def test_notebook(notebook):
    before = dict(os.environ)  # the runner shares this process: a notebook's variables end with it
    try:
        ok, _ = nbdev.test.test_nb(notebook.absolute(), skip_flags=CFG.tst_flags.split(), basepath=CFG.config_path)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert ok, f"{notebook.name} failed: its traceback is above"
