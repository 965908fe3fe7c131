//! The fields of one JSON object, each at most once, and what is wrong with them.
//!
//! Invariant: the object is read to its end before anything is judged, so that what can be known of
//! a refused record is known. The first fault of each kind is kept. Deliberately absent: knowledge of events.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::domain::{Patch, RefusalCode};

use super::value::{Bad, Value};
use crate::wire::key::Key;
use crate::wire::read::{Kind, Raw, Reader};

/// What is wrong, and where.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub field: Option<Box<str>>,
    pub message: Cow<'static, str>,
}

impl Fault {
    pub fn new(field: Option<Box<str>>, message: impl Into<Cow<'static, str>>) -> Self {
        Self { field, message: message.into() }
    }
}

/// An object's fields.
pub(super) struct Fields<'a> {
    text: &'a [u8],
    slots: [Raw; Key::COUNT],
    /// How many of the slots are filled, and how many of those have been asked for.
    present: u32,
    taken: u32,
    /// Which slots have been asked for, filled or not.
    asked: u128,
    /// A field whose name no record knows.
    stranger: Option<Raw>,
    malformed: Option<Fault>,
    out_of_range: Option<Fault>,
}

impl<'a> Fields<'a> {
    /// No fields yet of the object that `text` is.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            slots: [Raw::default(); Key::COUNT],
            present: 0,
            taken: 0,
            asked: 0,
            stranger: None,
            malformed: None,
            out_of_range: None,
        }
    }

    /// Reads the fields. An error is a text that is not one JSON object.
    pub fn read(&mut self) -> Result<(), Fault> {
        let mut strangers = Strangers::default();
        Reader::object(self.text, |name, value| self.add(name, value, &mut strangers))
            .map_err(|error| Fault::new(None, format!("{} at byte {}", error.what, error.at)))
    }

    #[inline]
    fn add(&mut self, name: Raw, value: Raw, strangers: &mut Strangers) {
        let key = if name.kind() == Kind::Text {
            Key::find_at(self.text, name.start(), name.len())
        } else {
            name.text(self.text).and_then(|name| Key::find(&name))
        };
        let Some(key) = key else {
            return self.add_stranger(name, strangers);
        };
        let slot = &mut self.slots[key as usize];
        if *slot == Raw::default() {
            *slot = value;
            self.present += 1;
        } else {
            *slot = slot.as_kind(Kind::Twice);
            self.malformed(Some(key), "given twice");
        }
    }

    fn add_stranger(&mut self, name: Raw, strangers: &mut Strangers) {
        self.stranger.get_or_insert(name);
        if !strangers.add(self.text, name) {
            self.malformed_at(self.name_of(name), "given twice");
        }
    }

    /// The field's value, unless it is absent, `null` or doubled.
    pub fn value(&self, key: Key) -> Option<Value<'a>> {
        let raw = self.slots[key as usize];
        match raw.kind() {
            Kind::Absent | Kind::Twice | Kind::Null => None,
            Kind::True | Kind::False | Kind::Number | Kind::Text | Kind::Escaped | Kind::Object | Kind::Array => {
                Some(Value { text: self.text, raw })
            }
        }
    }

    /// A field that may be left out.
    #[inline]
    pub fn optional<T>(&mut self, key: Key, read: impl FnOnce(Value<'a>) -> Result<T, Bad>) -> Option<T> {
        let raw = self.slots[key as usize];
        self.asked |= 1 << key as u32;
        if raw.kind() == Kind::Absent {
            return None;
        }
        self.taken += 1;
        if raw.kind() == Kind::Null || raw.kind() == Kind::Twice {
            return None;
        }
        match read(Value { text: self.text, raw }) {
            Ok(value) => Some(value),
            Err(bad) => {
                self.bad(key, bad);
                None
            }
        }
    }

    /// A field that must be there.
    #[inline]
    pub fn required<T>(&mut self, key: Key, read: impl FnOnce(Value<'a>) -> Result<T, Bad>) -> Option<T> {
        let kind = self.slots[key as usize].kind();
        if kind == Kind::Absent || kind == Kind::Null {
            self.malformed(Some(key), "missing");
        }
        self.optional(key, read)
    }

    /// A field whose `null` says something else than its absence.
    pub fn patch<T>(&mut self, key: Key, read: impl FnOnce(Value<'a>) -> Result<T, Bad>) -> Patch<T> {
        if self.slots[key as usize].kind() == Kind::Null {
            self.asked |= 1 << key as u32;
            self.taken += 1;
            return Patch::Clear;
        }
        self.optional(key, read).map_or(Patch::Keep, Patch::Set)
    }

    /// An object of its own, none of whose fields may be strange; `None` when it is absent.
    pub fn object<T>(&mut self, key: Key, read: impl FnOnce(&mut Fields<'a>) -> Option<T>) -> Option<T> {
        let value = self.optional(key, Value::object)?;
        let mut inner = Self::new(value);
        if let Err(fault) = inner.read() {
            self.malformed_at(Some(key.as_str().into()), fault.message);
            return None;
        }
        let read = read(&mut inner);
        inner.refuse_strangers();
        let path = |field: Option<Box<str>>| Some(field.map_or(key.as_str().into(), |field| format!("{}.{field}", key.as_str()).into()));
        if let Some(fault) = inner.malformed.take() {
            self.malformed_at(path(fault.field), fault.message);
        }
        if let Some(fault) = inner.out_of_range.take() {
            self.out_of_range.get_or_insert(Fault::new(path(fault.field), fault.message));
        }
        read
    }

    /// Says that [`Fields::object`] must be given.
    pub fn require_object(&mut self, key: Key) {
        if self.slots[key as usize].kind() == Kind::Absent || self.slots[key as usize].kind() == Kind::Null {
            self.malformed(Some(key), "missing");
        }
    }

    /// Refuses fields that nobody has asked for.
    pub fn refuse_strangers(&mut self) {
        if self.stranger.is_none() && self.taken == self.present {
            return;
        }
        let unasked = |key: &&Key| self.slots[**key as usize].kind() != Kind::Absent && self.asked >> **key as u32 & 1 == 0;
        let field = match self.stranger {
            Some(name) => self.name_of(name),
            None => Key::ALL.iter().find(unasked).map(|key| key.as_str().into()),
        };
        self.malformed_at(field, "a field that this event does not have");
    }

    /// Notes that a field is malformed.
    #[cold]
    pub fn malformed(&mut self, key: Option<Key>, message: &'static str) {
        self.malformed_at(key.map(|key| key.as_str().into()), message);
    }

    #[cold]
    fn malformed_at(&mut self, field: Option<Box<str>>, message: impl Into<Cow<'static, str>>) {
        if self.malformed.is_none() {
            self.malformed = Some(Fault::new(field, message));
        }
    }

    #[cold]
    fn bad(&mut self, key: Key, bad: Bad) {
        match bad {
            Bad::Malformed(message) => self.malformed(Some(key), message),
            Bad::OutOfRange(message) => {
                self.out_of_range.get_or_insert_with(|| Fault::new(Some(key.as_str().into()), message));
            }
        }
    }

    /// What is wrong with the record, the worse fault first.
    pub fn take_fault(&mut self) -> Option<(RefusalCode, Fault)> {
        let malformed = self.malformed.take().map(|fault| (RefusalCode::Malformed, fault));
        malformed.or_else(|| self.out_of_range.take().map(|fault| (RefusalCode::ValueOutOfRange, fault)))
    }

    /// A strange field's name, as far as it is worth repeating.
    fn name_of(&self, name: Raw) -> Option<Box<str>> {
        const LONGEST: usize = 64;
        let text = name.text(self.text)?;
        (text.len() <= LONGEST).then(|| String::from_utf8_lossy(&text).into())
    }
}

/// The names that no record knows. The first few are kept without memory of their own.
#[derive(Default)]
struct Strangers {
    first: [Raw; 8],
    count: usize,
    more: BTreeSet<Vec<u8>>,
}

impl Strangers {
    /// Adds a name; `false` when it was there.
    #[inline]
    fn add(&mut self, text: &[u8], name: Raw) -> bool {
        let spelled = name.text(text).unwrap_or_default();
        if self.first[..self.count].iter().any(|other| other.text(text).as_deref() == Some(&*spelled)) {
            return false;
        }
        if self.count < self.first.len() {
            self.first[self.count] = name;
            self.count += 1;
            return true;
        }
        self.more.insert(spelled.into_owned())
    }
}
