"The learning rate is timm's."

import numpy as np
import pytest
import torch
from timm.scheduler import CosineLRScheduler

from ctm.train.schedule import learning_rate_scale


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
