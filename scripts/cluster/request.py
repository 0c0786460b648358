"""What a job requests from SLURM, computed by the functions with which Snakemake's executor submits it."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from snakemake.exceptions import WorkflowError
from snakemake_executor_plugin_slurm.submit_string import get_submit_command
from snakemake_executor_plugin_slurm.utils import set_gres_string
from snakemake_executor_plugin_slurm.validation import validate_slurm_extra

from scripts.cluster.gpus_at_once import NAME
from scripts.common.errors import UserError


class Resources(dict[str, Any]):
    """Resources by name. The executor reads some of them as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Request:
    """What a job requests, in the form in which the executor reads a job.

    Args:
        resources: of the job, including those that the profile sets.
        settings: of the executor: `qos`, `reservation`, `requeue`, `no_requeue`, `status_command`.
    """

    def __init__(self, resources: dict[str, Any], settings: dict[str, Any]) -> None:
        self.resources = Resources(resources)
        self.settings = settings
        self.threads = self.resources.get("_cores", 1)

    @property
    def gpus(self) -> int:
        """GPUs requested from SLURM on all nodes. `gres` counts for each node, and `gpu_model` alone means one GPU."""
        if gres := self.resources.get("gres"):
            count = str(gres).rpartition(":")[2]
            return (int(count) if count.isdigit() else 1) * self.nodes
        return int(self.resources.get("gpu", 1 if self.resources.get("gpu_model") else 0))

    @property
    def configured_gpus(self) -> int:
        """GPUs that the job uses according to the configuration."""
        return int(self.resources.get(NAME, 0))

    @property
    def nodes(self) -> int:
        """Nodes of the job."""
        return int(self.resources.get("nodes") or 1)

    @property
    def accounts(self) -> list[str]:
        """Accounts in the profile; the executor submits under the first."""
        return re.findall(r"[^,\s]+", str(self.resources.get("slurm_account") or ""))

    def describe(self) -> str:
        """GPUs, hours and memory, such as `4 x h100, 24 h, 400 GB`."""
        requested = self.resources
        gpus = requested.get("gres") or f"{self.gpus} x {requested.get('gpu_model') or 'GPU'}"
        hours, memory = requested.get("runtime", 0) / 60, requested.get("mem_mb", 0) / 1000
        return f"{gpus if self.gpus else 'no GPU'}, {hours:g} h, {memory:g} GB"

    def command(self, **overrides: Any) -> list[str]:
        """The `sbatch` command that submits such a job; `overrides` replace some of its resources.

        Raises:
            UserError: the executor would refuse to submit it.
        """
        request = Request(self.resources | overrides, self.settings)
        partition = request.resources.get("slurm_partition")
        named = {
            "run_uuid": "check_cluster",
            "slurm_logfile": "/dev/null",
            "comment_str": "check_cluster",
            "account": f"-A {shlex.quote(self.accounts[0])}" if self.accounts else "",
            "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
            "workdir": str(Path.cwd()),
        }
        try:
            validate_slurm_extra(request)
            command = get_submit_command(request, named, SimpleNamespace(**self.settings)) + set_gres_string(request)
        except WorkflowError as error:
            raise UserError(" ".join(str(error).split())) from None
        return shlex.split(command)
