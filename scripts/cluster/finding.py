"""One line of `check_cluster`'s output, and advice on SLURM's error messages."""

from dataclasses import dataclass
from typing import Literal

WIDTH = 28
"""Characters of the column that names what was checked."""

ADVICE = {
    "QOS": "`sacctmgr show qos` lists each QOS and its limits; set qos in the profile",
    "account": "see `sacctmgr show associations user=$USER`, and set slurm_account in the profile",
    "partition": "`sinfo` lists the partitions; set slurm_partition in the profile",
    "time limit": "lower `hours` in resources, or choose a partition that allows them",
    "generic resource": "`sinfo -o %G` shows the GPUs; set gpu_model in the profile",
    "configuration is not available": (
        "no node has that; lower gpus, cpus or memory_gb in resources, or set gpu_model as `sinfo -o %G` shows it"
    ),
}
"""Advice by a part of SLURM's message. The first part that the message contains decides."""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Args:
        what: what was checked.
        found: the result.
        advice: what the user should do; empty if nothing is wrong.
        mark: `??` if the check could not be made.
    """

    what: str
    found: str
    advice: str = ""
    mark: Literal["", "??"] = ""

    def __str__(self) -> str:
        mark = self.mark or ("NO" if self.advice else "ok")
        advice = f"\n{'':{WIDTH + 5}}-> {self.advice}" if self.advice else ""
        return f"{mark:3} {self.what:{WIDTH}} {self.found}{advice}"


def advise(message: str) -> str:
    """Advice on an error message of SLURM."""
    matching = (advice for part, advice in ADVICE.items() if part.lower() in message.lower())
    return next(matching, "see SLURM's message")
