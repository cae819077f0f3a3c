"""Routes: from a source through a filter and a transform to a sink. This package is the code of their workers.

The plane stores its source under its digest, as it does with any agent's (`runtimes`), so that a turn which
began with one release goes on with it under the next. It knows the SDK, the vocabulary, CEL and JSONata.
"""

from .agent import RouteAgent

__all__ = ["RouteAgent"]
