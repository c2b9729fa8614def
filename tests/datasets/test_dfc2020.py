"DFC2020: real Sentinel patches and the contest's lists."

from pathlib import Path

import numpy as np
import pytest
import rasterio

from ctm.datasets import dfc2020
from tests.datasets.samples import SAMPLES, check_samples, real


@pytest.fixture
def patches(tmp_path):
    "Real Sentinel patches with the land cover left to be water, in the contest's layout."
    for patch, s2 in enumerate(sorted((SAMPLES / "dfc2020" / "sen12ms_cr").glob("*/s2_*/*.tif"))):
        s1 = Path(str(s2).replace("/s2_", "/s1_").replace("_s2_", "_s1_"))
        for sensor, file in dict(s2=s2, s1=s1).items():
            place = tmp_path / "ROIs0000_test" / f"{sensor}_0" / f"ROIs0000_test_{sensor}_0_p{patch}.tif"
            place.parent.mkdir(parents=True, exist_ok=True)
            place.symlink_to(file)
        label = tmp_path / "ROIs0000_test" / "dfc_0" / f"ROIs0000_test_dfc_0_p{patch}.tif"
        label.parent.mkdir(parents=True, exist_ok=True)
        with rasterio.open(label, "w", driver="GTiff", width=256, height=256, count=1, dtype="uint8") as out:
            out.write(np.full((1, 256, 256), 10, np.uint8))
    return tmp_path


@real
@pytest.mark.parametrize("sensors, bands", [("s1+s2", 15), ("s2", 13), ("s1", 2)])
def test_dfc2020(patches, sensors, bands):
    dataset = dfc2020.Dfc2020(patches, sensors=sensors)
    check_samples(dataset, 2)
    for sample in dataset:
        assert len(sample["image"]) == bands
        assert sample["image"].abs().mean() < 5, "far from the published band statistics"
        assert sample["label"].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]


@real
@pytest.mark.parametrize("name, count", [("test", 5128), ("validation", 986), ("validation_balanced", 2618)])
def test_dfc2020_observations(name, count):
    parts = f"{name.replace('_', '_observations_')}_classes" if "_" in name else f"{name}_observations"
    file = SAMPLES / "dfc2020" / "lists" / f"{parts}.csv"
    rows = file.read_text().split()
    rows = rows[rows[0].startswith("Season,Scene") :]
    assert len(rows) == count
    keys = sorted({("0", int(row.split(",")[2])) for row in rows})
    chosen = dfc2020._observed(file, keys, {}, "raise")
    assert [patch for _, patch in chosen] == [int(row.split(",")[2]) for row in rows]
    assert name.endswith("balanced") or len(keys) == count == dfc2020.OFFICIAL[{"test": "train"}.get(name, "val")]
