"A fit on own images belongs to what they are: other labels, images or classes are fitted again, a copy is not."

import logging
import shutil

import pytest

import ctm
from tests.project.test_folder import picture, write_folder
from tests.tools import TINY_PLAN


def fits(place):
    return sorted(folder.name for folder in (place / "out" / "fits").iterdir() if (folder / "last.ckpt").exists())


def train(place):
    plan = ctm.plan_folder(place / "images", place / "labels.csv", place / "out", **TINY_PLAN)
    return ctm.train_folder(plan)[0].model


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    place = tmp_path / "mine"
    place.mkdir()
    write_folder(place)
    train(place)
    return place


def relabel(place):
    table = place / "labels.csv"
    table.write_text(table.read_text().replace("p3.png,a", "p3.png,b"))


def replace(place):
    picture(place / "images" / "p3.png", 99)


def add(place):
    picture(place / "images" / "p10.png", 10)
    with open(place / "labels.csv", "a") as table:
        table.write("\np10.png,a")


def rename_classes(place):
    table = place / "labels.csv"
    swapped = str.maketrans("ab", "ba")
    lines = table.read_text().splitlines()
    table.write_text(
        "\n".join([lines[0], *(f"{f},{k.translate(swapped)}" for f, k in (x.split(",") for x in lines[1:]))])
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (relabel, "training: another label of p3.png"),
        (replace, "training: another content of p3.png"),
        (add, "p10.png"),
        (rename_classes, "another label of p0.png"),
    ],
)
def test_other_data_are_fitted_again(change, said, own, caplog):
    before = fits(own)
    change(own)
    with caplog.at_level(logging.WARNING):
        train(own)
    assert len(fits(own)) == 2 and set(before) < set(fits(own)), "the old fit stays"
    assert said in caplog.text and before[0] in caplog.text


def test_a_copy_or_a_touch_is_the_same_data(own, tmp_path, caplog):
    before = fits(own)
    (own / "images" / "p0.png").touch()
    copy = shutil.copytree(own, tmp_path / "elsewhere" / "mine")
    with caplog.at_level(logging.WARNING):
        train(own)
        train(copy)
    assert fits(own) == fits(copy) == before
    assert "a new fit begins" not in caplog.text


def test_projects_without_a_folder_of_their_own_do_not_meet(tmp_path):
    from ctm.project.overview import default_out

    assert default_out(tmp_path / "a" / "images") != default_out(tmp_path / "b" / "images")


def test_the_same_picture_with_two_labels_is_said(own, caplog):
    shutil.copy(own / "images" / "p3.png", own / "images" / "p10.png")  # p3.png has the class a
    with open(own / "labels.csv", "a") as table:
        table.write("\np10.png,b")
    train(own)
    said = [line for line in caplog.messages if "the same picture" in line]
    assert any("p3.png" in line and "p10.png" in line and "have different labels (1 such)" in line for line in said)
