"""What a job asks SLURM for, written by the functions of Snakemake's executor that write it at its submission."""

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
    """Resources by name, which the executor also reads as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Request:
    """What jobs ask for, as the executor reads it of a job.

    Args:
        resources: of the job, with the profile's.
        settings: of the executor: `qos`, `reservation`, `requeue`, `no_requeue`, `status_command`.
    """

    def __init__(self, resources: dict[str, Any], settings: dict[str, Any]) -> None:
        self.resources = Resources(resources)
        self.settings = settings
        self.threads = self.resources.get("_cores", 1)

    @property
    def gpus(self) -> int:
        """GPUs that SLURM is asked for, whichever way: a generic resource is of each node, and a model alone is one."""
        if gres := self.resources.get("gres"):
            count = str(gres).rpartition(":")[2]
            return (int(count) if count.isdigit() else 1) * self.nodes
        return int(self.resources.get("gpu", 1 if self.resources.get("gpu_model") else 0))

    @property
    def counted(self) -> int:
        """GPUs of a job by the configuration."""
        return int(self.resources.get(NAME, 0))

    @property
    def nodes(self) -> int:
        """Machines of a job."""
        return int(self.resources.get("nodes") or 1)

    @property
    def accounts(self) -> list[str]:
        """Accounts of the profile; the executor submits under the first."""
        return re.findall(r"[^,\s]+", str(self.resources.get("slurm_account") or ""))

    def describe(self) -> str:
        """GPUs, hours and memory in a few words."""
        asked = self.resources
        gpus = asked.get("gres") or f"{self.gpus} x {asked.get('gpu_model') or 'GPU'}"
        hours, memory = asked.get("runtime", 0) / 60, asked.get("mem_mb", 0) / 1000
        return f"{gpus if self.gpus else 'no GPU'}, {hours:g} h, {memory:g} GB"

    def command(self, **other: Any) -> list[str]:
        """The command that submits such a job, with other resources in the place of its own.

        Raises:
            UserError: the executor would not submit it.
        """
        asked = Request(self.resources | other, self.settings)
        partition = asked.resources.get("slurm_partition")
        named = {
            "run_uuid": "check_cluster",
            "slurm_logfile": "/dev/null",
            "comment_str": "check_cluster",
            "account": f"-A {shlex.quote(self.accounts[0])}" if self.accounts else "",
            "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
            "workdir": str(Path.cwd()),
        }
        try:
            validate_slurm_extra(asked)
            command = get_submit_command(asked, named, SimpleNamespace(**self.settings)) + set_gres_string(asked)
        except WorkflowError as error:
            raise UserError(" ".join(str(error).split())) from None
        return shlex.split(command)
