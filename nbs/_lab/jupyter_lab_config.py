"""JupyterLab as `make lab` opens it: the index in the middle, the tutorials in the file list.

The index, a tutorial or a guide can be run and changed, and is not written over: `File > Save Notebook As` keeps a
copy. CTM_EDIT=1 lifts that.
"""

import json
import os

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyterlab_server.workspaces_handler import WorkspacesManager
from tornado.web import HTTPError

KEPT = ("nbs/tutorials/", "nbs/guides/", "nbs/index.ipynb")  # what readers open, the beginnings of paths
INDEX = "notebook:nbs/index.ipynb"
OPEN = {  # what JupyterLab restores
    "layout-restorer:data": {
        "main": {"dock": {"type": "tab-area", "currentIndex": 0, "widgets": [INDEX]}, "current": INDEX},
        "left": {"collapsed": False, "current": "filebrowser", "widgets": ["filebrowser"]},
    },
    "file-browser-filebrowser:cwd": {"path": "nbs/tutorials"},
    INDEX: {"data": {"path": INDEX.partition(":")[2], "factory": "Notebook"}},
}
WORKSPACE = {"data": OPEN, "metadata": {"id": "start"}}


class KeptTutorials(AsyncLargeFileManager):
    "Files of the repository; those for readers are read-only, so that a run leaves no change in git."

    def _kept(self, path: str) -> bool:
        "Whether a file is one for readers that is there."
        path = path.strip("/")
        there = os.path.isfile(os.path.join(self.root_dir, path))
        return path.startswith(KEPT) and there and not os.environ.get("CTM_EDIT")

    async def get(self, path, *args, **options):
        "File or folder; JupyterLab shows what is not writable as read-only, and does not save it by itself."
        model = await super().get(path, *args, **options)
        return model | dict(writable=False) if self._kept(path) else model

    async def save(self, model, path=""):
        "File that is written, if it is not one for readers."
        if self._kept(path):
            raise HTTPError(403, f"{path} is kept as it is: use File > Save Notebook As, or start with make lab EDIT=1")
        return await super().save(model, path)


c = get_config()  # noqa: F821, jupyter gives it
c.ServerApp.contents_manager_class = KeptTutorials
c.LabApp.workspaces_dir = os.path.abspath("runs/.lab")
c.LabApp.default_url = "/lab/workspaces/start"
WorkspacesManager(c.LabApp.workspaces_dir).save("start", json.dumps(WORKSPACE))
