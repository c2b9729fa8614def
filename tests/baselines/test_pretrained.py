"Baselines that begin with a donor compute what it computed."

import pytest
import timm
import torch
from safetensors.torch import save_file

from ctm.baselines.vit import build_vit
from ctm.train.config import load_config

FAMILIES = ("vit_tiny_patch16_224", "vit_small_patch14_dinov2", "vit_base_patch32_clip_quickgelu_224")


@pytest.mark.parametrize("name", FAMILIES)
def test_a_vit_begins_as_its_donor(name, tmp_path):
    torch.manual_seed(0)
    donor = timm.create_model(name, depth=2, embed_dim=48, num_heads=3, num_classes=0).eval()
    with torch.no_grad():
        for part in donor.parameters():
            part.mul_(2).add_(0.1 * torch.randn(part.shape))
    size = donor.patch_embed.img_size
    save_file(
        donor.state_dict(), tmp_path / "d.safetensors", dict(architecture=name, num_heads="3", img_size=str(size))
    )
    config = load_config("voc2012", "demo", pretrained=str(tmp_path / "d.safetensors"), img_size=size)
    image = torch.randn(1, 3, *size)
    with torch.no_grad():
        ours = build_vit(config, 4).eval().forward_features(image)
        torch.testing.assert_close(ours, donor.forward_features(image), rtol=1e-5, atol=1e-5)
