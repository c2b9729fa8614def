"A run of stage two in the paper's preset says its weights, and warns without."

import pytest

from ctm.segmentation.network import load_segmentation_config
from ctm.segmentation.run import _say_weights


@pytest.mark.parametrize("preset", ["paper", "demo"])
@pytest.mark.parametrize("weights", ["imagenet", None])
def test_stage_two_says_its_weights(preset, weights, caplog):
    how = load_segmentation_config("paper", encoder_weights=weights)
    with caplog.at_level("INFO"):
        _say_weights(how, preset, "made")
    said = [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]
    if preset == "demo":
        assert said == []
    elif weights:
        assert said == ["INFO: made, stage two: preset=paper begins with the weights of resnet101, imagenet"]
    else:
        assert said[0].startswith("WARNING: made, stage two: preset=paper begins with random weights")
        assert said[0].endswith('pass encoder_weights="imagenet"')
