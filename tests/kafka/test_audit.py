"""The auditor's own tests: it is content with an honest gate, however rough its day, and sees each planted violation.

    python -m unittest discover -s tests/kafka
"""

import json
import unittest
import zlib

from blake3 import blake3

import entries
from entries import INPUT_TOPICS, OUTPUT_TOPICS
from rules import Audit, Partition, Record, murmur2

SHARDS = 2


# A writer of entries, as far as tests need it. Kept apart from the decoder: what both had wrong alike would not be seen.


def unsigned(value):
    if value < 251:
        return bytes([value])
    for first, length in ((251, 2), (252, 4), (253, 8)):
        if value < 1 << 8 * length:
            return bytes([first]) + value.to_bytes(length, "little")
    raise ValueError(value)


def signed(value):
    return unsigned(value * 2 if value >= 0 else -value * 2 - 1)


def blob(value):
    return unsigned(len(value)) + value


def option(value):
    return b"\0" if value is None else b"\1" + value


def entry(body):
    return b"OGLE" + (1).to_bytes(2, "little") + len(body).to_bytes(4, "little") + zlib.crc32(body).to_bytes(4, "little") + body


def claim_bytes(term, n, head, owner="a"):
    return entry(b"\0" + unsigned(term) + unsigned(n) + head + blob(owner.encode()) + signed(1_772_811_000_000) + blob(b"2025b") + blob(b"0.1.0"))


def length_first(value):
    return (2**64 - 1).to_bytes(8, "little") if value is None else len(value).to_bytes(8, "little") + value


class Gate:
    """One shard that writes its ledger and publishes. `log` is the world's; what it publishes is one decision for each intent."""

    def __init__(self, world, shard):
        self.world, self.shard = world, shard
        self.term = self.n = self.seq = 0
        self.head = bytes(32)
        self.next, self.marks = {}, [(0, 0)] * 4
        self.received = 1_772_811_000_000

    def append(self, data, counts=True):
        records = self.world.topics["gate.ledger"][self.shard].records
        records.append(Record(len(records), 0, None, data))
        if counts:
            self.head = blake3(self.head + data).digest()
            self.n += 1

    def claim(self, owner="a"):
        self.term += 1
        self.append(claim_bytes(self.term, self.n, self.head, owner))

    def outputs(self, seq, source, key, payload, repeat_of=None):
        order = json.loads(payload).get("client_order_id")
        value = {"event": "decision", "decision_id": f"{self.shard}-{seq}", "client_order_id": order, "verdict": "allow", "shard": self.shard,
                 "seq": seq, "source": {"topic": source[0], "partition": source[1], "offset": source[2]}}  # fmt: skip
        note = {"event": "notification", "notification_id": f"{self.shard}-{seq}-n0", "shard": self.shard, "seq": seq}
        decision = repeat_of or json.dumps(value).encode()
        return [("gate.decisions", key, decision), ("gate.notifications", key, json.dumps(note).encode())]

    def frame(self, sources, routing=0, term=None, n=None, head=None, first_seq=None, change=lambda outputs: outputs, refusal=None):
        """The bytes of a frame that applies these records, and its outputs as (seq, index, topic, key, value)."""
        first_seq = self.seq + 1 if first_seq is None else first_seq
        inputs, outputs, nexts = b"", [], dict(self.next)
        for seq, (topic, partition, record) in enumerate(sources, first_seq):
            caused = [] if refusal is None else [("gate.dead-letter", record.key, refusal)]
            if topic == "orders.intents":
                caused = change(self.outputs(seq, (topic, partition, record.offset), record.key, record.value))
            digest = blake3(b"".join(bytes([OUTPUT_TOPICS.index(t)]) + length_first(k) + length_first(v) for t, k, v in caused)).digest()[:16]
            inputs += unsigned(INPUT_TOPICS.index(topic)) + unsigned(partition) + unsigned(record.offset) + signed(record.ts) + unsigned(routing)
            inputs += option(None if record.key is None else blob(record.key)) + blob(record.value)
            inputs += unsigned(len(caused)) + option(digest if caused else None)
            last = blake3(record.ts.to_bytes(8, "little", signed=True) + length_first(record.key) + record.value).digest()[:16]
            nexts[INPUT_TOPICS.index(topic), partition] = (record.offset + 1, last)
            outputs += [(seq, index, *output) for index, output in enumerate(caused)]
        marks = b"".join(unsigned(t) + unsigned(p) + unsigned(at) + last for (t, p), (at, last) in nexts.items())
        body = b"\1" + unsigned(self.term if term is None else term) + unsigned(self.n if n is None else n) + (self.head if head is None else head)
        body += unsigned(first_seq) + signed(self.received) + unsigned(len(sources)) + inputs + unsigned(len(nexts)) + marks
        body += b"".join(unsigned(seq) + unsigned(offset) for seq, offset in self.marks) + b"\0"
        return entry(body), outputs, nexts

    def apply(self, sources, publish=True, **how):
        data, outputs, self.next = self.frame(sources, **how)
        self.append(data)
        self.seq += len(sources)
        if publish:
            self.publish(outputs)
        return data, outputs

    def publish(self, outputs):
        for seq, index, topic, key, value in outputs:
            records = self.world.topics[topic][self.shard].records
            records.append(Record(len(records), 0, key, value, f"{self.shard}-{seq}-{index}"))
            self.marks[OUTPUT_TOPICS.index(topic)] = (seq - 1, len(records) - 1)


class World:
    """Topics of two shards, and their gates."""

    def __init__(self):
        counts = {"gate.dead-letter": 1, "gate.control": 1}
        self.topics = {topic: [Partition() for _ in range(counts.get(topic, SHARDS))] for topic in (*INPUT_TOPICS, *OUTPUT_TOPICS, "gate.ledger")}
        self.gates = [Gate(self, shard) for shard in range(SHARDS)]
        self.orders = 0

    def intent(self, shard, gap=0):
        self.orders += 1
        account = next(f"ACC{i}" for i in range(100) if (murmur2(f"ACC{i}".encode()) & 0x7FFFFFFF) % SHARDS == shard)
        partition = self.topics["orders.intents"][shard]
        offset = (partition.records[-1].offset + 1 if partition.records else 0) + gap
        value = json.dumps({"event": "order_intent", "client_order_id": f"I-{self.orders}", "account": account})
        record = Record(offset, 1_772_811_000_000 + offset, account.encode(), value.encode())
        partition.records.append(record)
        return ("orders.intents", shard, record)

    def audit(self, **how):
        return Audit(self.topics, SHARDS, **{"drained": True, **how}).run()


def ordinary():
    """Two shards at work: a takeover, offset gaps of transactions, frames of several records."""
    world = World()
    for shard, gate in enumerate(world.gates):
        gate.claim()
        gate.apply([world.intent(shard), world.intent(shard, gap=3)])
        gate.apply([world.intent(shard)])
        gate.claim("b")
        gate.apply([world.intent(shard), world.intent(shard)])
    return world


class AnHonestGate(unittest.TestCase):
    def assert_clean(self, report):
        self.assertEqual(report["violations"], [])
        self.assertTrue(report["ok"])

    def test_has_no_violations_and_is_counted(self):
        report = ordinary().audit()
        self.assert_clean(report)
        expected = {"takeovers": 2, "records": 10, "intents": 10, "decisions": {"allow": 10}, "claims": 4, "frames": 6, "owners": ["a", "b"]}
        self.assertEqual({key: report["figures"][key] for key in expected}, expected)

    def test_may_leave_void_frames_of_a_deposed_owner(self):
        world = ordinary()
        gate = world.gates[0]
        source = world.intent(0)
        stale, _, _ = gate.frame([source])
        gate.claim("c")
        gate.append(stale, counts=False)
        gate.append(claim_bytes(gate.term, gate.n, gate.head), counts=False)
        gate.apply([source])
        report = world.audit()
        self.assert_clean(report)
        self.assertEqual((report["figures"]["void_stale"], report["figures"]["claims_lost"], report["figures"]["void_inputs"]), (1, 1, 1))

    def test_may_repeat_a_frame_and_skip_one_that_never_landed(self):
        world = ordinary()
        gate = world.gates[1]
        source, after = world.intent(1), world.intent(1)
        skipped, _, _ = gate.frame([after], n=gate.n + 1, first_seq=gate.seq + 2)
        gate.append(skipped, counts=False)
        data, _ = gate.apply([source])
        gate.append(data, counts=False)
        gate.apply([after])
        report = world.audit()
        self.assert_clean(report)
        self.assertEqual((report["figures"]["void_repeated"], report["figures"]["void_out_of_order"]), (1, 1))

    def test_may_repeat_outputs_late_and_identically(self):
        world = ordinary()
        source = world.intent(0)
        _, outputs = world.gates[0].apply([source])
        world.gates[0].apply([world.intent(0)])
        world.gates[0].publish(outputs)
        report = world.audit()
        self.assert_clean(report)
        self.assertEqual(report["figures"]["repeats"], 2)

    def test_may_answer_the_same_intent_again_with_the_same_decision(self):
        world = ordinary()
        _, _, first = world.intent(0)
        _, outputs = world.gates[0].apply([("orders.intents", 0, first)])
        again = first._replace(offset=first.offset + 1)
        world.topics["orders.intents"][0].records.append(again)
        world.gates[0].apply([("orders.intents", 0, again)], change=lambda caused: [(*caused[0][:2], outputs[0][4]), caused[1]])
        report = world.audit()
        self.assert_clean(report)
        self.assertEqual(report["figures"]["decisions_repeated"], 1)

    def test_may_be_behind_when_that_is_said(self):
        world = ordinary()
        world.gates[0].apply([world.intent(0)], publish=False)
        world.intent(1)
        report = world.audit(drained=False, allow_tail=True)
        self.assert_clean(report)
        self.assertEqual((report["figures"]["unpublished_tail"], report["figures"]["pending orders.intents"]), (2, 1))
        self.assertEqual(set(world.audit()["violation_counts"]), {"missing_output", "pending"})

    def test_may_have_inputs_that_retention_has_deleted(self):
        world = ordinary()
        partition = world.topics["orders.intents"][0]
        partition.records = partition.records[2:]
        partition.first = partition.records[0].offset
        self.assert_clean(world.audit())


class APlantedViolation(unittest.TestCase):
    def assert_found(self, world, *kinds, **how):
        report = world.audit(**how)
        self.assertFalse(report["ok"])
        self.assertEqual(set(report["violation_counts"]), set(kinds), report["violations"])

    def replace(self, world, topic, shard, at, **fields):
        records = world.topics[topic][shard].records
        records[at] = records[at]._replace(**fields)

    def decision(self, world, shard, at, **fields):
        value = json.loads(world.topics["gate.decisions"][shard].records[at].value)
        return json.dumps({**value, **fields}).encode()

    def test_a_tampered_decision(self):
        world = ordinary()
        self.replace(world, "gate.decisions", 0, 1, value=self.decision(world, 0, 1, verdict="block"))
        self.assert_found(world, "tampered_output")

    def test_a_decision_under_another_key(self):
        world = ordinary()
        self.replace(world, "gate.decisions", 0, 1, key=b"other")
        self.assert_found(world, "tampered_output")

    def test_a_missing_decision(self):
        world = ordinary()
        del world.topics["gate.decisions"][1].records[1]
        self.assert_found(world, "missing_output")
        self.assertTrue(world.audit(allow_tail=True)["violation_counts"]["missing_output"], "a hole is no tail")

    def test_an_intent_that_caused_nothing(self):
        world = ordinary()
        world.gates[0].apply([world.intent(0)], change=lambda caused: caused[1:])
        self.assert_found(world, "undecided")

    def test_two_decisions_of_one_intent(self):
        world = ordinary()
        world.gates[0].apply([world.intent(0)], change=lambda caused: [caused[0], *caused])
        self.assert_found(world, "decided_twice")

    def test_a_decision_of_another_order(self):
        world = ordinary()
        wrong = lambda caused: [(*caused[0][:2], caused[0][2].replace(b'"I-', b'"J-')), caused[1]]  # noqa: E731
        world.gates[0].apply([world.intent(0)], change=wrong)
        self.assert_found(world, "wrong_order")

    def test_a_decision_that_names_another_position(self):
        world = ordinary()
        wrong = lambda caused: [(*caused[0][:2], caused[0][2].replace(b'"partition": 0', b'"partition": 1')), caused[1]]  # noqa: E731
        world.gates[0].apply([world.intent(0)], change=wrong)
        self.assert_found(world, "wrong_source")

    def test_a_decision_with_another_id(self):
        world = ordinary()
        wrong = lambda caused: [(*caused[0][:2], caused[0][2].replace(b'"0-6"', b'"0-60"')), caused[1]]  # noqa: E731
        world.gates[0].apply([world.intent(0)], change=wrong)
        self.assert_found(world, "wrong_id")

    def test_outputs_in_another_order(self):
        world = ordinary()
        records = world.topics["gate.decisions"][0].records
        records[3:5] = [records[4]._replace(offset=records[3].offset), records[3]._replace(offset=records[4].offset)]
        self.assert_found(world, "output_order")

    def test_a_copy_with_another_content(self):
        world = ordinary()
        records = world.topics["gate.decisions"][0].records
        value = self.decision(world, 0, 2, verdict="block")
        records.append(records[2]._replace(offset=len(records), value=value))
        self.assert_found(world, "contradiction", "decided_differently")

    def test_an_output_that_nothing_caused(self):
        world = ordinary()
        records = world.topics["gate.notifications"][0].records
        records.append(records[-1]._replace(offset=len(records), tag="0-99-0"))
        records.append(records[-1]._replace(offset=len(records), tag="0-5-2"))
        self.assert_found(world, "uncaused_output")

    def test_an_output_without_its_header_or_in_another_partition(self):
        world = ordinary()
        records = world.topics["gate.notifications"]
        records[0].records.append(records[0].records[0]._replace(offset=len(records[0].records), tag=None))
        records[1].records.append(records[0].records[0]._replace(offset=len(records[1].records)))
        self.assert_found(world, "no_tag", "wrong_partition")

    def test_outputs_of_a_void_frame(self):
        world = ordinary()
        gate = world.gates[0]
        first, second = world.intent(0), world.intent(0)
        stale, zombies, _ = gate.frame([first, second])
        gate.claim("c")
        gate.append(stale, counts=False)
        gate.apply([first])
        gate.publish([output for output in zombies if output[0] == gate.seq + 1])
        self.assert_found(world, "zombie_output", drained=False)

    def test_outputs_of_a_void_frame_in_place_of_those_of_the_owner(self):
        world = ordinary()
        gate = world.gates[0]
        first, second = world.intent(0), world.intent(0)
        stale, zombies, _ = gate.frame([second, first])
        gate.claim("c")
        gate.append(stale, counts=False)
        gate.publish(zombies)
        gate.apply([first, second])
        self.assert_found(world, "zombie_output", "contradiction", "decided_differently", "wrong_source", "wrong_order")

    def test_a_broken_chain(self):
        world = ordinary()
        world.gates[0].apply([world.intent(0)], head=bytes(32))
        self.assert_found(world, "chain")

    def test_an_entry_that_was_replaced(self):
        world = ordinary()
        entry_ = world.topics["gate.ledger"][0].records[1]
        claim_at_first = world.topics["gate.ledger"][0].records[0].value
        gate = Gate(world, 0)
        gate.term, gate.n, gate.received = 1, 1, 1_772_810_999_000
        gate.head = blake3(bytes(32) + claim_at_first).digest()
        sources = [("orders.intents", 0, record) for record in world.topics["orders.intents"][0].records[:2]]
        data, _, _ = gate.frame(sources)
        self.assertNotEqual(data, entry_.value)
        self.replace(world, "gate.ledger", 0, 1, value=data)
        self.assert_found(world, "chain")

    def test_a_flipped_bit_in_an_entry(self):
        world = ordinary()
        value = bytearray(world.topics["gate.ledger"][0].records[-1].value)
        value[40] ^= 1
        self.replace(world, "gate.ledger", 0, -1, value=bytes(value))
        self.assertIn("bad_entry", world.audit()["violation_counts"])

    def test_two_frames_of_one_number(self):
        world = ordinary()
        gate = world.gates[0]
        one, two = world.intent(0), world.intent(0)
        other, _, _ = gate.frame([one, two])
        gate.apply([one])
        gate.append(other, counts=False)
        gate.apply([two])
        self.assert_found(world, "two_contents")

    def test_a_frame_of_a_term_that_nobody_claimed(self):
        world = ordinary()
        gate = world.gates[0]
        data, _, _ = gate.frame([world.intent(0)], term=gate.term + 1)
        gate.append(data, counts=False)
        self.assert_found(world, "unclaimed_term", drained=False)

    def test_a_claim_that_had_read_more_than_there_is(self):
        world = ordinary()
        gate = world.gates[0]
        gate.append(claim_bytes(gate.term + 1, gate.n + 1, gate.head))
        self.assert_found(world, "claim_ahead")

    def test_a_gap_in_the_sequence(self):
        world = ordinary()
        gate = world.gates[0]
        gate.apply([world.intent(0)], first_seq=gate.seq + 2, change=lambda caused: caused)
        self.assertIn("seq_gap", world.audit()["violation_counts"])

    def test_a_clock_that_goes_back(self):
        world = ordinary()
        world.gates[0].received -= 1
        world.gates[0].apply([world.intent(0)])
        self.assert_found(world, "clock_back")

    def test_a_ledger_with_a_hole_or_without_its_beginning(self):
        world = ordinary()
        partition = world.topics["gate.ledger"][0]
        partition.records = [record._replace(offset=record.offset + (record.offset > 2)) for record in partition.records]
        self.assertEqual(set(world.audit()["violation_counts"]), {"ledger_gap"})
        world = ordinary()
        partition = world.topics["gate.ledger"][0]
        partition.records, partition.first = partition.records[1:], 1
        self.assertIn("ledger_truncated", world.audit()["violation_counts"])

    def test_a_lost_intent(self):
        world = ordinary()
        world.intent(0)
        world.gates[0].apply([world.intent(0)])
        self.assert_found(world, "lost_input")

    def test_an_intent_applied_twice(self):
        world = ordinary()
        source = world.intent(0)
        world.gates[0].apply([source])
        world.gates[0].apply([source])
        self.assert_found(world, "applied_twice", "decided_differently")

    def test_intents_applied_out_of_order(self):
        world = ordinary()
        one, two = world.intent(0), world.intent(0)
        world.gates[0].apply([two])
        world.gates[0].apply([one])
        self.assertIn("input_order", world.audit()["violation_counts"])

    def test_an_intent_that_stands_otherwise_in_its_topic(self):
        world = ordinary()
        self.replace(world, "orders.intents", 0, 0, value=b"{}")
        self.assert_found(world, "altered_input")

    def test_an_intent_of_an_aborted_transaction(self):
        world = ordinary()
        del world.topics["orders.intents"][0].records[1]
        self.assert_found(world, "unseen_input")

    def test_wrong_input_marks(self):
        world = ordinary()
        world.gates[0].next[1, 0] = (7, bytes(16))
        world.gates[0].apply([world.intent(0)])
        self.assert_found(world, "input_marks")

    def test_output_marks_ahead_of_the_outputs(self):
        world = ordinary()
        world.gates[0].marks[0] = (99, 0)
        world.gates[0].apply([world.intent(0)])
        self.assert_found(world, "output_mark")
        world = ordinary()
        world.gates[0].marks[0] = (1, 4)
        world.gates[0].apply([world.intent(0)])
        self.assert_found(world, "output_mark")

    def test_a_record_recorded_as_another_shards(self):
        world = ordinary()
        world.gates[0].apply([world.intent(0)], routing=1)
        self.assert_found(world, "routing")

    def test_a_record_of_a_foreign_partition(self):
        world = ordinary()
        source = world.intent(1)
        world.gates[1].apply([source])
        world.gates[0].apply([source])
        self.assert_found(world, "foreign_partition", "decided_differently")

    def test_a_shared_record_that_two_shards_or_none_speak_of(self):
        for routings, clean in (((0, 3), True), ((3, 0), True), ((2, 0), True), ((0, 0), False), ((3, 3), False)):
            world = ordinary()
            record = Record(0, 1, b"AAPL", b"{}")
            world.topics["market.prices"][0].records.append(record)
            for gate, routing in zip(world.gates, routings):
                gate.apply([("market.prices", 0, record)], routing=routing)
            self.assertEqual(world.audit()["violation_counts"], {} if clean else {"routing": 1})

    def test_two_refusals_of_one_record(self):
        world = ordinary()
        record = Record(0, 1, b"AAPL", b"{}")
        world.topics["market.prices"][0].records.append(record)
        letter = json.dumps({"reason": "MALFORMED", "source": {"topic": "market.prices", "partition": 0, "offset": 0}}).encode()
        for gate, routing in zip(world.gates, (0, 3)):
            seq = gate.seq + 1
            gate.apply([("market.prices", 0, record)], publish=False, routing=routing, refusal=letter)
            records = world.topics["gate.dead-letter"][0].records
            records.append(Record(len(records), 0, b"AAPL", letter, f"{gate.shard}-{seq}-0"))
        self.assert_found(world, "refused_twice")

    def test_another_number_of_partitions(self):
        world = ordinary()
        world.topics["orders.executions"].append(Partition())
        self.assert_found(world, "layout")


class TheDecoder(unittest.TestCase):
    def test_reads_the_frozen_bytes_of_the_gates_own_test(self):
        """The frame of src/wire/frame.rs's tests, whose hash is frozen there."""
        body = b"\1" + unsigned(2) + unsigned(7) + b"\1" * 32 + unsigned(40) + signed(1_772_811_000_130) + unsigned(2)
        for key, payload, outcome in ((b"\1" + blob(b"AAPL"), b"{}", unsigned(2) + b"\1" + b"\7" * 16), (b"\0", b"", b"\0\0")):
            body += unsigned(2) + unsigned(3) + unsigned(9) + signed(-5) + b"\1" + key + blob(payload) + outcome
        body += unsigned(1) + unsigned(2) + unsigned(3) + unsigned(10) + b"\2" * 16 + (unsigned(39) + unsigned(4)) * 4 + b"\1" + b"\x09" * 32
        self.assertEqual(blake3(entry(body)).hexdigest(), "65ac2bca5107454c75dcb1afbae3af84bf1cd4a57688fa5e9b55b3d88c19a937")
        frame = entries.decode(entry(body))
        self.assertEqual(frame.inputs[0], ("market.prices", 3, 9, -5, "misrouted", b"AAPL", b"{}", 2, b"\7" * 16))
        self.assertEqual(frame.inputs[1], ("market.prices", 3, 9, -5, "misrouted", None, b"", 0, None))
        self.assertEqual((frame.term, frame.n, frame.first_seq, frame.received, frame.state_hash), (2, 7, 40, 1_772_811_000_130, b"\x09" * 32))
        self.assertEqual((frame.input_marks, frame.output_marks), ([("market.prices", 3, 10, b"\2" * 16)], [(39, 4)] * 4))

    def test_refuses_what_is_damaged_or_cut(self):
        data = claim_bytes(2**40, 3, bytes(32))
        self.assertEqual(entries.decode(data).term, 2**40)
        for bit in range(len(data) * 8):
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            with self.assertRaises(entries.BadEntry):
                entries.decode(bytes(damaged))
        for length in range(len(data)):
            with self.assertRaises(entries.BadEntry):
                entries.decode(data[:length])

    def test_hashes_keys_as_kafka_does(self):
        for text, expected in (("21", -973_932_308), ("foobar", -790_332_482), ("a-little-bit-longer-string", -1_486_304_829), ("abc", 479_470_107)):
            self.assertEqual(murmur2(text.encode()), expected & 0xFFFFFFFF)


if __name__ == "__main__":
    unittest.main()
