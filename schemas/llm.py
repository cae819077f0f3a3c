"""`llm.request`: one request to a language model, its answer, and a conversation as it is kept.

The words are our own, not those of a provider or of a library: journals and states outlive both.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from schemas.base import Frozen, Name, Text

OUTPUT_TOOL = "final_answer"  # the tool by which a model gives a structured answer
TOOLS_MAX = 64
MESSAGES_MAX = 10_000
OUTPUT_TOKENS_MAX = 1_000_000
EffectName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_*-]+)+$", max_length=200)]
OneEffect = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]*(\.[A-Za-z0-9_-]+)+$", max_length=200)]
ToolName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$", max_length=64)]
ModelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=200)]


class ToolCall(Frozen):
    """A tool that the model wants to have called. `fault` says why its arguments can not be used."""

    id: str
    tool: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    fault: str = ""


class Said(Frozen):
    """What the model was told."""

    role: Literal["user"] = "user"
    text: str


class Answered(Frozen):
    """What the model answered: text, calls of tools, or both."""

    role: Literal["assistant"] = "assistant"
    text: str = ""
    calls: list[ToolCall] = Field(default_factory=list)


class ToolResult(Frozen):
    """What came of a call; `failed` if it was refused or broke."""

    role: Literal["tool"] = "tool"
    id: str
    tool: str
    text: str
    failed: bool = False


Message = Annotated[Said | Answered | ToolResult, Field(discriminator="role")]


class Offer(Frozen):
    """A tool that the model may call. Without `parameters`, they are the effect's arguments, less what is `fixed`."""

    name: ToolName
    description: Text = ""
    effect: EffectName | None = None
    fixed: list[str] = Field(default_factory=list)
    parameters: dict[str, Any] | None = None
    connection: Name | None = Field(default=None, description="What an effect's arguments may depend on.")

    @model_serializer(mode="wrap")
    def _as_before(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a connection, as requests were journaled that knew of none: they are replayed."""
        said: dict[str, Any] = handler(self)
        if self.connection is None:
            said.pop("connection", None)
        return said


class LlmRequest(Frozen):
    """What is asked of a model; with `output`, the answer is to be a call of `final_answer` that meets it."""

    model: ModelName
    instructions: Text = ""
    messages: list[Message] = Field(min_length=1, max_length=MESSAGES_MAX)
    tools: list[Offer] = Field(default_factory=list, max_length=TOOLS_MAX)
    output: dict[str, Any] | None = None
    output_tokens_max: int | None = Field(default=None, ge=1, le=OUTPUT_TOKENS_MAX)
    stream: Name | None = Field(
        default=None,
        exclude_if=lambda it: it is None,  # so that requests of before read as they did
        description="A channel of the namespace, to which the text is told while it comes.",
    )


class Usage(Frozen):
    """What the endpoint counted; 0 where it counts nothing."""

    tokens_in: int = 0
    tokens_out: int = 0


class LlmAnswer(Frozen):
    """What the model answered."""

    text: str
    calls: list[ToolCall]
    finish: str | None
    model: str
    usage: Usage


# What an agent of runtime `llm` is declared by


_NO_EFFECT: dict[str, Any] = {
    "effect": {"type": "null"}, "connection": {"type": "null"}, "fixed": {"maxProperties": 0},
}  # fmt: skip
_ONE_OF: dict[str, Any] = {  # what `_one_of` checks, as a schema
    "if": {"required": ["agent"], "properties": {"agent": {"type": "string"}}},
    "then": {"properties": {**_NO_EFFECT, "person": {"const": False}}},
    "else": {
        "if": {"required": ["person"], "properties": {"person": {"const": True}}},
        "then": {"properties": {**_NO_EFFECT, "parameters": {"type": "null"}}},
        "else": {"required": ["effect"], "properties": {"effect": {"type": "string"}}},
    },
}


class LlmTool(Frozen):
    """A tool of the model's: an effect, over a connection if it takes one, or an agent or a person that is asked."""

    model_config = ConfigDict(json_schema_extra=_ONE_OF)

    name: ToolName
    description: Text = Field(default="", max_length=2000)
    effect: OneEffect | None = None
    connection: Name | None = None
    fixed: dict[str, Any] = Field(
        default_factory=dict, max_length=100, description="Arguments of the effect that are not the model's to choose."
    )
    agent: Name | None = Field(default=None, description="An agent of the same namespace, which is asked.")
    person: bool = Field(default=False, description="Whether a person is asked, by `questions.answer`.")
    deadline_s: float | None = Field(
        default=None, ge=1, le=86_400, description="How long an answer is waited for: by default a day."
    )
    parameters: dict[str, Any] | None = Field(
        default=None,
        description="JSON Schema of what the model gives. By default the effect's arguments, or `data` for an agent.",
    )

    @model_validator(mode="after")
    def _one_of(self) -> "LlmTool":
        if (self.effect is not None) + (self.agent is not None) + self.person != 1:
            raise ValueError("give exactly one of effect, agent or person")
        if self.effect is None and (self.connection is not None or self.fixed):
            raise ValueError("only an effect goes over a connection, and only of it something is fixed")
        if self.person and self.parameters is not None:
            raise ValueError("what a person is asked has one form")
        return self


def _names_once(tools: list[LlmTool]) -> list[LlmTool]:
    names = [it.name for it in tools]
    for name in names:
        if name == OUTPUT_TOOL or names.count(name) > 1:
            raise ValueError(f"the name {name} is taken")
    return tools


class Llm(Frozen):
    """The model of an agent, and how it is asked."""

    connection: Name = Field(description="A connection of protocol `llm`.")
    model: ModelName
    instructions: Text = Field(default="", max_length=20_000)
    tools: Annotated[list[LlmTool], AfterValidator(_names_once)] = Field(default_factory=list, max_length=TOOLS_MAX)
    output: dict[str, Any] | None = Field(
        default=None, description="JSON Schema, of type object, that an answer meets. Without it an answer is text."
    )
    output_tokens_max: int | None = Field(default=None, ge=1, le=OUTPUT_TOKENS_MAX)
    stream: Name | None = Field(
        default=None,
        description="A channel of the namespace, where the model's answer is told while it comes; the reply is whole.",
    )
    output_retries_max: int = Field(default=2, ge=0, le=10, description="How often an answer that fails it is retried.")
    requests_max: int = Field(default=10, ge=1, le=200, description="Requests to the model in one turn.")
    history_tokens_max: int = Field(
        default=8000, ge=0, le=100_000, description="Of earlier exchanges, estimated at four characters a token."
    )
    summarise: bool = Field(
        default=True, description="Whether what is too old is summarised by the model; otherwise it is dropped."
    )
