"""Section `plot`: how figures look."""

from typing import Annotated

from pydantic import Field

from scripts.common.config.section import Section

Colour = Annotated[str, Field(pattern=r"^#[0-9A-Fa-f]{6}$")]


class Plot(Section):
    """How figures look."""

    colours: list[Colour] = Field(
        ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442", "#000000"],
        min_length=2,
        description="Colours of the models, in order, as `#RRGGBB`. Default: the palette of Okabe and Ito, which "
        "colour-blind readers can distinguish.",
    )
