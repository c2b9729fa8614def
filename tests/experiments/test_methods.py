"Rivals take the configuration's stem, or say that they cannot; without one they are as they were."

import dataclasses

import pytest
import torch

import ctm
from ctm.core import repo_root
from ctm.experiments.methods import METHODS, Method, method_of
from ctm.experiments.results import load_results
from ctm.experiments.run import run_of
from ctm.experiments.variants import VARIANTS
from ctm.layers.stem import Stem
from ctm.predict.masker import read_view
from ctm.refine import walk_maps
from ctm.reports.compare import title_of
from ctm.synthetic.sets import make_synthetic
from ctm.train.config import load_config
from ctm.train.trainer import read_log

SMALL = dict(img_size=(64, 64), patch_size=16, embed_dim=16, depth=2, num_heads=2, epochs=1)
STEM = dict(stem="random:resnet10t", stem_layers="16,32")
CONFIG = load_config("kvasir_seg", **SMALL, **STEM)
RIVALS = [name for name in METHODS if name != "paper"]


def built(name, config=CONFIG):
    "Network of a method, in evaluation mode."
    torch.manual_seed(0)
    return METHODS[name].build(METHODS[name].settings(config), 2).eval()


@pytest.fixture
def looks(monkeypatch):
    "Numbers of images that stems look at, call by call."
    found = []
    usual = Stem.features
    monkeypatch.setattr(Stem, "features", lambda self, image: found.append(len(image)) or usual(self, image))
    return found


@pytest.mark.parametrize("name", METHODS)
@torch.no_grad()
def test_maps_are_carried_between_like_patches(name, looks):
    model, image, given = built(name), torch.randn(2, 3, 64, 64), torch.ones(2, 2)
    wide = dataclasses.replace(METHODS[name].settings(CONFIG), affinity="stem")
    plain = METHODS[name].maps(model, CONFIG, None)(model, image, given)
    looks.clear()
    found = METHODS[name].maps(model, wide, None)(model, image, given)
    assert looks == [2], "the stem looks once at each view"
    stem = model.patch_embed
    wanted = walk_maps(plain[1], stem.likeness(stem.features(image), plain[1].shape[2:]))
    torch.testing.assert_close(found[1], wanted)
    torch.testing.assert_close(found[0], plain[0])
    looks.clear()
    views = dataclasses.replace(wide, scales=(0.5, 1.0), flip=True)
    maps = METHODS[name].maps(model, views, None)(model, image, given)[1]
    assert looks == [2] * 4 and torch.isfinite(maps).all()


def test_like_patches_need_a_stem():
    config = dataclasses.replace(CONFIG, affinity="stem")
    model = built("vit_rollout", dataclasses.replace(CONFIG, stem=None))
    with pytest.raises(ValueError, match='affinity="stem" needs a network on a stem'):
        read_view(model, model, config, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize("name", RIVALS)
def test_stored_results_are_found_as_before(name):
    results = load_results(repo_root() / "figures" / "results", name)
    assert results or name == "mctformer_no_affinity" or name.startswith("vit")
    for result in results:
        assert METHODS[name].settings(result.settings()) == result.settings()


@pytest.mark.parametrize("name", RIVALS)
def test_runs_with_and_without_a_stem_are_told_apart(name):
    seen = set()
    plain = dataclasses.replace(CONFIG, stem=None)
    others = [dict(stem_layers="32"), dict(stem="random:resnet18"), dict(stem_frozen=False)]
    for config in (CONFIG, plain, *(dataclasses.replace(CONFIG, **other) for other in others)):
        one = run_of(config, method=name)
        seen |= {one.result_path, one.home}
        assert ("-net-stem_" in one.home.name) == bool(config.stem)
    assert len(seen) == 2 * 5
    twin = dataclasses.replace(plain, stem_layers="8,32")
    assert run_of(twin, method=name).result_path == run_of(plain, method=name).result_path, "of no stem, no layers"


def test_titles_say_whose_maps_they_are():
    plain = dataclasses.replace(CONFIG, stem=None)
    assert title_of("cam", CONFIG) == "CAM of the stem (Zhou et al. 2016)"
    assert title_of("cam", plain) == "CAM of ResNet-18 (Zhou et al. 2016)"
    assert title_of("full", CONFIG) == title_of("full", plain)


@pytest.mark.parametrize("name", ["cam", "vit_relevance", "mctformer"])
def test_a_run_is_trained_on_kept_features(name, tmp_path, monkeypatch):
    data = make_synthetic("kvasir_seg", tmp_path / "data", n=8)
    for place in ("CACHE", "RUNS"):
        monkeypatch.setenv(f"CTM_{place}", str(tmp_path / place))
    result = ctm.run(CONFIG, root=data, method=name)
    assert len(list(tmp_path.glob("CACHE/*-features-*"))) == 2
    one = run_of(CONFIG, root=data, method=name)
    log = read_log(one.home)
    assert {"loss", "val_bce", "val_accuracy"} <= {*log.columns} and log["loss"].notna().any()
    assert result.config["stem"] == CONFIG.stem and result.path() == one.result_path


def test_a_network_without_a_stem_is_refused(tmp_path, monkeypatch):
    data = make_synthetic("kvasir_seg", tmp_path / "data", n=8)
    monkeypatch.setenv("CTM_RUNS", str(tmp_path / "runs"))
    own = Method("own", "own", "own", build=lambda config, num_classes: torch.nn.Linear(2, num_classes))
    with pytest.raises(ValueError, match="this network has no stem; give it a `Stem`, or pass stem=None"):
        ctm.run(CONFIG, root=data, method=own)


def test_two_views_of_a_frozen_stem_are_refused():
    with pytest.raises(ValueError, match="pass stem_frozen=False beside stem='random:resnet10t'"):
        run_of(CONFIG, method=VARIANTS["equivariant"])
    run_of(dataclasses.replace(CONFIG, stem_frozen=False), method=VARIANTS["equivariant"])


def test_names_of_networks():
    assert [method_of("cam").network_for(c) for c in (CONFIG, dataclasses.replace(CONFIG, stem=None))] == [
        "stem_cam", "resnet18",
    ]  # fmt: skip
    assert METHODS["paper"].network_for(CONFIG) == "paper"
