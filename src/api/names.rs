//! Topics by the names that this deployment gives them.

use crate::domain::InputTopic;
use crate::log::{OutputTopic, Topic};
use crate::wire::TopicNames;

/// The name of a topic.
#[must_use]
pub fn name_of(names: &TopicNames, topic: Topic) -> &str {
    match topic {
        Topic::Input(InputTopic::Intents) => &names.intents,
        Topic::Input(InputTopic::Executions) => &names.executions,
        Topic::Input(InputTopic::Prices) => &names.prices,
        Topic::Input(InputTopic::Control) => &names.control,
        Topic::Ledger => &names.ledger,
        Topic::Output(OutputTopic::Decisions) => &names.decisions,
        Topic::Output(OutputTopic::Commands) => &names.commands,
        Topic::Output(OutputTopic::Notifications) => &names.notifications,
        Topic::Output(OutputTopic::DeadLetter) => &names.dead_letter,
        Topic::Directory | Topic::Audit => topic.name(),
    }
}

/// The topic of a name.
#[must_use]
pub fn topic_of(names: &TopicNames, name: &str) -> Option<Topic> {
    Topic::ALL.into_iter().find(|topic| name_of(names, *topic) == name)
}
