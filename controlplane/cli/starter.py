"""`steward init`: a new agent project that works as it stands: its agent, its manifest, its test.

Nothing that is there already is ever overwritten.
"""

import re
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli.session import Session, command
from controlplane.resources.problems import refuse

app = typer.Typer()

AGENT = '''\
"""An agent that keeps a running total of the numbers it is sent."""

from pydantic import BaseModel

from ray_runtime import Agent, Envelope, Turn


class State(BaseModel):
    """What the agent keeps between messages; saved with every turn."""

    total: float = 0
    count: int = 0


class Tally(Agent):
    """Adds up numbers, and answers the sum and how many there were."""

    state: State

    async def on_message(self, turn: Turn, envelope: Envelope) -> dict[str, float]:
        self.state.total += float(envelope["number"])
        self.state.count += 1
        return {"total": self.state.total, "count": self.state.count}
'''

TEST = '''\
"""Runs the agent's handler with the engine that hosts run, without a plane."""

from agent import State, Tally

from ray_runtime.testing import run_turn


def test_numbers_are_added_up() -> None:
    """The answer is the total so far, and the state carries it to the next message."""
    first = run_turn(Tally, {"number": 2})
    assert first.reply == {"total": 2, "count": 1}

    second = run_turn(Tally, {"number": 0.5}, state=first.state)
    assert second.reply == {"total": 2.5, "count": 2}
    assert second.state == State(total=2.5, count=2)


def test_what_is_no_number_is_refused() -> None:
    """A message without a number fails its turn, and says why."""
    failed = run_turn(Tally, {"number": "many"})
    assert failed.problem is not None
    assert failed.problem.reason == "HANDLER_ERROR"
'''

MANIFEST = """\
# What is wanted of the agent. `steward apply -f manifest.yaml` shows what that would change, and does it.
kind: Agent
metadata:
  name: {name}
spec:
  entrypoint: agent:Tally
  code:
    file: agent.py # or `folder: ./package`; the command line sends the source along
  suspend_after_ms: 2000 # idle for so long, it is a row in the store and nothing else
  mandate:
    purpose: adds up numbers
    grants: [] # effects it may ask for, as in `- effect: machine.read`
"""

README = """\
# {name}

An agent for Steward.

- `agent.py`: the agent: its state, and what it does with a message.
- `manifest.yaml`: what is wanted of it.
- `test_agent.py`: runs its handler: `pytest`.

With a plane running (`steward up`):

```sh
steward apply -f manifest.yaml
steward ask {name} '{{"number": 2}}'
steward get agent/{name}
steward agents inspect {name}
```
"""


@command(app, "init")
def init(
    session: Session,
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder of the new project.")],
    name: Annotated[str | None, typer.Option(metavar="TEXT", help="The agent's name; by default the folder's.")] = None,
) -> None:
    """Make a new agent project: an agent, its manifest, its test."""
    called = name or _name(folder)
    made = {
        "agent.py": AGENT,
        "test_agent.py": TEST,
        "manifest.yaml": MANIFEST.format(name=called),
        "README.md": README.format(name=called),
    }
    try:
        _write(folder, made)
    except OSError as error:
        why = error.strerror or str(error)
        raise refuse("INVALID_VALUE", f"{folder} can not be written: {why}", path=str(folder), error=why) from None
    session.show({"folder": str(folder), "agent": called, "files": list(made)})
    session.say(f"next: cd {folder} && steward apply -f manifest.yaml")


def _write(folder: Path, made: dict[str, str]) -> None:
    for path in (folder / file for file in made):
        if path.exists():
            raise refuse("INVALID_VALUE", f"{path} is there already, and is not overwritten", path=str(path))
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in made.items():
        (folder / file).write_text(text, encoding="utf-8")


def _name(folder: Path) -> str:
    """A name that the plane takes, from the folder's."""
    name = re.sub(r"[^a-z0-9]+", "-", folder.resolve().name.lower()).strip("-")[:63].strip("-")
    return name or "agent"
