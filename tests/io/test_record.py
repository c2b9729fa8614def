"The record of masks says what is odd about itself, whatever it holds."

import json

import pytest
from hypothesis import given

from ctm.core import BadFileError, DatasetNotFoundError
from ctm.io.record import RECORD, Masked, read_masked, write_record
from tests.tools import JSON, TYPED


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    "Folder with a record."
    place = tmp_path_factory.mktemp("record")
    (place / "images").mkdir()
    facts = {"a.png": dict(label=["x"], confidence=0.5, odd=""), "b.png": dict(label=None, confidence=0, odd="empty")}
    write_record(Masked(place, place / "images", ("x", "y"), ("#112233", "#445566"), None, (0, 1, 2), facts))
    return place


def test_the_worst_come_first(place):
    assert read_masked(place).worst_first() == ["b.png", "a.png"]


@pytest.mark.parametrize(
    "change",
    [
        dict(classes=["x"]), dict(classes=["x", "x"]), dict(colors=["#112233", "red"]), dict(background=2),
        dict(rgb=[0, 1]), dict(masks={"../a.png": dict(label=None, confidence=0, odd="")}), dict(masks=[]),
        dict(masks={"a.png": dict(label=["z"], confidence=0, odd="")}), dict(masks={"a.png": {}}),
        dict(masks={"a.png": dict(label=None, confidence="x", odd="")}), dict(images=3), dict(beside=None),
    ],
)  # fmt: skip
def test_an_odd_record_is_named(place, tmp_path, change):
    record = json.loads((place / RECORD).read_text()) | change
    (tmp_path / RECORD).write_text(json.dumps(record))
    with pytest.raises(BadFileError, match="masks.json|leads out"):
        read_masked(tmp_path)


@given(JSON)
def test_any_json(tmp_path_factory, content):
    place = tmp_path_factory.mktemp("any")
    (place / RECORD).write_text(json.dumps(content))
    with pytest.raises(TYPED):
        read_masked(place)


def test_a_folder_that_moved_with_its_images(place, tmp_path):
    record = json.loads((place / RECORD).read_text()) | dict(images="/nowhere/images")
    (tmp_path / RECORD).write_text(json.dumps(record | dict(beside="pictures")))
    with pytest.raises(DatasetNotFoundError, match="the folder of the images is gone"):
        read_masked(tmp_path)
    (tmp_path / "pictures").mkdir()
    assert read_masked(tmp_path).images == tmp_path / "pictures"
