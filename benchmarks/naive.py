"""The method written out naively: explicit attention matrices, masking in a Python loop, pixels filled one by one.

A speed is a ratio, and a ratio needs an honest other side. Every layer's attention matrix is computed, kept, and read
at the end; linear layers are torch's; token masking walks over images and classes; empty pixels are filled one at a
time. The weights are those of a `ClassTokenViT`, and the results are the same (tests/benchmarks).
"""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctm.core import IGNORE
from ctm.model import ClassTokenViT
from ctm.pruning import l0_penalty


def naive_forward(
    model: ClassTokenViT,  # model whose weights are used, and none of its code
    image: Tensor,  # image batch (B, K, H, W)
    label: Tensor | None = None,  # labels (B, C); in training mode absent classes' tokens are masked
) -> tuple[Tensor, list[Tensor]]:  # logits (B, C); one gated attention matrix (B, heads, N, N) per layer
    "Logits and the attention matrices of all layers (Section 3), slow on purpose."
    x = _tokens(model, image)
    matrices = []
    for block in model.blocks:
        mixed, matrix = _attention(block.attn, block.norm1(x))
        matrices.append(matrix)
        x = x + mixed
        x = x + _linear(block.mlp.fc2, F.gelu(_linear(block.mlp.fc1, block.norm2(x))))
    class_tokens = model.norm(x)[:, : model.num_classes]
    if model.training and label is not None:
        class_tokens = naive_masking(class_tokens, label, model.mask_ratio)
    return model.head(class_tokens.flatten(1)), matrices


def _tokens(model: ClassTokenViT, image: Tensor) -> Tensor:
    "Class tokens, patch tokens and the register token with their positions, (B, N, D)."
    tokens = [model.cls_token.expand(len(image), -1, -1)]
    tokens.append(model.patch_embed.proj(image).flatten(2).transpose(1, 2))
    if model.reg_token is not None:
        tokens.append(model.reg_token.expand(len(image), -1, -1))
    return torch.cat(tokens, 1) + model.pos_embed


def _attention(attention: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    "Tokens mixed by every head, (B, N, D), and the gated attention matrix, (B, heads, N, N)."
    b, n, _ = x.shape
    qkv = _linear(attention.qkv, x).reshape(b, n, 3, attention.num_heads, attention.head_dim)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    matrix = (q @ k.transpose(-2, -1) * attention.scale).softmax(-1) * attention.head_gate()[:, None, None]
    return _linear(attention.proj, (matrix @ v).transpose(1, 2).reshape(b, n, -1)), matrix


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    "Linear layer as torch computes it: the layer's own forward is not used."
    return F.linear(x, layer.weight, layer.bias)


def naive_masking(
    class_tokens: Tensor,  # class tokens (B, C, D)
    label: Tensor,  # image-level labels (B, C) in {0, 1}
    mask_ratio: float,  # probability of masking an absent class, in [0, 1]
) -> Tensor:  # (B, C, D)
    "Class tokens, those of absent classes zeroed at random, one at a time (Section 3)."
    class_tokens = class_tokens.clone()
    for i in range(class_tokens.shape[0]):
        for c in range(class_tokens.shape[1]):
            if label[i, c] == 0 and torch.rand(()) < mask_ratio:
                class_tokens[i, c] = 0
    return class_tokens


def naive_loss(
    model: ClassTokenViT,  # model in training mode
    image: Tensor,  # image batch (B, K, H, W)
    label: Tensor,  # image-level labels (B, C) in {0, 1}
    lam: float,  # lambda of Equation 1
) -> Tensor:  # ()
    "Equation 1 on the naive forward pass; the matrices are kept until the gradients are done."
    logits, matrices = naive_forward(model, image, label)
    loss = F.binary_cross_entropy_with_logits(logits, label) + lam * l0_penalty(model)
    loss.matrices = matrices
    return loss


def naive_maps(
    model: ClassTokenViT,  # model in evaluation mode
    image: Tensor,  # image batch (B, K, H, W)
) -> tuple[Tensor, Tensor]:  # logits (B, C); maps (B, C, gh, gw)
    "Class-to-patch attention, cut out of the mean over the matrices of all layers and heads."
    logits, matrices = naive_forward(model, image)
    gates = sum(block.attn.head_gate().sum() for block in model.blocks)
    mean = torch.stack(matrices).sum((0, 2)) / gates.clamp(min=1e-12)
    c = model.num_classes
    gh, gw = model.patch_embed.grid_size
    return logits, mean[:, :c, c : c + gh * gw].unflatten(2, (gh, gw))


def naive_pseudo_mask(
    maps: Tensor,  # class-to-patch attention (B, C, gh, gw)
    prob: Tensor,  # class probabilities (B, C)
    size: tuple[int, int],  # size of the masks, (height, width)
) -> Tensor:  # (B, H, W) int64, 255 = no class
    "Pseudo-masks of Section 3: image by image, class by class, and for what is left pixel by pixel."
    masks = torch.full((len(maps), *size), IGNORE)
    for i in range(len(maps)):
        present = [c for c in range(maps.shape[1]) if prob[i, c] > 0.5]
        for c in sorted(present, key=lambda c: prob[i, c].item()):
            small = maps[i : i + 1, c : c + 1].float()
            large = F.interpolate(small, size=size, mode="bilinear", align_corners=False)[0, 0]
            masks[i][large >= large.mean()] = c
        if present:
            masks[i] = torch.from_numpy(naive_fill(masks[i].numpy(), maps.shape[1]))
    return masks


def naive_fill(
    mask: np.ndarray,  # mask (H, W) of integers, 255 = empty
    num_classes: int,  # C
) -> np.ndarray:  # (H, W), without empty pixels
    "Mask whose empty pixels take the class most common in the smallest window that holds one."
    filled = mask.copy()
    for y, x in np.argwhere(mask == IGNORE):
        radius = max(1, max(mask.shape) // 32)
        while True:
            window = mask[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            known = window[window != IGNORE]
            if known.size:
                filled[y, x] = np.bincount(known, minlength=num_classes).argmax()
                break
            radius *= 2
    return filled
