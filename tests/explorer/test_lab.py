"What `make lab` opens: the index, the tutorials beside it, which no run writes over."

import asyncio
import json
import runpy

import pytest
from tornado.web import HTTPError
from traitlets.config import Config

from tests.tools import ROOT


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = Config()
    path = str(ROOT / "nbs/_lab/jupyter_lab_config.py")
    found.space = runpy.run_path(path, dict(get_config=lambda: found))
    return found


@pytest.fixture
def manager(config, tmp_path):
    (tmp_path / "nbs/tutorials").mkdir(parents=True)
    for name in ("nbs/tutorials/a.ipynb", "nbs/b.ipynb"):
        text = dict(cells=[], metadata={}, nbformat=4, nbformat_minor=5)
        (tmp_path / name).write_text(json.dumps(text))
    return config.ServerApp.contents_manager_class(root_dir=str(tmp_path))


def test_it_opens_on_the_index_with_the_tutorials_in_the_list(config, tmp_path):
    assert config.LabApp.default_url == "/lab/workspaces/start"
    (file,) = (tmp_path / "runs/.lab").iterdir()
    opened = json.loads(file.read_text())["data"]
    assert opened["file-browser-filebrowser:cwd"]["path"] == "nbs/tutorials"
    assert opened["notebook:nbs/index.ipynb"]["data"]["path"] == "nbs/index.ipynb"
    assert (ROOT / "nbs/index.ipynb").is_file() and list((ROOT / "nbs/tutorials").glob("*.ipynb"))


def test_a_tutorial_is_not_written_over(manager, tmp_path, monkeypatch):
    model = asyncio.run(manager.get("nbs/tutorials/a.ipynb"))
    assert model["writable"] is False, "JupyterLab shows it as read-only and does not save it by itself"
    before = (tmp_path / "nbs/tutorials/a.ipynb").read_bytes()
    with pytest.raises(HTTPError, match="Save Notebook As"):
        asyncio.run(manager.save(model, "nbs/tutorials/a.ipynb"))
    assert (tmp_path / "nbs/tutorials/a.ipynb").read_bytes() == before
    asyncio.run(manager.save(model, "nbs/tutorials/mine.ipynb"))
    assert (tmp_path / "nbs/tutorials/mine.ipynb").is_file(), "a copy under another name is one's own"
    (tmp_path / "nbs/b.ipynb").rename(tmp_path / "nbs/index.ipynb")
    assert not asyncio.run(manager.get("nbs/index.ipynb"))["writable"], "it is open from the start, and would be saved"
    (tmp_path / "nbs/index.ipynb").rename(tmp_path / "nbs/b.ipynb")
    other = asyncio.run(manager.get("nbs/b.ipynb"))
    assert other["writable"] and asyncio.run(manager.save(other, "nbs/b.ipynb"))
    monkeypatch.setenv("CTM_EDIT", "1")
    assert asyncio.run(manager.get("nbs/tutorials/a.ipynb"))["writable"]
