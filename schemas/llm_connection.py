"""A connection of protocol `llm`: an LLM's endpoint, asked by its API. It repeats nothing and follows no redirects."""

from typing import Literal

from pydantic import Field

from schemas.endpoint import ConnectionSpec, HeaderOptions, HttpUrl


class LlmOptions(HeaderOptions):
    """Whose API the endpoint speaks, and how the secret is sent."""

    api: Literal["openai", "anthropic"] = Field(default="openai", description="Whose API the endpoint speaks.")


class LlmConnection(ConnectionSpec):
    """An endpoint of language models."""

    protocol: Literal["llm"]
    endpoint: HttpUrl
    options: LlmOptions = Field(default_factory=LlmOptions)
