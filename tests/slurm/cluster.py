"""A real Slurm on this machine: daemons on loopback, fake GPUs, all files in one folder.

It needs root and the packages that `make test-slurm` installs. It signals only processes that it started.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "slurmdbd", "mariadbd", "mariadb-install-db")
CLIENTS = ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol", "sinfo", "sacctmgr", "sshare")
NETWORKING = ("ip", "nsenter")
ACCOUNT = "posttrain"
GPUS = 4
"""Fake H100s of each node."""

NAMESPACE, CABLE = "posttrain-nodes", ("posttrain-head", "posttrain-node")
HEAD, NODE_ADDRESS = "10.213.77.1", "10.213.77.2"
"""The network of isolated nodes: two addresses in a private range that is unlikely to be in use."""

# This works without cgroups and systemd, and nodes have the resources that the file gives them. squeue lists ended jobs
# for MinJobAge seconds; a node that does not answer for SlurmdTimeout seconds is down.
SLURM_CONF = """\
ClusterName=pretend
SlurmctldHost={host}({head})
SlurmctldPort={port}
{communication}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
SlurmdTimeout=15
SchedulerParameters=bf_interval=5,sched_interval=5
EnforcePartLimits=ALL
KillWait=30
MinJobAge=300
JobRequeue=1
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounting_port}
AccountingStoragePass={folder}/munge.socket
AccountingStorageEnforce=associations
AccountingStorageTRES=gres/gpu,gres/gpu:h100
AccountingStoreFlags=job_comment
{nodes}
PartitionName=gpu Nodes=ALL Default=YES MaxTime=24:00:00 DefaultTime=01:00:00 DefMemPerCPU=1000 State=UP
"""

NODE = (
    "NodeName={name} NodeHostname={host} NodeAddr={address} Port={port} Sockets=1 CoresPerSocket=64 ThreadsPerCore=1"
    " RealMemory=600000 Gres=gpu:h100:{gpus} State=UNKNOWN"
)

SLURMDBD_CONF = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={accounting_port}
CommunicationParameters=NoInAddrAny
SlurmUser=root
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database_port}
StorageUser=slurm
StoragePass={password}
StorageLoc=slurm_acct
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
"""

DATABASE_SETUP = """\
CREATE DATABASE IF NOT EXISTS slurm_acct;
CREATE USER IF NOT EXISTS 'slurm'@'127.0.0.1';
ALTER USER 'slurm'@'127.0.0.1' IDENTIFIED BY '{password}';
GRANT ALL ON slurm_acct.* TO 'slurm'@'127.0.0.1';
"""

WRAPPER = '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec "/usr/bin/${{0##*/}}" "$@"\n'

MUNGED = (
    "--foreground --force --key-file={folder}/munge.key --socket={folder}/munge.socket --pid-file={folder}/munge.pid"
    " --log-file={folder}/munge.log --seed-file={folder}/munge.seed"
)
MARIADBD = (
    "--no-defaults --user=root --datadir={folder}/mysql --socket={folder}/mysql.socket --pid-file={folder}/mysql.pid"
    " --bind-address=127.0.0.1 --port={database_port} --skip-name-resolve --innodb-buffer-pool-size=64M"
    " --innodb-lock-wait-timeout=900 --init-file={folder}/setup.sql"
)


def explain_unavailable() -> str:
    """Why Slurm cannot be started here; empty if it can."""
    if os.geteuid() != 0:
        return "starting Slurm needs root"
    absent = [name for name in (*DAEMONS, *CLIENTS, *NETWORKING) if not shutil.which(name, path=_path())]
    return f"not installed: {', '.join(absent)}" if absent else ""


@dataclass
class Cluster:
    """A Slurm in a folder.

    Args:
        folder: for all its files; the path must be short, since it contains sockets.
        nodes: number of nodes, all of them on this machine.
        is_cut_off: the nodes run in a network namespace from which only the controller is reachable.
    """

    folder: Path
    nodes: int = 1
    is_cut_off: bool = False
    running: dict[str, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Environment of clients. Wrappers come first in PATH, because the plugin's job step removes SLURM_CONF."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("SLURM_")}
        return kept | {"PATH": f"{self.folder}/bin:{_path()}"}

    def ask(self, *command: str) -> str:
        """The output of a client. Raises CalledProcessError if it fails."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True, timeout=60)
        return done.stdout.strip()

    def start(self) -> None:
        """Start all daemons, and return when every node is idle."""
        self._configure()
        if self.is_cut_off:
            self._cut_off()
        self._spawn("munged", "munged", *MUNGED.format(folder=self.folder).split())
        wait_for("munged", (self.folder / "munge.socket").exists)
        self._start_database()
        self.start_accounting()
        self.ask("sacctmgr", "-i", "add", "cluster", "pretend")
        self.ask("sacctmgr", "-i", "add", "account", ACCOUNT)
        self.ask("sacctmgr", "-i", "add", "user", "root", f"account={ACCOUNT}")
        self._spawn("slurmctld", "slurmctld", "-D", "-f", f"{self.folder}/slurm.conf")
        wait_for("slurmctld", lambda: "is UP" in self.ask("scontrol", "ping"))
        for node in self.node_names:
            self.start_node(node)
        wait_for("the nodes", lambda: self.ask("sinfo", "-h", "-N", "-o", "%t").split() == ["idle"] * self.nodes)

    @property
    def node_names(self) -> list[str]:
        """Names of the nodes."""
        return [f"gpu{number}" for number in range(1, self.nodes + 1)]

    def start_node(self, node: str) -> None:
        """Start a node."""
        inside = ["nsenter", f"--net=/run/netns/{NAMESPACE}"] if self.is_cut_off else []
        self._spawn(f"slurmd-{node}", *inside, "slurmd", "-D", "-f", f"{self.folder}/slurm.conf", "-N", node)

    def kill_node(self, node: str) -> None:
        """Kill a node and everything that runs on it, as a power cut would."""
        self._halt(f"slurmd-{node}", signal.SIGKILL)
        self._kill_jobs()

    def start_accounting(self) -> None:
        """Start slurmdbd."""
        self._spawn("slurmdbd", "slurmdbd", "-D")
        wait_for("slurmdbd", lambda: self.ask("sacctmgr", "-n", "show", "cluster") is not None)

    def stop_accounting(self) -> None:
        """Kill slurmdbd."""
        self._halt("slurmdbd", signal.SIGKILL)

    def stop(self) -> None:
        """End all jobs and all daemons."""
        with suppress(subprocess.SubprocessError):
            self.ask("scancel", "--user=root")
            wait_for("an empty queue", lambda: not self.ask("squeue", "-h"), seconds=45)
        for name in reversed(list(self.running)):
            self._halt(name, signal.SIGTERM)
        self._kill_jobs()
        if self.is_cut_off:
            subprocess.run(["ip", "netns", "delete", NAMESPACE], check=False)  # removes the cable too

    def _cut_off(self) -> None:
        """Make a network namespace with a virtual cable to this machine and no other route."""
        inside = f"ip -n {NAMESPACE}"
        for command in (
            f"ip netns add {NAMESPACE}",
            f"ip link add {CABLE[0]} type veth peer name {CABLE[1]} netns {NAMESPACE}",
            f"ip address add {HEAD}/30 dev {CABLE[0]}",
            f"ip link set {CABLE[0]} up",
            f"{inside} address add {NODE_ADDRESS}/30 dev {CABLE[1]}",
            f"{inside} link set {CABLE[1]} up",
            f"{inside} link set lo up",
        ):
            subprocess.run(command.split(), check=True, capture_output=True)

    def _configure(self) -> None:
        for name in ("bin", "state", "dev"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.folder.chmod(0o755)
        host = socket.gethostname().partition(".")[0]
        port, accounting_port, database_port, *node_ports = _free_ports(3 + self.nodes)
        values = {
            "folder": self.folder,
            "host": host,
            "head": HEAD if self.is_cut_off else "127.0.0.1",
            # Listen on the cable as well if the nodes are isolated, else only on loopback.
            "communication": "" if self.is_cut_off else "CommunicationParameters=NoCtldInAddrAny,NoInAddrAny",
            "port": port,
            "accounting_port": accounting_port,
            "database_port": database_port,
            "password": secrets.token_hex(12),
        }
        named = list(zip(self.node_names, node_ports, strict=True))
        address = NODE_ADDRESS if self.is_cut_off else "127.0.0.1"
        nodes = "\n".join(
            NODE.format(name=name, host=host, address=address, port=port, gpus=GPUS) for name, port in named
        )
        # Copies of /dev/null act as GPUs: Slurm assigns GPUs by number only if they have device files.
        for number in range(GPUS):
            subprocess.run(["mknod", self.folder / f"dev/nvidia{number}", "c", "1", "3"], check=True)
        devices = f"Name=gpu Type=h100 File={self.folder}/dev/nvidia[0-{GPUS - 1}] Flags=nvidia_gpu_env"
        gres = "".join(f"NodeName={name} {devices}\n" for name in self.node_names)
        for name, text, mode in (
            ("slurm.conf", SLURM_CONF.format(nodes=nodes, **values), 0o644),
            ("gres.conf", "AutoDetect=off\n" + gres, 0o644),
            ("slurmdbd.conf", SLURMDBD_CONF.format(**values), 0o600),
            ("setup.sql", DATABASE_SETUP.format(**values), 0o600),
            ("mariadbd.options", MARIADBD.format(**values), 0o600),
            *((f"bin/{client}", WRAPPER.format(**values), 0o755) for client in CLIENTS),
        ):
            (self.folder / name).write_text(text, encoding="utf-8")
            (self.folder / name).chmod(mode)
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (self.folder / "munge.key").chmod(0o600)
        for node in self.node_names:
            (self.folder / f"spool-{node}").mkdir(exist_ok=True)

    def _start_database(self) -> None:
        install = ["mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={self.folder}/mysql"]
        install += ["--auth-root-authentication-method=normal", "--skip-test-db"]
        subprocess.run(install, env=self.environment, capture_output=True, check=True)
        self._spawn("mariadbd", "mariadbd", *(self.folder / "mariadbd.options").read_text(encoding="utf-8").split())
        wait_for("mariadbd", (self.folder / "mysql.socket").exists)

    def _spawn(self, name: str, *command: str) -> None:
        with (self.folder / f"{name}.out").open("ab") as output:
            self.running[name] = subprocess.Popen(
                command,
                env=self.environment | {"SLURM_CONF": f"{self.folder}/slurm.conf"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _halt(self, name: str, number: signal.Signals) -> None:
        process = self.running.pop(name)
        process.send_signal(number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _kill_jobs(self) -> None:
        """Kill all processes of jobs: a slurmstepd outlives its slurmd."""
        mine = f"SLURM_CONF={self.folder}/slurm.conf"
        for entry in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                environment = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                is_step = (entry / "cmdline").read_bytes().startswith(b"slurmstepd")
                if mine in environment and (is_step or any(line.startswith("SLURM_JOB_ID=") for line in environment)):
                    os.kill(int(entry.name), signal.SIGKILL)


def wait_for(what: str, is_ready: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until a condition holds. Raises TimeoutError if it does not in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with suppress(subprocess.SubprocessError):
            if is_ready():
                return
        time.sleep(0.2)
    raise TimeoutError(f"waited {seconds:.0f} s for {what}")


def _path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [listener.getsockname()[1] for listener in sockets]
    for listener in sockets:
        listener.close()
    return ports
