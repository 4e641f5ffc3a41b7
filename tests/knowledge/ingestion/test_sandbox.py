"""The process that parses: what it may not do, and how its end becomes a sentence. Real processes throughout."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from knowledge.ingestion import sandbox, sandbox_wire
from knowledge.ingestion.formats.base import Block, Heading, ParsedDocument
from knowledge.ingestion.parse import ParseError, ParseLimits, parse_document
from knowledge.ingestion.sandbox import SandboxError, close_sandboxes, parse_in_sandbox

SAMPLE = b"# Title\n\nSome words.\n\n- one\n- two\n"


# The children of this nursery take a document for a program and run it in place of the parser.
EVIL = """
import knowledge.ingestion.parse as p
import knowledge.ingestion.sandbox_child as c
def evil(*, data, filename, limits):
    names = {"p": p, "filename": filename}
    exec("def run():\\n" + data.decode(), names)
    return names["run"]()
def serve(control, real=c._serve):
    p.parse_document = evil  # only now: the warm-up of the nursery needs the real one
    real(control)
c._serve = serve
"""
HELLO = "return p.ParsedDocument('', 'good', 'x/y', (), (), ())"


@pytest.fixture
def evil_child(monkeypatch):
    """Nurseries started from here on bear children that obey their document."""
    start = sandbox.BOOT.index("from knowledge")
    monkeypatch.setattr(sandbox, "BOOT", f"{sandbox.BOOT[:start]}exec({EVIL!r}); {sandbox.BOOT[start:]}")
    if sandbox._idle and sandbox._idle[-1]._process.args[3] != sandbox.BOOT:
        close_sandboxes()
    return run_in_child


@pytest.fixture(autouse=True)
def honest_children(request):
    """No nursery of another test's making."""
    if (
        sandbox._idle
        and sandbox._idle[-1]._process.args[3] != sandbox.BOOT
        and "evil_child" not in request.fixturenames
    ):
        close_sandboxes()


@pytest.fixture(scope="module", autouse=True)
def no_nursery_is_left():
    yield
    close_sandboxes()


def run_in_child(body: str, filename: str = "a.html", **limits) -> ParsedDocument:
    """As native code, by the name, so that the child ends with its document."""
    data = textwrap.indent(textwrap.dedent(body), "    ").encode()
    return parse_in_sandbox(data=data, filename=filename, limits=ParseLimits(**limits))


def refuse_in_child(body: str, **limits) -> ParseError:
    with pytest.raises(ParseError) as caught:
        run_in_child(body, **limits)
    assert "a.html" in str(caught.value)
    assert str(caught.value).endswith(".")
    return caught.value


def refuse(data: bytes = b"some words", filename: str = "a.txt", **limits) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse_in_sandbox(data=data, filename=filename, limits=ParseLimits(**limits))
    assert filename in str(caught.value)
    assert str(caught.value).endswith(".")
    return caught.value


def nursery_pid() -> int:
    return sandbox._idle[-1]._process.pid


def is_gone(pid: int, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("filename", ["a.md", "a.txt", "a.html", "a.csv", "a.conf", "a.py", "a.rst"])
def test_the_child_reads_what_the_parser_reads(filename):
    assert parse_in_sandbox(data=SAMPLE, filename=filename) == parse_document(data=SAMPLE, filename=filename)


def test_a_large_document_comes_back_whole():
    data = "".join(f"# Größe {n}\n\nText {n} 😀 {'x' * 200}\n\n" for n in range(3000)).encode()
    assert parse_in_sandbox(data=data, filename="a.md") == parse_document(data=data, filename="a.md")


def test_errors_of_the_parser_come_back_as_they_are():
    assert refuse(b"some words", max_characters=3).code == "too_large"
    assert refuse(b"%PDF-1.7 nothing", "a.pdf").code == "damaged"


def test_what_can_be_refused_at_once_starts_no_process(monkeypatch):
    close_sandboxes()
    assert refuse(b"", "a.txt").code == "empty"
    assert refuse(b"x", "a.exe").code == "unsupported_type"
    assert refuse(bytes(51 * 2**20)).code == "too_large"
    assert not sandbox._idle


@pytest.mark.parametrize(("filename", "children"), [("a.html", 3), ("a.md", 1)])
def test_only_what_python_alone_reads_may_share_a_process(evil_child, filename, children):
    body = """
        import os
        seen = getattr(p, "seen", 0)
        p.seen = seen + 1
        return p.ParsedDocument(str(os.getpid()), f"{seen}", "x/y", (), (), ())
    """
    close_sandboxes()
    parsed = [evil_child(body, filename) for _ in range(3)]
    assert len({one.title for one in parsed}) == children
    assert [one.text for one in parsed] == (["0", "0", "0"] if children == 3 else ["0", "1", "2"])
    assert len(sandbox._idle) == 1


COUNT = """
    seen = getattr(p, "seen", 0)
    p.seen = seen + 1
    return p.ParsedDocument("", f"{seen}", "x/y", (), (), ())
"""


def test_no_process_is_shared_with_another_tenant_native_code_or_after_a_failure(evil_child):
    ours, theirs = uuid.uuid4(), uuid.uuid4()

    def seen_before(tenant_id, filename="a.md", body=COUNT):
        data = textwrap.indent(textwrap.dedent(body), "    ").encode()
        return parse_in_sandbox(data=data, filename=filename, tenant_id=tenant_id).text

    close_sandboxes()
    assert [seen_before(ours), seen_before(ours)] == ["0", "1"]
    assert [seen_before(theirs), seen_before(ours)] == ["0", "0"]
    assert [seen_before(ours), seen_before(ours, "a.html"), seen_before(ours)] == ["1", "0", "0"]
    with pytest.raises(ParseError, match="KeyError"):
        seen_before(ours, body="p.seen = 5\nreturn {}['x']")
    assert seen_before(ours) == "0"
    assert seen_before(ours, body="x = b'x' * (250 << 20)" + COUNT.replace("    ", "")) == "1"
    assert seen_before(ours) == "0"


def test_what_one_document_leaves_in_a_shared_process_fails_no_other(evil_child):
    mine = "import os, signal\nif getattr(p, 'mine', 0): os.abort()\np.mine = 1\n"
    close_sandboxes()
    assert evil_child(mine + HELLO, "a.md").text == "good"
    # It steps on what the first one left, and is read in a child of its own.
    assert evil_child(mine + HELLO, "b.md").text == "good"
    with pytest.raises(ParseError, match="SIGABRT"):
        evil_child("import os; os.abort()", "c.md")


def test_the_child_has_neither_django_nor_torch_nor_our_environment(evil_child, monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    close_sandboxes()
    parsed = evil_child("""
        import os, sys
        big = [m for m in ("django", "torch", "numpy", "pydantic", "celery") if sys.modules.get(m)]
        return p.ParsedDocument(" ".join(big) or "none", " ".join(sorted(os.environ)), "x/y", (), (), ())
    """)
    assert parsed.title == "none"
    assert parsed.text == "LC_ALL MALLOC_ARENA_MAX PATH"


def test_the_child_cannot_open_files_or_sockets_or_start_programs(evil_child, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    parsed = evil_child(f"""
        import os, socket
        got = []
        def attempt(name, do):
            try:
                do()
            except OSError:
                return
            got.append(name)
        attempt("file", lambda: open({str(secret)!r}).read())
        attempt("passwd", lambda: open("/etc/passwd").read())
        attempt("parent", lambda: open("/proc/{os.getpid()}/environ").read())
        attempt("write", lambda: open({str(tmp_path / "new")!r}, "w").write("x"))
        attempt("list", lambda: os.listdir("/"))
        attempt("tcp", lambda: socket.socket().connect(("127.0.0.1", 9)))
        attempt("udp", lambda: socket.socket(type=socket.SOCK_DGRAM))
        attempt("unix", lambda: socket.socket(socket.AF_UNIX))
        attempt("program", lambda: os.execv("/bin/true", ["true"]))
        attempt("signal", lambda: os.kill({os.getpid()}, 0))
        nice = os.nice(0)
        return p.ParsedDocument(str(nice), ",".join(got), "x/y", (), (), ())
    """)
    allowed = set(parsed.text.split(",")) - {""}
    missing = {"file", "passwd", "parent", "write", "list", "signal"} if not has_landlock() else set()
    assert allowed <= missing
    assert int(parsed.title) >= 5
    assert not (tmp_path / "new").exists()


def has_landlock() -> bool:
    import ctypes

    return ctypes.CDLL(None, use_errno=True).syscall(444, None, 0, 1) >= 1


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("while True: pass", "too_slow", "1 seconds of work"),
        ("x = [bytes(1 << 20) for _ in range(3000)]", "out_of_memory", "512 MB"),
        ("x = bytearray(3 << 30)", "out_of_memory", "512 MB"),
        ("import os; os.kill(os.getpid(), 11)", "crashed", "SIGSEGV"),
        ("import os; os.abort()", "crashed", "SIGABRT"),
        ("import os; os._exit(3)", "crashed", "crashed"),
        ("import ctypes; ctypes.string_at(0)", "crashed", "SIGSEGV"),
        ("f = lambda n: f(n + 1); f(0)", "too_deep", "nested"),
        ("return {}['x']", "damaged", "KeyError"),
        ("return p.ParsedDocument('t', 'x' * (5 << 20), 'x/y', (), (), ())", "too_much_output", "more text"),
        ("return p.ParsedDocument('t', 'a\\0b', 'x/y', (), (), ())", "crashed", "control"),
        ("return p.ParsedDocument('t', 'ab', 'x/y', (), (p.Block(0, 9, 'table'),), ())", "crashed", "block"),
    ],
)
def test_every_end_of_a_parser_has_its_reason_and_the_next_document_parses(evil_child, body, code, words):
    error = refuse_in_child(body, cpu_seconds=1, memory_bytes=512 * 2**20, max_characters=2**20)
    assert error.code == code
    assert words in str(error)
    assert evil_child(HELLO).text == "good"


def test_a_shared_process_has_the_whole_limit_for_each_document_and_is_replaced_when_it_ends(evil_child):
    busy = "import time\nend = time.process_time() + 0.7\nwhile time.process_time() < end: pass\n" + HELLO
    assert [evil_child(busy, "a.md", cpu_seconds=1).text for _ in range(2)] == ["good", "good"]
    with pytest.raises(ParseError, match="1 seconds of work"):
        evil_child("while True: pass", "a.md", cpu_seconds=1)
    assert evil_child(HELLO, "a.md").text == "good"


def test_a_parser_that_sleeps_is_ended_by_the_clock(evil_child):
    assert evil_child(HELLO).text == "good"
    pid, begin = nursery_pid(), time.monotonic()
    assert refuse_in_child("import time; time.sleep(60)", wall_seconds=0.3).code == "too_slow"
    assert time.monotonic() - begin < 5
    assert is_gone(pid)


def test_a_child_that_does_not_even_read_is_ended_by_the_clock(monkeypatch):
    start = sandbox.BOOT.index("from knowledge")
    deaf = (
        "import knowledge.ingestion.sandbox_child as c, time; c._parse_all = lambda channel: time.sleep(60); "
    )
    monkeypatch.setattr(sandbox, "BOOT", sandbox.BOOT[:start] + deaf + sandbox.BOOT[start:])
    assert refuse(b"x" * 2_000_000, wall_seconds=0.3).code == "too_slow"


def test_the_caller_cancels_within_two_seconds(evil_child):
    class Cancelled(Exception):
        pass

    def stop() -> None:
        raise Cancelled

    assert evil_child(HELLO).text == "good"
    pid, begin = nursery_pid(), time.monotonic()
    with pytest.raises(Cancelled):
        parse_in_sandbox(data=b"    import time; time.sleep(60)", filename="a.html", on_tick=stop)
    assert time.monotonic() - begin < 2
    assert is_gone(pid)


def test_a_nursery_that_was_killed_is_replaced():
    parse_in_sandbox(data=SAMPLE, filename="a.md")
    os.kill(nursery_pid(), signal.SIGKILL)
    assert parse_in_sandbox(data=SAMPLE, filename="a.md").title == "Title"


def test_a_child_never_has_more_than_its_first_limits_and_others_get_theirs(evil_child):
    ask = "import resource\nreturn p.ParsedDocument('', str(resource.getrlimit(resource.RLIMIT_AS)[1]), 'x/y', (), (), ())"
    sizes = [256 * 2**20, 512 * 2**20, 512 * 2**20]
    assert [int(evil_child(ask, "a.md", memory_bytes=size).text) for size in sizes] == sizes


def test_a_nursery_that_cannot_start_is_no_fault_of_the_document(monkeypatch):
    close_sandboxes()
    monkeypatch.setattr(sandbox, "BOOT", "raise SystemExit(1)")
    with pytest.raises(SandboxError) as caught:
        parse_in_sandbox(data=SAMPLE, filename="a.md")
    assert caught.value.permanent is False
    close_sandboxes()


def test_threads_parse_at_once_and_forked_workers_have_nurseries_of_their_own():
    results: list[str] = []
    threads = [
        threading.Thread(
            target=lambda n=n: results.extend(
                parse_in_sandbox(data=f"# {n}-{i}\n\nx".encode(), filename="a.md").title for i in range(5)
            )
        )
        for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(f"{n}-{i}" for n in range(3) for i in range(5))
    assert 1 <= len(sandbox._idle) <= 2
    ours = nursery_pid()
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        with suppress(BaseException):
            title = parse_in_sandbox(data=SAMPLE, filename="a.md").title
            os.write(write, f"{title} {nursery_pid()}".encode())
            close_sandboxes()
        os._exit(0)
    os.waitpid(pid, 0)
    title, theirs = os.read(read, 100).decode().split()
    os.close(read)
    os.close(write)
    assert title == "Title"
    assert int(theirs) != ours
    assert parse_in_sandbox(data=SAMPLE, filename="a.md").title == "Title"


def test_nothing_outlives_a_killed_caller():
    code = """
        import sys, threading, time
        from knowledge.ingestion import sandbox
        sandbox.parse_in_sandbox(data=b"some words", filename="a.txt")
        print(sandbox._idle[-1]._process.pid, flush=True)
        time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 5
    while not children.read_text().split() and time.monotonic() < deadline:
        time.sleep(0.02)
    child = int(children.read_text().split()[0])
    process.kill()
    process.wait()
    process.stdout.close()
    assert is_gone(pid)
    assert is_gone(child)


def make_document() -> ParsedDocument:
    return ParsedDocument(
        "Ä",
        "héad\n\nbody 😀",
        "x/y",
        (Heading(0, 1, "héad"),),
        (Block(0, 4, "heading"), Block(6, 12, "list")),
        (0, 6),
        "Page 2 is ä picture.",
    )


def test_a_document_survives_the_wire():
    head, *parts = sandbox_wire.write_document(make_document())
    kind, sizes = sandbox_wire.read_sizes(head, limits=ParseLimits())
    assert [len(part) for part in parts] == sizes
    assert sandbox_wire.read_answer(kind, [bytearray(p) for p in parts], media_type="x/y") == make_document()


def test_a_heading_that_no_parser_gives_is_refused():
    document = make_document()
    long = replace(document.headings[0], title="x" * 201)
    head, *parts = sandbox_wire.write_document(replace(document, headings=(long,)))
    kind, _ = sandbox_wire.read_sizes(head, limits=ParseLimits())
    with pytest.raises(sandbox_wire.WireError, match="out of bounds"):
        sandbox_wire.read_answer(kind, [bytearray(part) for part in parts], media_type="x/y")


def test_no_answer_of_a_hostile_child_does_more_than_raise():
    """Every byte of a real answer, spoiled in turn, is refused or read as another document."""
    head, *parts = sandbox_wire.write_document(make_document())
    whole = head + b"".join(parts)
    limits = ParseLimits(max_characters=1000, max_pages=10)
    outcomes = set()
    for index in range(len(whole)):
        for value in (0, 1, 0x7F, 0x80, 0xFF):
            spoiled = whole[:index] + bytes([value]) + whole[index + 1 :]
            try:
                kind, sizes = sandbox_wire.read_sizes(spoiled[: len(head)], limits=limits)
                rest, cut = spoiled[len(head) :], []
                for size in sizes:
                    cut.append(bytearray(rest[:size]))
                    rest = rest[size:]
                parsed = sandbox_wire.read_answer(kind, cut, media_type="x/y")
                assert all(0 <= b.start <= b.end <= len(parsed.text) for b in parsed.blocks)
                outcomes.add("read")
            except (sandbox_wire.WireError, ParseError) as error:
                outcomes.add(type(error).__name__)
    assert outcomes == {"read", "WireError", "TooMuchError"}
