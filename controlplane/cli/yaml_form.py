"""YAML in and out: the core schema of YAML 1.2, which is JSON's types and nothing else.

`no` and `2026-01-31` are text, `12:30` is no number. What JSON could not say unambiguously, a key
given twice or a key that is not text, is refused where it stands. So is a merge of more than a few
mappings, or into a large one: what refers to itself must not unfold without end.
"""

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

WIDTH = 160
MERGED_MAX = 16  # mappings that one key merges
MERGED_KEYS_MAX = 10_000
_CORE = (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$", "-+0123456789"),
    ("tag:yaml.org,2002:float", r"^[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
)


def load_all(text: str) -> list[Any]:
    """The documents of a text; empty ones are left out."""
    return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]


def dump(value: Any) -> str:
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)


class _Loader(yaml.SafeLoader):
    """A SafeLoader of the YAML 1.2 core schema that refuses doubled keys and keys that are not text."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - the attribute's name and form are the library's

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self._text_of(key)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {name!r} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep=deep)

    def flatten_mapping(self, node: MappingNode) -> None:
        for key, value in node.value:
            if key.tag == "tag:yaml.org,2002:merge" and len(value.value) > MERGED_MAX and value.id == "sequence":
                detail = f"more than {MERGED_MAX} mappings are merged"
                raise yaml.constructor.ConstructorError(None, None, detail, key.start_mark)
        super().flatten_mapping(node)
        if len(node.value) > MERGED_KEYS_MAX:
            detail = f"a mapping holds more than {MERGED_KEYS_MAX} keys"
            raise yaml.constructor.ConstructorError(None, None, detail, node.start_mark)

    def _text_of(self, key: Node) -> str:
        if not isinstance(key, ScalarNode) or key.tag != "tag:yaml.org,2002:str":
            raise yaml.constructor.ConstructorError(None, None, "a key must be text: put it in quotes", key.start_mark)
        return str(key.value)


for _tag, _pattern, _first in _CORE:
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))
_Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile(r"^<<$"), ["<"])


class _Dumper(yaml.SafeDumper):
    """A dumper that keeps text of several lines readable, and never refers back."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Dumper.add_representer(str, _text)
