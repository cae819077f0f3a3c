"""Log files with rotation, from which secrets are struck before they are written."""

import logging
import re
from logging.handlers import RotatingFileHandler
from pathlib import Path

_SECRET = re.compile(r"stw_[A-Za-z0-9_-]{8,}|(?i:bearer)\s+[A-Za-z0-9._~+/-]+=*|(?i:password|secret|token)=[^\s&]+")
_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"


class _Strike(logging.Filter):
    """Replaces what looks like a credential in the finished message."""

    def filter(self, record: logging.LogRecord) -> bool:
        text = record.getMessage()
        if _SECRET.search(text):
            record.msg, record.args = _SECRET.sub("[struck]", text), None
        return True


class _Formatter(logging.Formatter):
    """Strikes tracebacks too."""

    def formatException(self, ei: object) -> str:  # noqa: N802 - the name that logging calls
        return _SECRET.sub("[struck]", super().formatException(ei))  # type: ignore[arg-type]


def log_to(path: Path, bytes_max: int) -> None:
    """Send this process's log to `path`; five old files are kept."""
    handler = RotatingFileHandler(path, maxBytes=bytes_max, backupCount=5, encoding="utf-8")
    handler.setFormatter(_Formatter(_FORMAT))
    handler.addFilter(_Strike())
    path.touch(mode=0o600)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for noisy in ("httpx", "httpcore", "mcp", "alembic", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
