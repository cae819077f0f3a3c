"""Words that mean harm: JSON that unfolds, text that is not what it seems, schemas and files that are bombs."""

import subprocess
import time
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from tests.end_to_end.agents import channel
from tests.hostile.bystander import MCP, tool_call
from tests.hostile.conftest import Attacked
from tests.hostile.peers import SURFACES, connected, head
from tests.stack import STEWARD

MIB = 1024 * 1024
PROBLEMS = {400, 404, 413, 415, 422, 429}


def post(attacked: Attacked, path: str, body: bytes) -> httpx.Response:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    with attacked.stack.rest(attacked.tokens["attacker"]) as client:
        return client.post(path, content=body, headers=headers)


BOMBS = {
    "brackets": b"[" * 1_000_000,
    "nested": b'{"query":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
    "objects": b'{"a":' * 300_000 + b"1" + b"}" * 300_000,
    "keys": b"{" + b",".join(b'"k%d":1' % n for n in range(350_000)) + b"}",
    "elements": b'{"query":[' + b",".join([b"1"] * 1_000_000) + b"]}",
    "lists": b'{"query":[' + b",".join([b"[]"] * 1_000_000) + b"]}",
    "digits": b'{"limit":' + b"9" * 1_000_000 + b"}",
    "fraction": b'{"limit":0.' + b"3" * 1_000_000 + b"}",
    "exponent": b'{"limit":1e' + b"9" * 1_000_000 + b"}",
    "doubled": b"{" + b",".join([b'"query":"a"'] * 100_000) + b"}",
    "text": b'{"query":"' + b"a" * 3_900_000 + b'"}',
    "escapes": b'{"query":"' + b'\\"' * 1_900_000 + b'"}',
    "unclosed": b'{"query":"' + b'\\"' * 1_900_000,
    "manifests": b'{"manifests":[' + b",".join([b"{}"] * 150_000) + b"]}",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_json_that_unfolds(attacked: Attacked, bomb: str) -> None:
    """A Problem on every surface, in bounded memory, while a bystander goes on."""
    with attacked.bystander(), attacked.sampled() as held:
        for path in SURFACES:
            answer = post(attacked, path, BOMBS[bomb])
            assert answer.status_code in PROBLEMS, answer.text[:500]
            assert len(answer.content) < 200_000
            if "problem+json" in answer.headers["content-type"]:
                assert orjson.loads(answer.content)["reason"] != "INTERNAL"
    assert held.grown() < 160 * MIB
    assert held.grown("gate") < 16 * MIB


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/agents?" + "&".join(f"a{n}=1" for n in range(8000)), 413),
        ("/v1/agents?labels=" + ",".join(f"k{n}=v" for n in range(8000)), 422),
        ("/v1/agents?labels=" + "{%22a%22:" * 4000, 422),
        ("/v1/agents?page=" + "a" * 60_000, 422),
        ("/v1/feedback?after=" + "a" * 60_000, 422),
        ("/v1/agents/default/" + "a" * 60_000, 422),
        ("/v1/changes/" + "a" * 60_000, 422),
        ("/v1/" + "a/" * 30_000, 404),
        ("/" + "%2e%2e/" * 8000, 404),
    ],
    ids=lambda it: str(it)[:24],
)
def test_long_questions(attacked: Attacked, path: str, status: int) -> None:
    """What is long is refused as what it is, and the refusal is short."""
    with attacked.stack.rest(attacked.tokens["attacker"]) as client:
        answer = client.get(path)
    assert answer.status_code == status, answer.text[:500]
    assert len(answer.content) < 4000


@pytest.mark.anyio
@pytest.mark.parametrize("name", ["X-Forwarded-For", "Cookie", "Last-Event-ID", "Accept", "Content-Type", "Host"])
async def test_headers_with_tricks(attacked: Attacked, name: str) -> None:
    """Odd bytes and long values in a header come back in no header, and break nothing."""
    for value in ("a" * 30_000, "\u00ff\u00fe", "a\tb", '";;=,{', "\u0080" * 100):
        said = head(attacked.tokens["attacker"], "/v1/agents", "GET", **{name.replace("-", "_"): value})
        async with connected(attacked.url) as peer:
            await peer.say(said)
            status, _ = await peer.answer()
            assert status in (200, 400, 421, 422)


NAMES = [
    "\ud7ff", "\ufeffecho", "echo\u200b", "\u0435cho", "echo\u202e", "e\u0301cho", "\u00e9cho", "echo\x00", "echo\n",
    "echo\r\nSet-Cookie: a=b", "\x1b[2Jecho", "\U0001f600", "ECHO", "\uff45cho", "\uffffecho", "e" + "\u0301" * 5000,
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES, ids=lambda it: ascii(it)[:24])
def test_names_that_are_not_what_they_seem(attacked: Attacked, name: str) -> None:
    """Names, namespaces, labels and ids are plain letters: nothing else is taken, and nobody is taken for another."""
    manifests: list[dict[str, Any]] = [
        channel(name),
        channel("fine") | {"metadata": {"name": "fine", "namespace": name}},
    ]
    for key, value in ((name, "a"), ("a", name)):
        if value != "ECHO" and key != "ECHO":
            manifests.append(channel("fine") | {"metadata": {"name": "fine", "labels": {key: value}}})
    for manifest in manifests:
        answer = post(attacked, "/v1/resources/propose", orjson.dumps({"manifests": [manifest]}))
        assert answer.status_code in (403, 422), answer.text
        assert len(answer.content) < 16_000  # the pointer leads to a key as it is, once
        assert "\x1b" not in answer.text
    answer = post(attacked, "/v1/operations/agents.get/call", orjson.dumps({"name": name}))
    assert answer.status_code == 422


@pytest.mark.parametrize(
    "body",
    [b'{"query":"\xc0\xaf"}', b'{"query":"\xf8\x88\x80\x80\x80"}', b'{"query":"\\udfff"}', b"\xff\xfe{\x00}\x00"],
)
def test_text_that_is_not_utf8(attacked: Attacked, body: bytes) -> None:
    """Overlong forms, halves of pairs and other encodings are MALFORMED_JSON on every surface."""
    for path in SURFACES:
        assert post(attacked, path, body).json()["reason"] == "MALFORMED_JSON"


HOSTILE = "\x1b]0;owned\x07\x1b[2J\x9b31m\u202eevil\u2066\u200b\x08\x7f\ufeff\U000e0041\r\nok \U0001f600 e\u0301"


RAW = set("\x1b\x07\x9b\u202e\u2066\u200b\x08\x7f\ufeff\U000e0041\r")


def test_text_of_agents_reaches_no_terminal_raw(attacked: Attacked) -> None:
    """Data with escapes goes through whole as data, and is made visible by the CLI in every form of output."""
    answer = attacked.stack.call("agents.ask", name="echo", data={HOSTILE: HOSTILE}, timeout_s=30)
    assert answer["reply"] == {HOSTILE: HOSTILE}
    attacked.stack.apply(channel("loud"))
    attacked.stack.call("channels.publish", name="loud", data=HOSTILE)
    asking = ["call", "agents.ask", "--json", orjson.dumps({"name": "echo", "data": HOSTILE}).decode()]
    shows = [(["channels", "read", "loud"], it) for it in ("json", "yaml", "table")]
    shows += [(["feedback"], "table"), (asking, "json"), (["get", "agents", HOSTILE], "table")]
    for words, output in shows:
        shown = subprocess.run(
            [str(STEWARD), *words, "--data", str(attacked.stack.data), "--output", output],
            capture_output=True,
            timeout=60,
            check=False,
            env=attacked.stack.env(),
        )
        text = (shown.stdout + shown.stderr).decode()
        assert not set(text) & RAW, ascii(text)
        assert shown.returncode in (0, 1, 2)


def test_logs_hold_no_escapes(attacked: Attacked) -> None:
    """Whatever was sent to it, a log is lines of plain text."""
    for path in (attacked.stack.data / "logs").glob("*.log"):
        assert b"\x1b]" not in path.read_bytes()
        assert b"\x07" not in path.read_bytes()


def doubling(levels: int) -> dict[str, Any]:
    """A schema whose references double with each level."""
    definitions = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(levels)}
    return {"$ref": "#/$defs/d0", "$defs": definitions | {f"d{levels}": {"type": "object"}}}


SCHEMAS: dict[str, dict[str, Any]] = {
    "doubling": doubling(40),
    "circle": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "enum": {"enum": list(range(100_000))},
    "deep": {"properties": {"a": {"properties": {"a": {"$ref": "#"}}}}, "allOf": [{"$ref": "#"}]},
    "fetched": {"$ref": "http://127.0.0.1:1/schema"},
    "backtracking": {"patternProperties": {"(a+)+$": {}}},
    "repeats": {"pattern": "((a{1000}){1000}){1000}"},
}


@pytest.mark.parametrize("schema", SCHEMAS)
def test_schemas_that_are_bombs(attacked: Attacked, schema: str) -> None:
    """Refused when they are proposed, in time."""
    manifest = channel("bomb") | {"spec": {"dataschema": SCHEMAS[schema]}}
    with attacked.bystander():
        answer = post(attacked, "/v1/resources/propose", orjson.dumps({"manifests": [manifest]}))
    assert answer.status_code == 422, answer.text[:500]
    assert answer.json()["field"].startswith("/manifests/0/spec/dataschema")


def test_data_that_is_costly_to_judge(attacked: Attacked) -> None:
    """What a fair schema would judge for minutes is refused; ordinary large data is judged."""
    schema = {"items": {"anyOf": [{"const": n} for n in range(500)]}, "uniqueItems": True}
    attacked.stack.apply(channel("judged") | {"spec": {"dataschema": schema}})
    with attacked.bystander():
        costly = orjson.dumps({"name": "judged", "data": [{"n": n} for n in range(50_000)]})
        answer = post(attacked, "/v1/operations/channels.publish/call", costly)
        assert answer.json()["reason"] == "SCHEMA_MISMATCH", answer.text[:500]
    assert post(attacked, "/v1/operations/channels.publish/call", b'{"name":"judged","data":[1,2,499]}').is_success
    assert post(attacked, "/v1/operations/channels.publish/call", b'{"name":"judged","data":[1,1]}').status_code == 422


LEVELS = 12
ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, LEVELS)
)  # fmt: skip
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{n}: &a{n}\n  <<: [{', '.join([f'*a{n - 1}'] * 9)}]\n  k{n}: 1\n" for n in range(1, LEVELS)
)
ITSELF = "a: &a [*a]\n"
DEEP = "[" * 5000 + "]" * 5000


@pytest.mark.parametrize("bomb", [ALIASES, MERGES, ITSELF, DEEP], ids=["aliases", "merges", "itself", "deep"])
def test_yaml_that_unfolds(attacked: Attacked, tmp_path: Path, bomb: str) -> None:
    """The command line refuses it where it stands, in time."""
    path = tmp_path / "bomb.yaml"
    path.write_text(bomb)
    began = time.monotonic()
    shown = subprocess.run(
        [str(STEWARD), "apply", "-f", str(path), "--data", str(attacked.stack.data), "--output", "json"],
        capture_output=True, timeout=60, check=False, env=attacked.stack.env(),
    )  # fmt: skip
    assert shown.returncode == 1, shown.stderr.decode()
    assert orjson.loads(shown.stdout)["reason"] == "MALFORMED_YAML"
    assert time.monotonic() - began < 30


def test_tools_refuse_as_routes_do(attacked: Attacked) -> None:
    """Hostile arguments of a tool are a Problem of that call, and the next call is served."""
    with attacked.stack.rest(attacked.tokens["attacker"]) as client:
        for given in ({"operation": "agents.ask", "arguments": {"name": HOSTILE}}, {"operation": "x" * 100_000}):
            answer = client.post("/mcp", json=tool_call("act", given), headers=MCP | {"Mcp-Name": "act"})
            assert answer.json()["result"]["structuredContent"]["ok"] is False
            assert len(answer.content) < 8000
        answer = client.post("/mcp", json=tool_call("look", {}), headers=MCP | {"Mcp-Name": "look"})
    assert answer.json()["result"]["structuredContent"]["ok"] is True
