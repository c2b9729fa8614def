"Downloads come whole or not at all: from a network that breaks, lies, drips or leads elsewhere."

import hashlib
import os
import shutil
import socket
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import download
import pytest

from ctm.core import BadFileError
from tests.tools import ROOT


@pytest.mark.parametrize(
    "plan, first_range",
    [
        ([], None),
        (["error:500", "error:503", "error:429"], None),
        (["break:3000", "break:2000"], "bytes=3000-"),
        (["break:3000", "whole-only"], "bytes=3000-"),  # ignores the range: begun anew, nothing appended
        (["break:3000", "change", "change"], "bytes=3000-"),  # another file: If-Range brings it whole, it is wrong
        (["break:3000", "error:416"], "bytes=3000-"),
        (["break:3000", "shift", "break:3000", "shift"], "bytes=3000-"),
    ],
)
def test_download_comes_whole(plan, first_range, server, tmp_path):
    data = os.urandom(20_000)
    server.files, server.plan = {"a.zip": data}, list(plan)
    checksum = f"md5:{hashlib.md5(data).hexdigest()}"
    if "change" in plan:
        with pytest.raises(BadFileError, match="a.zip: cannot be fetched .* md5"):
            download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip", len(data), checksum)
        assert not list(tmp_path.iterdir())
        server.plan = ["change"]
    assert download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip", len(data), checksum).read_bytes() == data
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
    if first_range:
        assert first_range in server.ranges


def test_halves_of_two_files_are_not_kept(server, tmp_path):
    data = os.urandom(20_000)
    server.files, server.plan = {"a.zip": data}, ["break:3000", "mix", "change"]  # a server that ignores If-Range
    checksum = f"sha256:{hashlib.sha256(data).hexdigest()}"
    assert download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip", None, checksum).read_bytes() == data
    assert server.ranges == [None, "bytes=3000-", None]

    server.plan = ["break:3000", "whole"] * 10  # halves that fit, of a wrong file: twice, not for ever
    with pytest.raises(BadFileError, match="its md5 is"):
        download.fetch((f"{server.url}/a.zip",), tmp_path / "b.zip", None, "md5:0")
    assert len(server.plan) == 16


@pytest.mark.parametrize(
    "plan, message",
    [
        (["error:404"], "HTTP 404"),
        (["page"], "a web page came instead"),
        (["redirect:file:///etc/passwd"], "'file:///etc/passwd' is not allowed"),
        (["error:500"] * 20, "failed 6 times in a row"),
    ],
)
def test_download_gives_up_with_a_remedy(plan, message, server, tmp_path):
    server.files, server.plan = {"a.zip": b"x" * 5000}, plan
    with pytest.raises(BadFileError, match=f"a.zip: cannot be fetched .*{message}.* pass --archive FILE"):
        download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip")
    assert not list(tmp_path.iterdir())


NONSENSE = {
    "Content-Length of 5,000 digits": b"200 OK\r\nContent-Length: " + b"9" * 5000,
    "Retry-After of 5,000 digits": b"503 No\r\nRetry-After: " + b"9" * 5000,
    "Content-Range of 5,000 digits": b"206 Part\r\nContent-Range: bytes " + b"9" * 5000 + b"-9/9",
    "a redirection to no address": b"302 Found\r\nLocation: http://[bad",
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE)
def test_answers_that_make_no_sense(answer, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            client, _ = listener.accept()
            client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 " + answer + b"\r\n\r\nhello")
            client.close()

        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/a.zip"
        with pytest.raises(BadFileError, match="a.zip: cannot be fetched .*Error: .*Try later, or fetch it by hand"):
            download.fetch((url,), tmp_path / "a.zip")


@pytest.mark.parametrize("target", ["http://host/b.zip", "ftp://127.0.0.1/b.zip"])
def test_redirection_never_leaves_https(target):
    request = urllib.request.Request("https://host/a.zip")
    with pytest.raises(download.Refused, match=f"redirected to {target}, which is not https"):
        download._Redirects().redirect_request(request, None, 302, "", {}, target)
    assert download._Redirects().redirect_request(request, None, 302, "", {}, "https://other/b.zip")


def test_next_address_is_tried(server, tmp_path):
    server.files = {"a.zip": b"x" * 5000}
    urls = (f"{server.url}/b.zip", f"{server.url}/a.zip")
    assert download.fetch(urls, tmp_path / "a.zip", 5000).stat().st_size == 5000
    with pytest.raises(BadFileError, match="5,000 bytes where the official file has 4,999"):
        download.fetch(urls, tmp_path / "c.zip", 4999)
    server.files["a.zip"], server.plan = b"x" * 800_000, ["whole", "endless"]  # no length is announced
    with pytest.raises(BadFileError, match="more than 5,000 bytes"):
        download.fetch(urls, tmp_path / "c.zip", most=5000)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_dead_network_keeps_what_came(server, tmp_path):
    server.files, server.plan = {"a.zip": b"x" * 5000}, ["break:3000"] + ["error:500"] * 20
    with pytest.raises(ConnectionError, match="3,000 bytes are kept, the same command continues"):
        download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip")
    server.plan = []
    shutil.copytree(tmp_path, tmp_path / "copy")
    assert download.fetch((f"{server.url}/a.zip",), tmp_path / "a.zip").read_bytes() == b"x" * 5000
    assert server.ranges[-1] == "bytes=3000-"
    other = (f"{server.url}/another/a.zip",)  # another address may have another file: begun anew
    assert download.fetch(other, tmp_path / "copy" / "a.zip").read_bytes() == b"x" * 5000
    assert server.ranges[-1] is None


@pytest.mark.parametrize(
    "url", ["http://example.org/a.zip", "file:///etc/passwd", "ftp://x/a", "https://", "http://[::1", "//x/a", "http://127.0.0.1.evil.org/a"]
)  # fmt: skip
def test_only_https(url, tmp_path):
    import download

    with pytest.raises(BadFileError, match="not an address that starts with https://"):
        download.fetch((url,), tmp_path / "a.zip")


def test_official_addresses_are_https():
    for file in sorted((ROOT / "data_prep").glob("*.py")):
        found = [word for word in file.read_text().replace('"', " ").split() if word.startswith("http://")]
        assert all("/pascal/VOC/voc2012/" in word and "." not in word.split("/")[-1] for word in found), found  # a page


def test_a_dripping_server_is_left(tmp_path, monkeypatch):
    import download

    monkeypatch.setattr(download, "PATIENCE", 0.3)

    class Drip(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            try:
                for _ in range(200):
                    self.wfile.write(b"x")
                    time.sleep(0.05)
            except OSError:
                pass

        def log_message(self, *_):
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Drip)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    with pytest.raises(BadFileError, match="less than 1000 bytes per second"):
        download.fetch((f"http://127.0.0.1:{http.server_port}/a.zip",), tmp_path / "a.zip")
    http.shutdown()


def test_a_silent_server_is_left(tmp_path, monkeypatch):
    import download

    monkeypatch.setattr(download, "TIMEOUT", 0.1)
    monkeypatch.setattr(download, "PAUSE", 0.001)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/a.zip"
        with pytest.raises(BadFileError, match="failed 6 times in a row"):
            download.fetch((url,), tmp_path / "a.zip")
