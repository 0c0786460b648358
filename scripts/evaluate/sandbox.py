"""Run programs that a model wrote, without network or our files, with limited time, memory and processes.

The sandbox is made by bubblewrap if it is installed, and otherwise with the namespaces of util-linux. Before a sandbox
is used, a probe program tries to break out of it, and must fail.
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
"""Bytes of memory that all processes of a program may use together, and that each may allocate."""

BETWEEN_CHECKS = 0.1
"""Seconds between two checks of the memory that all processes of a program use together."""

PROCESSES = 16
"""Most processes and threads of a program."""

DISK = 64 * 2**20
"""Bytes of scratch space in memory, which is discarded when the program ends."""

RUNNER = Path(__file__).with_name("sandbox_runner.py").read_text(encoding="utf-8")
"""Source of the script that starts the program inside the sandbox."""

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
"""Shell script that builds a new root from read-only folders and an empty /tmp, and runs a command in it."""

_UNMOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
detach, read_only = 2, 1 | 32 | 4096  # MNT_DETACH; MS_RDONLY, MS_REMOUNT, MS_BIND
if libc.umount2(b"/old", detach) or libc.mount(None, b"/", None, read_only, None):
    sys.exit(os.strerror(ctypes.get_errno()))
os.chdir("/tmp")
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Unmounts the old root. Command-line tools cannot, since they need /proc, which the new root does not have."""

PROBE = """
import os, socket, threading
for path in {forbidden!r}:
    try:
        os.path.isdir(path) and os.listdir(path) or open(path).close()
    except OSError:
        continue
    raise SystemExit("programs can read " + path)
for folder in ("/", "/usr", "/dev", "/dev/shm", {home!r}):
    try:
        open(folder + "/.probe", "w").close()
    except OSError:
        continue
    raise SystemExit("programs can write to " + folder)
open("/tmp/probe", "w").close()
try:
    socket.create_connection(("127.0.0.1", {port}), 1)
except OSError:
    pass
else:
    raise SystemExit("programs can reach the network")
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
    raise SystemExit("programs can fork without limit")
"""
"""A program that succeeds only if it cannot break out of the sandbox."""

_numbers = itertools.count()


@dataclass(frozen=True)
class Sandbox:
    """A kind of sandbox: `bubblewrap`, `namespaces`, or `none` for limits only."""

    kind: str

    def command(self, empty: Path) -> list[str]:
        """The command that starts the runner inside the sandbox.

        Args:
            empty: an empty folder on which the new root is mounted.
        """
        interpreter = [str(Path(sys._base_executable).resolve()), "-I", "-S", "-c"]  # type: ignore[attr-defined]
        python = [*interpreter, RUNNER, str(MEMORY), str(PROCESSES)]
        if self.kind == "none":
            return python
        # Root in a user namespace, as in a container, cannot switch to another user here.
        is_root = os.geteuid() == 0 and Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
        drop = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"]
        if is_root:
            # A separate, unused user ID for each program, so that the limit on processes applies to it alone.
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
        return [*command, *interpreter, _UNMOUNT, *drop, *python]


def _find(tool: str) -> str:
    """Path of a tool, which may be outside the PATH of the sandbox."""
    return shutil.which(tool) or tool


def _readable() -> list[str]:
    """What a program can read: the system's libraries, and Python without our packages."""
    system = [path for path in ("/usr", "/bin", "/lib", "/lib64", "/sbin") if os.path.lexists(path)]
    prefix = str(Path(sys.base_prefix).resolve())
    return system if prefix.startswith("/usr") else [*system, prefix]


@cache
def find_sandbox(may_do_without: bool = False) -> Sandbox:
    """The first kind of sandbox that passes the probe on this machine.

    Args:
        may_do_without: if no sandbox works, run programs with their limits only.

    Raises:
        UserError: no sandbox works.
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
        f"no sandbox for generated programs works here ({'; '.join(reasons)}); install bubblewrap, remove the "
        "benchmark, or set its unsafe_code to run them as your own user"
    )


def probe(sandbox: Sandbox) -> str:
    """Why a sandbox does not work on this machine; empty if it does."""
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
    """Run a program in a sandbox.

    Args:
        seconds: limit on its processor time. The limit on wall-clock time is three times as long plus five seconds, for
            busy machines.

    Returns:
        An empty text if the program ran to its end, otherwise the reason why it did not.
    """
    token = secrets.token_hex(16)  # the program does not know it
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
            with suppress(BrokenPipeError), process.stdin as stdin:
                stdin.write(f"{token}\n{program}".encode("utf-8", "replace"))
            output = _read(process, deadline)
        finally:
            ran_out = time.monotonic() >= deadline
            timer.cancel()
            _kill(process)
            process.wait()
            process.stdout.close()
    if ran_out:
        return "timed out"
    if output == token.encode():
        return ""
    return output.decode("utf-8", "replace") or f"it was killed (exit code {process.returncode})"


def _read(process: "subprocess.Popen[bytes]", deadline: float, limit: int = 200) -> bytes:
    """The first `limit` bytes of the output until it ends or the deadline passes.

    A program may write without end. If its processes use too much memory together, that is returned instead.
    """
    assert process.stdout
    output = b""
    while len(output) < limit and (left := deadline - time.monotonic()) > 0:
        if select.select([process.stdout], [], [], min(left, BETWEEN_CHECKS))[0]:
            if not (block := os.read(process.stdout.fileno(), limit - len(output))):
                break
            output += block
        elif _memory_of(process) > MEMORY:
            return b"its processes used too much memory together"
    return output


def _memory_of(process: "subprocess.Popen[bytes]") -> int:
    """Resident memory of all processes of a sandbox, in bytes. Shared pages count once for each process."""
    used = 0
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                used += child.memory_info().rss
    return used


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a sandbox with all its processes.

    A process can leave its process group, but the first one remains our descendant, and all others die with it.
    """
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.kill()
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
