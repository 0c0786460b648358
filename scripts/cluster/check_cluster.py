"""Tell what the cluster has against what a run asks for, line by line, and what to do where it does not fit.

SLURM judges what each job would ask for (`sbatch --test-only`), and Snakemake's executor the account. Then a small job
runs on a compute node: whether the environment can be imported there, which GPUs it sees, whether it writes into the
run's folders, and whether it sees the weights and vLLM's environment.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake_executor_plugin_slurm.accounts import validate_account

from scripts.cluster.finding import ADVICE, WIDTH, Finding, advise
from scripts.cluster.node import Needs, check_node
from scripts.cluster.request import Request
from scripts.cluster.slurm import ask, last_words, run
from scripts.cluster.supplies import check_disk, check_downloads, check_files
from scripts.common.config import Config
from scripts.common.console import make_parser, run_script, say
from scripts.common.errors import UserError

UNUSED = "nothing would use them: remove gpu_model or gres of these rules from the profile, or set gpus in resources"
"""What to do about GPUs that SLURM is asked for, and the configuration does not count."""

LONGEST_SLEEP = 240
"""SLURM must remember ended jobs for so long: Snakemake's executor looks every 180 seconds at the least."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--config", required=True, help="the whole configuration, as JSON")
    parser.add_argument("--requests", type=json.loads, required=True, help="resources of the jobs by rule, as JSON")
    parser.add_argument("--settings", type=json.loads, required=True, help="settings of the executor, as JSON")
    parser.add_argument("--work", type=Path, required=True, help="the run's folder of heavy files")
    parser.add_argument("--results", type=Path, required=True, help="the run's results")
    parser.add_argument("--logs", type=Path, required=True, help="the run's logs")
    options = parser.parse_args()

    if not shutil.which("sbatch"):
        raise UserError("no SLURM here: sbatch is not in the path; start this on the cluster's login node")
    if not options.requests:
        raise UserError("no job would be submitted to SLURM; start this with `--profile slurm`")
    ask("squeue", "--me")
    config = Config.model_validate_json(options.config)
    requests = {rule: Request(resources, options.settings) for rule, resources in options.requests.items()}
    findings = []
    for finding in check_cluster(config, requests, options.settings, [options.work, options.results, options.logs]):
        say(str(finding))
        findings.append(finding)
    if unfit := sum(bool(finding.advice) and not finding.mark for finding in findings):
        raise UserError(f"{unfit} of {len(findings)} lines above say what to do before the run is submitted")


def check_cluster(
    config: Config, requests: dict[str, Request], settings: dict[str, str | None], folders: list[Path]
) -> Iterator[Finding]:
    """All findings, the cheap ones first.

    Args:
        requests: of the rules whose jobs are submitted, by their names; at least one.
        settings: of the executor.
        folders: that the run writes into, that of heavy files first.
    """
    partitions: dict[str, float] = {}
    for request in requests.values():
        name = request.resources.get("slurm_partition") or ""
        partitions[name] = max(partitions.get(name, 0), request.resources.get("runtime", 0))
    for name, minutes in partitions.items():
        yield check_partition(name, minutes)
    for accounts in dict.fromkeys(tuple(request.accounts) for request in requests.values()):
        yield check_account(accounts)
    yield check_memory_of_jobs(settings["status_command"])
    for rules, request in group_requests(requests).items():
        yield check_request(rules, request)
    yield from check_node(choose_probe(requests), Needs.of(config, folders))
    yield from check_files(config)
    yield check_downloads(config, folders[0])
    yield check_disk(config, folders[0])


def choose_probe(requests: dict[str, Request]) -> Request:
    """What the small job asks for: what a benchmark does, else another rule with the fewest GPUs that one asks for."""
    with_gpus = [request for request in requests.values() if request.gpus]
    fewest = min(with_gpus or requests.values(), key=lambda request: request.gpus)
    return requests.get("run_benchmark", fewest)


def group_requests(requests: dict[str, Request]) -> dict[str, Request]:
    """Requests by the names of the rules that ask for the same, as far as these fit the column."""
    groups: dict[str, list[str]] = {}
    for rule, request in requests.items():
        groups.setdefault(json.dumps(request.resources, sort_keys=True), []).append(rule)
    return {name_rules(rules): requests[rules[0]] for rules in groups.values()}


def name_rules(rules: list[str]) -> str:
    """All names, or the first and how many more."""
    names = ", ".join(rules)
    return names if len(names) <= WIDTH else f"{rules[0]} and {len(rules) - 1} more"


def check_partition(name: str, minutes: float) -> Finding:
    """The partition of the profile is there and up, and lets jobs run for so many minutes."""
    if not name:
        return Finding("partition", "none is set", "set slurm_partition in the profile")
    rows = ask("sinfo", "--noheader", f"--partition={name}", "--format=%a|%l|%F|%G").split()
    if not rows:
        there = ", ".join(dict.fromkeys(ask("sinfo", "--noheader", "--format=%R").split()))
        return Finding("partition", f"{name} is not there", f"set slurm_partition in the profile to one of: {there}")
    states, limits, counts, gpus = zip(*(row.split("|", 3) for row in rows), strict=True)
    told = f"{', '.join(dict.fromkeys(states))}, at most {limits[0]}, {', '.join(dict.fromkeys(gpus))}"
    at_work, idle, other, total = (
        sum(numbers) for numbers in zip(*(map(int, c.split("/")) for c in counts), strict=True)
    )
    told += f"; of {total} nodes {idle} are idle, {at_work} at work, {other} out of order"
    if "up" not in states or at_work + idle == 0:
        return Finding(f"partition {name}", told, "no job can start there; ask the administrators")
    if minutes > read_minutes(limits[0]):
        advice = f"jobs ask for {minutes / 60:g} h, and would wait for ever; lower `hours` in resources"
        return Finding(f"partition {name}", told, advice)
    return Finding(f"partition {name}", told)


def read_minutes(limit: str) -> float:
    """Minutes of a time limit as `sinfo` writes it: `infinite`, `days-hours:minutes:seconds`, or less of that."""
    if not re.fullmatch(r"[\d:-]+", limit):
        return float("inf")
    days, _, clock = limit.rpartition("-")
    hours, minutes, seconds = ([0, 0, 0] + [int(part) for part in clock.split(":")])[-3:]
    return (int(days or 0) * 24 + hours) * 60 + minutes + seconds / 60


def check_account(accounts: tuple[str, ...]) -> Finding:
    """The executor finds the accounts that the profile names: it looks before each job, whatever SLURM itself takes."""
    if not accounts:
        return Finding("account", "none is set: jobs are submitted without one")
    what = f"account {', '.join(accounts)}"
    try:
        for account in accounts:
            validate_account(account, logging.getLogger(__name__))
    except (WorkflowError, OSError) as error:
        said = " ".join(str(error).split())
        if "appears to be invalid" in said:
            return Finding(what, said, ADVICE["account"])
        told = "the executor can look no account up here (sacctmgr, sshare), and so submits nothing"
        return Finding(what, told, "remove slurm_account from the profile where SLURM has no slurmdbd")
    return Finding(what, "the executor finds it")


def check_memory_of_jobs(command: str | None) -> Finding:
    """What tells Snakemake of the end of a job does so here.

    Args:
        command: `squeue`, `sacct`, or None for the executor's choice, which is `sacct`.
    """
    told = ask("scontrol", "show", "config")
    keeps_accounts = bool(re.search(r"AccountingStorageType\s*=.*slurmdbd", told))
    if command != "squeue":
        if keeps_accounts:
            return Finding("ended jobs", "sacct tells of them (slurmdbd), but not of those that scancel ended")
        advice = "set slurm-status-command to squeue in the profile"
        return Finding("ended jobs", "sacct tells of none without slurmdbd, and Snakemake would wait for ever", advice)
    found = re.search(r"MinJobAge\s*=\s*(\d+)", told)
    if not found:
        return Finding("ended jobs", "SLURM does not tell for how long squeue knows them", "ask for MinJobAge", "??")
    seconds = int(found[1])
    advice = f"an end may be missed below {LONGEST_SLEEP} s; ask the administrators for a longer MinJobAge"
    if keeps_accounts:
        advice += ", or set slurm-status-command to sacct in the profile, which misses the end of cancelled jobs"
    too_short = 0 < seconds < LONGEST_SLEEP
    return Finding("ended jobs", f"squeue tells of them for {seconds} s (MinJobAge)", advice if too_short else "")


def check_request(rules: str, request: Request) -> Finding:
    """SLURM would take a job of these rules, by `sbatch --test-only`, and it has the GPUs that its processes want."""
    if request.gpus != request.counted:
        told = f"{request.describe()}: SLURM is asked for {request.gpus} GPUs, and the configuration means"
        advice = "set so many in the profile's `gres` of these rules" if request.counted else UNUSED
        return Finding(rules, f"{told} {request.counted}", advice)
    try:
        done = run([*request.command(), "--test-only", "--wrap=true"])
    except UserError as error:
        return Finding(rules, f"{request.describe()}: {error}", "mend the profile")
    said = last_words(done)
    if done.returncode:
        return Finding(rules, f"{request.describe()}: {said}", advise(said))
    start = re.search(r"to start at (\S+)", said)
    return Finding(
        rules, f"{request.describe()}: would start at {start[1].replace('T', ' ') if start else 'some time'}"
    )


if __name__ == "__main__":
    run_script(main)
