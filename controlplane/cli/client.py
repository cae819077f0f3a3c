"""The plane, as the CLI sees it: REST over HTTP, and nothing else.

Every operation goes by `POST /v1/operations/{operation}/call`. Whatever the plane answers that is
no success becomes a Refusal that carries the plane's own Problem, unchanged.
"""

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError

from controlplane.cli.connection import Target, no_plane
from controlplane.resources.problems import problem, refuse
from schemas.problem import Problem, Refusal

CONNECT_S_MAX = 5.0
ANSWER_S_MAX = 60.0
SILENCE_S_MAX = 60.0


class Plane:
    """One plane, at one address, with one token."""

    def __init__(self, target: Target) -> None:
        self.target = target
        headers = {"Authorization": f"Bearer {target.token}"} if target.token else {}
        address = urlsplit(target.url)
        local = address.hostname in {"127.0.0.1", "localhost", "::1"}
        self._http = httpx.Client(
            base_url=target.url,
            headers=headers,
            verify=address.scheme == "https",
            trust_env=not local,  # a proxy of the environment does not see our loopback
        )

    def close(self) -> None:
        self._http.close()

    def call(self, operation: str, arguments: Any) -> Any:
        """The output of an operation; waits as long as the input asks the plane to wait."""
        waits = [arguments.get(key) for key in ("timeout_s", "wait_s")] if isinstance(arguments, dict) else []
        patience = ANSWER_S_MAX + sum(wait for wait in waits if isinstance(wait, int | float))
        return self.call_raw(operation, json.dumps(arguments, ensure_ascii=False).encode("utf-8"), patience)

    def call_raw(self, operation: str, body: bytes, patience_s: float = ANSWER_S_MAX + 300) -> Any:
        """The same with the input as it was written, byte for byte."""
        path = f"/v1/operations/{quote(operation, safe='')}/call"
        timeout = httpx.Timeout(patience_s, connect=CONNECT_S_MAX)
        try:
            answer = self._http.post(path, content=body, headers={"Content-Type": "application/json"}, timeout=timeout)
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None
        return self._output(answer)

    def ready(self) -> bool:
        """Whether messages are durably accepted."""
        try:
            return self._http.get("/readyz", timeout=CONNECT_S_MAX).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def events(
        self, after: str | None, narrowed: dict[str, Any] | None
    ) -> Iterator[tuple[str | None, dict[str, Any] | None]]:
        """Feedback as it happens, until the stream ends: each cursor to go on from, with its event if it has one."""
        params = {"after": after} if after else {}
        if narrowed:
            params["filter"] = json.dumps(narrowed, ensure_ascii=False)
        headers = {"Accept": "text/event-stream"}
        timeout = httpx.Timeout(SILENCE_S_MAX, connect=CONNECT_S_MAX)
        try:
            with self._http.stream("GET", "/v1/feedback", params=params, headers=headers, timeout=timeout) as answer:
                if answer.status_code != httpx.codes.OK:
                    answer.read()
                    self._output(answer)
                for frame in _sse(answer.iter_lines()):
                    if frame.get("event") == "problem":
                        raise Refusal(Problem.model_validate_json(frame["data"]))
                    yield frame.get("id"), json.loads(frame["data"]) if "data" in frame else None
        except httpx.HTTPError as error:
            raise self._unreachable(error) from None

    def _unreachable(self, error: httpx.HTTPError) -> Refusal:
        url = self.target.url
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return no_plane(f"no plane answers at {url}", url=url, error=str(error))
        what = str(error) or type(error).__name__
        broke = problem("NOT_READY", f"the plane at {url} broke off: {what}", url=url, error=what, retry_after_s=1)
        return Refusal(broke.model_copy(update={"changed": "unknown"}))

    def _output(self, answer: httpx.Response) -> Any:
        try:
            value = answer.json()
            if answer.is_success:
                return value
            raise Refusal(Problem.model_validate(value))
        except (ValueError, ValidationError):
            raise self._stranger(answer) from None

    def _stranger(self, answer: httpx.Response) -> Refusal:
        url, status = self.target.url, answer.status_code
        text = f"{url} answered {status} in a form that planes do not use; is it a plane?"
        return refuse("INTERNAL", text, url=url, status=status)


def _sse(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events as fields by name; comments, which keep the line open, are left out."""
    frame: dict[str, str] = {}
    for line in lines:
        name, mark, value = line.partition(":")
        if not line and frame:
            yield frame
            frame = {}
        elif mark and name:
            value = value.removeprefix(" ")
            frame[name] = f"{frame[name]}\n{value}" if name == "data" and "data" in frame else value
