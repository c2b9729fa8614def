"Checks of a folder find damage, wrong splits, and masks of another size."

from dataclasses import replace

import numpy as np

from tests.data_prep.official import SCRIPT, Pairs, error, reader, run


def test_check_finds_damage(polyps, server, tmp_path, capsys):
    root = tmp_path / "data"
    assert run(polyps, root, "--check") == 1
    assert f"{root}: no such folder" in error(capsys)[0]
    assert run(polyps, root, "--mirror", server.url) == 0
    first, second, *_ = sorted((root / "masks").iterdir())
    data = first.read_bytes()
    first.write_bytes(data[: len(data) // 2])
    assert run(polyps, root, "--check") == 1
    (line,) = error(capsys)
    assert str(first) in line and "cannot be read" in line
    first.write_bytes(data)
    second.unlink()
    assert run(polyps, root, "--check") == 1
    lines = error(capsys)
    assert "masks/*.jpg: 4 files, officially 5" in lines[0] and second.name in lines[1]


def test_check_compares_splits(polyps, server, tmp_path, capsys, monkeypatch):
    from ctm.datasets import kvasir_seg

    assert run(polyps, tmp_path / "data", "--mirror", server.url) == 0
    monkeypatch.setattr(kvasir_seg, "OFFICIAL", {"train": 5, "val": 1})
    assert run(polyps, tmp_path / "data", "--check") == 1
    assert "split train has 4 images, officially 5" in error(capsys)[0]


def test_check_compares_images_with_masks(tmp_path, monkeypatch, capsys):
    class Unequal(Pairs):
        def __getitem__(self, index):
            return super().__getitem__(index) | dict(mask=np.zeros((5, 4)))

    reader(monkeypatch, "kvasir_seg", {"train": 2}, Unequal)
    assert run(replace(SCRIPT["kvasir_seg"].DATASET, counts={}), tmp_path, "--check") == 1
    lines = error(capsys)
    assert len(lines) == 2 and "train0: image and mask differ in size" in lines[0]
