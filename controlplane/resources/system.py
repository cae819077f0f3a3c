"""The plane itself: feedback, tokens, the catalogue, status, hosts."""

from controlplane.resources.operation import Operation
from schemas.calls import (
    Brief,
    Empty,
    FeedbackInput,
    HostsFound,
    ListOutput,
    OperationCallInput,
    OperationDescribeInput,
    OperationDescription,
    OperationResult,
    OperationsFound,
    OperationsSearchInput,
    PageInput,
    SystemStatus,
    TokenCreated,
    TokenCreateInput,
    TokenRevokeInput,
    TokenView,
)
from schemas.feedback import Events


class TokenList(ListOutput[TokenView]):
    """A page of tokens, without the tokens themselves."""


OPERATIONS = (
    Operation("feedback.read", "Read the feedback log", "What happened, after a cursor, oldest first; with `wait_s`, waits for the first event.",
              FeedbackInput, Events, "GET", "/v1/feedback", "read", "viewer", "namespace", agent_may=True,
              problems=("INVALID_CURSOR",), untrusted=("/events/*/data",), example={"wait_s": 0}),
    Operation("tokens.create", "Create a token", "The token is shown once, in this answer.", TokenCreateInput, TokenCreated,
              "POST", "/v1/tokens", "change", "admin", "installation", repeats_safely=False, imperative=True,
              example={"principal": "ops-bot", "role": "operator", "namespaces": ["default"]}),
    Operation("tokens.list", "List tokens", "Newest first; never the tokens themselves.", PageInput, TokenList,
              "GET", "/v1/tokens", "read", "admin", "installation", problems=("INVALID_CURSOR",)),
    Operation("tokens.revoke", "Revoke a token", "It is refused from now on.", TokenRevokeInput, TokenView,
              "POST", "/v1/tokens/{token_id}/revoke", "destroy", "admin", "installation", imperative=True,
              problems=("NOT_FOUND",), example={"token_id": "tok_1"}),
    Operation("operations.search", "Find the operation that does what you want", "By words of the task; the best first.",
              OperationsSearchInput, OperationsFound, "GET", "/v1/operations", "read", "viewer", "installation",
              agent_may=True, example={"query": "send a message to an agent"}),
    Operation("operations.describe", "Describe an operation", "Its input and output as JSON Schema, its problems, an example.",
              OperationDescribeInput, OperationDescription, "GET", "/v1/operations/{name}", "read", "viewer", "installation",
              agent_may=True, problems=("UNKNOWN_OPERATION",), example={"name": "agents.send"}),
    Operation("operations.call", "Call an operation by name", "For clients with few tools: any operation, under its own rights.",
              OperationCallInput, OperationResult, "POST", "/v1/operations/call", "destroy", "viewer", "installation",
              repeats_safely=False, agent_may=True, problems=("UNKNOWN_OPERATION",), untrusted=("/output",),
              example={"name": "system.status", "arguments": {}}),
    Operation("system.status", "See how the installation is", "Processes, readiness, counts, and what does not work.",
              Empty, SystemStatus, "GET", "/v1/system/status", "read", "viewer", "installation"),
    Operation("system.brief", "Get a brief", "The state of things in a few sentences, with the feedback cursor to go on from.",
              Empty, Brief, "GET", "/v1/system/brief", "read", "viewer", "installation"),
    Operation("hosts.list", "List hosts", "The Ray actors that run agents' code.", Empty, HostsFound, "GET", "/v1/hosts",
              "read", "viewer", "installation"),
)
