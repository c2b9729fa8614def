"Masks as people store them: few bits, three equal bands, white as zero, colours in TIFF, blurred by JPEG."

import struct
import zlib

import numpy as np
import pytest
import rasterio
from PIL import Image

from ctm.core import BadFileError
from ctm.io.masks import is_lossy, read_bright, read_colors, read_mask

CLASSES = np.random.default_rng(0).integers(0, 4, (12, 10)).astype(np.uint8)
COLORS = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0], [7, 8, 9]], np.uint8)
NUMBERS = (COLORS.astype(int) @ [65536, 256, 1])[CLASSES]


def grey_png(file, pixels, depth):
    "Grey of few bits, as its numbers are."
    chunk = lambda kind, data: (  # noqa: E731
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    )
    rows = b""
    for row in pixels:
        bits = "".join(f"{value:0{depth}b}" for value in row)
        bits += "0" * (-len(bits) % 8)
        rows += b"\0" + bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits), 8))
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], depth, 0, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_grey_of_few_bits(depth, tmp_path):
    pixels = CLASSES % min(4, 2**depth)
    grey_png(tmp_path / "a.png", pixels, depth)
    assert np.array_equal(read_mask(tmp_path / "a.png"), pixels)
    profile = dict(driver="GTiff", width=10, height=12, count=1, dtype="uint8", nbits=depth)
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as out:
        out.write(pixels[None])
    assert np.array_equal(read_mask(tmp_path / "a.tif"), pixels)


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_bands_that_are_all_the_same(mode, suffix, tmp_path):
    Image.fromarray(CLASSES).convert(mode).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_mask(tmp_path / f"a.{suffix}"), CLASSES)


@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize("mode", ["1", "L"])
def test_white_that_is_stored_as_zero(mode, photometric, tmp_path):
    picture = Image.fromarray(CLASSES > 1) if mode == "1" else Image.fromarray(CLASSES)
    picture.save(tmp_path / "a.tif", tiffinfo={262: photometric})
    assert np.array_equal(read_mask(tmp_path / "a.tif"), CLASSES > 1 if mode == "1" else CLASSES)


def test_colours_in_a_tiff(tmp_path):
    Image.fromarray(COLORS[CLASSES]).save(tmp_path / "rgb.tif")
    palette = Image.fromarray(CLASSES, "P")
    palette.putpalette(COLORS.ravel().tolist())
    palette.save(tmp_path / "palette.tif")
    opaque = np.dstack([COLORS[CLASSES], np.full_like(CLASSES, 255)])
    Image.fromarray(opaque, "RGBA").save(tmp_path / "rgba.tif")
    for name in ("rgb", "palette", "rgba"):
        assert np.array_equal(read_colors(tmp_path / f"{name}.tif"), NUMBERS)
    assert np.array_equal(read_mask(tmp_path / "palette.tif"), CLASSES)
    with pytest.raises(BadFileError, match="rgb.tif: holds colours"):
        read_mask(tmp_path / "rgb.tif")
    profile = dict(driver="GTiff", width=10, height=12, count=3, dtype="uint16")
    with rasterio.open(tmp_path / "deep.tif", "w", **profile) as out:
        out.write(np.moveaxis(COLORS[CLASSES].astype(np.uint16) * 257, -1, 0))
    with pytest.raises(BadFileError, match="deep.tif: has 3 bands of uint16"):
        read_colors(tmp_path / "deep.tif")


def test_numbers_that_a_compression_blurs_are_refused(tmp_path):
    for name, options in {"a.jpg": {}, "a.webp": {}, "a.tif": dict(compression="jpeg")}.items():
        Image.fromarray(CLASSES * 60).convert("RGB").save(tmp_path / name, **options)
        assert is_lossy(tmp_path / name)
        with pytest.raises(BadFileError, match=f"{name}: is compressed with losses"):
            read_mask(tmp_path / name)
    Image.fromarray(CLASSES).convert("RGB").save(tmp_path / "b.webp", lossless=True)
    assert np.array_equal(read_mask(tmp_path / "b.webp"), CLASSES)


def test_numbers_in_other_units_are_refused(tmp_path):
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", width=10, height=12, count=1, dtype="uint8") as out:
        out.write(CLASSES[None])
        out.scales = (10,)
    with pytest.raises(BadFileError, match="a.tif: has a scale"):
        read_mask(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("white", [1, 255])
def test_bright_pixels(white, suffix, tmp_path):
    Image.fromarray(white * (CLASSES > 1).astype(np.uint8)).save(tmp_path / f"a.{suffix}")
    assert np.array_equal(read_bright(tmp_path / f"a.{suffix}"), CLASSES > 1)
