"Checkpoints that would unpack to more than they hold."

import zipfile

import pytest
import torch

from ctm.core import BadFileError
from ctm.train.checkpointing import load_checkpoint


def test_packed_checkpoint_is_a_bomb(tmp_path):
    torch.save(dict(state_dict=torch.zeros(10**6), epoch=0), tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as old:
        with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
    with pytest.raises(BadFileError, match="last.ckpt: damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")
