"Real samples beside the project, and what holds for all of them."

import pytest
import torch

from tests.tools import ROOT

SAMPLES = ROOT.parent / "shared" / "samples"
real = pytest.mark.skipif(not SAMPLES.exists(), reason="no real samples beside the project")


def lines(path):
    return [line for line in (SAMPLES / path).read_text().splitlines() if line.strip()]


def check_samples(dataset, count):
    "Every sample is whole: sizes agree, pixels are numbers, mask values are classes."
    assert len(dataset) == count
    for index in range(count):
        sample = dataset[index]
        assert sample["image"].shape[1:] == sample["mask"].shape == dataset.size(index)
        assert torch.isfinite(sample["image"]).all() and sample["image"].dtype == torch.float32
        assert set(sample["mask"].unique().tolist()) <= {*range(len(dataset.mask_classes)), 255}
        assert sample["label"].shape == (len(dataset.classes),) and set(sample["label"].tolist()) <= {0, 1}
