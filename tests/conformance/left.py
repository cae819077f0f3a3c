"""The failures that are left of those that the list began with. Names are taken away here, and never added."""

LEFT = {
    "2026-07-28": frozenset(
        {
            "server-stateless:sep-2575-server-sends-prompts-list-changed-on-subscription",
            "server-stateless:sep-2575-server-sends-tools-list-changed-on-subscription",
            "tasks-capability-negotiation",
            "tasks-dispatch-and-envelope",
            "tasks-lifecycle",
            "tasks-mrtr-composition",
            "tasks-mrtr-input",
            "tasks-request-headers",
            "tasks-request-state-removal",
            "tasks-required-task-error",
            "tasks-status-notifications",
            "tasks-wire-fields",
        }
    ),
    "2025-11-25": frozenset(
        {
            "elicitation-sep1034-defaults:elicitation-sep1034-general",
            "elicitation-sep1330-enums:elicitation-sep1330-general",
            "logging-set-level:logging-set-level",
            "resources-subscribe:resources-subscribe",
            "resources-unsubscribe:resources-unsubscribe",
            "server-session-lifecycle",
            "server-sse-polling",
            "tools-call-elicitation:tools-call-elicitation",
            "tools-call-sampling:tools-call-sampling",
            "tools-call-with-logging:tools-call-with-logging",
        }
    ),
}
