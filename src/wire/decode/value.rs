//! One value of a field, read as what the field asks for.
//!
//! Invariant: a wrong JSON type or spelling is malformed; a number that is well spelled and does not
//! fit is out of range. Deliberately absent: defaults.

use std::borrow::Cow;

use crate::domain::{Factor, Id, Millis, Money, Price, Qty, Symbol};
use crate::wire::decimal::{self, DecimalFault};
use crate::wire::read::{Kind, Raw, Reader};
use crate::wire::time;

/// Why a value is not what is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bad {
    Malformed(&'static str),
    OutOfRange(&'static str),
}

const NOT_ABOVE_ZERO: Bad = Bad::OutOfRange("must be above 0");
const BELOW_ZERO: Bad = Bad::OutOfRange("must not be below 0");
const TOO_LARGE: Bad = Bad::OutOfRange("too large");

/// A value that is there and not `null`.
#[derive(Clone, Copy)]
pub(super) struct Value<'a> {
    pub text: &'a [u8],
    pub raw: Raw,
}

impl<'a> Value<'a> {
    /// Reads the text of a string.
    #[inline]
    fn spelled<T>(self, read: impl FnOnce(&[u8]) -> Option<T>, otherwise: &'static str) -> Result<T, Bad> {
        let found = if self.raw.kind() == Kind::Text {
            read(self.raw.of(self.text))
        } else {
            let text = self.raw.text(self.text).ok_or(Bad::Malformed("must be a string"))?;
            read(&text)
        };
        found.ok_or(Bad::Malformed(otherwise))
    }

    /// Whether it is a string of just these bytes.
    pub fn is_text(self, text: &[u8]) -> bool {
        self.spelled(|found| (found == text).then_some(()), "").is_ok()
    }

    /// An identifier.
    #[inline]
    pub fn id(self) -> Result<Id, Bad> {
        self.spelled(Id::parse, "must be 1 to 64 bytes of [A-Za-z0-9._:-]")
    }

    /// A symbol.
    #[inline]
    pub fn symbol(self) -> Result<Symbol, Bad> {
        self.spelled(Symbol::parse, "must be 1 to 32 bytes of [A-Za-z0-9._:-/]")
    }

    /// One of a few words.
    #[inline]
    pub fn word<T>(self, parse: impl FnOnce(&[u8]) -> Option<T>) -> Result<T, Bad> {
        self.spelled(parse, "not a word that this field knows")
    }

    /// Any text.
    pub fn prose(self) -> Result<Box<str>, Bad> {
        self.spelled(|text| Some(std::str::from_utf8(text).ok()?.into()), "must be text")
    }

    /// Any text, which nobody needs.
    pub fn any_text(self) -> Result<(), Bad> {
        self.spelled(|_| Some(()), "")
    }

    /// `true` or `false`.
    pub fn flag(self) -> Result<bool, Bad> {
        match self.raw.kind() {
            Kind::True => Ok(true),
            Kind::False => Ok(false),
            Kind::Absent | Kind::Twice | Kind::Null | Kind::Number | Kind::Text | Kind::Escaped | Kind::Object | Kind::Array => {
                Err(Bad::Malformed("must be true or false"))
            }
        }
    }

    /// The bytes of an object.
    pub fn object(self) -> Result<&'a [u8], Bad> {
        if self.raw.kind() == Kind::Object { Ok(self.raw.of(self.text)) } else { Err(Bad::Malformed("must be an object")) }
    }

    /// A list, each element of which is read alike.
    pub fn list<T>(self, read: impl Fn(Value<'a>) -> Result<T, Bad>) -> Result<Box<[T]>, Bad> {
        if self.raw.kind() != Kind::Array {
            return Err(Bad::Malformed("must be an array"));
        }
        let inside = self.raw.of(self.text);
        let mut list = Vec::new();
        let mut bad = None;
        let whole = Reader::array(inside, |raw| match read(Value { text: inside, raw }) {
            Ok(element) => list.push(element),
            Err(fault) => bad = bad.or(Some(fault)),
        });
        match (whole, bad) {
            (Ok(()), None) => Ok(list.into()),
            (_, Some(bad)) => Err(bad),
            (Err(_), None) => Err(Bad::Malformed("must be an array")),
        }
    }

    /// A decimal in units of 1e-8.
    #[inline]
    fn units(self) -> Result<i128, Bad> {
        let units = match self.raw.kind() {
            Kind::Text | Kind::Number => decimal::units(self.raw.of(self.text)),
            Kind::Escaped => decimal::units(&self.raw.text(self.text).unwrap_or(Cow::Borrowed(b""))),
            Kind::Absent | Kind::Twice | Kind::Null | Kind::True | Kind::False | Kind::Object | Kind::Array => {
                return Err(Bad::Malformed("must be a decimal: a number, or a string that spells one"));
            }
        };
        units.map_err(|fault| match fault {
            DecimalFault::NotDecimal => Bad::Malformed("not a decimal as JSON spells numbers"),
            DecimalFault::OutOfRange => Bad::OutOfRange("more than 8 fractional digits, or too large"),
        })
    }

    /// A decimal in the domain of prices, above zero.
    #[inline]
    fn above_zero(self) -> Result<i64, Bad> {
        if let Kind::Text | Kind::Number = self.raw.kind()
            && let Some(units) = decimal::small(self.raw.of(self.text))
            && units > 0
        {
            return Ok(units);
        }
        let units = self.units()?;
        if units <= 0 {
            return Err(NOT_ABOVE_ZERO);
        }
        i64::try_from(units).map_err(|_| TOO_LARGE)
    }

    /// A price, above zero.
    #[inline]
    pub fn price(self) -> Result<Price, Bad> {
        self.above_zero().map(Price)
    }

    /// A quantity, above zero.
    #[inline]
    pub fn qty(self) -> Result<Qty, Bad> {
        self.above_zero().map(Qty)
    }

    /// A multiplier, threshold or percentage, above zero.
    pub fn factor(self) -> Result<Factor, Bad> {
        self.above_zero().map(Factor)
    }

    /// An amount of money, of any sign.
    #[inline]
    pub fn money(self) -> Result<Money, Bad> {
        const MONEY_PER_UNIT: i128 = 100_000_000;
        self.units().map(|units| Money(units * MONEY_PER_UNIT))
    }

    /// An amount of money, above zero.
    pub fn money_above_zero(self) -> Result<Money, Bad> {
        let money = self.money()?;
        if money > Money::ZERO { Ok(money) } else { Err(NOT_ABOVE_ZERO) }
    }

    /// How much was on offer or traded: read, found sound and left out.
    pub fn volume(self) -> Result<(), Bad> {
        self.amount().map(|_| ())
    }

    /// How much was on offer or traded, in units of 1e-8. It may be more than a quantity of ours can be.
    pub fn amount(self) -> Result<i128, Bad> {
        let units = self.units()?;
        if units < 0 { Err(BELOW_ZERO) } else { Ok(units) }
    }

    /// A time: RFC 3339, or milliseconds since the epoch.
    #[inline]
    pub fn time(self) -> Result<Millis, Bad> {
        if self.raw.kind() == Kind::Number {
            return self.integer();
        }
        self.spelled(time::rfc3339, "must be a time as RFC 3339 writes it, or milliseconds")
    }

    /// An integer.
    pub fn integer(self) -> Result<i64, Bad> {
        if self.raw.kind() != Kind::Number {
            return Err(Bad::Malformed("must be an integer"));
        }
        let digits = self.raw.of(self.text);
        if digits.iter().all(|byte| byte.is_ascii_digit() || *byte == b'-') {
            // All that can be wrong with it now is its size.
            return std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).ok_or(TOO_LARGE);
        }
        match decimal::units(digits) {
            Ok(units) if units % 100_000_000 == 0 => i64::try_from(units / 100_000_000).map_err(|_| TOO_LARGE),
            Ok(_) => Err(Bad::Malformed("must be an integer")),
            Err(_) => Err(TOO_LARGE),
        }
    }

    /// An integer that is not below `least`.
    pub fn at_least(self, least: i64) -> Result<i64, Bad> {
        let integer = self.integer()?;
        if integer < least { Err(Bad::OutOfRange("below the least that is allowed")) } else { Ok(integer) }
    }

    /// A small integer that is not below `least`.
    pub fn count(self, least: i64) -> Result<u32, Bad> {
        u32::try_from(self.at_least(least)?).map_err(|_| TOO_LARGE)
    }
}
