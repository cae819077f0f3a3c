"""Manifests and code from files: what the person has on this machine, as the plane wants it.

The plane never reads a client's path, so `spec.code: {folder: ./agents}`, or `{file: agent.py}`, is
turned into `spec.code: {files: {…}}` here, relative to the file that says it. Taken are Python and
small text files; left out are hidden ones, caches and tests. What can not be taken whole is refused,
never cut.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from controlplane.cli.documents import read_bytes, read_file
from controlplane.resources.problems import refuse
from schemas.agent import CODE_BYTES_MAX, CODE_FILES_MAX
from schemas.problem import Refusal

MANIFEST_ENDINGS = frozenset({".yaml", ".yml", ".json"})
CODE_ENDINGS = frozenset({".py", ".txt", ".md", ".json", ".yaml", ".yml", ".toml", ".csv", ".sql", ".j2"})


def load(paths: list[Path], code: Path | None = None) -> list[dict[str, Any]]:
    """The manifests of files and folders, in their order, with code folders turned into files.

    `code` is the folder of every agent and fleet whose manifest gives no code.
    """
    found: list[dict[str, Any]] = []
    for path in paths:
        for file in _manifest_files(path):
            base = Path.cwd() if str(file) == "-" else file.parent
            for document in _flat(read_file(file), str(file)):
                found.append(_with_code(document, base, code, f"/manifests/{len(found)}"))
    if not found:
        named = ", ".join(map(str, paths))
        raise refuse("MISSING_FIELD", f"there is no manifest in {named}", field="/manifests", paths=named)
    return found


def source_files(path: Path, field: str = "/files") -> dict[str, str]:
    """The files of one package: path below the folder → text."""
    if path.is_file():
        return {path.name: _text(path, field)}
    if not path.is_dir():
        raise refuse("NOT_FOUND", f"there is nothing at {path}", field=field, path=str(path))
    files = {str(file.relative_to(path)): _text(file, field) for file in sorted(_code_files(path, field))}
    if not files:
        raise refuse("INVALID_CODE", f"{path} holds no source files", field=field, path=str(path))
    return _bounded(files, str(path), field)


def _manifest_files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.suffix.lower() in MANIFEST_ENDINGS and file.is_file())


def _flat(documents: list[Any], source: str) -> Iterator[dict[str, Any]]:
    """Each manifest: a document is one, or a list of them."""
    for document in documents:
        for manifest in document if isinstance(document, list) else [document]:
            if not isinstance(manifest, dict):
                kind = type(manifest).__name__
                raise refuse(
                    "NOT_AN_OBJECT", f"{source} holds a {kind} where a manifest must be", source=source, found=kind
                )
            yield manifest


def _with_code(manifest: dict[str, Any], base: Path, code: Path | None, field: str) -> dict[str, Any]:
    """The manifest with the code folder of its spec, or of its template's spec, read in."""
    spec = manifest.get("spec")
    if not isinstance(spec, dict):
        return manifest
    if manifest.get("kind") == "Fleet":
        template = spec.get("template")
        if not isinstance(template, dict) or not isinstance(template.get("spec"), dict):
            return manifest
        inner = _spec_with_code(template["spec"], base, code, f"{field}/spec/template/spec/code")
        return {**manifest, "spec": {**spec, "template": {**template, "spec": inner}}}
    if manifest.get("kind") == "Agent":
        return {**manifest, "spec": _spec_with_code(spec, base, code, f"{field}/spec/code")}
    return manifest


def _spec_with_code(spec: dict[str, Any], base: Path, code: Path | None, field: str) -> dict[str, Any]:
    given = spec.get("code")
    for word in ("folder", "file"):
        if isinstance(given, dict) and set(given) == {word} and isinstance(given[word], str):
            return {**spec, "code": {"files": source_files(base / given[word], f"{field}/{word}")}}
    if given is None and code is not None and spec.get("runtime") != "llm":
        return {**spec, "code": {"files": source_files(code, field)}}
    return spec


def _code_files(folder: Path, field: str) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith((".", "__pycache__", "test_")) or path.name == "tests":
            continue
        if not path.resolve().is_relative_to(folder.resolve()):
            raise refuse("INVALID_CODE", f"{path} leads out of its folder", field=field, path=str(path))
        if path.is_dir():
            yield from _code_files(path, field)
        elif path.suffix.lower() in CODE_ENDINGS:
            yield path


def _text(path: Path, field: str) -> str:
    content = read_bytes(path)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refuse("INVALID_CODE", f"{path} is not UTF-8 text", field=field, path=str(path), at=error.start) from None


def _bounded(files: dict[str, str], source: str, field: str) -> dict[str, str]:
    size = sum(len(text.encode("utf-8")) for text in files.values())
    if len(files) > CODE_FILES_MAX:
        raise _too_much(f"{source} holds {len(files)} source files, more than {CODE_FILES_MAX}", source, field)
    if size > CODE_BYTES_MAX:
        raise _too_much(f"{source} holds {size} bytes of source, more than {CODE_BYTES_MAX}", source, field)
    return files


def _too_much(detail: str, source: str, field: str) -> Refusal:
    limits = {"files_max": CODE_FILES_MAX, "bytes_max": CODE_BYTES_MAX}
    return refuse("TOO_LARGE", f"{detail}; point at the package's own folder", field=field, path=source, **limits)
