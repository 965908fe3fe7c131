//! A strict JSON reader that borrows: it finds where values begin and end, and what they are.
//!
//! Invariant: what it accepts is JSON (RFC 8259), given that the bytes are UTF-8; it looks at every
//! byte once and nests without recursion. Deliberately absent: numbers as numbers, trees, serde.

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

/// Where a value stands. The span of a string is what its quotes enclose.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Raw {
    pub kind: Kind,
    pub start: u32,
    pub end: u32,
}

impl Raw {
    fn new(kind: Kind, start: usize, end: usize) -> Self {
        // Texts longer than 4 GiB are refused before they are read.
        Self { kind, start: start as u32, end: end as u32 }
    }

    /// The bytes of the span.
    pub fn of<'a>(&self, text: &'a [u8]) -> &'a [u8] {
        text.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// The text of a string; `None` when it is none.
    pub fn text<'a>(&self, text: &'a [u8]) -> Option<Cow<'a, [u8]>> {
        match self.kind {
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
}

impl<'a> Reader<'a> {
    /// At the beginning of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Self { text, at: 0 }
    }

    /// Reads the one object that `text` must be, and tells each member's name and value.
    pub fn object(text: &'a [u8], mut member: impl FnMut(Raw, Raw)) -> Result<(), SyntaxError> {
        let mut reader = Self::new(text);
        reader.space();
        reader.expect(b'{', "expected an object")?;
        reader.space();
        if !reader.takes(b'}') {
            loop {
                let (name, value) = reader.member()?;
                member(name, value);
                if reader.ends(b'}')? {
                    break;
                }
                reader.space();
            }
        }
        reader.end()
    }

    /// Reads the one array that `text` must be, and tells each element.
    pub fn array(text: &'a [u8], mut element: impl FnMut(Raw)) -> Result<(), SyntaxError> {
        let mut reader = Self::new(text);
        reader.space();
        reader.expect(b'[', "expected an array")?;
        reader.space();
        if !reader.takes(b']') {
            loop {
                reader.space();
                element(reader.value()?);
                if reader.ends(b']')? {
                    break;
                }
            }
        }
        reader.end()
    }

    fn member(&mut self) -> Result<(Raw, Raw), SyntaxError> {
        let name = self.name()?;
        Ok((name, self.value()?))
    }

    /// Reads a member's name, and passes what stands before its value.
    fn name(&mut self) -> Result<Raw, SyntaxError> {
        self.expect(b'"', "expected a field name")?;
        let name = self.string()?;
        self.space();
        self.expect(b':', "expected a colon")?;
        self.space();
        Ok(name)
    }

    /// After an element: whether the container ends (`true`) or goes on.
    fn ends(&mut self, close: u8) -> Result<bool, SyntaxError> {
        self.space();
        if self.takes(b',') {
            return Ok(false);
        }
        self.expect(close, "expected a comma or the end").map(|()| true)
    }

    fn end(&mut self) -> Result<(), SyntaxError> {
        self.space();
        if self.at == self.text.len() { Ok(()) } else { Err(self.wrong("bytes after the value")) }
    }

    fn wrong(&self, what: &'static str) -> SyntaxError {
        SyntaxError { at: self.at, what }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<(), SyntaxError> {
        if self.takes(byte) { Ok(()) } else { Err(self.wrong(what)) }
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    /// Reads the value that begins here.
    fn value(&mut self) -> Result<Raw, SyntaxError> {
        let start = self.at;
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                self.string()
            }
            Some(b'-' | b'0'..=b'9') => {
                self.at = number_end(self.text, start).ok_or_else(|| self.wrong("not a number"))?;
                Ok(Raw::new(Kind::Number, start, self.at))
            }
            Some(b'{') => self.container(Kind::Object),
            Some(b'[') => self.container(Kind::Array),
            Some(b't') => self.literal(b"true", Kind::True),
            Some(b'f') => self.literal(b"false", Kind::False),
            Some(b'n') => self.literal(b"null", Kind::Null),
            Some(_) => Err(self.wrong("expected a value")),
            None => Err(self.wrong("unexpected end")),
        }
    }

    fn literal(&mut self, word: &'static [u8], kind: Kind) -> Result<Raw, SyntaxError> {
        let start = self.at;
        if self.text.get(start..).is_some_and(|rest| rest.starts_with(word)) {
            self.at += word.len();
            return Ok(Raw::new(kind, start, self.at));
        }
        Err(self.wrong("expected a value"))
    }

    /// Reads an object or array to its end, however deep it nests.
    fn container(&mut self, kind: Kind) -> Result<Raw, SyntaxError> {
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
        Ok(Raw::new(kind, start, self.at))
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
    fn string(&mut self) -> Result<Raw, SyntaxError> {
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            self.plain();
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Raw::new(kind, start, self.at - 1));
                }
                Some(b'\\') => {
                    kind = Kind::Escaped;
                    self.at = escape_end(self.text, self.at).ok_or_else(|| self.wrong("not an escape"))?;
                }
                Some(_) => return Err(self.wrong("a control character in a string")),
                None => return Err(self.wrong("a string without end")),
            }
        }
    }

    /// Passes what needs no attention within a string, eight bytes at a time.
    fn plain(&mut self) {
        while let Some(eight) = self.text.get(self.at..).and_then(|rest| rest.first_chunk::<8>()) {
            let found = special(u64::from_le_bytes(*eight));
            if found != 0 {
                self.at += (found.trailing_zeros() / 8) as usize;
                return;
            }
            self.at += 8;
        }
        while self.peek().is_some_and(|byte| byte >= 0x20 && byte != b'"' && byte != b'\\') {
            self.at += 1;
        }
    }
}

/// Marks the quotes, backslashes and control characters of eight bytes with their high bits. The
/// lowest mark is exact; above it a borrow may have set others.
const fn special(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let quotes = quote.wrapping_sub(ONES) & !quote;
    let slashes = slash.wrapping_sub(ONES) & !slash;
    let controls = word.wrapping_sub(ONES * 0x20) & !word;
    (quotes | slashes | controls) & HIGH
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
