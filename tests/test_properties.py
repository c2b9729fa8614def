"""Properties that hold for whatever hypothesis thinks of: readers, pseudo-masks, metrics, gates. Deterministic, and
few examples; CTM_EXAMPLES=1000 for a long run."""

import io
import json
import os
import string
import tempfile
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ctm import guard
from ctm.core import IGNORE, BadFileError, DatasetNotFoundError
from ctm.data.label_table import label_table, split_rows
from ctm.datasets import coco2014, endotect, folder, voc2012
from ctm.experiments.results import load_result
from ctm.io.images import image_size, read_image, read_sparse
from ctm.io.masks import read_colors, read_mask
from ctm.metrics import SegmentationScores
from ctm.pruning import HeadGate, open_heads, open_probability
from ctm.pseudomask import pseudo_mask

slow = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "ctm", derandomize=True, deadline=None, max_examples=int(os.environ.get("CTM_EXAMPLES", 30)),
    suppress_health_check=slow, database=None,
)  # fmt: skip
settings.load_profile("ctm")
TYPED = (BadFileError, DatasetNotFoundError)
SIDES = st.integers(1, 40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
    max_leaves=12,
)


def in_file(data, name, read):
    "What a reader makes of some bytes."
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, name)
        file.write_bytes(data)
        return read(file)


# Readers: whatever the bytes, a sample or a typed error that names the file

READERS = {
    "a.png": read_image,
    "a.jpg": read_image,
    "a.tif": read_image,
    "a.npy": guard.read_array,
    "a.npz": lambda path: guard.read_packed(path, "masks"),
    "a.xml": voc2012.read_xml_label,
    "cls_labels.npy": voc2012.read_cls_labels,
    "labels.csv": lambda path: label_table(path, ["x.png"]),
    "table.csv": lambda path: endotect.read_table(path, ",", ("a",)),
    "instances.json": coco2014.read_instances,
    "result.json": load_result,
    "values.json": folder.read_values,
}
HEADS = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"II*\0", b"MM\0*", b"\x93NUMPY\x01\0", b"PK\x03\x04", b"<a>"]
HEADS += [b"file,label\n", b"a\n", b'{"images": []', b"\xef\xbb\xbf", b"[" * 999]


@pytest.mark.parametrize("name", READERS)
@given(head=st.sampled_from(HEADS), tail=st.binary(max_size=300))
def test_bytes(name, head, tail):
    try:
        in_file(head + tail, name, READERS[name])
    except TYPED as error:
        assert name in str(error) and str(error).isprintable()


@pytest.mark.parametrize("name", ["instances.json", "result.json", "values.json"])
@given(content=JSON)
def test_any_json(name, content):
    try:
        in_file(json.dumps(content).encode(), name, READERS[name])
    except TYPED as error:
        assert name in str(error)


@given(field=st.sampled_from(["images", "annotations", "categories"]), value=JSON)
def test_instances_with_a_wrong_part(field, value):
    item = dict(id=1, image_id=1, category_id=1, segmentation=[[0, 0, 4, 0, 4, 4]], iscrowd=0)
    whole = dict(images=[dict(id=1, file_name="a.jpg", height=8, width=8)], annotations=[item])
    whole |= dict(categories=[dict(id=1, name="person")])
    broken = whole | {field: value if not isinstance(value, dict) else [whole[field][0] | value]}

    def read(path):
        packed = coco2014.pack(coco2014.read_instances(path), path)
        assert len(packed["files"]) == len(packed["ids"]) == len(packed["labels"])

    try:
        in_file(json.dumps(broken).encode(), "instances.json", read)
    except TYPED as error:
        assert "instances.json" in str(error)
    in_file(json.dumps(whole).encode(), "instances.json", read)


# Readers: what was written is what is read


@given(h=SIDES, w=SIDES, mode=st.sampled_from(["L", "RGB", "P"]), seed=st.integers(0, 99))
def test_png_comes_back(h, w, mode, seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (h, w, 3) if mode == "RGB" else (h, w), np.uint8)
    out = io.BytesIO()
    picture = Image.fromarray(pixels, mode)
    if mode == "P":
        picture.putpalette(list(range(256)) * 3)
    picture.save(out, "PNG")

    def read(path):
        image, valid = read_image(path)
        assert valid is None and image.shape[1:] == image_size(path) == (h, w)
        if mode == "P":
            assert np.array_equal(read_mask(path), pixels)
        else:
            assert np.array_equal(image, pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))
        rgb = np.asarray(picture.convert("RGB")).astype(int)
        assert np.array_equal(read_colors(path), rgb[..., 0] * 65536 + rgb[..., 1] * 256 + rgb[..., 2])

    in_file(out.getvalue(), "a.png", read)


@given(
    h=SIDES, w=SIDES, bands=st.integers(1, 5), kind=st.sampled_from(["uint8", "int16", "uint16", "float32"]),
    nodata=st.none() | st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
def test_raster_comes_back(h, w, bands, kind, nodata, seed):
    pixels = np.random.default_rng(seed).integers(0, 9, (bands, h, w)).astype(kind)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place, "a.tif")
        profile = dict(driver="GTiff", height=h, width=w, count=bands, dtype=kind, nodata=nodata, crs="EPSG:32632")
        with rasterio.open(file, "w", **profile, photometric="MINISBLACK", ALPHA="NO") as out:
            out.write(pixels)
        image, valid = read_image(file)
        valid = np.ones((h, w), bool) if valid is None else valid
        assert np.array_equal(image[:, valid], pixels[:, valid]) and not image[:, ~valid].any()
        assert nodata is not None or valid.all()
        thin, _ = read_sparse(file, side=7)
        assert max(thin.shape[1:]) <= 7 and len(thin) == bands


NAME = st.text(st.characters(exclude_characters=';,"', exclude_categories=("Cs", "Cc", "Z")), min_size=1, max_size=12)


@given(
    classes=st.lists(NAME, min_size=1, max_size=4, unique_by=str.lower), rows=st.integers(1, 6), seed=st.integers(0, 9)
)
def test_label_table_comes_back(classes, rows, seed):
    rng, names = np.random.default_rng(seed), [f"d/{i}.png" for i in range(rows)]
    labels = rng.integers(0, 2, (rows, len(classes)))
    text = "file,label\n"
    for name, row in zip(names, labels, strict=True):
        text += f'{name},"{";".join(c for c, y in zip(classes, row, strict=True) if y)}"\n'
    table = in_file(text.encode(), "labels.csv", lambda path: label_table(path, names, classes))
    assert table.classes == tuple(classes) and np.array_equal(table.labels, labels)
    if rows > 1:
        sides = split_rows(table, 0.3, seed)
        assert sorted(sides["train"] + sides["val"]) == list(range(rows)) and all(sides.values())


@given(text=st.text(max_size=400), most=st.integers(20, 80))
def test_names(text, most):
    shown = guard.plain(text, most)
    assert len(shown) <= most and (shown.isprintable() or not shown)
    part = guard.file_part(text, most)
    assert len(part) <= most and "/" not in part and "\0" not in part and part not in ("..", ".")
    assert not text or set(part) <= set(string.ascii_letters + string.digits + "._-") or part == text
    try:
        assert (Path("/root") / text).parts[:1] and guard.inside(Path("/a"), text, links=False)
        assert os.path.normpath(f"/a/{text}").startswith("/a") and not text.startswith("/") or text.startswith("/a")
    except BadFileError as error:
        assert str(error).isprintable()


# Pseudo-masks


@given(
    b=st.integers(1, 3), c=st.integers(1, 6), grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(SIDES, SIDES), threshold=st.sampled_from(["mean", "value:0.4", "quantile:0.75"]),
    merge=st.sampled_from(["ascending", "argmax"]), fill=st.sampled_from(["majority", "nearest", "none"]),
    background=st.none() | st.integers(0, 6), given_labels=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_pseudo_masks(b, c, grid, size, threshold, merge, fill, background, given_labels, seed):
    g = torch.Generator().manual_seed(seed)
    maps, prob = torch.rand(b, c, *grid, generator=g), torch.rand(b, c, generator=g)
    present = (torch.rand(b, c, generator=g) < 0.5).float() if given_labels else None
    background = None if background is None else min(background, c)
    options = dict(threshold=threshold, merge=merge, fill=fill, background=background)
    mask = pseudo_mask(maps, prob, size, present, **options)
    assert mask.shape == (b, *size) and mask.dtype == torch.int64
    known = prob > 0.5 if present is None else present.bool()
    for item, classes in zip(mask, known, strict=True):
        values = [i + (background is not None and i >= background) for i in classes.nonzero().flatten().tolist()]
        allowed = {*values, IGNORE if background is None else background}
        assert set(item.unique().tolist()) <= allowed, "only classes that are present, and no class"
        if background is None and values and fill != "none":
            assert IGNORE not in item, "every pixel is filled where the image has a class"
    alone = torch.cat([
        pseudo_mask(maps[i : i + 1], prob[i : i + 1], size, None if present is None else present[i : i + 1], **options)
        for i in range(b)
    ])  # fmt: skip
    assert torch.equal(mask, alone), "an image's mask does not depend on its batch"
    order = torch.randperm(c, generator=g)
    if prob.unique().numel() == prob.numel() and background is None and merge == "ascending" and fill != "majority":
        moved = pseudo_mask(
            maps[:, order], prob[:, order], size, None if present is None else present[:, order], **options
        )
        back = torch.cat([order, torch.full((IGNORE + 1 - c,), IGNORE)])
        assert torch.equal(back[moved], mask), "the order of the classes does not matter"


# Metrics


@given(classes=st.integers(1, 8), n=st.integers(1, 60), cut=st.integers(0, 60), seed=st.integers(0, 99))
def test_metrics(classes, n, cut, seed):
    g = torch.Generator().manual_seed(seed)
    values = torch.tensor([*range(classes), 255])
    pred, target = (values[torch.randint(0, classes + 1, (1, 1, n), generator=g)] for _ in range(2))
    whole, parts, moved = (SegmentationScores(classes) for _ in range(3))
    whole.update(pred, target)
    for part in (slice(0, cut), slice(cut, None)):
        parts.update(pred[..., part], target[..., part])
    assert torch.equal(whole.confusion, parts.confusion), "batches add up"
    assert whole.confusion.sum() == (target != 255).sum(), "every pixel with a truth counts once"
    found = whole.compute()
    for value in (found["pixel_accuracy"], found["miou"], *found["iou"]):
        assert value.isnan() or 0 <= value <= 1
    order = torch.randperm(classes, generator=g)
    table = torch.cat([order, torch.arange(classes, 256)])
    table[255] = 255
    moved.update(table[pred], table[target])
    torch.testing.assert_close(moved.compute()["iou"][order], found["iou"], equal_nan=True)
    perfect = SegmentationScores(classes)
    perfect.update(target, target)
    assert not (target != 255).any() or perfect.compute()["miou"] == 1


# Gates


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9), st.floats(0.05, 2), st.booleans())
def test_gates(locations, beta, hard):
    gate = HeadGate(len(locations), beta=beta, hard=hard)
    gate.log_alpha.data = torch.tensor(locations)
    model = torch.nn.Sequential(gate)
    for training in (True, False):
        drawn = gate.train(training)()
        assert ((drawn >= 0) & (drawn <= 1)).all() and drawn.isfinite().all()
        assert not hard or set(drawn.tolist()) <= {0.0, 1.0}
    fixed = gate.eval()()
    assert torch.equal(fixed, gate()), "a fixed gate is fixed"
    assert open_heads(model)[0].tolist() == fixed.nonzero().flatten().tolist()
    share = open_probability(gate.log_alpha, beta)
    assert ((share >= 0) & (share <= 1)).all()
    rank = gate.log_alpha.argsort()
    assert (share[rank].diff() >= 0).all() and (fixed[rank].diff() >= 0).all(), "more is more open"
    gate.train()().sum().backward()
    assert gate.log_alpha.grad.isfinite().all()
