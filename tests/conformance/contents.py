"""Resources, prompts and media of the suite's fixtures."""

import base64
import struct
import zlib

import mcp_types as types


def _png() -> bytes:
    """One red pixel."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\x00\xff\x00\x00")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _wav() -> bytes:
    """Four silent samples."""
    data = b"\x80" * 4
    form = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 8000, 1, 8)
    body = b"WAVE" + form + struct.pack("<4sI", b"data", len(data)) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


PNG = base64.b64encode(_png()).decode()
WAV = base64.b64encode(_wav()).decode()
IMAGE = types.ImageContent(type="image", data=PNG, mime_type="image/png")
AUDIO = types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")


def text(value: str) -> types.TextContent:
    return types.TextContent(type="text", text=value)


def embedded(uri: str, value: str, mime_type: str = "text/plain") -> types.EmbeddedResource:
    contents = types.TextResourceContents(uri=uri, mime_type=mime_type, text=value)
    return types.EmbeddedResource(type="resource", resource=contents)


RESOURCES = [
    types.Resource(uri="test://static-text", name="static-text", description="text", mime_type="text/plain"),
    types.Resource(uri="test://static-binary", name="static-binary", description="bytes", mime_type="image/png"),
]
TEMPLATE = types.ResourceTemplate(
    uri_template="test://template/{id}/data", name="template", description="by id", mime_type="application/json"
)


def read(uri: str) -> types.ReadResourceResult | None:
    """A resource of the fixtures; None for others."""
    contents: types.TextResourceContents | types.BlobResourceContents
    if uri == "test://static-text":
        value = "This is the content of the static text resource."
        contents = types.TextResourceContents(uri=uri, mime_type="text/plain", text=value)
    elif uri == "test://static-binary":
        contents = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=PNG)
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        value = f'{{"id":"{number}","templateTest":true,"data":"Data for ID: {number}"}}'
        contents = types.TextResourceContents(uri=uri, mime_type="application/json", text=value)
    else:
        return None
    return types.ReadResourceResult(contents=[contents])


def _argument(name: str) -> types.PromptArgument:
    return types.PromptArgument(name=name, description=name, required=True)


PROMPTS = [
    types.Prompt(name="test_simple_prompt", description="no arguments"),
    types.Prompt(
        name="test_prompt_with_arguments", description="two arguments", arguments=[_argument("arg1"), _argument("arg2")]
    ),
    types.Prompt(
        name="test_prompt_with_embedded_resource", description="a resource", arguments=[_argument("resourceUri")]
    ),
    types.Prompt(name="test_prompt_with_image", description="an image"),
    types.Prompt(name="test_input_required_result_prompt", description="asks before it answers"),
]


def prompt(name: str, given: dict[str, str]) -> types.GetPromptResult | None:
    """A prompt of the fixtures; None for others."""
    contents: list[types.TextContent | types.ImageContent | types.EmbeddedResource]
    if name == "test_simple_prompt":
        contents = [text("This is a simple prompt for testing.")]
    elif name == "test_prompt_with_arguments":
        contents = [text(f"Prompt with arguments: arg1='{given.get('arg1')}', arg2='{given.get('arg2')}'")]
    elif name == "test_prompt_with_embedded_resource":
        uri = given.get("resourceUri", "test://example-resource")
        contents = [embedded(uri, "Embedded resource content for testing."), text("Please process it.")]
    elif name == "test_prompt_with_image":
        contents = [IMAGE, text("Please analyze it.")]
    else:
        return None
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=it) for it in contents])
