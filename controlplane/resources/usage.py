"""Usage: what agents used, and what it costs."""

from controlplane.resources.operation import Operation
from schemas.usage import Forecast, ForecastInput, Invoice, InvoiceInput, UsageReport, UsageReportInput

OPERATIONS = (
    Operation(
        "usage.report",
        "Report what was used",
        "Turns, seconds, effects, bytes, tokens: sums by agent, fleet, effect, meter or time, with their total, and "
        "what it costs by the installation's rate card. Each turn and effect counts once, whatever crashed meanwhile.",
        UsageReportInput,
        UsageReport,
        "GET",
        "/v1/usage",
        "read",
        "viewer",
        "namespace",
        agent_may=True,
        problems=("INVALID_CURSOR", "OUT_OF_RANGE"),
        example={"namespace": "default", "by": "agent"},
    ),
    Operation(
        "usage.invoice",
        "Invoice what a namespace used",
        "A line for each agent, effect and meter that costs anything: amount times rate. Lines add up to the total, "
        "to the cent; what rounding leaves over goes to the lines that lost most by it.",
        InvoiceInput,
        Invoice,
        "GET",
        "/v1/usage/invoice",
        "read",
        "viewer",
        "namespace",
        problems=("TOO_MANY_LINES", "OUT_OF_RANGE"),
        example={"namespace": "default", "window": "month"},
    ),
    Operation(
        "usage.forecast",
        "Forecast what a window will come to",
        "A band from the windows before it, and what was used so far. Says that it is not known where too few windows "
        "are over.",
        ForecastInput,
        Forecast,
        "GET",
        "/v1/usage/forecast",
        "read",
        "viewer",
        "namespace",
        problems=("OUT_OF_RANGE",),
        example={"namespace": "default", "window": "day", "meter": "money"},
    ),
)
