"""Loaded by schemathesis: keeps the identity alive that it runs as, and counts what was sent and answered.

Deliberately absent: checks of our own. What schemathesis judges by is the document that the daemon serves.
"""

import atexit
import collections
import http.client
import json
import os
import urllib.error
import urllib.request

import schemathesis

# Names and token ids without which this run would go on as nobody.
PROTECTED = set(filter(None, os.environ["ORDERGATE_PROTECTED"].split(",")))
COUNTS = os.environ["ORDERGATE_COUNTS"]
URL, BEARER = os.environ["ORDERGATE_URL"], os.environ["ORDERGATE_BEARER"]

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
    """Of the texts that are made up, some go out as they are; records take the place of others."""
    if not isinstance(value, str):
        return json.dumps(value).encode()
    if len(value) % 2:
        return json.dumps(RECORDS[len(value) // 2 % len(RECORDS)]).encode()
    return value.encode(errors="surrogatepass")


@schemathesis.hook
def filter_case(context, case):
    """Nobody removes, disables or changes who they run as."""
    named = (case.path_parameters or {}).values()
    return case.method.upper() not in ("DELETE", "PUT") or not any(isinstance(name, str) and name in PROTECTED for name in named)


@schemathesis.hook
def before_call(context, case, kwargs):
    """`current` stands for the tag of now: one that is made up is never that."""
    if (case.headers or {}).get("If-Match") == "current" and (tag := tag_of(case.formatted_path)):
        case.headers["If-Match"] = tag


def tag_of(path):
    request = urllib.request.Request(URL + path, headers={"authorization": f"Bearer {BEARER}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers["etag"]
    except (urllib.error.URLError, ValueError, http.client.HTTPException):
        return None


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
