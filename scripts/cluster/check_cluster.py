"""Tell what the cluster has against what a run asks for, line by line, and what to do where it does not fit.

What jobs would ask for is written by the functions of Snakemake's executor that write it when they are submitted, and
SLURM judges it. Then a tiny job runs on a compute node: whether the environment can be imported there, which GPUs it
sees, and whether it writes into the run's folder.
"""

import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string

from scripts.cluster.probe_node import reaches_hub
from scripts.cluster.slurm import ask
from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.files import read_json
from scripts.plan.shape import find_shape

MINUTES = 10
"""Time limit of the tiny job."""

WAIT = 300
"""Seconds that it may wait in the queue and run."""

FIRST_LOOK = 3
"""SLURM must remember an ended job for so many times the seconds after which Snakemake first looks at it."""


@dataclass(frozen=True)
class Finding:
    """One line of the table: what was looked at, what was found, and what to do; nothing to do where all is well."""

    what: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{'NO' if self.advice else 'ok':3} {self.what:22} {self.found}" + (
            f"\n{'':26} -> {self.advice}" if self.advice else ""
        )


class Request:
    """What jobs of a rule ask for, as the executor reads it of a job."""

    def __init__(self, resources: dict[str, Any]) -> None:
        self.resources = Resources(resources)
        self.threads = self.resources.get("_cores", 1)

    def command(self, **other: Any) -> list[str]:
        """The command that submits such a job, with other resources in the place of its own."""
        asked = Request(self.resources | other)
        account, partition = (asked.resources.get(name) for name in ("slurm_account", "slurm_partition"))
        named = {
            "run_uuid": "check_cluster",
            "slurm_logfile": "/dev/null",
            "comment_str": "check_cluster",
            "account": f"-A {shlex.quote(str(account))}" if account else "",
            "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
            "workdir": str(Path.cwd()),
        }
        return shlex.split(get_submit_command(asked, named) + set_gres_string(asked))


class Resources(dict[str, Any]):
    """Resources by name, which the executor also reads as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the whole configuration, as JSON")
    parser.add_argument("--requests", type=json.loads, required=True, help="resources of the jobs by rule, as JSON")
    parser.add_argument("--first-look", type=int, required=True, help="seconds until Snakemake looks at a new job")
    parser.add_argument("--work", type=Path, required=True, help="the run's folder of heavy files")
    options = parser.parse_args()

    if not shutil.which("sbatch"):
        raise UserError("no SLURM here: sbatch is not in the path; start this on the cluster's login node")
    config = Config.model_validate_json(options.config)
    requests = {rule: Request(resources) for rule, resources in options.requests.items()}
    findings = []
    for finding in check_cluster(config, requests, options.first_look, options.work):
        say(str(finding))
        findings.append(finding)
    if unfit := sum(bool(finding.advice) for finding in findings):
        raise UserError(f"{unfit} of {len(findings)} lines above say what to do before the run is submitted")


def check_cluster(config: Config, requests: dict[str, Request], first_look: int, work: Path) -> Iterator[Finding]:
    """All findings, the cheap ones first."""
    first = next(iter(requests.values()))
    yield check_partition(first)
    yield check_memory_of_jobs(first_look)
    for rule, request in requests.items():
        yield check_request(rule, request)
    yield from check_node(requests.get("run_benchmark", first), work)
    yield check_downloads(config, work)
    yield check_disk(config, work)


def check_partition(request: Request) -> Finding:
    """The partition of the profile is there and up."""
    name = request.resources.get("slurm_partition")
    if not name:
        return Finding("partition", "none is set", "start it with `--profile slurm`, and set slurm_partition there")
    rows = ask("sinfo", "--noheader", f"--partition={name}", "--format=%a|%l|%D|%G").split()
    if not rows:
        there = ", ".join(dict.fromkeys(ask("sinfo", "--noheader", "--format=%R").split()))
        return Finding("partition", f"{name} is not there", f"set slurm_partition in the profile to one of: {there}")
    told = "; ".join("{2} nodes {0}, {1} at most, {3}".format(*row.split("|")) for row in rows)
    is_up = any(row.startswith("up|") for row in rows)
    return Finding(f"partition {name}", told, "" if is_up else "it is down; ask the administrators")


def check_memory_of_jobs(first_look: int) -> Finding:
    """SLURM remembers ended jobs for long enough that `squeue` can tell Snakemake of their end."""
    settings = ask("scontrol", "show", "config")
    found = re.search(r"MinJobAge\s*=\s*(\d+)", settings)
    seconds = int(found[1]) if found else 0
    option = "slurm-init-seconds-before-status-checks"
    advice = f"set {option} in the profile to {seconds // FIRST_LOOK} at most"
    told = f"squeue tells of them for {seconds} s; the first look is after {first_look} s"
    return Finding("ended jobs", told, "" if seconds >= FIRST_LOOK * first_look else advice)


def check_request(rule: str, request: Request) -> Finding:
    """SLURM would take a job of this rule, by `sbatch --test-only`."""
    asked = request.resources
    kind = asked.get("gpu_model") or "GPU"
    gpus = asked.get("gres") or (f"{asked['gpu']} x {kind}" if asked.get("gpu") else "no GPU")
    what = f"{gpus}, {asked.get('runtime', 0) / 60:g} h, {asked.get('mem_mb', 0) / 1000:g} GB"
    done = _run([*request.command(), "--test-only", "--wrap=true"])
    said = _last_words(done)
    if done.returncode == 0:
        start = re.search(r"to start at (\S+)", said)
        return Finding(rule, f"{what}: would start at {start[1].replace('T', ' ') if start else 'some time'}")
    return Finding(rule, f"{what}: {said}", _advise(said, asked))


def _advise(said: str, asked: dict[str, Any]) -> str:
    """What to do about SLURM's own words."""
    known = {
        "account": f"slurm_account is {asked.get('slurm_account')}; see `sacctmgr show associations user=$USER`",
        "partition": "`sinfo` lists the partitions; set slurm_partition in the profile",
        "time limit": "lower `hours` in resources, or choose a partition that allows them",
        "generic resource": "`sinfo -o %G` shows the GPUs; set gpu_model in the profile",
        "configuration is not available": "no node has that; lower gpus, cpus or memory_gb in resources",
        "QOS": "`sacctmgr show qos` lists them; set qos in the profile",
    }
    return next((advice for words, advice in known.items() if words.lower() in said.lower()), "see what SLURM says")


def check_node(request: Request, work: Path) -> Iterator[Finding]:
    """What a tiny job finds on a compute node."""
    report = work / "probe.json"
    work.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    gpus = int(request.resources.get("gpu", 0))
    command = ["python", "-m", "scripts.cluster.probe_node", "--output", str(report)]
    started = time.monotonic()
    job = _submit(
        [*request.command(runtime=MINUTES), f"--output={work / 'probe.log'}", f"--wrap={shlex.join(command)}"]
    )
    if isinstance(job, Finding):
        yield job
        return
    while job in ask("squeue", "--me", "--noheader", "--states=PD,CF,R,CG", "--format=%i").split():
        if time.monotonic() - started > WAIT:
            reason = ask("squeue", "--noheader", f"--jobs={job}", "--format=%T: %r").strip()
            ask("scancel", job)
            yield Finding("compute node", f"no answer after {WAIT} s ({reason})", "try again when the queue is shorter")
            return
        time.sleep(1)
    ask("ls", str(work))  # a shared file system may show a new file only when its folder is read
    if not report.is_file():
        log = (work / "probe.log").read_text(errors="replace").splitlines() if (work / "probe.log").is_file() else []
        last = log[-1] if log else f"job {job} left nothing in {work}"
        advice = "put this folder and .venv on a file system that the compute nodes share, and see profiles/README.md"
        yield Finding("compute node", last, advice)
        return
    found = read_json(report)
    seconds = time.monotonic() - started
    yield Finding("compute node", f"{found['host']} imports {found['versions']}, writes here; took {seconds:.0f} s")
    seen = ", ".join(found["gpus"]) or "none"
    advice = "" if len(found["gpus"]) == gpus else f"torch sees {len(found['gpus'])} of {gpus}: {found['why']}"
    yield Finding("GPUs on it", seen, advice)
    yield Finding("the hub from it", "reached" if found["hub"] else "not reached; no job asks for it")


def _submit(command: list[str]) -> str | Finding:
    """Submit a job. Returns its number, or what SLURM said."""
    done = _run(command)
    if done.returncode == 0:
        return done.stdout.strip().partition(";")[0]
    return Finding("compute node", _last_words(done), "as told above of the jobs")


def check_downloads(config: Config, work: Path) -> Finding:
    """What comes from the hub is here, or can be brought from where Snakemake runs."""
    wanted = {"the model": work / "models/base/manifest.json"} if config.model.source.kind == "hub" else {}
    for name, dataset in config.datasets.items():
        if any(part.source.kind == "hub" for part in dataset.parts.values()):
            wanted[f"data set {name}"] = work / f"datasets/{name}/source.json"
    for name, benchmark in config.benchmarks.items():
        if benchmark.source.kind == "hub":
            wanted[f"benchmark {name}"] = work / f"benchmarks/{name}/manifest.json"
    missing = [name for name, manifest in wanted.items() if not manifest.is_file()]
    told = f"{len(wanted) - len(missing)} of {len(wanted)} that the hub has are in {work}"
    if not missing or reaches_hub():
        return Finding("downloads", told + ("; the hub is reached for the others" if missing else ""))
    advice = (
        "no internet here: what is in HF_HOME is taken from there (`snakemake check_benchmarks` tries the benchmarks);"
        f" not brought yet: {', '.join(missing)}"
    )
    return Finding("downloads", told, advice)


def check_disk(config: Config, work: Path) -> Finding:
    """The disk holds all models, and the checkpoints of the one that trains."""
    free = shutil.disk_usage(work).free
    shape, _ = find_shape(config.model.source, work / "models/base/manifest.json", Path(config.run.cache))
    if shape is None:
        return Finding("disk", f"{free / 1e9:,.0f} GB are free; the size of the model is not known yet")
    # Models are saved in float32 at most; a checkpoint has Adam's numbers too, and two may lie there.
    needed = 4 * shape.parameters * (1 + len(config.stages)) + 2 * 12 * shape.parameters
    told = f"{free / 1e9:,.0f} GB are free, {needed / 1e9:,.1f} GB are needed at most"
    return Finding("disk", told, "" if free > needed else "free some, or put work/ on a larger disk")


def _run(command: list[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    """The last line that a command of SLURM said, without its name."""
    lines = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
    return re.sub(r"^\w+: (error: )?", "", lines[-1]) if lines else f"exit status {done.returncode}"


if __name__ == "__main__":
    run_script(main)
