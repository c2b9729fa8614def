"Masks of two values: black and white, numbers or colours, blurred by JPEG."

import numpy as np
import pytest
from PIL import Image

from ctm.core import BadFileError
from ctm.datasets.folder import Folder
from tests.datasets.samples import SAMPLES, check_samples, real

y, x = np.mgrid[:48, :64]
OBJECT = np.hypot(y - 20, x - 30) < 12
WHITE = 255 * OBJECT.astype(np.uint8)


def masks_of(folder, suffix, values=WHITE, mode="L"):
    "Images and masks of the same names."
    for part in ("images", "masks"):
        (folder / part).mkdir()
    for name in "abc":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)).save(
            folder / "images" / f"{name}.png"
        )
        Image.fromarray(values).convert(mode).save(folder / "masks" / f"{name}.{suffix}")
    return dict(images=folder / "images", masks=folder / "masks")


@pytest.mark.parametrize("suffix, mode", [("png", "L"), ("png", "RGB"), ("tif", "L"), ("jpg", "L"), ("jpg", "RGB")])
@pytest.mark.parametrize("background", [True, False])
def test_white_is_the_object(suffix, mode, background, tmp_path, caplog):
    classes = ("polyp",) if background else ("mucosa", "polyp")
    data = Folder(**masks_of(tmp_path, suffix, mode=mode), classes=classes, background=background)
    assert np.array_equal(data.read(0)[1], OBJECT)
    assert "255 is read as 'polyp'" in caplog.text
    assert data[0]["label"].tolist() == ([1] if background else [1, 1])


@pytest.mark.parametrize("values", [dict(background="#000000", polyp="#ffffff"), dict(background=0, polyp=255)])
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_white_that_has_a_name(suffix, values, tmp_path, caplog):
    data = Folder(**masks_of(tmp_path, suffix, mode="RGB"), classes=("polyp",), mask_values=values)
    assert np.array_equal(data.read(0)[1], OBJECT) and not caplog.text


def test_unknown_stays_unknown_where_ones_are(tmp_path, caplog):
    mask = OBJECT.astype(np.uint8)
    mask[:4] = 255
    data = Folder(**masks_of(tmp_path, "png", mask), classes=("polyp",), background=True)
    assert np.array_equal(data.read(0)[1], mask) and not caplog.text


def test_a_mapping_that_masks_do_not_follow_is_said(tmp_path, caplog):
    data = Folder(**masks_of(tmp_path, "png"), classes=("polyp",), mask_values=dict(background=0, polyp=1))
    assert set(np.unique(data.read(0)[1])) == {0, 255}
    assert "masks hold [0, 255]: 255 is read as unknown" in caplog.text


def test_what_a_jpeg_cannot_hold_is_refused(tmp_path):
    places = masks_of(tmp_path, "jpg", (x // 22 * 60).astype(np.uint8))
    values = dict(a=0, b=60, c=120)
    with pytest.raises(BadFileError, match="a.jpg: is compressed with losses"):
        Folder(**places, classes=tuple("abc"), mask_values=values).read(0)
    with pytest.raises(BadFileError, match="a.jpg: .* near neither"):
        Folder(**places, classes=("a", "b"), mask_values=dict(a=0, b=255)).read(0)
    with pytest.raises(BadFileError, match="a.jpg: is compressed with losses"):
        Folder(**places, classes=("a", "b")).read(0)


@real
def test_kvasir_seg_as_it_ships():
    base = SAMPLES / "endotect" / "Kvasir-SEG"
    data = Folder(base / "images", masks=base / "masks", classes=("polyp",), background=True)
    check_samples(data, 5)
    for index, file in enumerate(data.masks):
        bright = np.asarray(Image.open(file).convert("L")) > 127
        assert np.array_equal(data.read(index)[1], bright) and bright.any()
