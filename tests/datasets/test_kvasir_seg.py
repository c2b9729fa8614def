"Kvasir-SEG: real images in both layouts."

import pytest
import torch

from ctm.core import DatasetNotFoundError
from ctm.data.transforms import Resized, Tiles
from ctm.datasets import kvasir_seg
from ctm.train.config import load_config
from ctm.train.data import load_dataset
from tests.datasets.samples import SAMPLES, check_samples, lines, real


@real
def test_kvasir_seg(tmp_path):
    root = SAMPLES / "endotect" / "Kvasir-SEG_effisegnet352"
    train, val = kvasir_seg.KvasirSeg(root, "train"), kvasir_seg.KvasirSeg(root, "val")
    assert (len(train), len(val)) == (800, 100)
    check_samples(val, 100)
    tiles = Tiles(Resized(val, (192, 192)), 64)
    labels = torch.stack([tiles[i]["label"] for i in range(90)])
    assert len(tiles) == 900 and 0.2 < labels[:, 1].mean() < 0.6
    assert load_dataset(load_config("kvasir_seg"), "val", root).synthetic is False
    listed = {s: len(lines(f"endotect/kvasir_seg_split/{s}.txt")) for s in ("train", "val")}
    assert listed == kvasir_seg.OFFICIAL
    for part in ("images", "masks"):  # the five originals, in the official layout
        (tmp_path / part).symlink_to(SAMPLES / "endotect" / "Kvasir-SEG" / part)
    (tmp_path / "train.txt").write_text("\n".join(p.stem for p in (tmp_path / "images").glob("*.jpg")))
    check_samples(kvasir_seg.KvasirSeg(tmp_path, "train"), 5)


@real
def test_the_archive_has_no_lists():
    with pytest.raises(DatasetNotFoundError, match="train.txt: missing .* not in the archive .* read the folder"):
        kvasir_seg.KvasirSeg(SAMPLES / "endotect" / "Kvasir-SEG", "train")
