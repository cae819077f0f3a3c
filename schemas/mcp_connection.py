"""A connection of protocol `mcp`: a server of the Model Context Protocol, over HTTP or as a process of the gate's."""

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints, model_validator

from schemas.base import ClosedKeys, Text
from schemas.endpoint import ConnectionSpec, HeaderOptions, HttpUrl

STDIO = "stdio:"
Word = Annotated[Text, Field(min_length=1, max_length=500)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", max_length=63)]
Environment = Annotated[dict[Variable, Annotated[Text, Field(max_length=4000)]], Field(max_length=100), ClosedKeys()]
McpTool = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$", max_length=128)]

_OF_STDIO: dict[str, Any] = {  # what `_of_its_transport` checks, as a schema
    "if": {"required": ["endpoint"], "properties": {"endpoint": {"const": STDIO}}},
    "then": {
        "required": ["options"],
        "properties": {"options": {"required": ["command"], "properties": {"command": {"type": "string"}}}},
    },
    "else": {
        "properties": {
            "options": {
                "properties": {
                    "command": {"type": "null"},
                    "args": {"maxItems": 0},
                    "env": {"maxProperties": 0},
                    "env_from_secret": {"type": "null"},
                }
            }
        }
    },
}


class McpOptions(HeaderOptions):
    """How the server is reached or started, and what is believed of it."""

    accept: Literal["none", "first"] = Field(
        default="none",
        description="`first`: the tools that are seen first are accepted by themselves; changes are held always.",
    )
    repeats_safely: Annotated[list[McpTool], Field(max_length=500)] = Field(
        default_factory=list, description="Tools that the server promises to do once, however often they are called."
    )
    command: Word | None = Field(default=None, description="With endpoint `stdio:`: the program that is the server.")
    args: Annotated[list[Word], Field(max_length=100)] = Field(default_factory=list)
    env: Environment = Field(
        default_factory=dict, description="Variables of its process, beside PATH, HOME and the language."
    )
    env_from_secret: Variable | None = Field(
        default=None, description="The variable that the connection's secret is given to it in."
    )


class McpConnection(ConnectionSpec):
    """A server of the Model Context Protocol; `stdio:` is one that the gate starts, where its setting allows that."""

    model_config = ConfigDict(json_schema_extra=_OF_STDIO)

    protocol: Literal["mcp"]
    endpoint: Literal["stdio:"] | HttpUrl
    options: McpOptions = Field(default_factory=McpOptions)

    @model_validator(mode="after")
    def _of_its_transport(self) -> "McpConnection":
        options = self.options
        if self.endpoint == STDIO and options.command is None:
            raise ValueError("a server with endpoint stdio: has a command")
        started = options.command or options.args or options.env or options.env_from_secret
        if self.endpoint != STDIO and started:
            raise ValueError("only a server with endpoint stdio: has a command, args and an environment")
        return self
