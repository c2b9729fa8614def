"The learning rate is timm's."

import numpy as np
import pytest
import torch
from timm.optim import param_groups_layer_decay
from timm.scheduler import CosineLRScheduler
from torch import nn

from ctm.train.config import load_config
from ctm.train.fit import build_model
from ctm.train.schedule import learning_rate_scale, parameter_groups
from tests.train.made import SMALL


@pytest.mark.parametrize("steps, warm", [(100, 10), (1000, 50), (37, 0)])
def test_schedule_is_timms(steps, warm):
    """timm counts its warm-up from the first rate in `warm` steps and ends the cosine at `t_initial`; with the same
    start the two are the same numbers."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = CosineLRScheduler(
        optimizer, t_initial=steps - warm, warmup_t=warm, warmup_lr_init=1 / (warm + 1), warmup_prefix=True,
        t_in_epochs=False,
    )  # fmt: skip
    ours, other = [], []
    for step in range(steps):
        theirs.step_update(step)
        other.append(optimizer.param_groups[0]["lr"])
        ours.append(learning_rate_scale(step, steps, warm / steps))
    np.testing.assert_allclose(ours[warm:], other[warm:], atol=1e-9)
    rising = [1 / (warm + 1) + step * (1 - 1 / (warm + 1)) / max(warm, 1) for step in range(warm)]
    np.testing.assert_allclose(other[:warm], rising, atol=1e-9)
    np.testing.assert_allclose(ours[:warm], other[:warm], atol=1e-9)


def rates(groups):
    return {id(p): (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


def test_layers_decay_towards_the_image():
    config = load_config(**SMALL | dict(depth=3), layer_decay=0.5, lr=1.0, gate_lr=7.0, weight_decay=0.1)
    model = build_model(config, 3)
    found = rates(parameter_groups(model, config))
    share = {
        "patch_embed": 1 / 16,
        "pos_embed": 1 / 16,
        "reg_token": 1 / 16,
        "cls_token": 1.0,
        "head": 1.0,
        "norm": 1.0,
    }
    share |= {f"blocks.{i}": 0.5 ** (3 - i) for i in range(3)}
    for name, p in model.named_parameters():
        of = 7.0 if name.endswith("log_alpha") else next(v for start, v in share.items() if name.startswith(start))
        decays = p.ndim > 1 and name not in ("pos_embed", "cls_token", "reg_token")
        assert found.pop(id(p)) == (of, 0.1 if decays else 0.0), name
    assert found == {}


def test_rates_of_blocks_are_timms():
    config = load_config(**SMALL | dict(depth=4), layer_decay=0.75, lr=1.0)
    model = build_model(config, 3)
    ours = rates(parameter_groups(model, config))
    theirs = {
        id(p): group["lr_scale"] for group in param_groups_layer_decay(model, layer_decay=0.75) for p in group["params"]
    }
    for name, p in model.blocks.named_parameters():
        if not name.endswith("log_alpha"):
            assert ours[id(p)][0] == pytest.approx(theirs[id(p)]), name


@pytest.mark.parametrize("network", ["model", "linear"])
def test_without_decay_nothing_changes(network):
    "Two groups and the gates, in the order in which stored checkpoints have them."
    config = load_config(**SMALL)
    model = build_model(config, 3) if network == "model" else nn.Linear(2, 3)
    groups = parameter_groups(model, config)
    assert [group["lr"] for group in groups] == [config.lr] * 2 + [config.gate_lr] * (network == "model")
    exempt = ("pos_embed", "cls_token", "reg_token")
    weights = [id(p) for name, p in model.named_parameters() if p.ndim > 1 and name not in exempt]
    assert [id(p) for p in groups[0]["params"]] == weights
    assert all(group["params"] for group in parameter_groups(nn.Linear(2, 3), load_config(**SMALL, layer_decay=0.5)))
