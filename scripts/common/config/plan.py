"""Section `plan`: what `snakemake plan` assumes about GPUs, energy and prices."""

from pydantic import Field

from scripts.common.config.section import Section


class Plan(Section):
    """Assumptions of `snakemake plan` and of the report's table of estimates. A change does not train a stage again."""

    gpu: str | None = Field(
        None,
        description="Model of the GPUs that jobs run on, such as `H100`, `H200` or `A100-SXM4-40GB`. Null: not known, "
        "so times are only estimated from earlier runs.",
    )
    gpu_memory_gb: float | None = Field(
        None, gt=0, description="Memory of one GPU, in GB. Null: the memory of `gpu` by its data sheet."
    )
    watts_per_gpu: float | None = Field(
        None, gt=0, description="Power of one GPU, in watts. Null: the maximum power of `gpu`."
    )
    pue: float = Field(
        1.0,
        ge=1,
        description="Power usage effectiveness: energy of the data centre divided by the energy of its computers. "
        "1.0: count the GPUs alone.",
    )
    currency: str = Field("EUR", description="Currency of the prices.")
    per_gpu_hour: float | None = Field(None, ge=0, description="Price of one GPU for one hour. Null: not counted.")
    per_kwh: float | None = Field(None, ge=0, description="Price of one kilowatt-hour. Null: not counted.")
