"""Section `run`: name, seed and cache of the run."""

from pydantic import Field

from scripts.common.config.section import Name, Section


class Run(Section):
    """Name, seed and cache of the run."""

    name: Name = Field(
        description="Name of the run. Results go to `results/<name>/`, large files to `work/<name>/`, logs to "
        "`logs/<name>/`."
    )
    seed: int = Field(
        42, ge=0, description="Seed of all random choices, such as samples, splits, data order and initial adapters."
    )
    cache: str = Field(
        "work/cache",
        description="Folder for base models from packages, which all runs share. Downloads from the hub go to "
        "`HF_HOME`.",
    )
