"""Section `resources`: what jobs request from the machine or the cluster."""

from pydantic import Field

from scripts.common.config.section import Section


class JobResources(Section):
    """What each job requests. `resources.data` and `resources.evaluate` have the same keys."""

    gpus: int = Field(0, ge=0, description="Number of GPUs. A stage trains with one process for each GPU.")
    cpus: int = Field(
        1,
        ge=1,
        description="Number of CPU cores and of compute threads. Another number changes results in the last bits.",
    )
    memory_gb: int = Field(8, ge=1, description="Main memory, in GB.")
    hours: float = Field(1, gt=0, description="Time limit of the job on a cluster, in hours of wall-clock time.")


class TrainResources(JobResources):
    """What each training job requests. With several nodes, the numbers are for each of them."""

    nodes: int = Field(1, ge=1, description="Number of machines that train one stage together. Several need SLURM.")

    @property
    def processes(self) -> int:
        """Number of processes that train together: one for each GPU, or one for each machine without GPUs."""
        return self.nodes * max(1, self.gpus)


class Resources(Section):
    """What jobs request from the machine or the cluster."""

    data: JobResources = Field(
        JobResources(), description="For each job that inspects or filters a data set. They need no GPU."
    )
    train: TrainResources = Field(TrainResources(), description="For each training stage.")
    evaluate: JobResources = Field(
        JobResources(),
        description="For each job that scores one model on one benchmark or data set, and for sampling rejections.",
    )
    gpus: int | None = Field(
        None,
        ge=1,
        description="Most GPUs that all jobs of the run use at the same time. Null: as many as the largest job "
        "requests.",
    )
