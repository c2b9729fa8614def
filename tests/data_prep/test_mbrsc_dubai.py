"Aerial images of Dubai, laid out for `folder`."

import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.data_prep.official import error


def tiles(base):
    "The publisher's layout, every pixel of a mask in a colour of its own class."
    import mbrsc_dubai

    colors = [value for name, value in mbrsc_dubai.COLORS.items() if name != "ignore"]
    for tile in range(1, 9):
        for kind in ("images", "masks"):
            (base / f"Tile {tile}" / kind).mkdir(parents=True)
        for part in range(1, 10):
            rgb = tuple(bytes.fromhex(colors[(tile + part) % 5][1:]))
            Image.new("RGB", (40, 32), (tile, part, 9)).save(base / f"Tile {tile}/images/image_part_{part:03}.jpg")
            Image.new("RGB", (40, 32), rgb).save(base / f"Tile {tile}/masks/image_part_{part:03}.png")
    return base


@pytest.mark.parametrize("packed", [False, True])
def test_dubai_becomes_a_folder_that_the_reader_reads(packed, tmp_path, capsys):
    import mbrsc_dubai

    from ctm.datasets import folder

    source, root = tiles(tmp_path / "Semantic segmentation dataset"), tmp_path / "root"
    if packed:
        source = Path(shutil.make_archive(tmp_path / "archive", "zip", tmp_path, source.name))
    assert mbrsc_dubai.main([str(source), "--root", str(root)]) == 0
    assert f"{root}: 72 of 72 images" in capsys.readouterr().out
    options = dict(masks="masks", mask_values="mask_values.json", tile=16, resize=None)
    train, val = (folder.load(root, split, **options) for split in ("train", "val"))
    assert (len(train), len(val)) == (54 * 4, 18 * 4) and len(train.classes) == 5
    assert all(train[i]["label"].sum() == 1 for i in range(0, len(train), 4))
    assert mbrsc_dubai.main([str(source), "--root", str(root)]) == 1
    assert "is there already; delete it" in capsys.readouterr().err


def test_dubai_says_what_is_missing(tmp_path, capsys):
    import mbrsc_dubai

    source, root = tiles(tmp_path / "tiles"), tmp_path / "root"
    (source / "Tile 3/masks/image_part_004.png").unlink()
    assert mbrsc_dubai.main([str(source), "--root", str(root)]) == 1
    (line,) = error(capsys)
    assert "Tile 3/masks/image_part_004.png: missing" in line and not root.exists()
    assert mbrsc_dubai.main([str(source), "--root", str(root), "--partial"]) == 0
    assert "71 of 72 images" in capsys.readouterr().out
    assert mbrsc_dubai.main([str(tmp_path / "none"), "--root", str(tmp_path / "other")]) == 1
    assert "no such archive or folder" in error(capsys)[0]
