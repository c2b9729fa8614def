"Rasters whose numbers are not pixels yet: no data in one band, infrared, palettes, pages, turned, in other units."

import numpy as np
import pytest
import rasterio
from PIL import Image

from ctm.core import BadFileError
from ctm.data.band_statistics import band_statistics
from ctm.io.images import band_count, image_size, read_image, read_sparse
from ctm.io.masks import read_mask
from ctm.io.rasters import _stored_orientation
from ctm.predict.raster import open_source

RNG = np.random.default_rng(0)
PIXELS = RNG.integers(1, 255, (4, 12, 10)).astype(np.uint8)
PICTURE = Image.fromarray(PIXELS[0])


def write(file, pixels, tags=(), **options):
    profile = dict(driver="GTiff", height=pixels.shape[1], width=pixels.shape[2], count=len(pixels), dtype=pixels.dtype)
    with rasterio.open(file, "w", **profile | options) as out:
        out.write(pixels)
        for name, value in dict(tags).items():
            setattr(out, name, value)
    return file


def all_readings(file, rgb=False):
    "Image and valid pixels, which every way of reading must agree on."
    image, valid = read_image(file, rgb)
    assert image_size(file) == image.shape[1:] and band_count(file, rgb) == (len(image), str(image.dtype))
    thin, seen = read_sparse(file, rgb)
    with open_source(file, rgb) as (read, _):
        part, clear = read(2, 3, 8, 6)
    everywhere = np.ones(image.shape[1:], bool)
    whole = everywhere if valid is None else valid
    assert np.array_equal(thin, image) and np.array_equal(everywhere if seen is None else seen, whole)
    assert np.array_equal(part, image[:, 2:10, 3:9])
    assert np.array_equal(everywhere[2:10, 3:9] if clear is None else clear, whole[2:10, 3:9])
    return image, valid


@pytest.mark.parametrize("kind, nodata", [("float32", -9999), ("int16", -9999), ("uint16", 0)])
def test_no_data_in_one_band_is_no_data(kind, nodata, tmp_path):
    pixels = PIXELS[:3].astype(kind)
    pixels[1, 3:5] = nodata
    file = write(tmp_path / "a.tif", pixels, nodata=nodata)
    image, valid = all_readings(file)
    assert not valid[3:5].any() and valid.sum() == 100 and not image[:, ~valid].any()
    mean, std = band_statistics([file])
    rest = pixels.astype(float)[:, valid]
    np.testing.assert_allclose(mean, rest.mean(1))
    np.testing.assert_allclose(std, rest.std(1))


def test_transparent_pixels_of_a_file_with_a_nodata_value(tmp_path):
    pixels = PIXELS.copy()
    pixels[3] = 255
    pixels[3, :2] = 0
    pixels[0, 5] = 0
    _, valid = all_readings(write(tmp_path / "a.tif", pixels, nodata=0))
    assert np.flatnonzero(~valid.all(1)).tolist() == [0, 1, 5]


@pytest.mark.parametrize("infrared", [PIXELS[3], np.full_like(PIXELS[3], 90)])
def test_near_infrared_is_no_transparency(infrared, tmp_path, caplog):
    pixels = np.concatenate([PIXELS[:3], infrared[None]])
    image, valid = all_readings(write(tmp_path / "a.tif", pixels))  # GDAL marks its fourth band as transparency
    assert valid is None and np.array_equal(image, pixels)
    assert caplog.text.count("a.tif: its transparency (last band) holds data") == 1


def test_transparency_is_no_band(tmp_path):
    pixels = PIXELS.copy()
    pixels[3] = np.where(pixels[3] > 99, 255, 0)
    image, valid = all_readings(write(tmp_path / "a.tif", pixels))
    assert len(image) == 3 and np.array_equal(valid, pixels[3] > 0)


def test_doubtful_transparency_is_refused(tmp_path):
    pixels = PIXELS.copy()
    pixels[3] = np.where(pixels[3] > 200, pixels[3], 0)
    file = write(tmp_path / "a.tif", pixels)
    for read in (read_image, band_count):
        with pytest.raises(BadFileError, match="a.tif: band 4 is marked as transparency"):
            read(file)


def test_infrared_in_a_picture(tmp_path, caplog):
    Image.fromarray(PIXELS.transpose(1, 2, 0), "RGBA").save(tmp_path / "a.png")
    image, valid = all_readings(tmp_path / "a.png")
    assert valid is None and np.array_equal(image, PIXELS)
    assert caplog.text.count("a.png: its transparency (last band) holds data") == 1


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_transparency_of_a_photograph(suffix, tmp_path):
    Image.fromarray(PIXELS.transpose(1, 2, 0), "RGBA").save(tmp_path / f"a.{suffix}")
    assert np.array_equal(all_readings(tmp_path / f"a.{suffix}", rgb=True)[0], PIXELS[:3])


def test_palette_becomes_colours(tmp_path):
    picture = Image.fromarray(PIXELS[0] % 3, "P")
    picture.putpalette([9, 8, 7, 255, 0, 0, 0, 255, 0])
    picture.save(tmp_path / "a.tif")
    picture.save(tmp_path / "a.png")
    image, valid = all_readings(tmp_path / "a.tif")
    assert valid is None and np.array_equal(image, read_image(tmp_path / "a.png")[0])
    assert np.array_equal(read_mask(tmp_path / "a.tif"), PIXELS[0] % 3)  # the numbers of a mask stay numbers


@pytest.mark.parametrize("photometric", [0, 1])
def test_white_that_is_stored_as_zero(photometric, tmp_path):
    PICTURE.save(tmp_path / "a.tif", tiffinfo={262: photometric})
    with rasterio.open(tmp_path / "a.tif") as file:  # Pillow stores 255 - PIXELS where 0 is white
        assert np.array_equal(file.read(1), PIXELS[0] if photometric else 255 - PIXELS[0])
    assert np.array_equal(all_readings(tmp_path / "a.tif")[0], PIXELS[:1])
    assert np.array_equal(all_readings(tmp_path / "a.tif", rgb=True)[0], PIXELS[[0, 0, 0]])


def test_pages_are_refused(tmp_path):
    PICTURE.save(tmp_path / "a.tif", save_all=True, append_images=[PICTURE, PICTURE])
    PICTURE.save(tmp_path / "a.png", save_all=True, append_images=[Image.fromarray(PIXELS[1])])
    for read in (read_image, read_mask, image_size, band_count, read_sparse):
        with pytest.raises(BadFileError, match="a.tif: holds 3 pages"):
            read(tmp_path / "a.tif")
        with pytest.raises(BadFileError, match="a.png: holds 2 pictures"):
            read(tmp_path / "a.png")


def test_overviews_are_no_pages(tmp_path):
    file = write(tmp_path / "a.tif", np.repeat(np.repeat(PIXELS[:1], 30, 1), 30, 2))
    with rasterio.open(file, "r+") as raster:
        raster.build_overviews([2, 4])
    assert read_image(file)[0].shape == (1, 360, 300)


@pytest.mark.parametrize("turn", range(1, 9))
def test_stored_orientation(turn, tmp_path):
    PICTURE.save(tmp_path / "a.tif", tiffinfo={274: turn})
    upright = write(tmp_path / "b.tif", PIXELS[:1], BIGTIFF="YES", ENDIANNESS="BIG")
    assert read_image(upright)[0].shape == (1, 12, 10)
    if turn == 1:
        assert np.array_equal(read_image(tmp_path / "a.tif")[0], PIXELS[:1])
    else:
        with pytest.raises(BadFileError, match=f"a.tif: is stored turned or mirrored .orientation {turn}"):
            read_image(tmp_path / "a.tif")


def test_scales_and_offsets_are_applied(tmp_path):
    pixels = PIXELS[:2].astype(np.uint16)
    pixels[0, 0] = 0
    tags = dict(scales=(0.1, 0.01), offsets=(-1, 0))
    image, valid = all_readings(write(tmp_path / "a.tif", pixels, tags, nodata=0))
    truth = np.stack([pixels[0] * 0.1 - 1, pixels[1] * 0.01])
    assert image.dtype == np.float32 and not valid[0].any() and valid[1:].all()
    np.testing.assert_allclose(image[:, valid], truth[:, valid], rtol=1e-6)


def test_units_are_part_of_what_is_alike(tmp_path):
    metres, feet = (
        write(tmp_path / f"{unit}.tif", PIXELS[:1].astype("float32"), dict(units=(unit,))) for unit in ("m", "ft")
    )
    assert band_count(metres) == (1, "float32 in m") and band_count(feet) == (1, "float32 in ft")


def test_pixels_that_look_like_a_tag_are_none(tmp_path):
    "An orientation is looked for among the tags alone, not in what follows them."
    file = tmp_path / "a.tif"
    pixels = np.full((64, 64), 274, np.uint16)
    pixels[:, 1::2] = 8
    with rasterio.open(file, "w", driver="GTiff", height=64, width=64, count=1, dtype="uint16") as out:
        out.write(pixels, 1)
    assert _stored_orientation(str(file)) == 1
