"Attention is the softmax of the textbooks, in double precision."

import pytest
import torch
from torch.nn import functional as F

from ctm.layers.attention import GatedAttention

SEEDS = range(5)


@pytest.mark.parametrize("seed", SEEDS)
def test_attention_is_softmax_in_float64(seed):
    torch.manual_seed(seed)
    attention = GatedAttention(24, num_heads=3, qkv_bias=True).eval()
    attention.head_gate.log_alpha.data = torch.tensor([-5.0, 0.0, 5.0])
    x = 3 * torch.randn(2, 19, 24)
    exact = {name: p.detach().double() for name, p in attention.named_parameters()}
    q, k, v = F.linear(x.double(), exact["qkv.weight"], exact["qkv.bias"]).view(2, 19, 3, 3, 8).permute(2, 0, 3, 1, 4)
    rows = F.softmax(q @ k.transpose(-2, -1) * 8**-0.5, -1)
    gate = attention.head_gate().double()
    out = ((rows @ v) * gate[:, None, None]).transpose(1, 2).reshape(2, 19, 24)
    out = F.linear(out, exact["proj.weight"], exact["proj.bias"])
    torch.testing.assert_close(attention(x).double(), out, atol=2e-6, rtol=1e-5)
    ours_q, ours_k, _ = attention.project(x)
    torch.testing.assert_close(attention.class_rows(ours_q, ours_k, 4).double(), rows[:, :, :4], atol=2e-6, rtol=1e-5)
    assert (rows.sum(-1) - 1).abs().max() < 1e-12
