"""`sql.query` and `sql.execute`: one statement, with bound parameters."""

from typing import Annotated, Any

from pydantic import Field

from schemas.base import Frozen, Text

STATEMENT_CHARS_MAX = 10_000
PARAMETERS_MAX = 200
PARAMETER_CHARS_MAX = 100_000
NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"


class SqlStatement(Frozen):
    """One statement, and the values of its parameters, which it names as `:name`."""

    statement: Annotated[Text, Field(min_length=1, max_length=STATEMENT_CHARS_MAX)]
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        max_length=PARAMETERS_MAX,
        description="Text, numbers, booleans and null, by name; they are bound, never written into the statement.",
    )
