#!/usr/bin/env python3
"""Schemathesis against a daemon on loopback, as five identities: none, viewer, user, admin, service.

Fails on a 5xx other than 503 and 504, on an answer that is not as the document says, on a request that is accepted without
authentication, on one that is accepted though the schema forbids it, on a panic, and on fewer cases than were asked for.

Nothing leaves this machine: brokers are asked at a closed port, mail goes to a sink here, no other channel is set up.
Deliberately absent: `positive_data_acceptance`. A schema cannot say that an account exists or that a text is a decimal of the gate's.
"""

import argparse
import base64
import collections
import json
import os
import pathlib
import signal
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

HERE = pathlib.Path(__file__).parent
PASSWORD = "correct horse battery staple"
CLOSED = "http://127.0.0.1:1"
IDENTITIES = {
    "none": None,
    "viewer": {"role": "viewer", "scopes": ["decisions:read"]},
    "user": {"role": "user", "scopes": ["vault:reveal"]},
    "admin": {"role": "admin", "scopes": ["vault:reveal"]},
    "service": {"role": "service", "scopes": ["intents:write", "records:write", "decisions:read", "vault:reveal"]},
}
# Accounts to be closed, users to be deleted.
FLAT, GUESTS = ([f"{word}-{number}" for number in range(20)] for word in ("FLAT", "guest"))
NOT_JUDGED = "positive_data_acceptance"


class Sink(socketserver.StreamRequestHandler):
    """An SMTP server that takes everything and keeps nothing."""

    def handle(self):
        self.say("220 sink")
        in_message = False
        for line in self.rfile:
            word = line.strip().upper()
            if in_message:
                in_message = word != b"."
                if not in_message:
                    self.say("250 taken")
            elif word == b"DATA":
                in_message = True
                self.say("354 go on")
            elif word == b"QUIT":
                return self.say("221 bye")
            else:
                self.say("250 ok")

    def say(self, text):
        self.wfile.write(text.encode() + b"\r\n")


def smtp_sink():
    socketserver.ThreadingTCPServer.daemon_threads = True
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Sink)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]


def config(data, port):
    brokers = ", ".join(f'{name} = "{CLOSED}"' for name in ("alpaca", "alpaca_paper", "binance", "binance_paper"))
    return f"""
data_dir = "{data}"
[auth]
requests_per_second = 1000000
logins_per_minute = 10000
[vault]
broker_urls = {{ {brokers} }}
broker_timeout_ms = 500
reveals_per_minute = 10000
verifications_per_minute = 10000
keys_per_owner_max = 100000
[notify]
enabled = true
public_url = "http://127.0.0.1"
[notify.smtp]
host = "127.0.0.1"
port = {port}
tls = "none"
from = "Order gate <gate@example.com>"
timeout_ms = 1000
[telemetry]
log_level = "warn"
"""


class Gate:
    """A daemon with an admin who prepares what the identities meet."""

    def __init__(self, program, folder):
        self.program, self.folder = program, folder
        data = folder / "data"
        (folder / "gate.toml").write_text(config(data, smtp_sink()))
        (folder / "password").write_text(PASSWORD)
        (folder / "master.key").write_text(base64.b64encode(os.urandom(32)).decode())
        (folder / "master.key").chmod(0o600)
        add = ["user", "add", "keeper", "--role", "admin", "--data-dir", data, "--password-file", folder / "password"]
        subprocess.run([program, *add], check=True, stdout=subprocess.DEVNULL)
        self.errors = folder / "errors"
        self.process = subprocess.Popen(
            [program, "run", "--config", folder / "gate.toml", "--http", "127.0.0.1:0", "--metrics", "127.0.0.1:0"],
            stdout=subprocess.PIPE, stderr=self.errors.open("w"), text=True,
            env={**os.environ, "ORDERGATE_MASTER_KEY_FILE": str(folder / "master.key")},
        )
        said = self.process.stdout.readline()
        if "http=" not in said:
            sys.exit(f"the daemon did not start: {said}{self.errors.read_text()}")
        self.url = said.split("http=")[1].split()[0].rstrip("/")
        self.bearer = None
        while self.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.05)
        self.bearer = self.post("/auth/login", {"name": "keeper", "password": PASSWORD})["access_token"]

    def ask(self, method, path, body=None, kind="application/json"):
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        if data is not None:
            request.add_header("content-type", kind)
        if self.bearer:
            request.add_header("authorization", f"Bearer {self.bearer}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()

    def post(self, path, body):
        status, answer = self.ask("POST", "/api/v1" + path, body)
        if status not in (200, 201):
            sys.exit(f"POST {path}: {status} {answer.decode()}")
        return json.loads(answer)

    def records(self, *records):
        lines = b"".join(json.dumps({"topic": topic, "key": key, "payload": payload}).encode() + b"\n" for topic, key, payload in records)
        status, answer = self.ask("POST", "/api/v1/records", lines, "application/x-ndjson")
        if status != 200:
            sys.exit(f"records: {status} {answer.decode()}")

    def faults(self):
        """What the daemon itself has to be ashamed of."""
        said = self.errors.read_text(errors="replace")
        found = [line for line in said.splitlines() if "panicked" in line]
        if self.process.poll() is not None:
            found.append(f"the daemon has ended with {self.process.returncode}")
        elif self.ask("GET", "/readyz")[0] != 200:
            found.append("the daemon is not ready any more")
        return found

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def prepared(gate):
    """People, and something of everything: the words that requests are made of."""
    gate.post("/instruments", {"symbol": "AAPL", "sector": "TECH"})
    gate.post("/users", {"name": "zoe", "role": "user", "password": PASSWORD})
    people, accounts, rules, keys, tokens = {}, ["GRANTED", "FOREIGN", "NOBODYS"], ["global"], ["key_0123"], ["0123456789abcdef"]
    for name, owner in (("GRANTED", "zoe"), ("FOREIGN", "zoe")):
        gate.post("/accounts", {"account": name, "owner": owner, "cash": "100000"})
    gate.post("/risk-rules", rule("global"))
    for name, rights in IDENTITIES.items():
        if rights is None:
            continue
        password = {} if rights["role"] == "service" else {"password": PASSWORD}
        gate.post("/users", {"name": name, "accounts": {"view": ["GRANTED"]}, **rights, **password})
        own = gate.post("/api-tokens", {"user": name, "name": "its own", "scopes": scopes_of(rights)})
        people[name] = (own["secret"], own["api_token"]["id"])
        account = f"OWN-{name}"
        gate.post("/accounts", {"account": account, "owner": name, "cash": "100000"})
        gate.post("/risk-rules", rule(f"of-{name}", account))
        accounts.append(account)
        rules.append(f"of-{name}")
        for _ in range(3):
            key = {"owner": name, "broker": "alpaca", "name": "a key", "environment": "paper", "key": "PKABCDEFGHIJ12345678", "secret": "s"}
            keys.append(gate.post("/api-keys", key)["id"])
            tokens.append(gate.post("/api-tokens", {"user": name, "name": "one more", "scopes": []})["api_token"]["id"])
    fills = [("orders.executions", account, fill(account)) for account in accounts[3:]]
    gate.records(("market.prices", "AAPL", {"event": "trade", "symbol": "AAPL", "price": "100", "size": "5"}), *fills)
    for name in FLAT:
        gate.post("/accounts", {"account": name, "owner": "zoe", "cash": "100000"})
    for name in GUESTS:
        gate.post("/users", {"name": name, "role": "service"})
    order = {"event": "order_intent", "symbol": "AAPL", "side": "buy", "order_type": "limit", "qty": "1", "limit_price": "100"}
    decisions = [gate.post("/intents", {**order, "client_order_id": f"I-{at}", "account": at})["decision_id"] for at in accounts]
    time.sleep(1)
    inbox = json.loads(gate.ask("GET", "/api/v1/notifications?limit=500")[1])["items"]
    return people, {
        "accounts": accounts, "rules": rules, "keys": keys, "tokens": tokens, "decisions": decisions,
        "notifications": [item["id"] for item in inbox] or ["0-1-n0"],
        "preferences": ["stop_loss-email", "risk_breach-sms", "all-email"], "channels": ["email", "sms", "webhook", "push"],
        "types": ["stop_loss", "risk_breach", "daily_summary"], "flat": [*FLAT, *accounts], "guests": [*GUESTS, *people],
        "new": [f"NEW-{number}" for number in range(50)], "logins": ["zoe", "viewer", "user", "admin"], "passwords": [PASSWORD], "currencies": ["USD"], "rolls": ["17:00 America/New_York"],
        "people": ["zoe", "nobody", *people], "topics": ["gate.decisions", "gate.audit", "gate.control", "gate.directory"],
        "symbols": ["AAPL", "NOPE"], "decimals": ["1", "100.5", "0.00000001", "50"], "versions": ['"1"', '"2"', "current"],
        "days": ["2999-01-01T00:00:00Z"], "addresses": ["someone@example.com", "+4915112345678"],
    }


def scopes_of(rights):
    """Those of the role, and those that were given."""
    with_role = {"admin": ["intents:write", "records:write", "decisions:read"], "user": ["intents:write"]}
    return with_role.get(rights["role"], []) + rights["scopes"]


def rule(name, account=None):
    scope = {"scope": {"account": account}} if account else {}
    return {"id": name, "type": "max_leverage", "threshold": "1000", "unit": "ratio", "action": "alert", **scope}


def fill(account):
    return {"event": "fill", "exec_id": f"E-{account}", "client_order_id": f"X-{account}", "account": account,
            "symbol": "AAPL", "side": "buy", "qty": "1", "price": "100"}


# Where the words go: in all operations, and in those whose path looks like this.
EVERYWHERE = {
    "query.account": "accounts", "query.symbol": "symbols", "body.account": "accounts", "body.symbol": "symbols", "body.owner": "people",
    "body.user": "people", "body.cash": "decimals", "body.amount": "decimals", "body.threshold": "decimals", "body.entry": "decimals",
    "body.stop": "decimals", "body.risk_percent": "decimals", "body.from": "decimals", "body.to": "decimals", "body.scope.account": "accounts",
    "body.intent.symbol": "symbols", "body.intent.qty": "decimals", "body.expires_at": "days", "body.snooze_until": "days",
    "body.address": "addresses", "body.currency": "currencies", "body.day_roll": "rolls", "header.If-Match": "versions",
}
SOMEWHERE = {
    "/accounts/(?!.*/close$)": {"path.id": "accounts", "path.rule": "rules"}, "/risk-rules/": {"path.id": "rules"}, "/api-keys/": {"path.id": "keys"},
    "/api-tokens/": {"path.id": "tokens"}, "/decisions/": {"path.id": "decisions"}, "/notifications/": {"path.id": "notifications"},
    "/notification-preferences": {"path.id": "preferences", "body.type": "types", "query.type": "types"},
    "/notification-contacts/": {"path.channel": "channels"},
    "/users/": {"path.name": "guests"}, "/accounts$": {"body.account": "new"}, "/close$": {"path.id": "flat"},
    "/auth/login$": {"body.name": "logins", "body.password": "passwords"}, "/topics/": {"path.topic": "topics"}, "/instruments/": {"path.symbol": "symbols"},
    "/chart/": {"path.symbol": "symbols"},
}


def schemathesis_toml(words, bearer):
    def bindings(table):
        return [f'"{place}" = {{ dictionary = "{words_of}", probability = 0.7 }}' for place, words_of in table.items()]

    lines = ["continue-on-failure = true", "request-timeout = 40", 'hooks = "hooks"', "color = false"]
    if bearer:
        lines += ["[headers]", f'Authorization = "Bearer {bearer}"']
    for name, values in words.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(values)}"]
    # A reader that follows a topic is answered without end.
    lines += ["[parameters]", *bindings(EVERYWHERE), '"query.follow" = "false"']
    lines += ["[checks.not_a_server_error]", 'expected-statuses = ["2xx", "3xx", "4xx", 503, 504]']
    lines += ["[checks.negative_data_rejection]", 'expected-statuses = ["4xx", 503, 504]']
    lines += ["[checks.missing_required_header]", 'expected-statuses = ["4xx"]']
    for path, table in SOMEWHERE.items():
        lines += ["[[operations]]", f'include-path-regex = "{path}"', "[operations.parameters]", *bindings(table)]
    return "\n".join(lines) + "\n"


def run(gate, who, people, words, asked):
    """One identity, all phases; gives the counts and whether it went well."""
    folder = gate.folder / who
    folder.mkdir(exist_ok=True)
    bearer, own = people.get(who, (None, ""))
    (folder / "schemathesis.toml").write_text(schemathesis_toml(words, bearer))
    (folder / "hooks.py").write_text((HERE / "hooks.py").read_text())
    counts = folder / "counts.json"
    protected = ",".join(["keeper", *people, *(token for _, token in people.values())])
    command = [
        str(pathlib.Path(sys.executable).parent / "schemathesis"), "run", gate.url + "/api/openapi.json", "--url", gate.url,
        "--phases", asked.phases, "--exclude-checks", NOT_JUDGED, "--max-examples", str(asked.examples), "--seed", str(asked.seed),
        "--workers", "1", "--generation-database", "none", "--suppress-health-check", "all", "--warnings", "off", "--no-shrink",
    ]
    env = {**os.environ, "ORDERGATE_PROTECTED": protected, "ORDERGATE_COUNTS": str(counts), "PYTHONPATH": str(folder),
           "ORDERGATE_URL": gate.url, "ORDERGATE_BEARER": bearer or ""}
    done = subprocess.run(command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    (folder / "said").write_text(done.stdout)
    if not counts.exists():
        sys.exit(f"{who}: schemathesis did not run\n{done.stdout[-3000:]}")
    counted = json.loads(counts.read_text())
    if who == "none":
        public = {operation for operation, is_public in operations(gate).items() if is_public}
        bad = sorted(set(counted["accepted"]) - public)
        print("".join(f"accepted without authentication: {operation}\n" for operation in bad), end="")
    else:
        bad = is_lost(gate, bearer)
    if done.returncode != 0 or bad:
        print(done.stdout)
    return counted, done.returncode == 0 and not bad


def operations(gate):
    """All operations, and whether the document asks no authentication for them."""
    document = json.loads(gate.ask("GET", "/api/openapi.json")[1])
    found = ((f"{method} {path}", said) for path, item in document["paths"].items() for method, said in item.items())
    return {operation: {} in said.get("security", document["security"]) for operation, said in found}


def is_lost(gate, bearer):
    """Whether the identity is not let in any more: what it was told after that says nothing."""
    request = urllib.request.Request(gate.url + "/api/v1/auth/me", headers={"authorization": f"Bearer {bearer}"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status != 200
    except urllib.error.HTTPError as error:
        print(f"the identity was lost: {error.code}")
        return True


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("program", help="the ordergate to run")
    arguments.add_argument("--cases", type=int, default=20_000, help="at least so many in all (default: %(default)s)")
    arguments.add_argument("--examples", type=int, default=20, help="of the fuzzing phase, for each operation (default: %(default)s)")
    arguments.add_argument("--phases", default="examples,coverage,fuzzing,stateful")
    arguments.add_argument("--identities", default=",".join(IDENTITIES))
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--folder", type=pathlib.Path, help="where to leave what was said (default: nowhere)")
    asked = arguments.parse_args()
    # Who is ended ends the daemon.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="ordergate-schemathesis-") as temporary:
        folder = asked.folder or pathlib.Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        gate = Gate(asked.program, folder.resolve())
        try:
            sys.exit(judged(gate, asked))
        finally:
            gate.stop()


def judged(gate, asked):
    people, words = prepared(gate)
    cases, statuses, codes, accepted, well = 0, collections.Counter(), collections.Counter(), set(), True
    while True:
        for who in asked.identities.split(","):
            begun = time.monotonic()
            counted, went_well = run(gate, who, people, words, asked)
            sent = sum(counted["answered"].values())
            cases, well = cases + sent, well and went_well
            statuses.update(counted["answered"])
            codes.update(counted["codes"])
            accepted.update(counted["accepted"])
            classes = collections.Counter()
            for status, count in counted["answered"].items():
                classes[status[0] + "xx"] += count
            told = ", ".join(f"{count} {name}" for name, count in sorted(classes.items()))
            print(f"{who}, seed {asked.seed}: {sent} cases in {time.monotonic() - begun:.0f} s: {told}: {'well' if went_well else 'NOT WELL'}", flush=True)
        if cases >= asked.cases or not well:
            break
        # Examples and coverage are the same every time; another seed makes other cases of the rest.
        asked.seed, asked.phases = asked.seed + 1, "fuzzing,stateful"
    for code, count in sorted(codes.items()):
        print(f"{count} x {code}")
    faults = gate.faults()
    print("\n".join(faults))
    never = sorted(set(operations(gate)) - accepted)
    print(f"never done: {', '.join(never) or 'none'}")
    print(f"{cases} cases, answered {dict(sorted(statuses.items()))}")
    return 0 if well and not faults and cases >= asked.cases else 1


if __name__ == "__main__":
    main()
