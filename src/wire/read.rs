//! A strict JSON reader that borrows: it finds where values begin and end, and what they are.
//!
//! Invariant: what it accepts is JSON (RFC 8259) in UTF-8; it looks at every byte once and nests without recursion. Deliberately absent: numbers as numbers, trees, serde.

use std::borrow::Cow;

/// Why bytes are no JSON, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    /// The place, in bytes from the beginning.
    pub at: usize,
    /// What is wrong there.
    pub what: &'static str,
}

/// What a value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Kind {
    /// Not there.
    #[default]
    Absent,
    /// There more than once.
    Twice,
    Null,
    True,
    False,
    Number,
    /// A string without escapes: its span is its text.
    Text,
    /// A string with escapes.
    Escaped,
    Object,
    Array,
}

/// By number; the numbers beyond are never made.
const KINDS: [Kind; 16] = {
    const NAMED: [Kind; 10] = [
        Kind::Absent,
        Kind::Twice,
        Kind::Null,
        Kind::True,
        Kind::False,
        Kind::Number,
        Kind::Text,
        Kind::Escaped,
        Kind::Object,
        Kind::Array,
    ];
    let mut kinds = [Kind::Absent; 16];
    let mut i = 0;
    while i < NAMED.len() {
        assert!(NAMED[i] as usize == i, "out of order");
        kinds[i] = NAMED[i];
        i += 1;
    }
    kinds
};

/// Where a value stands, packed so that it fits a register: four bits of kind, 30 of place, 30 of
/// length. The span of a string is what its quotes enclose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Raw(u64);

/// Longer texts are not read.
pub(super) const MAX_TEXT_BYTES: usize = (1 << 30) - 1;

impl Raw {
    #[inline]
    const fn new(kind: Kind, start: usize, end: usize) -> Self {
        Self((kind as u64) << 60 | (start as u64) << 30 | (end - start) as u64)
    }

    /// What stands there.
    #[inline]
    pub const fn kind(self) -> Kind {
        KINDS[(self.0 >> 60) as usize]
    }

    /// The same place, as another kind.
    pub const fn as_kind(self, kind: Kind) -> Self {
        Self(self.0 << 4 >> 4 | (kind as u64) << 60)
    }

    /// Where it begins, behind the quote of a string.
    #[inline]
    pub const fn start(self) -> usize {
        (self.0 >> 30) as usize & MAX_TEXT_BYTES
    }

    /// How many bytes it has.
    #[inline]
    pub const fn len(self) -> usize {
        self.0 as usize & MAX_TEXT_BYTES
    }

    /// The bytes of the span.
    #[inline]
    pub fn of(self, text: &[u8]) -> &[u8] {
        let start = self.start();
        text.get(start..start + self.len()).unwrap_or_default()
    }

    /// The text of a string; `None` when it is none.
    pub fn text(self, text: &[u8]) -> Option<Cow<'_, [u8]>> {
        match self.kind() {
            Kind::Text => Some(Cow::Borrowed(self.of(text))),
            Kind::Escaped => Some(Cow::Owned(unescape(self.of(text)))),
            Kind::Absent | Kind::Twice | Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::Object | Kind::Array => None,
        }
    }
}

/// A place in a text.
pub(super) struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    /// The high bits of what strings hold: outside of them only ASCII is JSON.
    high: u64,
    /// Set before a method answers `None`.
    wrong: &'static str,
}

impl<'a> Reader<'a> {
    /// Reads the one object that `text` must be, and tells each member's name and value.
    #[inline]
    pub fn object(text: &'a [u8], mut member: impl FnMut(Raw, Raw)) -> Result<(), SyntaxError> {
        let mut reader = Self { text, at: 0, high: 0, wrong: "" };
        let whole = reader.members(&mut member);
        reader.checked(whole)
    }

    /// Reads the one array that `text` must be, and tells each element.
    pub fn array(text: &'a [u8], mut element: impl FnMut(Raw)) -> Result<(), SyntaxError> {
        let mut reader = Self { text, at: 0, high: 0, wrong: "" };
        let whole = reader.elements(&mut element);
        reader.checked(whole)
    }

    #[inline]
    fn checked(&self, whole: Option<()>) -> Result<(), SyntaxError> {
        const HIGH: u64 = 0x8080_8080_8080_8080;
        if whole.is_none() {
            return Err(SyntaxError { at: self.at, what: self.wrong });
        }
        if self.high & HIGH == 0 {
            return Ok(());
        }
        std::str::from_utf8(self.text).map(|_| ()).map_err(|error| SyntaxError { at: error.valid_up_to(), what: "not UTF-8" })
    }

    #[inline]
    fn members(&mut self, member: &mut impl FnMut(Raw, Raw)) -> Option<()> {
        if self.text.len() > MAX_TEXT_BYTES {
            return self.none("too long");
        }
        self.space();
        self.expect(b'{', "expected an object")?;
        self.space();
        if !self.takes(b'}') {
            loop {
                let name = self.name()?;
                let value = self.value()?;
                member(name, value);
                if self.ends(b'}')? {
                    break;
                }
                self.space();
            }
        }
        self.end()
    }

    fn elements(&mut self, element: &mut impl FnMut(Raw)) -> Option<()> {
        if self.text.len() > MAX_TEXT_BYTES {
            return self.none("too long");
        }
        self.space();
        self.expect(b'[', "expected an array")?;
        self.space();
        if !self.takes(b']') {
            loop {
                self.space();
                element(self.value()?);
                if self.ends(b']')? {
                    break;
                }
            }
        }
        self.end()
    }

    /// Reads a member's name, and passes what stands before its value.
    #[inline]
    fn name(&mut self) -> Option<Raw> {
        self.expect(b'"', "expected a field name")?;
        let name = self.string()?;
        self.space();
        self.expect(b':', "expected a colon")?;
        self.space();
        Some(name)
    }

    /// After an element: whether the container ends (`true`) or goes on.
    #[inline]
    fn ends(&mut self, close: u8) -> Option<bool> {
        self.space();
        if self.takes(b',') {
            return Some(false);
        }
        self.expect(close, "expected a comma or the end").map(|()| true)
    }

    fn end(&mut self) -> Option<()> {
        self.space();
        if self.at == self.text.len() { Some(()) } else { self.none("bytes after the value") }
    }

    #[cold]
    fn none<T>(&mut self, what: &'static str) -> Option<T> {
        self.wrong = what;
        None
    }

    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    #[inline]
    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    #[inline]
    fn expect(&mut self, byte: u8, what: &'static str) -> Option<()> {
        if self.peek() == Some(byte) {
            self.at += 1;
            return Some(());
        }
        self.none(what)
    }

    #[inline]
    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Reads the value that begins here.
    #[inline]
    fn value(&mut self) -> Option<Raw> {
        if self.takes(b'"') { self.string() } else { self.other_value() }
    }

    /// Reads a value that is no string.
    fn other_value(&mut self) -> Option<Raw> {
        let start = self.at;
        match self.peek() {
            Some(b'-' | b'0'..=b'9') => match number_end(self.text, start) {
                Some(end) => {
                    self.at = end;
                    Some(Raw::new(Kind::Number, start, end))
                }
                None => self.none("not a number"),
            },
            Some(b'{') => self.container(Kind::Object),
            Some(b'[') => self.container(Kind::Array),
            Some(b't') => self.literal(b"true", Kind::True),
            Some(b'f') => self.literal(b"false", Kind::False),
            Some(b'n') => self.literal(b"null", Kind::Null),
            Some(_) => self.none("expected a value"),
            None => self.none("unexpected end"),
        }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Option<Raw> {
        let start = self.at;
        if self.text.get(start..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Some(Raw::new(kind, start, self.at));
        }
        self.none("expected a value")
    }

    /// Reads an object or array to its end, however deep it nests.
    fn container(&mut self, kind: Kind) -> Option<Raw> {
        let start = self.at;
        let mut closers = Vec::new();
        let mut fresh = self.opens(&mut closers);
        while let Some(&close) = closers.last() {
            self.space();
            if fresh && self.takes(close) || !fresh && self.ends(close)? {
                closers.pop();
                fresh = false;
                continue;
            }
            self.space();
            if close == b'}' {
                self.name()?;
            }
            fresh = self.opens(&mut closers);
            if !fresh {
                self.value()?;
            }
        }
        Some(Raw::new(kind, start, self.at))
    }

    /// Steps into a container that begins here and notes what closes it.
    fn opens(&mut self, closers: &mut Vec<u8>) -> bool {
        let close = match self.peek() {
            Some(b'{') => b'}',
            Some(b'[') => b']',
            Some(_) | None => return false,
        };
        closers.push(close);
        self.at += 1;
        true
    }

    /// Reads a string whose opening quote is behind.
    #[inline]
    fn string(&mut self) -> Option<Raw> {
        let start = self.at;
        let (end, high) = plain_end(self.text, start);
        self.high |= high;
        if self.text.get(end) == Some(&b'"') {
            self.at = end + 1;
            return Some(Raw::new(Kind::Text, start, end));
        }
        self.at = end;
        self.escaped_string(start)
    }

    /// Goes on with a string at what is no plain text of it.
    #[cold]
    fn escaped_string(&mut self, start: usize) -> Option<Raw> {
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Some(Raw::new(Kind::Escaped, start, self.at - 1));
                }
                Some(b'\\') => match escape_end(self.text, self.at) {
                    Some(end) => self.at = end,
                    None => return self.none("not an escape"),
                },
                Some(_) => return self.none("a control character in a string"),
                None => return self.none("a string without end"),
            }
            let (end, high) = plain_end(self.text, self.at);
            self.at = end;
            self.high |= high;
        }
    }
}

/// Where what needs no attention within a string ends, eight bytes at a time; and the high bits on the way.
fn plain_end(text: &[u8], start: usize) -> (usize, u64) {
    let (mut at, mut high) = (start, 0);
    while let Some(eight) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*eight);
        high |= word;
        let found = special(word);
        if found != 0 {
            return (at + (found.trailing_zeros() / 8) as usize, high);
        }
        at += 8;
    }
    while let Some(byte) = text.get(at).copied().filter(|byte| *byte >= 0x20 && *byte != b'"' && *byte != b'\\') {
        high |= u64::from(byte);
        at += 1;
    }
    (at, high)
}

/// Marks the quotes, backslashes and control characters of eight bytes with their high bits. The
/// lowest mark is exact; above it a borrow may have set others.
#[inline]
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quotes = (word ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let slashes = (word ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let controls = word.wrapping_sub(ONES * 0x20);
    // Bytes beyond ASCII are none of them, and neither letter changes a byte's high bit.
    (quotes | slashes | controls) & !word & HIGH
}

/// Where the escape that begins at `at` ends. A surrogate must have its other half.
fn escape_end(text: &[u8], at: usize) -> Option<usize> {
    match text.get(at + 1)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
        b'u' => match hex4(text, at + 2)? {
            0xD800..=0xDBFF => {
                let pair = text.get(at + 6..at + 8)? == b"\\u" && (0xDC00..=0xDFFF).contains(&hex4(text, at + 8)?);
                pair.then_some(at + 12)
            }
            0xDC00..=0xDFFF => None,
            _ => Some(at + 6),
        },
        _ => None,
    }
}

fn hex4(text: &[u8], at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4)?;
    digits.iter().try_fold(0, |sum, byte| Some(sum * 16 + char::from(*byte).to_digit(16)?))
}

/// The text of a string's inside, whose escapes have been checked.
fn unescape(inside: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(inside.len());
    let mut at = 0;
    while let Some(&byte) = inside.get(at) {
        if byte != b'\\' {
            out.push(byte);
            at += 1;
            continue;
        }
        let end = escape_end(inside, at).unwrap_or(inside.len());
        match inside.get(at + 1) {
            Some(b'b') => out.push(8),
            Some(b'f') => out.push(12),
            Some(b'n') => out.push(b'\n'),
            Some(b'r') => out.push(b'\r'),
            Some(b't') => out.push(b'\t'),
            Some(b'u') => {
                let high = hex4(inside, at + 2).unwrap_or_default();
                let low = if end == at + 12 { hex4(inside, at + 8) } else { None };
                let code = low.map_or(high, |low| 0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF));
                let mut utf8 = [0; 4];
                out.extend_from_slice(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER).encode_utf8(&mut utf8).as_bytes());
            }
            Some(other) => out.push(*other),
            None => {}
        }
        at = end;
    }
    out
}

/// Where the number (in JSON's grammar) that begins at `at` ends; `None` when none begins there.
pub(super) fn number_end(text: &[u8], at: usize) -> Option<usize> {
    let digits = |at: usize| {
        let run = text.get(at..)?.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (run > 0).then_some(at + run)
    };
    let first = at + usize::from(text.get(at) == Some(&b'-'));
    let mut end = digits(first)?;
    if text.get(first) == Some(&b'0') && end > first + 1 {
        return None;
    }
    if text.get(end) == Some(&b'.') {
        end = digits(end + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(end) {
        let signed = matches!(text.get(end + 1), Some(b'+' | b'-'));
        end = digits(end + 1 + usize::from(signed))?;
    }
    Some(end)
}
