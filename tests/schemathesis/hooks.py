"""Loaded by schemathesis: keeps the identity alive that it runs as, and counts what was sent and answered.

Deliberately absent: checks of our own. What schemathesis judges by is the document that the daemon serves.
"""

import atexit
import collections
import json
import os

import schemathesis

# Names and token ids without which this run would go on as nobody.
PROTECTED = set(filter(None, os.environ["ORDERGATE_PROTECTED"].split(",")))
COUNTS = os.environ["ORDERGATE_COUNTS"]

RECORDS = [
    {"topic": "market.prices", "key": "AAPL", "payload": {"event": "trade", "symbol": "AAPL", "price": "100"}},
    {"topic": "orders.executions", "key": "NOBODYS", "payload": {"event": "ack", "client_order_id": "X-1", "account": "NOBODYS"}},
    {"topic": "gate.control", "key": "clock", "payload": {"event": "nothing"}},
]

answered = collections.Counter()
codes = collections.Counter()
accepted = collections.Counter()


@schemathesis.serializer("application/x-ndjson")
def lines(context, value):
    """What is made up goes out as it is, or behind a line that is a record."""
    text = value if isinstance(value, str) else json.dumps(value)
    record = [json.dumps(RECORDS[len(text) % len(RECORDS)])] if len(text) % 2 else []
    return "\n".join([*record, text]).encode(errors="surrogatepass")


@schemathesis.hook
def filter_case(context, case):
    """Nobody removes, disables or changes who they run as."""
    named = (case.path_parameters or {}).values()
    return case.method.upper() not in ("DELETE", "PUT") or not any(isinstance(name, str) and name in PROTECTED for name in named)


@schemathesis.hook
def after_call(context, case, response):
    answered[str(response.status_code)] += 1
    if response.status_code < 300:
        accepted[f"{case.method.lower()} {case.path}"] += 1
    if response.status_code >= 500:
        try:
            code = response.json()["code"]
        except (ValueError, KeyError, TypeError):
            code = "?"
        codes[f"{response.status_code} {code} {case.method} {case.path}"] += 1


@atexit.register
def tell():
    with open(COUNTS, "w", encoding="utf-8") as file:
        json.dump({"answered": answered, "codes": codes, "accepted": accepted}, file)
