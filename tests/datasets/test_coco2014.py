"MS COCO: real samples, pycocotools' masks, and outlines that pycocotools would trust with its memory."

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as rle
from pycocotools.coco import COCO

from ctm.core import BadFileError
from ctm.datasets import coco2014
from ctm.io.outlines import rasterise, unpack_runs
from ctm.synthetic.sets import make_synthetic
from tests.datasets.samples import SAMPLES, check_samples, lines, real
from tests.tools import JSON, TYPED, in_file


@real
@pytest.mark.parametrize("split, count", [("train", 53), ("val", 27)])
def test_coco(split, count, capsys):
    dataset = coco2014.Coco2014(SAMPLES / "coco" / "coco2014_view", split)
    check_samples(dataset, count)
    assert not capsys.readouterr().out, "pycocotools must not chatter"
    truth = COCO(str(dataset.file))
    for index, image in enumerate(dataset.ids):
        items = truth.loadAnns(truth.getAnnIds(imgIds=image))
        shapes = [truth.annToMask(item).astype(bool) for item in items]
        for item, shape in zip(items, shapes, strict=True):
            assert (rasterise(item, dataset.size(index), "") == shape).all()
        mask = dataset.read(index)[1]
        assert ((mask > 0) == np.any(shapes, 0)).all()
        order = sorted(range(len(items)), key=lambda i: (items[i]["iscrowd"], shapes[i].sum()))  # smallest first
        for rank, i in enumerate(order):
            above = np.any([shapes[j] for j in order[:rank]], 0) if rank else np.zeros_like(shapes[i])
            own = mask[shapes[i] & ~above]
            same = {coco2014.CATEGORY_IDS.index(items[i]["category_id"]) + 1}
            ties = {
                coco2014.CATEGORY_IDS.index(items[j]["category_id"]) + 1
                for j in order
                if (items[j]["iscrowd"], shapes[j].sum()) == (items[i]["iscrowd"], shapes[i].sum())
            }
            assert set(own.tolist()) <= same | ties
        label = {coco2014.CATEGORY_IDS.index(item["category_id"]) for item in items}
        assert set(dataset.read_label(index).nonzero()[0].tolist()) == label


@real
def test_coco_lists():
    found = {s: len(lines(f"coco/wsss_lists/mctformer_{s}_id.txt")) for s in ("train", "val") if (
        SAMPLES / f"coco/wsss_lists/mctformer_{s}_id.txt").exists()}  # fmt: skip
    assert found.items() <= coco2014.OFFICIAL.items()
    assert len(lines("coco/wsss_lists/toco_train.txt")) == 82_081
    categories = json.loads((SAMPLES / "coco/coco2014_view/annotations/instances_val2014.json").read_text())[
        "categories"
    ]
    by_id = sorted((c["id"], c["name"]) for c in categories)
    assert by_id == list(zip(coco2014.CATEGORY_IDS, coco2014.CLASSES, strict=True))


SEEDS = range(5)


def test_coco_masks_are_pycocotools(tmp_path):
    root = make_synthetic("coco2014", tmp_path, 40)
    data, crowds = coco2014.Coco2014(root), 0
    truth = COCO(str(data.file))
    for index, image in enumerate(data.ids):
        items = truth.loadAnns(truth.getAnnIds(imgIds=int(image)))
        union = np.zeros(data.size(index), bool)
        for item in items:
            shape = truth.annToMask(item).astype(bool)
            assert np.array_equal(rasterise(item, data.size(index), ""), shape)
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
    counts = unpack_runs(packed["counts"])
    assert sum(counts) == size[0] * size[1]
    for outline in (packed, dict(size=list(size), counts=counts), packed | dict(counts=packed["counts"].decode())):
        assert np.array_equal(rasterise(dict(segmentation=outline), size, ""), pattern)
    side = max(size)
    polygons = [(rng.random(2 * n) * 1.5 * side - side / 4).tolist() for n in (3, 4, 9)]
    theirs = rle.decode(rle.merge(rle.frPyObjects(polygons, *size))).astype(bool)
    assert np.array_equal(rasterise(dict(segmentation=polygons), size, ""), theirs)


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


@pytest.mark.parametrize("rule", ["0 to 79", "1 to 80", "reversed", "of what is used"])
def test_categories_are_matched_by_name(rule, tmp_path):
    "Converters number categories anew; the names say which is which."
    root = make_synthetic("coco2014", tmp_path, 12)
    data = coco2014.Coco2014(root)
    masks, labels = ([read(i) for i in range(len(data))] for read in (lambda i: data.read(i)[1], data.read_label))
    content = json.loads(data.file.read_text())
    if rule == "of what is used":
        used = {item["category_id"] for item in content["annotations"]}
        content["categories"] = [row for row in content["categories"] if row["id"] in used]
    old = [row["id"] for row in content["categories"]]
    new = old[::-1] if rule == "reversed" else range(rule == "1 to 80", len(old) + 1)
    number = dict(zip(old, new, strict=False))
    for row in content["categories"]:
        row["id"] = number[row["id"]]
    for item in content["annotations"]:
        item["category_id"] = number[item["category_id"]]
    data.file.write_text(json.dumps(content))
    data = coco2014.Coco2014(root)
    for index in range(len(data)):
        assert np.array_equal(data.read(index)[1], masks[index])
        assert np.array_equal(data.read_label(index), labels[index])


@pytest.mark.parametrize(
    "category, message",
    [
        (dict(id=1, name="window"), "its category 1 is 'window', which is not one of COCO's 80"),
        (dict(id=1), "its category 1 is None"),
        (dict(id="1", name="person"), "its category '1' is 'person'"),
        (dict(id=2, name="person"), "annotation 1 has the unknown category '1'"),
    ],
)
def test_categories_that_cannot_be_matched(category, message, tmp_path):
    item = dict(id=1, image_id=1, category_id=1, segmentation=[[0, 0, 4, 0, 4, 4]], iscrowd=0)
    whole = dict(images=[dict(id=1, file_name="a.jpg", height=8, width=8)], annotations=[item], categories=[category])
    (tmp_path / "instances.json").write_text(json.dumps(whole))
    with pytest.raises(BadFileError, match=f"instances.json: .*{message}"):
        coco2014.pack(coco2014.read_instances(tmp_path / "instances.json"), tmp_path / "instances.json")


@pytest.mark.parametrize(
    "outline",
    [
        dict(size=[12, 16], counts="0" * 5 + "oooooo`o0"),
        dict(size=[12, 16], counts="P"),  # ends where more is promised
        dict(size=[12, 16], counts=[10**9]),
        dict(size=[12, 16], counts=[-8, 200]),
        dict(size=[12, 16], counts="é"),
        [[0, 0, 1e9, 0, 1e9, 1e9]],
        [[0, 0, float("nan"), 0, 1, 1]],
        [[0, 0, "1", 0, 1, 1]],
        None,
        "x",
        [],
    ],
)
def test_hostile_outlines(outline):
    item = dict(id=1, image_id=1, category_id=1, segmentation=outline)
    with pytest.raises(BadFileError, match="annotations: "):
        coco2014.semantic_mask([item], (12, 16))
