"""`code.put`: source files, stored once under their digest.

Files are checked before they are stored, by the rules that proposals use too. Storing the same
files again changes nothing, and answers the same whoever stored them first: a digest can be named only
by who reaches a namespace of one who put it, or one where it is used. Nothing here runs the code.
"""

import asyncio

from controlplane.operations.codecheck import check_files, code_bytes, code_digest
from controlplane.resources.problems import refuse
from controlplane.store.store import Store
from controlplane.store.unit import Unit
from schemas.base import canonical
from schemas.calls import CodePut, CodePutInput
from schemas.plan import Preview
from schemas.ports import Handler
from schemas.principal import Call

REACH = "INSERT INTO code_reach (digest, namespace) VALUES (?, ?) ON CONFLICT (digest, namespace) DO NOTHING"
INSERT = "INSERT INTO code (digest, files, bytes, created_at) VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING"


def handlers(store: Store) -> dict[str, Handler]:
    """The handler of `code.put`."""

    async def put(call: Call, given: CodePutInput) -> CodePut | Preview:
        files = dict(given.files)
        await asyncio.to_thread(check_files, files)  # parsing a large file takes a while
        stored = CodePut(digest=code_digest(files), bytes=code_bytes(files))
        if call.dry_run:
            would = f"{len(files)} files would be stored as {stored.digest}"
            return Preview(operation=call.operation, would=[would], undo="none")
        unit = Unit().raw(INSERT, [stored.digest, canonical(files).decode(), stored.bytes, call.now])
        for namespace in call.principal.namespaces:
            unit.raw(REACH, [stored.digest, namespace])
        if not await store.write(unit):
            raise refuse("CONFLICT", "others wrote at the same time; try again", retry_after_s=0.1)
        return stored

    return {"code.put": put}
