"""The foreground stack with small children: what it starts, heals, ends, and what it leaves alone."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ragsite import processes
from ragsite.stack import StackError, check_port
from tests.ragsite.helpers import CHECKOUT


@dataclass
class Running:
    """A stack in another process, and what it has said so far."""

    process: subprocess.Popen[str]
    data: Path
    said: list[str] = field(default_factory=list)

    def wait_for(self, words: str) -> str:
        """The next line that holds the words; the fixture kills a stack that hangs, which ends the wait."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.rstrip("\n"))
            if words in line:
                return self.said[-1]
        raise AssertionError(f"never said {words!r}, but: {self.said}")

    def parts(self) -> dict[str, int]:
        record = json.loads((self.data / "run" / "stack.json").read_text())
        return {name: pid for name, (pid, _) in record.items()}

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        assert self.process.stdout is not None
        self.said += self.process.stdout.read().splitlines()
        return self.process.wait(timeout=30)


@pytest.fixture
def port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number: int = free.getsockname()[1]
    return number


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[object]:
    started: list[Running] = []
    watchdogs: list[threading.Timer] = []

    def start_stack(*kinds: str, port: int = port) -> Running:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.ragsite.stack_script", str(tmp_path / "the data"), str(port)),
                *(kinds or ("calm",)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=CHECKOUT,
            start_new_session=True,
            # Under nohup(1) the tests themselves have it ignored, which a stack would keep to.
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
        )
        started.append(Running(process, tmp_path / "the data"))
        watchdogs.append(threading.Timer(60, process.kill))
        watchdogs[-1].start()
        return started[-1]

    yield start_stack
    for watchdog in watchdogs:
        watchdog.cancel()
    for running in started:
        if running.process.poll() is None:
            running.end()
        assert running.process.stdout is not None
        running.process.stdout.close()


def all_dead(*pids: int) -> bool:
    return processes.wait_until(lambda: not any(processes.is_alive(pid) for pid in pids), seconds=5)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_was_started_and_nothing_else(number: signal.Signals, start, port: int) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        stack = start()
        stack.wait_for("READY")
        stack.wait_for("working")
        pids = stack.parts()
        assert set(pids) == {"web", "worker"}
        assert stack.end(number) == 0
        assert stack.said[-1] == "STOPPED"
        assert all_dead(*pids.values())
        assert bystander.poll() is None
        assert not (stack.data / "run" / "stack.json").exists()
        check_port(host="127.0.0.1", port=port)
    finally:
        bystander.kill()
        bystander.wait()


def test_lines_are_labelled_with_their_part(start) -> None:
    stack = start()
    assert stack.wait_for("serving") == "web    | serving"
    stack.wait_for("READY")
    assert stack.wait_for("working") == "worker | working"


def test_the_stack_is_ready_when_its_set_up_is_done_and_the_rest_starts_then(start) -> None:
    stack = start("calm", "short")
    stack.wait_for("READY")
    assert "setup  | set up" in stack.said
    assert "worker | working" not in stack.said
    stack.wait_for("working")
    assert set(stack.parts()) == {"web", "worker"}, "what is done is not started again"


def test_a_set_up_that_fails_ends_the_stack_with_a_sentence(start) -> None:
    stack = start("calm", "failing")
    assert stack.process.stdout is not None
    stack.said += stack.process.stdout.read().splitlines()
    assert stack.process.wait(timeout=30) == 1
    assert "setup  | no database" in stack.said
    assert stack.said[-1] == "The setup process failed (code 2): its lines above say why."
    assert "worker | working" not in stack.said


def test_what_a_child_started_ends_too(start) -> None:
    stack = start("parent")
    grandchild = int(stack.wait_for("child ").split()[-1])
    assert processes.is_alive(grandchild)
    assert stack.end() == 0
    assert all_dead(grandchild)


def test_a_child_that_does_not_listen_is_ended_on_a_second_ctrl_c(start) -> None:
    stack = start("deaf")
    stack.wait_for("deaf")
    pids = stack.parts()
    begun = time.monotonic()
    stack.process.send_signal(signal.SIGINT)
    time.sleep(1.5)
    assert stack.process.poll() is None, "it waits for the child"
    assert stack.end(signal.SIGINT) == 0
    assert time.monotonic() - begun < 6
    assert all_dead(*pids.values())


def test_a_killed_child_is_started_again(start) -> None:
    stack = start()
    stack.wait_for("working")
    before = stack.parts()
    os.kill(before["worker"], signal.SIGKILL)
    assert "ended with code -9 and is started again" in stack.wait_for("ended with code")
    stack.wait_for("working")
    after = stack.parts()
    assert after["web"] == before["web"]
    assert after["worker"] != before["worker"]


def test_the_killed_childs_own_children_do_not_stay(start) -> None:
    stack = start("parent")
    grandchild = int(stack.wait_for("child ").split()[-1])
    os.kill(stack.parts()["worker"], signal.SIGKILL)
    stack.wait_for("child ")
    assert all_dead(grandchild)


def test_a_child_that_keeps_dying_ends_the_stack_with_a_sentence(start, monkeypatch) -> None:
    stack = start("dying")
    stack.wait_for("READY")
    assert stack.process.stdout is not None
    stack.said += stack.process.stdout.read().splitlines()
    assert stack.process.wait(timeout=60) == 1
    assert stack.said.count("worker | cannot work") == 5
    assert stack.said[-1].startswith(
        "The worker process ended 5 times soon after its start (last with code 3)"
    )


def test_a_killed_stack_leaves_nothing_that_runs(start) -> None:
    stack = start()
    stack.wait_for("working")
    pids = stack.parts()
    os.kill(stack.process.pid, signal.SIGKILL)
    assert all_dead(*pids.values()), "the kernel tells the children of their parent's death"


def test_orphans_that_ignore_it_are_ended_by_the_next_start(start) -> None:
    killed = start("deaf")
    killed.wait_for("deaf")
    orphan = killed.parts()["worker"]
    os.kill(killed.process.pid, signal.SIGKILL)
    killed.process.wait()
    assert processes.is_alive(orphan)
    following = start()
    following.wait_for("READY")
    assert all_dead(orphan)


def test_a_stranger_with_an_orphans_number_is_left_alone(start, tmp_path: Path) -> None:
    stranger = subprocess.Popen(["sleep", "600"], process_group=0)
    try:
        mark = processes.read_mark(stranger.pid)
        assert mark is not None
        record = tmp_path / "the data" / "run" / "stack.json"
        record.parent.mkdir(parents=True)
        record.write_text(json.dumps({"worker": [mark.pid, mark.started - 1]}))
        start().wait_for("READY")
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_second_stack_of_the_same_data_folder_is_refused(start, port: int) -> None:
    first = start()
    first.wait_for("READY")
    second = start(port=port + 1)
    assert second.process.stdout is not None
    message = second.process.stdout.read()
    assert second.process.wait(timeout=10) == 1
    assert f"already runs on {first.data} (process {first.process.pid})" in message
    assert message.count("\n") == 1
    assert first.process.poll() is None


def test_a_taken_port_is_refused_with_the_way_out(start, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        stack = start()
        assert stack.process.stdout is not None
        message = stack.process.stdout.read()
        assert stack.process.wait(timeout=10) == 1
    assert message == (
        f"Port {port} is taken: stop what uses it or choose another with PORT={port + 1} make run.\n"
    )


def test_an_address_that_is_not_ours_is_said(port: int) -> None:
    with pytest.raises(StackError, match="is not usable"):
        check_port(host="192.0.2.1", port=port)


def test_nobody_reading_the_log_ends_the_stack(start) -> None:
    stack = start("parent")
    grandchild = int(stack.wait_for("child ").split()[-1])
    pids = stack.parts()
    assert stack.process.stdout is not None
    # `make run | head`: the next line finds the pipe closed.
    stack.process.stdout.close()
    stack.process.stdout = io.StringIO()
    os.kill(pids["worker"], signal.SIGKILL)
    assert stack.process.wait(timeout=20) == 0
    assert all_dead(grandchild, *pids.values())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_make_alone_ends_what_it_runs(number: signal.Signals, tmp_path: Path) -> None:
    # GNU make passes SIGTERM on, waits for ever after a SIGINT, and after a SIGKILL can do nothing.
    (tmp_path / "Makefile").write_text('run:\n\t@exec "$(PYTHON)" -m tests.ragsite.followed_script\n')
    make = subprocess.Popen(
        ["make", "-f", str(tmp_path / "Makefile"), f"PYTHON={sys.executable}", "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=CHECKOUT,
        # Under `make test` a make would take itself for a part of that one, and say so first.
        env={name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert make.stdout is not None
    pid = int(make.stdout.readline())
    try:
        make.send_signal(number)
        assert all_dead(pid)
    finally:
        make.kill()
        make.wait()
        make.stdout.close()
