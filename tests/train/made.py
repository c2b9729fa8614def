"Images of noise with given masks, and the smallest configuration."

import numpy as np
import torch

from ctm.data.dataset import ImageDataset


class Made(ImageDataset):
    "Images of noise whose masks are given."

    name, source, classes, colors = "made", "made", ("a", "b", "c"), ("#117733", "#999933", "#882255")
    background, share, upright, synthetic, rgb, about = None, 0.0, False, True, (0, 1, 2), ""
    mean, std = np.zeros(3, np.float32), np.ones(3, np.float32)

    def __init__(self, masks, scale=1.0):
        self.masks, self.scale, self.names = masks, scale, [f"image-{i}" for i in range(len(masks))]

    def read(self, index):
        noise = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(index))
        return (self.scale * noise).numpy(), self.masks[index]


def flat(*values):
    return [np.full((16, 16), value, np.uint8) for value in values]


def halves(*pairs):
    return [np.repeat([[a], [b]], 8, 0).repeat(16, 1).astype(np.uint8) for a, b in pairs]


SMALL = dict(img_size=(16, 16), in_chans=3, embed_dim=16, depth=1, num_heads=2, epochs=2, batch_size=8)
