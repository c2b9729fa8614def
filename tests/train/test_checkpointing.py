"Checkpoints that would unpack to more than they hold, a stop that all hear of, weights that a process hands back."

import zipfile
from types import SimpleNamespace

import lightning.pytorch.trainer.connectors.accelerator_connector as connector
import pytest
import torch

from ctm.core import BadFileError
from ctm.train import checkpointing
from ctm.train.checkpointing import load_checkpoint
from ctm.train.config import load_config
from ctm.train.fit import fit
from tests.train.made import SMALL, Made, flat


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


@pytest.mark.parametrize("interactive", [True, False])
def test_two_devices_in_a_notebook_end_as_one(interactive, tmp_path, monkeypatch):
    "There Lightning forks, and reads the first process's weights when the fit is over."
    data, config = Made(flat(0, 1, 2, 0)), load_config(**SMALL | dict(batch_size=2, epochs=1))
    strategy = {} if interactive else dict(strategy="ddp_fork")
    monkeypatch.setattr(connector, "_IS_INTERACTIVE", interactive)
    one = fit(config, data, data, tmp_path / "one")
    two = fit(config, data, data, tmp_path / "two", devices=2, accelerator="cpu", **strategy)
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    names = {"config.json", "last.ckpt", "best.ckpt", "log.csv"}
    assert names <= {file.name for file in (tmp_path / "two").iterdir()}
    assert not [*tmp_path.rglob("*.temp*")]
