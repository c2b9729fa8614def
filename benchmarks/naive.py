"""The method written out naively: explicit attention matrices, masking in a Python loop, pixels filled one by one."""

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ctm.core import IGNORE
from ctm.model import ClassTokenViT
from ctm.pruning import l0_penalty


def naive_forward(
    model: ClassTokenViT,  # its weights are used, its code is not
    image: Tensor,  # (B, K, H, W)
    label: Tensor | None = None,  # (B, C); in training mode absent classes' tokens are masked
) -> tuple[Tensor, list[Tensor]]:  # logits (B, C); one gated attention matrix (B, heads, N, N) per layer
    "Logits and all attention matrices (slow on purpose)."
    patches = model.patch_embed.proj(image).flatten(2).transpose(1, 2)
    tokens = [model.cls_token.expand(len(image), -1, -1), patches]
    if model.reg_token is not None:
        tokens.append(model.reg_token.expand(len(image), -1, -1))
    x, matrices = torch.cat(tokens, 1) + model.pos_embed, []
    for block in model.blocks:
        attention = block.attn
        b, n, _ = x.shape
        qkv = naive_linear(attention.qkv, block.norm1(x)).reshape(b, n, 3, attention.num_heads, attention.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        matrix = (q @ k.transpose(-2, -1) * attention.scale).softmax(-1) * attention.head_gate()[:, None, None]
        matrices.append(matrix)
        x = x + naive_linear(attention.proj, (matrix @ v).transpose(1, 2).reshape(b, n, -1))
        x = x + naive_linear(block.mlp.fc2, F.gelu(naive_linear(block.mlp.fc1, block.norm2(x))))
    class_tokens = model.norm(x)[:, : model.num_classes]
    if model.training and label is not None:
        class_tokens = naive_masking(class_tokens, label, model.mask_ratio)
    return model.head(class_tokens.flatten(1)), matrices


def naive_linear(
    layer: nn.Linear,  # its weights are used, not its forward
    x: Tensor,  # (..., features in)
) -> Tensor:  # (..., features out)
    "A linear layer as torch computes it."
    return F.linear(x, layer.weight, layer.bias)


def naive_masking(
    class_tokens: Tensor,  # (B, C, D)
    label: Tensor,  # (B, C) in {0, 1}
    mask_ratio: float,  # in [0, 1]
) -> Tensor:  # (B, C, D)
    "Absent classes' tokens zeroed at random, one at a time."
    class_tokens = class_tokens.clone()
    for i in range(class_tokens.shape[0]):
        for c in range(class_tokens.shape[1]):
            if label[i, c] == 0 and torch.rand(()) < mask_ratio:
                class_tokens[i, c] = 0
    return class_tokens


def naive_loss(
    model: ClassTokenViT,  # in training mode
    image: Tensor,  # (B, K, H, W)
    label: Tensor,  # (B, C) in {0, 1}
    lam: float,  # lambda of Equation 1
) -> Tensor:  # ()
    "Equation 1 on the plain forward pass; the matrices are kept until the gradients are done."
    logits, matrices = naive_forward(model, image, label)
    loss = F.binary_cross_entropy_with_logits(logits, label) + lam * l0_penalty(model)
    loss.matrices = matrices
    return loss


def naive_maps(
    model: ClassTokenViT,  # in evaluation mode
    image: Tensor,  # (B, K, H, W)
) -> tuple[Tensor, Tensor]:  # logits (B, C); maps (B, C, gh, gw)
    "Class-to-patch attention, cut out of the mean over all layers' and heads' matrices."
    logits, matrices = naive_forward(model, image)
    gates = sum(block.attn.head_gate().sum() for block in model.blocks)
    mean = torch.stack(matrices).sum((0, 2)) / gates.clamp(min=1e-12)
    c, grid = model.num_classes, model.patch_embed.grid_size
    return logits, mean[:, :c, c : c + grid[0] * grid[1]].unflatten(2, grid)


def naive_pseudo_mask(
    maps: Tensor,  # (B, C, gh, gw)
    prob: Tensor,  # (B, C)
    size: tuple[int, int],  # (height, width)
) -> Tensor:  # (B, H, W) int64, 255 = no class
    "Section 3's masks, image by image, class by class, and for what is left pixel by pixel."
    masks = torch.full((len(maps), *size), IGNORE)
    for i in range(len(maps)):
        present = [c for c in range(maps.shape[1]) if prob[i, c] > 0.5]
        for c in sorted(present, key=lambda c: prob[i, c].item()):
            big = F.interpolate(maps[i : i + 1, c : c + 1].float(), size=size, mode="bilinear", align_corners=False)[
                0, 0
            ]
            masks[i][big >= big.mean()] = c
        if present:
            masks[i] = torch.from_numpy(naive_fill(masks[i].numpy(), maps.shape[1]))
    return masks


def naive_fill(
    mask: np.ndarray,  # (H, W) integers, 255 = empty
    num_classes: int,  # C
) -> np.ndarray:  # (H, W), without empty pixels
    "Each empty pixel takes the class most common in the smallest window that holds one."
    filled, (h, w) = mask.copy(), mask.shape
    for y, x in np.argwhere(mask == IGNORE):
        radius = max(1, max(h, w) // 32)
        while True:
            window = mask[max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            known = window[window != IGNORE]
            if known.size:
                filled[y, x] = np.bincount(known, minlength=num_classes).argmax()
                break
            radius *= 2
    return filled
