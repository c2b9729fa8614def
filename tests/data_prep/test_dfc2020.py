"DFC2020 from archives that were fetched by hand."

from dataclasses import replace

from ctm.synthetic.sets import make_synthetic
from tests.data_prep.official import SCRIPT, contents, error, run, zipped


def test_dfc2020_from_archives_by_hand(tmp_path, monkeypatch, capsys):
    from ctm.datasets import dfc2020

    monkeypatch.setattr(dfc2020, "READER", dfc2020.Dfc2020, raising=False)
    monkeypatch.setattr(dfc2020, "OFFICIAL", {"train": 4, "val": 1}, raising=False)
    made, data = make_synthetic("dfc2020", tmp_path / "synthetic", n=4), {}
    for file in made.rglob("*.tif"):  # one archive per sensor for test, one for all of validation
        name = "val (1).zip" if "validation" in file.name else f"{file.parent.name}.zip"
        flat = file.name if name == "s1_0.zip" else f"DFC_Public_Dataset/{file.parent.name}/{file.name}"
        data.setdefault(name, {"__MACOSX/._x.tif": b"x"})[flat] = file.read_bytes()
    for name, files in data.items():
        (tmp_path / name).write_bytes(zipped(files))
    counts = {pattern: 4 if "test" in pattern else 1 for pattern in SCRIPT["dfc2020"].DATASET.counts}
    dataset, root = replace(SCRIPT["dfc2020"].DATASET, counts=counts), tmp_path / "dfc2020"

    assert run(dataset, root) == 1
    assert "ieee-dataport.org" in error(capsys)[0] and not root.exists()
    assert run(dataset, root, "--archive", tmp_path / "none.zip") == 1
    assert "none.zip: no such file" in error(capsys)[0]
    assert run(dataset, root, "--archive", tmp_path / "val (1).zip") == 1
    assert any("4" in line and "ROIs0000_test" in line for line in error(capsys))  # the rest is missing
    files = [option for name in data for option in ("--archive", tmp_path / name)]
    assert run(dataset, root, *files) == 0
    assert "val (1).zip: already in its place" in capsys.readouterr().out
    assert contents(root) == ["ROIs0000_test", "ROIs0000_validation"]
    assert contents(root / "ROIs0000_test") == ["dfc_0", "s1_0", "s2_0"]
    twice = {f"{folder}/ROIs0000_test_lc_0_p0.tif": b"x" for folder in "ab"}
    (tmp_path / "twice.zip").write_bytes(zipped(twice))
    assert run(dataset, root, "--archive", tmp_path / "twice.zip") == 1
    assert "twice.zip: ROIs0000_test_lc_0_p0.tif: in two folders" in error(capsys)[0]
    (tmp_path / "other.zip").write_bytes(zipped({"inner.zip": b"x"}))
    assert run(dataset, root, "--archive", tmp_path / "other.zip") == 1
    assert "other.zip: no DFC2020 patches" in error(capsys)[0]
