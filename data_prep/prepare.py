"""From an official archive to a folder that the reader reads: one flow for all data sets.

Each script beside this one declares a `DataSet` and calls `main`. The work in progress lies in `ROOT/.prepare/`:
`NAME.part` while it is fetched, `NAME` once it is checked, `NAME.unpacked/` until it is renamed to its place.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from download import check_url, fault, fetch
from unpack import size_unpacked, unpack
from verify import verify

from ctm.core import BadFileError, DatasetNotFoundError, absolute, data_root

try:
    import fcntl
except ImportError:  # Windows has no such lock
    fcntl = None

WORK = ".prepare"  # folder of the work in progress, in the data set's folder
SPARE = 1.05  # of the space: blocks that are not full, folders


@dataclass(frozen=True)
class Archive:
    "One official file, and where what it holds belongs."

    name: str  # of the file
    bytes: int  # of the file
    places: dict[str, str]  # in the archive, from the folder that has `holds` -> under the root; "." is that folder
    urls: tuple[str, ...] = ()  # official addresses; none: only by --archive
    checksum: str = ""  # "md5:..."; empty: none is published, the CRC of each member and the counts decide
    exact: bool = True  # False: `bytes` is what users report, for the estimate only
    holds: tuple[str, ...] = ()  # names by which the folder in the archive is known, whatever lies above it
    unpacked: int = 0  # bytes once unpacked, counted in the real thing or estimated upwards
    keep: str = ""  # regular expression of the members that are wanted; empty: all
    plain: bool = False  # a file to be copied as it is
    convert: Callable[[Path, Path], dict[str, str] | None] | None = None  # (that folder or file, root) -> other places
    file: Path | None = None  # given by hand

    def there(self, root: Path) -> bool:
        "Whether all of it is in its place."
        return bool(self.places) and all((root / target).exists() for target in self.places.values())


@dataclass(frozen=True)
class DataSet:
    "What a script declares."

    name: str  # of the module in `ctm.datasets`, and of the folder
    page: str  # where a person finds it
    terms: str  # of use, printed before anything is fetched
    archives: Callable[[argparse.Namespace], list[Archive]]
    counts: dict[str, int]  # pattern under the root -> official number of files
    options: dict[str, dict] = field(default_factory=dict)  # further options of the command
    skip: Callable[[argparse.Namespace], set[str]] = lambda args: set()  # patterns and splits that are not checked


def main(dataset: DataSet, arguments: list[str] | None = None) -> int:  # exit status
    "The command. An error is one line."
    parser = argparse.ArgumentParser(description=f"Prepare {dataset.name} ({dataset.page}).")
    place = f"{dataset.name}/ in CTM_DATA, or in data/"
    parser.add_argument("--root", type=Path, help=f"folder of the data set (default: {place})")
    parser.add_argument("--archive", type=Path, action="append", default=[], help="file fetched by hand; repeatable")
    parser.add_argument("--mirror", help="fetch URL/NAME instead of the official address; the checks stay")
    parser.add_argument("--keep-archives", action="store_true", help="do not delete fetched archives at the end")
    parser.add_argument("--check", action="store_true", help="only verify a folder that is there")
    parser.add_argument("--sample", type=int, nargs="?", const=64, metavar="N", help="write the synthetic set instead")
    for option, settings in dataset.options.items():
        parser.add_argument(option, **settings)
    args = parser.parse_args(arguments)
    try:
        root = absolute(args.root or data_root() / dataset.name)
        if args.sample is not None:
            root = write_sample(dataset, args)
        elif not args.check:
            prepare(dataset, root, args)
        problems = verify(dataset.name, root, dataset.counts, dataset.skip(args))
    except (ValueError, OSError) as error:
        problems = [str(error)]
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        return 130
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    if not problems and not args.check and args.sample is None and not args.keep_archives:
        shutil.rmtree(root / WORK, ignore_errors=True)
    return 1 if problems else 0


def write_sample(dataset: DataSet, args: argparse.Namespace) -> Path:  # the set's folder
    "Synthetic set in the layout of the real one."
    from ctm.synthetic.sets import MAKERS, make_synthetic

    if dataset.name not in MAKERS or args.sample < 1:
        raise BadFileError(f"--sample {args.sample}: pass 1 or more images, of one of {', '.join(MAKERS)}")
    return make_synthetic(dataset.name, args.root or data_root() / "synthetic", args.sample)


# Fetch, unpack, put in place


def prepare(dataset: DataSet, root: Path, args: argparse.Namespace) -> None:
    "Everything that is not in its place yet."
    if args.mirror:
        check_url(args.mirror)
    with locked(root):
        print(f"{dataset.name}: {dataset.page}\nTerms: {dataset.terms}", flush=True)
        for stale in (root / WORK).glob("*.unpacked"):
            shutil.rmtree(stale)
        wanted = []
        for archive in given(dataset.archives(args), args.archive):
            if archive.there(root):
                print(f"{archive.name}: already in its place{', the file given is not used' if archive.file else ''}")
            elif archive.file or archive.urls:
                wanted.append(archive)
            else:
                raise DatasetNotFoundError(
                    f"{archive.name} can only be fetched by a person: open {dataset.page}, log in, accept the terms, "
                    "download it, and pass --archive FILE"
                )
        check_space(root, wanted)
        for archive in wanted:
            urls = (f"{args.mirror.rstrip('/')}/{archive.name}",) if args.mirror else archive.urls
            size = archive.bytes if archive.exact else None
            file = archive.file or fetch(urls, root / WORK / archive.name, size, archive.checksum, 2 * archive.bytes)
            try:
                install(archive, file, root)
            except BadFileError as error:
                if archive.file or archive.checksum:
                    raise
                file.unlink()  # only now known to be bad
                raise BadFileError(f"{error} (it was deleted, the same command fetches it again)") from error
            print(f"{archive.name}: in its place", flush=True)


def given(archives: list[Archive], files: list[Path]) -> list[Archive]:
    "The archives, with the files that were fetched by hand; each must be what its name says."
    found = {}
    for file in files:
        if not file.is_file():
            raise DatasetNotFoundError(f"{file}: no such file, passed as --archive")
        plain = re.sub(r" ?\(\d+\)(?=\.)", "", file.name).lower()  # browsers save "name (1).zip"
        same = [archive for archive in archives if archive.file == file or archive.name.lower() == plain]
        if not same:
            raise BadFileError(f"{file}: rename it to what it is, one of {', '.join(a.name for a in archives)}")
        if wrong := fault(file, same[0].bytes if same[0].exact else None, same[0].checksum):
            raise BadFileError(f"{file}: {wrong}; fetch {same[0].name} again")
        found[same[0].name] = file
    return [replace(archive, file=found.get(archive.name, archive.file)) for archive in archives]


def check_space(root: Path, archives: list[Archive]) -> None:
    "Say how much is needed, and stop if there is less."
    fetched, unpacked = 0, 0
    for archive in archives:
        file, part = archive.file or root / WORK / archive.name, root / WORK / f"{archive.name}.part"
        if not file.exists():
            fetched += max(0, archive.bytes - (part.stat().st_size if part.exists() else 0))
        by_contents = size_unpacked(file) if archive.file and not archive.plain else None
        unpacked += by_contents or archive.unpacked or archive.bytes
    need, free = int(SPARE * (fetched + unpacked)), shutil.disk_usage(root).free
    amounts = f"{gigabytes(fetched)} to fetch, {gigabytes(unpacked)} unpacked, {gigabytes(free)} free"
    print(f"{amounts} in {root}", flush=True)
    if need > free:
        raise OSError(f"{root}: {gigabytes(need)} are needed and {gigabytes(free)} are free; pass another --root")


def gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"


def install(archive: Archive, file: Path, root: Path) -> None:
    "Unpack beside the target, then rename: a folder is whole or absent."
    if archive.plain:
        if archive.convert:
            archive.convert(file, root)
        for target in archive.places.values():
            (root / WORK).mkdir(exist_ok=True)
            (root / target).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, root / WORK / f"{archive.name}.copy").replace(root / target)
        return
    temporary = root / WORK / f"{archive.name}.unpacked"
    try:
        unpack(file, temporary, archive.keep)
        base = locate(temporary, archive.holds, file)
        try:
            places = archive.convert(base, root) if archive.convert else None
        except BadFileError as error:
            raise BadFileError(f"{file}: {error}") from error
        for source, target in (places or archive.places).items():
            if not (root / target).exists():
                (root / target).parent.mkdir(parents=True, exist_ok=True)
                (base / source).rename(root / target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def locate(folder: Path, holds: tuple[str, ...], archive: Path) -> Path:
    "The highest folder that has all these names; archives differ in what lies above."
    level = [folder]
    while level:
        for candidate in level:
            if all((candidate / name).exists() for name in holds):
                return candidate
        level = sorted(child for candidate in level for child in candidate.iterdir() if child.is_dir())
    raise BadFileError(f"{archive}: no folder in it holds {', '.join(holds)}; it is another archive than expected")


@contextmanager
def locked(root: Path):
    "One command at a time on one folder; the lock falls with its process."
    new, handle = not root.exists(), None
    root.mkdir(parents=True, exist_ok=True)
    try:
        if fcntl:
            handle = os.open(root, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OSError(f"{root}: another command is preparing this folder; wait for it to end") from error
            except OSError:  # some network disks have no locks
                pass
        yield
    finally:
        with suppress(OSError):  # not empty: something is worth keeping
            (root / WORK).rmdir()
        if new:
            with suppress(OSError):
                root.rmdir()
        if handle is not None:
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_UN)  # a child may hold a copy of it
            os.close(handle)
