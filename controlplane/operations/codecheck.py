"""Whether source files can be an agent's code: pure, and the same for `code.put` and for proposals.

Code comes as files, path to text. It must parse on the Python we run, no path may stand for two
things, and no module of it may hide one that a host needs: the standard library, our own packages,
or what our packages import. An entrypoint `module:Class` must be found without running anything.
Nothing here imports or executes the code, reads the disk, or asks for the time. Every refusal
points at the file, or at the entrypoint.
"""

import ast
import sys
import warnings
from collections.abc import Iterator, Mapping

from controlplane.resources.problems import refuse
from schemas.agent import CODE_BYTES_MAX
from schemas.base import digest

OURS = frozenset({"schemas", "controlplane", "ray_runtime", "mcp_server"})
NEEDED_BY_HOSTS = frozenset(  # a test holds it against what a host has imported
    {
        "annotated_types", "cronsim", "msgspec", "orjson", "psutil", "pydantic", "pydantic_core", "ray",
        "tqdm", "typing_extensions", "typing_inspection", "tzdata", "wcwidth", "uvloop", "yaml",
        # what Ray imports in the process of an actor, at once or when it first needs it
        "attr", "attrs", "certifi", "charset_normalizer", "click", "colorama", "filelock", "google", "grpc", "idna",
        "jsonschema", "jsonschema_specifications", "msgpack", "packaging", "referencing", "requests", "rpds", "urllib3",
    }
)  # fmt: skip
RESERVED = OURS | NEEDED_BY_HOSTS | frozenset(sys.stdlib_module_names) | {"sitecustomize", "usercustomize"}
_UNPARSABLE = (SyntaxError, ValueError, RecursionError, MemoryError)


def code_digest(files: Mapping[str, str]) -> str:
    """The digest that stands for these files everywhere."""
    return digest(dict(files))


def code_bytes(files: Mapping[str, str]) -> int:
    """The size of the files, as UTF-8."""
    return sum(len(text.encode()) for text in files.values())


def check_files(files: Mapping[str, str], field: str = "/files") -> None:
    """Refuse files that no host could use."""
    size = code_bytes(files)
    if size > CODE_BYTES_MAX:
        detail = f"the files have {size} bytes, {CODE_BYTES_MAX} at most"
        raise refuse("TOO_LARGE", detail, field=field, bytes=size, bytes_max=CODE_BYTES_MAX)
    if not any(path.endswith(".py") for path in files):
        raise refuse("INVALID_CODE", "there is no Python file among the files", field=field)
    _check_paths(files, field)
    for path, text in files.items():
        if path.endswith(".py"):
            parse(path, text, field)


def check_entrypoint(files: Mapping[str, str], entrypoint: str, field: str = "/entrypoint") -> None:
    """Refuse an entrypoint whose module or class is not among the files."""
    module, _, name = entrypoint.partition(":")
    base = module.replace(".", "/")
    path = next((p for p in (f"{base}.py", f"{base}/__init__.py") if p in files), None)
    if path is None:
        detail = f"the files hold no module {module} for the entrypoint {entrypoint}"
        raise refuse("INVALID_CODE", detail, field=field, module=module, entrypoint=entrypoint)
    names = set(_bound(parse(path, files[path], field)))
    if name not in names and "*" not in names:
        detail = f"{path} binds no name {name} for the entrypoint {entrypoint}"
        raise refuse("INVALID_CODE", detail, field=field, path=path, name=name, entrypoint=entrypoint)


def parse(path: str, text: str, field: str) -> ast.Module:
    """The syntax tree of one file, or the refusal that says where it breaks."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a warning about foreign code is not for our log
            return ast.parse(text, path)
    except _UNPARSABLE as error:
        line = getattr(error, "lineno", None) or 1
        reason = getattr(error, "msg", None) or str(error) or "it is nested too deeply"
        detail = f"{path} does not parse: line {line}: {reason}"
        raise refuse("INVALID_CODE", detail, field=pointer(field, path), path=path, line=line, error=reason) from None


def pointer(field: str, key: str) -> str:
    """A JSON pointer to a key below `field`."""
    return f"{field}/{key.replace('~', '~0').replace('/', '~1')}"


def _check_paths(files: Mapping[str, str], field: str) -> None:
    for path in files:
        top = path.split("/")[0].removesuffix(".py")
        if top in RESERVED:
            detail = f"{path} would hide the module {top}, which hosts need"
            raise refuse("INVALID_CODE", detail, field=pointer(field, path), path=path, module=top)
        for other in _rivals(path):
            if other in files:
                detail = f"{path} and {other} stand for the same name"
                raise refuse("INVALID_CODE", detail, field=pointer(field, path), path=path, other=other)


def _rivals(path: str) -> Iterator[str]:
    """Paths that can not be there together with this one."""
    parts = path.split("/")
    yield from ("/".join(parts[:i]) for i in range(1, len(parts)))  # a file where a folder must be
    if parts[-1] == "__init__.py" and len(parts) > 1:
        yield "/".join(parts[:-1]) + ".py"  # a module and a package of one name


def _bound(node: ast.AST) -> Iterator[str]:
    """The names that a module binds outside of its functions and classes, as far as its text tells."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef):
            yield child.name
        elif isinstance(child, ast.ImportFrom | ast.Import):
            yield from (alias.asname or alias.name for alias in child.names)
        elif isinstance(child, ast.Assign):
            yield from (target.id for target in child.targets if isinstance(target, ast.Name))
        elif isinstance(child, ast.stmt) and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _bound(child)
