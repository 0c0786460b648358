"""A line of what `check_cluster` tells, and what to do about SLURM's own words."""

from dataclasses import dataclass
from typing import Literal

WIDTH = 28
"""Columns of what was looked at."""

ADVICE = {
    "QOS": "`sacctmgr show qos` lists them and their limits; set qos in the profile",
    "account": "see `sacctmgr show associations user=$USER`, and set slurm_account in the profile",
    "partition": "`sinfo` lists the partitions; set slurm_partition in the profile",
    "time limit": "lower `hours` in resources, or choose a partition that allows them",
    "generic resource": "`sinfo -o %G` shows the GPUs; set gpu_model in the profile",
    "configuration is not available": (
        "no node has that; lower gpus, cpus or memory_gb in resources, or set gpu_model as `sinfo -o %G` shows it"
    ),
}
"""What to do about SLURM's words, by the first of these that stands in them."""


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Args:
        what: was looked at.
        found: was found.
        advice: what to do; nothing where all is well.
        mark: `??` for what could not be looked at.
    """

    what: str
    found: str
    advice: str = ""
    mark: Literal["", "??"] = ""

    def __str__(self) -> str:
        mark = self.mark or ("NO" if self.advice else "ok")
        advice = f"\n{'':{WIDTH + 5}}-> {self.advice}" if self.advice else ""
        return f"{mark:3} {self.what:{WIDTH}} {self.found}{advice}"


def advise(said: str) -> str:
    """What to do about SLURM's own words."""
    return next((advice for words, advice in ADVICE.items() if words.lower() in said.lower()), "see what SLURM says")
