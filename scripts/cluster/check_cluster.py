"""Compare what a run requests with what the cluster offers: one line for each check, and advice where it fails.

SLURM checks the request of each job (`sbatch --test-only`), and Snakemake's executor checks the account. Then a probe,
a small job, runs on a compute node. It checks that the environment can be imported there, which GPUs are visible, that
the run's folders are writable, and that the weights and vLLM's environment can be read.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator

from snakemake.exceptions import WorkflowError
from snakemake_executor_plugin_slurm.accounts import validate_account

from scripts.cluster.finding import ADVICE, WIDTH, Finding, advise
from scripts.cluster.node import Needs, check_node
from scripts.cluster.prerequisites import check_disk, check_downloads, check_files
from scripts.cluster.request import Request
from scripts.cluster.slurm import ask, last_message, run
from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError
from scripts.common.paths import RunPaths

UNUSED = "nothing would use them; remove gpu_model or gres of these rules from the profile, or set gpus in resources"
"""Advice on GPUs that a job requests from SLURM but does not use according to the configuration."""

MIN_JOB_AGE = 240
"""Seconds for which SLURM must remember ended jobs: up to 180 lie between two status checks of Snakemake's executor."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the complete configuration, as JSON")
    parser.add_argument("--requests", type=json.loads, required=True, help="resources of the jobs by rule, as JSON")
    parser.add_argument("--settings", type=json.loads, required=True, help="settings of the executor, as JSON")
    parser.add_argument(
        "--latency-wait", type=float, required=True, help="seconds until a shared file system shows a new file"
    )
    options = parser.parse_args()

    if not shutil.which("sbatch"):
        raise UserError("no SLURM here: sbatch is not in PATH; run this on the cluster's login node")
    if not options.requests:
        raise UserError("no job would be submitted to SLURM; run this with `--profile slurm`")
    ask("squeue", "--me")
    config = Config.model_validate_json(options.config)
    requests = {rule: Request(resources, options.settings) for rule, resources in options.requests.items()}
    findings = []
    for finding in check_cluster(config, requests, options.settings, options.latency_wait):
        say(str(finding))
        findings.append(finding)
    if failed := sum(bool(finding.advice) and not finding.mark for finding in findings):
        raise UserError(f"{failed} of {len(findings)} checks failed; follow the advice above before you submit the run")


def check_cluster(
    config: Config, requests: dict[str, Request], settings: dict[str, str | None], latency: float
) -> Iterator[Finding]:
    """All findings, the fast checks first.

    Args:
        requests: what the jobs of each submitted rule request, by rule; at least one.
        settings: of the executor.
        latency: seconds that a shared file system may need to show a new file.
    """
    paths = RunPaths(config.run.name)
    partitions: dict[str, float] = {}
    for request in requests.values():
        name = request.resources.get("slurm_partition") or ""
        partitions[name] = max(partitions.get(name, 0), request.resources.get("runtime", 0))
    for name, minutes in partitions.items():
        yield check_partition(name, minutes)
    for accounts in dict.fromkeys(tuple(request.accounts) for request in requests.values()):
        yield check_account(accounts)
    yield check_ended_jobs(settings["status_command"])
    for rules, request in group_requests(requests).items():
        yield check_request(rules, request)
    yield from check_node(choose_probe(requests), Needs.of(config, paths, latency))
    yield from check_files(config)
    yield check_downloads(config, paths)
    yield check_disk(config, paths)


def choose_probe(requests: dict[str, Request]) -> Request:
    """The request of the probe: that of a benchmark, or else the one with the fewest GPUs among those that have any."""
    with_gpus = [request for request in requests.values() if request.gpus]
    fewest = min(with_gpus or requests.values(), key=lambda request: request.gpus)
    return requests.get("run_benchmark", fewest)


def group_requests(requests: dict[str, Request]) -> dict[str, Request]:
    """Distinct requests, by the names of the rules that share them, shortened to fit the column."""
    groups: dict[str, list[str]] = {}
    for rule, request in requests.items():
        groups.setdefault(json.dumps(request.resources, sort_keys=True), []).append(rule)
    return {name_rules(rules): requests[rules[0]] for rules in groups.values()}


def name_rules(rules: list[str]) -> str:
    """All names, or the first name and the number of others if they do not fit the column."""
    names = ", ".join(rules)
    return names if len(names) <= WIDTH else f"{rules[0]} and {len(rules) - 1} more"


def check_partition(name: str, minutes: float) -> Finding:
    """Whether the profile's partition exists, is up, and allows jobs of this many minutes."""
    if not name:
        return Finding("partition", "not set", "set slurm_partition in the profile")
    rows = ask("sinfo", "--noheader", f"--partition={name}", "--format=%a|%l|%F|%G").split()
    if not rows:
        names = ", ".join(dict.fromkeys(ask("sinfo", "--noheader", "--format=%R").split()))
        return Finding("partition", f"{name} does not exist", f"set slurm_partition in the profile to one of: {names}")
    states, limits, counts, gpus = zip(*(row.split("|", 3) for row in rows), strict=True)
    allocated, idle, other, _ = (
        sum(numbers) for numbers in zip(*(map(int, c.split("/")) for c in counts), strict=True)
    )
    found = f"{', '.join(dict.fromkeys(states))}, time limit {limits[0]}, {', '.join(dict.fromkeys(gpus))}"
    found += f"; nodes: {idle} idle, {allocated} allocated, {other} unavailable"
    if "up" not in states or allocated + idle == 0:
        return Finding(f"partition {name}", found, "no job can start there; ask the administrators")
    if minutes > read_minutes(limits[0]):
        advice = f"jobs request {minutes / 60:g} h and would wait forever; lower `hours` in resources"
        return Finding(f"partition {name}", found, advice)
    return Finding(f"partition {name}", found)


def read_minutes(limit: str) -> float:
    """Minutes of a time limit from `sinfo`: `infinite`, or `days-hours:minutes:seconds` without leading parts."""
    if not re.fullmatch(r"[\d:-]+", limit):
        return float("inf")
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = ([0, 0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60


def check_account(accounts: tuple[str, ...]) -> Finding:
    """Whether the executor accepts the profile's accounts. It looks them up before each job, whatever SLURM accepts."""
    if not accounts:
        return Finding("account", "not set; jobs are submitted without one")
    what = f"account {', '.join(accounts)}"
    try:
        for account in accounts:
            validate_account(account, logging.getLogger(__name__))
    except (WorkflowError, OSError) as error:
        message = " ".join(str(error).split())
        if "appears to be invalid" in message:
            return Finding(what, message, ADVICE["account"])
        found = "the executor cannot look up accounts here (sacctmgr, sshare), so it would submit nothing"
        return Finding(what, found, "remove slurm_account from the profile if SLURM has no slurmdbd")
    return Finding(what, "accepted by the executor")


def check_ended_jobs(command: str | None) -> Finding:
    """Whether Snakemake learns here that a job has ended.

    Args:
        command: `squeue`, `sacct`, or None for the executor's default, which is `sacct`.
    """
    settings = ask("scontrol", "show", "config")
    has_accounting = bool(re.search(r"AccountingStorageType\s*=.*slurmdbd", settings))
    if command != "squeue":
        if has_accounting:
            return Finding("ended jobs", "sacct reports them (slurmdbd), except those that scancel ended")
        advice = "set slurm-status-command to squeue in the profile"
        return Finding("ended jobs", "without slurmdbd sacct reports none, and Snakemake would wait forever", advice)
    found = re.search(r"MinJobAge\s*=\s*(\d+)", settings)
    if not found:
        advice = "ask the administrators for MinJobAge"
        return Finding("ended jobs", "SLURM does not say for how long squeue reports them", advice, "??")
    seconds = int(found[1])
    advice = f"below {MIN_JOB_AGE} s Snakemake may miss the end of a job; ask the administrators for a longer MinJobAge"
    if has_accounting:
        advice += ", or set slurm-status-command to sacct in the profile, which misses the end of cancelled jobs"
    too_short = 0 < seconds < MIN_JOB_AGE
    return Finding("ended jobs", f"squeue reports them for {seconds} s (MinJobAge)", advice if too_short else "")


def check_request(rules: str, request: Request) -> Finding:
    """Whether SLURM accepts a job of these rules (`sbatch --test-only`), with the GPUs that its processes need."""
    if request.gpus != request.configured_gpus:
        counts = f"{request.gpus} requested from SLURM, {request.configured_gpus} needed by the configuration"
        advice = "set the number needed in `gres` of these rules in the profile" if request.configured_gpus else UNUSED
        return Finding(rules, f"{request.describe()}: GPUs: {counts}", advice)
    try:
        done = run([*request.command(), "--test-only", "--wrap=true"])
    except UserError as error:
        return Finding(rules, f"{request.describe()}: {error}", "correct the profile")
    message = last_message(done)
    if done.returncode:
        return Finding(rules, f"{request.describe()}: {message}", advise(message))
    start = re.search(r"to start at (\S+)", message)
    outcome = f"would start at {start[1].replace('T', ' ')}" if start else "accepted"
    return Finding(rules, f"{request.describe()}: {outcome}")


if __name__ == "__main__":
    run_script(main)
