"""Turns decisions into OpenTelemetry spans: one OTLP/JSON request a line.

A request that belongs to a trace becomes a span, and each model that has scored the
request becomes a child of this span. `rv-score --url` sends the id of the child to its
server, so the spans of the server come under it. Requests without a trace are skipped.

Usage: rv-archive cat decisions | python3 examples/spans.py [SERVICE] > spans.ndjson
       curl --json @- http://localhost:4318/v1/traces   # for each line
"""

import hashlib
import json
import re
import sys

SERVICE = sys.argv[1] if len(sys.argv) > 1 else "rv"
PARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
INTERNAL, SERVER, ERROR = 1, 2, 2


def span_id(message_id, model):
    """The span of a model's work on a request, as rv-score computes it."""
    return hashlib.sha256(f"{message_id}\0{model}".encode()).hexdigest()[:16]


def attributes(**values):
    return [{"key": f"rv.{key}", "value": {"stringValue": str(value)}} for key, value in values.items()]


def span(trace, own, parent, name, kind, start, ms, failed, **values):
    end = start + round(ms * 1_000_000)
    made = {"traceId": trace, "spanId": own, "parentSpanId": parent, "name": name, "kind": kind,
            "startTimeUnixNano": str(start), "endTimeUnixNano": str(end),
            "attributes": attributes(**values)}  # fmt: skip
    return made | {"status": {"code": ERROR}} if failed else made


def spans(decision):
    found = PARENT.fullmatch(str(decision.get("traceparent", "")))
    if not found:
        return
    trace, caller = found[1], found[2]
    message_id, answer = decision["messageId"], decision["provenance"]["rendezvous"]
    start, own = round(decision["timestamp"] * 1_000_000_000), span_id(message_id, "")
    yield span(trace, own, caller, "rendezvous", SERVER, start, answer.get("answeredAfter", 0),
               decision.get("modelResult") is None, messageId=message_id,
               reason=answer.get("reason"))  # fmt: skip
    for candidate in decision["candidates"]:
        model = f"{candidate['modelName']}@{candidate['modelVersion']}"
        yield span(trace, span_id(message_id, model), own, model, INTERNAL, start,
                   candidate["arrivedAfter"], "error" in candidate, fate=candidate["fate"])  # fmt: skip


for line in sys.stdin:
    made = list(spans(json.loads(line)))
    if made:
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": SERVICE}}]}
        scope = {"scope": {"name": "rv"}, "spans": made}
        print(json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [scope]}]}))
