"Progress where nobody looks: lines by a clock that is set by hand, in a program's log and in papermill's kernel."

import io
import sys
from types import SimpleNamespace

import pytest

from ctm.runtime import progress
from ctm.runtime.progress import Progress
from ctm.train.config import load_config
from ctm.train.fit import fit
from ctm.train.trainer import _EpochBar
from tests.train.made import SMALL, Made, flat


@pytest.fixture(autouse=True)
def no_notebook(monkeypatch):
    "A notebook that was tested before, in the same process, leaves its shell."
    monkeypatch.setattr(progress, "get_ipython", lambda: None)


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(seconds=0.0)
    monkeypatch.setattr(progress, "monotonic", lambda: now.seconds)
    return now


def lines(capsys):
    return [line.removeprefix("ctm: ") for line in capsys.readouterr().err.splitlines()]


def work(clock, seconds, **options):
    for duration in Progress(seconds, **options):
        clock.seconds += duration


def test_a_line_at_the_start_one_a_minute_and_one_at_the_end(clock, capsys):
    work(clock, [20.0] * 10, desc="masking site_a", unit="image")
    assert lines(capsys) == [
        "masking site_a: 10 images, about 02:40",
        "masking site_a: 5 of 10 images in 01:40, about 01:40 left",
        "masking site_a: 8 of 10 images in 02:40, about 00:40 left",
        "masking site_a: 10 of 10 images in 03:20",
    ]


def test_the_estimate_leaves_out_a_slow_first_step(clock, capsys):
    work(clock, [29.0, *[1.0] * 99], desc="fitting", unit="batch")
    assert lines(capsys)[0] == "fitting: 100 batches, about 01:38"


def test_a_first_step_of_minutes_is_not_waited_for_twice(clock, capsys):
    work(clock, [300.0] * 3, desc="masking")
    assert lines(capsys)[0] == "masking: 3 steps, about 10:00"


def test_short_work_says_nothing(clock, capsys):
    work(clock, [0.1] * 19, desc="decoding")
    assert lines(capsys) == []


@pytest.mark.parametrize(("epoch", "expected"), [(10.0, [7, 13, 19]), (90.0, range(1, 20)), (3600.0, range(1, 20))])
def test_one_a_minute_or_an_epoch_whichever_is_rarer(epoch, expected, clock, capsys):
    bar = Progress(total=200, desc="fitting", unit="step", about="made, 80 images, 20 epochs, ", parts=True)
    for step in range(200):
        if step and step % 10 == 0:
            bar.part(f"epoch {step // 10} of 20")
        clock.seconds += epoch / 10
        bar.update()
    bar.part("epoch 20 of 20")
    bar.set_postfix(dict(bce="0.100"), refresh=False)
    bar.close()
    first, *told, last = lines(capsys)
    assert first.startswith("fitting: made, 80 images, 20 epochs, 200 steps, about ")
    assert [int(line.split()[2]) for line in told] == [*expected]
    assert last.startswith("fitting: 200 of 200 steps in ") and last.endswith(", bce=0.100")


def test_what_goes_on_says_from_where_and_what_stops_says_so(clock, capsys):
    bar = Progress(total=100, initial=60, desc="fitting", unit="step", parts=True)
    for _ in range(10):
        clock.seconds += 1
        bar.update(1)
    bar.close()
    bar.close()
    assert lines(capsys) == [
        "fitting: 100 steps from 60 on, about 00:38",
        "fitting: stopped at 70 of 100 steps in 00:10",
    ]
    with pytest.raises(KeyError):
        for part in Progress(iter([30.0] * 3), desc="masking"):  # how many is unknown
            clock.seconds += part
            if clock.seconds > 80:
                raise KeyError
    assert lines(capsys) == ["masking: 1 steps so far", "masking: 2 steps in 01:30"]


def test_one_process_of_several_speaks(clock, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    bar = Progress(total=10, parts=True)
    bar.update(3)
    assert bar.n == 3
    bar.close()
    work(clock, [20.0] * 10)
    assert lines(capsys) == []


def test_a_terminal_gets_the_bar_alone(clock, monkeypatch):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", terminal)
    work(clock, [20.0] * 10, desc="masking", delay=0)
    assert "masking:" in terminal.getvalue() and "ctm:" not in terminal.getvalue()


def kernel(answers):
    message = dict(content=dict(allow_stdin=answers))
    return lambda: SimpleNamespace(kernel=None, get_parent=lambda: message)


@pytest.mark.parametrize("answers", [True, False])
def test_a_kernel_speaks_where_its_client_answers_no_questions(answers, clock, capfd, monkeypatch):
    "As papermill's: the lines go to the process and not into the notebook, where the bar comes and goes."
    shown = []
    notebook = SimpleNamespace(write=shown.append, flush=bool, fileno=lambda: 2)
    monkeypatch.setattr(sys, "stderr", notebook)
    monkeypatch.setattr(progress, "get_ipython", kernel(answers))
    monkeypatch.setattr(progress, "display", lambda bundle, **_: SimpleNamespace(update=lambda *_, **__: None))
    work(clock, [20.0] * 10, desc="masking", delay=0)
    said = capfd.readouterr().err
    assert not shown
    assert said.startswith("\nctm: masking: 10 steps, about") == (not answers)
    assert said.count("\n") == (0 if answers else 5)


def test_a_notebook_that_is_run_for_its_outputs_does_not_keep_the_lines(clock, capfd, monkeypatch):
    kept = io.StringIO()
    monkeypatch.setattr(sys, "stderr", kept)
    monkeypatch.setattr(progress, "get_ipython", SimpleNamespace)
    work(clock, [20.0] * 10, desc="masking")
    assert not kept.getvalue()
    assert capfd.readouterr().err.count("ctm: masking: ") == 4


@pytest.mark.parametrize("error", [BrokenPipeError, ValueError])
def test_a_log_that_is_gone_stops_no_work(error, clock, monkeypatch):
    def write(text):
        raise error

    monkeypatch.setattr(sys, "stderr", SimpleNamespace(write=write, isatty=lambda: False))
    work(clock, [20.0] * 10)


def test_a_fit_always_speaks(tmp_path, capsys):
    data = Made(flat(0, 1, 2) * 8)
    fit(load_config(**SMALL), data, data, tmp_path)
    first, last = (line for line in lines(capsys) if line.startswith("fitting"))
    assert first.startswith("fitting: made, 24 images, 2 epochs, 6 steps, about ")
    assert last.startswith("fitting: 6 of 6 steps in ") and "val_accuracy=" in last


def test_a_fit_has_a_line_an_epoch(clock, capsys, tmp_path, monkeypatch):
    start = _EpochBar.on_train_batch_end
    tick = lambda *args: (setattr(clock, "seconds", clock.seconds + 25), start(*args))  # noqa: E731
    monkeypatch.setattr(_EpochBar, "on_train_batch_end", tick)
    data = Made(flat(0, 1, 2) * 8)
    fit(load_config(**SMALL | dict(epochs=4)), data, data, tmp_path)
    said = [line.split(", bce")[0].split(", val")[0] for line in lines(capsys) if line.startswith("fitting")]
    assert said == [
        "fitting: made, 24 images, 4 epochs, 12 steps, about 04:10",
        "fitting: epoch 2 of 4, 6 of 12 steps in 02:30, about 02:30 left",
        "fitting: epoch 3 of 4, 9 of 12 steps in 03:45, about 01:15 left",
        "fitting: 12 of 12 steps in 05:00",
    ]
