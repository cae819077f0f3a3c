"""Agents of runtime `llm`: a model, its tools, its conversation. This package is such an agent's code.

The plane stores its source under its digest, as it does with any agent's (`runtimes`), so that a turn which
began with one release goes on with it under the next. It knows the SDK and the vocabulary, and no library of models.
"""

from .agent import LlmAgent

__all__ = ["LlmAgent"]
