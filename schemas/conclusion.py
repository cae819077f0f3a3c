"""Conclusions: what a turn came to, and because of what, as its handler or its model says it.

A reference is the id of a message, or `turn:branch:position` of what stands in a journal. `because` is what was
cited; `seen` what was merely there to be seen. Who says so may be wrong: it is captured, not judged.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from schemas.base import Frozen, Text

TEXT_CHARS_MAX = 16_000
ALTERNATIVES_MAX = 20
ALTERNATIVE_CHARS_MAX = 2000
REFERENCES_MAX = 500
REFERENCE_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,199}$"
Reference = Annotated[str, StringConstraints(pattern=REFERENCE_PATTERN)]
References = Annotated[list[Reference], Field(max_length=REFERENCES_MAX)]
Alternative = Annotated[Text, Field(min_length=1, max_length=ALTERNATIVE_CHARS_MAX)]


class Conclusion(Frozen):
    """One conclusion of a turn, as its journal holds it."""

    text: Annotated[Text, Field(min_length=1, max_length=TEXT_CHARS_MAX)]
    because: References = Field(default_factory=list)
    seen: References = Field(default_factory=list)
    alternatives: Annotated[list[Alternative], Field(max_length=ALTERNATIVES_MAX)] = Field(default_factory=list)
    confidence: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)


def place_reference(turn_id: str, branch: str, position: int) -> str:
    """The reference of what stands in a journal."""
    return f"{turn_id}:{branch}:{position}"
