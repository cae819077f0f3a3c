"""What an MCP server says of its tools, as it is pinned. Pure.

The words of a server are untrusted: annotations are not kept, and nothing rests on a description but what a person
or a model makes of it.
"""

import re

import mcp_types as types

from schemas.base import canonical
from schemas.offers import Offered

BYTES_MAX = 65_536  # of one tool, as JSON
NAME_CHARS_MAX = 128
NAME = re.compile(r"(?=.{1,128}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


def offered(tool: types.Tool, secret: str = "") -> Offered:
    """A tool as it is kept; what can not be kept is, by its name, with its fault, and can not be accepted."""
    if not NAME.fullmatch(tool.name):
        name = tool.name.encode("ascii", "backslashreplace").decode().replace("\0", "\\0")[:NAME_CHARS_MAX]
        return Offered(name=name or "?", fault="its name can not be that of an effect")
    found = Offered(
        name=tool.name,
        description=tool.description or "",
        input_schema=tool.input_schema,
        output_schema=tool.output_schema,
    )
    try:
        whole = canonical(found.model_dump(mode="json"))
    except (TypeError, ValueError, RecursionError) as error:  # numbers beyond 64 bits, halves of characters
        return Offered(name=tool.name, fault=f"its description can not be kept: {type(error).__name__}")
    if secret and canonical(secret)[1:-1] in whole:
        return Offered(name="?" if secret in tool.name else tool.name, fault="it repeats the connection's secret")
    if len(whole) > BYTES_MAX:
        return Offered(name=tool.name, fault=f"its description is larger than {BYTES_MAX} bytes")
    return found
