"Readers of files, each with whole files of its own, and with what must hold when it accepts one."

import importlib
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from rasterio.windows import Window
from safetensors.torch import save
from scipy.io import savemat
from timm.models import VisionTransformer

from ctm.checkpoint import load_model, save_model
from ctm.core import repo_root
from ctm.data.label_table import label_table, split_rows
from ctm.datasets import coco2014, dfc2020, endotect, folder, kvasir_seg, voc2012
from ctm.experiments.results import Result, load_result
from ctm.io.images import band_count, image_size, read_image, read_sparse
from ctm.io.masks import read_bright, read_colors, read_mask
from ctm.io.safe import read_array, read_packed
from ctm.layers.pretrained import load_backbone
from ctm.model import ClassTokenViT
from ctm.reference import load_reference_checkpoint
from ctm.segmentation.network import SegmentationNet, load_network
from ctm.synthetic.sets import make_synthetic
from ctm.train.checkpointing import load_checkpoint
from ctm.train.config import load_config
from tests.fuzz.mutants import archives, json_file, numpy_files, pictures, rasters, synthetic_files, torch_files


@dataclass(frozen=True)
class Target:
    "A reader, whole files for it, and where a mutant has to lie."

    place: str  # path within the fuzzer's folder
    files: list[bytes]  # whole files
    read: Callable[[Path], object]  # reader; it raises `AssertionError` where an accepted file makes no sense


def check_image(path: Path) -> None:
    "An image, its size and its bands agree; a lattice and a window of it are parts of it."
    image, valid = read_image(path)
    assert image.ndim == 3 and image.shape[1:] == image_size(path) and len(image) == band_count(path)[0]
    assert valid is None or (valid.shape == image.shape[1:] and valid.dtype == bool)
    assert image.dtype.kind != "f" or np.isfinite(image).all()
    thin, _ = read_sparse(path, side=16)
    part, _ = read_image(path, window=Window(0, 0, 3, 2))
    assert len(thin) == len(image) and max(thin.shape[1:]) <= 16 and (part == image[:, :2, :3]).all()


def check_mask(path: Path) -> None:
    "A mask holds whole numbers."
    mask = read_mask(path)
    assert mask.ndim == 2 and mask.dtype.kind in "biu" and mask.shape == image_size(path)


def check_painted(path: Path) -> None:
    "A painted mask has a colour everywhere."
    assert read_colors(path).shape == read_bright(path).shape == image_size(path)


def check_labels(path: Path) -> None:
    "Every row names a file that is there; labels are zeros and ones."
    table = label_table(path, [f"a/{i}.png" for i in range(6)])
    assert table.labels is None or (set(np.unique(table.labels)) <= {0, 1} and len(table.labels) == len(table.files))
    split_rows(table, path=path)


def check_paths(make_reader: Callable[[Path], object], root: Path, path: Path) -> None:
    "The files that a list names lie under the root."
    data = make_reader(path)
    for index in range(len(data)):
        assert all(file.resolve().is_relative_to(root.resolve()) for file in data.files(index))


def check_coco(path: Path) -> None:
    "Masks of all images that the file describes, none larger than it says."
    packed = coco2014.packed_instances(path)
    for row, (height, width) in enumerate(packed["sizes"].tolist()):
        if height * width <= 10**6:
            items = json.loads(packed["text"][packed["ends"][row - 1] if row else 0 : packed["ends"][row]].tobytes())
            mask = coco2014.semantic_mask(items, (height, width), str(path))
            assert mask.shape == (height, width) and mask.max() <= 80


def check_archive(path: Path) -> None:
    "Unpacked files lie in their folder, and are gone afterwards."
    out = path.parent / "out"
    try:
        importlib.import_module("unpack").unpack(path, out)  # data_prep/
        assert all(part.is_dir() or (part.is_file() and not part.is_symlink()) for part in out.rglob("*"))
    finally:
        shutil.rmtree(out, ignore_errors=True)
    assert not list(path.parent.glob("b.txt"))


def check_model(load: Callable, path: Path) -> None:
    "A model that was loaded runs."
    model = load(path)
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 16, 16)).shape[0] == 1


def sbd_files(place: Path) -> list[bytes]:
    "SBD's masks, as MATLAB writes them."
    values = np.arange(60, dtype=np.uint8).reshape(6, 10) % 21
    for packed in (False, True):
        savemat(place / f"{packed}.mat", {"GTcls": {"Segmentation": values}}, do_compression=packed)
    return [(place / f"{packed}.mat").read_bytes() for packed in (False, True)]


def check_sbd(path: Path) -> None:
    "A mask of SBD."
    mask = importlib.import_module("voc2012").read_sbd(path)  # data_prep/
    assert mask.ndim == 2 and mask.dtype == np.uint8


def weights(place: Path) -> dict[str, list[bytes]]:  # kind -> files
    "Weights as `ctm`, timm and the reference implementation would write them."
    torch.manual_seed(0)
    model = ClassTokenViT(3, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2)
    net = SegmentationNet(3, architecture="FPN", encoder="mobilenet_v2", depth=3)
    first = save_model(model, place / "seed.safetensors").read_bytes()
    second = save_model(net, place / "seed.safetensors").read_bytes()
    state = {f"mct.{k}": v for k, v in model.state_dict().items() if not k.startswith(("head", "norm", "reg_token"))}
    state = {k.replace("head_gate.log_alpha", "gate.log_a"): v for k, v in state.items()}
    state |= {"mct.register_token": model.reg_token, "mct.classifier_head_test.weight": torch.zeros(3, 16)}
    state |= {f"classifier_head_test.{k}": v for k, v in model.head.state_dict().items()}
    torch.save(dict(state_dict={f"model.{k}": v.detach() for k, v in state.items()}), place / "seed.ckpt")
    donor = save(VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2).state_dict())
    return dict(model=[first], network=[second], donor=[donor], reference=[(place / "seed.ckpt").read_bytes()])


def picture_targets(place: Path) -> dict[str, Target]:
    "Readers of pixels."
    found = {kind: Target(f"mutant.{kind}", pictures(kind), check_image) for kind in ("png", "bmp", "webp")}
    found["jpeg"] = Target("mutant.jpg", pictures("JPEG", quality=80), check_image)
    deep = rasters(place, ("uint16", 1), ("uint16", 3), driver="PNG")
    found["png of 16 bits"] = Target("mutant.png", deep, check_image)
    kinds = ("uint8", 3), ("uint16", 4), ("float32", 5), ("int16", 1)
    found["geotiff"] = Target("mutant.tif", rasters(place, *kinds), check_image)
    found["mask, geotiff"] = Target("mutant.tif", rasters(place, ("uint8", 1), ("float32", 1)), check_mask)
    found["mask, painted"] = Target("mutant.png", pictures("PNG"), check_painted)
    return found | {"mask, png": Target("mutant.png", pictures("PNG")[::2][:2], check_mask)}  # grey, palette


def list_targets(place: Path) -> dict[str, Target]:
    "Readers of tables, lists and annotations, each in its official layout."
    voc, polyps, coco, endo, own = (
        make_synthetic(name, place, 6) for name in ("voc2012", "kvasir_seg", "coco2014", "endotect", "folder")
    )
    lists = "VOCdevkit/VOC2012/ImageSets/Segmentation"
    by_list = lambda path: voc2012.Voc2012(voc, path.stem, labels="none", bad="skip")  # noqa: E731
    flat = place / "flat"
    for part in ("images", "masks"):
        shutil.copytree(polyps / "train" / part, flat / part, dirs_exist_ok=True)
    polyp_list = "\n".join(sorted(p.stem for p in (flat / "images").iterdir())).encode()
    by_stem = lambda path: kvasir_seg.KvasirSeg(flat, "train", bad="skip")  # noqa: E731
    endo_labels = "labeled-images/image-labels.csv"
    by_label = lambda path: endotect.EndoTect(endo, bad="skip")  # noqa: E731
    table = b"file,label,split\n" + b"".join(b"a/%d.png,%s,%s\n" % (i, (b"x", b"y;z")[i % 2], (b"train", b"val")[i % 2])
                                           for i in range(6))  # fmt: skip
    columns = b"file,x,y\n" + b"".join(b"a/%d.png,%d,1\n" % (i, i % 2) for i in range(6))
    observed = b"Season,Scene,ID\n" + b"".join(b"Seasons.TEST,0,%d\n" % i for i in range(5))
    keys = [("0", i) for i in range(9)]
    return {
        "labels.csv": Target("mutant.csv", [table, columns], check_labels),
        "VOC list": Target(
            f"{voc.name}/{lists}/mutant.txt", synthetic_files(voc, f"{lists}/*.txt"), partial(check_paths, by_list, voc)
        ),
        "VOC xml": Target(
            "mutant.xml", synthetic_files(voc, "VOCdevkit/VOC2012/Annotations/*.xml"), voc2012.read_xml_label
        ),
        "cls_labels.npy": Target("mutant.npy", numpy_files("labels"), voc2012.read_cls_labels),
        "Kvasir list": Target("flat/train.txt", [polyp_list], partial(check_paths, by_stem, flat)),
        "COCO json": Target("instances.json", synthetic_files(coco, "annotations/*.json"), check_coco),
        "EndoTect table": Target(
            f"{endo.name}/{endo_labels}", synthetic_files(endo, endo_labels), partial(check_paths, by_label, endo)
        ),
        "DFC2020 list": Target("mutant.csv", [observed], lambda p: dfc2020._observed(p, keys, {"": Path(".")}, "skip")),
        "mask values": Target("mutant.json", synthetic_files(own, "mask_values.json"), folder.read_values),
    }


def file_targets(place: Path) -> dict[str, Target]:
    "Readers of weights, arrays, results and archives."
    sys.path.insert(0, str(repo_root() / "data_prep"))
    made = weights(place)
    onto = lambda path: load_backbone(  # noqa: E731
        ClassTokenViT(3, img_size=16, patch_size=8, embed_dim=16, depth=2, num_heads=2), str(path)
    )
    config = json.loads(json.dumps(load_config("voc2012").__dict__))
    metrics = dict(sparsity=0.1, classifier_accuracy=0.9, pixel_accuracy=0.8, miou=0.5, iou=[0.5, None])
    result = json_file(**Result(metrics, config, 0, True, 1.5, "set").__dict__, format=1)
    packed = archives()
    return {
        "model": Target("mutant.safetensors", made["model"], partial(check_model, load_model)),
        "network": Target("mutant.safetensors", made["network"], load_network),
        "backbone": Target("mutant.safetensors", made["donor"], onto),
        "checkpoint": Target("mutant.ckpt", torch_files(), load_checkpoint),
        "reference": Target("mutant.ckpt", made["reference"], load_reference_checkpoint),
        "result": Target("mutant.json", [result], load_result),
        "array": Target("mutant.npy", numpy_files("npy"), lambda path: read_array(path).sum()),
        "packed array": Target("mutant.npz", numpy_files("npz"), lambda path: read_packed(path, "masks").sum()),
        "SBD mat": Target("mutant.mat", sbd_files(place), check_sbd),
        "zip": Target("in/mutant.zip", packed[:1], check_archive),
        "tar": Target("in/mutant.tar", packed[1:2], check_archive),
        "tar.gz": Target("in/mutant.tgz", packed[2:], check_archive),
    }


def targets(
    place: Path,  # folder for seeds and mutants
) -> dict[str, Target]:
    "Every reader by its name."
    return picture_targets(place) | list_targets(place) | file_targets(place)


def target_of(
    place: Path,  # folder for seeds and mutants
    name: str,  # name of a reader
) -> Target:
    "One reader, without the files of those that come later."
    for make in (picture_targets, list_targets, file_targets):
        made = make(place)
        if name in made:
            return made[name]
    raise KeyError(name)
