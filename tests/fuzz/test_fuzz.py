"The fuzzer itself: mutants follow from their number, whole files are read, endings are counted."

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ctm.reports.reliability import fuzz_figure, fuzz_table
from ctm.synthetic.sets import make_synthetic
from tests.fuzz import mutants
from tests.fuzz.run import fuzz
from tests.fuzz.targets import targets


@pytest.fixture
def png():
    file = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(file, "PNG")
    return file.getvalue()


def test_mutants_follow_from_their_number(png):
    assert bytes(mutants.repair_png(bytearray(png))) == png
    first, second = ([mutants.mutate(png, [png], np.random.default_rng([0, i])) for i in range(200)] for _ in range(2))
    assert first == second
    assert {how for how, _ in first} == {"flip", "bits", "cut", "double", "splice", "extreme", "token", "drop"}


def test_whole_files_of_every_kind(tmp_path):
    tifs = mutants.rasters(tmp_path, ("uint8", 1), ("float32", 3))
    jpgs = mutants.synthetic_files(make_synthetic("kvasir_seg", tmp_path, 4), "*/images/*.jpg")
    found = mutants.pictures("PNG"), mutants.pictures("JPEG"), tifs, jpgs, mutants.archives(), mutants.torch_files()
    assert all(found)


def test_whole_files_are_read_by_every_reader(tmp_path):
    for target in targets(tmp_path).values():
        file = tmp_path / target.place
        file.parent.mkdir(parents=True, exist_ok=True)
        for data in target.files:
            file.write_bytes(data)
            target.read(Path(file))


def test_endings_are_counted():
    found = fuzz(40, readers=["VOC xml", "bmp"])
    assert [row["mutants"] for row in found["readers"]] == [20, 20]
    assert not found["failures"]
    assert fuzz_figure(found).axes[0].get_title() == "40 mutants, 0 failures"
    assert fuzz_table(found).loc["all", "mutants"] == 40
