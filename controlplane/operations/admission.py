"""Admission, the first stage: what a writer sent becomes decisions, or is refused with its place.

`admit` turns manifests into `Wanted`: defaults filled in, what only the plane sets left out, code
replaced by its digest, a secret's values by a reference and a keyed MAC (rule O7), so that no value
goes further than this function's result. `check` holds decisions against the snapshot: owners, code
that must exist, values that must be there to be kept, limits. A commit checks the same again, so a
proposal fails if and only if its commit would (rule O6). Pure: no clock, no I/O, no randomness.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from controlplane.mesh.dataschema import schema_fault
from controlplane.operations import runtimes, workers
from controlplane.operations.codecheck import check_entrypoint, check_files, code_digest
from controlplane.operations.connecting import check_protocol
from controlplane.operations.offered import require_schemas
from controlplane.operations.routing import check_route
from controlplane.operations.using import connections_of
from controlplane.operations.world import Spec, Wanted, World, fleet_of
from controlplane.protocols.mcp_allowed import Startable
from controlplane.resources.problems import refuse
from schemas.agent import AgentManifest, AgentSpec
from schemas.base import short_id
from schemas.budget import BudgetManifest
from schemas.channel import ChannelManifest
from schemas.connection import ConnectionManifest
from schemas.fleet import FleetManifest, FleetSpec
from schemas.isolation import Resources
from schemas.keeping import unfit
from schemas.ports import Routing, Tried
from schemas.problem import Next
from schemas.protocols import Declaration
from schemas.route import RouteManifest
from schemas.secret import Kept, SecretManifest

Mac = Callable[..., str]
AnyManifest = (
    AgentManifest
    | FleetManifest
    | ChannelManifest
    | ConnectionManifest
    | SecretManifest
    | BudgetManifest
    | RouteManifest
)
NAME_CHARS_MAX = 63
EVERYWHERE = ("*",)


@dataclass(frozen=True)
class Sealing:
    """A secret's value on its way to the vault; shown by nothing."""

    ref: str
    namespace: str
    value: SecretStr


@dataclass(frozen=True)
class Admitted:
    """Decisions, the source files they bring along, the values to be sealed, and whose stored code they may name.

    `reach` is the namespaces of who wants it; decisions that were admitted before are not judged by it again.
    """

    wanted: tuple[Wanted, ...]
    code: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sealing: tuple[Sealing, ...] = ()
    reach: tuple[str, ...] = EVERYWHERE


def admit(manifests: Sequence[tuple[str, AnyManifest]], mac: Mac, reach: tuple[str, ...] = EVERYWHERE) -> Admitted:
    """The decisions of manifests, each with its place in the input."""
    wanted: list[Wanted] = []
    code: dict[str, Mapping[str, str]] = {}
    sealing: list[Sealing] = []
    for place, manifest in manifests:
        it = _admitted(place, manifest, mac, code, sealing)
        if any(it.key == other.key for other in wanted):
            detail = f"{it.kind} {it.namespace}/{it.name} is there twice"
            raise refuse(
                "DUPLICATE_MANIFEST",
                detail,
                field=f"{place}/metadata/name",
                kind=it.kind,
                namespace=it.namespace,
                name=it.name,
            )
        wanted.append(it)
    return Admitted(tuple(wanted), code, tuple(sealing), reach)


def _admitted(
    place: str, manifest: AnyManifest, mac: Mac, code: dict[str, Mapping[str, str]], sealing: list[Sealing]
) -> Wanted:
    about = manifest.metadata
    if isinstance(manifest, SecretManifest):
        spec = _secret(manifest, mac, sealing)
    elif isinstance(manifest, ChannelManifest):
        spec = manifest.spec.model_dump(mode="json")
        if manifest.spec.dataschema is not None and (fault := schema_fault(manifest.spec.dataschema)):
            raise refuse("INVALID_VALUE", f"dataschema: {fault}", field=f"{place}/spec/dataschema", fault=fault)
    elif isinstance(manifest, RouteManifest):
        spec = {**manifest.spec.model_dump(mode="json"), "worker": workers.DIGEST}
        code[workers.DIGEST] = workers.FILES
        _last_name(about.name, 1, f"{place}/metadata/name")
    elif isinstance(manifest, ConnectionManifest | BudgetManifest):
        spec = manifest.spec.model_dump(mode="json")
    elif isinstance(manifest, FleetManifest):
        spec = _whole(manifest.spec)
        _code(spec["template"]["spec"], f"{place}/spec/template/spec", code)
        _last_name(about.name, manifest.spec.replicas, f"{place}/metadata/name")
    else:
        spec = _whole(manifest.spec)
        _code(spec, f"{place}/spec", code)
    return Wanted("apply", manifest.kind, about.namespace, about.name, dict(about.labels), spec, place=place)


def _whole(spec: AgentSpec | FleetSpec) -> Spec:
    """The spec with its defaults as the model types them, so that equal specs have one form."""
    return type(spec).model_validate_json(spec.model_dump_json()).model_dump(mode="json")


def _code(spec: Spec, place: str, code: dict[str, Mapping[str, str]]) -> None:
    """Replace inline files by their digest; a runtime that brings its own code gets it."""
    require_schemas(spec["capabilities"], f"{place}/capabilities")
    _require_kept(spec["resources"], f"{place}/resources")
    if spec["runtime"] == "llm":
        runtimes.of_llm(spec, place)
        code[runtimes.DIGEST] = runtimes.FILES
        return
    files = spec["code"]["files"]
    if files is not None:
        found = code_digest(files)
        if found not in code:
            check_files(files, f"{place}/code/files")
            code[found] = files
        spec["code"]["digest"] = found
    spec["code"] = {"digest": spec["code"]["digest"]}


def _require_kept(resources: Spec, place: str) -> None:
    """What Ray refuses to keep is refused here, of new specs; those that are stored stay as they are."""
    if (found := unfit(Resources.model_validate(resources))) is not None:
        what, why = found
        raise refuse("INVALID_VALUE", f"resources: {what}: {why}", field=f"{place}/{what}", what=what, why=why)


def _secret(manifest: SecretManifest, mac: Mac, sealing: list[Sealing]) -> Spec:
    about = manifest.metadata
    values: dict[str, Any] = {}
    for key, value in manifest.spec.values.items():
        if isinstance(value, Kept):
            values[key] = {"kept": True}
            continue
        mark = mac(about.namespace, about.name, key, value.get_secret_value())
        ref = short_id("sec", about.namespace, about.name, key, mark)
        values[key] = {"ref": ref, "mac": mark}
        sealing.append(Sealing(ref, about.namespace, value))
    return {"values": values}


def _last_name(fleet: str, replicas: int, place: str) -> None:
    last = f"{fleet}-{max(replicas, 1) - 1}"
    if len(last) > NAME_CHARS_MAX:
        detail = f"the fleet's last agent would be named {last}, which is longer than {NAME_CHARS_MAX} characters"
        raise refuse("INVALID_NAME", detail, field=place, name=last, max_length=NAME_CHARS_MAX)


def check(
    wanted: Sequence[Wanted],
    world: World,
    agents_max: int,
    currency: str,
    unconfined: str | None = None,
    protocols: Mapping[str, Declaration] | None = None,
    routing: Routing | None = None,
    tried: Mapping[str, Sequence[Tried]] | None = None,
    startable: Startable | None = None,
) -> None:
    """Refuse what the world does not allow; the same for a proposal and for its commit.

    `unconfined` says why this system can not confine an agent, `tried` what came of the samples of routes, `startable`
    which processes connections may start.
    """
    for it in wanted:
        _check_owner(it, world)
        if it.action == "delete":
            _check_delete(it, wanted, world)
            _check_senders(it, wanted, world)
            _check_users(it, wanted, world)
        if it.kind in ("Fleet", "Route") and it.action == "apply":
            _check_siblings(it, world)
        if it.kind == "Route" and it.action == "apply" and routing is not None:
            check_route(it, wanted, world, routing, tried or {})
        if (spec := it.agent_spec) is not None:
            _check_code(it, spec, world)
            _check_isolation(it, spec, unconfined)
            _check_on_hold(it, spec)
        if it.kind == "Secret" and it.action == "apply":
            _check_kept(it, world)
        if it.kind == "Channel" and it.action == "apply":
            _check_mode(it, world)
        if it.kind == "Budget" and it.action == "apply":
            _check_currency(it, currency)
        if it.kind == "Connection" and it.action == "apply" and protocols is not None:
            check_protocol(it, protocols, startable)
    _check_quota(wanted, world, agents_max)


def _check_mode(it: Wanted, world: World) -> None:
    """A log that all read does not become one that is shared, nor the other way round."""
    current = world.at("Channel", it.namespace, it.name)
    if not current.live or current.spec["mode"] == it.spec["mode"]:
        return
    detail = f"channel {it.namespace}/{it.name} is a {current.spec['mode']}, and stays one while it is there"
    about = {"namespace": it.namespace, "name": it.name}
    step = Next(operation="channels.delete", arguments=about, why="proposes to take it away; then make it anew")
    raise refuse("INVALID_VALUE", detail, field=f"{it.place}/spec/mode", next=[step], **about, mode=it.spec["mode"])


def _check_owner(it: Wanted, world: World) -> None:
    if it.kind != "Agent":
        return
    current = world.at("Agent", it.namespace, it.name)
    owner = world.owners.get(current.owner or "") if current.live else None
    if owner is None and current.owner is not None and current.owner.startswith(("fleet_", "route_")):
        detail = f"agent {it.namespace}/{it.name} is going with what it belonged to; try again"
        raise refuse("CONFLICT", detail, retry_after_s=1.0, namespace=it.namespace, name=it.name)
    place = fleet_of(it.name)
    if owner is None and place is not None and it.action == "apply" and not current.live:
        fleet = world.at("Fleet", it.namespace, place[0])
        owner = fleet.ref if fleet.live and place[1] < fleet.spec["replicas"] else None
    if owner is not None and owner.kind in ("Fleet", "Route"):
        word = owner.kind.lower()
        detail = f"agent {it.namespace}/{it.name} belongs to {word} {owner.name}; change the {word} instead"
        arguments = {"namespace": owner.namespace, "name": owner.name}
        step = Next(operation=f"{word}s.get", arguments=arguments, why=f"shows the {word}")
        place_of_name = f"{it.place}/metadata/name" if it.action == "apply" else "/name"
        raise refuse(
            "OWNED",
            detail,
            field=place_of_name,
            next=[step],
            namespace=it.namespace,
            name=it.name,
            **{word: owner.name},
        )


def _check_delete(it: Wanted, wanted: Sequence[Wanted], world: World) -> None:
    word, about = it.kind.lower(), {"kind": it.kind, "namespace": it.namespace, "name": it.name}
    if it.must_exist and not world.at(it.kind, it.namespace, it.name).live:
        step = Next(
            operation=f"{word}s.list", arguments={"namespace": it.namespace}, why=f"shows the {word}s there are"
        )
        raise refuse("NOT_FOUND", f"there is no {word} {it.namespace}/{it.name}", field="/name", next=[step], **about)
    going = {f"{one.kind}/{one.name}" for one in wanted if one.action == "delete" and one.namespace == it.namespace}
    named = world.names("watchers", it.namespace, it.name) if it.kind == "Channel" else ()
    watchers = [one for one in named if one not in going]
    if watchers:
        detail = f"channel {it.namespace}/{it.name} is watched by {', '.join(watchers[:5])}"
        kind, _, name = watchers[0].partition("/")
        arguments = {"namespace": it.namespace, "name": name}
        step = Next(operation=f"{kind.lower()}s.get", arguments=arguments, why="shows who watches")
        raise refuse("IN_USE", detail, field="/name", next=[step], **about, watchers=watchers[:50])


def _check_senders(it: Wanted, wanted: Sequence[Wanted], world: World) -> None:
    """A secret goes after the connections that send it, or with them."""
    if it.kind != "Secret":
        return
    decided = {one.name: one for one in wanted if (one.kind, one.namespace) == ("Connection", it.namespace)}
    sends = {name for name, one in decided.items() if one.action == "apply" and _sent(one) == it.name}
    senders = sorted(sends | (set(world.names("senders", it.namespace, it.name)) - decided.keys()))
    if senders:
        detail = f"secret {it.namespace}/{it.name} is sent by {', '.join(senders[:5])}"
        arguments = {"namespace": it.namespace, "name": senders[0]}
        step = Next(operation="connections.get", arguments=arguments, why="shows what sends it")
        about = {"kind": it.kind, "namespace": it.namespace, "name": it.name}
        raise refuse("IN_USE", detail, field="/name", next=[step], **about, connections=senders[:50])


def _check_users(it: Wanted, wanted: Sequence[Wanted], world: World) -> None:
    """A connection goes after what uses it, or with it; who is merely granted it does not hold it."""
    if it.kind != "Connection":
        return
    decided = {f"{one.kind}/{one.name}": one for one in wanted if one.namespace == it.namespace}
    uses = {
        name for name, one in decided.items()
        if one.action == "apply" and it.name in connections_of(one.kind, one.spec)
    }  # fmt: skip
    users = sorted(uses | (set(world.names("users", it.namespace, it.name)) - decided.keys()))
    if users:
        detail = f"connection {it.namespace}/{it.name} is used by {', '.join(users[:5])}"
        kind, _, name = users[0].partition("/")
        arguments = {"namespace": it.namespace, "name": name}
        step = Next(operation=f"{kind.lower()}s.get", arguments=arguments, why="shows what uses it")
        about = {"kind": it.kind, "namespace": it.namespace, "name": it.name}
        raise refuse("IN_USE", detail, field="/name", next=[step], **about, users=users[:50])


def _sent(connection: Wanted) -> str | None:
    """The secret that a connection sends a value of."""
    return connection.spec["secret"]["name"] if connection.spec["secret"] is not None else None


def _check_siblings(it: Wanted, world: World) -> None:
    for name in world.names("siblings", it.namespace, it.name):
        place = fleet_of(name)
        if place is not None and place[1] < it.spec.get("replicas", 1):
            detail = f"agent {it.namespace}/{name} is there already and is not this {it.kind.lower()}'s"
            step = Next(
                operation="agents.get", arguments={"namespace": it.namespace, "name": name}, why="shows the agent"
            )
            raise refuse(
                "OWNED", detail, field=f"{it.place}/metadata/name", next=[step], namespace=it.namespace, name=name
            )


def _check_code(it: Wanted, spec: Spec, world: World) -> None:
    place = f"{it.place}/spec" + ("/template/spec" if it.kind == "Fleet" else "")
    files = world.code.get(spec["code"]["digest"])
    if files is None:
        digest = spec["code"]["digest"]
        detail = f"there is no code {digest}; store it with code.put first"
        step = Next(operation="operations.describe", arguments={"name": "code.put"}, why="shows how to store code")
        raise refuse("CODE_NOT_FOUND", detail, field=f"{place}/code/digest", next=[step], digest=digest)
    check_entrypoint(files, spec["entrypoint"], f"{place}/entrypoint")


def _check_isolation(it: Wanted, spec: Spec, unconfined: str | None) -> None:
    """An agent that shall be confined is refused where it can not be: it would wait for a host for ever."""
    if unconfined is not None and spec["isolation"] == "confined":
        place = f"{it.place}/spec" + ("/template/spec" if it.kind == "Fleet" else "")
        detail = f"no agent can be confined here: {unconfined}"
        step = Next(operation="system.status", why="shows as `confinement` what this system lacks")
        raise refuse("NO_CONFINEMENT", detail, field=f"{place}/isolation", next=[step], why=unconfined)


def _check_on_hold(it: Wanted, spec: Spec) -> None:
    """What would be accepted, and not done, is refused."""
    if spec["on_hold"] == "detach":
        place = f"{it.place}/spec" + ("/template/spec" if it.kind == "Fleet" else "")
        detail = (
            "on_hold: detach is not built: use park, and the turn waits for an operator; or raise, and the handler"
            " hears HELD or IN_DOUBT at once, and may leave the rest to turn.request or turn.send"
        )
        raise refuse("INVALID_VALUE", detail, field=f"{place}/on_hold", on_hold="detach", instead=["park", "raise"])


def _check_kept(it: Wanted, world: World) -> None:
    stored = world.at("Secret", it.namespace, it.name).spec.get("values", {})
    for key, value in it.spec["values"].items():
        if "kept" in value and key not in stored:
            detail = f"secret {it.namespace}/{it.name} has no value {key} to keep"
            raise refuse(
                "SECRET_VALUE_MISSING",
                detail,
                field=f"{it.place}/spec/values/{key}",
                namespace=it.namespace,
                name=it.name,
                key=key,
            )


def _check_currency(it: Wanted, currency: str) -> None:
    """Money is what the rate card says, in its currency; a limit in another one would be held against nothing."""
    wanted = it.spec.get("currency")
    if wanted not in (None, currency):
        detail = f"the budget is in {wanted}, the rates of this installation are in {currency}, and nothing converts"
        raise refuse("INVALID_VALUE", detail, field=f"{it.place}/spec/currency", wanted=wanted, currency=currency)


def _check_quota(wanted: Sequence[Wanted], world: World, agents_max: int) -> None:
    """Each namespace has the limit for itself, so that it tells nobody how full the others are."""
    for namespace in sorted({it.namespace for it in wanted}):
        there = world.agents.get(namespace, 0)
        more = sum(_agents_more(it, world) for it in wanted if it.namespace == namespace)
        if more > 0 and there + more > agents_max:
            detail = f"{there} agents are in {namespace}, {more} more would pass the limit of {agents_max}"
            raise refuse("QUOTA", detail, namespace=namespace, agents=there, more=more, agents_max=agents_max)


def _agents_more(it: Wanted, world: World) -> int:
    current = world.at(it.kind, it.namespace, it.name)
    if it.kind == "Agent":
        return int(it.action == "apply") - int(current.live)
    if it.kind == "Fleet":
        before = current.spec["replicas"] if current.live else 0
        return int((it.spec["replicas"] if it.action == "apply" else 0) - before)
    if it.kind == "Route":
        return int(it.action == "apply") - int(current.live)
    return 0
