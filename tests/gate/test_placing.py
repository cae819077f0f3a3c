"""Who gets a host where there is room for few: without a gate, by what is wanted of the placer."""

from types import SimpleNamespace
from typing import Any

from controlplane.effects.confining import Known
from controlplane.effects.keys import Key, address_of, reserved_for
from controlplane.effects.node import Bounds
from controlplane.effects.placing import Host, Placing


class Scene:
    """A placing with room for so many hosts, and a clock that stands until it is moved."""

    def __init__(self, hosts_max: int, hosts_warm: int = 0) -> None:
        self.now = 100.0
        nodes = SimpleNamespace(open=lambda: [""], avoided=list, seen_by_ray=None, closed=set())
        nothing = SimpleNamespace(sought=set)
        self.node: Any = SimpleNamespace(
            bounds=Bounds(hosts_max=hosts_max, hosts_warm=hosts_warm),
            steady=lambda: self.now,
            nodes=nodes,
            moving=nothing,
            draining=nothing,
            slots=SimpleNamespace(holds=lambda _: True),
        )
        self.placing = Placing(self.node)
        self.node.hosts = SimpleNamespace(retire=lambda host, _why: self.placing.departed(host.host_id))
        self.node.ownership = SimpleNamespace(let_go=lambda _: None)

    def has(
        self, host_id: str, digest: str = "", slots: int = 0, *, inflight: int = 1, rested: float = 0.0, node: str = ""
    ) -> None:
        """A host is here, warm unless it has a digest; a turn is in flight there unless it rests."""
        agent = SimpleNamespace(leave=False, state="idle", retry_timer=None)
        about = {"digest": digest, "reserved": "", "idle_since": 0.0, "since": 0.0, "rested_since": rested}
        about |= {"slots": [agent] * slots, "inflight": inflight}
        host: Any = SimpleNamespace(host_id=host_id, wire=SimpleNamespace(node=node), draining=False, **about)
        host.rests = not inflight
        self.placing.remember(host_id, Known(0, "", "", ""))
        self.placing._wanted.put(host_id, node=node)
        self.placing.here[host_id] = host

    def waits(self, name: str, namespace: str = "n", **spec: Any) -> Key:
        """An agent comes to wait for a host of its own."""
        self.now += 1
        reserved = reserved_for(name, namespace, name, {"isolation": "dedicated"} | spec)
        key = Key(namespace, "d", reserved)
        slot: Any = SimpleNamespace(queued=False, key=key, state="free")
        self.placing.demand(slot)
        return key

    @property
    def wanted(self) -> dict[str, str | None]:
        """For whom hosts are asked for, by their ids."""
        said = self.placing._wanted.said(())
        return {it: address_of(said.reserved.get(it, "")) for it in said.host_ids}

    @property
    def asked_for(self) -> list[str | None]:
        return sorted(self.wanted.values(), key=str)

    def fails(self, host_id: str, why: str = "no room") -> None:
        self.placing.departed(host_id, why)
        self.placing.ensure()


def test_who_waits_for_longest_is_first() -> None:
    """Not whose name is; and spare hosts come after all who wait."""
    scene = Scene(hosts_max=2, hosts_warm=2)
    scene.node.nodes.open = list  # none takes agents yet
    for name in ("z", "m", "a"):
        scene.waits(name)
    scene.node.nodes.open = lambda: [""]
    scene.placing.ensure()
    assert scene.asked_for == ["n/m", "n/z"]


def test_namespaces_take_turns() -> None:
    """One that came with many does not keep another from its first."""
    scene = Scene(hosts_max=2)
    scene.node.nodes.open = list
    for name, namespace in (("a", "many"), ("b", "many"), ("c", "many"), ("z", "one")):
        scene.waits(name, namespace)
    scene.node.nodes.open = lambda: [""]
    scene.placing.ensure()
    assert scene.asked_for == ["many/a", "one/z"]


def test_whoever_is_not_asked_for_takes_no_room() -> None:
    """An agent whose host did not come is asked for less often, and meanwhile its place is another's."""
    scene = Scene(hosts_max=1)
    scene.waits("first")
    (host_id,) = scene.wanted
    scene.waits("second")
    scene.fails(host_id)
    assert scene.asked_for == ["n/second"]


def test_what_no_node_has_is_not_asked_for() -> None:
    """It takes no room, drives nobody from theirs, and is told; once a node has it, it is asked for."""
    scene = Scene(hosts_max=1)
    scene.node.nodes.seen_by_ray = [{"node": "here", "alive": True, "resources": {"CPU": 2.0}, "labels": {}}]
    needy = scene.waits("needy", resources={"custom": {"quantum": 1}})
    assert scene.asked_for == []
    assert scene.placing.why_not(needy).startswith("no node has quantum 1 (nodes: here: CPU 2")
    scene.waits("modest", resources={"num_cpus": 1})
    assert scene.asked_for == ["n/modest"]
    (host_id,) = scene.wanted
    scene.placing._lines = {needy: scene.placing._lines[needy]}
    scene.node.nodes.seen_by_ray = [{"node": "here", "alive": True, "resources": {"quantum": 1.0}, "labels": {}}]
    scene.fails(host_id)
    assert scene.asked_for == ["n/needy"]
    assert scene.placing.why_not(needy) == ""


def test_what_a_drained_node_alone_has_is_not_asked_for() -> None:
    """Nobody is to come there; once it takes agents again, it is asked for."""
    scene = Scene(hosts_max=1)
    has = {"alive": True, "resources": {"quantum": 1.0}, "labels": {}}
    scene.node.nodes.seen_by_ray = [{"node": "here", **has, "resources": {}}, {"node": "other", **has}]
    scene.node.nodes.closed.add("other")
    needy = scene.waits("needy", resources={"custom": {"quantum": 1}})
    assert scene.asked_for == []
    assert "other: drained" in scene.placing.why_not(needy)
    scene.node.nodes.closed.clear()
    scene.placing.ensure()
    assert scene.asked_for == ["n/needy"]


def test_a_spare_host_is_no_place_for_an_agent_with_one_of_its_own() -> None:
    """An idle one goes for it, else the spare one itself; it does not wait for as long as there is a spare."""
    scene = Scene(hosts_max=3, hosts_warm=1)
    scene.has("busy", "d", slots=1)
    scene.has("idle", "d")
    scene.has("spare")
    scene.waits("own")
    assert set(scene.placing.here) == {"busy", "spare"}
    scene.waits("more")
    assert set(scene.placing.here) == {"busy"}
    assert [it for it in scene.asked_for if it] == ["n/more", "n/own"]


def test_a_host_whose_agents_rest_makes_place_at_once() -> None:
    """The one that has rested for longest; one with a turn in flight is left to it while others can be patient."""
    scene = Scene(hosts_max=3)
    scene.has("works", "d", slots=1)
    scene.has("rests", "d", slots=1, inflight=0, rested=50.0)
    scene.has("rested lately", "d", slots=1, inflight=0, rested=90.0)
    scene.waits("own")
    assert [it for it, host in scene.placing.here.items() if host.draining] == ["rests"]


def test_a_node_that_dies_with_a_host_on_its_way_delays_none_elsewhere() -> None:
    """Who waits for a shared host is asked for on another node at once, and there less often."""
    scene = Scene(hosts_max=1, hosts_warm=1)
    scene.node.nodes.open = lambda: ["", "far"]
    scene.placing.ensure()
    nodes = {it.node: host_id for host_id, it in scene.placing._wanted._wishes.items()}
    assert set(nodes) == {"", "far"}
    scene.fails(nodes["far"])
    assert [it.node for it in scene.placing._wanted._wishes.values()] == [""]
    scene.has(nodes[""], "d", slots=1, inflight=0)
    slot: Any = SimpleNamespace(queued=False, key=Key("n", "e", ""), state="free")
    scene.placing.demand(slot)
    assert scene.placing.here[nodes[""]].draining


def test_hosts_of_a_node_that_takes_no_more_are_left_to_their_agents() -> None:
    """It is closed, or none could be started there just now: their places are no use to who waits."""
    scene = Scene(hosts_max=1)
    scene.has("busy", "d", slots=1)
    scene.has("rests", "d", slots=1, inflight=0, node="far")
    scene.waits("own")
    scene.placing.ensure()
    assert not scene.placing.here["rests"].draining
    scene.node.nodes.open = lambda: ["", "far"]
    scene.placing.ensure()
    assert scene.placing.here["rests"].draining


def test_a_host_rests_when_each_of_its_agents_could_be_let_go() -> None:
    """Not while one is to try again, or comes or goes."""

    def rests(inflight: int = 0, **about: Any) -> Any:
        slots = [SimpleNamespace(state="parked", retry_timer=None), SimpleNamespace(**about)]
        host: Any = SimpleNamespace(inflight=inflight, slots=slots)
        return Host.rests.fget(host)  # type: ignore[attr-defined]

    assert rests(state="idle", retry_timer=None)
    assert not rests(state="idle", retry_timer=None, inflight=1)
    assert not rests(state="idle", retry_timer=object())
    assert not rests(state="acquiring", retry_timer=None)
    assert not rests(state="leaving", retry_timer=None)


def test_a_confined_agent_waits_for_the_node_of_the_gate() -> None:
    """Its host is there or nowhere, so while that is closed none is asked for."""
    scene = Scene(hosts_max=2)
    scene.node.nodes.open = lambda: ["far"]
    scene.waits("kept", isolation="confined")
    assert scene.asked_for == []
    scene.node.nodes.open = lambda: ["", "far"]
    scene.placing.ensure()
    assert scene.asked_for == ["n/kept"]


def test_a_spare_host_stays_while_who_waits_is_not_asked_for() -> None:
    """Else spares would come and go for as long as its host does not come."""
    scene = Scene(hosts_max=1, hosts_warm=1)
    scene.has("spare")
    scene.waits("own")
    (host_id,) = scene.wanted
    scene.fails(host_id)
    (spare,) = scene.wanted
    scene.has(spare)
    scene.placing.ensure()
    assert set(scene.placing.here) == set(scene.wanted) == {spare}
    scene.now += 60
    scene.placing.ensure()
    assert scene.asked_for == ["n/own"]


def test_who_leaves_a_node_goes_to_another_one_if_that_can_be() -> None:
    """To a host that serves its code there, or a spare one; else to another of the same node."""
    scene, key = Scene(hosts_max=6), Key("n", "d", "")
    scene.node.diverging = SimpleNamespace(one_in=lambda _: 0)
    for host_id, node, digest in (("here", "a", "d"), ("beside", "a", "d"), ("far", "b", "other")):
        scene.has(host_id, digest)
        host = scene.placing.here[host_id]
        host.wire.node = host.node = node
        host.namespace, host.emptying, host.held_s = "n", False, 0.0
        host.key = Key("n", digest, "")
    here, far = scene.placing.here["here"], scene.placing.here["far"]
    assert scene.placing.other(key, here, off_node=True) is scene.placing.here["beside"]
    far.key = key
    far.slots = set(range(9))
    assert scene.placing.other(key, here, off_node=True) is far
    assert scene.placing.other(key, here) is scene.placing.here["beside"]
    scene.node.nodes.closed.add("b")
    assert scene.placing.other(key, here, off_node=True) is scene.placing.here["beside"], "that node is closed"
    scene.node.nodes.closed.add("a")
    assert scene.placing.other(key, here) is None
    assert scene.placing.pick(key, "here") in (here, scene.placing.here["beside"]), "they serve until others have come"
