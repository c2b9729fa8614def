"Results name no other folder, whatever their fields hold."

import json
import os
from pathlib import Path

import pytest

from ctm.core import BadFileError
from ctm.experiments.results import Result, load_result, result_file
from ctm.io.safe import file_part
from tests.tools import HOSTILE_NAMES


@pytest.mark.parametrize("field, value", [("source", "../../../x"), ("variant", "/../../x"), ("baseline", "../x")])
def test_a_result_cannot_name_another_folder(field, value, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    extra = {field: value} if field != "source" else {}
    config = dict(dataset="voc2012", preset="demo", img_size=[64, 64], patch_size=8, in_chans=3)
    result = Result({}, config, 0, True, 1.0, value if field == "source" else "", {}, extra)
    (tmp_path / "r.json").write_text(json.dumps(result.__dict__ | dict(format=1)))
    try:
        path = load_result(tmp_path / "r.json").path()
    except BadFileError:
        return
    assert path.parent == tmp_path / "runs" / "results" and path == Path(os.path.normpath(path))


@pytest.mark.parametrize("name", [n for n in HOSTILE_NAMES if "\0" not in n and "\u0000" not in n])
def test_names_in_file_names(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    from ctm.train.config import load_config
    from ctm.train.data import DataSource

    path = result_file(load_config("voc2012"), 0, DataSource(False, name))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")  # the name can be had
    assert path.parent == tmp_path / "runs" / "results" and file_part(name) != file_part(name + "2")
    assert str(BadFileError(f"a: {name}")).isprintable()
