"ADE20K: real samples and its lists."

import pytest

from ctm.data.transforms import Resized
from ctm.datasets import ade20k
from tests.datasets.samples import SAMPLES, check_samples, lines, real


@real
@pytest.mark.parametrize("split, count", [("train", 1), ("val", 3)])
@pytest.mark.parametrize("other", ["ignore", "class"])
def test_ade20k(split, count, other):
    dataset = ade20k.Ade20k(SAMPLES / "ade20k", split, other)
    check_samples(dataset, count)
    wide = Resized(dataset, (200, 320), canvas=(208, 320))[0]
    assert wide["image"].shape == (3, 208, 320) and (wide["mask"][:4] == 255).all()


@real
def test_ade20k_lists():
    found = {s: len(lines(f"ade20k/lists/mseg_ade20k150_{s}.txt")) for s in ("train", "val")}
    assert found == ade20k.OFFICIAL
    names = [
        line.split("\t")[-1].split(",")[0].strip() for line in lines("ade20k/ADEChallengeData2016/objectInfo150.txt")
    ]
    assert tuple(names[1:]) == ade20k.NAMES
