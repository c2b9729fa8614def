"PASCAL VOC with SBD's masks and lists."

import importlib
import shutil
from dataclasses import replace

import numpy as np
from PIL import Image

from tests.data_prep.official import SCRIPT, error, reader, run, small, voc


def test_voc2012_with_sbd(server, tmp_path, monkeypatch, capsys):
    server.files = voc()
    top = f"{SCRIPT['voc2012'].VOC}"
    monkeypatch.setattr(SCRIPT["voc2012"], "TRAIN_AUG", 4)
    counts = {f"{top}/JPEGImages/*.jpg": 6, f"{top}/SegmentationClassAug/*.png": 2}
    dataset = small(SCRIPT["voc2012"].DATASET, server.files, counts)
    reader(
        monkeypatch,
        "voc2012",
        {"train": 2, "val": 2, "train_aug": 4},
        importlib.import_module("ctm.datasets.voc2012").READER,
    )
    root = tmp_path / "voc"
    assert run(dataset, root, "--mirror", server.url) == 0
    names = (root / top / "ImageSets/Segmentation/train_aug.txt").read_text().split()
    assert names == ["2007_000001", "2007_000002", "a", "b"]  # SBD's image of the validation is left out
    assert sorted(p.name for p in (root / top / "SegmentationClassAug").iterdir()) == ["a.png", "b.png"]
    with Image.open(root / top / "SegmentationClassAug/a.png") as mask:
        assert mask.mode == "P" and np.array_equal(np.unique(mask), np.arange(21))
        colours = np.reshape(mask.getpalette(), (-1, 3))
    official = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 15: (192, 128, 128), 20: (0, 64, 128)}
    assert all(tuple(colours[value]) == colour for value, colour in official.items())
    assert SCRIPT["voc2012"].palette()[-3:] == [224, 224, 192]

    shutil.rmtree(root / top / "SegmentationClassAug")  # what an interruption between two renames leaves
    assert run(dataset, root, "--mirror", server.url) == 0

    no_sbd = tmp_path / "no_sbd"
    capsys.readouterr()
    assert run(replace(dataset, counts={}), no_sbd, "--mirror", server.url, "--no-sbd") == 0
    assert "train_aug.txt is not written" in capsys.readouterr().out
    assert not (no_sbd / top / "ImageSets/Segmentation/train_aug.txt").exists()
    for text, message in (("a\nb\n", "2 ids"), ("a\nb\nc\nc\n", "3 different"), ("a\nb\nc\n2008_000003\n", "val.txt")):
        (tmp_path / "list.txt").write_text(text)
        assert run(replace(dataset, counts={}), no_sbd, "--no-sbd", "--list", tmp_path / "list.txt") == 1
        assert message in error(capsys)[0]
    (tmp_path / "list.txt").write_text("b\na\n2007_000001\n2007_000002\n")
    assert run(replace(dataset, counts={}), no_sbd, "--no-sbd", "--list", tmp_path / "list.txt") == 0
    assert (no_sbd / top / "ImageSets/Segmentation/train_aug.txt").read_text() == "b\na\n2007_000001\n2007_000002\n"
