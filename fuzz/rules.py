"""What is left out, and why: the only list. Whatever is not named here is checked."""

from typing import Any

from controlplane.resources.agents import ECHO

KINDS = {
    "agents": "Agent",
    "fleets": "Fleet",
    "channels": "Channel",
    "connections": "Connection",
    "secrets": "Secret",
    "budgets": "Budget",
    "routes": "Route",
}

EXCLUDED = {
    "use_after_free": "DELETE answers a plan and deletes nothing yet; `deleted_is_gone` checks what a commit deleted",
    "max_response_time": "the machine is shared; time is measured in benchmarks/",
    "object_level_authorization": "one identity drives a run; tests/api/test_authorization.py has every role",
}

# Reasons of a 5xx that is not the plane's: it answers for another, as a gateway does.
OF_OTHERS = {"TURN_FAILED": "the agent failed, as one does whose limits are too small for any turn; the plane is well"}

# Statuses of a refusal that says nothing against the input: valid data may meet them too.
UNFORESEEN = {
    "403": "what a token may do, no schema says",
    "404": "what is there is a matter of what is stored",
    "409": "what state it is in is a matter of what is stored",
    "410": "a matter of time",
    "413": "how large a request may be is a setting of the plane",
    "429": "how much there may be is a setting of the plane",
    "5xx": "`not_a_server_error` has these",
}

# Reasons of a refusal that no schema can foresee, because it rests on what is stored or on other input.
BEYOND_SCHEMA = {
    "INVALID_CURSOR": "cursors and pages are opaque; only the plane knows which it gave out",
    "INVALID_CODE": "whether text is Python is not a matter of JSON Schema",
    "CODE_NOT_FOUND": "only the plane knows which digests are stored",
    "SECRET_VALUE_MISSING": "only the plane knows which values are stored",
    "SCHEMA_MISMATCH": "the schema is the channel's, not the document's",
    "UNKNOWN_PROTOCOL": "which protocols beside ours there are is a matter of what is installed",
    "ROUTE_LOOP": "where other routes lead, only the plane knows",
    "UNKNOWN_EFFECT": "which effects there are is a matter of what is installed",
    "DUPLICATE_MANIFEST": "JSON Schema can not say that names differ within a list",
    "PLAN_EXPIRED": "a matter of time",
}

# The same, where the reason alone does not tell: reason and field.
_SPECS = ("/manifest/spec", "/manifests/#/spec", "/manifest/spec/template/spec", "/manifests/#/spec/template/spec")
BEYOND_SCHEMA_AT: dict[tuple[str, str | None], str] = {
    **{
        ("INVALID_VALUE", f"{it}/watches/#/cron"): "what an expression means, and when, no pattern says"
        for it in _SPECS
    },
    **{("INVALID_VALUE", f"{it}/watches/#/zone"): "zones are a list too long for a document" for it in _SPECS},
    **{("INVALID_VALUE", f"{it}/watches"): "JSON Schema can not say that names differ within a list" for it in _SPECS},
    **{
        ("INVALID_VALUE", f"{it}/on_hold"): "specs of releases before may hold `detach`, as may what shows them"
        for it in _SPECS
    },
    **{
        ("INVALID_VALUE", f"{it}/capabilities{field}"): why
        for it in _SPECS
        for field, why in (
            ("", "JSON Schema can not say that names differ within a list"),
            ("/#/input_schema", "whether an object is a JSON Schema that we take, no schema says"),
            ("/#/output_schema", "the same"),
        )
    },
    **{
        ("INVALID_VALUE", f"{it}/llm/{field}"): why
        for it in _SPECS
        for field, why in (
            ("tools", "JSON Schema can not say that names differ within a list"),
            ("output", "whether an object is a JSON Schema that we take, no schema says"),
            ("tools/#/parameters", "the same"),
        )
    },
    **{
        ("INVALID_VALUE", f"{it}/{field}"): why
        for it in ("/manifest/spec", "/manifests/#/spec")
        for field, why in (
            ("filter", "what CEL is, no pattern says"),
            ("transform", "what JSONata is, no pattern says"),
            ("sink/accept", "what CEL is, no pattern says"),
            ("samples/#", "what an expression makes of data, no schema says"),
            ("sink/connection", "whether an effect takes a connection is a matter of the effect"),
            ("source/poll/connection", "of which protocol it is, only the plane knows"),
            ("source/poll/cron", "what an expression means, and when, no pattern says"),
        )
    },
    ("INVALID_VALUE", "/manifest/spec/mode"): "that a channel stays what it is, no schema says",
    ("INVALID_VALUE", "/manifests/#/spec/mode"): "the same",
    ("INVALID_VALUE", "/manifest/spec/dataschema"): "whether an object is a JSON Schema that we take, no schema says",
    ("INVALID_VALUE", "/manifests/#/spec/dataschema"): "the same",
    ("INVALID_VALUE", "/manifest/spec/options/openapi"): "whether an object is an OpenAPI document, no schema says",
    ("INVALID_VALUE", "/manifests/#/spec/options/openapi"): "the same",
    ("INVALID_VALUE", "/manifest/spec/currency"): "which currency the rates are in is a setting",
    ("INVALID_VALUE", "/manifests/#/spec/currency"): "the same",
    ("INVALID_NAME", "/manifest/metadata/name"): "how long a fleet's name may be rests on its replicas",
    ("INVALID_NAME", "/manifests/#/metadata/name"): "the same",
    **{
        ("OUT_OF_RANGE", f"/{it}"): "JSON Schema can not say that one time comes before another, or in which years"
        for it in ("since", "until", "at")
    },
    **{
        ("INVALID_VALUE", f"/capabilities{field}"): "as of the spec of an agent"
        for field in ("", "/#/input_schema", "/#/output_schema")
    },
    **{
        (
            "INVALID_VALUE",
            f"/{field}",
        ): "where a route reads again from rests on its source, and on what else is given"
        for field in ("after", "since", "until", "value", "keys", "cancel", "name")
    },
    ("INVALID_VALUE", "/effects"): "which effects can be opened rests on the kind",
    ("INVALID_VALUE", "/answer"): "which answers a question takes is a matter of the question",
    ("OUT_OF_RANGE", None): "whole numbers of free JSON must fit into 64 bits; said in the document's description",
}

# Parameters of a query that are text of a known form, whose whole form a pattern can not say.
TEXTS = {
    "filter": "JSON text; `contentSchema` says what it holds, and refuses nothing",
    "labels": "`k=v,k2=v2` or JSON text; a pattern can not say that no key comes twice",
}

# The same, over MCP alone, where arguments are sent as text.
BEYOND_SCHEMA_OF_TEXT = {"MALFORMED_JSON": "JSON is read strictly: no key twice, at most 64 levels; no schema says so"}

# Tools that stand for an operation, and say less of its input than it does.
WIDER = {
    "propose": "the specs of all kinds are too much for a list that a model carries along",
    "act": "its arguments are the input of the operation that it names",
    "operations_call": "the same",
}

# Operations whose input is the input of another one, which the document can not tie to its name.
INDIRECT = frozenset({"call_any", "operations.call"})

# Operations whose waits are cut short, so that a run is not spent on waiting; the field, and the seconds.
WAIT_S_MAX = 300
WAITS = {"wait_s": 0.2, "timeout_s": 0.3}
WAITS_UNASKED = frozenset({"agents.ask", "changes.wait"})  # wait long unless told otherwise

# Walks through one life alone: over all operations at once, few lead as far as a deletion.
_CHANGES = ("plans.get", "plans.commit", "changes.get", "changes.wait", "changes.revert", "changes.list")
_USES = {
    "agents": ("send", "inspect", "list"),
    "fleets": ("list",),
    "channels": ("publish", "read"),
    "secrets": ("list",),
    "connections": ("list",),
    "budgets": ("list",),
    "routes": ("list", "pause", "replay", "resume"),
}
LIVES = {
    **{
        noun: (*(f"{noun}.{verb}" for verb in ("propose", "get", "delete", *_USES[noun])), "plans.commit")
        for noun in KINDS
    },
    "changes": ("channels.propose", "channels.get", *_CHANGES),
    "agents living": ("agents.list", "agents.get", "agents.ask", "agents.stop", "agents.wake", "agents.inspect"),
    "channels living": ("channels.list", "channels.publish", "channels.join", "channels.leave", "channels.read"),
    "looking": ("agents.list", "turns.list", "turns.get", "feedback.read", "operations.search", "operations.describe"),
    "members": ("discovery.register", "discovery.renew", "discovery.find", "discovery.unregister"),
    "invitations": ("agents.list", "invitations.create", "invitations.list", "invitations.revoke"),
    "tokens": ("tokens.create", "tokens.list", "tokens.revoke"),
}

# In walks, agents get code that runs, and fleets few replicas: the schema can not say the one, the machine not take the
# other. What the other phases send stays as it is.
CODE = {"files": {"echo.py": ECHO}}
ENTRYPOINT = "echo:Echo"
REPLICAS_MAX = 2

# Where a bounded run starts from.
SEED = 20261125

# Operations that a bounded run need not reach with success.
UNREACHED = {
    "turns.settle": "an effect is in doubt only after something broke; tests/faults has those",
    "hosts.drain": "hosts come and go by themselves, under ids that nobody foresees; tests/gate has these",
    "nodes.drain": "no agent would run after it; tests/gate has these",
    "agents.cancel": "nobody foresees the id of a question that is open; tests/mcp has some",
    "connections.accept": "tools are there where a server offers some; tests/gate has those that do",
    "channels.cancel_delayed": "nobody foresees the id of a message; tests/living cancels some",
    "invitations.revoke": "nobody foresees the id of an invitation; tests/living revokes some",
    "questions.answer": "agents of a run ask nobody; tests/gate has those that do",
}

# What keeps a run small: any plan within these may be committed.
SETTINGS: dict[str, Any] = {"agents_max": 200, "hosts_max": 3, "plan_ttl_s": 3600.0}
