"A run of stage two in the paper's preset says its weights, and warns without."

from types import SimpleNamespace

import pytest

from ctm.segmentation.network import load_segmentation_config
from ctm.segmentation.run import _SecondStage


@pytest.mark.parametrize("preset", ["paper", "demo"])
@pytest.mark.parametrize("weights", ["imagenet", None])
def test_stage_two_says_its_weights(preset, weights, caplog):
    how = load_segmentation_config("paper", encoder_weights=weights)
    run = SimpleNamespace(segmentation=how, tested=SimpleNamespace(config=SimpleNamespace(preset=preset)))
    with caplog.at_level("INFO"):
        _SecondStage._say_weights(run, "made")
    said = [f"{record.levelname}: {record.getMessage()}" for record in caplog.records]
    if preset == "demo":
        assert said == []
    elif weights:
        assert said == ["INFO: made, stage two: preset=paper begins with the weights of resnet101, imagenet"]
    else:
        assert said[0].startswith("WARNING: made, stage two: preset=paper begins with random weights")
        assert said[0].endswith('pass encoder_weights="imagenet"')
