"Checkpoints that would unpack to more than they hold, and a stop that all processes hear of."

import zipfile
from types import SimpleNamespace

import pytest
import torch

from ctm.core import BadFileError
from ctm.train import checkpointing
from ctm.train.checkpointing import load_checkpoint


def test_packed_checkpoint_is_a_bomb(tmp_path):
    torch.save(dict(state_dict=torch.zeros(10**6), epoch=0), tmp_path / "whole.ckpt")
    with zipfile.ZipFile(tmp_path / "whole.ckpt") as old:
        with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as new:
            for entry in old.infolist():
                new.writestr(entry.filename, old.read(entry))
    with pytest.raises(BadFileError, match="last.ckpt: damaged or not a checkpoint"):
        load_checkpoint(tmp_path / "last.ckpt")


@pytest.mark.parametrize(("flags", "who"), [(0.0, ""), (1.0, "another process")])
def test_a_stop_of_one_process_stops_all(flags, who, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpointing, "summed", lambda flag: flag + flags)  # what the other process adds
    trainer = SimpleNamespace(world_size=2, strategy=SimpleNamespace(root_device="cpu"))
    assert checkpointing.Saver(tmp_path / "last.ckpt").asked_by(trainer) == who
