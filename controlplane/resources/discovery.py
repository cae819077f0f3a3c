"""Discovery: who is there."""

from controlplane.resources.operation import Operation
from schemas.calls import ListOutput, NamedAct
from schemas.discovery import FindInput, Found, Talk, TopologyInput
from schemas.member import RegisterInput, RemoteMember, RenewInput, Unregistered


class Topology(ListOutput[Talk]):
    """A page of who talks to whom."""


_MEMBER = {"namespace": "default", "name": "far-judge"}

OPERATIONS = (
    Operation(
        "discovery.find",
        "Find agents by name, label, capability or meaning",
        "Who fits all that is given, the best first. `meaning` compares what is needed with what agents say of "
        "themselves: their purpose and their capabilities. Suspended agents are found like any other: a message wakes "
        "them.",
        FindInput,
        Found,
        "GET",
        "/v1/discovery/find",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("NO_EMBEDDING", "NOT_READY"),
        untrusted=("/items/*/purpose", "/items/*/capabilities"),
        example={"meaning": "who can judge a disk alarm?"},
    ),
    Operation(
        "discovery.topology",
        "See who talks to whom",
        "Observed, not configured: what agents heard from whom, how much, how fast, since when. Counted when a message "
        "was handled, some seconds later at most; answers to questions are not messages of their own.",
        TopologyInput,
        Topology,
        "GET",
        "/v1/discovery/topology",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("INVALID_CURSOR",),
        example={"namespace": "default"},
    ),
    Operation(
        "discovery.register",
        "Say that an agent elsewhere is here",
        "It is found by name, labels, capability and meaning until its lease is over: renew it before. Registered "
        "again, all that was said is replaced.",
        RegisterInput,
        RemoteMember,
        "POST",
        "/v1/discovery/members",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("INVALID_VALUE", "QUOTA", "NOT_READY"),
        untrusted=("/purpose", "/capabilities"),
        example={**_MEMBER, "purpose": "Judges alarms of disks", "lease_s": 60},
    ),
    Operation(
        "discovery.renew",
        "Renew the lease of a member",
        "It is here for `lease_s` from now on. One that is gone is registered again.",
        RenewInput,
        RemoteMember,
        "POST",
        "/v1/discovery/members/{namespace}/{name}/renew",
        "change",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_FOUND", "NOT_READY"),
        untrusted=("/purpose", "/capabilities"),
        example=_MEMBER,
    ),
    Operation(
        "discovery.unregister",
        "Take a member away",
        "It is found no more; one that is gone already is no error.",
        NamedAct,
        Unregistered,
        "POST",
        "/v1/discovery/members/{namespace}/{name}/unregister",
        "destroy",
        "operator",
        "namespace",
        imperative=True,
        problems=("NOT_READY",),
        example=_MEMBER,
    ),
)
