"Whole files of every kind that ctm reads, and what can happen to them."

import io
import json
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import rasterio
import torch
from PIL import Image

EXTREME = [
    struct.pack(order + size, value)
    for order in "<>"
    for size, value in (
        ("I", 0),
        ("I", 2**32 - 1),
        ("I", 2**31 - 1),
        ("I", 2**31),
        ("H", 65535),
        ("Q", 2**63 - 1),
        ("Q", 2**40),
    )  # fmt: skip
]
TOKENS = [
    b'"', b",", b";", b"\n", b"\r", b"\0", b"../", b"/etc/passwd", b"-1", b"1e999", b"NaN", b"9" * 5000, b"[" * 3000,
    b"{}", b"null", b"true", b"<!DOCTYPE a [", b"&a;", b"\xff\xfe", b"\xe2\x80\xae", b"\xed\xa0\x80", b"$(id)",
    b"x" * 70000,
]  # fmt: skip


def mutate(
    data: bytes,  # whole file
    others: list[bytes],  # other whole files of the same reader
    rng: np.random.Generator,  # source of randomness
) -> tuple[str, bytes]:  # what was done, and the mutant
    "A file after one of eight things that happen to files, or are done to them."
    how = str(rng.choice(["flip", "bits", "cut", "double", "splice", "extreme", "token", "drop"]))
    out = bytearray(data)
    n = len(data)

    def place():
        return int(rng.integers(n))

    if how == "flip":
        for _ in range(int(rng.integers(1, 9))):
            out[place()] = int(rng.integers(256))
    elif how == "bits":
        for _ in range(int(rng.integers(1, 4))):
            out[place()] ^= 1 << int(rng.integers(8))
    elif how == "cut":
        out = out[: place()]
    elif how == "double":
        a, b = sorted((place(), place()))
        out[b:b] = out[a:b]
    elif how == "splice":
        other = others[int(rng.integers(len(others)))]
        out = out[: place()] + other[int(rng.integers(len(other))) :]
    elif how == "extreme":
        where = int(rng.integers(min(n, 128))) if rng.random() < 0.7 else place()
        value = EXTREME[int(rng.integers(len(EXTREME)))]
        out[where : where + len(value)] = value
    elif how == "token":
        where = place()
        out[where : where + int(rng.integers(4))] = TOKENS[int(rng.integers(len(TOKENS)))]
    else:
        a = place()
        del out[a : a + int(rng.integers(1, 64))]
    return how, bytes(repair_png(out) if rng.random() < 0.5 else out)


def repair_png(
    data: bytearray,  # file, perhaps a PNG
) -> bytearray:  # the same file with right checksums, so that damage reaches what lies behind them
    "A PNG whose chunks have right checksums."
    at = 8
    while data[:4] == b"\x89PNG" and at + 12 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + size > len(data):
            break
        data[at + 8 + size : at + 12 + size] = struct.pack(">I", zlib.crc32(data[at + 4 : at + 8 + size]))
        at += 12 + size
    return data


def synthetic_files(
    root: Path,  # folder of a synthetic set
    pattern: str,  # glob of its files
    most: int = 3,  # number of files
) -> list[bytes]:
    "The first files of a synthetic set."
    return [file.read_bytes() for file in sorted(root.glob(pattern))[:most]]


def pictures(
    kind: str,  # format of Pillow
    **options,  # options of its `save`
) -> list[bytes]:  # grey, colours, palette, transparent; as far as the format knows them
    "Small pictures of one format."
    rng = np.random.default_rng(0)
    found = []
    pixels = Image.fromarray(rng.integers(0, 255, (24, 20, 4), np.uint8), "RGBA")
    turned = Image.Exif()
    turned[0x0112] = 6
    for mode in ("L", "RGB", "P", "RGBA", "LA", "1", "CMYK"):
        out = io.BytesIO()
        try:
            (pixels.convert("RGB") if mode == "CMYK" else pixels).convert(mode).save(out, kind, exif=turned, **options)
        except (OSError, ValueError):  # the format does not know this mode
            continue
        found.append(out.getvalue())
    return found


def rasters(
    folder: Path,  # folder for one file at a time
    *kinds: tuple[str, int],  # type, and number of bands
    **options,  # options of rasterio
) -> list[bytes]:
    "Small GeoTIFFs or PNGs: as they are, packed, tiled, and with a nodata value."
    rng = np.random.default_rng(0)
    found = []
    for kind, count in kinds:
        profile = dict(driver="GTiff", height=40, width=36, count=count, dtype=kind, crs="EPSG:32632")
        for more in (dict(), dict(compress="deflate", predictor=2 if kind[0] != "f" else 3, nodata=1),
                     dict(tiled=True, blockxsize=16, blockysize=16, compress="lzw")):  # fmt: skip
            file = folder / f"seed{'.png' if options.get('driver') == 'PNG' else '.tif'}"
            file.unlink(missing_ok=True)
            more = {} if options.get("driver") == "PNG" else more
            with rasterio.open(file, "w", **profile | more | options) as out:
                out.write(rng.integers(0, 5, (count, 40, 36)).astype(kind))
            found.append(file.read_bytes())
    return found


def archives() -> list[bytes]:
    "A zip and two tars with a folder and files."
    files = {"a/b.txt": b"text" * 50, "a/c.bin": bytes(range(256)), "d.txt": b""}
    found = []
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    found.append(out.getvalue())
    for mode in ("w", "w:gz"):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode=mode, format=tarfile.PAX_FORMAT) as archive:
            for name, data in files.items():
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
        found.append(out.getvalue())
    return found


def torch_files() -> list[bytes]:
    "Checkpoints of a fit, as torch writes them."
    found = []
    for extra in ({}, dict(optimizer_states=[dict(state={0: dict(step=torch.tensor(3.0))})], loops=dict(done=[1, 2]))):
        out = io.BytesIO()
        torch.save(dict(state_dict={"a": torch.arange(6.0), "b": torch.ones(2, 3)}, epoch=3) | extra, out)
        found.append(out.getvalue())
    return found


def numpy_files(
    kind: str,  # "npy", "npz" or "labels"
) -> list[bytes]:
    "Arrays, packed arrays, or VOC's pickled table of labels."
    out = io.BytesIO()
    masks = np.arange(600, dtype=np.uint8).reshape(2, 20, 15)
    if kind == "npz":
        np.savez_compressed(out, masks=masks)
    elif kind == "npy":
        np.save(out, masks)
    else:
        np.save(out, {f"2007_{i:06}": np.eye(20, dtype=np.float32)[i] for i in range(5)}, allow_pickle=True)
    return [out.getvalue()]


def json_file(**content) -> bytes:
    "A JSON file."
    return json.dumps(content).encode()
