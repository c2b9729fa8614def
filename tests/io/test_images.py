"Images and rasters: GDAL reads the same, what was written is read, bombs and addresses in files are refused."

import io
import os
import struct
import subprocess
import sys
import tempfile
import threading
import warnings
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ctm.core import BadFileError
from ctm.io.images import _LARGEST, band_count, image_size, read_image, read_sparse
from ctm.io.masks import read_colors, read_mask
from tests.tools import ROOT, SIDES, in_file


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
        theirs, mask = truth.read(), (truth.read_masks() > 0).all(0)  # no data in one band is no data
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
    side = int((_LARGEST / 8) ** 0.5) // 4096 * 4096 + 4096  # in one piece just too large
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
