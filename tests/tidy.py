"""Style is a test: import law, sizes, purity. `python tests/tidy.py` prints what breaks the law."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("schemas", "controlplane", "mcp_server", "ray_runtime")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 50

# Who may import whom, from the ground up. A room may import itself and what its row names.
_GROUND = {"schemas"}
_DECLARED = _GROUND | {"controlplane.resources"}
_STORED = _DECLARED | {"controlplane.store"}
_HEARD = _STORED | {"controlplane.feedback"}
_LEAVES = {"controlplane.economy", "controlplane.guard", "controlplane.mesh", "controlplane.protocols"}
_STAGES = {"controlplane.effects", "controlplane.operations"}
_HANDS = {"ray_runtime"}
_FACES = {"controlplane.api", "mcp_server"}
LAW: dict[str, set[str]] = {
    "schemas": set(),
    "controlplane.resources": _GROUND,
    "controlplane.store": _DECLARED,
    "controlplane.feedback": _STORED,
    "controlplane.economy": _HEARD,
    "controlplane.guard": _HEARD,
    "controlplane.mesh": _HEARD,
    "controlplane.protocols": _HEARD,
    "controlplane.effects": _HEARD | _LEAVES,
    "controlplane.operations": _HEARD | _LEAVES,
    "ray_runtime": _HEARD | _LEAVES | _STAGES | {"controlplane.supervision"},
    "controlplane.api": _HEARD | _LEAVES | _STAGES | _HANDS | {"mcp_server"},
    "mcp_server": _HEARD | _LEAVES | _STAGES | _HANDS,
    "controlplane.cli": _DECLARED,
    "controlplane.supervision": _DECLARED,
}
UP = "controlplane/cli/up.py"  # executes wiring, as the law allows
IN_HOST = ("sdk", "hooks", "turn", "replaying", "host", "lease", "code")  # what runs beside agents knows schemas only
AS_CODE = ("ray_runtime/llm/", "ray_runtime/route/")  # are agents' code themselves
PURE = (
    "controlplane/operations/admission.py",
    "controlplane/operations/code_notes.py",
    "controlplane/operations/connecting.py",
    "controlplane/operations/planning.py",
    "controlplane/operations/prediction.py",
    "controlplane/operations/drafting.py",
    "controlplane/operations/routing.py",
    "controlplane/operations/routing_notes.py",
    "controlplane/effects/admission.py",
    "controlplane/effects/guarding.py",
    "controlplane/effects/journaling.py",
    "controlplane/effects/naming.py",
    "controlplane/protocols/envelopes.py",
    "controlplane/protocols/openapi.py",
    "controlplane/economy/invoicing.py",
    "controlplane/economy/meters.py",
    "controlplane/economy/rating.py",
    "schemas/keeping.py",
)
IMPURE = {"time", "random", "secrets", "os", "socket", "asyncio", "threading", "uuid", "subprocess", "httpx"}


def sources() -> Iterator[Path]:
    for room in ROOMS:
        for path in sorted((ROOT / room).rglob("*.py")):
            if "versions" not in path.parts:
                yield path


def room_of(module: str) -> str | None:
    """The room that a module of ours belongs to; wiring, settings and outsiders have none."""
    parts = module.split(".")
    if parts[0] == "controlplane":
        return ".".join(parts[:2]) if len(parts) > 1 and f"controlplane.{parts[1]}" in LAW else None
    return parts[0] if parts[0] in LAW else None


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.lineno, node.module


def of_import_law(path: Path, tree: ast.AST) -> Iterator[str]:
    name = path.relative_to(ROOT).as_posix()
    room = room_of(name.removesuffix(".py").replace("/", "."))
    if room is None or name == UP:
        return
    in_host = room == "ray_runtime" and (path.stem in IN_HOST or name.startswith(AS_CODE))
    allowed = {"schemas", "ray_runtime"} if in_host else LAW[room] | {room}
    for line, module in imports(tree):
        top = module.split(".")[0]
        if top not in ROOMS:
            continue
        target = room_of(module) or module
        if target not in allowed and target != "controlplane":
            yield f"{name}:{line} {room} may not import {module}"
        if in_host and top == "ray_runtime" and module.split(".")[-1] in ("actor", "placement", "cluster"):
            yield f"{name}:{line} what runs in a host may not import {module}"


def of_size(path: Path, tree: ast.AST, text: str) -> Iterator[str]:
    name = path.relative_to(ROOT).as_posix()
    lines = text.count("\n")
    if lines > FILE_LINES_MAX:
        yield f"{name} has {lines} lines, {FILE_LINES_MAX} at most"
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES_MAX:
                yield f"{name}:{node.lineno} {node.name} has {length} lines, {FUNCTION_LINES_MAX} at most"


def of_docstring(path: Path, tree: ast.Module) -> Iterator[str]:
    if not ast.get_docstring(tree):
        yield f"{path.relative_to(ROOT).as_posix()} has no docstring that states its law"


def of_purity(path: Path, tree: ast.AST) -> Iterator[str]:
    name = path.relative_to(ROOT).as_posix()
    if name not in PURE:
        return
    for line, module in imports(tree):
        if module.split(".")[0] in IMPURE:
            yield f"{name}:{line} is pure and may not import {module}"


def broken_laws() -> list[str]:
    found: list[str] = []
    for path in sources():
        text = path.read_text()
        tree = ast.parse(text)
        found += of_import_law(path, tree)
        found += of_size(path, tree, text)
        found += of_docstring(path, tree)
        found += of_purity(path, tree)
    found += [f"{name} is listed as pure and does not exist" for name in PURE if not (ROOT / name).exists()]
    return found


def test_the_house_is_tidy() -> None:
    """Every file keeps the import law, the sizes, the purity of its stage, and says its law."""
    assert broken_laws() == []


if __name__ == "__main__":
    print("\n".join(broken_laws()))
    sys.exit(bool(broken_laws()))
