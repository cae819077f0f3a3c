"""What a run over MCP found and reached."""

from collections import Counter
from dataclasses import dataclass, field

from fuzz.mcp_wire import VERSIONS

Findings = dict[tuple[str, str, str], str]


@dataclass
class McpReport:
    """What was found and reached; `generated` and `resisted` leave the examples of the catalogue out."""

    seed: int
    findings: Findings = field(default_factory=dict)
    called: Counter[tuple[str, str]] = field(default_factory=Counter)
    succeeded: Counter[tuple[str, str]] = field(default_factory=Counter)
    generated: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # successes of valid arguments
    resisted: Counter[tuple[str, str, str]] = field(default_factory=Counter)  # refusals of hostile ones
    reasons: Counter[str] = field(default_factory=Counter)
    hints: int = 0
    followed: int = 0
    streamed: int = 0

    def text(self) -> str:
        """For a person."""
        calls, good = self.called.total(), self.succeeded.total()
        head = (
            f"{calls} calls ({self.streamed} answered by a stream), {good} with an output, "
            f"{self.hints} steps ({self.followed} taken), seed {self.seed}"
        )
        found = [f"\n{what} at {endpoint} {tool}:\n{how}" for (endpoint, tool, what), how in self.findings.items()]
        return "\n".join([head, *found])

    def never_accepted(self) -> set[str]:
        """Tools that were called, and never with an output: the run is blind behind them."""
        return {tool for endpoint, tool in set(self.called) - set(self.succeeded)}

    def never_generated(self, endpoint: str) -> set[str]:
        """Tools that answered with an output to nothing that was generated."""
        good = {tool for at, tool, _ in self.generated if at == endpoint}
        return {tool for at, tool in self.called if at == endpoint} - good

    def blind_versions(self) -> set[str]:
        """Versions in which nothing generated was taken, or nothing hostile refused."""
        taken, refused = ({version for _, _, version in it} for it in (self.generated, self.resisted))
        return set(VERSIONS) - (taken & refused)
