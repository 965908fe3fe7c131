//! What we may do, tried without leaving a trace.

use std::time::Instant;

use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use serde::Serialize;

use crate::domain::InputTopic;
use crate::log::{LogError, Topic};

use super::super::admin::Unseen;
use super::super::client::Nobody;
use super::super::error::log_error;
use super::super::settings::Role;
use super::Examination;

/// One right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Permission {
    /// On what: `topic gate.ledger`, `group ordergate`.
    pub resource: String,
    /// To do what, as Kafka's ACLs call it.
    pub operation: &'static str,
    /// Whether the gate cannot run without it.
    pub needed: bool,
    /// Whether we may; `null` when that could not be learned.
    pub allowed: Option<bool>,
    /// What was tried, and what came of it.
    pub how: String,
}

/// What came of an attempt.
type Tried = Result<(), KafkaError>;

impl Examination {
    pub(super) fn permissions(&mut self) -> Vec<Permission> {
        let mut permissions = Vec::new();
        for topic in Topic::ALL {
            let Some(found) = self.seen.topics.get(&topic) else { continue };
            let resource = format!("topic {}", self.cluster.name(topic));
            let forbidden = found.settings == Err(Unseen::Forbidden);
            permissions.push(Permission {
                resource: resource.clone(),
                operation: "DESCRIBE_CONFIGS",
                needed: true,
                allowed: if forbidden { Some(false) } else { found.settings.is_ok().then_some(true) },
                how: "asked for its settings".into(),
            });
            if found.partitions.is_empty() {
                continue;
            }
            let is_led = self.is_led(topic, 0);
            if is_led && self.has_time_for(&format!("READ on {resource}")) {
                let tried = self.read(topic);
                permissions.push(permission(resource, "READ", true, &tried, "read at its end"));
            }
        }
        let resource = format!("group {}", self.cluster.options().group);
        if self.has_time_for(&format!("DESCRIBE on {resource}")) {
            let tried = self.offsets_of_group();
            permissions.push(permission(resource, "DESCRIBE", false, &tried, "asked for its offsets (the gate keeps none there)"));
        }
        permissions
    }

    /// Goes to the end of a topic's first partition, and waits until it is told that this is the end.
    fn read(&self, topic: Topic) -> Tried {
        let consumer = self.cluster.consumer(Role::Range, Nobody, &[topic]).map_err(|failure| refused(&failure.to_string()))?;
        let mut place = TopicPartitionList::with_capacity(1);
        place.add_partition_offset(self.cluster.name(topic), 0, Offset::End)?;
        consumer.assign(&place)?;
        let deadline = Instant::now() + self.cluster.patience();
        while Instant::now() < deadline {
            match consumer.poll(self.cluster.patience()) {
                // Somebody wrote between.
                Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => return Ok(()),
                Some(Err(error)) if is_denied(&error) => return Err(error),
                Some(Err(error)) => tracing::debug!(%error, %topic, "reading at the end"),
                None => {}
            }
        }
        Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut))
    }

    fn offsets_of_group(&self) -> Tried {
        let consumer = self.cluster.consumer(Role::Range, Nobody, &[]).map_err(|failure| refused(&failure.to_string()))?;
        let mut place = TopicPartitionList::with_capacity(1);
        place.add_partition(self.cluster.name(Topic::Input(InputTopic::Intents)), 0);
        consumer.committed_offsets(place, self.cluster.patience()).map(|_| ())
    }
}

fn refused(what: &str) -> KafkaError {
    KafkaError::ClientCreation(what.to_owned())
}

fn permission(resource: String, operation: &'static str, needed: bool, tried: &Tried, how: &str) -> Permission {
    let (allowed, came) = match tried {
        Ok(()) => (Some(true), String::new()),
        Err(error) if is_denied(error) => (Some(false), format!(": {error}")),
        Err(error) => (None, format!(": {}", no_answer(error))),
    };
    Permission { resource, operation, needed, allowed, how: format!("{how}{came}") }
}

fn no_answer(error: &KafkaError) -> LogError {
    log_error(error, "no answer")
}

fn is_denied(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as C;
    matches!(error.rdkafka_error_code(), Some(C::TopicAuthorizationFailed | C::GroupAuthorizationFailed | C::ClusterAuthorizationFailed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_that_is_missing_is_told_from_an_answer_that_is() {
        let denied = Err(KafkaError::MessageConsumption(RDKafkaErrorCode::TopicAuthorizationFailed));
        assert_eq!(permission("t".into(), "READ", true, &denied, "read").allowed, Some(false));
        let silent = Err(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
        assert_eq!(permission("t".into(), "READ", true, &silent, "read").allowed, None);
        assert_eq!(permission("t".into(), "READ", true, &Ok(()), "read").allowed, Some(true));
    }
}
