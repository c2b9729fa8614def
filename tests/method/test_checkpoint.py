"Model files that ask for more than they hold."

import json

import pytest
from safetensors.torch import save_file

from ctm.checkpoint import load_model
from ctm.core import BadFileError
from ctm.model import ClassTokenViT
from tests.tools import TINY_MODEL


@pytest.mark.parametrize(
    "change", [dict(embed_dim=2**20), dict(depth=10**9), dict(pretrained="vit_base_patch16_224"), dict(img_size=2**24)]
)
def test_weights_decide_how_large_a_model_is(change, tmp_path):
    model = ClassTokenViT(3, **TINY_MODEL)
    save_file(model.state_dict(), tmp_path / "m.safetensors", metadata={"ctm": json.dumps(model.options | change)})
    with pytest.raises(BadFileError, match="m.safetensors: damaged, or not written by save_model"):
        load_model(tmp_path / "m.safetensors")
