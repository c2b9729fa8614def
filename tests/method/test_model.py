"The model holds no N x N matrix, in training or inference."

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT


class Largest(TorchDispatchMode):
    "Remembers tensors whose last two sides both reach a limit."

    def __init__(self, limit):
        super().__init__()
        self.limit, self.found = limit, []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim > 1 and min(tensor.shape[-2:]) >= self.limit:
                self.found.append((str(function), tuple(tensor.shape)))
        return out


def test_no_attention_matrix_is_held():
    model = ClassTokenViT(4, img_size=(128, 160), patch_size=4, embed_dim=16, depth=2, num_heads=2)
    image, label, tokens = torch.randn(1, 3, 128, 160), torch.ones(1, 4), 32 * 40 + 5
    with Largest(tokens) as seen:
        ClassTokenLoss(0.01)(model(image, label), label, model)[0].backward()
        model.eval().attention_maps(image)
    assert not seen.found
    with Largest(tokens) as seen:  # the watch itself works
        torch.zeros(1, tokens, 8) @ torch.zeros(1, 8, tokens)
    assert seen.found
