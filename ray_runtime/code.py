"""Code: files by digest, checked, written to a private folder, imported.

A host serves one (namespace, digest) for good, so modules are never unloaded. The files are what
their digest says, or they are refused; so is a package that would hide one of Steward's own or the
standard library's. What an entrypoint loads to, an agent class or a Problem, is found once.
"""

import importlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from ray_runtime.problems import code_error, problem, refuse
from ray_runtime.sdk import Agent
from ray_runtime.state import Codec, codec_of
from schemas.base import digest as digest_of
from schemas.problem import Problem, Refusal

OWN_NAMES = frozenset({"schemas", "controlplane", "mcp_server", "ray_runtime"})


class Loaded(NamedTuple):
    """An agent class, ready to run."""

    agent: type[Agent]
    codec: Codec
    root: str


class Package:
    """The code of one digest, as this host has it."""

    def __init__(self, digest: str, folder: Path) -> None:
        self.digest = digest
        self._folder = folder
        self._loaded: dict[str, Loaded | Problem] = {}
        self._refused: Problem | None = None

    def install(self, files: bytes) -> None:
        """Check the files and put them where they can be imported; a fault is kept for every turn."""
        try:
            _write(self._folder, _checked(files, self.digest))
        except Refusal as refusal:
            self._refused = refusal.problem
            return
        sys.path.insert(0, str(self._folder))
        importlib.invalidate_caches()

    def load(self, entrypoint: str) -> Loaded | Problem:
        """The agent class of `module:Class`, or why there is none."""
        if self._refused is not None:
            return self._refused
        found = self._loaded.get(entrypoint)
        if found is None:
            found = self._loaded[entrypoint] = self._import(entrypoint)
        return found

    def function(self, named: str) -> Callable[..., Any]:
        """The function of `module:function`; raises Refusal when there is none, or it does not import."""
        if self._refused is not None:
            raise Refusal(self._refused)
        try:
            _, attribute, found = self._found(named)
        except Refusal:
            raise
        except (Exception, SystemExit) as error:
            raise Refusal(code_error(error, str(self._folder), named)) from error
        if not callable(found):
            raise refuse("INVALID_CODE", f"{named}: {attribute} is no function of it", entrypoint=named)
        function: Callable[..., Any] = found
        return function

    def remove(self) -> None:
        """Take the files away again."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _import(self, entrypoint: str) -> Loaded | Problem:
        root = str(self._folder)
        try:
            agent = self._agent(entrypoint)
            return Loaded(agent, codec_of(agent), root)
        except Refusal as refusal:
            return refusal.problem
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the turn boundary: users' modules raise anything
            return code_error(error, root, entrypoint)

    def _agent(self, entrypoint: str) -> type[Agent]:
        name, attribute, agent = self._found(entrypoint)
        if not (isinstance(agent, type) and issubclass(agent, Agent)):
            what = "is no subclass of Agent" if agent is not None else f"is not in {name}"
            detail = f"{entrypoint}: {attribute} {what}"
            raise refuse("INVALID_CODE", detail, entrypoint=entrypoint, module=name, attribute=attribute)
        return agent

    def _found(self, entrypoint: str) -> tuple[str, str, Any]:
        """Module, attribute, and what it is there, of the package alone."""
        name, _, attribute = entrypoint.partition(":")
        module = importlib.import_module(name)
        origin = getattr(module, "__file__", None) or ""
        if not origin.startswith(str(self._folder)):
            detail = f"{entrypoint}: a module {name} is installed here and hides the package's own"
            raise refuse("INVALID_CODE", detail, entrypoint=entrypoint, module=name)
        return name, attribute, getattr(module, attribute, None)


def _checked(files: bytes, digest: str) -> dict[str, str]:
    if not files:
        raise Refusal(problem("CODE_NOT_FOUND", f"there is no code {digest}", digest=digest))
    value: dict[str, str] = orjson.loads(files)
    actual = digest_of(value)
    if actual != digest:
        detail = f"the code fetched for {digest} has the digest {actual}"
        raise refuse("INVALID_CODE", detail, digest=digest, actual=actual)
    for path in value:
        top = path.split("/", 1)[0].removesuffix(".py")
        if top in OWN_NAMES or top in sys.stdlib_module_names:
            raise refuse("INVALID_CODE", f"{path} would hide the module {top}", path=path, module=top)
        if path.startswith("/") or ".." in path.split("/"):
            raise refuse("INVALID_CODE", f"{path} leads out of the package", path=path)
    return value


def _write(folder: Path, files: dict[str, str]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    for path, text in files.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text, encoding="utf-8")
