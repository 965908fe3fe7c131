//! JSON Schemas (2020-12) of all records, and the AsyncAPI description of the topics.
//!
//! Invariant: what is generated is in `schemas/`, which a test holds; words and names come from the
//! types that decoding and encoding use. Deliberately absent: validation. The daemon decodes, and
//! never asks a schema.

mod asyncapi;
pub mod control;
pub mod inputs;
pub mod outputs;
pub mod scalars;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};

use super::topics::OutputTopic;
use crate::domain::InputTopic;

/// The topic that an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// One that the gate reads.
    Input(InputTopic),
    /// One that it writes.
    Output(OutputTopic),
}

/// One event with its schema.
#[derive(Clone, Debug)]
pub struct EventSchema {
    /// The event's name, and the file's.
    pub name: &'static str,
    /// Where it is found.
    pub topic: Topic,
    /// What it is, in a line or two.
    pub summary: String,
    /// The schema as JSON text with a newline at its end.
    pub text: String,
}

/// All files of `schemas/`: name and text.
#[must_use]
pub fn all() -> Vec<(String, String)> {
    let events = events();
    let mut files: Vec<(String, String)> = events.iter().map(|event| (format!("{}.json", event.name), event.text.clone())).collect();
    files.push(("asyncapi.yaml".into(), asyncapi::text(&events)));
    files
}

/// Every event with its schema, by topic.
#[must_use]
pub fn events() -> Vec<EventSchema> {
    let mut events = Vec::new();
    inputs::add(&mut events);
    control::add(&mut events);
    outputs::add(&mut events);
    events
}

/// The schema of what is read: optional fields may also be `null`.
fn input<T: JsonSchema>(name: &'static str, topic: InputTopic) -> EventSchema {
    let mut settings = SchemaSettings::draft2020_12().for_deserialize();
    settings.inline_subschemas = true;
    event::<T>(name, Topic::Input(topic), settings)
}

/// The schema of what is written: optional fields are absent, never `null`, unless they say so.
fn output<T: JsonSchema>(name: &'static str, topic: OutputTopic) -> EventSchema {
    let mut settings = SchemaSettings::draft2020_12().for_serialize();
    settings.inline_subschemas = true;
    event::<T>(name, Topic::Output(topic), settings)
}

fn event<T: JsonSchema>(name: &'static str, topic: Topic, settings: SchemaSettings) -> EventSchema {
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>();
    let described = schema.get("description").and_then(|text| text.as_str()).unwrap_or_default();
    let summary = described.split_whitespace().collect::<Vec<_>>().join(" ");
    schema.insert("title".into(), name.into());
    let mut ordered = serde_json::Map::new();
    for first in ["$schema", "title", "description"] {
        ordered.extend(schema.remove(first).map(|value| (first.to_owned(), value)));
    }
    ordered.extend(schema.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
    let text = format!("{:#}\n", serde_json::Value::Object(ordered));
    EventSchema { name, topic, summary, text }
}
