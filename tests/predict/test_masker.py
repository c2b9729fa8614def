"What a model sees when it predicts is what it saw when it was trained."

import warnings

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image

from ctm.datasets import folder
from ctm.io.images import read_image
from ctm.predict.masker import Masker
from ctm.train.config import load_config


class Corner(torch.nn.Module):
    "In place of a trained model: the maps are the first band of the image itself, its brightness as one class."

    def __init__(self):
        super().__init__()
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def attention_maps(self, image, layers, gated, use_evidence):
        maps = torch.nn.functional.avg_pool2d(torch.stack([image[:, 0], -image[:, 0]], 1), 8)
        return torch.full((len(image), 2), 5.0), maps - maps.amin()


def write(path, image, nodata=None):
    "PNG of three bands, or GeoTIFF."
    if path.suffix == ".png":
        Image.fromarray(image.transpose(1, 2, 0)).save(path)
        return
    k, h, w = image.shape
    profile = dict(driver="GTiff", height=h, width=w, count=k, dtype=image.dtype, nodata=nodata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with rasterio.open(path, "w", **profile) as file:
            file.write(image)


def noise(kind, seed):
    "Image of three bands and an aspect of its own."
    rng = np.random.default_rng(seed)
    image = rng.gamma(2, 40, (3, 50 + 7 * seed, 90))
    image[:, :9, :11] = 0
    return image.clip(0, 255).astype(kind)


@pytest.mark.parametrize("how", ["stretch", "pad"])
@pytest.mark.parametrize("suffix, kind", [("png", "uint8"), ("tif", "uint8"), ("tif", "uint16"), ("tif", "float32")])
def test_training_and_prediction_resize_alike(tmp_path, monkeypatch, how, suffix, kind):
    monkeypatch.setenv("CTM_CACHE", "off")
    (tmp_path / "images").mkdir()
    for i in range(4):
        write(tmp_path / "images" / f"{i}.{suffix}", noise(kind, i), 0 if suffix == "tif" else None)
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i}.{suffix},{'ab'[i % 2]}\n" for i in range(4)))
    data = folder.load(tmp_path, "all", resize=(32, 32), how=how)
    config = load_config("folder", in_chans=3, img_size=(32, 32), data=dict(resize=(32, 32), how=how))
    masker = Masker(Corner(), config, data.mean, data.std, data.classes, data.mask_colors)
    for i in range(4):
        image, valid = read_image(tmp_path / "images" / data.names[i])
        seen = masker.pixels(image[None], None if valid is None else valid[None])[0]
        assert torch.equal(seen, data[i]["image"])


def test_a_padded_image_is_masked_in_its_place():
    "The left half is bright: so is that of the mask, at the image's own aspect."
    config = load_config("folder", in_chans=1, img_size=(64, 64), data=dict(how="pad"), merge="argmax")
    masker = Masker(Corner(), config, np.full(1, 128.0), np.full(1, 64.0), ("bright", "dark"), ("#111111",) * 2)
    for size in ((40, 160), (160, 40), (64, 64), (33, 77)):
        image = np.zeros((1, 1, *size), np.uint8)
        image[..., : size[1] // 2] = 255
        mask, maps, _ = masker(image)
        assert mask.shape[1:] == size and maps.shape[-2:] in (size, (8, 8))
        expected = np.where(image[0, 0] > 0, 0, 1)
        assert (mask[0].numpy() == expected).mean() > 0.9
