"""Run programs that a model wrote: without network, without our files, and within bounds of time, memory and processes.

bubblewrap builds the sandbox where it is installed, and the namespaces of util-linux where it is not. Either proves
itself before it is used: a probing program must not get out of it.
"""

import itertools
import os
import secrets
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from scripts.common.errors import UserError

MEMORY = 512 * 2**20
"""Bytes that a program may have, and each of its processes may ask for."""

BETWEEN_LOOKS = 0.1
"""Seconds between two looks at what all processes of a program hold together."""

PROCESSES = 16
"""Processes and threads that a program may have."""

DISK = 64 * 2**20
"""Bytes that a program may write; they are gone when it ends."""

RUNNER = Path(__file__).with_name("sandboxed.py").read_text(encoding="utf-8")
"""What starts the program inside."""

_NAMESPACES = """
set -e
root=$1; shift
mount -t tmpfs -o mode=755,size=1m tmpfs "$root"
while [ "$1" != -- ]; do
  if [ -h "$1" ]; then ln -s "$(readlink "$1")" "$root$1"
  else
    mkdir -p "$root$1"; mount --rbind "$1" "$root$1"
    while read -r _ _ _ _ point _; do
      point=$(printf %b "$point")
      case $point in "$root$1" | "$root$1"/*)
        mount -o remount,bind,ro,nosuid,nodev "$point" || mount -o remount,bind,ro "$point"
      esac
    done < /proc/self/mountinfo
  fi; shift
done; shift
mkdir "$root/tmp" "$root/dev" "$root/old"
mount -t tmpfs -o mode=1777,size=$1 tmpfs "$root/tmp"; shift
for device in null zero urandom; do touch "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
cd "$root"; pivot_root . old; exec "$@"
"""
"""Makes a root of its own out of read-only folders and an empty /tmp, and goes on there."""

_SHUT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
detach, read_only = 2, 1 | 32 | 4096  # MNT_DETACH; MS_RDONLY, MS_REMOUNT, MS_BIND
if libc.umount2(b"/old", detach) or libc.mount(None, b"/", None, read_only, None):
    sys.exit(os.strerror(ctypes.get_errno()))
os.chdir("/tmp")
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Lets go of the old root; the command line tools for it need /proc, which is not there any more."""

PROBE = """
import os, socket, threading
for path in {forbidden!r}:
    try:
        os.path.isdir(path) and os.listdir(path) or open(path).close()
    except OSError:
        continue
    raise SystemExit("it reads " + path)
for folder in ("/", "/usr", "/dev", "/dev/shm", {home!r}):
    try:
        open(folder + "/.probe", "w").close()
    except OSError:
        continue
    raise SystemExit("it writes to " + folder)
open("/tmp/probe", "w").close()
try:
    socket.create_connection(("127.0.0.1", {port}), 1)
except OSError:
    pass
else:
    raise SystemExit("it reaches the network")
children = 0
for _ in range(4 * {processes}):
    try:
        child = os.fork()
    except OSError:
        break
    if not child:
        import time
        time.sleep(60)
    children += 1
else:
    raise SystemExit("it forks without end")
"""
"""A program that ends well only where it is shut in."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Sandbox:
    """One way to shut a program in, as it is told in the results."""

    kind: str

    def command(self, empty: Path) -> list[str]:
        """The command that runs the runner inside.

        Args:
            empty: a folder of this run, over which a root is built.
        """
        interpreter = [str(Path(sys._base_executable).resolve()), "-I", "-S", "-c"]  # type: ignore[attr-defined]
        python = [*interpreter, RUNNER, str(MEMORY), str(PROCESSES)]
        if self.kind == "none":
            return python
        # Root of a container's own users is an ordinary user here: it cannot become another.
        is_root = os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
        drop = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]
        if is_root:
            # A user for each program, whose processes are counted by themselves; nobody has this number.
            user = str(2_000_000_000 + (os.getpid() * 1_000 + next(_numbers)) % 100_000_000)
            drop += ["--reuid", user, "--regid", user, "--clear-groups"]
        if self.kind == "bubblewrap":
            command = [_find("bwrap"), "--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
            command += ["--cap-add", "ALL"] if is_root else ["--unshare-user", "--cap-drop", "ALL"]
            for path in _readable():
                link = Path(path).is_symlink()
                command += ["--symlink", str(Path(path).readlink()), path] if link else ["--ro-bind", path, path]
            command += ["--dev", "/dev", "--perms", "1777", "--size", str(DISK), "--tmpfs", "/tmp"]
            command += ["--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp"]
            return [*command, "--die-with-parent", "--new-session", *(drop if is_root else []), *python]
        command = [_find("unshare"), "--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child"]
        command += [] if is_root else ["--user", "--map-root-user"]
        command += ["sh", "-c", _NAMESPACES, "sh", str(empty), *_readable(), "--", str(DISK)]
        return [*command, *interpreter, _SHUT, *drop, *python]


def _find(tool: str) -> str:
    """Where a tool is, which need not be where programs inside look for theirs."""
    return shutil.which(tool) or tool


def _readable() -> list[str]:
    """What a program sees of this machine: the system's libraries, and Python without our packages."""
    system = [path for path in ("/usr", "/bin", "/lib", "/lib64", "/sbin") if os.path.lexists(path)]
    prefix = str(Path(sys.base_prefix).resolve())
    return system if prefix.startswith("/usr") else [*system, prefix]


@cache
def find_sandbox(may_do_without: bool = False) -> Sandbox:
    """The first kind of sandbox that holds here.

    Args:
        may_do_without: run programs with their bounds alone where no sandbox can be had.

    Raises:
        UserError: none can be had.
    """
    reasons = []
    for kind, tool in (("bubblewrap", "bwrap"), ("namespaces", "unshare")):
        if not shutil.which(tool):
            reasons.append(f"{tool} is not installed")
            continue
        reason = probe(Sandbox(kind))
        if not reason:
            return Sandbox(kind)
        reasons.append(f"{tool}: {reason}")
    if may_do_without:
        return Sandbox("none")
    raise UserError(
        f"no sandbox for the programs that a model writes can be had here ({'; '.join(reasons)}); install bubblewrap, "
        "or set unsafe_code of the benchmark to run them as you, or remove the benchmark"
    )


def probe(sandbox: Sandbox) -> str:
    """What is wrong with a sandbox on this machine; nothing when it holds."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, tempfile.NamedTemporaryFile() as secret:
        program = PROBE.format(
            forbidden=[secret.name, str(Path(__file__).resolve()), "/proc/1/environ", "/sys", "/etc/passwd"],
            home=str(Path.home()),
            port=server.getsockname()[1],
            processes=PROCESSES,
        )
        try:
            return run_program(program, sandbox, seconds=10)
        except OSError as error:
            return str(error)


def run_program(program: str, sandbox: Sandbox, seconds: float) -> str:
    """Run a program to its end.

    Args:
        seconds: of processor time; on a busy machine it may take three times as long, and five more to start.

    Returns:
        Nothing when it came to its end, else why it did not, in a few words.
    """
    passed = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True) as empty:
        process = subprocess.Popen(
            [*sandbox.command(Path(empty)), str(int(seconds) + 1)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
            cwd=empty,
            start_new_session=True,
        )
        assert process.stdin and process.stdout
        wait = 3 * seconds + 5
        deadline = time.monotonic() + wait
        timer = threading.Timer(wait, _kill, [process])
        timer.start()
        try:
            with suppress(BrokenPipeError), process.stdin as given:
                given.write(f"{passed}\n{program}".encode("utf-8", "replace"))
            said = _read(process, deadline)
        finally:
            ran_out = time.monotonic() >= deadline
            timer.cancel()
            _kill(process)
            process.wait()
            process.stdout.close()
    if ran_out:
        return "timed out"
    if said == passed.encode():
        return ""
    return said.decode("utf-8", "replace") or f"it was stopped ({process.returncode})"


def _read(process: "subprocess.Popen[bytes]", deadline: float, limit: int = 200) -> bytes:
    """What comes until the end of the output, a limit, since it may be written to for ever, or a moment.

    It is cut short where the program's processes hold too much memory together.
    """
    assert process.stdout
    said = b""
    while len(said) < limit and (left := deadline - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], min(left, BETWEEN_LOOKS))[0]:
            if not (block := os.read(process.stdout.fileno(), limit - len(said))):
                break
            said += block
        elif _memory_of(process) > MEMORY:
            return b"its processes held too much memory together"
    return said


def _memory_of(process: "subprocess.Popen[bytes]") -> int:
    """Bytes that all processes of a sandbox hold together; those that they share count for each."""
    held = 0
    with suppress(psutil.NoSuchProcess):
        for below in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                held += below.memory_info().rss
    return held


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """End a sandbox with everything that was started in it.

    A program can leave its process group, but its first process stays below ours, and all others end with that one.
    """
    with suppress(psutil.NoSuchProcess):
        for below in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                below.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
