"EndoTect: real images and its tables."

from pathlib import Path

import pytest

from ctm.datasets import endotect
from tests.datasets.samples import SAMPLES, check_samples, real


@real
def test_endotect(caplog):
    found = {s: endotect.EndoTect(SAMPLES / "endotect", s, bad="skip") for s in ("train", "val")}
    assert sum(map(len, found.values())) == 5
    assert "skipped 8536 of 8540 images" in caplog.text
    for dataset in found.values():
        check_samples(dataset, len(dataset))
        assert {dataset.classes[i] for s in dataset for i in s["label"].nonzero().flatten()} == {"polyps"}
        assert all(set(s["mask"].unique().tolist()) == {0, 5} for s in dataset)
    with pytest.raises(ValueError, match="missing, though .*image-labels.csv names it"):
        endotect.EndoTect(SAMPLES / "endotect")


@real
def test_endotect_tables():
    rows = endotect.read_table(
        SAMPLES / "endotect" / "labeled-images" / "image-labels.csv", ",", ("Video file", "Organ", "Finding")
    )
    lower = {row["Finding"] for row in rows if row["Organ"] == "Lower GI"}
    assert lower == set(endotect.LOWER) and {row["Finding"] for row in rows} == set(endotect.FINDINGS["all"])
    kind = {row["Video file"]: row["Finding"] for row in rows}
    for folds in (2, 5):
        file = SAMPLES / "endotect" / "official_splits" / f"{folds}_fold_split.csv"
        split = endotect.read_table(file, ";", ("file-name", "class-name", "split-index"))
        spelled = {Path(r["file-name"]).stem: endotect.SPELLINGS.get(r["class-name"], r["class-name"]) for r in split}
        assert spelled == kind, "both spellings name the same findings"
        inside = sum(row["split-index"] == "0" for row in split)
        assert folds == 2 or dict(train=len(rows) - inside, val=inside) == endotect.OFFICIAL
