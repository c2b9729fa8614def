"Folders of images: links are spoken of, masks belong to one image each, odd images are refused or skipped."

import numpy as np
import pytest
from PIL import Image

from ctm.core import BadFileError, DatasetNotFoundError
from ctm.datasets.folder import Folder, find_images

CLASSES = ["a", "b"]


@pytest.fixture
def place(tmp_path):
    "Folder of four images, and a table of them."
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(np.full((16, 16, 3), 9 * i, np.uint8)).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,a\n1.png,b\n2.png,a\n3.png,b\n")
    return tmp_path


def masks_of(place, *names):
    "Folder of masks of those names."
    (place / "masks").mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(place / "masks" / name)
    return place / "masks"


def test_links_to_folders_are_said(place, caplog):
    (place / "more").mkdir()
    (place / "images" / "link").symlink_to(place / "more")
    assert len(find_images(place / "images")) == 4 and "images/link: is a link to a folder" in caplog.text
    (place / "only").mkdir()
    (place / "only" / "link").symlink_to(place / "images")
    with pytest.raises(DatasetNotFoundError, match="holds no image.*only/link: is a link"):
        find_images(place / "only")


@pytest.mark.parametrize("labels", ["labels.csv", None])
def test_masks_of_which_none_belongs_to_an_image(place, labels):
    masks = masks_of(place, "0_mask.png", "1_mask.png")
    with pytest.raises(DatasetNotFoundError, match="masks: no mask has the name of an image, as 0.png; rename"):
        Folder(place / "images", labels and place / labels, masks, CLASSES)


def test_two_masks_of_one_image(place):
    masks = masks_of(place, "0.png", "0.bmp", "1.png")
    with pytest.raises(BadFileError, match="0.bmp: 0.png is a mask of 0.png, too"):
        Folder(place / "images", place / "labels.csv", masks, CLASSES)


def test_an_image_without_a_mask_has_no_label(place, caplog):
    data = Folder(place / "images", None, masks_of(place, "0.png", "2.png"), CLASSES)
    assert data.names == ["0.png", "2.png"] and "1.png: has no mask and so no label (2 of 4 images)" in caplog.text


def test_options_belong_together(place):
    with pytest.raises(ValueError, match="mask_values=.*there are no masks; give masks="):
        Folder(place / "images", place / "labels.csv", mask_values=dict(a=1, b=2))


def empty(file):
    file.write_bytes(b"")


def grey(file):
    Image.new("L", (16, 16)).save(file)


def gone(file):
    file.unlink()


@pytest.mark.parametrize("spoil", [empty, grey, gone])
def test_what_is_broken_when_files_are_listed_is_skipped(place, caplog, spoil):
    spoil(place / "images" / "0.png")
    with pytest.raises(BadFileError, match="0.png"):
        Folder(place / "images", place / "labels.csv")
    data = Folder(place / "images", place / "labels.csv", bad="skip")
    assert data.names == ["1.png", "2.png", "3.png"] and [data.read_label(i).tolist() for i in range(3)] == [
        [0, 1],
        [1, 0],
        [0, 1],
    ]
    assert data.masks == [None] * 3 and "skipped 1 of 4" in caplog.text and "0.png" in caplog.text


def test_masks_among_the_images_are_no_images(place):
    for i in (0, 1):
        (place / "images" / "masks").mkdir(exist_ok=True)
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(place / "images" / "masks" / f"{i}.png")
    data = Folder(place / "images", None, place / "images" / "masks", CLASSES)
    assert data.names == ["0.png", "1.png"] and len(data.mean) == 3


def test_masks_that_are_gone(place):
    masks = masks_of(place, "0.png")
    (place / "masks.csv").write_text("file,mask\n0.png,0.png\n1.png,1.png\n")
    with pytest.raises(BadFileError, match="1.png: missing, though the table names it"):
        Folder(place / "images", place / "masks.csv", masks, CLASSES)
    assert Folder(place / "images", place / "masks.csv", masks, CLASSES, bad="skip").names == ["0.png"]
    (masks / "0.png").unlink()
    with pytest.raises(BadFileError, match="no image is left that has its mask"):
        Folder(place / "images", place / "masks.csv", masks, CLASSES, bad="skip")


def test_pictures_of_other_kinds_are_spoken_of(tmp_path, caplog):
    (tmp_path / "a.heic").touch()
    with pytest.raises(DatasetNotFoundError, match="holds no image .*a.heic: pictures of such kinds are not read"):
        find_images(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    caplog.clear()
    assert find_images(tmp_path) == ["b.png"]
    assert "a.heic: pictures of such kinds are not read (1 such files); convert them to PNG" in caplog.messages[0]
