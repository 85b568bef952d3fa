"""Asked to end: what is kept, where work goes on, and the exit status."""

import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from test_training import assert_goes_on_as_unbroken, initial_state, quadratic_phase

from closure_jax import interrupts
from closure_jax.commands import cli
from closure_jax.commands.runs import Run
from closure_jax.coupling import COUPLINGS, ensemble
from closure_jax.coupling.advance import Coupled
from closure_jax.coupling.draw import NoClosure
from closure_jax.training import loop
from closure_jax.workdir import WorkDir


@pytest.fixture(autouse=True)
def in_the_foreground():
    """A shell starts what it puts in the background with SIGINT ignored, and whoever does so with the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def ask(number: int = signal.SIGTERM) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_training_saves_at_the_next_line_and_goes_on_as_if_nothing_had_been(tmp_path, capsys, number):
    broken = WorkDir(tmp_path / "broken")
    broken.path.mkdir()

    def asked_at_eight(step):
        if step == 8:
            ask(number)
        return quadratic_phase(12).batch_at(step)

    def train():
        asked = quadratic_phase(12, batch_at=asked_at_eight)
        loop.run(asked, initial_state(), broken, log_every=2, checkpoint_every=4)

    assert cli.run(train, continues=True) == 128 + number
    assert "transport: saved at step 10 of 12; stopped; the same command continues" in capsys.readouterr().err
    assert broken.checkpoints("transport").latest() == 10
    assert_goes_on_as_unbroken(broken)


def test_a_phase_that_ends_meanwhile_is_whole_and_the_next_one_does_not_begin(tmp_path):
    def asked_at_the_last(step):
        if step == 3:
            ask()
        return quadratic_phase(4).batch_at(step)

    with interrupts.listening():
        loop.run(quadratic_phase(4, batch_at=asked_at_the_last), initial_state(), WorkDir(tmp_path), 2, 4)
        with pytest.raises(interrupts.Stopped):
            interrupts.check()
    interrupts.check()  # what was asked for then is no longer


def test_an_ensemble_ends_at_a_frame():
    def step(vorticity_hat, closure_hat):
        return vorticity_hat + 0 * closure_hat

    coupled = Coupled(step, 0.1, NoClosure(), COUPLINGS["fresh"]())
    with interrupts.listening(), pytest.raises(interrupts.Stopped):
        ask()
        ensemble.rollout(coupled, np.zeros((1, 2, 8, 8), np.float32), jax.random.key(0), 1, "test")


def test_a_second_interrupt_ends_at_once_and_so_does_patience(monkeypatch, capsys):
    def stubborn(*asks):
        for number in asks:
            ask(number)
        time.sleep(10)

    for asks, status in (((2, 2), 130), ((15, 2), 143)):
        start = time.monotonic()
        assert cli.run(lambda asks=asks: stubborn(*asks), continues=True) == status
        assert time.monotonic() - start < 5
    assert "once more to stop at once" in capsys.readouterr().err
    monkeypatch.setattr(interrupts, "PATIENCE", 0.2)
    start = time.monotonic()
    assert cli.run(lambda: stubborn(15, 15), continues=True) == 143
    assert 0.1 < time.monotonic() - start < 5


STUBBORN = """
import os, signal, sys, time
from closure_jax import interrupts
from closure_jax.commands import cli
interrupts.PATIENCE, interrupts.GRACE = 0.3, 0.3

def work():
    print("works", flush=True)
    while True:  # as what swallows any exception, or a compiler, in which no handler runs
        try:
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM] if sys.argv[1] == "blocks" else [])
            time.sleep(60)
        except BaseException:
            pass

cli.run(work, continues=True)
"""


@pytest.mark.parametrize("kind", ["swallows", "blocks"])
def test_work_that_can_not_be_interrupted_is_ended(kind):
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN, kind], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "works\n"
        start = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143 and time.monotonic() - start < 20
    assert said == "closure_jax: stopped where it was; the same command continues\n"


def test_what_does_not_continue_is_interrupted_as_ever(capsys):
    assert cli.run(lambda: ask(signal.SIGINT)) == 130
    assert capsys.readouterr().err == "closure_jax: stopped\n"


def test_a_sweep_that_is_asked_asks_its_run_and_waits_for_it(tmp_path, monkeypatch):
    """The run is a process that takes a while to save, and leaves a file."""
    code = """
import pathlib, signal, sys, time
def save(*_):
    time.sleep(0.5)
    pathlib.Path("saved").touch()
    sys.exit(143)
signal.signal(signal.SIGTERM, save)
pathlib.Path("ready").touch()
time.sleep(60)
"""
    monkeypatch.chdir(tmp_path)
    popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", lambda command: popen([sys.executable, "-c", code]))
    run = Run(tmp_path / "fm_ga.py", "tiny", (), tmp_path / "run")

    def start():
        asking = popen(
            [sys.executable, "-c", "import os, pathlib, sys, time\n"
             "while not pathlib.Path('ready').exists(): time.sleep(0.05)\n"
             "os.kill(int(sys.argv[1]), 15)", str(os.getpid())]
        )  # fmt: skip
        status = run.start()
        asking.wait()
        return status

    with interrupts.listening():
        assert start() == 143
    assert (tmp_path / "saved").exists()


IMPORTING = """
import os, runpy, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # as the launcher leaves it
if sys.argv[1] == "before":
    os.kill(os.getpid(), signal.SIGINT)
else:
    class Asks:
        def find_spec(self, name, *_):
            if name == "jax":
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                except KeyboardInterrupt:
                    pass  # as imports within C do
    sys.meta_path.insert(0, Asks())
sys.argv = ["closure_jax", "compare"]
runpy.run_module("closure_jax", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "within"])
def test_an_interrupt_of_the_imports_is_one_line(when):
    result = subprocess.run([sys.executable, "-c", IMPORTING, when], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "closure_jax: stopped\n")
