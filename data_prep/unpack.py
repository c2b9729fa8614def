"Zip and tar archives: checked member by member, unpacked into one folder or not at all."

import gzip
import lzma
import re
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from tqdm import tqdm

from ctm.core import BadFileError
from ctm.io.safe import printable, reading, too_long

MEMBERS = 2_000_000  # most files and folders in one archive
RATIO = 200  # most bytes unpacked per byte packed: label rasters reach 10 to 20, a bomb 1,000 and more
SMALL = 100_000_000  # bytes that are always allowed, whatever the ratio
BLOCK = 1 << 20  # bytes copied at a time
CLUTTER = re.compile(r"(^|/)(__MACOSX|\.DS_Store|Thumbs\.db|\._[^/]*)(/|$)")  # written by desktops, no data
DAMAGE = (  # what the libraries raise on a file that is cut short or garbled
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    OverflowError,
    RuntimeError,
    UnicodeDecodeError,
)

DAMAGED = "damaged or cut short", "delete it and fetch it again"


@dataclass(frozen=True)
class Member:
    "One entry of an archive."

    name: str
    size: int  # bytes, unpacked
    kind: str  # "file", "folder", or what it is that cannot be accepted
    entry: object  # for the archive's own library


def unpack(
    archive: Path,  # zip, tar or compressed tar
    folder: Path,  # made anew; gone again if anything is wrong
    keep: str = "",  # regular expression that a member's path must contain; empty: everything
) -> None:
    "Unpack an archive, or raise a `BadFileError` that names it and leave nothing."
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    bar = tqdm(desc=archive.name, unit=" files", disable=None, leave=False)
    try:
        with reading(archive, *DAMAGED), _opened(archive) as source, bar:
            for member, path in _checked(archive, source):
                if CLUTTER.search(str(path)) or not re.search(keep, str(path)):
                    continue
                if member.kind == "folder":
                    (folder / path).mkdir(parents=True, exist_ok=True)
                    continue
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with source.open(member) as packed, open(folder / path, "xb") as out:
                    shutil.copyfileobj(packed, out, BLOCK)
                if (folder / path).stat().st_size != member.size:
                    raise EOFError(f"{member.name!r} ends early")
                bar.update()
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def size_unpacked(archive: Path) -> int | None:  # bytes, None for a tar, which has no table of contents
    "Room that a zip needs by its own table of contents, which is checked on the way."
    if not zipfile.is_zipfile(archive):
        return None
    with reading(archive, *DAMAGED), _opened(archive) as source:
        return sum(member.size for member, _ in _checked(archive, source))


def names(archive: Path) -> list[str]:  # of its files; empty for a tar
    "Table of contents of a zip."
    if not zipfile.is_zipfile(archive):
        return []
    with reading(archive, *DAMAGED), _opened(archive) as source:
        return [str(path) for member, path in _checked(archive, source) if member.kind == "file"]


# What is refused


def _checked(archive: Path, source: "_Zip | _Tar") -> Iterator[tuple[Member, PurePosixPath]]:
    "Members with their path inside the folder; whatever could harm is an error."
    seen: dict[str, tuple[str, str]] = {}
    total, limit = 0, max(SMALL, RATIO * archive.stat().st_size)
    for count, member in enumerate(source.members(), 1):
        total += member.size
        if member.size < 0:
            wrong = f"{printable(member.name)!r} says that it has {member.size} bytes"
        elif count > MEMBERS:
            wrong = f"there are more than {MEMBERS:,} members"
        elif total > limit:
            wrong = f"it would unpack to more than {limit:,} bytes, {RATIO} times its size"
        elif member.kind not in ("file", "folder"):
            wrong = f"{member.name!r} is {member.kind}"
        else:
            wrong = _bad_name(member.name) or _clash(seen, PurePosixPath(member.name), member.kind)
        if wrong:
            raise BadFileError(
                f"{archive}: not unpacked, {wrong}; delete it and fetch it again from the official place"
            )
        yield member, PurePosixPath(member.name)


def _bad_name(name: str) -> str:
    "Why a name could leave the folder, empty if it cannot."
    if too_long(name):
        return f"{printable(name)!r} is longer than a file's name can be"
    windows = PureWindowsPath(name)
    if name.startswith("/") or windows.drive or windows.root:
        return f"{name!r} is an absolute path"
    if ".." in name.replace("\\", "/").split("/"):
        return f"{name!r} leads out of the folder"
    if "\\" in name or not name.isprintable() or not name:
        return f"{name!r} is no plain file name"
    return ""


def _clash(seen: dict, path: PurePosixPath, kind: str) -> str:
    "Why a name cannot stand beside the earlier ones, on any file system; remembers it."
    for part, is_a in [*((parent, "folder") for parent in reversed(path.parents)), (path, kind)]:
        spelling, was = seen.setdefault(unicodedata.normalize("NFC", str(part)).casefold(), (str(part), ""))
        if spelling != str(part):
            return f"{str(part)!r} and {spelling!r} differ only by case or accents"
        if was == is_a == "file":
            return f"{str(part)!r} is there twice"
        if was not in ("", is_a):
            return f"{str(part)!r} is a file and a folder"
        seen[unicodedata.normalize("NFC", str(part)).casefold()] = (str(part), is_a)
    return ""


# The two kinds of archives


def _opened(archive: Path) -> "_Zip | _Tar":
    "An archive by its content, whatever its name says."
    with open(archive, "rb") as f:
        head = f.read(512)
    if head.lstrip().lower().startswith((b"<!doctype", b"<html")):
        raise BadFileError(
            f"{archive}: it is a web page, not an archive: a login, terms or error page was saved under this name; "
            "log in, accept the terms, and fetch it again"
        )
    try:
        if head.startswith(b"PK"):
            return _Zip(archive)
        return _Tar(archive, gzipped=head.startswith(b"\x1f\x8b"))
    except DAMAGE as error:
        raise BadFileError(
            f"{archive}: no complete zip or tar archive ({error}); it was cut short or is something else, "
            "delete it and fetch it again"
        ) from error


class _Zip:
    def __init__(self, archive: Path):
        self.file = zipfile.ZipFile(archive)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def members(self) -> Iterator[Member]:
        for entry in self.file.infolist():
            mode = stat.S_IFMT(entry.external_attr >> 16)
            kind = "folder" if entry.is_dir() else "file"
            if mode == stat.S_IFLNK:
                kind = "a symbolic link"
            elif mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                kind = "a device or another special file"
            elif entry.flag_bits & 1:
                kind = "encrypted"
            yield Member(entry.orig_filename, entry.file_size, kind, entry)

    def open(self, member: Member) -> BinaryIO:
        return self.file.open(member.entry)  # checks the CRC at its end


class _Tar:
    def __init__(self, archive: Path, gzipped: bool):
        self.raw = gzip.open(archive) if gzipped else open(archive, "rb")
        try:
            self.bounded = _Bounded(self.raw, archive)
            self.file = tarfile.open(fileobj=self.bounded, mode="r:")
        except BaseException:
            self.raw.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.raw.close()

    def members(self) -> Iterator[Member]:
        for entry in self.file:
            kind = "folder" if entry.isdir() else "file" if entry.isreg() else "a device or another special file"
            if entry.issym() or entry.islnk():
                kind = f"a {'symbolic' if entry.issym() else 'hard'} link to {entry.linkname!r}"
            yield Member(entry.name, entry.size if entry.isreg() else 0, kind, entry)
        if self.bounded.last.strip(b"\0") or len(self.bounded.last) < tarfile.BLOCKSIZE:
            raise EOFError("it lacks the mark of its end")  # tarfile takes garbage after a member for the end

    def open(self, member: Member) -> BinaryIO:
        return self.file.extractfile(member.entry)


class _Bounded:
    "A stream that gives up where a compressed tar unpacks to more than it may, in its headers too."

    def __init__(self, stream: BinaryIO, archive: Path):
        self.stream, self.archive, self.limit = stream, archive, max(SMALL, RATIO * archive.stat().st_size)
        self.last = b""  # what was read last

    def read(self, count: int) -> bytes:
        if count > 16 * BLOCK or self.tell() + count > 2 * self.limit:
            raise BadFileError(f"{self.archive}: not unpacked, it would unpack to more than {self.limit:,} bytes")
        self.last = self.stream.read(count)
        return self.last

    def seek(self, position: int, whence: int = 0) -> int:
        if position > 2 * self.limit:
            raise BadFileError(f"{self.archive}: not unpacked, it would unpack to more than {self.limit:,} bytes")
        return self.stream.seek(position, whence)

    def tell(self) -> int:
        return self.stream.tell()
