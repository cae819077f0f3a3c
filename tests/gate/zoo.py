"""Agents of the gate's tests."""

SOURCE = """
import time
from pydantic import BaseModel
from ray_runtime import Agent


class Counts(BaseModel):
    seen: int = 0
    started: int = 0
    got: list = []


class Echo(Agent):
    async def on_message(self, turn, envelope):
        return envelope.data


class Counter(Agent):
    state: Counts

    async def on_start(self, turn):
        self.state.started += 1

    async def on_message(self, turn, envelope):
        if envelope.data == "count":
            return self.state.model_dump()
        self.state.seen += 1
        self.state.got.append(envelope.data)
        turn.send("ledger", {"n": envelope.data})
        return self.state.seen


class Ledger(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data == "count":
            return self.state.model_dump()
        self.state.seen += 1
        self.state.got.append(envelope.data["n"])


class Asker(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        first = await turn.ask(envelope.data["whom"], envelope.data.get("what"))
        await turn.sleep(envelope.data.get("sleep", 0.01))
        self.state.seen += 1
        return [first.data, self.state.seen]


class Requester(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data == "count":
            return self.state.model_dump()
        turn.request(envelope.data, {"q": 1})

    async def on_reply(self, turn, reply):
        self.state.got.append([reply.type, reply.data])


class Ticker(Agent):
    state: Counts

    async def on_start(self, turn):
        turn.timer("tick", every_s=0.1, data={"x": 1})

    async def on_timer(self, turn, timer):
        self.state.seen += 1
        if self.state.seen == 5:
            turn.timer(timer.subject, cancel=True)


class Reader(Agent):
    async def on_message(self, turn, envelope):
        found = await turn.perform("machine.read", what="cpu")
        return found["cpu_percent"] >= 0


class Broken(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        self.state.seen += 1
        raise ValueError("on purpose")


class Flaky(Agent):
    async def on_message(self, turn, envelope):
        import os, pathlib
        marker = pathlib.Path(envelope.data)
        if not marker.exists():
            marker.write_text(str(os.getpid()))
            time.sleep(30)
        return "survived"


class Publisher(Agent):
    async def on_message(self, turn, envelope):
        for n in range(envelope.data):
            turn.publish("news", n)


class Member(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data == "count":
            return self.state.model_dump()
        if envelope.data in ("join", "leave"):
            turn.join("news") if envelope.data == "join" else turn.leave("news")
            return None
        self.state.got.append(envelope.data)


class Parent(Agent):
    async def on_message(self, turn, envelope):
        return await turn.spawn(envelope.data, entrypoint="zoo:Echo")


class Wedged(Agent):
    async def on_message(self, turn, envelope):
        while True:
            pass


class Killer(Agent):
    async def on_message(self, turn, envelope):
        import os, signal
        if envelope.data == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        return "alive"


class Account(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        data = envelope.data
        if data == "count":
            return self.state.model_dump()
        if "to" in data:
            self.state.seen -= data["amount"]
            turn.send(data["to"], {"amount": data["amount"]})
            if data.get("note"):
                await turn.perform("notes.again", path=data["note"], text="t")
        else:
            self.state.seen += data["amount"]


class Noter(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        from schemas.problem import Refusal
        if envelope.data == "count":
            return self.state.model_dump()
        try:
            found = await turn.perform(envelope.data.pop("effect"), **envelope.data)
        except Refusal as refusal:
            found = refusal.problem.reason
        self.state.got.append(found)
        return found


class Slow(Agent):
    async def on_message(self, turn, envelope):
        time.sleep(envelope.data)
        return "done"


class Sender(Agent):
    async def on_message(self, turn, envelope):
        for to in envelope.data["to"]:
            turn.send(to, envelope.data.get("what", 1))
        return len(envelope.data["to"])


class Alarm(Agent):
    state: Counts

    async def on_message(self, turn, envelope):
        if envelope.data == "count":
            return self.state.model_dump()
        if envelope.data == "cancel":
            turn.timer("ring", cancel=True)
        else:
            turn.timer("ring", **envelope.data)
            if envelope.data.get("data") == "slow":
                time.sleep(0.6)

    async def on_timer(self, turn, timer):
        self.state.got.append(timer.data)


class Thinker(Agent):
    async def on_message(self, turn, envelope):
        return await turn.compute("jobs:think")


SEEN = set()


class Fickle(Agent):
    async def on_message(self, turn, envelope):
        now = time.perf_counter_ns()
        if envelope.data == "reply":
            return now
        if envelope.data == "state":
            self.state["now"] = now
        if envelope.data == "effect":
            turn.conclude(str(now))
        if turn.turn_id in SEEN:
            if envelope.data == "raised":
                raise ValueError("the second time")
            while envelope.data == "wedged":
                pass
        SEEN.add(turn.turn_id)


class Circle(Agent):
    async def on_message(self, turn, envelope):
        path = list(envelope.data)
        if not path:
            return "end"
        first = path.pop(0)
        return (await turn.ask(first, path)).data
"""
