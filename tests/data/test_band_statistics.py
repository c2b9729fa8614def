"Band statistics: constant bands, large values and damaged files."

import numpy as np
import pytest
import rasterio
from PIL import Image

from ctm.core import BadFileError
from ctm.data.band_statistics import band_statistics


def write_bands(path, bands):
    "GeoTIFF of float64 bands."
    k, h, w = bands.shape
    profile = dict(driver="GTiff", height=h, width=w, count=k, dtype="float64", crs="EPSG:32632")
    with rasterio.open(path, "w", **profile) as file:
        file.write(bands)
    return path


@pytest.mark.parametrize("value", [0.1, -9.3, 1e-7, 123456.7, 3e8])
def test_a_constant_band_has_deviation_one(tmp_path, monkeypatch, value):
    monkeypatch.setenv("CTM_CACHE", "off")
    files = [write_bands(tmp_path / f"{i}.tif", np.full((1, 9, 7 + i), value)) for i in range(3)]
    mean, std = band_statistics(files)
    assert std.tolist() == [1] and mean.tolist() == [value]


def test_large_values_keep_their_deviation(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_CACHE", "off")
    parts = [1e8 + np.random.default_rng(i).normal(0, 0.5, (2, 16, 16)) for i in range(3)]
    mean, std = band_statistics([write_bands(tmp_path / f"{i}.tif", part) for i, part in enumerate(parts)])
    whole = np.stack(parts).transpose(1, 0, 2, 3).reshape(2, -1)
    assert np.allclose(std, whole.std(1), rtol=1e-6) and np.allclose(mean, whole.mean(1), rtol=1e-14)


def test_damaged_images_do_not_count(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_CACHE", "off")
    noise = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    for name in "ab":
        Image.fromarray(noise).save(tmp_path / f"{name}.png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    whole = band_statistics(files[1:])
    files[0].write_bytes(files[0].read_bytes()[:2000])
    assert all(np.array_equal(a, b) for a, b in zip(band_statistics(files, bad="skip"), whole, strict=True))
    for options in (dict(files=files), dict(files=files[:1], bad="skip")):
        with pytest.raises(BadFileError, match="a.png"):
            band_statistics(**options)


@pytest.mark.parametrize("mark", [-9999, -32768, np.finfo(np.float32).min])
def test_missing_pixels_that_no_header_declares_are_said(tmp_path, monkeypatch, caplog, mark):
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    bands = np.random.default_rng(0).normal(500, 20, (2, 16, 16))
    band_statistics([write_bands(tmp_path / "a.tif", bands)])
    assert not caplog.records
    bands[1, :4] = mark
    file = write_bands(tmp_path / "b.tif", bands)
    for _ in range(2):  # counted, and read from the cache
        caplog.clear()
        band_statistics([file])
        assert "fills 25.0% of band 2 and is read as data" in caplog.text
