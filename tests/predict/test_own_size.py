"Masks and scores in each image's own resolution: what is scored is what lies on disk, beside the file's own mask."

import dataclasses
import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from ctm.data.subsets import Subset, WithMasks, png_name
from ctm.datasets.voc2012 import Voc2012, load
from ctm.experiments.bounds import bounds
from ctm.experiments.run import run, run_of, write_pseudo_masks
from ctm.io.images import image_size
from ctm.io.masks import read_mask
from ctm.layers.stem import Stem
from ctm.metrics import SegmentationScores
from ctm.predict.dataset import predict_batches, saving, score_masks
from ctm.predict.masker import Masker
from ctm.pseudomask import pseudo_mask, sample_maps
from ctm.segmentation.network import load_segmentation_config
from ctm.segmentation.outputs import write_segmentation_masks
from ctm.segmentation.run import run_segmentation
from ctm.segmentation.submission import export_voc
from ctm.synthetic.sets import make_synthetic
from ctm.train.config import load_config
from ctm.train.fit import build_model
from tests.datasets.samples import SAMPLES

DATA = dict(resize=[64, 64], how="pad", lists=["train_aug", "val", "train"])
CONFIG = load_config("voc2012", data=DATA, embed_dim=32, depth=2, num_heads=4, epochs=1, resolution="own")
FINE = dataclasses.replace(CONFIG, refine="color")
REAL = SAMPLES / "voc2012_real"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return make_synthetic("voc2012", tmp_path_factory.mktemp("voc"), n=8)


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return build_model(CONFIG, 20).eval()


def scored_again(folder, reader):
    "mIoU of masks on disk against those of the files, by other code."
    metric = SegmentationScores(21)
    for index, name in enumerate(reader.names):
        pair = read_mask(folder / png_name(name)), reader.read(index)[1]
        metric.update(*(torch.from_numpy(one.astype(np.int64))[None] for one in pair))
    return metric.compute()["miou"].item()


@pytest.mark.parametrize("config", [CONFIG, FINE], ids=["plain", "refined"])
def test_the_score_is_that_of_the_files(config, root, model, tmp_path):
    val = load(root, "val", **config.data)
    batches = saving(predict_batches(model, val, config), tmp_path / "masks", val.mask_colors)
    found = score_masks(batches, 21)
    reader = Voc2012(root, "val")
    for index, name in enumerate(reader.names):
        assert image_size(tmp_path / "masks" / png_name(name)) == reader.size(index) == val.original_size(index)
    assert found["miou"] == pytest.approx(scored_again(tmp_path / "masks", reader), abs=1e-12)


def test_order_batches_and_subsets_do_not_matter(root, model):
    train = load(root, "train", **CONFIG.data)
    whole = {b["name"][0]: b["pseudo_mask"] for b in predict_batches(model, train, FINE)}
    part = dataclasses.replace(FINE, batch_size=1)
    for batch in predict_batches(model, Subset(train, [5, 2]), part):
        assert torch.equal(batch["pseudo_mask"], whole[batch["name"][0]])


def test_files_of_own_folders_are_masked_alike(root, model):
    "A `Masker` and the scores of a data set paint the same mask of the same file."
    val = load(root, "val", **CONFIG.data)
    masker = Masker(model, FINE, val.mean, val.std, val.classes, val.mask_colors, val.background)
    for index, batch in enumerate(predict_batches(model, val, FINE)):
        mask = masker(val.original(index)[0][None])[0]
        assert (mask == batch["pseudo_mask"]).float().mean() > 0.999


def test_margins_have_no_say():
    "A photograph's mask depends on the part of the maps that shows it."
    maps = torch.zeros(1, 1, 8, 8)
    maps[:, :, 3:5, 2:6] = 1.0
    maps[:, :, :2] = 9.0  # of the margin above
    mask = pseudo_mask(maps, torch.ones(1, 1), (40, 80), background=0, part=(0.3125, 0.75, 0, 1))
    assert mask[0, 8:26, 24:56].min() == 1 and mask[0, 36:].max() == 0
    whole = sample_maps(maps, (640, 640))
    torch.testing.assert_close(sample_maps(maps, (320, 160), (0.25, 0.75, 0.5, 0.75)), whole[..., 160:480, 320:480])


def test_bounds_are_scored_on_the_same_pixels(root, model):
    val = load(root, "val", **CONFIG.data)
    found = bounds(model, val, CONFIG, 0)
    reader = Voc2012(root, "val")
    truth = np.concatenate([reader.read(i)[1].ravel() for i in range(len(reader))])
    most = np.bincount(truth[truth != 255]).max() / (truth != 255).sum()
    assert found["constant"]["pixel_accuracy"] == pytest.approx(most)
    assert set(found) == {"constant", "random", "box", "given_labels", "untrained"}


@pytest.fixture(scope="module")
def made(root, tmp_path_factory):
    "A run with a list to tune on, and stage two on its masks."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTM_RUNS", str(tmp_path_factory.mktemp("runs")))
        first = run(FINE, root=root)
        small = load_segmentation_config("demo", depth=3, options=dict(decoder_channels=16), epochs=1)
        yield first, run_segmentation(FINE, small, root=root), small


def test_kinds_of_scores_are_told_apart(made, root):
    first, second, _ = made
    assert {"mean_ap", "ap", "always_no", "classifier_accuracy"} <= first.metrics.keys()
    seeds = first.extra["seed"]
    assert seeds["val"].keys() == {"predicted", "given"} and seeds["train"].keys() == {"given"}
    tuned = first.extra["tuned"]
    assert tuned["list"] == "train" and tuned.keys() == {"list", "seed", "pseudo_mask"}
    for kind in ("seed", "pseudo_mask"):
        assert 0 <= tuned[kind]["threshold"] < 1 and tuned[kind]["val"].keys() == {"predicted", "given"}
    assert "train_given_labels" in first.extra and second.stage == 2


def test_the_list_to_tune_on_changes_no_other_score(made, root):
    "Without a list to tune on there is no threshold, and every other score is the same."
    first = made[0]
    lists = dict(DATA, lists=["train_aug", "val"])
    plain = run(dataclasses.replace(FINE, data=lists), root=root)
    assert "tuned" not in plain.extra
    assert plain.metrics == first.metrics and plain.extra["seed"] == first.extra["seed"]


def test_masks_taught_to_stage_two_are_scored_whole(made, root):
    first, second, _ = made
    folder = write_pseudo_masks(run_of(FINE, root=root))
    score = second.extra["training_masks"]["miou"]
    assert score == pytest.approx(scored_again(folder, Voc2012(root, "train_aug")), abs=1e-12)
    assert score == pytest.approx(first.extra["train_given_labels"]["miou"], abs=1e-12)
    assert second.metrics["miou"] == pytest.approx(scored_again(second.folder / "masks", Voc2012(root, "val")))


def test_the_official_archive_of_a_list_without_masks_and_labels(made, root, tmp_path):
    devkit = root / "VOCdevkit" / "VOC2012"
    photographs = {f"2012_00000{i}": (50 + i, 70) for i in range(3)}
    for name, (h, w) in photographs.items():
        Image.fromarray(np.full((h, w, 3), 90, np.uint8)).save(devkit / "JPEGImages" / f"{name}.jpg")
    (devkit / "ImageSets" / "Segmentation" / "test.txt").write_text("\n".join(photographs))
    test = run_of(FINE, root=root).load("test")
    folders = (
        write_segmentation_masks(FINE, made[2], root=root),
        write_pseudo_masks(run_of(FINE, root=root), "predicted", "test"),
    )
    for folder in folders:
        with tarfile.open(export_voc(WithMasks(test, folder), tmp_path / "test.tar.gz")) as archive:
            members = {member.name: archive.extractfile(member).read() for member in archive}
        assert set(members) == {f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png" for name in photographs}
        for name, (h, w) in photographs.items():
            picture = Image.open(BytesIO(members[f"results/VOC2012/Segmentation/comp6_test_cls/{name}.png"]))
            assert picture.mode == "P" and picture.size == (w, h) and np.asarray(picture).max() <= 20


@pytest.mark.skipif(not REAL.exists(), reason="no real photographs beside the project")
def test_real_photographs_at_their_own_size(tmp_path):
    data = dict(resize=[112, 112], how="pad", labels="cls_labels", lists=["train_mini", "val", "tune"])
    config = dataclasses.replace(FINE, data=data, img_size=(112, 112), patch_size=16, labels="given")
    torch.manual_seed(0)
    model = build_model(config, 20).eval()
    val = Subset(load(REAL, "val", **data), range(0, 1449, 250))
    batches = saving(predict_batches(model, val, config), tmp_path / "masks", val.mask_colors)
    found = score_masks(batches, 21)
    reader = Subset(Voc2012(REAL, "val", labels="cls_labels"), val.indices)
    assert {image_size(file) for file in tmp_path.glob("masks/*.png")} == {reader.size(i) for i in range(len(reader))}
    assert found["miou"] == pytest.approx(scored_again(tmp_path / "masks", reader), abs=1e-12)
    assert found["always_no"] > 0.9 and 0 < found["mean_ap"] < 1


def test_a_run_on_a_stem_looks_at_each_photograph_once(root, tmp_path, monkeypatch):
    "Fit, masks with either kind of labels and the untrained network: all read what was kept."
    looks = []
    usual = Stem.features
    monkeypatch.setattr(Stem, "features", lambda self, image: looks.append(len(image)) or usual(self, image))
    monkeypatch.setenv("CTM_RUNS", str(tmp_path))
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    config = load_config("voc2012", data=DATA, embed_dim=16, depth=2, num_heads=2, epochs=1, resolution="own")
    config = dataclasses.replace(config, stem="random:resnet10t", stem_layers="16,32", stem_views=1, patch_size=16)
    result = run(config, root=root)
    assert "untrained" in result.extra
    assert sum(looks) == sum(len(load(root, split, **DATA)) for split in ("train", "val", "tune")), looks
