#!/usr/bin/env python3
"""Audits everything that the topics of a gate hold: is each intent decided once, from an unbroken ledger, by its owner?

    audit.py --brokers 127.0.0.1:9092 [--prefix test.] [--topic gate.ledger=eu.ledger] [--shards 8] [--drained] [--allow-tail]
    audit.py --sqlite DIR/log.sqlite

Prints figures and violations as JSON; exit code 0 without violations, 1 with some, 2 when the topics cannot be read. It shares no code
with the gate: entries.py decodes, rules.py judges. Topics are read whole into memory; a million records take about a gigabyte. Outputs
are read first, then the ledger, then the inputs, so that a gate at work is behind in nothing that is held against it (`--allow-tail`).
"""

import argparse
import gc
import json
import sqlite3
import sys
import time

from entries import INPUT_TOPICS, OUTPUT_TOPICS
from rules import Audit, Partition, Record

ORDER = (*OUTPUT_TOPICS, "gate.ledger", *INPUT_TOPICS)


class Unreadable(Exception):
    """A topic that cannot be read."""


def read_kafka(brokers, names, seconds_max, properties):
    from confluent_kafka import OFFSET_INVALID, Consumer, KafkaError, KafkaException, TopicPartition

    settings = {
        "bootstrap.servers": brokers, "group.id": "ordergate-audit", "enable.auto.commit": False, "enable.partition.eof": True,
        "auto.offset.reset": "error", "isolation.level": "read_committed", "check.crcs": True, "fetch.wait.max.ms": 20,
        "queued.max.messages.kbytes": 65536, **properties,
    }  # fmt: skip
    consumer = Consumer(settings)
    deadline = time.monotonic() + seconds_max

    def partitions_of(name):
        found = consumer.list_topics(name, timeout=10).topics[name]
        if found.error is not None or not found.partitions:
            raise Unreadable(f"{name}: {found.error or 'no such topic'}")
        return sorted(found.partitions)

    def bounds(name, number):
        first, end = consumer.get_watermark_offsets(TopicPartition(name, number), timeout=10)
        if OFFSET_INVALID in (first, end):
            raise Unreadable(f"{name} {number}: no watermarks")
        return first, end

    def read(name):
        numbers = partitions_of(name)
        found = {number: Partition([], *bounds(name, number)) for number in numbers}
        open_ = set(numbers)
        consumer.assign([TopicPartition(name, number, found[number].first) for number in numbers])
        while open_:
            if time.monotonic() > deadline:
                raise Unreadable(f"{name}: partitions {sorted(open_)} are not read to their ends within {seconds_max} s")
            for message in consumer.consume(10_000, timeout=0.2):
                error = message.error()
                if error is None:
                    found[message.partition()].records.append(record_of(message))
                elif error.code() == KafkaError._PARTITION_EOF:
                    open_.discard(message.partition())
                elif not error.retriable() and error.code() not in (KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
                    raise Unreadable(f"{name}: {error}")
        return [found[number] for number in numbers]

    try:
        return {topic: read(names[topic]) for topic in ORDER}
    except KafkaException as error:
        raise Unreadable(str(error)) from error
    finally:
        consumer.close()


def record_of(message):
    tags = [value for name, value in message.headers() or () if name == "output"]
    tag = tags[0].decode("ascii", "replace") if len(tags) == 1 and tags[0] is not None else None
    return Record(message.offset(), message.timestamp()[1], message.key(), message.value() or b"", tag)


def read_sqlite(path):
    """The embedded log: one shard, the topics by their numbers (src/embedded/schema.rs)."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    numbers = {name: number for number, name in connection.execute("SELECT number, name FROM topic")}
    topics = {}
    for topic in ORDER:
        if topic in INPUT_TOPICS:
            rows = connection.execute("SELECT position, ts, key, payload, NULL, NULL, NULL FROM input WHERE topic = ? ORDER BY position", (numbers[topic],))
        else:
            rows = connection.execute("SELECT position, ts, key, payload, shard, seq, place FROM output WHERE topic = ? ORDER BY position", (numbers[topic],))
        topics[topic] = [Partition(Record(*row[:4], None if row[4] is None else f"{row[4]}-{row[5]}-{row[6]}") for row in rows)]
    return topics


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--brokers", help="bootstrap servers")
    source.add_argument("--sqlite", help="the file of an embedded log, instead of Kafka")
    parser.add_argument("--shards", type=int, help="number of shards; as many as the ledger has partitions when not given")
    parser.add_argument("--prefix", default="", help="what stands before each default topic name")
    parser.add_argument("--topic", action="append", default=[], metavar="DEFAULT=NAME", help="another name of one topic")
    parser.add_argument("--partitioner", choices=("murmur2", "crc32"), default="murmur2")
    parser.add_argument("--drained", action="store_true", help="records that are not applied yet are violations")
    parser.add_argument("--allow-tail", action="store_true", help="the last outputs may not be published yet")
    parser.add_argument("--skip-input", action="append", default=[], choices=INPUT_TOPICS, help="do not hold this input topic against the ledger")
    parser.add_argument("--property", action="append", default=[], metavar="KEY=VALUE", help="a setting of librdkafka")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds to read all topics")
    return parser.parse_args()


def main():
    args = arguments()
    # Millions of small tuples and no cycles: looking for garbage costs a tenth of the time and finds none.
    gc.disable()
    names = {topic: args.prefix + topic for topic in ORDER} | dict(pair.split("=", 1) for pair in args.topic)
    try:
        if args.sqlite:
            topics = read_sqlite(args.sqlite)
        else:
            topics = read_kafka(args.brokers, names, args.timeout, dict(pair.split("=", 1) for pair in args.property))
    except (Unreadable, sqlite3.Error) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    shards = args.shards or len(topics["gate.ledger"])
    report = Audit(topics, shards, args.partitioner, args.drained, args.allow_tail, args.skip_input).run()
    json.dump(report, sys.stdout, indent=1)
    print()
    return 0 if report["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
