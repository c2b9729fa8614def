"Agreement with the trusted: other people's programs, on random data, give the numbers that ctm gives."

import math

import numpy as np
import pytest
import rasterio
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from scipy.integrate import quad
from sklearn.metrics import confusion_matrix
from timm.scheduler import CosineLRScheduler
from torch.nn import functional as F
from torchmetrics import JaccardIndex

from ctm.datasets import coco2014
from ctm.io.images import read_image
from ctm.io.masks import read_mask
from ctm.layers.attention import GatedAttention
from ctm.metrics import SegmentationScores
from ctm.model import ClassTokenViT
from ctm.pruning import HeadGate, l0_penalty, open_probability
from ctm.synthetic.sets import make_synthetic
from ctm.train.schedule import learning_rate_scale

SEEDS = range(5)


# Metrics


def random_masks(seed, classes=6):
    "Masks with ignored pixels; the last class is never true, in every second case never predicted either."
    g = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes - 1, (4, 33, 27), generator=g)
    pred = torch.where(torch.rand(target.shape, generator=g) < 0.6, target, (target * 3 + seed) % (classes - seed % 2))
    target[torch.rand(target.shape, generator=g) < 0.2] = 255
    return pred, target


@pytest.mark.parametrize("seed", SEEDS)
def test_iou_is_torchmetrics(seed):
    pred, target = random_masks(seed)
    ours = SegmentationScores(6)
    theirs = JaccardIndex("multiclass", num_classes=6, ignore_index=255, average="none")
    for part in range(4):  # batch by batch
        ours.update(pred[part : part + 1], target[part : part + 1])
        theirs.update(pred[part : part + 1], target[part : part + 1])
    iou, other = ours.compute()["iou"], theirs.compute().double()
    known = ~iou.isnan()
    torch.testing.assert_close(iou[known], other[known], atol=1e-6, rtol=0)
    assert (other[~known] == 0).all(), "torchmetrics scores a class that never occurs 0, ctm leaves it out"
    torch.testing.assert_close(ours.compute()["miou"], other[known].mean(), atol=1e-6, rtol=0)


@pytest.mark.parametrize("seed", SEEDS)
def test_confusion_is_scikit_learn(seed):
    pred, target = random_masks(seed)
    scores = SegmentationScores(6)
    scores.update(pred, target)
    valid = target != 255
    theirs = confusion_matrix(target[valid].numpy(), pred[valid].numpy(), labels=range(6))
    assert np.array_equal(scores.confusion[:, :6].numpy(), theirs) and not scores.confusion[:, 6].any()
    accuracy = np.trace(theirs) / theirs.sum()
    assert abs(scores.compute()["pixel_accuracy"].item() - accuracy) < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_predicted_no_class_is_a_miss(seed):
    "A pixel that is predicted as 255 is one of scikit-learn's class 6, which is never true."
    pred, target = random_masks(seed)
    pred[torch.rand(pred.shape, generator=torch.Generator().manual_seed(seed)) < 0.1] = 255
    scores = SegmentationScores(6)
    scores.update(pred, target)
    valid = target != 255
    shown = pred[valid].numpy()
    theirs = confusion_matrix(target[valid].numpy(), np.where(shown == 255, 6, shown), labels=range(7))
    assert np.array_equal(scores.confusion.numpy(), theirs[:6])


# Gates


def logit_density(x, location, beta):
    """Density of the logit of the binary concrete variable: a logistic one at location / beta of scale 1 / beta
    (Louizos et al. 2018, Section 2.1). The variable itself has poles at 0 and 1, its logit has none."""
    z = abs(x * beta - location)
    return beta * math.exp(-z) / (1 + math.exp(-z)) ** 2


def mass_above(edge, location, beta):
    "Numerical integral of the concrete distribution from `edge` to 1."
    low, peak = math.log(edge / (1 - edge)), location / beta
    ends = sorted({low, max(low, peak), max(low, peak) + 60 / beta})
    return sum(quad(logit_density, a, b, args=(location, beta))[0] for a, b in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize("location", [-4.0, -1.0, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("beta, lo, hi", [(0.33, -0.1, 1.1), (2 / 3, -0.1, 1.1), (0.5, -0.5, 1.2)])
def test_open_probability_is_the_integral(location, beta, lo, hi):
    "P(gate > 0) is the mass of the concrete density above the point that is stretched to 0."
    ours = open_probability(torch.tensor(location, dtype=torch.float64), beta, lo, hi).item()
    assert abs(mass_above(1e-30, location, beta) - 1) < 1e-7, "the density is one"
    assert abs(ours - mass_above(-lo / (hi - lo), location, beta)) < 1e-9


@pytest.mark.parametrize("location", [-2.0, 0.0, 1.5])
def test_drawn_gates_have_that_distribution(location):
    gate = HeadGate(200_000, location, hard=False).train()
    torch.manual_seed(0)
    drawn = gate()
    ours = gate.open_probability()[0].item()
    assert abs((drawn > 0).double().mean().item() - ours) < 4 * math.sqrt(ours * (1 - ours) / 200_000) + 1e-6
    value = lambda x: min(1, max(0, (gate.hi - gate.lo) / (1 + math.exp(-x)) + gate.lo))  # noqa: E731
    mean, _ = quad(lambda x: value(x) * logit_density(x, location, gate.beta), -99, 99, points=[-2.4, 2.4], limit=400)
    assert abs(drawn.mean().item() - mean) < 0.005


def test_penalty_is_the_sum_of_integrals():
    model = ClassTokenViT(3, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=4)
    for i, block in enumerate(model.blocks):
        block.attn.head_gate.log_alpha.data = torch.linspace(-2, 2, 4) + i
    locations = [a for block in model.blocks for a in block.attn.head_gate.log_alpha.tolist()]
    expected = sum(mass_above(0.1 / 1.2, a, 0.33) for a in locations)
    assert abs(l0_penalty(model).item() - expected) < 1e-4


# Attention


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_is_softmax_in_float64(seed):
    torch.manual_seed(seed)
    attention = GatedAttention(24, num_heads=3, qkv_bias=True).eval()
    attention.head_gate.log_alpha.data = torch.tensor([-5.0, 0.0, 5.0])
    x = 3 * torch.randn(2, 19, 24)
    exact = {name: p.detach().double() for name, p in attention.named_parameters()}
    q, k, v = F.linear(x.double(), exact["qkv.weight"], exact["qkv.bias"]).view(2, 19, 3, 3, 8).permute(2, 0, 3, 1, 4)
    rows = F.softmax(q @ k.transpose(-2, -1) * 8**-0.5, -1)
    gate = attention.head_gate().double()
    out = ((rows @ v) * gate[:, None, None]).transpose(1, 2).reshape(2, 19, 24)
    out = F.linear(out, exact["proj.weight"], exact["proj.bias"])
    torch.testing.assert_close(attention(x).double(), out, atol=2e-6, rtol=1e-5)
    ours_q, ours_k, _ = attention.project(x)
    torch.testing.assert_close(attention.class_rows(ours_q, ours_k, 4).double(), rows[:, :, :4], atol=2e-6, rtol=1e-5)
    assert (rows.sum(-1) - 1).abs().max() < 1e-12


# Schedule


@pytest.mark.parametrize("steps, warm", [(100, 10), (1000, 50), (37, 0)])
def test_schedule_is_timms(steps, warm):
    """timm counts its warm-up from the first rate in `warm` steps and ends the cosine at `t_initial`; with the same
    start the two are the same numbers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = CosineLRScheduler(
        optimizer, t_initial=steps - warm, warmup_t=warm, warmup_lr_init=1 / (warm + 1), warmup_prefix=True,
        t_in_epochs=False,
    )  # fmt: skip
    ours, other = [], []
    for step in range(steps):
        theirs.step_update(step)
        other.append(optimizer.param_groups[0]["lr"])
        ours.append(learning_rate_scale(step, steps, warm / steps))
    np.testing.assert_allclose(ours[warm:], other[warm:], atol=1e-9)
    rising = [1 / (warm + 1) + step * (1 - 1 / (warm + 1)) / max(warm, 1) for step in range(warm)]
    np.testing.assert_allclose(other[:warm], rising, atol=1e-9)
    np.testing.assert_allclose(ours[:warm], other[:warm], atol=1e-9)


# COCO


def test_coco_masks_are_pycocotools(tmp_path):
    root = make_synthetic("coco2014", tmp_path, 40)
    data, crowds = coco2014.Coco2014(root), 0
    truth = COCO(str(data.file))
    for index, image in enumerate(data.ids):
        items = truth.loadAnns(truth.getAnnIds(imgIds=int(image)))
        union = np.zeros(data.size(index), bool)
        for item in items:
            shape = truth.annToMask(item).astype(bool)
            assert np.array_equal(coco2014.rasterise(item, data.size(index), ""), shape)
            union |= shape
            crowds += item["iscrowd"]
        assert np.array_equal(data.read(index)[1] > 0, union)
    assert crowds, "run lengths are among them"


@pytest.mark.parametrize("seed", SEEDS)
def test_run_lengths_are_pycocotools(seed):
    "Packed and plain run lengths, and polygons that cross the image's border."
    rng = np.random.default_rng(seed)
    size = tuple(rng.integers(1, 90, 2).tolist())
    pattern = rng.random(size) < rng.random()
    packed = rle.encode(np.asfortranarray(pattern.astype(np.uint8)))
    counts = coco2014.unpack_runs(packed["counts"])
    assert sum(counts) == size[0] * size[1]
    for outline in (packed, dict(size=list(size), counts=counts), packed | dict(counts=packed["counts"].decode())):
        assert np.array_equal(coco2014.rasterise(dict(segmentation=outline), size, ""), pattern)
    side = max(size)
    polygons = [(rng.random(2 * n) * 1.5 * side - side / 4).tolist() for n in (3, 4, 9)]
    theirs = rle.decode(rle.merge(rle.frPyObjects(polygons, *size))).astype(bool)
    assert np.array_equal(coco2014.rasterise(dict(segmentation=polygons), size, ""), theirs)


# GeoTIFF


@pytest.mark.parametrize("kind", ["uint8", "uint16", "int16", "float32"])
@pytest.mark.parametrize(
    "options", [{}, dict(tiled=True, blockxsize=16, blockysize=16, compress="lzw"), dict(nodata=3)]
)
def test_rasters_are_gdals(kind, options, tmp_path):
    rng, file = np.random.default_rng(0), tmp_path / "a.tif"
    pixels = rng.integers(0, 9, (4, 40, 36)).astype(kind)
    profile = dict(driver="GTiff", height=40, width=36, count=4, dtype=kind, crs="EPSG:32632")
    profile |= dict(photometric="MINISBLACK")  # the fourth band is no transparency
    with rasterio.open(file, "w", **profile | options) as out:
        out.write(pixels)
    image, valid = read_image(file)
    with rasterio.open(file) as truth:  # GDAL's own reading
        theirs, mask = truth.read(), truth.dataset_mask() > 0
    assert np.array_equal(theirs, pixels) and image.dtype == theirs.dtype
    where = np.ones_like(mask) if valid is None else valid
    assert np.array_equal(where, mask) and np.array_equal(image[:, mask], theirs[:, mask])
    window = rasterio.windows.Window(5, 7, 20, 11)
    with rasterio.open(file) as truth:
        part, seen = read_image(file, window=window)
        seen = np.ones(part.shape[1:], bool) if seen is None else seen
        assert np.array_equal(part[:, seen], truth.read(window=window)[:, seen])
    with rasterio.open(tmp_path / "m.tif", "w", **profile | options | dict(count=1)) as out:
        out.write(pixels[:1])
    assert np.array_equal(read_mask(tmp_path / "m.tif"), pixels[0].astype(int))
