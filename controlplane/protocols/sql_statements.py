"""A statement, read by its dialect's grammar: what it does, what it is sent as, and how its rows are counted. Pure.

What is sent is written anew from what was read (sqlglot), so that nothing is executed that was not
judged: no second statement, no comment that a database would run. Parameters are bound, by name. A
query holds no word that changes anything; a change is one INSERT, UPDATE or DELETE, and nothing
within it changes anything beside. The rows it would touch are counted by a SELECT of the same
tables and conditions: exactly, or, where it joins, at most so many.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from controlplane.resources.problems import refuse
from schemas.problem import Refusal
from schemas.sql import NAME_PATTERN, PARAMETER_CHARS_MAX

DIALECTS = {
    "postgresql": "postgres",
    "cockroachdb": "postgres",
    "mariadb": "mysql",
    "mssql": "tsql",
}  # where SQLAlchemy's word is another
INTEGER_MAX = 2**63
FIELD = "/arguments/statement"
_MARK = "steward_bound_"
CHANGED = "steward_changed"
_CHANGES = (exp.DML, exp.DDL, exp.Command, exp.Into, exp.Lock, exp.Set, exp.Pragma, exp.Attach, exp.Detach)
_BEYOND = re.compile(  # other sessions, servers and files, or a statement that stands in a text
    r"dblink\w*|pg_(terminate|cancel)_backend|pg_(read|ls|file|log|logical|create|drop|replication|wal|backup)_\w*"
    r"|pg_(stat_file|reload_conf|rotate_logfile|current_logfile|switch_wal|promote|export_snapshot)\w*"
    r"|pg_(start|stop)_backup|pg_hba_file_rules|pg_ident_file_mappings|pg_show_all_file_settings"
    r"|pg_(try_)?advisory\w*|lo_\w+|loread|lowrite|set_config|setval"
    r"|(query|table|schema|database|cursor)_to_xml\w*|ts_stat|ts_rewrite|crosstab\w*|connectby|xpath_table"
    r"|pg_notify|pg_stat_\w*reset\w*|pg_import_system_collations|pg_prewarm|autoprewarm\w*"
    r"|load_extension|readfile|writefile|edit|fts3_tokenizer|pragma_\w+"
    r"|(utl|dbms)_\w+|(http|db|xdb)?uritype|urifactory|read_(csv|json|ndjson|parquet|text|blob)\w*|(parquet|sqlite|postgres|mysql)_scan\w*|sniff_csv"
    r"|load_file|sys_exec|sys_eval|(get|release|is_free|is_used)_(all_)?locks?|open(rowset|query|datasource)",
    re.IGNORECASE,
)
_TABLES = re.compile(
    r"url|file|s3|gcs|oss|cosn|hdfs|azureBlobStorage|(iceberg|deltaLake|hudi|paimon)\w*|\w+Cluster|remote(Secure)?|cluster"
    r"|jdbc|odbc|mysql|postgresql|mongodb|executable|input|sqlite|redis|ytsaurus|arrowFlight",
    re.IGNORECASE,
)
_BEYOND_IN = {"clickhouse": _TABLES}  # beside these, what is a name like any other elsewhere
_BY_NAME = (exp.Anonymous, exp.AnonymousAggFunc, exp.ParameterizedAgg)  # functions that the grammar does not know
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class Statement:
    """What is sent: text for `sqlalchemy.text`. `count` counts the rows that it would touch, or `rows` knows them."""

    text: str
    verb: str = "select"
    count: str | None = None
    rows: int | None = None
    returns: bool = True

    def returning(self, most: int) -> str:
        """What returns at most so many rows of those that it touches, each with how many these are, where they are
        touched within a query (PostgreSQL): the others are not sent."""
        counted = f"SELECT COUNT(*) OVER () AS {CHANGED}, c.* FROM {CHANGED} AS c LIMIT {most}"  # noqa: S608 - ours
        return f"WITH {CHANGED} AS ({self.text}) {counted}"


def query(statement: str, parameters: Mapping[str, Any], dialect: str, keys_table: str | None = None) -> Statement:
    """A statement that only reads, or a Refusal."""
    tree = _parsed(statement, dialect)
    found = next(iter(tree.find_all(*_CHANGES)), None)
    if not isinstance(tree, exp.Query | exp.Values) or found is not None:
        what = (found or tree).key
        raise _invalid(f"sql.query only reads, and there is {what.upper()} in this", found=what)
    _require_own(tree, keys_table, dialect)
    return Statement(_text(tree, parameters, dialect))


def grammar(name: str) -> str:
    """The grammar that SQLAlchemy's dialect of this name is read by; a general one, where none is known."""
    found = DIALECTS.get(name, name)
    return found if sqlglot.Dialect.get(found) is not None else ""


def change(statement: str, parameters: Mapping[str, Any], dialect: str, keys_table: str | None = None) -> Statement:
    """A statement that changes rows of one table, or a Refusal."""
    tree = _parsed(statement, dialect)
    if not isinstance(tree, exp.Insert | exp.Update | exp.Delete):
        detail = f"sql.execute takes one INSERT, UPDATE or DELETE, not {tree.key.upper()}"
        raise _invalid(detail, found=tree.key)
    within = next((it for it in tree.find_all(*_CHANGES) if it is not tree), None)
    if within is not None:
        raise _invalid(f"there is {within.key.upper()} within the {tree.key.upper()}", found=within.key)
    if tree.args.get("alternative") or tree.args.get("overwrite"):  # it takes rows away that nobody counted
        raise _invalid("an INSERT that replaces rows is not taken", found="replace")
    if (conflict := tree.args.get("conflict")) is not None and conflict.args.get("duplicate"):
        detail = "ON DUPLICATE KEY UPDATE is not taken, of which a row counts twice; send an UPDATE or an INSERT"
        raise _invalid(detail, found="on duplicate key update")
    _require_own(tree, keys_table, dialect)
    text = _text(tree, parameters, dialect)
    returns = tree.args.get("returning") is not None
    if isinstance(tree, exp.Insert) and isinstance(tree.expression, exp.Values):
        return Statement(text, tree.key, None, len(tree.expression.expressions), returns)
    if isinstance(tree, exp.Insert) and tree.expression is None:  # INSERT … DEFAULT VALUES
        return Statement(text, tree.key, None, 1, returns)
    return Statement(text, tree.key, _text(_counting(tree), parameters, dialect, some=True), None, returns)


def _require_own(tree: exp.Expression, keys_table: str | None, dialect: str) -> None:
    """Refuse what reaches beyond the statement: the connection's own table, and functions that do."""
    if keys_table is not None and any(it.name.lower() == keys_table.lower() for it in tree.find_all(exp.Table)):
        raise _invalid(f"table {keys_table} is the connection's own", found=keys_table)
    own = _BEYOND_IN.get(dialect)
    for name in _called(tree):
        if _BEYOND.fullmatch(name) or (own is not None and own.fullmatch(name)):
            raise _invalid(f"function {name} reaches beyond the statement", found=name.lower())
    if (linked := next((it for it in tree.find_all(exp.Table) if _elsewhere(it, dialect)), None)) is not None:
        raise _invalid(f"table {linked.name} is on another server, beyond the statement", found=linked.name)


def _elsewhere(table: exp.Table, dialect: str) -> bool:
    """Whether its name leads to another server: a fourth part in SQL Server, an `@` in Oracle."""
    if dialect == "oracle":
        return any(isinstance(it, exp.Identifier) and not it.quoted and "@" in it.name for it in table.parts)
    return dialect == "tsql" and isinstance(table.this, exp.Dot)


def _called(tree: exp.Expression) -> Iterator[str]:
    """The names of functions, of the packages that they are of, and of tables that are functions in truth."""
    for function in tree.find_all(exp.Func):
        yield from [function.name] if isinstance(function, _BY_NAME) else function.sql_names()
        if isinstance(function.parent, exp.Dot):
            yield function.parent.this.name
    yield from (it.name for it in tree.find_all(exp.Table) if it.name.lower().startswith("pragma_"))


def _parsed(statement: str, dialect: str) -> exp.Expression:
    if _MARK in statement:
        raise _invalid(f"{_MARK} stands for a parameter, and can not be written", found=_MARK)
    try:
        found = sqlglot.parse(statement, dialect=dialect)
    except (SqlglotError, RecursionError) as error:
        said = re.sub(r"\x1b\[[0-9;]*m", "", str(error))[:300]
        raise _invalid(f"the statement can not be read: {said or 'it is nested too deeply'}", found=said) from None
    trees = [it for it in found if it is not None]
    if len(trees) != 1 or not isinstance(trees[0], exp.Expression):
        raise _invalid(f"there are {len(trees)} statements, and one is sent at a time", found=len(trees))
    return trees[0]


def _text(tree: exp.Expression, parameters: Mapping[str, Any], dialect: str, *, some: bool = False) -> str:
    """The statement as `sqlalchemy.text` takes it; `some`: not every parameter need be in it."""
    names: set[str] = set()

    def marked(node: exp.Expression) -> exp.Expression:
        if not isinstance(node, exp.Placeholder | exp.Parameter | exp.SessionParameter):
            return node
        name = node.name if isinstance(node, exp.Placeholder) else ""
        if not _NAME.match(name):
            raise _invalid("parameters are named, as in :name", found=node.sql())
        names.add(name)
        return exp.Var(this=f"{_MARK}{name}_")

    try:
        text = tree.copy().transform(marked).sql(dialect=dialect, comments=False, normalize_functions=False)
    except (SqlglotError, RecursionError) as error:
        raise _invalid(f"the statement can not be written: {error}"[:300], found=str(error)[:300]) from None
    _require_values(names, parameters, some=some)
    return re.sub(rf"{_MARK}(\w+?)_(?!\w)", r":\1", text.replace(":", "\\:"))


def _require_values(names: set[str], parameters: Mapping[str, Any], *, some: bool) -> None:
    if missing := sorted(names - parameters.keys()):
        detail = f"parameter :{missing[0]} has no value"
        raise refuse("MISSING_FIELD", detail, field=f"/arguments/parameters/{missing[0]}", name=missing[0])
    if not some and (beyond := sorted(parameters.keys() - names)):
        detail = f"the statement has no parameter :{beyond[0]}"
        raise refuse("UNKNOWN_FIELD", detail, field=f"/arguments/parameters/{_pointer(beyond[0])}", name=beyond[0])
    for name in sorted(names):
        if (fault := _fault(parameters[name])) is not None:
            raise refuse(
                "INVALID_VALUE", f"parameter :{name} {fault}", field=f"/arguments/parameters/{name}", name=name
            )


def _fault(value: Any) -> str | None:
    if isinstance(value, str) and ("\x00" in value or len(value) > PARAMETER_CHARS_MAX):
        return f"is text without NUL, of {PARAMETER_CHARS_MAX} characters at most"
    if isinstance(value, int) and not -INTEGER_MAX <= value < INTEGER_MAX:
        return "is an integer of more than 64 bits"
    return None if value is None or isinstance(value, str | int | float) else "is text, a number, a boolean or null"


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")[:100]


def _counting(tree: exp.Insert | exp.Update | exp.Delete) -> exp.Expression:
    """A SELECT that counts what the statement would touch."""
    tree = tree.copy()
    given = tree.args.get("with_")
    if isinstance(tree, exp.Insert):
        inner = tree.expression
        if not isinstance(inner, exp.Query):
            raise _invalid("an INSERT is of VALUES or of a SELECT", found=type(inner).__name__)
    else:
        inner = _rows_of(tree)
    select = exp.select(exp.Count(this=exp.Star())).from_(inner.subquery("steward_counted"))
    if given is not None:
        select.set("with_", given)
    return select


def _rows_of(tree: exp.Update | exp.Delete) -> exp.Select:
    """One row for each that an UPDATE or a DELETE would touch, or more where it joins."""
    target = tree.this
    joined = not isinstance(target, exp.Table) or target.args.get("joins") or target.args.get("laterals")
    if joined or tree.args.get("tables"):  # whichever of them it names
        raise _invalid("rows of one table are changed at a time", found=tree.key)
    target.set("only", tree.args.get("only") or target.args.get("only"))
    select = exp.select(exp.Literal.number(1).as_("steward_one")).from_(target)
    others = tree.args.get("using") or tree.args.get("from_")
    for other in others if isinstance(others, list) else [others] if others is not None else []:
        select.append("joins", exp.Join(this=other.this if isinstance(other, exp.From) else other, kind="CROSS"))
        extra = other.args.get("joins") if isinstance(other, exp.From) else None
        for join in extra or []:
            select.append("joins", join)
    for part in ("where", "order", "limit"):
        if (it := tree.args.get(part)) is not None:
            select.set(part, it)
    return select


def _invalid(detail: str, **about: Any) -> Refusal:
    return refuse("INVALID_VALUE", detail, field=FIELD, **about)
