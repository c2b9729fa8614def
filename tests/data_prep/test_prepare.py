"Preparing data, end to end: official archives, archives by hand, kills, until the real readers read the folder."

import importlib
import shutil
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace

import download
import prepare
import pytest

from ctm.core import BadFileError
from ctm.synthetic.sets import MAKERS, make_synthetic
from tests.data_prep.official import SCRIPT, WHOLE, contents, error, others, reader, run, small, start, zipped
from tests.tools import ROOT


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.zip", "a.zip"])
def test_only_http(url, polyps, tmp_path, capsys):
    assert run(polyps, tmp_path / "data", "--mirror", url) == 1
    assert url in error(capsys)[0] and not (tmp_path / "data").exists()


def test_kvasir_seg(polyps, server, tmp_path, capsys):
    root = tmp_path / "kvasir_seg"
    server.plan = ["break:9000", "error:502", "break:9000"]
    assert run(polyps, root, "--mirror", server.url) == 0
    out = capsys.readouterr().out
    assert contents(root) == WHOLE
    assert "research and education only" in out and "to fetch" in out and "train: 4 images, 4 of them decoded" in out
    asked = len(server.ranges)
    assert run(polyps, root, "--mirror", server.url) == 0 and len(server.ranges) == asked  # nothing to do
    assert run(polyps, root, "--check") == 0

    images = (root / "images").stat().st_ino
    shutil.rmtree(root / "masks")  # what an interruption between two renames leaves
    (root / ".prepare" / "old.zip.unpacked").mkdir(parents=True)
    assert run(polyps, root, "--mirror", server.url, "--keep-archives") == 0
    assert (root / "images").stat().st_ino == images and contents(root) == [".prepare", *WHOLE]
    assert contents(root / ".prepare") == ["kvasir-seg.zip"]


def test_official_addresses_are_used(polyps, server, tmp_path, monkeypatch):
    official = {a.name: a for a in SCRIPT["kvasir_seg"].ARCHIVES}
    assert official["kvasir-seg.zip"].urls == ("https://datasets.simula.no/downloads/kvasir-seg.zip",)
    for script in SCRIPT.values():
        for archive in [*getattr(script, "ARCHIVES", []), *([script.SBD] if hasattr(script, "SBD") else [])]:
            assert archive.urls[0].startswith("https://") and archive.urls[0].endswith(f"/{archive.name}")
            assert archive.plain or archive.unpacked >= archive.bytes or archive.keep
    local = replace(polyps, archives=lambda args: [
        replace(a, urls=(f"{server.url}/{a.name}",)) for a in small(SCRIPT["kvasir_seg"].DATASET, server.files, {})
        .archives(args)])  # fmt: skip
    assert run(local, tmp_path / "data") == 0


def test_words_that_name_no_folder_or_list_are_one_line(tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for root in ("~nobody-here/x", str(tmp_path / "loop")):
        assert prepare.main(SCRIPT["kvasir_seg"].DATASET, ["--root", root]) == 1
        assert root in error(capsys)[0]
    (tmp_path / "list.txt").write_bytes("2007_000032".encode("utf-16"))
    with pytest.raises(BadFileError, match="list.txt: is not text in UTF-8"):
        SCRIPT["voc2012"].check_list(tmp_path / "list.txt", tmp_path)


SAMPLES = ROOT.parent / "shared" / "samples" / "endotect"


@pytest.mark.skipif(not SAMPLES.exists(), reason="no real samples beside the project")
def test_declared_lists_are_the_real_ones():
    found = {file.name: file for part in ("official_splits", "kvasir_seg_split") for file in (SAMPLES / part).iterdir()}
    declared = [archive for name in ("endotect", "kvasir_seg") for archive in SCRIPT[name].ARCHIVES if archive.plain]
    assert {archive.name for archive in declared} == set(found)
    assert not any(download.fault(found[a.name], a.bytes, a.checksum) for a in declared)


@pytest.mark.parametrize("name", ["ade20k", "coco2014", "endotect"])
def test_other_layouts(name, server, tmp_path, monkeypatch):
    server.files, dataset = others(name), SCRIPT[name].DATASET
    counts = {pattern: 2 if "fold" in pattern or "json" in pattern else 1 for pattern in dataset.counts}
    reader(monkeypatch, name, {"train": 2})
    root = tmp_path / name
    assert run(small(dataset, server.files, counts), root, "--mirror", server.url) == 0
    assert not (root / ".prepare").exists() and not list(root.rglob("captions*"))
    assert (root / "ADEChallengeData2016/objectInfo150.txt").exists() == (name == "ade20k")


ARCHIVE = {  # first folder of the layout -> the archive that brings it
    "ADEChallengeData2016": "ADEChallengeData2016.zip",
    "VOCdevkit": "VOCtrainval_11-May-2012.tar",
    "train2014": "train2014.zip",
    "val2014": "val2014.zip",
    "annotations": "annotations_trainval2014.zip",
    "labeled-images": "hyper-kvasir-labeled-images.zip",
    "segmented-images": "hyper-kvasir-segmented-images.zip",
}


@pytest.mark.parametrize("name", ["ade20k", "coco2014", "endotect", "voc2012"])
def test_synthetic_set_through_the_official_archives(name, server, tmp_path, monkeypatch):
    if name not in MAKERS:
        pytest.skip(f"no synthetic set in the layout of {name}")
    made, packed = make_synthetic(name, tmp_path / "synthetic", n=4), {}
    for file in made.rglob("*"):
        top, *_ = parts = file.relative_to(made).parts
        if top in ARCHIVE and file.is_file():
            packed.setdefault(ARCHIVE[top], {})["/".join(parts)] = file.read_bytes()
        elif top == "official_splits" and file.is_file():
            server.files[file.name] = file.read_bytes()
    server.files |= {archive: zipped(files) for archive, files in packed.items()}
    server.files.setdefault("2_fold_split.csv", b"unused")
    cls = importlib.import_module(f"ctm.datasets.{name}").READER
    official = {split: len(cls(made, split)) for split in ("train", "val")}
    assert all(official.values())
    reader(monkeypatch, name, official, cls)
    root, options = tmp_path / name, ["--no-sbd"] if name == "voc2012" else []
    assert run(small(SCRIPT[name].DATASET, server.files, {}), root, "--mirror", server.url, *options) == 0
    assert {str(p.relative_to(root)) for p in root.rglob("*")} >= {file for files in packed.values() for file in files}


def test_bad_archive_without_a_checksum_is_fetched_again(server, tmp_path, monkeypatch, capsys):
    good, dataset = others("endotect"), SCRIPT["endotect"].DATASET
    server.files = good | {"hyper-kvasir-labeled-images.zip": good["hyper-kvasir-labeled-images.zip"][:-100]}
    reader(monkeypatch, "endotect", {"train": 2})
    root = tmp_path / "data"
    assert run(small(dataset, good, {}), root, "--mirror", server.url) == 1
    (line,) = error(capsys)
    assert "hyper-kvasir-labeled-images.zip" in line and "it was deleted, the same command fetches it again" in line
    server.files = good
    assert run(small(dataset, good, {}), root, "--mirror", server.url) == 0
    assert contents(root) == ["labeled-images", "official_splits", "segmented-images"]


def test_archive_by_hand(polyps, server, tmp_path, capsys):
    root, file = tmp_path / "data", tmp_path / "kvasir-seg (2).zip"
    file.write_bytes(server.files.pop("kvasir-seg.zip"))
    shutil.copy(file, tmp_path / "what.zip")
    assert run(polyps, root, "--mirror", server.url, "--archive", tmp_path / "what.zip") == 1
    assert "rename it to what it is, one of kvasir-seg.zip" in error(capsys)[0]
    assert run(polyps, root, "--mirror", server.url, "--archive", file) == 0
    assert contents(root) == WHOLE and file.exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: b"\n<!DOCTYPE html><title>Log in</title>", "it is a web page"),
        (lambda data: data[:-500], "bytes where the official file has"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its sha256 is"),
    ],
)
def test_archive_that_is_something_else(damage, message, polyps, server, tmp_path, capsys):
    root, file = tmp_path / "data", tmp_path / "kvasir-seg.zip"
    file.write_bytes(damage(server.files["kvasir-seg.zip"]))
    assert run(polyps, root, "--mirror", server.url, "--archive", file) == 1
    (line,) = error(capsys)
    assert str(file) in line and message in line and "fetch kvasir-seg.zip again" in line
    assert not root.exists()


def wait_for(condition, process):
    for _ in range(2000):
        if condition():
            return
        assert process.poll() is None, "the run was too fast to be stopped"
        time.sleep(0.01)
    raise AssertionError("it never came so far")


@pytest.mark.parametrize("how, status", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_killed_twice_and_continued(how, status, server, polyp_files, tmp_path):
    root = tmp_path / "data"
    server.files, server.plan = dict(polyp_files), ["slow"]
    part = root / ".prepare" / "kvasir-seg.zip.part"

    process = start(server, root)
    wait_for(lambda: part.exists() and part.stat().st_size > 5000, process)
    process.send_signal(how)
    assert process.wait() == status
    kept = part.stat().st_size
    assert contents(root) == [".prepare"] and kept > 5000

    process = start(server, root, slow=0.2)
    wait_for(lambda: len(list(root.glob(".prepare/*.unpacked/Kvasir-SEG/images/*.jpg"))) > 1, process)
    assert f"bytes={kept}-" in server.ranges
    process.send_signal(signal.SIGSTOP)  # it waits, and holds the folder, however slow the machine is
    other = start(server, root)  # a second command beside the first
    assert other.wait() == 1 and b"another command is preparing this folder" in other.stderr.read()
    process.send_signal(how)
    process.send_signal(signal.SIGCONT)
    assert process.wait() == status
    assert contents(root) == [".prepare"], "a half-unpacked folder looks whole"

    process = start(server, root)
    assert process.wait() == 0, process.stderr.read()
    assert contents(root) == WHOLE
    assert len(list(root.glob("images/*.jpg"))) == len(list(root.glob("masks/*.jpg"))) == 5
    assert sum(r is None for r in server.ranges) == 3, "something was fetched twice"


def test_hostile_archive_by_hand_leaves_nothing(tmp_path, capsys):
    archive = tmp_path / "s1_0.zip"
    archive.write_bytes(zipped({"ROIs0000_test_s1_0_p0.tif": b"x", "../evil": b"x"}))
    assert run(SCRIPT["dfc2020"].DATASET, tmp_path / "data", "--archive", archive) == 1
    (line,) = error(capsys)
    assert str(archive) in line and "leads out of the folder" in line
    assert [p.name for p in tmp_path.iterdir()] == ["s1_0.zip"]


def test_too_little_space(polyps, server, tmp_path, monkeypatch, capsys):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage)
    assert run(polyps, tmp_path / "data", "--mirror", server.url) == 1
    (line,) = error(capsys)
    assert "are needed and 0.00 MB are free" in line and "--root" in line
    assert not server.ranges and not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()  # made by the user: stays
    assert run(polyps, tmp_path / "data", "--mirror", server.url) == 1
    assert (tmp_path / "data").is_dir() and contents(tmp_path / "data") == []


def test_sample(polyps, tmp_path, capsys):
    assert run(SCRIPT["kvasir_seg"].DATASET, tmp_path, "--sample", 2) == 0
    assert "a synthetic set, made by ctm and not real" in capsys.readouterr().out
    (made,) = tmp_path.iterdir()
    assert (made / "SYNTHETIC.json").exists()
    assert run(SCRIPT["kvasir_seg"].DATASET, made, "--check") == 0
    assert run(SCRIPT["kvasir_seg"].DATASET, tmp_path, "--sample", 0) == 1


def test_scripts_run_as_documented():
    for name in ("kvasir_seg", "voc2012"):
        done = subprocess.run(
            [sys.executable, f"data_prep/{name}.py", "--check", "--root", "/nowhere"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr == f"error: /nowhere: no such folder; python data_prep/{name}.py prepares it\n"
