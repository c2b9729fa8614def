"Hostile archives are refused before a byte is written."

import io
import os
import tarfile
import zipfile

import pytest
import unpack

from ctm.core import BadFileError
from tests.data_prep.official import tarred, zipped


def entry(name, kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zip_entry(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def both(files):
    return [("zip", zipped(files)), ("tar", tarred(files, "w:gz"))]


def bomb_header():
    "A tar whose first extended header claims to be a gigabyte."
    block = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    block[156:157], block[124:136], block[148:156] = b"x", b"%011o\0" % 10**9, b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def twice():
    "A zip with one name twice; zipfile warns where it is made."
    with pytest.warns(UserWarning, match="Duplicate name"):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for _ in range(2):
                archive.writestr("a/b", b"x")
    return out.getvalue()


HOSTILE = {
    "longer than a file's name": [*both({"a/" * 30_000 + "x": b"x"}), *both({"x" * 256: b"x"})],
    "is an absolute path": [*both({"/tmp/evil": b"x"}), ("zip", zipped({"C:\\evil": b"x"}))],
    "leads out of the folder": [*both({"a/../../evil": b"x"}), ("zip", zipped({"..\\evil": b"x"}))],
    "no plain file name": [*both({"a\\b": b"x"}), ("tar", tarred({"a\x1bb": b"x"}))],
    "a symbolic link": [
        ("zip", zipped({zip_entry("a", 0o120777): b"/etc/passwd"})),
        ("tar", tarred({entry("a", tarfile.SYMTYPE, "../../etc"): b""})),
    ],
    "a hard link to '../../evil'": [("tar", tarred({entry("a", tarfile.LNKTYPE, "../../evil"): b""}))],
    "a device": [
        ("tar", tarred({entry("a", tarfile.CHRTYPE): b""})),
        ("tar", tarred({entry("a", tarfile.FIFOTYPE): b""})),
        ("zip", zipped({zip_entry("a", 0o020666): b""})),
    ],
    "times its size": both({f"{i}": bytes(200_000) for i in range(8)}),
    "is there twice": [("zip", twice()), ("tar", tarred({entry("a/b"): b"x", entry("./a/b"): b"y"}))],
    "differ only by case": both({"a/Image.jpg": b"x", "a/image.jpg": b"y"}) + both({"A/x": b"x", "a/y": b"y"}),
    "a file and a folder": both({"a": b"x", "a/b": b"y"}),
    "more than 5 members": both({f"{i}": b"x" for i in range(6)}),
    "damaged or cut short|cut short or": [
        ("zip", zipped({"a": os.urandom(5000)})[:3000]),
        ("zip", zipped({"a": b"A" * 100}).replace(zipped({"a": b"A" * 100})[31:40], b"x" * 9)),
        ("tar", tarred({"a": os.urandom(5000)})[:3000]),
        ("tar", tarred({"a": os.urandom(5000)}, "w:gz")[:3000]),
        ("tar", tarred({"a": b"x" * 512})[:1024] + b"garbage" * 1000),
        ("tar", b"not an archive at all"),
        ("zip", b""),
    ],
    "it is a web page": [("zip", b"<html>please log in</html>")],
}


CASES = [
    pytest.param(message, name, data, id=f"{message}, {number}, {name}")  # not their bytes, which hold the time
    for message, cases in HOSTILE.items()
    for number, (name, data) in enumerate(cases)
]


@pytest.mark.parametrize("message, name, data", CASES)
def test_hostile_archive(message, name, data, tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "SMALL", 1_000_000)
    monkeypatch.setattr(unpack, "MEMBERS", 5 if "members" in message else 100)
    archive = tmp_path / "in" / f"bad.{name}"
    archive.parent.mkdir()
    archive.write_bytes(data)
    with pytest.raises(BadFileError, match=message) as caught:
        unpack.unpack(archive, tmp_path / "in" / "out")
    assert str(archive) in str(caught.value) and "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.rglob("*")] == ["in", archive.name], "something was left"


@pytest.mark.parametrize("size", ["-1024", "-2048"])
def test_size_below_nothing(size, tmp_path):
    "tarfile would go back and read the same member for ever, all the more where the member is not wanted."
    with tarfile.open(tmp_path / "a.tar", "w") as out:
        for name, headers in {"y": {}, "x": dict(size=size), "z": {}}.items():
            member = entry(name)
            member.pax_headers = headers
            out.addfile(member)
    with pytest.raises(BadFileError, match=f"a.tar: not unpacked, 'x' says that it has {size} bytes"):
        unpack.unpack(tmp_path / "a.tar", tmp_path / "out", keep="^y")


def test_huge_header_is_not_read_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(unpack, "SMALL", 10**12)
    (tmp_path / "bad.tar").write_bytes(bomb_header())
    with pytest.raises(BadFileError, match="bad.tar: not unpacked, it would unpack to more"):
        unpack.unpack(tmp_path / "bad.tar", tmp_path / "out")


def test_clutter_of_desktops_is_left_out(tmp_path):
    files = {"__MACOSX/a/._b.jpg": b"x", "a/.DS_Store": b"x", "a/b.jpg": b"x", "a/._b.jpg": b"x"}
    (tmp_path / "a.zip").write_bytes(zipped(files))
    unpack.unpack(tmp_path / "a.zip", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["b.jpg"]
