"Processes of their own for a function: forks of a server that has imported the library once."

import multiprocessing
import os
import sys
from pathlib import Path

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["ctm.experiments.run", "ctm.reports.reliability", "tests.fuzz.targets"])


def _work(function, args: tuple, log: str, variables: dict) -> None:
    os.environ.update(variables, OMP_NUM_THREADS="1")
    said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1), os.dup2(said, 2)
    function(*args)
    sys.stdout.flush()


def start(function, *args, log: Path, **variables: str):
    "A process that runs a function of a module, and writes what it says to a file."
    process = FORKS.Process(target=_work, args=(function, args, str(log), variables))
    process.start()
    return process
