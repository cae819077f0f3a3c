"""An agent that asks a person in the middle of a deal, and its newer version, whose state has another shape."""

OLD = """
from ray_runtime import Agent, downgrade, migration


class Deal(Agent):
    state_version = 1

    async def on_message(self, turn, envelope):
        if envelope.data == "hello":
            return ["old", self.state]
        self.state["price"] = envelope.data
        said = await turn.ask_human(f"Buy for {envelope.data}?", ["yes", "no"])
        return ["old", said, self.state]
"""
UP = """
    @migration(1)
    @staticmethod
    def cents(state):
        return {"cents": 100 * state.get("price", 0)}
"""
NEWER = OLD.replace("= 1\n", "= 2\n").replace('"old"', '"new"').replace('["price"]', '["cents"]') + UP
BROKEN = NEWER.replace('"cents": 100 *', '"cents": 1 /')
