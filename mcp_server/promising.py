"""A server that promises only what it does."""

from typing import Any

import mcp_types as types
from mcp.server import Server


class McpServer(Server[Any]):
    """The server of the SDK, less promises that nobody here keeps."""

    def get_capabilities(self, *given: Any, **more: Any) -> types.ServerCapabilities:
        """What the handlers can do; nobody is promised to be told that a list has changed."""
        found = super().get_capabilities(*given, **more)
        if found.tools is not None:
            found.tools.list_changed = False
        if found.prompts is not None:
            found.prompts.list_changed = False
        return found
