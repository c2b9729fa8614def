"A server that misbehaves, and a small Kvasir-SEG on it."

import download
import pytest

from tests.data_prep.official import SCRIPT, Server, kvasir, small


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSE", 0.001)
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


@pytest.fixture(scope="module")
def polyp_files(tmp_path_factory):
    return kvasir(tmp_path_factory.mktemp("synthetic"))


@pytest.fixture
def polyps(server, polyp_files, monkeypatch):
    "Small Kvasir-SEG, its server, and the real reader with the small counts."
    from ctm.datasets import kvasir_seg

    monkeypatch.setattr(kvasir_seg, "READER", kvasir_seg.KvasirSeg, raising=False)
    monkeypatch.setattr(kvasir_seg, "OFFICIAL", {"train": 4, "val": 1}, raising=False)
    server.files = dict(polyp_files)
    return small(SCRIPT["kvasir_seg"].DATASET, polyp_files, {"images/*.jpg": 5, "masks/*.jpg": 5})
