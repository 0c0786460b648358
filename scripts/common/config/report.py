"""Section `report`: the PDF."""

from typing import Literal

from pydantic import Field

from scripts.common.config.section import Section


class Report(Section):
    """The PDF report."""

    title: str = Field("Post-training report", description="Title on the first page.")
    language: Literal["en", "zh"] = Field("en", description="Language of the report: English or Chinese.")
    examples: int = Field(3, ge=0, le=20, description="Number of questions to show with the answers of all models.")
