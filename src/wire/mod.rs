//! Floor 4, bytes and words: JSON records to events, outputs to JSON, lines of event logs, schemas.
//!
//! Invariant: total functions of their arguments. Decoding never fails, it refuses by a value; the
//! same output gives the same bytes. Deliberately absent: serde on the way in and out, any I/O, any
//! clock, and every judgement that needs state.

mod decimal;
mod decode;
pub mod directory;
mod encode;
mod encode_text;
pub mod frame;
mod key;
mod line;
mod read;
pub mod snapshot;
mod state;
mod time;
mod topics;
mod write;

#[cfg(test)]
mod tests;

pub mod schema;

pub use decimal::parse_units;
pub use decode::{MAX_PAYLOAD_BYTES, decode, decode_print, key_as_id};
pub use encode::{Origin, encode_output, key_of, topic_of};
pub use line::{Line, LineError, parse_line, write_any_line, write_line};
pub use state::{encode_account, encode_state};
pub use topics::{OutputTopic, TopicNames};
