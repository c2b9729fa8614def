"Every notebook runs, one test each, by nbdev's own runner; long reports and the tutorials on less, for a moment."

import os
import re

import nbdev.test
import pytest
from nbdev.config import get_config
from nbdev.doclinks import nbglob
from papermill.iorw import load_notebook_node, write_ipynb
from papermill.parameterize import parameterize_notebook

from ctm.train.data import SYNTHETIC_SIZE

CFG = get_config()
NOTEBOOKS = sorted(nbglob(as_path=True), key=lambda path: (not path.name[0].isdigit(), path))  # the library first
SHORTER = {  # report -> parameters of its test
    "sensitivity": dict(changes=dict(epochs=2)),
    "own_data": dict(epochs=2),
}
LESS = {  # in a tutorial -> in its test
    r"\bepochs=\d+": "epochs=2",
    r"/ \"synthetic\", 256\)": '/ "synthetic", 64)',  # training images; a quarter as many for validation
    r"\brange\((32|48|64)\)": "range(16)",  # of validation images
    r"\b1536\b": "768",  # side of a raster in pixels
    r'"voc2012", "coco2014", "ade20k", "dfc2020", "endotect"\)\]': '"dfc2020",)]',  # whose pictures are drawn
}


def shortened(notebook, folder):
    "Copy of a report or a tutorial that trains for two epochs, on few images, or draws fewer pictures."
    node = load_notebook_node(str(notebook))
    if notebook.stem in SHORTER:
        node = parameterize_notebook(node, SHORTER[notebook.stem])
    for cell in node.cells:
        for long, short in LESS.items():
            cell.source = re.sub(long, short, cell.source)
    write_ipynb(node, str(folder / notebook.name))
    return folder / notebook.name


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.relative_to(CFG.nbs_path).as_posix())
def test_notebook(notebook, tmp_path, monkeypatch):
    before = dict(os.environ)  # the runner shares this process: a notebook's variables end with it
    trains = notebook.stem in SHORTER or notebook.parent.name == "tutorials"
    for name in SYNTHETIC_SIZE if trains else ():
        monkeypatch.setitem(SYNTHETIC_SIZE, name, 64)
    if trains or notebook.stem == "beyond":
        notebook = shortened(notebook, tmp_path)
    try:
        ok, _ = nbdev.test.test_nb(notebook.absolute(), skip_flags=CFG.tst_flags.split(), basepath=CFG.config_path)
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert ok, f"{notebook.name} failed: its traceback is above"
