"""Preparing data, end to end: small archives in the official layouts, from a server on loopback that misbehaves on
purpose, into folders that the real readers read."""

import hashlib
import importlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
import types
import urllib.request
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from ctm.core import BadFileError
from ctm.synthetic.sets import MAKERS, make_synthetic

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT.parent / "shared" / "samples" / "endotect"
sys.path.insert(0, str(ROOT / "data_prep"))

import download  # noqa: E402
import prepare  # noqa: E402
import unpack  # noqa: E402

NAMES = ("voc2012", "coco2014", "ade20k", "dfc2020", "endotect", "kvasir_seg")
SCRIPT = {name: importlib.import_module(name) for name in NAMES}


# A server that follows a plan


class Server:
    "Serves `files` by name. `plan` holds what to do with the next requests, one word each; then it behaves."

    def __init__(self):
        self.files, self.plan, self.ranges = {}, [], []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.answer(self, owner.plan.pop(0) if owner.plan else "whole")

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/data"
        threading.Thread(target=self.http.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True).start()

    def answer(self, request, word):
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        word, _, argument = word.partition(":")
        if word == "error":
            return request.send_error(int(argument))
        if word == "redirect":
            request.send_response(302)
            request.send_header("Location", argument)
            return request.end_headers()
        name = request.path.rsplit("/", 1)[-1]
        if word in ("change", "mix"):
            self.files[name] = bytes(255 - byte for byte in self.files[name])
        body = self.files.get(name)
        if body is None:
            return request.send_error(404)
        tag = f'"{hashlib.md5(body).hexdigest()}"'
        start = int(asked[6:-1]) if asked and word != "whole-only" else 0
        if word != "mix" and request.headers.get("If-Range") not in (None, tag):
            start = 0
        if start >= len(body) > 0:
            return request.send_error(416)
        start -= 7 if word == "shift" else 0  # not the bytes that were asked for, and honest about it
        request.send_response(206 if start else 200)
        request.send_header("Content-Type", "text/html" if word == "page" else "application/octet-stream")
        if word != "endless":
            request.send_header("Content-Length", str(len(body) - start))
        request.send_header("ETag", tag)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        request.end_headers()
        end = start + int(argument) if word == "break" else len(body)
        try:
            for at in range(start, end, 1000):
                request.wfile.write(body[at : min(at + 1000, end)])
                time.sleep(0.02 if word == "slow" else 0)
        except OSError:  # the other side was killed
            pass
        request.close_connection = True


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


# Small archives in the official layouts


def image_bytes(kind, seed=0, size=(24, 20), mode="RGB"):
    rng, out = np.random.default_rng(seed), io.BytesIO()
    shape = size[::-1] + ((3,) if mode == "RGB" else ())
    Image.fromarray(rng.integers(0, 3, shape, np.uint8) * 80).save(out, kind)
    return out.getvalue()


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def tarred(files, mode="w"):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode=mode) as archive:
        for name, data in files.items():
            entry = name if isinstance(name, tarfile.TarInfo) else tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def kvasir(folder):
    "The synthetic polyps in the official archive's layout."
    made, files, lists = make_synthetic("kvasir_seg", folder, n=4), {}, {"train": [], "validation": []}
    for file in sorted(made.glob("*/*/*.jpg")):
        split, part, name = file.parts[-3:]
        files[f"Kvasir-SEG/{part}/{split}{name}"] = file.read_bytes()
        if part == "images":
            lists[split].append(f"{split}{file.stem}\n")
    text = {name: "".join(ids).encode() for name, ids in lists.items()}
    return {"kvasir-seg.zip": zipped(files), "train.txt": text["train"], "val.txt": text["validation"]}


def mat(values):
    out = io.BytesIO()
    savemat(out, {"GTcls": {"Segmentation": values, "CategoriesPresent": np.unique(values)}}, do_compression=True)
    return out.getvalue()


def voc():
    "Two images to train, two to validate; SBD knows two more, and one of the validation."
    top, names = "VOCdevkit/VOC2012", ["2007_000001", "2007_000002", "2008_000003", "2008_000004"]
    files = {f"{top}/JPEGImages/{name}.jpg": image_bytes("JPEG", i) for i, name in enumerate([*names, "a", "b"])}
    label = b"<annotation><object><name>cat</name></object></annotation>"
    files |= {f"{top}/Annotations/{name}.xml": label for name in [*names, "a", "b"]}
    mask = np.arange(20 * 24, dtype=np.uint8).reshape(20, 24) % 21
    out = io.BytesIO()
    Image.fromarray(mask).save(out, "PNG")
    files |= {f"{top}/SegmentationClass/{name}.png": out.getvalue() for name in names}
    for split, ids in dict(train=names[:2], val=names[2:]).items():
        files[f"{top}/ImageSets/Segmentation/{split}.txt"] = "\n".join(ids).encode()
    sbd = "benchmark_RELEASE/dataset"
    masks = {f"{sbd}/cls/{name}.mat": mat(mask) for name in ("a", "b", names[2])}
    lists = {f"{sbd}/train.txt": f"a\n{names[2]}\n".encode(), f"{sbd}/val.txt": b"b\n", f"{sbd}/img/a.jpg": b"x"}
    return {"VOCtrainval_11-May-2012.tar": tarred(files), "benchmark.tgz": tarred(masks | lists, "w:gz")}


def others(name):
    "One image and one mask per split, below one more folder than needed."
    jpg, png = image_bytes("JPEG"), image_bytes("PNG", mode="L")
    if name == "ade20k":
        top = "data/ADEChallengeData2016"
        pairs = {f"{top}/{kind}/{split}/1.{end}": data for split in ("training", "validation")
                 for kind, end, data in (("images", "jpg", jpg), ("annotations", "png", png))}  # fmt: skip
        return {"ADEChallengeData2016.zip": zipped(pairs | {f"{top}/objectInfo150.txt": b"1"})}
    if name == "coco2014":
        notes = {f"annotations/{kind}_{split}2014.json": b"{}" for kind in ("instances", "captions")
                 for split in ("train", "val")}  # fmt: skip
        images = {split: zipped({f"{split}2014/COCO_{split}2014_1.jpg": jpg}) for split in ("train", "val")}
        return {"annotations_trainval2014.zip": zipped(notes)} | {f"{s}2014.zip": z for s, z in images.items()}
    labelled = {"hyper-kvasir/labeled-images/lower-gi-tract/polyps/a.jpg": jpg}
    labelled["hyper-kvasir/labeled-images/image-labels.csv"] = b"a"
    pair = {f"segmented-images/{part}/a.jpg": jpg for part in ("images", "masks")}
    folds = {f"{k}_fold_split.csv": b"file-name;class-name;split-index\n" for k in (2, 5)}
    archives = {"hyper-kvasir-labeled-images.zip": zipped(labelled), "hyper-kvasir-segmented-images.zip": zipped(pair)}
    return archives | folds


def small(dataset, files, counts):
    "The declaration of a data set, with the sizes, checksums and counts of small archives."

    def archives(args):
        found = dataset.archives(args)
        return [fit(archive) if archive.name in files else archive for archive in found]

    def fit(archive):
        data = files[archive.name]
        checksum = f"sha256:{hashlib.sha256(data).hexdigest()}" if archive.checksum else ""
        return replace(archive, bytes=len(data), checksum=checksum, unpacked=len(data))

    return replace(dataset, archives=archives, counts=counts)


class Pairs:
    "A reader for layouts whose own is not under test: images and masks of one size."

    def __init__(self, root, split):
        self.root, self.split = root, split

    def __len__(self):
        return 2

    def __getitem__(self, index):
        if index >= 2:
            raise IndexError
        return dict(image=np.zeros((3, 4, 5)), mask=np.zeros((4, 5)), label=np.zeros(2), name=f"{self.split}{index}")


def reader(monkeypatch, name, official, cls=Pairs):
    module = types.ModuleType(f"ctm.datasets.{name}")
    module.READER, module.OFFICIAL = cls, official
    monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture(scope="module")
def polyp_files(tmp_path_factory):
    return kvasir(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture
def polyps(server, polyp_files, monkeypatch):
    "Small Kvasir-SEG, its server, and the real reader with the small counts."
    from ctm.datasets import kvasir_seg

    monkeypatch.setattr(kvasir_seg, "READER", kvasir_seg.KvasirSeg, raising=False)
    monkeypatch.setattr(kvasir_seg, "OFFICIAL", {"train": 4, "val": 1}, raising=False)
    server.files = dict(polyp_files)
    return small(SCRIPT["kvasir_seg"].DATASET, polyp_files, {"images/*.jpg": 5, "masks/*.jpg": 5})


def run(dataset, root, *arguments):
    return prepare.main(dataset, ["--root", str(root), *map(str, arguments)])


def error(capsys):
    "The error lines."
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def contents(root):
    return sorted(str(p.relative_to(root)) for p in root.iterdir()) if root.exists() else []


WHOLE = ["images", "masks", "train.txt", "val.txt"]


# A network that breaks


@pytest.mark.parametrize(
    "plan, first_range",
    [
        ([], None),
        (["error:500", "error:503", "error:429"], None),
        (["break:3000", "break:2000"], "bytes=3000-"),
        (["break:3000", "whole-only"], "bytes=3000-"),  # ignores the range: begun anew, nothing appended
        (["break:3000", "change", "change"], "bytes=3000-"),  # another file: If-Range brings it whole, it is wrong
        (["break:3000", "error:416"], "bytes=3000-"),
        (["break:3000", "shift", "break:3000", "shift"], "bytes=3000-"),
    ],
)
def test_download_comes_whole(plan, first_range, server, tmp_path):
    data = os.urandom(20_000)
    server.files, server.plan = {"a.zip": data}, list(plan)
    checksum = f"md5:{hashlib.md5(data).hexdigest()}"
    if "change" in plan:
        with pytest.raises(BadFileError, match="a.zip: cannot be fetched .* md5"):
            download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip", len(data), checksum)
        assert not list(tmp_path.iterdir())
        server.plan = ["change"]
    assert download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip", len(data), checksum).read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    if first_range:
        assert first_range in server.ranges


def test_halves_of_two_files_are_not_kept(server, tmp_path):
    data = os.urandom(20_000)
    server.files, server.plan = {"a.zip": data}, ["break:3000", "mix", "change"]  # a server that ignores If-Range
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip", None, checksum).read_bytes() == data
    assert server.ranges == [None, "bytes=3000-", None]

    server.plan = ["break:3000", "whole"] * 10  # halves that fit, of a wrong file: twice, not for ever
    with pytest.raises(BadFileError, match="its md5 is"):
        download.fetch((f"{server.url}/a.zip",), tmp_path / "b.zip", None, "md5:0")
    assert len(server.plan) == 16


@pytest.mark.parametrize(
    "plan, message",
    [
        (["error:404"], "HTTP 404"),
        (["page"], "a web page came instead"),
        (["redirect:file:///etc/passwd"], "'file:///etc/passwd' is not allowed"),
        (["error:500"] * 20, "failed 6 times in a row"),
    ],
)
def test_download_gives_up_with_a_remedy(plan, message, server, tmp_path):
    server.files, server.plan = {"a.zip": b"x" * 5000}, plan
    with pytest.raises(BadFileError, match=f"a.zip: cannot be fetched .*{message}.* pass --archive FILE"):
        download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


NONSENSE = {
    "Content-Length of 5,000 digits": b"200 OK\r\nContent-Length: " + b"9" * 5000,
    "Retry-After of 5,000 digits": b"503 No\r\nRetry-After: " + b"9" * 5000,
    "Content-Range of 5,000 digits": b"206 Part\r\nContent-Range: bytes " + b"9" * 5000 + b"-9/9",
    "a redirection to no address": b"302 Found\r\nLocation: http://[bad",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_answers_that_make_no_sense(answer, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            client, _ = listener.accept()
            client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 " + answer + b"\r\n\r\nhello")
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"
        with pytest.raises(BadFileError, match="a.zip: cannot be fetched .*Error: .*Try later, or fetch it by hand"):
            download.fetch((url,), tmp_path / "a.zip")


def test_redirection_never_leaves_https():
    request = urllib.request.Request("https://host/a.zip")
    with pytest.raises(download.Refused, match="redirected to http://host/b.zip, which is not https"):
        download._Redirects().redirect_request(request, None, 302, "", {}, "http://host/b.zip")
    assert download._Redirects().redirect_request(request, None, 302, "", {}, "https://other/b.zip")


def test_next_address_is_tried(server, tmp_path):
    server.files = {"a.zip": b"x" * 5000}
    urls = (f"{server.url}/b.zip", f"{server.url}/a.zip")
    assert download.fetch(urls, tmp_path / "a.zip", 5000).stat().st_size == 5000
    with pytest.raises(BadFileError, match="5,000 bytes where the official file has 4,999"):
        download.fetch(urls, tmp_path / "c.zip", 4999)
    server.files["a.zip"], server.plan = b"x" * 800_000, ["whole", "endless"]  # no length is announced
    with pytest.raises(BadFileError, match="more than 5,000 bytes"):
        download.fetch(urls, tmp_path / "c.zip", most=5000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_dead_network_keeps_what_came(server, tmp_path):
    server.files, server.plan = {"a.zip": b"x" * 5000}, ["break:3000"] + ["error:500"] * 20
    with pytest.raises(ConnectionError, match="3,000 bytes are kept, the same command continues"):
        download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip")
    server.plan = []
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip").read_bytes() == b"x" * 5000
    assert server.ranges[-1] == "bytes=3000-"
    other = (f"{server.url}/another/a.zip",)  # another address may have another file: begun anew
    assert download.fetch(other, tmp_path / "copy" / "a.zip").read_bytes() == b"x" * 5000
    assert server.ranges[-1] is None


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/a.zip", "a.zip"])
def test_only_http(url, polyps, tmp_path, capsys):
    assert run(polyps, tmp_path / "data", "--mirror", url) == 1
    assert url in error(capsys)[0] and not (tmp_path / "data").exists()


# From the official archive to the reader


def test_kvasir_seg(polyps, server, tmp_path, capsys):
    root = tmp_path / "kvasir_seg"
    server.plan = ["break:9000", "error:502", "break:9000"]
    assert run(polyps, root, "--mirror", server.url) == 0
    out = capsys.readouterr().out
    assert contents(root) == WHOLE
    assert "research and education only" in out and "to fetch" in out and "train: 4 images, 4 of them decoded" in out
    asked = len(server.ranges)
    assert run(polyps, root, "--mirror", server.url) == 0 and len(server.ranges) == asked  # nothing to do
    assert run(polyps, root, "--check") == 0

    images = (root / "images").stat().st_ino
    shutil.rmtree(root / "masks")  # what an interruption between two renames leaves
    (root / ".prepare" / "old.zip.unpacked").mkdir(parents=True)
    assert run(polyps, root, "--mirror", server.url, "--keep-archives") == 0
    assert (root / "images").stat().st_ino == images and contents(root) == [".prepare", *WHOLE]
    assert contents(root / ".prepare") == ["kvasir-seg.zip"]


def test_official_addresses_are_used(polyps, server, tmp_path, monkeypatch):
    official = {a.name: a for a in SCRIPT["kvasir_seg"].ARCHIVES}
    assert official["kvasir-seg.zip"].urls == ("https://datasets.simula.no/downloads/kvasir-seg.zip",)
    for script in SCRIPT.values():
        for archive in [*getattr(script, "ARCHIVES", []), *([script.SBD] if hasattr(script, "SBD") else [])]:
            assert archive.urls[0].startswith("https://") and archive.urls[0].endswith(f"/{archive.name}")
            assert archive.plain or archive.unpacked >= archive.bytes or archive.keep
    local = replace(polyps, archives=lambda args: [
        replace(a, urls=(f"{server.url}/{a.name}",)) for a in small(SCRIPT["kvasir_seg"].DATASET, server.files, {})
        .archives(args)])  # fmt: skip
    assert run(local, tmp_path / "data") == 0


def test_words_that_name_no_folder_or_list_are_one_line(tmp_path, capsys):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for root in ("~nobody-here/x", str(tmp_path / "loop")):
        assert prepare.main(SCRIPT["kvasir_seg"].DATASET, ["--root", root]) == 1
        assert root in error(capsys)[0]
    (tmp_path / "list.txt").write_bytes("2007_000032".encode("utf-16"))
    with pytest.raises(BadFileError, match="list.txt: is no text in UTF-8"):
        SCRIPT["voc2012"].check_list(tmp_path / "list.txt", tmp_path)


@pytest.mark.skipif(not SAMPLES.exists(), reason="no real samples beside the project")
def test_declared_lists_are_the_real_ones():
    found = {file.name: file for part in ("official_splits", "kvasir_seg_split") for file in (SAMPLES / part).iterdir()}
    declared = [archive for name in ("endotect", "kvasir_seg") for archive in SCRIPT[name].ARCHIVES if archive.plain]
    assert {archive.name for archive in declared} == set(found)
    assert not any(download.fault(found[a.name], a.bytes, a.checksum) for a in declared)


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


@pytest.mark.parametrize("name", ["ade20k", "coco2014", "endotect"])
def test_other_layouts(name, server, tmp_path, monkeypatch):
    server.files, dataset = others(name), SCRIPT[name].DATASET
    counts = {pattern: 2 if "fold" in pattern or "json" in pattern else 1 for pattern in dataset.counts}
    reader(monkeypatch, name, {"train": 2})
    root = tmp_path / name
    assert run(small(dataset, server.files, counts), root, "--mirror", server.url) == 0
    assert not (root / ".prepare").exists() and not list(root.rglob("captions*"))
    assert (root / "ADEChallengeData2016/objectInfo150.txt").exists() == (name == "ade20k")


ARCHIVE = {  # first folder of the layout -> the archive that brings it
    "ADEChallengeData2016": "ADEChallengeData2016.zip",
    "VOCdevkit": "VOCtrainval_11-May-2012.tar",
    "train2014": "train2014.zip",
    "val2014": "val2014.zip",
    "annotations": "annotations_trainval2014.zip",
    "labeled-images": "hyper-kvasir-labeled-images.zip",
    "segmented-images": "hyper-kvasir-segmented-images.zip",
}


@pytest.mark.parametrize("name", ["ade20k", "coco2014", "endotect", "voc2012"])
def test_synthetic_set_through_the_official_archives(name, server, tmp_path, monkeypatch):
    if name not in MAKERS:
        pytest.skip(f"no synthetic set in the layout of {name}")
    made, packed = make_synthetic(name, tmp_path / "synthetic", n=4), {}
    for file in made.rglob("*"):
        top, *_ = parts = file.relative_to(made).parts
        if top in ARCHIVE and file.is_file():
            packed.setdefault(ARCHIVE[top], {})["/".join(parts)] = file.read_bytes()
        elif top == "official_splits" and file.is_file():
            server.files[file.name] = file.read_bytes()
    server.files |= {archive: zipped(files) for archive, files in packed.items()}
    server.files.setdefault("2_fold_split.csv", b"unused")
    cls = importlib.import_module(f"ctm.datasets.{name}").READER
    official = {split: len(cls(made, split)) for split in ("train", "val")}
    assert all(official.values())
    reader(monkeypatch, name, official, cls)
    root, options = tmp_path / name, ["--no-sbd"] if name == "voc2012" else []
    assert run(small(SCRIPT[name].DATASET, server.files, {}), root, "--mirror", server.url, *options) == 0
    assert {str(p.relative_to(root)) for p in root.rglob("*")} >= {file for files in packed.values() for file in files}


def test_bad_archive_without_a_checksum_is_fetched_again(server, tmp_path, monkeypatch, capsys):
    good, dataset = others("endotect"), SCRIPT["endotect"].DATASET
    server.files = good | {"hyper-kvasir-labeled-images.zip": good["hyper-kvasir-labeled-images.zip"][:-100]}
    reader(monkeypatch, "endotect", {"train": 2})
    root = tmp_path / "data"
    assert run(small(dataset, good, {}), root, "--mirror", server.url) == 1
    (line,) = error(capsys)
    assert "hyper-kvasir-labeled-images.zip" in line and "it was deleted, the same command fetches it again" in line
    server.files = good
    assert run(small(dataset, good, {}), root, "--mirror", server.url) == 0
    assert contents(root) == ["labeled-images", "official_splits", "segmented-images"]


def test_dfc2020_from_archives_by_hand(tmp_path, monkeypatch, capsys):
    from ctm.datasets import dfc2020

    monkeypatch.setattr(dfc2020, "READER", dfc2020.Dfc2020, raising=False)
    monkeypatch.setattr(dfc2020, "OFFICIAL", {"train": 4, "val": 1}, raising=False)
    made, data = make_synthetic("dfc2020", tmp_path / "synthetic", n=4), {}
    for file in made.rglob("*.tif"):  # one archive per sensor for test, one for all of validation
        name = "val (1).zip" if "validation" in file.name else f"{file.parent.name}.zip"
        flat = file.name if name == "s1_0.zip" else f"DFC_Public_Dataset/{file.parent.name}/{file.name}"
        data.setdefault(name, {"__MACOSX/._x.tif": b"x"})[flat] = file.read_bytes()
    for name, files in data.items():
        (tmp_path / name).write_bytes(zipped(files))
    counts = {pattern: 4 if "test" in pattern else 1 for pattern in SCRIPT["dfc2020"].DATASET.counts}
    dataset, root = replace(SCRIPT["dfc2020"].DATASET, counts=counts), tmp_path / "dfc2020"

    assert run(dataset, root) == 1
    assert "ieee-dataport.org" in error(capsys)[0] and not root.exists()
    assert run(dataset, root, "--archive", tmp_path / "none.zip") == 1
    assert "none.zip: no such file" in error(capsys)[0]
    assert run(dataset, root, "--archive", tmp_path / "val (1).zip") == 1
    assert any("4" in line and "ROIs0000_test" in line for line in error(capsys))  # the rest is missing
    files = [option for name in data for option in ("--archive", tmp_path / name)]
    assert run(dataset, root, *files) == 0
    assert "val (1).zip: already in its place" in capsys.readouterr().out
    assert contents(root) == ["ROIs0000_test", "ROIs0000_validation"]
    assert contents(root / "ROIs0000_test") == ["dfc_0", "s1_0", "s2_0"]
    twice = {f"{folder}/ROIs0000_test_lc_0_p0.tif": b"x" for folder in "ab"}
    (tmp_path / "twice.zip").write_bytes(zipped(twice))
    assert run(dataset, root, "--archive", tmp_path / "twice.zip") == 1
    assert "twice.zip: ROIs0000_test_lc_0_p0.tif: in two folders" in error(capsys)[0]
    (tmp_path / "other.zip").write_bytes(zipped({"inner.zip": b"x"}))
    assert run(dataset, root, "--archive", tmp_path / "other.zip") == 1
    assert "other.zip: no DFC2020 patches" in error(capsys)[0]


def test_archive_by_hand(polyps, server, tmp_path, capsys):
    root, file = tmp_path / "data", tmp_path / "kvasir-seg (2).zip"
    file.write_bytes(server.files.pop("kvasir-seg.zip"))
    shutil.copy(file, tmp_path / "what.zip")
    assert run(polyps, root, "--mirror", server.url, "--archive", tmp_path / "what.zip") == 1
    assert "rename it to what it is, one of kvasir-seg.zip" in error(capsys)[0]
    assert run(polyps, root, "--mirror", server.url, "--archive", file) == 0
    assert contents(root) == WHOLE and file.exists()


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: b"\n<!DOCTYPE html><title>Log in</title>", "it is a web page"),
        (lambda data: data[:-500], "bytes where the official file has"),
        (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "its sha256 is"),
    ],
)
def test_archive_that_is_something_else(damage, message, polyps, server, tmp_path, capsys):
    root, file = tmp_path / "data", tmp_path / "kvasir-seg.zip"
    file.write_bytes(damage(server.files["kvasir-seg.zip"]))
    assert run(polyps, root, "--mirror", server.url, "--archive", file) == 1
    (line,) = error(capsys)
    assert str(file) in line and message in line and "fetch kvasir-seg.zip again" in line
    assert not root.exists()


# Killed at any point


RUN = """
import hashlib, json, sys, time, types
from dataclasses import replace
sys.path.insert(0, "data_prep")
import download, kvasir_seg, prepare, unpack
known, slow, arguments = json.loads(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
download.CHUNK = 1000
copy = unpack.shutil.copyfileobj
unpack.shutil.copyfileobj = lambda *args: (time.sleep(slow), copy(*args))
class Reader:
    def __init__(self, root, split): pass
    def __len__(self): return 0
sys.modules["ctm.datasets.kvasir_seg"] = types.SimpleNamespace(READER=Reader, OFFICIAL={"train": 0})
archives = [replace(a, bytes=known[a.name][0], checksum=known[a.name][1]) for a in kvasir_seg.ARCHIVES]
counts = {"images/*.jpg": 5, "masks/*.jpg": 5}
sys.exit(prepare.main(replace(kvasir_seg.DATASET, archives=lambda args: archives, counts=counts), arguments))
"""


def start(server, root, slow=0.0):
    known = {n: (len(d), f"sha256:{hashlib.sha256(d).hexdigest()}") for n, d in server.files.items()}
    command = [sys.executable, "-c", RUN, json.dumps(known), str(slow), "--root", str(root), "--mirror", server.url]
    heard = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a background job's children ignore it)
    out = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    return subprocess.Popen(command, cwd=ROOT, preexec_fn=heard, **out)


def wait_for(condition, process):
    for _ in range(2000):
        if condition():
            return
        assert process.poll() is None, "the run was too fast to be stopped"
        time.sleep(0.01)
    raise AssertionError("it never came so far")


@pytest.mark.parametrize("how, status", [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)])
def test_killed_twice_and_continued(how, status, server, polyp_files, tmp_path):
    root = tmp_path / "data"
    server.files, server.plan = dict(polyp_files), ["slow"]
    part = root / ".prepare" / "kvasir-seg.zip.part"

    process = start(server, root)
    wait_for(lambda: part.exists() and part.stat().st_size > 5000, process)
    process.send_signal(how)
    assert process.wait() == status
    kept = part.stat().st_size
    assert contents(root) == [".prepare"] and kept > 5000

    process = start(server, root, slow=0.2)
    wait_for(lambda: len(list(root.glob(".prepare/*.unpacked/Kvasir-SEG/images/*.jpg"))) > 1, process)
    assert f"bytes={kept}-" in server.ranges
    other = start(server, root)  # a second command beside the first
    assert other.wait() == 1 and b"another command is preparing this folder" in other.stderr.read()
    process.send_signal(how)
    assert process.wait() == status
    assert contents(root) == [".prepare"], "a half-unpacked folder looks whole"

    process = start(server, root)
    assert process.wait() == 0, process.stderr.read()
    assert contents(root) == WHOLE
    assert len(list(root.glob("images/*.jpg"))) == len(list(root.glob("masks/*.jpg"))) == 5
    assert sum(r is None for r in server.ranges) == 3, "something was fetched twice"


# Hostile archives


def entry(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def both(files):
    return [("zip", zipped(files)), ("tar", tarred(files, "w:gz"))]


def bomb_header():
    "A tar whose first extended header claims to be a gigabyte."
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[156:157], block[124:136], block[148:156] = b"x", b"%011o\0" % 10**9, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def twice():
    "A zip with one name twice; zipfile warns where it is made."
    with pytest.warns(UserWarning, match="Duplicate name"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for _ in range(2):
                archive.writestr("a/b", b"x")
    return out.getvalue()


HOSTILE = {
    "longer than a file's name": [*both({"a/" * 30_000 + "x": b"x"}), *both({"x" * 256: b"x"})],
    "is an absolute path": [*both({"/tmp/evil": b"x"}), ("zip", zipped({"C:\\evil": b"x"}))],
    "leads out of the folder": [*both({"a/../../evil": b"x"}), ("zip", zipped({"..\\evil": b"x"}))],
    "no plain file name": [*both({"a\\b": b"x"}), ("tar", tarred({"a\x1bb": b"x"}))],
    "a symbolic link": [
        ("zip", zipped({zip_entry("a", 0o120777): b"/etc/passwd"})),
        ("tar", tarred({entry("a", tarfile.SYMTYPE, "../../etc"): b""})),
    ],
    "a hard link to '../../evil'": [("tar", tarred({entry("a", tarfile.LNKTYPE, "../../evil"): b""}))],
    "a device": [
        ("tar", tarred({entry("a", tarfile.CHRTYPE): b""})),
        ("tar", tarred({entry("a", tarfile.FIFOTYPE): b""})),
        ("zip", zipped({zip_entry("a", 0o020666): b""})),
    ],
    "times its size": both({f"{i}": bytes(200_000) for i in range(8)}),
    "is there twice": [("zip", twice()), ("tar", tarred({entry("a/b"): b"x", entry("./a/b"): b"y"}))],
    "differ only by case": both({"a/Image.jpg": b"x", "a/image.jpg": b"y"}) + both({"A/x": b"x", "a/y": b"y"}),
    "a file and a folder": both({"a": b"x", "a/b": b"y"}),
    "more than 5 members": both({f"{i}": b"x" for i in range(6)}),
    "damaged or cut short|cut short or": [
        ("zip", zipped({"a": os.urandom(5000)})[:3000]),
        ("zip", zipped({"a": b"A" * 100}).replace(zipped({"a": b"A" * 100})[31:40], b"x" * 9)),
        ("tar", tarred({"a": os.urandom(5000)})[:3000]),
        ("tar", tarred({"a": os.urandom(5000)}, "w:gz")[:3000]),
        ("tar", tarred({"a": b"x" * 512})[:1024] + b"garbage" * 1000),
        ("tar", b"not an archive at all"),
        ("zip", b""),
    ],
    "it is a web page": [("zip", b"<html>please log in</html>")],
}


@pytest.mark.parametrize("message, name, data", [(m, n, d) for m, cases in HOSTILE.items() for n, d in cases])
def test_hostile_archive(message, name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "SMALL", 1_000_000)
    monkeypatch.setattr(unpack, "MEMBERS", 5 if "members" in message else 100)
    archive = tmp_path / "in" / f"bad.{name}"
    archive.parent.mkdir()
    archive.write_bytes(data)
    with pytest.raises(BadFileError, match=message) as caught:
        unpack.unpack(archive, tmp_path / "in" / "out")
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", archive.name], "something was left"


@pytest.mark.parametrize("size", ["-1024", "-2048"])
def test_size_below_nothing(size, tmp_path):
    "tarfile would go back and read the same member for ever, all the more where the member is not wanted."
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for name, headers in {"y": {}, "x": dict(size=size), "z": {}}.items():
            member = entry(name)
            member.pax_headers = headers
            out.addfile(member)
    with pytest.raises(BadFileError, match=f"a.tar: not unpacked, 'x' says that it has {size} bytes"):
        unpack.unpack(tmp_path / "a.tar", tmp_path / "out", keep="^y")


def test_huge_header_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "SMALL", 10**12)
    (tmp_path / "bad.tar").write_bytes(bomb_header())
    with pytest.raises(BadFileError, match="bad.tar: not unpacked, it would unpack to more"):
        unpack.unpack(tmp_path / "bad.tar", tmp_path / "out")


def test_clutter_of_desktops_is_left_out(tmp_path):
    files = {"__MACOSX/a/._b.jpg": b"x", "a/.DS_Store": b"x", "a/b.jpg": b"x", "a/._b.jpg": b"x"}
    (tmp_path / "a.zip").write_bytes(zipped(files))
    unpack.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["b.jpg"]


def test_hostile_archive_by_hand_leaves_nothing(tmp_path, capsys):
    archive = tmp_path / "s1_0.zip"
    archive.write_bytes(zipped({"ROIs0000_test_s1_0_p0.tif": b"x", "../evil": b"x"}))
    assert run(SCRIPT["dfc2020"].DATASET, tmp_path / "data", "--archive", archive) == 1
    (line,) = error(capsys)
    assert str(archive) in line and "leads out of the folder" in line
    assert [p.name for p in tmp_path.iterdir()] == ["s1_0.zip"]


# Space, checks, the synthetic set


def test_too_little_space(polyps, server, tmp_path, monkeypatch, capsys):
    usage = types.SimpleNamespace(free=1000)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda path: usage)
    assert run(polyps, tmp_path / "data", "--mirror", server.url) == 1
    (line,) = error(capsys)
    assert "are needed and 0.00 MB are free" in line and "--root" in line
    assert not server.ranges and not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()  # made by the user: stays
    assert run(polyps, tmp_path / "data", "--mirror", server.url) == 1
    assert (tmp_path / "data").is_dir() and contents(tmp_path / "data") == []


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


def test_sample(polyps, tmp_path, capsys):
    assert run(SCRIPT["kvasir_seg"].DATASET, tmp_path, "--sample", 2) == 0
    assert "a synthetic set, made by ctm and not real" in capsys.readouterr().out
    (made,) = tmp_path.iterdir()
    assert (made / "SYNTHETIC.json").exists()
    assert run(SCRIPT["kvasir_seg"].DATASET, made, "--check") == 0
    assert run(SCRIPT["kvasir_seg"].DATASET, tmp_path, "--sample", 0) == 1


def test_scripts_run_as_documented():
    for name in ("kvasir_seg", "voc2012"):
        done = subprocess.run(
            [sys.executable, f"data_prep/{name}.py", "--check", "--root", "/nowhere"],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert done.stderr == f"error: /nowhere: no such folder; python data_prep/{name}.py prepares it\n"


# Aerial images of Dubai: laid out for `folder`


def tiles(base):
    "The publisher's layout, every pixel of a mask in a colour of its own class."
    import mbrsc_dubai

    colors = [value for name, value in mbrsc_dubai.COLORS.items() if name != "ignore"]
    for tile in range(1, 9):
        for kind in ("images", "masks"):
            (base / f"Tile {tile}" / kind).mkdir(parents=True)
        for part in range(1, 10):
            rgb = tuple(bytes.fromhex(colors[(tile + part) % 5][1:]))
            Image.new("RGB", (40, 32), (tile, part, 9)).save(base / f"Tile {tile}/images/image_part_{part:03}.jpg")
            Image.new("RGB", (40, 32), rgb).save(base / f"Tile {tile}/masks/image_part_{part:03}.png")
    return base


@pytest.mark.parametrize("packed", [False, True])
def test_dubai_becomes_a_folder_that_the_reader_reads(packed, tmp_path, capsys):
    import mbrsc_dubai

    from ctm.datasets import folder

    source, root = tiles(tmp_path / "Semantic segmentation dataset"), tmp_path / "root"
    if packed:
        source = Path(shutil.make_archive(tmp_path / "archive", "zip", tmp_path, source.name))
    assert mbrsc_dubai.main([str(source), "--root", str(root)]) == 0
    assert f"{root}: 72 of 72 images" in capsys.readouterr().out
    options = dict(masks="masks", mask_values="mask_values.json", tile=16, resize=None)
    train, val = (folder.load(root, split, **options) for split in ("train", "val"))
    assert (len(train), len(val)) == (54 * 4, 18 * 4) and len(train.classes) == 5
    assert all(train[i]["label"].sum() == 1 for i in range(0, len(train), 4))
    assert mbrsc_dubai.main([str(source), "--root", str(root)]) == 1
    assert "is there already; delete it" in capsys.readouterr().err


def test_dubai_says_what_is_missing(tmp_path, capsys):
    import mbrsc_dubai

    source, root = tiles(tmp_path / "tiles"), tmp_path / "root"
    (source / "Tile 3/masks/image_part_004.png").unlink()
    assert mbrsc_dubai.main([str(source), "--root", str(root)]) == 1
    (line,) = error(capsys)
    assert "Tile 3/masks/image_part_004.png: missing" in line and not root.exists()
    assert mbrsc_dubai.main([str(source), "--root", str(root), "--partial"]) == 0
    assert "71 of 72 images" in capsys.readouterr().out
    assert mbrsc_dubai.main([str(tmp_path / "none"), "--root", str(tmp_path / "other")]) == 1
    assert "no such archive or folder" in error(capsys)[0]
