"Every notebook runs, one test each, by nbdev's own runner; long reports and the tutorials with fewer epochs."

import os
import re

import nbdev.test
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from papermill.iorw import load_notebook_node, write_ipynb
from papermill.parameterize import parameterize_notebook

CFG = get_config()
NOTEBOOKS = sorted(nbglob(as_path=True), key=lambda path: (not path.name[0].isdigit(), path))  # the library first
SHORTER = {  # report -> parameters of its test
    "sensitivity": dict(changes=dict(epochs=3)),
    "own_data": dict(epochs=3),
}


def shortened(notebook, folder):
    "Copy of a report or a tutorial that trains for three epochs."
    node = load_notebook_node(str(notebook))
    if notebook.stem in SHORTER:
        node = parameterize_notebook(node, SHORTER[notebook.stem])
    for cell in node.cells:
        cell.source = re.sub(r"\bepochs=\d+", "epochs=3", cell.source)
    write_ipynb(node, str(folder / notebook.name))
    return folder / notebook.name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.relative_to(CFG.nbs_path).as_posix())
def test_notebook(notebook, tmp_path):
    before = dict(os.environ)  # the runner shares this process: a notebook's variables end with it
    if notebook.stem in SHORTER or notebook.parent.name == "tutorials":
        notebook = shortened(notebook, tmp_path)
    try:
        ok, _ = nbdev.test.test_nb(notebook.absolute(), skip_flags=CFG.tst_flags.split(), basepath=CFG.config_path)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert ok, f"{notebook.name} failed: its traceback is above"
