"""How nodes are called: each once, for as long as it lives, whoever else comes or goes. Pure.

A node is drained by its name, so a name must neither pass from one node that lives to another, nor change. The first
of those that call themselves the same has that name; each later one has Ray's id behind it, and keeps it.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

ID_CHARS = 8


def named(
    rows: Iterable[dict[str, Any]], here: str, before: Mapping[str, str], closed: Collection[str]
) -> dict[str, str]:
    """Names by Ray's ids: those of `before`, and new ones for who is new; ours is called `here`.

    Who is lost keeps its name beside whoever comes back under it: that may be the same machine, and what is `closed`
    by name stays so.
    """
    found = sorted(rows, key=lambda it: it["ray_node_id"])
    names = {it["ray_node_id"]: before.get(it["ray_node_id"], "") for it in found if not it["here"]}
    taken = {here, *(names.get(it["ray_node_id"]) for it in found if it["alive"])}
    for it in found:
        node_id, called = it["ray_node_id"], it["node"]
        if it["here"]:
            names[node_id] = here
        elif not names[node_id]:
            own = f"{called}-{node_id[:ID_CHARS]}"
            names[node_id] = own if own in closed or (it["alive"] and called in taken) else called
            if it["alive"]:
                taken.add(names[node_id])
    return names
