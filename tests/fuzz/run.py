"A hundred thousand mutants of whole files, and where each one ended: `python -m tests.fuzz.run`."

import argparse
import collections
import json
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from pathlib import Path

import numpy as np

from ctm.core import BadFileError, DatasetNotFoundError, atomic_path, repo_root, versions
from ctm.io.safe import printable, read_json
from ctm.reports.reliability import ENDS, GOOD
from tests import apart
from tests.fuzz.mutants import mutate
from tests.fuzz.targets import Target, target_of, targets

ALARM = 30  # seconds for one mutant
MEMORY = 3 * 2**30  # bytes that a mutant may add to the process
LEAK = 64  # MB of growth from the middle of a run to its end, and open files: none


def mutant(
    target: Target,  # reader with whole files
    name: str,  # its name
    number: int,  # number of the mutant
    seed: int,  # seed of the whole run
) -> tuple[str, bytes]:  # how it was made, and its bytes
    "A mutant, the same at every call."
    rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
    return mutate(target.files[int(rng.integers(len(target.files)))], target.files, rng)


def ending(
    target: Target,  # the reader
    path: Path,  # file of the mutant
) -> tuple[str, str]:  # one of `ENDS`, and what to know of it
    "The end of reading a mutant."
    try:
        target.read(path)
        return "read", ""
    except (BadFileError, DatasetNotFoundError) as error:
        return type(error).__name__, str(error)
    except AssertionError:
        return "wrong", traceback.format_exc(limit=-3)
    except ValueError as error:
        named = path.name in str(error)
        return ("ValueError", str(error)) if named else ("foreign", traceback.format_exc(limit=-3))
    except Exception:  # the point of it all
        return "foreign", traceback.format_exc(limit=-3)


def work(
    name: str,  # name of the reader
    first: int,  # number of the first mutant
    last: int,  # number after the last one
    seed: int,  # seed of the whole run
    record: Path,  # file of one byte per mutant: where it ended
) -> dict:  # memory in MB, and number of open files
    "Work of a child: its parent learns from the record how far it came."
    warnings.simplefilter("ignore")
    limit = _memory("VmSize") * 2**20 + MEMORY
    with tempfile.TemporaryDirectory() as home, record.open("r+b", buffering=0) as out:
        target = target_of(Path(home), name)
        middle = None
        path = Path(home, target.place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(target.files[0])
        ending(target, path)  # what is loaded on first use is no leak
        resource.setrlimit(resource.RLIMIT_AS, (int(limit), resource.getrlimit(resource.RLIMIT_AS)[1]))
        for number in range(first, last):
            if number == (first + last) // 2:
                middle = _memory("VmRSS"), len(os.listdir("/proc/self/fd"))
            path.write_bytes(mutant(target, name, number, seed)[1])
            signal.setitimer(signal.ITIMER_REAL, ALARM)
            end, why = ending(target, path)
            signal.setitimer(signal.ITIMER_REAL, 0)
            os.pwrite(out.fileno(), bytes([ENDS.index(end)]), number)
            if end not in GOOD:
                print(json.dumps(dict(reader=name, number=number, end=end, why=why[-700:])), flush=True)
        now = _memory("VmRSS"), len(os.listdir("/proc/self/fd"))
    grown = dict(zip(("memory_mb", "open_files"), np.subtract(now, middle or now).round(1).tolist(), strict=True))
    return grown | dict(peak_mb=round(_memory("VmHWM")))


def _memory(field: str) -> float:  # MB
    "One line of what the system says about this process."
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[field].split()[0]) / 1024


def _child(name: str, first: int, last: int, seed: int, record: Path) -> tuple[int, str]:
    "Exit code and words of a finished child that did `work`."
    place, log = str(record.parent), record.with_name("said.txt")
    log.unlink(missing_ok=True)
    settings = dict(CTM_RUNS=place, CTM_CACHE="off", TMPDIR=place)
    process = apart.start(_say_work, name, first, last, seed, record, log=log, **settings)
    process.join()
    return process.exitcode, log.read_text(errors="replace") if log.exists() else ""


def _say_work(*work_args) -> None:
    tempfile.tempdir = None  # as TMPDIR says now
    print(json.dumps(work(*work_args)), flush=True)


def fuzz_reader(
    name: str,  # name of the reader
    count: int,  # number of mutants
    seed: int,  # seed of the whole run
) -> tuple[dict, list[dict]]:  # how many ended where; the failures
    "Ends of all mutants of one reader, in as many child processes as it takes."
    start = time.monotonic()
    failures = []
    grown = {}
    first = 0
    with tempfile.TemporaryDirectory() as place:
        record = Path(place, "record")
        record.write_bytes(bytes(count))
        while first < count:
            code, said = _child(name, first, count, seed, record)
            lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            failures += [line for line in lines if "end" in line]
            if code == 0:
                grown = lines[-1]
                break
            ended = record.read_bytes()
            first = next(i for i in range(first, count + 1) if i == count or not ended[i])
            if first == count:
                break
            end = "hang" if code == -signal.SIGALRM else "crash"
            why = f"exit {code}: {said[-500:]}"
            failures.append(dict(reader=name, number=first, end=end, why=why))
            ended = bytearray(ended)
            ended[first] = ENDS.index(end)
            record.write_bytes(ended)
            first += 1
        counts = collections.Counter(ENDS[code] for code in record.read_bytes())
    row = dict(reader=name, mutants=count) | {end: counts[end] for end in ENDS}
    return row | grown | dict(seconds=round(time.monotonic() - start, 1)), failures


def fuzz(
    count: int,  # number of mutants, shared evenly by the readers
    seed: int = 0,  # seed of the whole run
    readers: list[str] | None = None,  # names of readers; None: all
) -> dict:  # rows, failures, and how to have them again
    "Ends of the mutants of every reader."
    with tempfile.TemporaryDirectory() as home:
        names = readers or list(targets(Path(home)))
    rows = []
    failures = []
    for name in names:
        row, failed = fuzz_reader(name, -(-count // len(names)), seed)
        leaks = row.get("memory_mb", 0) > LEAK or row.get("open_files", 0) > 0
        failed += [dict(reader=name, number=-1, end="leak", why=str(row))] if leaks else []
        rows.append(row)
        failures += failed
        said = f"{name}: {row['mutants']} mutants, {row['read']} read, {len(failed)} failures"
        print(printable(said, 200), flush=True)
    command = f"python -m tests.fuzz.run --count {count} --seed {seed}"
    total = sum(row["mutants"] for row in rows)
    return dict(command=command, seed=seed, mutants=total, versions=versions(), readers=rows, failures=failures)


def renewed(
    kept: dict,  # record of `fuzz` on all readers
    found: dict,  # record of `fuzz` on some of them, with the same seed
) -> dict:  # the record `kept` with new rows, and the names of the readers that were run again
    "A record in which some readers were run again, after they were repaired."
    new = {row["reader"]: row for row in found["readers"]}
    if kept["seed"] != found["seed"] or not new.keys() <= {row["reader"] for row in kept["readers"]}:
        raise ValueError("another seed or other readers than in the record: write to another --out")
    rows = [new.get(row["reader"], row) for row in kept["readers"]]
    failures = [f for f in kept["failures"] if f["reader"] not in new] + found["failures"]
    again = sorted({*kept.get("run_again", []), *new})
    mutants = sum(row["mutants"] for row in rows)
    return kept | dict(readers=rows, failures=failures, mutants=mutants, run_again=again)


def main(arguments: list[str] | None = None) -> int:  # exit status: 1 where anything failed
    "The command: 0 where every mutant ended well."
    parser = argparse.ArgumentParser(description="Mutated files for every reader.")
    parser.add_argument("--count", type=int, default=100_000, help="mutants in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--reader", action="append", help="only this one; repeatable; its rows in --out are renewed")
    parser.add_argument("--only", type=int, help="one mutant of one reader: write it to mutant.bin and say its end")
    parser.add_argument("--out", type=Path, default=repo_root() / "figures" / "fuzz.json", help="default: %(default)s")
    args = parser.parse_args(arguments)
    if args.only is not None:
        with tempfile.TemporaryDirectory() as home:
            target = target_of(Path(home), args.reader[0])
            how, data = mutant(target, args.reader[0], args.only, args.seed)
            Path("mutant.bin").write_bytes(data)
            path = Path(home, target.place)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(how, *ending(target, path), sep="\n")
    else:
        found = fuzz(args.count, args.seed, args.reader)
        if args.reader and args.out.exists():
            found = renewed(read_json(args.out), found)
        with atomic_path(args.out) as temporary:
            temporary.write_text(json.dumps(found, indent=1))
        print(f"{found['mutants']} mutants, {len(found['failures'])} failures: {args.out}")
        return int(bool(found["failures"]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
