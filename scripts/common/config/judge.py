"""Section `judge`: a model that decides the points of a rubric that no rule can decide."""

from pydantic import Field

from scripts.common.config.section import Name, Section


class Judge(Section):
    """A judge model, reached through an API. It decides the points of a rubric that no rule can decide."""

    url: str = Field(description="Address of an OpenAI-compatible API, such as `http://host:8000/v1`.")
    model: str = Field(description="Name of the judge model in that API.")
    benchmark: Name = Field(
        "traps", description="Benchmark whose answers to judge. Its source must be `own`, and it must have rubrics."
    )
    key_variable: str | None = Field(
        None, description="Environment variable that holds the API key. Null: no key is sent."
    )
    requests: int = Field(4, ge=1, description="Number of concurrent requests.")
    seconds: float = Field(120, gt=0, description="Timeout of a request, in seconds.")
