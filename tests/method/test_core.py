"Errors of the readers are typed; what is written is whole, whoever writes beside."

import fcntl
import os
import tempfile
import time
from pathlib import Path
from threading import Timer

import pytest

from ctm.checkpoint import load_model
from ctm.core import DatasetNotFoundError, atomic_folder, atomic_path
from ctm.datasets import coco2014, folder, voc2012


def test_not_found_is_typed(tmp_path):
    for read in (
        lambda: voc2012.Voc2012(tmp_path),
        lambda: coco2014.Coco2014(tmp_path),
        lambda: folder.load(tmp_path, "all"),
    ):
        with pytest.raises(DatasetNotFoundError):
            read()
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_model(tmp_path / "none.safetensors")


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_what_is_swept_before_it_is_locked_is_made_again(kind, tmp_path, monkeypatch):
    "Two processes begin in one folder: one takes the other's new file, not locked yet, for a dead process's."
    make, writing = (tempfile.mkstemp, atomic_path) if kind == "file" else (tempfile.mkdtemp, atomic_folder)
    swept = []

    def make_and_sweep(**where):
        made = make(**where)
        if not swept:
            name = made[1] if kind == "file" else made
            swept.append(Path(name))
            lock = os.open(name, os.O_RDONLY)
            fcntl.flock(lock, fcntl.LOCK_EX)
            sweep = [lambda: swept[0].unlink() if kind == "file" else swept[0].rmdir(), lambda: os.close(lock)]
            Timer(0.2, lambda: [step() for step in sweep]).start()
        return made

    monkeypatch.setattr(tempfile, make.__name__, make_and_sweep)
    with writing(tmp_path / "score") as partial:
        place = partial if kind == "file" else partial / "value"
        place.write_text("0.76")
        time.sleep(0.4)
        assert partial.exists() and partial != swept[0]
    assert [path.name for path in tmp_path.iterdir()] == ["score"]
