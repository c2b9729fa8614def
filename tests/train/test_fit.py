"Fits on odd data, with numbers that no training should meet, and with what happens to the program meanwhile."

import signal

import numpy as np
import psutil
import pytest
import timm
import torch
from lightning.pytorch.callbacks import Callback
from safetensors.torch import save_file

from ctm.predict.dataset import predict_batches, score_masks
from ctm.pruning import sparsity
from ctm.runtime.distributed import OutOfMemoryError
from ctm.train.config import load_config
from ctm.train.fit import build_model, fit
from ctm.train.trainer import NonFiniteLossError
from tests.train.made import SMALL, Made, flat, halves

CASES = {
    "a class that never occurs": flat(0, 1, 0, 1, 0),
    "a class in every image": halves((0, 1), (0, 2), (0, 1), (0, 2)),
    "all classes in all images": [np.arange(256, dtype=np.uint8).reshape(16, 16) % 3] * 3,
    "no class in any image": flat(255, 255, 255),
    "one image": flat(1),
    "fewer images than a batch": flat(0, 1, 2),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("start", ["even", "frequency"])
def test_odd_data_are_trained_and_scored(case, start, tmp_path):
    data, config = Made(CASES[case]), load_config(**SMALL, logit_start=start, classifier="per_class")
    model = fit(config, data, data, tmp_path)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    found = score_masks(predict_batches(model, data, config), 3)
    labelled = any((mask != 255).any() for mask in CASES[case])
    assert 0 <= found["classifier_accuracy"] <= 1
    assert (found["miou"] == found["miou"]) == labelled  # NaN where nothing can be scored
    present = {int(v) for mask in CASES[case] for v in np.unique(mask)} - {255}
    assert all(found["iou"][c] in (None, 0.0) for c in set(range(3)) - present)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_weights_that_explode_name_the_batch(precision, tmp_path):
    data, config = Made(flat(0, 1, 2, 0, 1, 2, 0, 1)), load_config(**SMALL | dict(batch_size=2, lr=1e30))
    with pytest.raises(NonFiniteLossError, match=r"batch 1 \(image-\d, image-\d\).*Lower lr or gate_lr"):
        fit(config, data, data, tmp_path, precision=precision)


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("change", [dict(gate_lr=1e30), dict(lam=1e30), dict(diversity=1e30)])
def test_gates_and_penalties_stay_finite(change, precision, tmp_path, caplog):
    data, config = Made(flat(0, 1, 2, 0, 1, 2, 0, 1)), load_config(**SMALL | dict(epochs=6, batch_size=2) | change)
    model = fit(config, data, data, tmp_path, precision=precision)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert ("every head is closed" in caplog.text) == (sparsity(model) == 1)


def test_a_price_that_closes_every_head_is_said(tmp_path, caplog):
    data, config = Made(flat(0, 1, 2, 0)), load_config(**SMALL | dict(epochs=6, batch_size=2, lam=1.0, gate_lr=10.0))
    assert sparsity(fit(config, data, data, tmp_path)) == 1
    assert "every head is closed" in caplog.text


@pytest.mark.parametrize("precision", ["16-mixed", "bf16-mixed"])
def test_images_beyond_half_precision_are_trained(precision, tmp_path):
    data = Made(flat(0, 1, 2, 0), scale=1e5)  # float16 ends at 65,504
    model = fit(load_config(**SMALL), data, data, tmp_path, precision=precision)
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.parametrize("precision", ["32-true", "16-mixed", "bf16-mixed"])
def test_images_beyond_single_precision_are_named(precision, tmp_path):
    data = Made(flat(0, 1, 2, 0), scale=1e30)  # its square is beyond float32
    with pytest.raises(NonFiniteLossError, match="image-0"):
        fit(load_config(**SMALL), data, data, tmp_path, precision=precision)


@pytest.mark.parametrize("place", ["fit", "masks"])
def test_too_little_memory_names_batch_size_and_remedy(place, tmp_path, monkeypatch):
    data, config = Made(flat(0, 1, 2, 0)), load_config(**SMALL)

    def lack(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model = None if place == "fit" else fit(config, data, data, tmp_path)
    monkeypatch.setattr(torch.nn.Conv2d, "forward", lack)
    with pytest.raises(OutOfMemoryError) as error:
        if place == "fit":
            fit(config, data, data, tmp_path)
        else:
            next(predict_batches(model, data, config))
    for part in (
        "batch 0",
        "image-",
        "image 4x3x16x16",
        "too little memory",
        "lower batch_size or img_size",
        "2.00 GiB",
    ):
        assert part in str(error.value), part


class At(Callback):
    "Does something at the second step."

    def __init__(self, action):
        self.action = action

    def on_train_batch_start(self, trainer, module, batch, index):
        if trainer.global_step == 1:
            self.action()


def test_who_interrupts_gets_an_interrupt(tmp_path):
    "Lightning would end the program, and a notebook's kernel with it, without a word."
    data, config = Made(flat(0, 1, 2, 0)), load_config(**SMALL | dict(batch_size=2))
    stop = At(lambda: signal.raise_signal(signal.SIGINT))  # in this thread, at once
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # programs in the background ignore it
    with pytest.raises(KeyboardInterrupt, match="the same command goes on"):
        fit(config, data, data, tmp_path / "cut", callbacks=[stop])
    signal.signal(signal.SIGINT, before)
    straight, resumed = (fit(config, data, data, tmp_path / name) for name in ("straight", "cut"))
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), resumed.parameters(), strict=True))


def test_a_killed_worker_is_said(tmp_path):
    data, config = Made(flat(0, 1, 2, 0)), load_config(**SMALL | dict(batch_size=2))
    shoot = At(lambda: [child.kill() for child in psutil.Process().children()])
    with pytest.raises(ChildProcessError, match="batch .* that reads ahead was killed.* fewer num_workers"):
        fit(config, data, data, tmp_path, callbacks=[shoot], num_workers=1)


def test_the_papers_preset_says_its_weights(tmp_path, caplog):
    data = Made(flat(0, 1, 2))
    donor = timm.models.VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2, num_classes=0)
    save_file(donor.state_dict(), tmp_path / "donor.safetensors", dict(num_heads="2", img_size="16"))
    small = SMALL | dict(epochs=1, patch_size=8)
    with caplog.at_level("INFO"):
        fit(load_config("voc2012", "paper", **small), data, data, tmp_path / "random")
        assert "made: preset=paper begins with random weights" in caplog.text
        assert [r.levelname for r in caplog.records if "preset=paper" in r.getMessage()] == ["WARNING"]
        caplog.clear()
        file = str(tmp_path / "donor.safetensors")
        fit(load_config("voc2012", "paper", **small, pretrained=file), data, data, tmp_path / "begun")
        assert f"made: preset=paper begins with the weights of {file}" in caplog.text
        caplog.clear()
        fit(load_config("voc2012", "demo", **small), data, data, tmp_path / "demo")
        assert "begins with" not in caplog.text


def test_a_decay_of_zero_keeps_the_blocks(tmp_path):
    "The blocks stay where they began, class tokens and classifier learn."
    data = Made(flat(0, 1, 2))
    config = load_config(**SMALL | dict(depth=2), layer_decay=0.0)
    torch.manual_seed(0)
    start = build_model(config, 3).state_dict()
    end = fit(config, data, data, tmp_path).state_dict()
    moved = {name for name, value in end.items() if not torch.equal(value, start[name])}
    fixed = {name for name in end if name.startswith(("patch_embed", "pos_embed", "reg_token", "blocks"))}
    fixed -= {name for name in end if name.endswith("log_alpha")}
    assert moved.isdisjoint(fixed) and {"cls_token", "head.weight"} <= moved
