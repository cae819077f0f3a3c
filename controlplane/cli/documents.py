"""Text that a person gives, as JSON values.

JSON is checked and otherwise left alone; YAML is read by the core schema of YAML 1.2, so that
`no` stays text, `2026-01-31` stays text, and `12:30` is no number. A key given twice, a key that
is not text, or a value that JSON can not say is refused as a Problem that names the line.
Nothing here reads the network; nothing that fails here was sent.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, NoReturn

from controlplane.resources.problems import refuse

DEPTH_MAX = 200
VALUES_MAX = 200_000


def read_json(text: str | bytes, source: str) -> Any:
    """The value of a JSON text; NaN, bad UTF-8 and bottomless nesting are refused."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        text.encode("utf-8")
        return json.loads(text, parse_constant=_no_constant)
    except UnicodeError as error:
        raise refuse("MALFORMED_JSON", f"{source} is not UTF-8: {error}", source=source, error=str(error)) from None
    except RecursionError:
        raise refuse("MALFORMED_JSON", f"{source} is nested too deeply", source=source) from None
    except ValueError as error:
        raise refuse("MALFORMED_JSON", f"{source} is not JSON: {error}", source=source, error=str(error)) from None


def read_yaml(text: str | bytes, source: str) -> list[Any]:
    """The documents of a YAML text, each as a JSON value; empty ones are left out."""
    import yaml  # only for those who read YAML

    from controlplane.cli.yaml_form import load_all

    try:
        found = load_all(text.decode("utf-8") if isinstance(text, bytes) else text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise _not_yaml(source, what, line) from None
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        raise _not_yaml(source, " ".join(str(error).split()), None) from None
    except RecursionError:
        raise _not_yaml(source, "nested too deeply", None) from None
    values = _Values(source)
    for document in found:
        values.must_be_json(document, "", 0)
    return found


def read_file(path: Path) -> list[Any]:
    """The documents of a JSON or YAML file, told apart by its ending; `-` is standard input, as YAML."""
    if str(path) == "-":
        return read_yaml(sys.stdin.buffer.read(), "standard input")
    content = read_bytes(path)
    if path.suffix.lower() == ".json":
        return [read_json(content, str(path))]
    return read_yaml(content, str(path))


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise refuse("NOT_FOUND", f"{path} can not be read: {reason}", path=str(path), error=reason) from None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON number")


def _not_yaml(source: str, what: str, line: int | None) -> Exception:
    where = f", line {line}" if line else ""
    return refuse("MALFORMED_YAML", f"{source}{where}: {what}", source=source, line=line, error=what)


class _Values:
    """Refuses what JSON can not say, other types, NaN, infinity, a value inside itself; and more than is ever taken."""

    def __init__(self, source: str) -> None:
        self._source = source
        self._left = VALUES_MAX

    def must_be_json(self, value: Any, at: str, depth: int) -> None:
        self._left -= 1
        if self._left < 0:
            raise _not_yaml(self._source, f"unfolds to more than {VALUES_MAX} values", None)
        if depth > DEPTH_MAX:
            raise _not_yaml(self._source, f"nested more than {DEPTH_MAX} deep", None)
        if isinstance(value, dict):
            for key, inner in value.items():
                self.must_be_json(inner, f"{at}/{key}", depth + 1)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                self.must_be_json(inner, f"{at}/{index}", depth + 1)
        elif isinstance(value, float) and not math.isfinite(value):
            raise _not_yaml(self._source, f"{at or '/'} is no number that JSON knows", None)
        elif not isinstance(value, str | int | float | bool | None):
            kind = type(value).__name__
            raise _not_yaml(self._source, f"{at or '/'} is a {kind}, which JSON does not know", None)
