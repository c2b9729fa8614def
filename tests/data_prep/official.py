"Small archives in the official layouts, and a server on loopback that misbehaves on purpose."

import hashlib
import importlib
import io
import json
import signal
import subprocess
import sys
import tarfile
import threading
import time
import types
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import prepare
from PIL import Image
from scipy.io import savemat

from ctm.synthetic.sets import make_synthetic
from tests.tools import ROOT

NAMES = ("voc2012", "coco2014", "ade20k", "dfc2020", "endotect", "kvasir_seg")
SCRIPT = {name: importlib.import_module(name) for name in NAMES}


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


def run(dataset, root, *arguments):
    return prepare.main(dataset, ["--root", str(root), *map(str, arguments)])


def error(capsys):
    "The error lines."
    return [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]


def contents(root):
    return sorted(str(p.relative_to(root)) for p in root.iterdir()) if root.exists() else []


WHOLE = ["images", "masks", "train.txt", "val.txt"]
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
