"Gates: probabilities and the penalty are integrals of the density, and properties hold for whatever gates."

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from ctm.model import ClassTokenViT
from ctm.pruning import HeadGate, l0_penalty, open_heads, open_probability


def logit_density(x, location, beta):
    """Density of the logit of the binary concrete variable: a logistic one at location / beta of scale 1 / beta
    (Louizos et al. 2018, Section 2.1). The variable itself has poles at 0 and 1, its logit has none."""
    z = abs(x * beta - location)
    return beta * math.exp(-z) / (1 + math.exp(-z)) ** 2


def mass_above(edge, location, beta):
    "Numerical integral of the concrete distribution from `edge` to 1."
    low, peak = math.log(edge / (1 - edge)), location / beta
    ends = sorted({low, max(low, peak), max(low, peak) + 60 / beta})
    return sum(quad(logit_density, a, b, args=(location, beta))[0] for a, b in zip(ends, ends[1:], strict=False))


@pytest.mark.parametrize("location", [-4.0, -1.0, 0.0, 0.7, 3.0])
@pytest.mark.parametrize("beta, lo, hi", [(0.33, -0.1, 1.1), (2 / 3, -0.1, 1.1), (0.5, -0.5, 1.2)])
def test_open_probability_is_the_integral(location, beta, lo, hi):
    "P(gate > 0) is the mass of the concrete density above the point that is stretched to 0."
    ours = open_probability(torch.tensor(location, dtype=torch.float64), beta, lo, hi).item()
    assert abs(mass_above(1e-30, location, beta) - 1) < 1e-7, "the density is one"
    assert abs(ours - mass_above(-lo / (hi - lo), location, beta)) < 1e-9


@pytest.mark.parametrize("location", [-2.0, 0.0, 1.5])
def test_drawn_gates_have_that_distribution(location):
    gate = HeadGate(200_000, location, hard=False).train()
    torch.manual_seed(0)
    drawn = gate()
    ours = gate.open_probability()[0].item()
    assert abs((drawn > 0).double().mean().item() - ours) < 4 * math.sqrt(ours * (1 - ours) / 200_000) + 1e-6
    value = lambda x: min(1, max(0, (gate.hi - gate.lo) / (1 + math.exp(-x)) + gate.lo))  # noqa: E731
    mean, _ = quad(lambda x: value(x) * logit_density(x, location, gate.beta), -99, 99, points=[-2.4, 2.4], limit=400)
    assert abs(drawn.mean().item() - mean) < 0.005


def test_penalty_is_the_sum_of_integrals():
    model = ClassTokenViT(3, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=4)
    for i, block in enumerate(model.blocks):
        block.attn.head_gate.log_alpha.data = torch.linspace(-2, 2, 4) + i
    locations = [a for block in model.blocks for a in block.attn.head_gate.log_alpha.tolist()]
    expected = sum(mass_above(0.1 / 1.2, a, 0.33) for a in locations)
    assert abs(l0_penalty(model).item() - expected) < 1e-4


@given(st.lists(st.floats(-30, 30, width=32), min_size=1, max_size=9), st.floats(0.05, 2), st.booleans())
def test_gates(locations, beta, hard):
    gate = HeadGate(len(locations), beta=beta, hard=hard)
    gate.log_alpha.data = torch.tensor(locations)
    model = torch.nn.Sequential(gate)
    for training in (True, False):
        drawn = gate.train(training)()
        assert ((drawn >= 0) & (drawn <= 1)).all() and drawn.isfinite().all()
        assert not hard or set(drawn.tolist()) <= {0.0, 1.0}
    fixed = gate.eval()()
    assert torch.equal(fixed, gate()), "a fixed gate is fixed"
    assert open_heads(model)[0].tolist() == fixed.nonzero().flatten().tolist()
    share = open_probability(gate.log_alpha, beta)
    assert ((share >= 0) & (share <= 1)).all()
    rank = gate.log_alpha.argsort()
    assert (share[rank].diff() >= 0).all() and (fixed[rank].diff() >= 0).all(), "more is more open"
    gate.train()().sum().backward()
    assert gate.log_alpha.grad.isfinite().all()
