"""MBRSC's 72 aerial images of Dubai, laid out as `ctm.datasets.folder` reads them.

The archive is fetched by a person (a free account); it holds `Semantic segmentation dataset/Tile 1..8/{images,masks}`.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from prepare import locate
from unpack import unpack

from ctm.core import BadFileError, DatasetNotFoundError, absolute, atomic_folder, data_root

PAGE = "https://www.kaggle.com/datasets/humansintheloop/semantic-segmentation-of-aerial-imagery"
TILES, PARTS = 8, 9  # scenes, and images of each
VAL = ("Tile 5", "Tile 8")  # scenes to score on; the publisher names no split
COLORS = dict(  # of the masks; those of the publisher's classes.json are others
    building="#3C1098", land="#8429F6", road="#6EC1E4", vegetation="#FEDD3A", water="#E2A929",
    ignore=["#9B9B9B", "#000000"],  # unlabelled, and what some masks leave black
)  # fmt: skip


def pairs(
    base: Path,  # that holds the tiles
    partial: bool = False,  # some may be missing
) -> list[tuple[str, Path, Path]]:  # name, image, mask
    "The images and their masks; `BadFileError` names what is missing."
    found = []
    for tile in range(1, TILES + 1):
        for part in range(1, PARTS + 1):
            image = base / f"Tile {tile}" / "images" / f"image_part_{part:03}.jpg"
            mask = base / f"Tile {tile}" / "masks" / f"image_part_{part:03}.png"
            lost = [file for file in (image, mask) if not file.is_file()]
            if not lost:
                found.append((f"tile_{tile}_part_{part}", image, mask))
            elif not partial:
                raise BadFileError(f"{lost[0]}: missing; get the whole set from {PAGE}, or pass --partial")
    if not found:
        raise DatasetNotFoundError(f"{base}: holds no Tile 1/images/image_part_001.jpg")
    return found


def write(base: Path, root: Path, partial: bool) -> int:  # images written
    "Copy the images and masks, and write the table and the masks' colours; all or nothing."
    found = pairs(base, partial)
    with atomic_folder(root) as folder:
        for kind in ("images", "masks"):
            (folder / kind).mkdir()
        rows = ["file,split"]
        for name, image, mask in found:
            shutil.copyfile(image, folder / "images" / f"{name}.jpg")
            shutil.copyfile(mask, folder / "masks" / f"{name}.png")
            rows.append(f"{name}.jpg,{'val' if image.parents[1].name in VAL else 'train'}")
        (folder / "labels.csv").write_text("\n".join(rows) + "\n")
        (folder / "mask_values.json").write_text(json.dumps(COLORS, indent=1))
    return len(found)


def main(arguments: list[str] | None = None) -> int:  # exit status
    "The command. An error is one line."
    parser = argparse.ArgumentParser(description=f"Lay out MBRSC's aerial images of Dubai ({PAGE}).")
    parser.add_argument("source", type=Path, help="the archive that was fetched, or the folder that it unpacks to")
    parser.add_argument("--root", type=Path, help="default: mbrsc_dubai/ in CTM_DATA, or in data/")
    parser.add_argument("--partial", action="store_true", help="go on where some of the images are missing")
    args = parser.parse_args(arguments)
    try:
        root = absolute(args.root or data_root() / "mbrsc_dubai")
        if root.exists():
            raise OSError(f"{root}: is there already; delete it, or pass another --root")
        with tempfile.TemporaryDirectory() as temporary:
            top = args.source
            if top.is_file():
                top = Path(temporary) / "unpacked"
                unpack(args.source, top, "")
            elif not top.is_dir():
                raise DatasetNotFoundError(f"{top}: no such archive or folder; {PAGE} has it")
            count = write(locate(top, ("Tile 1",), args.source), root, args.partial)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{root}: {count} of {TILES * PARTS} images, {', '.join(VAL)} to score on")
    return 0


if __name__ == "__main__":
    sys.exit(main())
