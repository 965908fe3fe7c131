"""Ledger entries from bytes, read by the description in docs/ARCHITECTURE.md and src/wire/frame.rs, not by the gate's code.

An entry is magic `OGLE`, version (u16 LE), length of the body (u32 LE), CRC-32 of the body (u32 LE), body. The body is bincode 2,
`config::standard()`: integers as little-endian varints (251, 252, 253 announce 2, 4, 8 bytes), signed ones in zigzag, enum variants as
their number, options as a byte, byte strings and lists with their length before them, arrays and tuples bare.
"""

import zlib
from typing import NamedTuple, Optional

INPUT_TOPICS = ("orders.intents", "orders.executions", "market.prices", "gate.control")
OUTPUT_TOPICS = ("gate.decisions", "gate.commands", "gate.notifications", "gate.dead-letter")
# Version 1 said `misrouted: bool`; the same byte now names four cases, of which the first two mean what it meant.
ROUTINGS = ("here", "misrouted", "elsewhere", "quiet")
VERSIONS = (1,)


class BadEntry(Exception):
    """Bytes that are no entry of the ledger."""


class Claim(NamedTuple):
    term: int
    n: int
    prev_hash: bytes
    owner: str
    at: int
    tzdb_version: str
    program_version: str


class Input(NamedTuple):
    topic: str
    partition: int
    offset: int
    ts: int
    routing: str
    key: Optional[bytes]
    payload: bytes
    outputs: int
    digest: Optional[bytes]


class InputMark(NamedTuple):
    topic: str
    partition: int
    next: int
    last: bytes


class OutputMark(NamedTuple):
    seq: int
    offset: int


class Frame(NamedTuple):
    term: int
    n: int
    prev_hash: bytes
    first_seq: int
    received: int
    inputs: list
    input_marks: list
    output_marks: list
    state_hash: Optional[bytes]


class Reader:
    """A cursor over a body."""

    __slots__ = ("data", "at")

    def __init__(self, data):
        self.data = data
        self.at = 0

    def raw(self, length):
        end = self.at + length
        if end > len(self.data):
            raise BadEntry("the body is cut short")
        value = self.data[self.at:end]
        self.at = end
        return value

    def unsigned(self):
        at = self.at
        try:
            first = self.data[at]
        except IndexError:
            raise BadEntry("the body is cut short") from None
        self.at = at + 1
        if first < 251:
            return first
        if first > 253:
            raise BadEntry(f"{first} begins no integer of at most 64 bits")
        return int.from_bytes(self.raw(2 << (first - 251)), "little")

    def signed(self):
        value = self.unsigned()
        return value >> 1 if value & 1 == 0 else -(value >> 1) - 1

    def blob(self):
        return self.raw(self.unsigned())

    def text(self):
        return self.blob().decode("utf-8")

    def option(self, read):
        tag = self.raw(1)[0]
        if tag > 1:
            raise BadEntry(f"{tag} is neither of an option's tags")
        return read() if tag else None

    def word(self, words):
        number = self.unsigned()
        if number >= len(words):
            raise BadEntry(f"variant {number} of {words} is unknown")
        return words[number]


def decode(data):
    """The entry of the bytes: a Claim or a Frame."""
    if len(data) < 14 or data[:4] != b"OGLE":
        raise BadEntry("no magic")
    version = int.from_bytes(data[4:6], "little")
    if version not in VERSIONS:
        raise BadEntry(f"version {version} is unknown to the auditor")
    body = data[14:]
    if int.from_bytes(data[6:10], "little") != len(body):
        raise BadEntry("the length is not the body's")
    if int.from_bytes(data[10:14], "little") != zlib.crc32(body):
        raise BadEntry("the checksum does not match")
    reader = Reader(body)
    entry = (_claim, _frame)[reader.word((0, 1))](reader)
    if reader.at != len(body):
        raise BadEntry(f"{len(body) - reader.at} bytes are left over")
    return entry


def _claim(r):
    return Claim(r.unsigned(), r.unsigned(), r.raw(32), r.text(), r.signed(), r.text(), r.text())


def _frame(r):
    term, n, prev_hash, first_seq, received = r.unsigned(), r.unsigned(), r.raw(32), r.unsigned(), r.signed()
    inputs = [_input(r) for _ in range(r.unsigned())]
    marks = [InputMark(r.word(INPUT_TOPICS), r.unsigned(), r.unsigned(), r.raw(16)) for _ in range(r.unsigned())]
    outputs = [OutputMark(r.unsigned(), r.unsigned()) for _ in OUTPUT_TOPICS]
    return Frame(term, n, prev_hash, first_seq, received, inputs, marks, outputs, r.option(lambda: r.raw(32)))


def _input(r):
    return Input(
        r.word(INPUT_TOPICS), r.unsigned(), r.unsigned(), r.signed(), r.word(ROUTINGS),
        r.option(r.blob), r.blob(), r.unsigned(), r.option(lambda: r.raw(16)),
    )  # fmt: skip
