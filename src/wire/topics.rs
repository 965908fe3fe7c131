//! The topics and their names.
//!
//! Invariant: names are a matter of deployment only. What is written into outputs (`source.topic`)
//! is always the default name, so that no configuration changes a byte of a decision.

use serde::{Deserialize, Serialize};

use crate::domain::InputTopic;

/// The topics that outputs go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum OutputTopic {
    /// `gate.decisions`
    Decisions,
    /// `gate.commands`
    Commands,
    /// `gate.notifications`
    Notifications,
    /// `gate.dead-letter`
    DeadLetter,
}

impl OutputTopic {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 4] = [Self::Decisions, Self::Commands, Self::Notifications, Self::DeadLetter];

    /// Its place in [`OutputTopic::ALL`].
    #[must_use]
    pub const fn place(self) -> usize {
        match self {
            Self::Decisions => 0,
            Self::Commands => 1,
            Self::Notifications => 2,
            Self::DeadLetter => 3,
        }
    }

    /// The default name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decisions => "gate.decisions",
            Self::Commands => "gate.commands",
            Self::Notifications => "gate.notifications",
            Self::DeadLetter => "gate.dead-letter",
        }
    }
}

/// What the topics are called where this gate runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopicNames {
    /// What order producers write.
    pub intents: String,
    /// What broker adapters write.
    pub executions: String,
    /// Market data.
    pub prices: String,
    /// What operators write.
    pub control: String,
    /// The ledger.
    pub ledger: String,
    /// Decisions.
    pub decisions: String,
    /// Commands.
    pub commands: String,
    /// Notifications.
    pub notifications: String,
    /// Records that were refused.
    pub dead_letter: String,
}

impl Default for TopicNames {
    fn default() -> Self {
        Self {
            intents: InputTopic::Intents.as_str().into(),
            executions: InputTopic::Executions.as_str().into(),
            prices: InputTopic::Prices.as_str().into(),
            control: InputTopic::Control.as_str().into(),
            ledger: "gate.ledger".into(),
            decisions: OutputTopic::Decisions.as_str().into(),
            commands: OutputTopic::Commands.as_str().into(),
            notifications: OutputTopic::Notifications.as_str().into(),
            dead_letter: OutputTopic::DeadLetter.as_str().into(),
        }
    }
}

impl TopicNames {
    /// The name of an input topic.
    #[must_use]
    pub fn input(&self, topic: InputTopic) -> &str {
        match topic {
            InputTopic::Intents => &self.intents,
            InputTopic::Executions => &self.executions,
            InputTopic::Prices => &self.prices,
            InputTopic::Control => &self.control,
        }
    }

    /// The name of an output topic.
    #[must_use]
    pub fn output(&self, topic: OutputTopic) -> &str {
        match topic {
            OutputTopic::Decisions => &self.decisions,
            OutputTopic::Commands => &self.commands,
            OutputTopic::Notifications => &self.notifications,
            OutputTopic::DeadLetter => &self.dead_letter,
        }
    }

    /// The input topic of a name.
    #[must_use]
    pub fn find_input(&self, name: &str) -> Option<InputTopic> {
        const INPUTS: [InputTopic; 4] = [InputTopic::Intents, InputTopic::Executions, InputTopic::Prices, InputTopic::Control];
        INPUTS.into_iter().find(|topic| self.input(*topic) == name)
    }

    /// The output topic of a name.
    #[must_use]
    pub fn find_output(&self, name: &str) -> Option<OutputTopic> {
        OutputTopic::ALL.into_iter().find(|topic| self.output(*topic) == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_is_found_by_its_name() {
        let names = TopicNames { decisions: "eu.decisions".into(), ..TopicNames::default() };
        for topic in OutputTopic::ALL {
            assert_eq!(names.find_output(names.output(topic)), Some(topic));
        }
        assert_eq!(names.find_output("gate.decisions"), None);
        assert_eq!(names.find_input("market.prices"), Some(InputTopic::Prices));
        assert_eq!(names.find_input("gate.ledger"), None);
    }
}
