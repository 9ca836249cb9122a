"""Every log event by name: one place that says what the log can say.

Use: `log = telemetry.log()`, then `log.info(telemetry.WORKER_DIED, pid=..., signal=...)`. Fields are plain values.
"""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Final

import structlog

NODE_STARTED: Final = "node.started"
NODE_STOPPING: Final = "node.stopping"
NODE_LEASE_LOST: Final = "node.lease_lost"
NODE_LEASE_REGAINED: Final = "node.lease_regained"
NODE_POLLS: Final = "node.polls"
WORKER_READY: Final = "worker.ready"
WORKER_DIED: Final = "worker.died"
WORKER_BLOCKED: Final = "worker.blocked"
WORKER_RETIRED: Final = "worker.retired"
GRAPHS_RELOADED: Final = "graphs.reloaded"
GRAPHS_RELOAD_FAILED: Final = "graphs.reload_failed"
CONFIG_WARNING: Final = "config.warning"
PRIORITY_FAILED: Final = "priority.failed"
CONDITION_FAILED: Final = "condition.failed"
RUN_ENDED: Final = "run.ended"
RUN_REQUEUED: Final = "run.requeued"
RUN_RETRIED: Final = "run.retried"
RUN_REAPED: Final = "run.reaped"
CRON_FIRED: Final = "cron.fired"
CRON_MISSED: Final = "cron.missed"
CRON_DECLARED: Final = "cron.declared"
CRONS_UNREADABLE: Final = "crons.unreadable"
CRON_PAUSED: Final = "cron.paused"
CRON_BUDGET: Final = "cron.budget"
HEARTBEAT_FAILED: Final = "heartbeat.failed"
WEBHOOK_DELIVERED: Final = "webhook.delivered"
WEBHOOK_FAILED: Final = "webhook.failed"
WEBHOOK_DEAD: Final = "webhook.dead"
THREADS_SWEPT: Final = "threads.swept"
SCHEDULER_FAILED: Final = "scheduler.failed"
DATABASE_AWAY: Final = "database.away"
DATABASE_MIGRATED: Final = "database.migrated"
LOOP_FAILED: Final = "loop.failed"
REQUEST_FAILED: Final = "request.failed"
HTTP_APP_FAILED: Final = "http_app.failed"
HTTP_APP_STALE: Final = "http_app.stale"
REPLY_BROKEN_OFF: Final = "reply.broken_off"


def configure(*, level: str, as_json: bool) -> None:
    """Send every log line of this process to stderr, for people or as JSON."""
    renderers: list[structlog.typing.Processor] = (
        [structlog.processors.JSONRenderer()]
        if as_json
        else [_unfold_trace, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    )
    for noisy in ("asyncpg", "uvicorn.error"):  # what they say with a traceback is said here in a line
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=_Stderr,
        cache_logger_on_first_use=True,
    )


def log() -> structlog.typing.FilteringBoundLogger:
    """Give a logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


class _Stderr(structlog.PrintLogger):
    """Writes to stderr, or not: on a full disk or a closed pipe the line is lost, and no more than the line."""

    def __init__(self, *_: object) -> None:
        super().__init__(sys.stderr)

    def msg(self, message: str) -> None:
        """Write a line."""
        with suppress(OSError):
            super().msg(message)

    debug = info = warning = error = critical = exception = msg


def _unfold_trace(
    _logger: object, _method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Show the traceback that came with an event as people read it: below, line by line."""
    if trace := event.pop("trace", ""):
        event["exception"] = trace.rstrip()
    return event
