"""What must hold of the topics of a gate. Works on what `audit.py` read; touches nothing else.

Which entries count is decided here anew: a claim counts when its term is higher than that of every claim before it that counts; a
frame counts when it is of the term of the last such claim and its number `n` is the next one. Everything else is void.
"""

import json
import zlib
from collections import Counter, defaultdict
from typing import NamedTuple, Optional

from blake3 import blake3

import entries
from entries import INPUT_TOPICS, OUTPUT_TOPICS

PAYLOAD_BYTES_KEPT = 256 * 1024
KEY_BYTES_KEPT = 256
DECIDED = ("order_intent", "order_amend", "order_cancel")
LISTED_MAX = 200
SPEAKS = {"here": 1, "elsewhere": 0, "quiet": 0}
ID_OF = {"gate.decisions": "decision_id", "gate.commands": "command_id", "gate.notifications": "notification_id"}


class Record(NamedTuple):
    """A record of a topic. `tag` is the header `output`, or `None`."""

    offset: int
    ts: int
    key: Optional[bytes]
    value: bytes
    tag: Optional[str] = None


class Partition:
    """A partition as it was read: its first offset, the offset after its last, and what a committed reader sees between."""

    def __init__(self, records=(), first=0, end=None):
        self.records = list(records)
        self.first = first
        self.end = end if end is not None else (self.records[-1].offset + 1 if self.records else first)


class Caused(NamedTuple):
    """A record that a counting frame applied, and what it caused."""

    topic: str
    partition: int
    offset: int
    outputs: int
    digest: Optional[bytes]
    event: Optional[str]
    client_order_id: Optional[str]


class Shard:
    """A shard's ledger, once judged."""

    def __init__(self, number):
        self.number = number
        self.term = 0
        self.n = 0
        self.head = bytes(32)
        self.received = None
        self.caused = []  # by seq - 1
        self.applied = defaultdict(dict)  # (topic, partition) -> offset -> digest of the record as kept
        self.next = {}  # (topic, partition) -> (next offset, digest of the last)
        self.by_n = {}  # n -> hash of the entry that counts
        self.marks = []  # (ledger offset, output marks)
        self.void_seqs = {}  # seq -> digests of void frames
        self.claims = []


class Audit:
    """Collects violations and figures over all topics (a dictionary of lists of partitions, by default topic names)."""

    def __init__(self, topics, shards, partitioner="murmur2", drained=False, allow_tail=False, unchecked=()):
        self.topics = topics
        self.shards = shards
        self.partition_of = {"murmur2": lambda key: murmur2(key) & 0x7FFFFFFF, "crc32": zlib.crc32}[partitioner]
        self.drained = drained
        self.allow_tail = allow_tail
        self.unchecked = unchecked
        self.counts = Counter()
        self.listed = []
        self.figures = Counter()
        self.verdicts = Counter()
        self.dead_letters = Counter()
        self.by_id = {}  # decision, command or notification id -> its one content
        self.decided_ids = set()
        self.shared = Counter()  # (topic, partition, offset) of what all shards read -> how many speak of it
        self.refused = {}  # source of a dead letter -> the shard that refused it

    def violation(self, kind, where, what):
        self.counts[kind] += 1
        if len(self.listed) < LISTED_MAX:
            self.listed.append({"kind": kind, "where": where, "what": what})

    def run(self):
        self.check_layout()
        shards = [self.judge_ledger(number) for number in range(min(self.shards, len(self.topics["gate.ledger"])))]
        self.check_shared(shards)
        for topic in INPUT_TOPICS:
            if topic not in self.unchecked:
                self.check_inputs(topic, shards)
        published = self.collect_outputs(shards)
        for shard in shards:
            self.check_outputs(shard, published)
        self.check_sources()
        return self.report(shards)

    def check_layout(self):
        for topic in ("gate.ledger", "orders.intents", "orders.executions"):
            if len(self.topics[topic]) != self.shards:
                self.violation("layout", topic, f"{len(self.topics[topic])} partitions, and {self.shards} shards")

    # The ledger.

    def judge_ledger(self, number):
        shard, partition = Shard(number), self.topics["gate.ledger"][number]
        if partition.first != 0:
            self.violation("ledger_truncated", f"ledger {number}", f"it begins at offset {partition.first}")
        expected = partition.first
        for record in partition.records:
            if record.offset != expected:
                self.violation("ledger_gap", f"ledger {number}/{record.offset}", f"offset {expected} is missing")
            expected = record.offset + 1
            self.figures["ledger_entries"] += 1
            try:
                entry = entries.decode(record.value)
            except (entries.BadEntry, UnicodeDecodeError) as error:
                self.violation("bad_entry", f"ledger {number}/{record.offset}", str(error))
                continue
            self.judge(shard, record, entry)
        if shard.n == 0 and self.topics["gate.ledger"][number].records:
            self.violation("no_claim", f"ledger {number}", "no entry counts")
        return shard

    def judge(self, shard, record, entry):
        where = f"ledger {shard.number}/{record.offset}"
        if isinstance(entry, entries.Claim):
            if entry.term <= shard.term:
                self.figures["claims_lost"] += 1
                return
            if entry.n > shard.n:
                self.violation("claim_ahead", where, f"it had read {entry.n} entries that count, and there are {shard.n}")
            self.follow(shard, record, entry, where)
            shard.term = entry.term
            claim = {"shard": shard.number, "offset": record.offset, "term": entry.term, "owner": entry.owner, "at": entry.at}
            shard.claims.append(claim)
            self.figures["claims"] += 1
        elif entry.term == shard.term and entry.n == shard.n:
            self.follow(shard, record, entry, where)
            self.figures["frames"] += 1
            self.take_frame(shard, entry, where)
            shard.marks.append((record.offset, entry.output_marks))
        else:
            self.void(shard, record, entry, where)

    def follow(self, shard, record, entry, where):
        """An entry that counts continues the chain."""
        if entry.n == shard.n and entry.prev_hash != shard.head:
            self.violation("chain", where, f"entry {entry.n} names another hash of what lies before it")
        shard.by_n[shard.n] = blake3(record.value).digest()
        shard.head = blake3(shard.head + record.value).digest()
        shard.n += 1

    def void(self, shard, record, frame, where):
        self.figures["void_inputs"] += len(frame.inputs)
        if frame.term > shard.term:
            self.violation("unclaimed_term", where, f"a frame of term {frame.term}, which nobody claimed")
        elif frame.term < shard.term:
            self.figures["void_stale"] += 1
        elif frame.n > shard.n:
            self.figures["void_out_of_order"] += 1
        elif shard.by_n[frame.n] == blake3(record.value).digest():
            # A late retry of a frame that counts: what it caused was caused.
            self.figures["void_repeated"] += 1
            return
        else:
            self.violation("two_contents", where, f"term {frame.term} has two different entries {frame.n}")
        for seq, applied in enumerate(frame.inputs, frame.first_seq):
            shard.void_seqs.setdefault(seq, set()).add(applied.digest)

    def take_frame(self, shard, frame, where):
        if frame.first_seq != len(shard.caused) + 1:
            self.violation("seq_gap", where, f"it begins at seq {frame.first_seq}, and {len(shard.caused) + 1} was next")
        if shard.received is not None and frame.received < shard.received:
            self.violation("clock_back", where, f"received {frame.received} after {shard.received}")
        shard.received = frame.received
        last = {}
        for applied in frame.inputs:
            self.take_input(shard, applied, where)
            last[applied.topic, applied.partition] = applied
        for place, applied in last.items():
            digest = blake3(applied.ts.to_bytes(8, "little", signed=True) + optional(applied.key) + applied.payload).digest()[:16]
            shard.next[place] = (applied.offset + 1, digest)
        if {(m.topic, m.partition): (m.next, m.last) for m in frame.input_marks} != shard.next:
            self.violation("input_marks", where, "its input marks are not those of what was applied")

    def take_input(self, shard, applied, where):
        place = (applied.topic, applied.partition)
        at = f"{where} {applied.topic} {applied.partition}/{applied.offset}"
        if applied.offset in shard.applied[place]:
            self.violation("applied_twice", at, "the record was applied before")
        elif shard.applied[place] and applied.offset < next(reversed(shard.applied[place])):
            self.violation("input_order", at, "a later record of the partition was applied before it")
        shard.applied[place][applied.offset] = kept_digest(applied.ts, applied.key, applied.payload)
        self.check_routing(shard, applied, at)
        if (applied.outputs == 0) != (applied.digest is None):
            self.violation("outcome", at, f"{applied.outputs} outputs, digest {applied.digest}")
        event, order = None, None
        if applied.topic == "orders.intents":
            event, order = intent_of(applied.payload)
        shard.caused.append(Caused(*place, applied.offset, applied.outputs, applied.digest, event, order))

    def check_routing(self, shard, applied, at):
        if applied.topic in ("orders.intents", "orders.executions"):
            if applied.partition != shard.number:
                self.violation("foreign_partition", at, f"shard {shard.number} does not read it")
            right = self.shards == 1 or (applied.key is not None and self.partition_of(applied.key) % self.shards == applied.partition)
            if applied.routing != ("here" if right else "misrouted"):
                self.violation("routing", at, f"recorded as {applied.routing}")
        elif applied.routing == "misrouted" or (self.shards == 1 and applied.routing != "here"):
            self.violation("routing", at, f"recorded as {applied.routing}")
        else:
            self.shared[applied.topic, applied.partition, applied.offset] += SPEAKS[applied.routing]

    def check_shared(self, shards):
        """Of what all shards read, one speaks: once all have applied a record, one of them has recorded it as its own."""
        for place, count in self.shared.items():
            readers = sum(1 for shard in shards if shard.next.get(place[:2], (0, None))[0] > place[2])
            if readers == self.shards and count != 1:
                self.violation("routing", f"{place[0]} {place[1]}/{place[2]}", f"{count} shards have it as their own")

    # The inputs.

    def check_inputs(self, topic, shards):
        for number, partition in enumerate(self.topics[topic]):
            readers = [shard for shard in shards if topic in ("market.prices", "gate.control") or shard.number == number]
            for shard in readers:
                self.check_input(topic, number, partition, shard)

    def check_input(self, topic, number, partition, shard):
        """Every committed record up to the mark was applied, as it stands in the topic, and nothing else."""
        place = (topic, number)
        end, _ = shard.next.get(place, (0, None))
        applied = shard.applied[place]
        seen = 0
        for record in partition.records:
            where = f"{topic} {number}/{record.offset}"
            if record.offset >= end:
                self.figures[f"pending {topic}"] += 1
                if self.drained:
                    self.violation("pending", where, f"shard {shard.number} has applied up to {end} only")
                continue
            digest = applied.get(record.offset)
            if digest is None:
                self.violation("lost_input", where, f"shard {shard.number} has gone past it to {end}, and its ledger does not have it")
            else:
                seen += 1
                if digest != kept_digest(record.ts, record.key, record.value):
                    self.violation("altered_input", where, f"the ledger of shard {shard.number} has another record there")
        known = sum(1 for offset in applied if offset >= partition.first)
        if seen != known:
            offsets = {record.offset for record in partition.records}
            extra = [offset for offset in applied if offset >= partition.first and offset not in offsets]
            self.violation("unseen_input", f"{topic} {number}", f"the ledger of shard {shard.number} has {known - seen} records that no committed reader sees: {extra[:5]}")

    # The outputs.

    def collect_outputs(self, shards):
        """First copies by (shard, seq) and index; every further copy is held against the first."""
        published = defaultdict(dict)
        for topic in OUTPUT_TOPICS:
            for number, partition in enumerate(self.topics[topic]):
                last = defaultdict(lambda: (0, 0))
                for record in partition.records:
                    self.figures[f"records {topic}"] += 1
                    self.take_output(topic, number, record, shards, published, last)
        return published

    def take_output(self, topic, number, record, shards, published, last):
        where = f"{topic} {number}/{record.offset}"
        tag = tag_of(record.tag)
        if tag is None:
            self.violation("no_tag", where, f"header `output` is {record.tag!r}")
            return
        shard, seq, index = tag
        if topic != "gate.dead-letter" and shard != number:
            self.violation("wrong_partition", where, f"an output of shard {shard}")
        caused = cause_of(shards, tag)
        if caused is None:
            zombie = shard < len(shards) and seq in shards[shard].void_seqs
            kind = "zombie_output" if zombie else "uncaused_output"
            self.violation(kind, where, f"output {record.tag}, which no entry that counts has caused")
            return
        content = (topic, record.key, record.value)
        first = published[shard, seq].setdefault(index, (content, record.offset))
        if first[1] != record.offset or first[0] != content:
            self.figures["repeats"] += 1
            if first[0] != content:
                self.violation("contradiction", where, f"output {record.tag} with another content than at {first[0][0]}/{first[1]}")
            return
        self.figures[f"distinct {topic}"] += 1
        if (seq, index) < last[shard]:
            self.violation("output_order", where, f"output {record.tag} stands behind {shard}-{last[shard][0]}-{last[shard][1]}")
        last[shard] = max(last[shard], (seq, index))
        self.check_content(topic, record, caused, tag, where)

    def check_content(self, topic, record, caused, tag, where):
        try:
            value = json.loads(record.value)
        except ValueError as error:
            self.violation("no_json", where, str(error))
            return
        shard, seq, _ = tag
        source = value.get("source")
        expected = {"topic": caused.topic, "partition": caused.partition, "offset": caused.offset}
        if topic == "gate.dead-letter":
            self.dead_letters[value.get("reason")] += 1
            place = (caused.topic, caused.partition, caused.offset)
            if self.refused.setdefault(place, shard) != shard:
                self.violation("refused_twice", where, f"shard {self.refused[place]} has refused it too")
            if source != expected:
                self.violation("wrong_source", where, f"it names {source}, and seq {seq} is {expected}")
            return
        own = str(value.get(ID_OF[topic]))
        if self.by_id.setdefault(own, record.value) != record.value:
            self.violation("contradiction", where, f"{own} has two contents")
        if topic == "gate.decisions":
            self.verdicts[value.get("verdict")] += 1
            if caused.client_order_id is not None and value.get("client_order_id") != caused.client_order_id:
                self.violation("wrong_order", where, f"it decides {value.get('client_order_id')}, and was asked {caused.client_order_id}")
            if value.get("seq", seq) < seq and own in self.decided_ids:
                # The same intent sent again: it is answered with the decision that it has, as it was.
                self.figures["decisions_repeated"] += 1
                return
            self.decided_ids.add(own)
            if source != expected:
                self.violation("wrong_source", where, f"it names {source}, and seq {seq} is {expected}")
        fits = own == f"{shard}-{seq}" if topic == "gate.decisions" else own.startswith(f"{shard}-{seq}-")
        if not fits or (value.get("shard"), value.get("seq")) != (shard, seq):
            self.violation("wrong_id", where, f"output {record.tag} has {ID_OF[topic]} {own}, and says {value.get('shard')}-{value.get('seq')}")

    def check_outputs(self, shard, published):
        """All outputs of all records are there, and are those that the ledger recorded."""
        highest = self.highest_seen(shard, published)
        for seq, caused in enumerate(shard.caused, 1):
            found = published.get((shard.number, seq), {})
            where = f"seq {shard.number}-{seq} ({caused.topic} {caused.partition}/{caused.offset})"
            if len(found) != caused.outputs:
                if seq > highest and self.allow_tail:
                    self.figures["unpublished_tail"] += caused.outputs - len(found)
                else:
                    missing = sorted(set(range(caused.outputs)) - set(found))
                    self.violation("missing_output", where, f"outputs {missing} of {caused.outputs} are not published")
                continue
            contents = [found[index][0] for index in range(caused.outputs)]
            if contents and outputs_digest(contents) != caused.digest:
                kind = "zombie_output" if outputs_digest(contents) in shard.void_seqs.get(seq, ()) else "tampered_output"
                self.violation(kind, where, "its outputs are not those that the ledger recorded")
            if caused.topic == "orders.intents":
                self.check_decided(caused, contents, where)
        self.check_output_marks(shard, published)

    def highest_seen(self, shard, published):
        """Up to here nothing may be missing: some frame says that it is published, or something later is."""
        marks = [mark.seq for _, marks in shard.marks[-1:] for mark in marks]
        seen = [seq for number, seq in published if number == shard.number]
        return max([min(marks, default=0), max(seen, default=1) - 1])

    def check_decided(self, caused, contents, where):
        decisions = sum(1 for topic, _, _ in contents if topic == "gate.decisions")
        letters = sum(1 for topic, _, _ in contents if topic == "gate.dead-letter")
        self.figures["intents"] += caused.event in DECIDED
        if decisions > 1:
            self.violation("decided_twice", where, f"{decisions} decisions")
        elif caused.event in DECIDED and decisions + letters == 0:
            self.violation("undecided", where, f"{caused.event} {caused.client_order_id} has neither a decision nor a dead letter")

    def check_output_marks(self, shard, published):
        """A mark says: outputs of later records are at or above this offset; and it is never ahead of its frame."""
        last = len(shard.caused)
        lows = {topic: [None] * (last + 2) for topic in OUTPUT_TOPICS}
        for seq in range(last, 0, -1):
            for topic in OUTPUT_TOPICS:
                lows[topic][seq] = lows[topic][seq + 1]
            for (topic, _, _), offset in published.get((shard.number, seq), {}).values():
                low = lows[topic][seq]
                lows[topic][seq] = offset if low is None else min(low, offset)
        for at, marks in shard.marks:
            for topic, mark in zip(OUTPUT_TOPICS, marks):
                where = f"ledger {shard.number}/{at} mark of {topic}"
                if mark.seq > last:
                    self.violation("output_mark", where, f"seq {mark.seq} is beyond the ledger")
                elif (low := lows[topic][mark.seq + 1]) is not None and low < mark.offset:
                    self.violation("output_mark", where, f"an output later than seq {mark.seq} is at {low}, below {mark.offset}")

    def check_sources(self):
        """Whatever the headers say: a position of an input topic is decided in one way only."""
        decided = {}
        for partition in self.topics["gate.decisions"]:
            for record in partition.records:
                try:
                    source = json.loads(record.value)["source"]
                    place = (source["topic"], source["partition"], source["offset"])
                except (ValueError, KeyError, TypeError):
                    continue
                if decided.setdefault(place, record.value) != record.value:
                    self.violation("decided_differently", f"{place[0]} {place[1]}/{place[2]}", "two decisions with different contents")
        self.figures["decided_positions"] = len(decided)

    def report(self, shards):
        claims = [claim for shard in shards for claim in shard.claims]
        figures = dict(sorted(self.figures.items()))
        figures["shards"] = self.shards
        figures["records"] = sum(len(shard.caused) for shard in shards)
        figures["takeovers"] = sum(max(0, len(shard.claims) - 1) for shard in shards)
        figures["owners"] = sorted({claim["owner"] for claim in claims})
        figures["decisions"] = dict(sorted(self.verdicts.items()))
        figures["dead_letters"] = dict(sorted(self.dead_letters.items(), key=str))
        heads = [{"shard": s.number, "term": s.term, "n": s.n, "seq": len(s.caused), "head": s.head.hex()} for s in shards]
        violations = dict(sorted(self.counts.items()))
        return {"ok": not violations, "figures": figures, "ledgers": heads, "claims": claims, "violation_counts": violations, "violations": self.listed}


def optional(value):
    """How optional bytes enter a digest."""
    return (2**64 - 1).to_bytes(8, "little") if value is None else len(value).to_bytes(8, "little") + value


def outputs_digest(contents):
    """The digest of (topic, key, value)s in output order."""
    hasher = blake3()
    for topic, key, value in contents:
        hasher.update(bytes([OUTPUT_TOPICS.index(topic)]) + optional(key) + len(value).to_bytes(8, "little") + value)
    return hasher.digest()[:16]


def kept_digest(ts, key, value):
    """Of a record as the ledger keeps it: cut where it is far too long."""
    key = key if key is None else key[:KEY_BYTES_KEPT]
    return blake3(repr((ts, key)).encode() + (value or b"")[:PAYLOAD_BYTES_KEPT]).digest()[:16]


def intent_of(payload):
    """Event and client order id of an intent, as far as it has them."""
    try:
        value = json.loads(payload)
        order = value.get("client_order_id")
        return value.get("event"), order if isinstance(order, str) else None
    except (ValueError, AttributeError, RecursionError):
        return None, None


def tag_of(text):
    parts = (text or "").split("-")
    return tuple(map(int, parts)) if len(parts) == 3 and all(part.isascii() and part.isdigit() for part in parts) else None


def cause_of(shards, tag):
    shard, seq, index = tag
    if shard >= len(shards) or not 1 <= seq <= len(shards[shard].caused):
        return None
    caused = shards[shard].caused[seq - 1]
    return caused if index < caused.outputs else None


def murmur2(data):
    """Kafka's, from the description of the algorithm: seed 0x9747b28c, 32 bits."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = 0x9747B28C ^ len(data)
    whole = len(data) & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(data[at:at + 4], "little") * m & mask
        k = (k ^ (k >> 24)) * m & mask
        h = (h * m & mask) ^ k
    if whole != len(data):
        h = (h ^ int.from_bytes(data[whole:], "little")) * m & mask
    h = (h ^ (h >> 13)) * m & mask
    return h ^ (h >> 15)
