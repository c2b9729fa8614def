"""Files from strangers: pickles that would run, bombs, paths and names that lead elsewhere, addresses in files, a
network that lies. Each ends in a right sample or in one typed error, and nothing of theirs ever runs."""

import html
import io
import json
import os
import pickle
import re
import shlex
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zipfile
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from PIL import Image
from safetensors.torch import save_file

matplotlib.use("agg")
import matplotlib.pyplot as plt  # noqa: E402

from ctm import guard  # noqa: E402
from ctm.checkpoint import load_model
from ctm.core import BadFileError, DatasetNotFoundError
from ctm.data.cache import cached
from ctm.data.plot import describe_samples, legend, shortened
from ctm.datasets import coco2014, endotect, folder, kvasir_seg, voc2012
from ctm.experiments.results import Result, load_result, result_path
from ctm.io.images import band_count, image_size, read_image
from ctm.io.masks import read_mask
from ctm.layers.pretrained import load_backbone
from ctm.model import ClassTokenViT
from ctm.predict.raster import mask_file
from ctm.reference import load_reference_checkpoint
from ctm.reports.sweeps import report_command
from ctm.reports.tables import save_table, styled
from ctm.segmentation.network import load_network
from ctm.synthetic.sets import make_synthetic
from ctm.train.checkpointing import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "data_prep"))
TINY = dict(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)


# Pickles: the payload makes a file, and no file may appear


class Payload:
    def __init__(self, mark, how):
        self.mark, self.how = str(mark), how

    def __reduce__(self):
        calls = {
            "open": (open, (self.mark, "w")),
            "system": (os.system, (f"touch {shlex.quote(self.mark)}",)),
            "exec": (exec, (f"open({self.mark!r}, 'w')",)),
            "popen": (subprocess.Popen, (["touch", self.mark],)),
        }
        return calls[self.how]


def object_array(path, value):
    np.save(path, np.array([value, value], object), allow_pickle=True)


def packed_objects(path, value):
    np.savez(path, masks=np.array([value], object))


def raw_pickle(path, value):
    path.write_bytes(pickle.dumps(value))


def torch_file(path, value):
    torch.save(dict(state_dict={"mct.cls_token": value}, epoch=value), path)


def legacy_torch_file(path, value):
    torch.save(dict(state_dict={}, epoch=value), path, _use_new_zipfile_serialization=False)


def labels_file(path, value):
    np.save(path, {"2007_000032": value}, allow_pickle=True)


PLACES = {
    "cls_labels.npy": (voc2012.read_cls_labels, [labels_file, raw_pickle, object_array]),
    "images.npy": (guard.read_array, [object_array, raw_pickle]),
    "masks.npz": (lambda path: guard.read_packed(path, "masks"), [packed_objects, raw_pickle]),
    "last.ckpt": (load_checkpoint, [torch_file, legacy_torch_file, raw_pickle]),
    "reference.ckpt": (load_reference_checkpoint, [torch_file, legacy_torch_file, raw_pickle]),
    "model.safetensors": (load_model, [raw_pickle, torch_file]),
    "network.safetensors": (load_network, [raw_pickle, torch_file]),
    "backbone.safetensors": (lambda path: load_backbone(ClassTokenViT(3, **TINY), str(path)), [raw_pickle, torch_file]),
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


def test_a_pickle_in_the_cache_is_thrown_away(tmp_path):
    data = kvasir_seg.load(make_synthetic("kvasir_seg", tmp_path, 4), "val", (32, 32), 16, 0.1)
    (place,) = {cached(data, tmp_path / "cache").place}
    for part in ("images", "kept", "sums"):
        mark = tmp_path / "it ran"
        size = (place / f"{part}.npy").stat().st_size
        object_array(tmp_path / "evil.npy", Payload(mark, "open"))
        (place / f"{part}.npy").write_bytes((tmp_path / "evil.npy").read_bytes()[:size].ljust(size, b"\0"))
        again = cached(data, tmp_path / "cache")
        assert len(again) == len(data) and not mark.exists()


@pytest.mark.parametrize(
    "label",
    [
        pickle.PUT + b"4000000000\n",  # a memo of gigabytes
        b"cnumpy\nndarray\n(((I99999\nI99999\nttR",  # an array of gigabytes
        b"cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR",
        b"cbuiltins\neval\n",
    ],
)
def test_hostile_labels_take_no_memory(label, tmp_path):
    file = tmp_path / "cls_labels.npy"
    np.save(file, {}, allow_pickle=True)
    head = file.read_bytes()
    head = head[: head.index(b"\n") + 1]
    file.write_bytes(head + b"(dS'2007_000032'\n" + label + b"s.")
    with pytest.raises(BadFileError, match="cls_labels.npy: is no table of labels"):
        voc2012.read_cls_labels(file)


def test_laughing_labels(tmp_path):
    "A list of lists that share their parts: a few bytes, 2^40 numbers."
    nested = [0.0, 1.0]
    for _ in range(40):
        nested = [nested, nested]
    np.save(tmp_path / "cls_labels.npy", {"a": nested}, allow_pickle=True)
    with pytest.raises(BadFileError, match="is no table of labels"):
        voc2012.read_cls_labels(tmp_path / "cls_labels.npy")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_laughing_xml(encoding, tmp_path):
    text = '<!DOCTYPE a [<!ENTITY a "x"><!ENTITY b "&a;&a;&a;">]>'
    text += "<annotation><object><name>&b;</name></object></annotation>"
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    with pytest.raises(BadFileError, match="a.xml: is no"):
        voc2012.read_xml_label(tmp_path / "a.xml")


# Weights that ask for more than they hold


@pytest.mark.parametrize(
    "change", [dict(embed_dim=2**20), dict(depth=10**9), dict(pretrained="vit_base_patch16_224"), dict(img_size=2**24)]
)
def test_weights_decide_how_large_a_model_is(change, tmp_path):
    model = ClassTokenViT(3, **TINY)
    save_file(model.state_dict(), tmp_path / "m.safetensors", metadata={"ctm": json.dumps(model.options | change)})
    with pytest.raises(BadFileError, match="m.safetensors: damaged, or not written by save_model"):
        load_model(tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    "change", [dict(architecture="from_pretrained"), dict(encoder="tu-hf-hub:a/b"), dict(encoder_weights="imagenet")]
)
def test_networks_are_of_known_kinds(change, tmp_path):
    options = dict(num_values=3, in_chans=3, architecture="FPN", encoder="resnet18", depth=3) | change
    save_file({"a": torch.zeros(2)}, tmp_path / "n.safetensors", metadata={"ctm": json.dumps(options)})
    with pytest.raises(BadFileError, match="n.safetensors: damaged, or no segmentation network"):
        load_network(tmp_path / "n.safetensors")


def test_packed_checkpoint_is_a_bomb(tmp_path):
    torch.save(dict(state_dict=torch.zeros(10**6), epoch=0), tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as old:
        with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
    with pytest.raises(BadFileError, match="last.ckpt: damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


# Bombs


def png(width, height, depth=8):
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    head = struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)
    data = zlib.compress(bytes(10**6), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg(width, height):
    out = io.BytesIO()
    Image.new("RGB", (16, 16)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def sparse_tiff(width, height, **options):
    file = Path(os.environ["TMPDIR_OF_TEST"], "sparse.tif")
    profile = dict(driver="GTiff", width=width, height=height, count=1, dtype="uint8", SPARSE_OK=True, BIGTIFF="YES")
    rasterio.open(file, "w", **profile | options).close()
    return file.read_bytes()


BOMBS = {
    "png": lambda: png(60_000, 60_000),
    "png of 16 bits": lambda: png(60_000, 60_000, 16),
    "jpg": lambda: jpeg(60_000, 60_000),
    "tif, tiles": lambda: sparse_tiff(60_000, 60_000, tiled=True, blockxsize=4096, blockysize=4096),
    "tif, one strip": lambda: sparse_tiff(60_000, 60_000, blockysize=60_000, compress="deflate"),
    "tif, packed": lambda: sparse_tiff(50_000, 50_000, tiled=True, blockxsize=8192, blockysize=8192, compress="zstd"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_bomb(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR_OF_TEST", str(tmp_path))
    warnings.simplefilter("ignore")
    file = tmp_path / f"bomb.{kind[:3]}"
    file.write_bytes(BOMBS[kind]())
    assert file.stat().st_size < 3_000_000
    for read in (read_image, read_mask):
        with pytest.raises(BadFileError, match=r"bomb\.\w+: .*"):
            read(file)


def test_a_large_honest_raster_is_read_in_parts(tmp_path):
    side = int((guard.LARGEST / 8) ** 0.5) // 4096 * 4096 + 4096  # in one piece just too large
    file = tmp_path / "a.tif"
    tiles = dict(tiled=True, blockxsize=4096, blockysize=4096, compress="deflate", zlevel=1)
    with rasterio.open(file, "w", driver="GTiff", width=side, height=side, count=1, dtype="float64", **tiles) as out:
        out.write(np.random.default_rng(0).integers(0, 9, (1, 512, 512)).astype(float), window=((0, 512), (0, 512)))
    assert image_size(file) == (side, side)
    with pytest.raises(BadFileError, match="GB in"):
        read_image(file)


@pytest.mark.parametrize("kind", ["PPM", "GIF", "TGA", "EPS"])
def test_other_formats_under_a_known_name(kind, tmp_path):
    "Pillow would start Ghostscript for an EPS, whatever its name."
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png", kind)
    for read in (read_image, image_size, band_count):
        with pytest.raises(BadFileError, match="a.png: cannot be read as an image"):
            read(tmp_path / "a.png")


# Files that point elsewhere


class Listener:
    "A web server that counts who comes."

    def __init__(self):
        self.seen = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                owner.seen.append(self.path)
                self.send_error(404)

            do_HEAD = do_GET

            def log_message(self, *_):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs=dict(poll_interval=0.02), daemon=True).start()


READ = """
import sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
from ctm.io.images import read_image, read_sparse, image_size, band_count
from ctm.io.masks import read_mask
from ctm.predict.raster import open_source
for file in sorted(Path(sys.argv[1]).glob("*.tif")):
    for read in (image_size, band_count, read_image, read_sparse, read_mask):
        try: read(file)
        except ValueError as error: print(error)
    try:
        with open_source(file) as (read, _): read(0, 0, 8, 8)
    except ValueError as error: print(error)
"""


def test_no_raster_sends_its_reader_to_the_network(tmp_path):
    server = Listener()
    places = [f"/vsicurl/{server.url}/a.tif", f"{server.url}/b.tif", f"/vsicurl_streaming/{server.url}/c.tif"]
    warnings.simplefilter("ignore")
    for i, place in enumerate([*places, f"/vsizip//vsicurl/{server.url}/d.zip/a.tif", "/etc/hostname"]):
        vrt = (
            '<VRTDataset rasterXSize="60" rasterYSize="60"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
            f"<SourceFilename>{place}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand></VRTDataset>"
        )
        for kind in ("overviews", "sidecar", "ovr", "msk"):
            file = tmp_path / f"{kind}{i}.tif"
            with rasterio.open(file, "w", driver="GTiff", width=60, height=60, count=1, dtype="uint8") as out:
                out.write(np.ones((1, 60, 60), np.uint8))
                if kind == "overviews":
                    out.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=place)
        tag = f"<Metadata domain='OVERVIEWS'><MDI key='OVERVIEW_FILE'>{place}</MDI></Metadata>"
        (tmp_path / f"sidecar{i}.tif.aux.xml").write_text(f"<PAMDataset>{tag}</PAMDataset>")
        for kind in ("ovr", "msk"):
            (tmp_path / f"{kind}{i}.tif.{kind}").write_text(vrt)
        (tmp_path / f"virtual{i}.tif").write_text(vrt)
    done = subprocess.run([sys.executable, "-c", READ, tmp_path], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert not server.seen
    assert done.stdout.count("sends its reader to") >= 2 * 5 * 5 and done.stdout.count("virtual0.tif: cannot be read")
    server.http.shutdown()


OUT = ["../../secret", "/etc/passwd", "..\\..\\secret", "a/../../../secret", "x" * 300, "a\0b"]


@pytest.mark.parametrize("name", OUT)
def test_lists_stay_in_their_folder(name, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "secret.jpg")
    voc = make_synthetic("voc2012", tmp_path, 4)
    base = voc / "VOCdevkit" / "VOC2012"
    (base / "ImageSets" / "Segmentation" / "mine.txt").write_text(name)
    flat = tmp_path / "flat"
    (flat / "images").mkdir(parents=True)
    (flat / "train.txt").write_text(name)
    for read in (lambda: voc2012.Voc2012(voc, "mine", labels="none"), lambda: kvasir_seg.KvasirSeg(flat)):
        with pytest.raises(BadFileError, match="leads out of|longer than a file's name|missing, though"):
            read()
    endo = make_synthetic("endotect", tmp_path, 6)
    table = endo / "labeled-images" / "image-labels.csv"
    frame = pd.read_csv(table)
    frame["Classification"] = name.replace("\0", "\1")
    frame.to_csv(table, index=False)
    with pytest.raises(BadFileError, match="leads out of|longer than a file's name|missing, though"):
        endotect.EndoTect(endo)


@pytest.mark.parametrize("name", OUT)
def test_tables_and_json_stay_in_their_folder(name, tmp_path):
    root = make_synthetic("folder", tmp_path, 6)
    (root / "t.csv").write_text(f'file,label\n"{name}",a\n')
    with pytest.raises(BadFileError, match="is not in the folder of images|line"):
        folder.load(root, "train", labels="t.csv")
    image = folder.find_images(root / "images")[0]
    (root / "t.csv").write_text(f'file,mask\n{image},"{name}"\n')
    with pytest.raises(BadFileError, match="leads out of|longer than a file's name|missing, though|contains NUL"):
        folder.load(root, "train", labels="t.csv", masks="masks", mask_values=dict(a=0))
    coco = make_synthetic("coco2014", tmp_path, 4)
    file = coco / "annotations" / "instances_val2014.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    try:
        data = coco2014.Coco2014(coco, "val")
    except BadFileError:
        return
    assert all(path.resolve().is_relative_to(coco.resolve()) for path in data.paths)


def test_a_link_in_a_folder_leads_nowhere(tmp_path):
    root = make_synthetic("folder", tmp_path, 6)
    (root / "masks" / "link.tif").symlink_to(tmp_path / "secret.tif")
    image = folder.find_images(root / "images")[0]
    (root / "t.csv").write_text(f"file,mask\n{image},link.tif\n")
    with pytest.raises(BadFileError, match="link.tif: leads out of"):
        folder.load(root, "train", labels="t.csv", masks="masks", mask_values=dict(a=0))


@pytest.mark.parametrize("field, value", [("source", "../../../x"), ("variant", "/../../x"), ("baseline", "../x")])
def test_a_result_cannot_name_another_folder(field, value, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    extra = {field: value} if field != "source" else {}
    config = dict(dataset="voc2012", preset="demo", img_size=[64, 64], patch_size=8, in_chans=3)
    result = Result({}, config, 0, True, 1.0, value if field == "source" else "", {}, extra)
    (tmp_path / "r.json").write_text(json.dumps(result.__dict__ | dict(format=1)))
    try:
        path = load_result(tmp_path / "r.json").path()
    except BadFileError:
        return
    assert path.parent == tmp_path / "runs" / "results" and path == Path(os.path.normpath(path))


# COCO's run lengths, which pycocotools trusts with its memory


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


# Names

NAMES = [
    "<script>alert(1)</script>", "<b>&amp;", "$(touch x); `id` | rm -rf *", "two\nlines", "\u202egnp.exe", "x" * 300,
    "$\\frac{1}$", "100 % \\textbf{a}_b^c~#&", "_hidden", "", "\u0000\u0007", "\ud83d\ude00", "名前", "'\"",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_names_in_tables_and_figures(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    warnings.simplefilter("ignore")  # fonts lack some letters
    table = pd.DataFrame({"setting": [name, "b"], "mIoU": ["50.0 ± 1.0", "-"]})
    page = styled(table).to_html()
    assert "<script>" not in page and "<b>" not in page and name[:3] in html.unescape(page)
    file = save_table(table, name, name)
    assert file.parent == tmp_path / "runs" / "tables" and pd.read_csv(file, comment="#").shape[1] == 2
    tex = file.with_suffix(".tex").read_text().splitlines()
    assert len(tex) == 12 and tex[7].count(" & ") == 1 and tex[7].endswith(r"\\")
    assert not name.startswith("$") or "\\$" in tex[7]
    figure, ax = plt.subplots()
    ax.set_title(guard.figure_text(name))
    legend(figure, (name, "b"), ("#111111", "#222222"))
    figure.savefig(tmp_path / "a.svg")
    shown = shortened([name] * 9)
    assert len(shown) < 120 and shown.count("\n") <= 1
    plt.close(figure)
    assert shlex.split(report_command("own_data", images=name))[-1] == name


@pytest.mark.parametrize("name", [n for n in NAMES if "\0" not in n and "\u0000" not in n])
def test_names_in_file_names(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    from ctm.train.config import load_config

    path = result_path(load_config("voc2012"), 0, False, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")  # the name can be had
    assert path.parent == tmp_path / "runs" / "results" and guard.file_part(name) != guard.file_part(name + "2")
    assert str(BadFileError(f"a: {name}")).isprintable()


def test_hostile_folder_of_ones_own(tmp_path):
    "Classes and files with such names, from the table to masks of every image."
    from ctm.predict.masker import Masker
    from ctm.train.config import load_config

    images, files = tmp_path / "im\nages $x^", []
    images.mkdir()
    for i, name in enumerate(NAMES[:6] + ["_hidden", "名前", "\udcff"]):
        stem = name.replace("/", "_").replace("\0", "_")[:120]
        files.append(f"{stem}.{('png', 'tif')[i % 2]}")
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16), np.uint8)
        Image.fromarray(pixels).save(images / "plain.png")
        if i % 2:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with rasterio.open(
                    images / "plain.tif", "w", driver="GTiff", width=16, height=16, count=1, dtype="uint8"
                ) as out:
                    out.write(pixels[None])
            (images / "plain.png").unlink()
            (images / "plain.tif").rename(images / files[-1])
        else:
            (images / "plain.png").rename(images / files[-1])
    classes = tuple(dict.fromkeys(name.replace(";", "") or "empty" for name in NAMES))
    rows = pd.DataFrame(dict(file=files[:-1], label=[classes[i] for i in range(len(files) - 1)]))
    rows.to_csv(tmp_path / "labels.csv", index=False)
    data = folder.Folder(images, tmp_path / "labels.csv", classes=[c.strip() for c in classes])
    for index in range(len(data)):
        assert data[index]["image"].shape == (1, 16, 16)
    model = ClassTokenViT(len(data.classes), in_chans=1, **TINY).eval()
    config = load_config("folder", in_chans=1, img_size=(16, 16), patch_size=8)
    masker = Masker(model, config, data.mean, data.std, data.classes, data.colors)
    for i, name in enumerate(files[:-1]):
        counts = mask_file(masker, images / name, tmp_path / "out" / name, maps=tmp_path / f"maps{i}.tif")
        assert sum(counts.values()) == 256 and read_mask(tmp_path / "out" / name).shape == (16, 16)
    samples = [data[i] for i in range(3)]
    from ctm.data.plot import class_table

    warnings.simplefilter("ignore")
    describe_samples(samples, data, class_table(samples, data), 3).savefig(tmp_path / "a.png")
    plt.close("all")


# Downloads: the rest is in test_data_prep.py


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "file:///etc/passwd", "ftp://x/a", "https://", "http://[::1", "//x/a", "http://127.0.0.1.evil.org/a"]
)  # fmt: skip
def test_only_https(url, tmp_path):
    import download

    with pytest.raises(BadFileError, match="not an address that starts with https://"):
        download.fetch((url,), tmp_path / "a.zip")


def test_official_addresses_are_https():
    for file in sorted((ROOT / "data_prep").glob("*.py")):
        found = [word for word in file.read_text().replace('"', " ").split() if word.startswith("http://")]
        assert all("/pascal/VOC/voc2012/" in word and "." not in word.split("/")[-1] for word in found), found  # a page


@pytest.mark.parametrize("target", ["http://example.org/b.zip", "ftp://127.0.0.1/b.zip"])
def test_no_redirection_away(target):
    import urllib.request

    import download

    request = urllib.request.Request("http://127.0.0.1/a.zip")
    with pytest.raises(download.Refused, match="which is not https"):
        download._Redirects().redirect_request(request, None, 302, "", {}, target)


def test_a_dripping_server_is_left(tmp_path, monkeypatch):
    import download

    monkeypatch.setattr(download, "PATIENCE", 0.3)

    class Drip(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    with pytest.raises(BadFileError, match="less than 1000 bytes per second"):
        download.fetch((f"http://127.0.0.1:{http.server_port}/a.zip",), tmp_path / "a.zip")
    http.shutdown()


def test_a_silent_server_is_left(tmp_path, monkeypatch):
    import download

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        with pytest.raises(BadFileError, match="failed 6 times in a row"):
            download.fetch((url,), tmp_path / "a.zip")


# No telemetry

FIT = """
import os, socket, sys

def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "urllib.Request"):
        if event != "socket.connect" or arguments[0].family != socket.AF_UNIX:
            print("asked for the network:", event, arguments, flush=True)
            os._exit(9)

sys.addaudithook(watch)
if len(sys.argv) > 2:  # the watch works
    socket.create_connection(("127.0.0.1", 9))
from ctm.train.config import load_config
from ctm.experiments.run import run
result = run(load_config("kvasir_seg", "demo", embed_dim=16, depth=1, num_heads=2, epochs=1), root=sys.argv[1])
print(result.metrics["miou"])
"""


@pytest.mark.parametrize("ask", [False, True])
def test_the_demo_asks_for_no_network(ask, tmp_path):
    root = make_synthetic("kvasir_seg", tmp_path, 6)
    command = [sys.executable, "-c", FIT, str(root), *(["x"] if ask else [])]
    env = os.environ | dict(CTM_RUNS=str(tmp_path / "runs"))
    done = subprocess.run(command, env=env, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == (9 if ask else 0), done.stdout + done.stderr
    assert ("asked for the network" in done.stdout) == ask


def test_the_demo_runs_where_there_is_no_network(tmp_path):
    cut = ["unshare", "-rn", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]  # a notebook's kernel is on loopback
    try:
        subprocess.run([*cut, "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network may be taken away here: {error}")
    changes = dict(embed_dim=16, depth=1, num_heads=2, epochs=1)
    given = dict(dataset="kvasir_seg", root=str(make_synthetic("kvasir_seg", tmp_path, 6)), changes=changes)
    report = [ROOT / "nbs" / "sensitivity.ipynb", tmp_path / "out.ipynb", "-y", json.dumps(given), "--no-progress-bar"]
    command = [*cut, sys.executable, "-m", "papermill", *map(str, report)]
    env = os.environ | dict(CTM_RUNS=str(tmp_path / "runs"))
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr[-3000:]
    assert list((tmp_path / "runs" / "results").glob("*.json"))


# Mutants, a short run of `python -m tests.fuzz.run`; the long one is in figures/fuzz.json


def test_mutants_end_well():
    from ctm.reports.reliability import ENDS, GOOD
    from tests.fuzz.run import ending, mutant
    from tests.fuzz.targets import targets

    counts = dict.fromkeys(ENDS, 0)
    with tempfile.TemporaryDirectory() as home:
        for name, target in targets(Path(home)).items():
            path = Path(home, target.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            for number in range(20 if name == "network" else 120):
                path.write_bytes(mutant(target, name, number, seed=7)[1])
                end, why = ending(target, path)
                assert end in GOOD, f"{name}, mutant {number} of seed 7: {why}"
                counts[end] += 1
    assert sum(counts.values()) > 3000 and counts["read"] > 300 and counts["BadFileError"] > 1000


@pytest.mark.parametrize("name, numbers", [("geotiff", (2282, 2799, 2904)), ("SBD mat", (43, 640, 2800))])
def test_mutants_that_hung_or_crashed(name, numbers, tmp_path):
    "65,281 bands, for which GDAL takes minutes; and MATLAB files that kill scipy's reader."
    from tests.fuzz.run import ending, mutant
    from tests.fuzz.targets import targets

    target = targets(tmp_path)[name]
    for number in numbers:
        path = tmp_path / target.place
        path.write_bytes(mutant(target, name, number, seed=0)[1])
        assert ending(target, path)[0] == "BadFileError"
    path.write_bytes(target.files[0])
    assert ending(target, path)[0] == "read"


def test_every_error_is_listed():
    from ctm.reports.reliability import error_classes, error_table

    table = error_table()
    assert set(table.index) == {kind.__name__ for kind in error_classes()} >= {"BadFileError", "NonFiniteLossError"}
    named = set()
    for file in (ROOT / "ctm").rglob("*.py"):
        found = re.findall(r"^class (\w+)\((.*)\):", file.read_text(), re.M)
        named |= {name for name, bases in found if re.search(r"(Error|Exception|Warning|Exit)\b", bases)}
    assert named == set(table.index), "every class of errors is in the table"
    assert table["meaning"].str.len().min() > 10 and table["remedy"].str.len().min() > 10
    page = (ROOT / "nbs" / "hostile.ipynb").read_text()
    assert all(name in page for name in named), "run nbs/hostile.ipynb again"


def test_the_recorded_run():
    found = json.loads((ROOT / "figures" / "fuzz.json").read_text())
    assert found["mutants"] >= 100_000 and not found["failures"]
    assert sum(row["mutants"] for row in found["readers"]) == found["mutants"]
    from ctm.reports.reliability import GOOD

    assert all(sum(row[end] for end in GOOD) == row["mutants"] for row in found["readers"])


def test_not_found_is_typed(tmp_path):
    for read in (
        lambda: voc2012.Voc2012(tmp_path),
        lambda: coco2014.Coco2014(tmp_path),
        lambda: folder.load(tmp_path, "all"),
    ):
        with pytest.raises(DatasetNotFoundError):
            read()
    with pytest.raises(FileNotFoundError, match="no such file"):
        load_model(tmp_path / "none.safetensors")
