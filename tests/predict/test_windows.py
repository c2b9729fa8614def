"Windows leave no seams."

import numpy as np
import torch
from scipy.ndimage import binary_dilation, maximum_filter, minimum_filter

from ctm.predict.masker import Masker
from ctm.predict.windows import block_masks, grid_of
from ctm.synthetic.sets import regions
from ctm.train.config import load_config


class Seeing(torch.nn.Module):
    "In place of a trained model: its class maps are the image's own classes, coarse as patches are."

    def __init__(self, classes=6, patch=8):
        super().__init__()
        self.classes, self.patch, self.anchor = classes, patch, torch.nn.Parameter(torch.zeros(1))

    def attention_maps(self, image, layers, gated, use_evidence):
        onehot = torch.stack([(image[:, 0].round() == c).float() for c in range(self.classes)], 1)
        maps = torch.nn.functional.avg_pool2d(onehot, self.patch)
        return 20 * (maps.mean((2, 3)) - 0.02), maps + 1e-3 * torch.rand_like(maps)


def test_tiled_and_whole_agree_away_from_borders():
    "Four quarters masked apart, in blocks or in one piece: windows leave no seams."
    torch.manual_seed(0)
    scene = regions(np.random.default_rng(0), np.arange(6), 512, 14)
    config = load_config("folder", in_chans=1, img_size=(64, 64))
    masker = Masker(Seeing(), config, np.zeros(1), np.ones(1), tuple("abcdef"), ("#000000",) * 6)

    def masked(part, block=None):
        windows = grid_of(part.shape, 64)
        read = lambda y, x, h, w: (part[None, y : y + h, x : x + w], None)  # noqa: E731
        return block_masks(masker, read, windows, block or (0, 0, *part.shape))[0]

    whole, tiled = masked(scene), np.zeros_like(scene)
    for y in (0, 256):
        for x in (0, 256):
            tiled[y : y + 256, x : x + 256] = masked(scene[y : y + 256, x : x + 256])
    edges = maximum_filter(scene, 3) != minimum_filter(scene, 3)
    inside = ~binary_dilation(edges, iterations=8)  # a patch of the model from any border
    assert inside.mean() > 0.2
    agree = (whole == tiled)[inside].mean()
    print(f"tiled and whole agree on {agree:.4f} of the pixels a patch away from borders")
    assert agree >= 0.99 and (whole == scene)[inside].mean() >= 0.99
