"Files over HTTPS: resumed where they broke, asked for again, and kept under their name only once they are checked."

import errno
import hashlib
import json
import math
import re
import ssl
import time
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    HTTPDefaultErrorHandler,
    HTTPErrorProcessor,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    OpenerDirector,
    ProxyHandler,
    Request,
)

from tqdm import tqdm

from ctm.core import BadFileError
from ctm.io.safe import printable

CHUNK = 1 << 18  # bytes read at a time
TRIES = 6  # in a row without a new byte
PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds before the second try, doubled each time, and the limit
TIMEOUT = 60  # seconds without an answer
SLOWEST, PATIENCE = 1000, 300  # bytes per second, on average over so many seconds
HERE = ("127.0.0.1", "::1", "localhost")
LOCAL_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EFBIG}


class Refused(Exception):
    "This address will not give the file, however often it is asked."


def fetch(
    urls: tuple[str, ...],  # official addresses of one file, tried in turn
    target: Path,  # where it shall lie; `NAME.part` beside it until it is complete and checked
    size: int | None = None,  # bytes, where known exactly
    checksum: str = "",  # "md5:...", "sha1:..." or "sha256:..."; empty: none is published
    most: int | None = None,  # bytes at which it cannot be the file any more
) -> Path:  # the target
    "A complete, checked file. A network that breaks raises `ConnectionError` and keeps what came."
    reasons = []
    for url in urls if not target.exists() else ():
        try:
            return _download(url, target, size, checksum, most)
        except Refused as error:
            reasons.append(f"{url}: {error}")
    if reasons:
        remedy = "Try later, or fetch it by hand and pass --archive FILE"
        raise BadFileError(f"{target.name}: cannot be fetched ({'; '.join(reasons)}). {remedy}")
    return target


def check_url(url: str) -> None:
    "Refuse an address that is not https; a server on this machine may speak http."
    try:
        good = (urlsplit(url).scheme == "https" and urlsplit(url).hostname) or _here(url)
    except ValueError:  # no address at all
        good = False
    if not good:
        raise BadFileError(f"{url}: not an address that starts with https://")


def _here(url: str) -> bool:
    "Whether an address is that of a server on this machine."
    return urlsplit(url).scheme == "http" and urlsplit(url).hostname in HERE


def fault(
    path: Path,  # a file that is there
    size: int | None = None,  # bytes it must have
    checksum: str = "",  # it must have
) -> str:  # what is wrong with it, empty if nothing
    "Compare a file with what is known of it."
    with open(path, "rb") as f:
        head = f.read(256).lstrip().lower()
    if head.startswith((b"<!doctype", b"<html")):
        return "it is a web page, not the file itself: a login, terms or error page was saved under this name"
    if size is not None and path.stat().st_size != size:
        return f"it has {path.stat().st_size:,} bytes where the official file has {size:,}"
    if checksum:
        algorithm, _, expected = checksum.partition(":")
        found = _digest(path, algorithm)
        if found != expected:
            return f"its {algorithm} is {found} where the official file has {expected}"
    return ""


def _digest(path: Path, algorithm: str) -> str:
    digest, total = hashlib.new(algorithm, usedforsecurity=False), path.stat().st_size
    with open(path, "rb") as f, _bar(f"{path.name}: {algorithm}", total) as bar:
        while block := f.read(1 << 20):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _bar(name: str, total: int | None, initial: int = 0) -> tqdm:
    "Bytes over time, shown on a terminal only."
    return tqdm(desc=name, total=total, initial=initial, unit="B", unit_scale=True, disable=None, leave=False)


# One address


def _download(url: str, target: Path, size: int | None, checksum: str, most: int | None) -> Path:
    "Ask until the file is whole; back off as long as nothing new arrives."
    check_url(url)
    part = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    best, failures, resumed, again = 0, 0, False, True
    while True:
        try:
            resumed |= _continue(url, part, size, checksum, most)
        except ValueError as error:  # an address or an answer that makes no sense
            raise Refused(printable(f"{type(error).__name__}: {error}", 200)) from error
        except (OSError, HTTPException) as error:
            if isinstance(error, OSError) and error.errno in LOCAL_FAULTS:
                raise
            kept = part.stat().st_size if part.exists() else 0
            failures = 1 if kept > best else failures + 1
            best = max(best, kept)
            if failures >= TRIES:
                message = f"failed {failures} times in a row ({error})"
                if not kept:
                    raise Refused(message) from error
                kept = f"{kept:,} bytes are kept, the same command continues"
                raise ConnectionError(f"{target.name}: {url} {message}; {kept}") from error
            time.sleep(min(PAUSE * 2 ** (failures - 1), LONGEST_PAUSE))
            continue
        wrong = fault(part, size, checksum)
        if not wrong:
            part.replace(target)
            _notes(part).unlink(missing_ok=True)
            return target
        _discard(part)
        if not (resumed and again):
            raise Refused(wrong)
        best, resumed, again = 0, False, False  # two halves that do not belong together: once more


def _continue(
    url: str, part: Path, size: int | None, checksum: str, most: int | None
) -> bool:  # whether it went on where it broke
    "Append what is missing to the part, or begin it anew where the server does not go on with the same file."
    have, notes = _resumable(url, part, checksum)
    if have and have == notes["total"]:
        return True
    headers = {"User-Agent": "ctm-data-prep", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if notes["validator"]:
            headers["If-Range"] = notes["validator"]
    with _open(Request(url, headers=headers), part) as response:
        if response.headers.get_content_type() == "text/html":
            raise Refused("a web page came instead of the file, for instance a login or an error page")
        goes_on = response.status == 206
        if goes_on:
            start, total = _content_range(response.headers.get("Content-Range", ""))
            if (start, total) != (have, notes["total"]):
                _discard(part)
                raise ConnectionError(f"the server sent bytes {start} of {total} where {have} were asked for")
        else:
            have, total = 0, _integer(response.headers.get("Content-Length"))
        most = size or most or math.inf
        if size is not None and total not in (None, size):
            _discard(part)
            raise Refused(f"the server offers {total:,} bytes where the official file has {size:,}")
        if not goes_on:
            _discard(part)
            part.touch()
            _notes(part).write_text(json.dumps(dict(url=url, total=total, validator=_validator(response.headers))))
        with open(part, "ab") as f, _bar(part.stem, total, have) as bar:
            since, before = time.monotonic(), f.tell()
            while block := response.read1(CHUNK):  # what has come: a server that drips does not hold us
                f.write(block)
                bar.update(len(block))
                if f.tell() > most:
                    break
                if time.monotonic() - since > PATIENCE:
                    if f.tell() - before < SLOWEST * PATIENCE:
                        raise Refused(f"the server sends less than {SLOWEST} bytes per second")
                    since, before = time.monotonic(), f.tell()
    if part.stat().st_size > most:
        _discard(part)
        raise Refused(f"the server sends more than {most:,} bytes, it is not the official file")
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"broke off after {part.stat().st_size:,} of {total:,} bytes")
    return goes_on


def _open(request: Request, part: Path):
    "The answer to a request; an error that waiting cannot mend is `Refused`."
    try:
        return _opener().open(request, timeout=TIMEOUT)
    except HTTPError as error:
        if error.code == 416:  # the part is no longer a beginning of the file
            _discard(part)
            raise ConnectionError("the server's file has changed") from error
        if error.code in (408, 425, 429) or error.code >= 500:
            time.sleep(min(_integer(error.headers.get("Retry-After")) or 0, LONGEST_PAUSE))
            raise ConnectionError(f"HTTP {error.code} {error.reason}") from error
        raise Refused(f"HTTP {error.code} {error.reason}") from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise Refused(f"its certificate cannot be verified ({error.reason.verify_message})") from error
        raise


class _Redirects(HTTPRedirectHandler):
    "Redirections lead to https, or stay on this machine."

    def redirect_request(self, request, fp, code, message, headers, url):
        if urlsplit(url).scheme != "https" and (urlsplit(request.full_url).scheme == "https" or not _here(url)):
            raise Refused(f"redirected to {url}, which is not https")
        return super().redirect_request(request, fp, code, message, headers, url)


def _opener() -> OpenerDirector:
    "An opener that knows http and https only: no file://, no ftp://."
    opener = OpenerDirector()
    for handler in (ProxyHandler, HTTPHandler, HTTPSHandler, _Redirects, HTTPDefaultErrorHandler, HTTPErrorProcessor):
        opener.add_handler(handler())
    return opener


# What is known of a part


def _notes(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _discard(part: Path) -> None:
    _notes(part).unlink(missing_ok=True)
    part.unlink(missing_ok=True)


def _resumable(url: str, part: Path, checksum: str) -> tuple[int, dict]:  # bytes to go on from, 0 = begin; notes
    "A part can go on if it came from this address and a validator or a checksum can tell a changed file."
    try:
        notes = json.loads(_notes(part).read_text())
        have = part.stat().st_size
        good = notes["url"] == url and notes["total"] and have <= notes["total"] and (notes["validator"] or checksum)
        good = good and f"{notes['validator']}".isprintable()
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        good = False
    return (have, notes) if good else (0, {})


def _validator(headers) -> str:
    "What `If-Range` takes: a strong ETag, else the date."
    etag = headers.get("ETag", "")
    return etag if etag.startswith('"') else headers.get("Last-Modified", "")


def _content_range(header: str) -> tuple[int, int] | tuple[None, None]:
    found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", header.strip())
    return (int(found[1]), int(found[2])) if found else (None, None)


def _integer(header: str | None) -> int | None:
    return int(header) if header and header.isdecimal() else None
