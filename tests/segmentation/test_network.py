"Segmentation networks are of known kinds, whatever their file says."

import json

import pytest
import torch
from safetensors.torch import save_file

from ctm.core import BadFileError
from ctm.segmentation.network import load_network


@pytest.mark.parametrize(
    "change", [dict(architecture="from_pretrained"), dict(encoder="tu-hf-hub:a/b"), dict(encoder_weights="imagenet")]
)
def test_networks_are_of_known_kinds(change, tmp_path):
    options = dict(num_values=3, in_chans=3, architecture="FPN", encoder="resnet18", depth=3) | change
    save_file({"a": torch.zeros(2)}, tmp_path / "n.safetensors", metadata={"ctm": json.dumps(options)})
    with pytest.raises(BadFileError, match="n.safetensors: damaged, or no segmentation network"):
        load_network(tmp_path / "n.safetensors")
