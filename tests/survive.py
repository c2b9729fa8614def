"""Experiments on survival, each with a count: `python tests/survive.py` records them in figures/survive.json.

Runs are children of this process, which has imported what they need and nothing else; they are killed at random
moments, or at a random one of the file operations of a phase, found by an audit hook.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).resolve().parents[1])

import nbformat  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import psutil  # noqa: E402
import rasterio  # noqa: E402
import torch  # noqa: E402
from lightning.pytorch.callbacks import Callback  # noqa: E402
from PIL import Image  # noqa: E402

from ctm.checkpoint import load_model  # noqa: E402
from ctm.core import PARTIAL, repo_root, versions, write_whole  # noqa: E402
from ctm.experiments.launch import launch_run  # noqa: E402
from ctm.experiments.results import load_results  # noqa: E402
from ctm.experiments.run import run  # noqa: E402
from ctm.io.images import open_raster  # noqa: E402
from ctm.model import ClassTokenViT  # noqa: E402
from ctm.predict.dataset import predict_batches, saving  # noqa: E402
from ctm.predict.masker import Masker  # noqa: E402
from ctm.predict.raster import mask_file  # noqa: E402
from ctm.runtime.interrupt import RESUME  # noqa: E402
from ctm.segmentation.network import load_segmentation_config  # noqa: E402
from ctm.segmentation.run import run_segmentation  # noqa: E402
from ctm.synthetic.sets import make_synthetic  # noqa: E402
from ctm.train.checkpointing import read_checkpoint  # noqa: E402
from ctm.train.config import load_config  # noqa: E402
from ctm.train.data import load_dataset  # noqa: E402
from ctm.train.fit import fit  # noqa: E402
from ctm.train.trainer import read_log  # noqa: E402

ROOT = repo_root()
TINY = dict(embed_dim=16, depth=1, num_heads=2, epochs=3, batch_size=16)
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "os.truncate")


# What is run


def task_run(place: Path, **options) -> dict:
    "Fit, checkpoints, cache, masks as PNG, Result; what it says, bit for bit."
    run(load_config("kvasir_seg", "demo", **TINY), root=place / "data", **options)
    return outcome(place)


def outcome(place: Path) -> dict:
    "Metrics, logs and masks of the runs below a folder."
    results = [(found.metrics, found.extra) for found in load_results(place / "runs" / "results")]
    logs = [read_log(folder).to_csv() for folder in sorted((place / "runs" / "fits").iterdir()) if folder.is_dir()]
    masks = hashlib.sha256(b"".join(p.read_bytes() for p in sorted(place.glob("runs/fits/*/masks*/*.png"))))
    return json.loads(json.dumps(dict(results=results, masks=masks.hexdigest(), logs=logs)))


def task_second(place: Path) -> dict:
    "Both stages, from nothing: the second one's pseudo-masks, fit, predictions and Result."
    channels = dict(decoder_channels=(16, 8, 4))
    network = dict(architecture="Unet", encoder="tu-mobilenetv3_small_050", depth=3, epochs=3, options=channels)
    network = load_segmentation_config(**network)
    run_segmentation(load_config("kvasir_seg", "demo", **TINY), network, root=place / "data")
    return outcome(place)


def task_spread(place: Path) -> dict:
    "A fit by two processes."
    launch_run(load_config("kvasir_seg", "demo", **TINY), root=place / "data", processes=2)
    return outcome(place)


def task_rasters(place: Path) -> dict:
    "Masks of georeferenced rasters."
    torch.manual_seed(0)
    config = load_config("kvasir_seg", "demo", **TINY | dict(img_size=(32, 32)))
    model = ClassTokenViT(3, img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2).eval()
    ones, colors = np.ones(3, np.float32), ("#117733", "#999933", "#882255")
    masker = Masker(model, config, 100 * ones, 50 * ones, ("a", "b", "c"), colors, None)
    found = {}
    for source in sorted((place / "rasters").glob("*.tif")):
        target = place / "runs" / "rasters" / source.name
        counts = mask_file(masker, source, target, 32, maps=target.with_name(f"maps-{source.name}"), block=256)
        with rasterio.open(target) as file:
            found[source.name] = [counts, hashlib.sha256(file.read().tobytes()).hexdigest(), str(file.crs)]
    return found


def prepare_place(place: Path) -> None:
    "The data of both."
    (place / "data").symlink_to(make_synthetic("kvasir_seg", place / "made", n=8))
    (place / "rasters").mkdir()
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 255, (3, 600, 500), np.uint8)
        options = dict(height=600, width=500, count=3, dtype="uint8", crs="EPSG:32632")
        options |= dict(transform=rasterio.Affine(10, 0, 5e5, 0, -10, 5e6))
        with rasterio.open(place / "rasters" / f"{seed}.tif", "w", driver="GTiff", **options) as file:
            file.write(pixels)


# How it is started, watched and killed


class Watch:
    "Counts a process's file operations on paths that fit a pattern, and acts at one of them."

    def __init__(self, pattern: str, at: int = 0, action=None):
        self.pattern, self.at, self.action, self.seen = re.compile(pattern), at, action, 0

    def __call__(self, event: str, args: tuple) -> None:
        if event in EVENTS and self.seen >= 0:
            if event == "open" and not (isinstance(args[1], str) and set(args[1]) & set("wax+")):
                if not isinstance(args[2], int) or not args[2] & (os.O_WRONLY | os.O_RDWR):
                    return
            if any(
                isinstance(arg, str | bytes | os.PathLike) and self.pattern.search(os.fsdecode(arg)) for arg in args
            ):
                self.seen += 1
                if self.seen == self.at:
                    self.action()


def kill_after(seconds: float):
    "Kill this process a moment later, whatever it does then."

    def act():
        kill = lambda: (time.sleep(seconds), os.kill(os.getpid(), signal.SIGKILL))  # noqa: E731
        threading.Thread(target=kill, daemon=True).start()

    return act


def start(task, place: Path, *watches: Watch, **options) -> int:
    "A child that does a task and leaves its outcome; its process number."
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.environ["CTM_RUNS"] = str(place / "runs")
        log = os.open(place / "said.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 1), os.dup2(log, 2)
        torch.set_num_threads(1)
        for watch in watches:
            sys.addaudithook(watch)
        found = task(place, **options)
        (place / "outcome.json").write_text(json.dumps(found, sort_keys=True))
        (place / "seen.json").write_text(json.dumps([watch.seen for watch in watches]))
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush(), sys.stderr.flush(), os._exit(code)


def kill(pid: int) -> int:
    "Kill a process and all that it has started, at once; its exit code."
    family = [psutil.Process(pid)]
    family += family[0].children(recursive=True)
    for act in (psutil.Process.suspend, psutil.Process.kill):
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                act(process)
    psutil.wait_procs(family[1:])
    return end(pid)


def end(pid: int) -> int:
    "Its exit code; -9 if it was killed."
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def done(task, place: Path, *watches: Watch, **options) -> int:
    "Start a child and wait for it."
    return end(start(task, place, *watches, **options))


def said(place: Path) -> str:
    "What the children have written to their screens."
    return (place / "said.txt").read_text() if (place / "said.txt").exists() else ""


READERS = {
    ".ckpt": read_checkpoint,
    ".json": lambda path: json.loads(path.read_text()),
    ".png": lambda path: Image.open(path).load(),
    ".csv": pd.read_csv,
    ".npy": np.load,
    ".safetensors": load_model,
    ".ipynb": lambda path: nbformat.validate(nbformat.read(path, 4)),
    ".jpg": lambda path: Image.open(path).load(),
}


def read_tif(path: Path) -> None:
    with open_raster(path) as file:
        file.read()


def broken(folder: Path) -> list[str]:
    "Files under their full names that cannot be read to their end."
    found = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_file() and not hidden:
            try:
                (READERS | {".tif": read_tif, ".sha256": Path.read_text}).get(path.suffix, Path.read_bytes)(path)
            except Exception as error:
                found.append(f"{path.name}: {error!r:.200}")
    return found


def left_over(folder: Path) -> list[str]:
    "Temporary files, locks and half-made folders."
    return [str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.startswith(".") or PARTIAL in p.name]


# Experiments: each returns counts


def fresh(stack: list) -> Path:
    "An empty place with links to the data, removed at the end."
    place = Path(tempfile.mkdtemp(prefix="survive-"))
    stack.append(place)
    for name in ("data", "rasters"):
        (place / name).symlink_to(stack[0] / name)
    return place


def remove(places: list) -> None:
    subprocess.run(["rm", "-rf", *map(str, places)], check=True)


WHOLE: dict = {}  # what was found once


def whole(task, stack: list, pattern: str | None = None) -> tuple[dict, int, float]:
    "Outcome of an uninterrupted run, how many file operations fit the pattern, and its seconds."
    if task not in WHOLE:
        place, begun = fresh(stack), time.monotonic()
        patterns = [of for known, of, *_ in (*PHASES.values(), *FULL.values()) if known is task and of]
        assert done(task, place, *map(Watch, patterns)) == 0, said(place)
        seen = zip(patterns, json.loads((place / "seen.json").read_text()), strict=True)
        WHOLE[task] = got(place), dict(seen), time.monotonic() - begun
    outcome, seen, seconds = WHOLE[task]
    return outcome, seen.get(pattern, 0), seconds


def got(place: Path) -> dict | None:
    file = place / "outcome.json"
    return json.loads(file.read_text()) if file.exists() else None


PHASES = {  # what is written -> task, paths, longest delay until the kill in seconds, kills
    "fitting": (task_run, None, 0.0, 8),
    "checkpoint": (task_run, r"/\.?last", 0.004, 6),
    "cache": (task_run, r"/cache/", 0.01, 5),
    "PNG masks": (task_run, r"/\.?masks", 0.004, 5),
    "GeoTIFF masks": (task_rasters, r"/runs/rasters", 0.3, 5),
    "Result": (task_run, r"/results/", 0.002, 5),
    "stage two": (task_second, None, 0.0, 6),
    "fitting by two processes": (task_spread, None, 0.0, 3),
}


def experiment_kill(stack: list, rng: random.Random, short: bool) -> dict:
    "SIGKILL at random moments."
    found = {}
    for name, (task, pattern, delay, kills) in PHASES.items():
        if short and task is task_spread:
            continue  # 20 seconds each
        kills = 1 if short else kills
        counts = dict(kills=0, same=0, broken=[], left=[])
        expected, events, seconds = whole(task, stack, pattern)
        while counts["kills"] < kills:
            place = fresh(stack)
            if pattern:
                code = done(task, place, Watch(pattern, rng.randint(1, events), kill_after(rng.uniform(0, delay))))
            else:
                pid = start(task, place)
                time.sleep(rng.uniform(0.2, 0.9) * seconds)
                code = kill(pid)
            if code != -signal.SIGKILL:
                continue  # it had ended
            counts["kills"] += 1
            counts["broken"] += broken(place / "runs")
            again = done(task, place)
            counts["same"] += again == 0 and got(place) == expected
            counts["left"] += left_over(place / "runs")
        found[name] = counts
    return found


def experiment_kill_command(stack: list, rng: random.Random, short: bool) -> dict:
    "SIGKILL of commands: a report notebook, and the preparation of data."
    found = dict(
        notebook=kill_notebook(stack, rng, 0 if short else 4), data_prep=kill_data_prep(stack, rng, 1 if short else 5)
    )
    return {name: counts for name, counts in found.items() if counts["kills"]}


def report(place: Path) -> subprocess.Popen:
    "A report notebook on the tiny run."
    given = dict(dataset="kvasir_seg", root=str(place / "data"), changes=TINY)
    command = [
        sys.executable,
        "-m",
        "ctm.reports.notebook",
        str(ROOT / "nbs" / "sensitivity.ipynb"),
        str(place / "runs" / "out.ipynb"),
    ]
    (place / "runs").mkdir(exist_ok=True)
    options = dict(env=os.environ | dict(CTM_RUNS=str(place / "runs")), stdin=subprocess.DEVNULL, cwd=ROOT)
    with open(place / "said.txt", "a") as log:
        return subprocess.Popen(
            [*command, "-y", json.dumps(given), "--no-progress-bar"], stderr=log, stdout=log, **options
        )


def kill_notebook(stack: list, rng: random.Random, kills: int) -> dict:
    counts, place, begun = dict(kills=0, same=0, broken=[], left=[]), fresh(stack), time.monotonic()
    if not kills:
        return counts
    assert report(place).wait() == 0, said(place)
    expected, seconds = outcome(place), time.monotonic() - begun
    while counts["kills"] < kills:
        place = fresh(stack)
        process = report(place)
        time.sleep(rng.uniform(0.3, 0.95) * seconds)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            continue
        counts["kills"] += 1
        counts["broken"] += broken(place / "runs")
        counts["same"] += report(place).wait() == 0 and outcome(place) == expected
        counts["left"] += left_over(place / "runs")
    return counts


def kill_data_prep(stack: list, rng: random.Random, kills: int) -> dict:
    import tests.data_prep.official as prep

    counts, server, place = dict(kills=0, same=0, broken=[], left=[]), prep.Server(), fresh(stack)
    server.files = prep.kvasir(place)
    contents = lambda root: {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}  # noqa: E731
    begun = time.monotonic()
    server.plan = ["slow"]
    assert prep.start(server, place / "runs", 0.05).wait() == 0
    expected, seconds = contents(place / "runs"), time.monotonic() - begun
    while counts["kills"] < kills:
        place = fresh(stack)
        server.plan = ["slow"]
        process = prep.start(server, place / "runs", 0.05)
        time.sleep(rng.uniform(0.2, 0.98) * seconds)
        process.kill()
        if process.wait() != -signal.SIGKILL:
            continue
        counts["kills"] += 1
        counts["broken"] += broken(place / "runs") if (place / "runs").exists() else []
        server.plan = []
        counts["same"] += prep.start(server, place / "runs").wait() == 0 and contents(place / "runs") == expected
        counts["left"] += [p for p in left_over(place / "runs") if p not in expected]
    server.http.shutdown()
    return counts


STOPS = {  # what is stopped -> task, stops
    "stage one": (task_run, 15),
    "stage two": (task_second, 6),
    "fitting by two processes": (task_spread, 3),
}


def experiment_stop(stack: list, rng: random.Random, short: bool) -> dict:
    "SIGTERM, SIGUSR1 or a time limit at random moments: code 75, at once; then as if nothing had been."
    found = {}
    for name, (task, stops) in STOPS.items():
        if short and task is task_spread:
            continue  # 20 seconds each
        stops = -(-stops // 6) if short else stops
        expected, _, seconds = whole(task, stack)
        counts = dict(stops=0, code_75=0, same=0, mid_epoch=0, slowest=0.0, broken=[], left=[])
        while counts["stops"] < stops:
            place, options = fresh(stack), dict(num_workers=counts["stops"] % 3) if task is task_run else {}
            how = rng.choice([signal.SIGTERM, signal.SIGUSR1])
            pid = start(task, place, **options)
            time.sleep(rng.uniform(0.2, 0.8) * seconds)
            os.kill(pid, how)
            asked = time.monotonic()
            code = end(pid)
            if code in (0, -how):  # had ended, or not begun
                continue
            counts["stops"] += 1
            counts["slowest"] = max(counts["slowest"], round(time.monotonic() - asked, 2))
            counts["code_75"] += code == RESUME
            if code != RESUME:
                print("stopped with", code, said(place)[-3000:], file=sys.stderr)
            counts["broken"] += broken(place / "runs")
            for last in (place / "runs").glob("fits/*/last.ckpt"):
                counts["mid_epoch"] += "batches" in read_checkpoint(last)
            counts["same"] += done(task, place, **options) == 0 and got(place) == expected
            counts["left"] += left_over(place / "runs")
        found[name] = counts
    return found | {"under a time limit": limited(stack)}


def limited(stack: list) -> dict:
    "A run in slices of a third of its time; each is a fifth longer, should the machine be busier than it was."
    expected, _, seconds = whole(task_run, stack)
    place, starts = fresh(stack), 1
    while (code := done(task_limited, place, seconds=seconds / 3 * 1.2 ** (starts - 1))) == RESUME:
        starts += 1
    return dict(starts=starts, same=int(code == 0 and got(place) == expected), left=left_over(place / "runs"))


def task_limited(place: Path, seconds: float) -> dict:
    "The run, in slices of time."
    import ctm.runtime.interrupt

    ctm.runtime.interrupt.START, os.environ["CTM_TIME_LIMIT"] = time.monotonic(), str(seconds)
    return task_run(place)


FULL = {  # what is written -> task, paths
    "checkpoint": (task_run, r"/\.last\.partial-"),
    "its checksum": (task_run, r"/\.last\.ckpt\.partial-"),
    "log": (task_run, r"/\.log\.partial-"),
    "model": (task_run, r"/\.model\.partial-"),
    "cache": (task_run, r"/cache/\..*\.partial-"),
    "PNG masks": (task_run, r"/\.masks/\..*\.partial-"),
    "GeoTIFF masks": (task_rasters, r"/rasters/\.[^/]*\.partial-"),
    "Result": (task_run, r"/results/\..*\.partial-"),
}


def enter_small(folder: Path) -> None:
    "Mount a file system of 64 MB in a folder, for this process and its children alone."
    user, group, libc = os.getuid(), os.getgid(), ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x10000000 | 0x20000):  # CLONE_NEWUSER, CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    for name, line in dict(setgroups="deny", uid_map=f"0 {user} 1", gid_map=f"0 {group} 1").items():
        Path("/proc/self", name).write_text(line)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], check=True)


def experiment_full(stack: list, rng: random.Random, short: bool) -> dict:
    "A file system of 64 MB that fills up when a file is begun: one error, nothing lost, and on once there is room."
    for task, _ in FULL.values():
        whole(task, stack)  # the child has what was found before it began
    place = fresh(stack)
    code = done(task_full, place, stack=stack)
    return got(place) if code == 0 else dict(error=said(place)[-2000:])


def task_full(place: Path, stack: list) -> dict:
    "Every kind of file, each begun on a full disk."
    small, own = place / "small", stack[:1]
    small.mkdir()
    try:
        enter_small(small)
    except (OSError, subprocess.CalledProcessError) as error:
        return dict(not_permitted=str(error))
    try:
        return {name: fill_at(name, task, pattern, small, own) for name, (task, pattern) in FULL.items()}
    finally:
        remove(own[1:])


def fill_at(name: str, task, pattern: str, small: Path, stack: list) -> dict:
    "One kind of file is begun on a full disk; then there is room again."
    place = fresh(stack)
    (place / "runs").symlink_to(small / name.replace(" ", "-"))
    (small / name.replace(" ", "-")).mkdir()
    ballast = small / "ballast"

    def fill():
        with open(ballast, "wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
            except OSError:
                pass

    at = 2 if name in ("checkpoint", "its checksum", "log") else 1
    code = done(task, place, Watch(pattern, at, fill))
    errors = [line for line in said(place).splitlines() if "DiskFullError: " in line]
    clear = code == 1 and bool(errors) and bool(re.search(r"/\S+: no room: .*bytes needed", errors[-1]))
    counts = dict(clear=clear, said=errors[-1:], broken=broken(small))
    for known in (str(small.resolve()), str(place)):
        counts["said"] = [line.replace(known, "DISK") for line in counts["said"]]
    ballast.unlink(missing_ok=True)
    counts["same"] = done(task, place) == 0 and got(place) == whole(task, stack)[0]
    return counts | dict(left=left_over(small))


def experiment_two(stack: list, rng: random.Random, short: bool) -> dict:
    "Two runs of one configuration at once; in the second half the first one is killed while the other waits."
    expected, _, seconds = whole(task_run, stack)
    counts = dict(pairs=0, waited=0, same=0, first_killed=0, broken=[], left=[])
    for number in range(2 if short else 6):
        place = fresh(stack)
        first = start(task_run, place)
        time.sleep(rng.uniform(0, 0.1) * seconds)
        second = start(task_run, place)
        killed = number % 2 == 1
        if killed:
            while "waiting for it" not in said(place):
                time.sleep(0.01)
            holder = int(re.search(r"another run \(process (\d+)", said(place))[1])
            os.kill(holder, signal.SIGKILL)
            counts["first_killed"] += 1
        codes = sorted(end(pid) for pid in (first, second))
        counts["pairs"] += 1
        counts["waited"] += "waiting for it" in said(place)
        counts["same"] += codes == ([-9, 0] if killed else [0, 0]) and got(place) == expected
        counts["broken"] += broken(place / "runs")
        counts["left"] += left_over(place / "runs")
    return counts


def experiment_sleep(stack: list, rng: random.Random, short: bool) -> dict:
    "A run that stands still for a while, as on a laptop whose lid is shut: the end is the same."
    expected, _, seconds = whole(task_run, stack)
    counts = dict(sleeps=0, same=0, broken=[], left=[])
    while counts["sleeps"] < (1 if short else 6):
        place = fresh(stack)
        pid = start(task_run, place)
        time.sleep(rng.uniform(0.2, 0.8) * seconds)
        os.kill(pid, signal.SIGSTOP)
        time.sleep(seconds)
        os.kill(pid, signal.SIGCONT)
        counts["sleeps"] += 1
        counts["same"] += end(pid) == 0 and got(place) == expected
        counts["broken"] += broken(place / "runs")
        counts["left"] += left_over(place / "runs")
    return counts


def experiment_damaged(stack: list, rng: random.Random, short: bool) -> dict:
    "The last checkpoint loses or changes bytes: noticed, the one before is used, the end is the same."
    expected, events, _ = whole(task_run, stack, FULL["checkpoint"][1])
    counts = dict(damaged=0, said=0, same=0, left=[])
    third = 2 * events // 3 + 1  # of three epochs
    while counts["damaged"] < (2 if short else 8):
        place = fresh(stack)
        assert done(task_run, place, Watch(FULL["checkpoint"][1], third, kill_after(0))) == -signal.SIGKILL
        last = next(place.glob("runs/fits/*/last.ckpt"), None)
        if last is None:
            continue  # killed just when it was being replaced
        content = bytearray(last.read_bytes())
        at = rng.randrange(len(content))
        if counts["damaged"] % 2:
            del content[at:]
        else:
            content[at] ^= 1 << rng.randrange(8)
        last.write_bytes(content)
        counts["damaged"] += 1
        counts["same"] += done(task_run, place) == 0 and got(place) == expected
        counts["said"] += "the state before it is used" in said(place)
        counts["left"] += left_over(place / "runs")
    return counts


def rest() -> dict:
    "Memory and open files of this process."
    kilobytes = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]
    return dict(mb=round(int(kilobytes) / 1024, 1), files=len(os.listdir("/proc/self/fd")))


class Sampler(Callback):
    "Remembers what the process holds."

    def __init__(self, every: int):
        self.every, self.seen = every, []

    def on_train_batch_end(self, trainer, module, *_):
        if trainer.global_step % self.every == 0:
            self.seen.append(dict(step=trainer.global_step) | rest())


def task_long(place: Path, steps: int, masks: int) -> dict:
    "Many steps, many masks."
    config = load_config("kvasir_seg", "demo", **TINY | dict(batch_size=2))
    train, val = (load_dataset(config, split, place / "data") for split in ("train", "val"))
    per_epoch = -(-len(train) // 2)
    config = load_config("kvasir_seg", "demo", **TINY | dict(batch_size=2, epochs=-(-steps // per_epoch)))
    sampler = Sampler(max(1, steps // 20))
    model = fit(config, train, val, place / "runs" / "fit", callbacks=[sampler])

    class Many(type(val)):
        "The same images under many names."

        def __init__(self):
            self.__dict__.update(val.__dict__)
            self.names = [f"{index:05d}" for index in range(masks)]

        def read(self, index: int):
            return val.read(index % len(val))

        def read_label(self, index: int):
            return val.read_label(index % len(val))

    seen = []
    batches = predict_batches(model, Many(), config)
    for index, _ in enumerate(saving(batches, place / "runs" / "masks", val.mask_colors)):
        if 2 * index % max(1, masks // 20) == 0:
            seen.append(dict(masks=2 * index) | rest())
    written = sum(1 for _ in (place / "runs" / "masks").iterdir())
    seen.append(dict(masks=written) | rest())
    return dict(steps=sampler.seen, masks=seen, written=written)


def experiment_long(stack: list, rng: random.Random, short: bool) -> dict:
    "Memory and open files over 2,000 steps and 10,000 masks: a quarter of the way in, and at the end."
    place = fresh(stack)
    steps, masks = (60, 200) if short else (2000, 10_000)
    assert done(task_long, place, steps=steps, masks=masks) == 0, said(place)
    found, counts = got(place), {}
    for name in ("steps", "masks"):
        series = found[name]
        early, late = series[len(series) // 4], series[-1]
        counts[name] = dict(early=early, late=late, more_mb=round(late["mb"] - early["mb"], 1))
        counts[name] |= dict(more_files=late["files"] - early["files"])
    return counts | dict(written=found["written"])


def experiment_determinism(stack: list, rng: random.Random, short: bool) -> dict:
    "The same metrics with 0, 1 and 2 workers, from other folders, in other locales."
    installed = subprocess.run(["locale", "-a"], capture_output=True, text=True).stdout.split()
    wanted = ["C", "POSIX", "C.utf8", "de_DE.utf8", "tr_TR.utf8"]
    cases = [dict(workers=n) for n in (0, 1, 2)] + [dict(cwd="/"), dict(cwd=str(ROOT / "nbs"))]
    cases += [dict(locale=name) for name in wanted if name in installed] + [dict(TZ="Asia/Kolkata", PYTHONHASHSEED="7")]
    if short:  # one start of Python for all that wants another
        cases = [dict(workers=1), dict(workers=2, cwd="/", locale="C", TZ="Asia/Kolkata", PYTHONHASHSEED="7")]
    expected, counts = whole(task_run, stack)[0], dict(runs=0, same=0, cases=[])
    for case in cases:
        place = fresh(stack)
        if case.keys() == {"workers"}:
            assert done(task_run, place, num_workers=case["workers"]) == 0, said(place)
        else:
            elsewhere(place, case)
        counts["runs"] += 1
        counts["same"] += got(place) == expected
        counts["cases"].append({name: "nbs" if "/nbs" in str(value) else value for name, value in case.items()})
    return counts | dict(locales_missing=[name for name in wanted if name not in installed])


def elsewhere(place: Path, case: dict) -> None:
    "The run by a Python of its own, in another folder, locale and time zone."
    env = os.environ | dict(LC_ALL=case.get("locale", "C.utf8"), PYTHONPATH=str(ROOT))
    env |= {name: case[name] for name in ("TZ", "PYTHONHASHSEED") if name in case}
    command = [sys.executable, __file__, "one", "--place", str(place), "--workers", str(case.get("workers", 0))]
    subprocess.run(command, env=env, cwd=case.get("cwd", ROOT), check=True, capture_output=True)


def experiment_bad(stack: list, rng: random.Random, short: bool) -> dict:
    "Broken images among good ones: refused by name, or skipped and each one named."
    counts = dict(sets=0, images=0, refused_by_name=0, skipped_each_named=0)
    for number in range(1 if short else 6):
        place = fresh(stack)
        (place / "data").unlink()
        (place / "data").symlink_to(make_synthetic("kvasir_seg", place / "made", n=8))
        images = sorted((place / "made").rglob("images/*.jpg"))
        chosen = rng.sample(images, rng.randint(1, len(images) // 2))
        for image in chosen:
            content = image.read_bytes()
            image.write_bytes(content[: rng.randrange(20, len(content) // 2)])
        counts["sets"] += 1
        counts["images"] += len(chosen)
        os.environ["CTM_CACHE"] = "off" if number % 2 else ""
        code = done(task_run, place)
        counts["refused_by_name"] += code == 1 and any(
            "BadFileError" in line and any(str(i.name) in line for i in chosen) for line in said(place).splitlines()
        )
        (place / "said.txt").unlink()
        code = done(task_skip, place)
        counts["skipped_each_named"] += code == 0 and each_named(place, chosen)
    os.environ.pop("CTM_CACHE", None)
    return counts


def each_named(place: Path, chosen: list) -> bool:
    "Whether each image stands in one of the reports: training and validation have one each."
    lines = "\n".join(line for line in said(place).splitlines() if "skipped" in line)
    return all(image.name in lines for image in chosen)


def task_skip(place: Path) -> dict:
    "The run without broken images."
    plain = load_config("kvasir_seg", "demo", **TINY)
    config = load_config("kvasir_seg", "demo", **TINY, data=plain.data | dict(bad="skip"))
    return dict(metrics=run(config, root=place / "data").metrics)


EXPERIMENTS = {
    name.removeprefix("experiment_"): function for name, function in globals().items() if name.startswith("experiment_")
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of experiments; none: all", metavar="|".join(EXPERIMENTS))
    parser.add_argument("--out", help="a JSON file; none: the screen")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="a few of each, as CI does")
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--workers", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.names == ["one"]:
        os.environ["CTM_RUNS"] = str(args.place / "runs")
        (args.place / "outcome.json").write_text(json.dumps(task_run(args.place, num_workers=args.workers)))
        return
    found, data, begun = {}, Path(tempfile.mkdtemp(prefix="survive-data-")), time.monotonic()
    assert os.waitstatus_to_exitcode(os.waitpid(start(lambda place: prepare_place(place), data), 0)[1]) == 0, said(data)
    for name in args.names or EXPERIMENTS:
        stack = [data]
        try:
            found[name] = EXPERIMENTS[name](stack, random.Random(f"{args.seed} {name}"), args.short)
        finally:
            remove(stack[1:])
        print(name, json.dumps(found[name])[:400], file=sys.stderr, flush=True)
    remove([data])
    facts = dict(command="python tests/survive.py --out figures/survive.json", seed=args.seed, versions=versions())
    facts |= dict(seconds=round(time.monotonic() - begun), short=args.short) if args.out else {}
    if args.names and args.out and Path(args.out).exists():  # the others as they were
        before = json.loads(Path(args.out).read_text())
        facts["seconds"] += before["seconds"]
        found = {name: value for name, value in before.items() if name in EXPERIMENTS} | found
    text = json.dumps((facts if args.out else {}) | found, indent=1)
    write_whole(args.out, text + "\n") if args.out else print(text)


if __name__ == "__main__":
    main()
