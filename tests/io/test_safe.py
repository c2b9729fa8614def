"Whatever the bytes, a reader gives a sample or a typed error that names the file; nothing in a file ever runs."

import json
import os
import pickle
import string
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctm.checkpoint import load_model
from ctm.core import BadFileError
from ctm.data.label_table import label_table
from ctm.datasets import coco2014, endotect, folder, voc2012
from ctm.experiments.results import load_result
from ctm.io.images import read_image
from ctm.io.safe import file_part, inside, printable, read_array, read_packed, reading
from ctm.layers.pretrained import load_backbone
from ctm.model import ClassTokenViT
from ctm.reference import load_reference_checkpoint
from ctm.segmentation.network import load_network
from ctm.train.checkpointing import load_checkpoint
from tests.io.pickles import (
    Payload,
    labels_file,
    legacy_torch_file,
    object_array,
    packed_objects,
    raw_pickle,
    torch_file,
)
from tests.tools import JSON, TINY_MODEL, TYPED, in_file

PLACES = {
    "cls_labels.npy": (voc2012.read_cls_labels, [labels_file, raw_pickle, object_array]),
    "images.npy": (read_array, [object_array, raw_pickle]),
    "masks.npz": (lambda path: read_packed(path, "masks"), [packed_objects, raw_pickle]),
    "last.ckpt": (load_checkpoint, [torch_file, legacy_torch_file, raw_pickle]),
    "reference.ckpt": (load_reference_checkpoint, [torch_file, legacy_torch_file, raw_pickle]),
    "model.safetensors": (load_model, [raw_pickle, torch_file]),
    "network.safetensors": (load_network, [raw_pickle, torch_file]),
    "backbone.safetensors": (
        lambda path: load_backbone(ClassTokenViT(3, **TINY_MODEL), str(path)),
        [raw_pickle, torch_file],
    ),
    "result.json": (load_result, [raw_pickle]),
    "image.png": (read_image, [raw_pickle]),
    "image.tif": (read_image, [raw_pickle]),
}


@pytest.mark.parametrize("how", ["open", "system", "exec", "popen"])
@pytest.mark.parametrize("name, write", [(name, write) for name, (_, kinds) in PLACES.items() for write in kinds])
def test_a_pickle_never_runs(name, write, how, tmp_path):
    mark, file = tmp_path / "it ran", tmp_path / name
    write(file, Payload(mark, how))
    with pytest.raises(BadFileError, match=name.replace(".", r"\.")):
        PLACES[name][0](file)
    time.sleep(0.02 if how == "popen" else 0)
    assert not mark.exists()


@pytest.mark.parametrize("name", PLACES)
def test_a_pipe_is_no_file(name, tmp_path):
    "Whoever opened it would wait for a writer for ever."
    os.mkfifo(tmp_path / name)
    with pytest.raises((BadFileError, FileNotFoundError), match=name.replace(".", r"\.")):
        PLACES[name][0](tmp_path / name)


def test_the_payload_would_run(tmp_path):
    pickle.loads(pickle.dumps(Payload(tmp_path / "it ran", "open")))
    assert (tmp_path / "it ran").exists()


READERS = {
    "a.png": read_image,
    "a.jpg": read_image,
    "a.tif": read_image,
    "a.npy": read_array,
    "a.npz": lambda path: read_packed(path, "masks"),
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


@given(text=st.text(max_size=400), most=st.integers(20, 80))
def test_names(text, most):
    shown = printable(text, most)
    assert len(shown) <= most and (shown.isprintable() or not shown)
    part = file_part(text, most)
    assert len(part) <= most and "/" not in part and "\0" not in part and part not in ("..", ".")
    assert not text or set(part) <= set(string.ascii_letters + string.digits + "._-") or part == text
    try:
        assert (Path("/root") / text).parts[:1] and inside(Path("/a"), text, links=False)
        assert os.path.normpath(f"/a/{text}").startswith("/a") and not text.startswith("/") or text.startswith("/a")
    except BadFileError as error:
        assert str(error).isprintable()


def test_a_library_that_fails_on_a_file_is_no_bug_of_ours(tmp_path):
    "torch and scipy raise AttributeError and UnboundLocalError for what damaged files hold."
    library = {"__name__": "library"}
    exec("def decode(name):\n    if not name:\n        found = 1\n    return found\n", library)
    with pytest.raises(BadFileError, match="a.mat: cannot be read"), reading(tmp_path / "a.mat"):
        library["decode"]("x")
    with pytest.raises(AttributeError), reading(tmp_path / "a.mat"):
        tmp_path.nothing  # noqa: B018
