"Large rasters are masked in parts: memory does not grow with them."

import os
import resource

import numpy as np
import rasterio
import torch

from ctm.predict.masker import Masker
from ctm.predict.raster import mask_file
from ctm.train.config import load_config
from ctm.train.fit import build_model
from tests import apart

ROOM = 0.06  # GB between the peaks


def mask(source, target):
    torch.manual_seed(0)
    config = load_config("folder", in_chans=3, depth=1, embed_dim=16, num_heads=2, batch_size=64)
    model = build_model(config, 3).eval()
    masker = Masker(model, config, np.full(3, 128.0), np.full(3, 60.0), ("a", "b", "c"), ("#111111",) * 3)
    with torch.no_grad():
        masker.model.head.bias += 3
    mask_file(masker, source, target, window=64, overlap=0, block=512)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def write_raster(path, side):
    "Coloured noise in squares, written block by block."
    profile = dict(driver="GTiff", count=3, dtype="uint8", height=side, width=side, tiled=True, crs="EPSG:32632")
    rng = np.random.default_rng(0)
    with rasterio.open(path, "w", blockxsize=256, blockysize=256, **profile) as out:
        for _, window in out.block_windows(1):
            out.write(rng.integers(0, 256, (3, window.height, window.width), np.uint8), window=window)


def test_memory_does_not_grow_with_the_raster(tmp_path):
    peaks, large = {}, int(os.environ.get("CTM_RASTER_SIDE", 4096))  # 20000: five minutes
    started = {}
    for side in (1024, large):  # beside each other
        write_raster(tmp_path / f"{side}.tif", side)
        files = tmp_path / f"{side}.tif", tmp_path / f"{side}-mask.tif"
        started[side] = apart.start(mask, *files, log=tmp_path / f"{side}.txt")
    for side, process in started.items():
        process.join()
        said = (tmp_path / f"{side}.txt").read_text()
        assert process.exitcode == 0, said
        peaks[side] = int(said.split()[-1]) / 1e6
        with rasterio.open(tmp_path / f"{side}-mask.tif") as file:
            assert file.shape == (side, side) and file.crs.to_epsg() == 32632
    print(peaks)
    assert peaks[large] < peaks[1024] + ROOM, peaks  # sixteen times the pixels, or more
