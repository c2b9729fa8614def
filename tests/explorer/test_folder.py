"The explorer of a folder of results."

import numpy as np
import pytest

import ctm
from tests.tools import TINY_PLAN, write_labelled


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = tmp_path_factory.mktemp("explored")
    noise = (np.random.default_rng(i).integers(0, 255, (24, 40, 3), np.uint8) for i in range(6))
    where = write_labelled(place, ((f"p{i}.png", pixels, "ab"[i % 2]) for i, pixels in enumerate(noise)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CTM_RUNS", str(place / "runs"))
        plan = ctm.plan_folder(*where, **TINY_PLAN)
        ctm.mask_folder(plan, ctm.train_folder(plan)[0])
        yield place / "out"


def test_the_worst_come_first_with_their_labels(home):
    from ctm.io.record import read_masked

    panel = ctm.explore(home)
    masked = read_masked(home)
    assert panel.explorer.data.names == masked.worst_first()
    label = panel.explorer.look().label.tolist()
    assert [n for n, y in zip("ab", label, strict=True) if y] == masked.facts[masked.worst_first()[0]]["label"]
    assert panel.explorer.labels == "given"


def test_the_button_exports_or_says_why_not(home):
    panel = ctm.explore(home)
    kind, button, said = panel.exports[0].children
    kind.value = "coco"
    button.click()
    assert (home / "exports" / "coco.json").is_file() and "coco.json" in said.value
    (home / "masks" / "p0.png").rename(home / "masks" / "away.png")
    button.click()
    (home / "masks" / "away.png").rename(home / "masks" / "p0.png")
    assert "there is no such file" in said.value


def test_a_model_needs_images(home):
    with pytest.raises(ValueError, match="images is None: give images with a model"):
        ctm.explore(ctm.load_masker(home))
    assert not ctm.explore(home, home.parent / "images").exports
