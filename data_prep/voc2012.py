"PASCAL VOC 2012, with the list and the masks that SBD adds: 10,582 images to train and 1,449 to validate."

import argparse
import ctypes
import faulthandler
import signal
import sys
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, TimeoutError
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image
from prepare import Archive, DataSet, main
from scipy.io import loadmat
from tqdm import tqdm

from ctm.core import BadFileError, DatasetNotFoundError
from ctm.data.colors import voc_palette
from ctm.io.safe import inside, read_text, reading

VOC = "VOCdevkit/VOC2012"
AUGMENTED, LIST = f"{VOC}/SegmentationClassAug", f"{VOC}/ImageSets/Segmentation/train_aug.txt"
TRAIN_AUG = 10_582  # (SBD train + SBD val + VOC train) - VOC val
ARCHIVES = [
    Archive(
        "VOCtrainval_11-May-2012.tar",
        bytes=1_999_639_040,
        unpacked=2_000_000_000,
        urls=("https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",),
        checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
        holds=("JPEGImages", "SegmentationClass", "Annotations", "ImageSets"),
        places={".": VOC},
    )
]


def ids(file: Path) -> list[str]:
    return read_text(file).split()


def check_list(file: Path, root: Path) -> None:
    "Refuse a list for training that is not the usual one, or that would show images of the validation."
    found, val = ids(file), set(ids(root / VOC / "ImageSets/Segmentation/val.txt"))
    if len(found) != TRAIN_AUG or len(set(found)) != TRAIN_AUG:
        raise BadFileError(
            f"{file}: {len(found):,} ids, {len(set(found)):,} different, where train_aug has {TRAIN_AUG:,}"
        )
    if shown := sorted(val & set(found)):
        raise BadFileError(f"{file}: {len(shown)} ids of val.txt are in it, the first is {shown[0]}")


def palette() -> list[int]:  # 768 numbers
    "Colours of VOC's masks, as Pillow wants them."
    return voc_palette().ravel().tolist()


def read_sbd(file: Path) -> np.ndarray:  # (H, W) uint8
    "A mask of SBD. A damaged file can kill scipy's reader, so it reads in a process of its own."
    with reading(file, "cannot be read as an SBD mask", "fetch it again"):
        try:
            return _child().submit(_mask, file).result(timeout=20)
        except (BrokenExecutor, TimeoutError):
            child, _ = _child(), _child.cache_clear()
            for process in list((child._processes or {}).values()):
                process.kill()
            child.shutdown()
            raise


@cache
def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, initializer=_alone)


def _alone() -> None:
    "In the child: its death is expected, and a killed parent takes it along, with the lock that it inherited."
    faulthandler.disable()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _mask(file: Path) -> np.ndarray:
    mask = loadmat(file, variable_names=("GTcls",))["GTcls"][0]["Segmentation"][0]
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise ValueError(f"holds {mask.ndim} dimensions of {mask.dtype}")
    return mask.astype(np.uint8)


def add_sbd(folder: Path, root: Path) -> None:
    "SBD's part of train_aug: the list, unless one was given, and masks in VOC's format where VOC has none."
    lists = root / VOC / "ImageSets/Segmentation"
    train, val = ids(lists / "train.txt"), set(ids(lists / "val.txt"))
    chosen = (
        ids(root / LIST)
        if (root / LIST).exists()
        else sorted({*ids(folder / "train.txt"), *ids(folder / "val.txt"), *train} - val)
    )
    (folder / "train_aug.txt").write_text("\n".join(chosen) + "\n")
    check_list(folder / "train_aug.txt", root)
    (folder / "masks").mkdir()
    colours = palette()
    for name in tqdm(chosen, desc="SBD masks", disable=None, leave=False):
        if (root / VOC / "SegmentationClass" / f"{name}.png").exists():
            continue
        image = Image.fromarray(read_sbd(inside(folder / "cls", f"{name}.mat", links=False)), mode="P")
        image.putpalette(colours)
        image.save(folder / "masks" / f"{name}.png")


SBD = Archive(
    "benchmark.tgz",
    bytes=1_419_539_633,
    unpacked=300_000_000,  # only the class masks are unpacked
    urls=("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",),
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    keep=r"/(cls/[^/]+\.mat|train\.txt|val\.txt)$",
    holds=("cls", "train.txt", "val.txt"),
    places={"masks": AUGMENTED, "train_aug.txt": LIST},
    convert=add_sbd,
)


def archives(args: argparse.Namespace) -> list[Archive]:
    "VOC, then a list given by hand, then SBD."
    found = list(ARCHIVES)
    if args.list:
        if not args.list.is_file():
            raise DatasetNotFoundError(f"{args.list}: no such file, passed as --list")
        size = args.list.stat().st_size
        found.append(Archive(args.list.name, size, {".": LIST}, plain=True, convert=check_list, file=args.list))
    if not args.no_sbd:
        found.append(SBD)
    elif not args.list:
        print("train_aug.txt is not written: it needs SBD, or --list FILE")
    return found


DATASET = DataSet(
    name="voc2012",
    page="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/",
    terms="images under the Flickr terms of use, for research; SBD for research, its masks only to score and compare",
    archives=archives,
    counts={
        f"{VOC}/JPEGImages/*.jpg": 17_125,
        f"{VOC}/Annotations/*.xml": 17_125,
        f"{VOC}/SegmentationClass/*.png": 2_913,
        f"{AUGMENTED}/*.png": TRAIN_AUG - 1_464,
    },
    options={
        "--no-sbd": dict(action="store_true", help="without SBD: no augmented masks, and no train_aug without --list"),
        "--list": dict(type=Path, metavar="FILE", help="train_aug.txt from elsewhere: 10,582 ids, none of val"),
    },
    skip=lambda args: {
        *([f"{AUGMENTED}/*.png"] if args.no_sbd else []),
        *(["train_aug"] if args.no_sbd and not args.list else []),
    },
)

if __name__ == "__main__":
    sys.exit(main(DATASET))
