"""Functions that Ray runs for turns which wait: `compute.run`. Begun, lost, begun again, and what came of them.

A compute is an effect whose intent is an await: its turn parks, and may be suspended for as long as it takes. Which
tasks shall run follows from the open rows alone, and is said to the placer as a list, so that whoever is new on either
side is soon right. That a task is begun is written ahead, with the placer that is told so: tasks die with their placer,
so what another one had is lost. What is lost begins anew as often as it may; more than that, nobody can say of it.
Ray's workers are not confined: of an agent that is, or has become so, none is begun, and what runs is ended.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from controlplane.economy import meters
from controlplane.economy.accounts import Work
from controlplane.effects import eventing, journaling
from controlplane.effects.fitting import fits, lacking
from controlplane.effects.node import MESSAGES, Node
from controlplane.effects.sending import Act
from controlplane.effects.slots import Slot
from controlplane.effects.turnref import Row, TurnRef
from controlplane.effects.wireio import Wire
from controlplane.resources.problems import problem
from controlplane.store import computing as sql
from controlplane.store import statements
from schemas.base import short_id
from schemas.branches import HELD
from schemas.compute import COMPUTE, ComputeRun
from schemas.frames import TaskBegin, TaskEnded, TaskStarted, TasksWanted
from schemas.ports import Lasting
from schemas.problem import Next, Problem
from schemas.wire import Ask, Receipt

AGAIN_S = 0.5
ANEW_S_MAX = 10.0
ENDED = "the placer that had it has ended"
CONFINED = "confined"


@dataclass(eq=False, slots=True)
class Task:
    """An open compute."""

    await_id: str
    agent: str
    namespace: str
    name: str
    turn_id: str
    branch: str
    position: int
    digest: str
    given: ComputeRun
    arguments: bytes
    attempts: int = 0
    runner: str | None = None
    busy: bool = False
    why: str = ""  # the last attempt was lost
    unfit_since: float | None = None
    since: float | None = None  # when Ray gave this attempt what it needs, by the steady clock
    until: float | None = None  # when its placer was lost
    lost_s: float = 0.0  # how long it ran, when it is lost
    cut: Work | None = None  # what it took, told with what ends it without a receipt
    generation: int | None = None  # of its agent's spec, by which it is confined or not
    confined: bool = False

    def ran_s(self, now: float) -> float:
        """How long this attempt has had what it needs."""
        if self.since is None:
            return self.lost_s
        return max(0.0, (now if self.until is None else self.until) - self.since)

    @property
    def key(self) -> str:
        """Its await and its attempt, as the placer knows it."""
        return f"{self.await_id}:{self.attempts}"


def awaited(turn: TurnRef, frame: Ask, act: Act, now: float) -> Row:
    """The row by which a turn waits for a lasting effect, behind its intent."""
    assert isinstance(act.effector, Lasting)
    place = frame.branch, frame.position
    await_id = short_id("await", turn.turn_id, *place, near=turn.turn_id)
    until = now + act.effector.lasts_s(act.arguments)
    return sql.AWAIT, (await_id, turn.agent, turn.turn_id, *place, act.effector.target(act.arguments), now, until), 1


def unconfined(function: str, namespace: str, name: str) -> Problem:
    """Why a function of a confined agent is not run."""
    agent = f"{namespace}/{name}"
    detail = (
        f"{COMPUTE} of {function}: {agent} is confined, and Ray would run it as Steward itself, with a network and the"
        " disk; let an agent do it that is not confined (turn.ask), or do it in the turn, with resources of the spec"
    )
    look = Next(
        operation="agents.get",
        arguments={"namespace": namespace, "name": name},
        why="shows its isolation, and what its mandate grants",
    )
    of = "/effect"
    return problem("NO_CONFINEMENT", detail, field=of, next=[look], effect=COMPUTE, function=function, agent=agent)


def denied(slot: Slot, act: Act) -> Problem | None:
    """Why what Ray would do is not begun; None where nothing stands against it."""
    if not isinstance(act.effector, Lasting):
        return None
    if slot.spec.get("isolation") != CONFINED and (slot.host is None or not slot.host.enforced):
        return None
    given = ComputeRun.model_validate(act.arguments, from_attributes=True)
    return unconfined(given.function, slot.namespace, slot.name)


class Computing:
    """The computes of this gate's agents."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._wire: Wire | None = None
        self._runner = ""
        self._sent: set[str] = set()
        self._said: list[str] | None = None
        self._tasks: dict[str, Task] = {}

    # The turn that waits

    def waits(self, slot: Slot, frame: Ask) -> None:
        """Its turn waits as at an await; so does one whose replay has come to it."""
        place = frame.branch, frame.position
        if slot.host is None or slot.state != "running" or place not in slot.effects:
            return
        slot.effects.discard(place)
        slot.lasting.add(place)
        slot.said += 1
        slot.host.wire.send(Receipt(frame.turn_id, *place, HELD, b"null", self._node.clock()))

    def begun(self, slot: Slot, frame: Ask) -> None:
        """Its intent has just been written."""
        self.waits(slot, frame)
        self.look()

    # The placer

    def placer(self, wire: Wire, runner: str) -> None:
        """A placer is here: what it was told before it has, unless it is another one."""
        self._wire, self._runner, self._said = wire, runner, None
        self._sent.clear()
        self.look()

    def placer_lost(self, wire: Wire) -> None:
        if self._wire is wire:
            self._wire = None
            for task in self._tasks.values():
                task.until = self._node.steady()

    def look(self) -> None:
        """Take the next step of each open compute, and say which tasks shall run."""
        found: dict[str, Task] = {}
        for await_id, attempts, runner, until, generation in self._node.reader.rows(sql.OPEN):
            task = self._tasks.get(await_id) or self._read(await_id, until)
            if task is not None:
                found[await_id] = self._specified(task, generation)
                if not task.busy:
                    task.attempts, task.runner = attempts, runner
        for gone in self._tasks.keys() - found.keys():
            task = self._tasks[gone]
            if task.cut is None:
                self._node.budgeting.free(_key(task))
            else:
                self._node.budgeting.count(_key(task), task.cut)
        self._tasks = found
        if self._wire is None:
            return
        for task in found.values():
            if not task.busy:
                self._step(task)
        self._tell()

    def respecified(self, uid: str) -> None:
        """What is declared of an agent has changed."""
        if any(it.agent == uid for it in self._tasks.values()):
            self.look()

    def _specified(self, task: Task, generation: int | None) -> Task:
        if task.generation != generation:
            row = self._node.reader.one(sql.SPEC, task.agent)
            task.confined = row is not None and orjson.loads(row[0]).get("isolation") == CONFINED
            task.generation = generation
        return task

    def over(self, turn_id: str) -> None:
        """A turn has failed: nobody waits for what it had begun."""
        if any(it.turn_id == turn_id for it in self._tasks.values()):
            self.look()

    def _read(self, await_id: str, until: float) -> Task | None:
        self._node.timers.arm(until)
        row = self._node.reader.one(sql.ABOUT, await_id)
        if row is None:
            return None
        uid, namespace, name, turn_id, branch, position, body, digest = row
        self._node.budgeting.again(uid, (turn_id, branch, position), body)
        arguments = orjson.loads(body)["arguments"]
        given = ComputeRun.model_validate(arguments)
        return Task(await_id, uid, namespace, name, turn_id, branch, position, digest, given, orjson.dumps(arguments))

    def _step(self, task: Task) -> None:
        if task.confined:
            found = unconfined(task.given.function, task.namespace, task.name)
            self._resolve(task, "failed", _bytes(found), self._ran(task))
            return
        if self._unfit(task):
            return
        if task.runner == self._runner and not task.why:
            self._begin(task)
        elif task.runner is None or task.attempts <= task.given.retries:
            self._write_ahead(task)
        else:
            self._resolve(task, "failed", _lost(task), self._ran(task))

    def _unfit(self, task: Task) -> bool:
        """Whether no node could run it; after a while that is the answer, unless one that is drained could."""
        nodes, closed = self._node.nodes.seen_by_ray, self._node.nodes.closed
        if nodes is None or fits(task.given.resources, nodes):
            task.unfit_since = None
            return task.runner is None if nodes is None else not fits(task.given.resources, nodes, closed)
        now = self._node.steady()
        task.unfit_since = now if task.unfit_since is None else task.unfit_since
        if now - task.unfit_since >= self._node.bounds.compute_fit_s:
            self._resolve(task, "failed", _unfitting(task, nodes), {})
        return True

    def _write_ahead(self, task: Task) -> None:
        runner, attempts, now = self._runner, task.attempts, self._node.clock()
        task.busy = True
        rows: list[Row] = [(sql.BEGIN, (runner, task.await_id, attempts), 1)]
        before = self._taken(task)
        if attempts:
            rows.append(_told(task, now))
        if before is not None:
            rows += meters.rows(before.who, before.what, before.amounts, now)

        def written(outcome: str, detail: str) -> None:
            task.busy = False
            if outcome == "ok":
                task.attempts, task.runner, task.why = attempts + 1, runner, ""
                task.since, task.until, task.lost_s = None, None, 0.0
                if before is not None:
                    self._node.budgeting.spent(before)
                if self._runner == runner:
                    self._begin(task)
                    self._tell()
            else:
                self._soon()

        self._node.commit("compute", rows, written, MESSAGES)

    def _begin(self, task: Task) -> None:
        if task.key in self._sent or self._wire is None:
            return
        row = self._node.reader.one(statements.CODE, task.digest)
        files = row[0].encode() if row else b""
        self._sent.add(task.key)
        name, avoid = f"{task.namespace}/{task.name}", list(self._node.nodes.avoided())
        self._wire.send(TaskBegin(task.key, name, task.digest, files, task.arguments, avoid))

    def _tell(self) -> None:
        """Which tasks shall run: those that this placer was told of, and that are still open."""
        keys = sorted(it.key for it in self._tasks.values() if it.key in self._sent)
        if self._wire is not None and keys != self._said:
            self._said = keys
            self._wire.send(TasksWanted(keys))

    # What came of them

    def started(self, frame: TaskStarted) -> None:
        """The placer says since when a task has what it needs."""
        task = self._tasks.get(frame.key.rpartition(":")[0])
        if task is not None and task.key == frame.key:
            task.since, task.until = self._node.steady() - frame.active_s, None

    def _ran(self, task: Task) -> dict[str, float]:
        """What an attempt took that says nothing itself: the time for which it had what it needs."""
        ran_s = task.ran_s(self._node.steady())
        return {"task_s": ran_s, "gpu_s": ran_s * task.given.resources.num_gpus}

    def _taken(self, task: Task) -> Work | None:
        """The same, as it is counted; None where nothing of it ran."""
        amounts = meters.fitting(meters.bounded(self._ran(task)))
        if not any(amounts.values()) or (found := self._node.budgeting.whose(task.agent, task.turn_id)) is None:
            return None
        return Work(*found, meters.What(COMPUTE), {name: amount for name, amount in amounts.items() if amount})

    def cut(self, of: str) -> list[Row]:
        """What computes have taken that end without a receipt, for the unit that ends them: of an await, a turn,
        or an agent, by its id."""
        rows: list[Row] = []
        for task in self._tasks.values():
            if task.busy or of not in (task.await_id, task.turn_id, task.agent):
                continue  # of one that is busy a unit of its own tells
            if (work := self._taken(task)) is not None:
                task.cut = work
                rows += meters.rows(work.who, work.what, work.amounts, self._node.clock())
        return rows

    def ended(self, frame: TaskEnded) -> None:
        """The placer says what came of a task. What is open no more, or another attempt by now, is nobody's."""
        await_id, _, _ = frame.key.rpartition(":")
        task = self._tasks.get(await_id)
        if task is None or task.key != frame.key or task.busy or task.runner != self._runner:
            self._said = None  # it is told again what shall run
            self._soon()
            return
        if frame.outcome == "lost":
            task.why = str(orjson.loads(frame.result))
            task.since, task.lost_s = None, frame.active_s
            wait_s = min(ANEW_S_MAX, AGAIN_S * 2 ** (task.attempts - 1))
            asyncio.get_running_loop().call_later(wait_s, self.look)
            return
        used = {"cpu_s": frame.cpu_s, "task_s": frame.active_s, "gpu_s": frame.active_s * task.given.resources.num_gpus}
        self._resolve(task, frame.outcome, frame.result, used)

    def _resolve(self, task: Task, outcome: str, result: bytes, used: dict[str, float]) -> None:
        """Its receipt, once; what it used is counted with it."""
        found = self._node.budgeting.whose(task.agent, task.turn_id)
        if found is None:
            return
        now, amounts = self._node.clock(), meters.of_effect(len(task.arguments), len(result), meters.bounded(used))
        work = Work(*found, meters.What(COMPUTE), amounts)
        rows = journaling.receipt_of_await(task.await_id, outcome, result, now)
        rows += meters.rows(work.who, work.what, work.amounts, now)
        task.busy = True

        def resolved(committed: str, _detail: str) -> None:
            task.busy = False
            if committed == "ok":
                task.cut = None
                self._node.budgeting.count(_key(task), work)
                self._node.timers.resolved(task.await_id)
            elif committed == "error":
                asyncio.get_running_loop().call_later(AGAIN_S, self._again, task, outcome, result, used)
            else:
                self.look()  # cancelled, or too late

        self._node.commit("computed", rows, resolved, MESSAGES)

    def _again(self, task: Task, outcome: str, result: bytes, used: dict[str, float]) -> None:
        """The store could not take the receipt: once more, while it is open."""
        if self._tasks.get(task.await_id) is task and not task.busy:
            self._resolve(task, outcome, result, used)

    def _soon(self) -> None:
        asyncio.get_running_loop().call_later(AGAIN_S, self.look)


def _key(task: Task) -> tuple[str, str, int]:
    return task.turn_id, task.branch, task.position


def _told(task: Task, now: float) -> Row:
    """The event of an attempt that was lost, and is followed by another."""
    about = {
        "turn_id": task.turn_id, "branch": task.branch, "position": task.position,
        "function": task.given.function, "attempt": task.attempts, "why": task.why or ENDED,
    }  # fmt: skip
    return eventing.agent_event("compute.lost", task.namespace, task.name, None, now, about)


def _lost(task: Task) -> bytes:
    function, attempts, why = task.given.function, task.attempts, task.why or ENDED
    detail = f"{function}: its worker died, at attempt {attempts} of {task.given.retries + 1}: {why}"
    look = Next(operation="turns.get", arguments={"turn_id": task.turn_id}, why="shows what the turn did before")
    return _bytes(problem("COMPUTE_LOST", detail, next=[look], function=function, attempts=attempts, why=why))


def _unfitting(task: Task, nodes: Sequence[dict[str, Any]]) -> bytes:
    detail = f"{task.given.function}: {lacking(task.given.resources, nodes)}"
    look = Next(operation="nodes.list", why="shows the nodes there are, and what they have")
    needs = task.given.resources.model_dump(mode="json", exclude_defaults=True)
    return _bytes(problem("NO_RESOURCES", detail, next=[look], function=task.given.function, resources=needs))


def _bytes(found: Problem) -> bytes:
    return found.model_dump_json().encode()
