"The cache: arrays on disk alone, and pickles in it are thrown away."

import re
import resource
from pathlib import Path

import pytest

from ctm.data import cache
from ctm.data.cache import cached
from ctm.datasets import kvasir_seg
from ctm.io.images import image_size
from ctm.synthetic.sets import make_synthetic
from ctm.train.config import load_config
from ctm.train.data import load_dataset
from tests.io.pickles import Payload, object_array


def test_cache_memory_does_not_grow_with_samples(tmp_path, monkeypatch):
    monkeypatch.setenv("CTM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CTM_DATA", str(tmp_path))
    root = make_synthetic("dfc2020", tmp_path, n=64)
    before = set(tmp_path.rglob("*"))
    dataset = load_dataset(load_config("dfc2020"), "train", root)
    new = set(tmp_path.rglob("*")) - before
    assert new and all(path.is_relative_to(tmp_path / "cache") for path in new), "nothing is written beside the data"
    assert not any(array.flags.owndata for array in (dataset.images, dataset.masks)), "arrays are on disk"
    assert image_size(dataset.files(0)[0]) == (64, 64)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for index in range(len(dataset)):
        dataset[index]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kilobytes


def test_a_pickle_in_the_cache_is_thrown_away(tmp_path):
    data = kvasir_seg.load(make_synthetic("kvasir_seg", tmp_path, 4), "val", (32, 32), 16, 0.1)
    (place,) = {cached(data, tmp_path / "cache").place}
    for part in ("images", "kept", "sums"):
        mark = tmp_path / "it ran"
        size = (place / f"{part}.npy").stat().st_size
        object_array(tmp_path / "evil.npy", Payload(mark, "open"))
        (place / f"{part}.npy").write_bytes((tmp_path / "evil.npy").read_bytes()[:size].ljust(size, b"\0"))
        again = cached(data, tmp_path / "cache")
        assert len(again) == len(data) and not mark.exists()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="only Linux says which pages are in memory")
def test_pages_of_large_arrays_are_given_back(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "_LARGE", 1 << 20)
    data = kvasir_seg.load(make_synthetic("kvasir_seg", tmp_path, 8), "train", (512, 512), 512, 0.1)
    data = cache.cached(data, tmp_path / "cache")
    for index in range(len(data)):
        data.read(index)
    mapped = re.escape(str(data.place / "images.npy"))
    resident = re.search(rf"{mapped}\n(?:.*\n)*?Rss: *(\d+) kB", Path("/proc/self/smaps").read_text())
    assert int(resident[1]) * 1024 < data.images.nbytes / 4
