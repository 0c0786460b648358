"""Section `responses`: how models answer held-out rows."""

from pydantic import Field

from scripts.common.config.section import Section


class Responses(Section):
    """How every model answers held-out rows of the conversations that stages train on."""

    rows: int = Field(
        200, ge=0, description="Number of rows to answer, the first ones of each held-out split. 0: none."
    )
    max_new_tokens: int = Field(512, ge=1, description="Longest answer, in tokens.")
    batch_size: int = Field(16, ge=1, description="Rows in one forward pass.")
