"PASCAL VOC: 156 real pairs, its lists, and labels from strangers."

import json
import pickle

import numpy as np
import pytest

from ctm.core import BadFileError
from ctm.datasets import voc2012
from tests.datasets.samples import SAMPLES, check_samples, lines, real


@real
@pytest.mark.parametrize("split, count", [("sample_train", 80), ("sample_val", 45), ("sample_train_aug_only", 31)])
def test_voc(split, count):
    "156 real pairs, with official masks and with those that SBD adds."
    check_samples(voc2012.Voc2012(SAMPLES / "voc2012", split, labels="cls_labels"), count)
    masks = voc2012.Voc2012(SAMPLES / "voc2012", split, labels="masks")
    folders = {file.parent.name for _, file, _ in masks.paths}
    assert folders == ({"SegmentationClassAug"} if split.endswith("only") else {"SegmentationClass"})
    void = any((masks.read(i)[1] == 255).any() for i in range(count))
    assert void == (not split.endswith("only")), "only the official masks have a void"


@real
def test_voc_labels_from_masks_and_boxes():
    "cls_labels were made from boxes; where they differ, the mask has lost or gained an object."
    differ = {}
    for split in ("sample_train", "sample_val", "sample_train_aug_only"):
        by_mask, by_box = (voc2012.Voc2012(SAMPLES / "voc2012", split, labels=k) for k in ("masks", "cls_labels"))
        for a, b, name in zip(map(by_mask.__getitem__, range(len(by_mask))), by_box, by_mask.names, strict=True):
            if (a["label"] != b["label"]).any():
                differ[name] = (a["label"] - b["label"]).nonzero().flatten().tolist()
    assert len(differ) == 2, differ  # of 156; over all 12,031 ids it is 818
    assert all(name in voc_list("sample_train_aug_only") for name in differ), "official masks agree with their boxes"


def voc_list(name):
    return lines(f"voc2012/VOCdevkit/VOC2012/ImageSets/Segmentation/{name}.txt")


@real
def test_voc_lists():
    labels = voc2012.read_cls_labels(SAMPLES / "voc2012" / "wsss_lists" / "cls_labels.npy")
    listed = {k: voc_list(k) for k in ("train", "val")} | {"train_aug": lines("voc2012/wsss_lists/train_aug_id.txt")}
    assert {name: len(ids) for name, ids in listed.items()} == voc2012.OFFICIAL
    assert len(labels) == 12_031 == len({*listed["train_aug"], *listed["val"]})
    assert not set(listed["train_aug"]) & set(listed["val"])
    indices = json.loads((SAMPLES / "voc2012" / "wsss_lists" / "cls_labels_indices.json").read_text())
    assert all(labels[name].nonzero()[0].tolist() == sorted(found) for name, found in indices.items())


@pytest.mark.parametrize("kind", [int, np.int32, np.int64, np.uint32, str])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_images_named_by_numbers(kind, protocol, tmp_path):
    "IRNet's keys; and pickles of every age."
    wanted = {f"20{7 + i:02}_00{i}032": np.eye(20, dtype=np.float32)[i] for i in range(4)}
    file = tmp_path / "cls_labels.npy"
    np.save(file, {}, allow_pickle=True)
    head = file.read_bytes()[: file.read_bytes().index(b"\n") + 1]
    content = np.array({kind(name.replace("_", "")): label for name, label in wanted.items()})
    file.write_bytes(head + pickle.dumps(content, protocol=protocol))
    found = voc2012.read_cls_labels(file)
    assert found.keys() == wanted.keys()
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize(
    "name", [32, -2007000032, 2007.5, 20070000321, pytest.param(7**9999, id="long"), None, (2007, 32)]
)
def test_numbers_that_name_no_image(name, tmp_path):
    np.save(tmp_path / "cls_labels.npy", {name: [0] * 20}, allow_pickle=True)
    with pytest.raises(BadFileError, match="cls_labels.npy: is not a table of labels"):
        voc2012.read_cls_labels(tmp_path / "cls_labels.npy")


def test_an_image_that_is_there_twice(tmp_path):
    np.save(tmp_path / "cls_labels.npy", {2007000032: [0] * 20, "2007_000032": [1] * 20}, allow_pickle=True)
    with pytest.raises(BadFileError, match="an image is twice"):
        voc2012.read_cls_labels(tmp_path / "cls_labels.npy")


@pytest.mark.parametrize(
    "label",
    [
        pickle.PUT + b"4000000000\n",  # a memo of gigabytes
        b"cnumpy\nndarray\n(((I99999\nI99999\nttR",  # an array of gigabytes
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR",
        b"cbuiltins\neval\n",
        b"cnumpy\ndtype\n(I8I0I1tR(I3I0NNNI-1I-1I0tb",  # an order that is a number
        b"cnumpy.core.multiarray\nscalar\n(I5S'a'tR",  # a type that is a number
        b"cnumpy\nndarray\n(tR(I1(I20tI7I00S'a'tb",
    ],
)
def test_hostile_labels_take_no_memory(label, tmp_path):
    file = tmp_path / "cls_labels.npy"
    np.save(file, {}, allow_pickle=True)
    head = file.read_bytes()
    head = head[: head.index(b"\n") + 1]
    file.write_bytes(head + b"(dS'2007_000032'\n" + label + b"s.")
    with pytest.raises(BadFileError, match="cls_labels.npy: is not a table of labels"):
        voc2012.read_cls_labels(file)


def test_laughing_labels(tmp_path):
    "A list of lists that share their parts: a few bytes, 2^40 numbers."
    nested = [0.0, 1.0]
    for _ in range(40):
        nested = [nested, nested]
    np.save(tmp_path / "cls_labels.npy", {"a": nested}, allow_pickle=True)
    with pytest.raises(BadFileError, match="is not a table of labels"):
        voc2012.read_cls_labels(tmp_path / "cls_labels.npy")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_laughing_xml(encoding, tmp_path):
    text = '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]>'
    text += "<annotation><object><name>&b;</name></object></annotation>"
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    with pytest.raises(BadFileError, match="a.xml: is no"):
        voc2012.read_xml_label(tmp_path / "a.xml")
