"Forty real photographs through the whole chain: fit, rounds, masks and scores in own sizes, stage two."

import numpy as np
import pytest
import torch
from PIL import Image

from ctm.data.subsets import png_name
from ctm.experiments.run import run, run_of
from ctm.segmentation.network import load_segmentation_config
from ctm.segmentation.run import run_segmentation
from ctm.train.config import load_config
from tests.datasets.samples import SAMPLES, lines, real

VOC = "voc2012_real/VOCdevkit/VOC2012"
LISTS = dict(train_here=28, val=8, tune=4)
SHAPE = dict(img_size=(128, 128), embed_dim=16, depth=1, num_heads=2, epochs=2, batch_size=8)
STEM = dict(stem="random:resnet10t", stem_layers="8,16")


@pytest.fixture
def voc(tmp_path, monkeypatch):
    "VOC 2012 with lists of forty photographs; nothing is copied."
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    here = tmp_path / "voc2012_forty" / "VOCdevkit" / "VOC2012"
    lists = here / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for file in (SAMPLES / VOC).iterdir():
        if file.name != "ImageSets":
            (here / file.name).symlink_to(file)
    for name, count in LISTS.items():
        chosen = lines(f"{VOC}/ImageSets/Segmentation/{name}.txt")[:count]
        (lists / f"{name}.txt").write_text("\n".join(chosen))
    return here.parents[1]


@real
@pytest.mark.skipif(not (SAMPLES / VOC).exists(), reason="no VOC 2012 beside the project")
def test_forty_photographs(voc):
    torch.manual_seed(0)
    data = dict(resize=(128, 128), how="pad", labels="cls_labels", lists=tuple(LISTS))
    config = load_config("voc2012", "photo+sharp", data=data, **SHAPE, **STEM)
    result = run(config, root=voc)
    for scores in (result.metrics, result.extra["given_labels"]):
        assert 0 <= scores["miou"] <= 1 and np.isfinite(scores["pixel_accuracy"])
    val = run_of(config, root=voc).load("val")
    folder = run_of(config, root=voc).folder / "masks"
    for index, name in enumerate(val.names):
        mask = Image.open(folder / png_name(name))
        assert mask.size[::-1] == val.original_size(index)
    hidden = dict(hidden=16, layers="8,16", stride=16)
    how = load_segmentation_config("photo", encoder=STEM["stem"], options=hidden, epochs=1)
    second = run_segmentation(config, how, root=voc)
    assert second.stage == 2 and 0 <= second.metrics["miou"] <= 1
