"The model holds no N x N matrix and gives logits of one shape, in training or inference."

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ctm.loss import ClassTokenLoss
from ctm.model import ClassTokenViT
from tests.tools import TINY_MODEL


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


@pytest.mark.parametrize("patch_evidence", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_logits_have_one_shape(patch_evidence, training):
    "(B, C) whatever the mode; training asks for each source apart."
    torch.manual_seed(0)
    model = ClassTokenViT(4, **TINY_MODEL, patch_evidence=patch_evidence)
    model.train(training)
    image, label = torch.randn(3, 3, 16, 16), torch.eye(4)[:3]
    draw = lambda ask: (torch.manual_seed(1), ask())[1]  # noqa: E731
    logits = draw(lambda: model(image, label))
    sources = draw(lambda: model.training_logits(image, label))
    again, maps = draw(lambda: model.training_maps(image, label))
    assert logits.shape == (3, 4) and sources.shape == (1 + patch_evidence, 3, 4) and maps.shape == (3, 4, 2, 2)
    torch.testing.assert_close(sources.mean(0), logits)
    torch.testing.assert_close(again, sources)
    torch.testing.assert_close(draw(lambda: model.attention_maps(image, label=label))[0], logits)
