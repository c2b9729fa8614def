"Settings beyond what float32 holds are refused."

import pytest

from ctm.train.config import load_config
from tests.train.made import SMALL


@pytest.mark.parametrize("name", ["lr", "gate_lr", "lam", "weight_decay", "diversity"])
@pytest.mark.parametrize("value", [1e38, float("inf"), float("nan"), -1.0])
def test_rates_beyond_float32_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name}=.* is out of range"):
        load_config(**SMALL | {name: value})
