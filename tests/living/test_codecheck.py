"""Code is refused before it is stored when no host could use it, and the refusal points at the file."""

import subprocess
import sys

import pytest

from controlplane.operations.codecheck import RESERVED, check_entrypoint, check_files, code_digest
from schemas.agent import CODE_BYTES_MAX
from schemas.problem import Refusal

GOOD = {"pkg/__init__.py": "", "pkg/echo.py": "class Echo:\n    pass\n", "README.md": "words"}


def test_a_package_is_accepted_and_has_one_digest() -> None:
    """Files that parse are accepted; their digest does not depend on their order."""
    check_files(GOOD)
    check_entrypoint(GOOD, "pkg.echo:Echo")
    assert code_digest(GOOD) == code_digest(dict(reversed(GOOD.items())))


@pytest.mark.parametrize(
    ("files", "field"),
    [
        ({"a.py": "def f(:\n"}, "/files/a.py"),
        ({"p/a.py": "x = " + "(" * 5000}, "/files/p~1a.py"),
        ({"json.py": "x = 1\n"}, "/files/json.py"),
        ({"schemas/x.py": "x = 1\n"}, "/files/schemas~1x.py"),
        ({"ray/__init__.py": ""}, "/files/ray~1__init__.py"),
        ({"a.py": "", "a/__init__.py": ""}, "/files/a~1__init__.py"),
        ({"a.py": "", "a.py/b.py": ""}, "/files/a.py~1b.py"),
        ({"notes.txt": "no code"}, "/files"),
    ],
)
def test_unusable_files_are_refused_where_they_are_wrong(files: dict[str, str], field: str) -> None:
    """Broken syntax, hidden modules and paths that stand for two things are INVALID_CODE at the file."""
    with pytest.raises(Refusal) as refused:
        check_files(files)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_CODE", field)


def test_too_much_code_is_too_large() -> None:
    """The bytes of all files together are bounded."""
    with pytest.raises(Refusal) as refused:
        check_files({"a.py": "#" * CODE_BYTES_MAX, "b.py": "x"})
    assert refused.value.problem.reason == "TOO_LARGE"


@pytest.mark.parametrize("entrypoint", ["pkg.nothing:Echo", "pkg.echo:Other", "pkg:Echo"])
def test_an_entrypoint_must_be_among_the_files(entrypoint: str) -> None:
    """A module or class that is not there is INVALID_CODE at the entrypoint."""
    with pytest.raises(Refusal) as refused:
        check_entrypoint(GOOD, entrypoint)
    assert (refused.value.problem.reason, refused.value.problem.field) == ("INVALID_CODE", "/entrypoint")


@pytest.mark.parametrize(
    "text", ["from .echo import Echo\n", "from .echo import *\n", "try:\n    class Echo: ...\nfinally: ...\n"]
)
def test_an_entrypoint_may_be_imported_or_defined_in_a_block(text: str) -> None:
    """A name that the module's text binds in any way is accepted."""
    check_entrypoint({**GOOD, "pkg/__init__.py": text}, "pkg:Echo")


HOST = """
import sys
import ray_runtime.actor, ray_runtime.computing, ray_runtime.confinement.host, ray_runtime.host
import ray._private.workers.default_worker
from schemas.cron import require_zone
require_zone("UTC")
print(*{name.partition(".")[0] for name, it in sys.modules.items() if getattr(it, "__file__", None)})
"""


def test_whatever_a_host_has_imported_is_reserved() -> None:
    """In a process of its own, as Ray starts one: ours, our packages, and Ray's. None of these can be hidden."""
    said = subprocess.run([sys.executable, "-c", HOST], check=True, capture_output=True, text=True).stdout
    imported = {it for it in said.split() if not it.startswith("_")}
    assert {"cronsim", "tzdata", "typing_inspection", "ray"} <= imported
    assert imported - RESERVED == set()
    with pytest.raises(Refusal, match="would hide the module cronsim"):
        check_files({"zoo.py": "", "cronsim/__init__.py": ""})
