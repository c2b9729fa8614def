"The command line: the library's calls under the same words, its refusals without a traceback."

import pytest
from click.testing import CliRunner

import ctm
from ctm.project.command import main
from tests.project.test_verdict import write_folder
from tests.test_house import PROJECT, ROOT, run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    "Images and their table, as arguments."
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    images, labels, _ = write_folder(tmp_path, ["a", "b"] * 5)
    return tmp_path, [str(images), "--labels", str(labels)]


def called(*arguments):
    "What a command says, and its exit status."
    done = CliRunner().invoke(main, [str(one) for one in arguments])
    return done.exit_code, done.output


def test_the_package_has_the_command():
    assert PROJECT["scripts"]["ctm"] == "ctm.project.command:main"


@pytest.mark.parametrize("command", [[], ["mask"], ["apply"], ["check"]])
def test_help_is_worth_reading(command):
    status, said = called(*command, "--help")
    assert status == 0 and len(said.split()) > 40


def test_help_is_there_at_once():
    done = run("-c", "import sys, ctm.project.command; print('torch' in sys.modules)", cwd=ROOT)
    assert done.stdout.strip() == "False", done.stderr


def test_check_says_the_verdict_before_any_fit(folder):
    place, where = folder
    status, said = called("check", *where)
    assert status == 0 and "10 images of 2 classes" in said and "Verdict: look at these classes first" in said
    assert not list(place.glob("runs/**/*.ckpt"))


def test_masks_and_masks_of_other_images(folder):
    place, where = folder
    status, said = called("mask", *where, "--out", place / "out", "--epochs", 1, "--size", 16, "--preset", "demo+sharp")
    assert status == 0, said
    assert "Verdict: " in said and len([*(place / "out" / "masks").iterdir()]) == 10
    status, said = called("apply", place / "out", where[0])
    assert status == 0 and len([*place.glob("out/other/*/masks/*.png")]) == 10, said


def test_refusals_have_no_traceback(folder, tmp_path):
    place, where = folder
    status, said = called("apply", place, where[0])
    assert status == 1 and "masker.json: is not there; train_folder writes it" in said and "Traceback" not in said
    (tmp_path / "labels.csv").write_text("file,label\nnone.png,a\n")
    status, said = called("check", *where)
    assert status == 1 and "none.png" in said
    assert called("check", *where, "--skip-bad")[0] == 1  # nothing is left
    assert called("check", place / "gone", *where[1:])[0] == 2


def test_the_version_is_the_package_s():
    assert ctm.__version__ in called("--version")[1]
