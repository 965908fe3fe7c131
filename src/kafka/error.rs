//! librdkafka's errors in the port's words.

use std::path::PathBuf;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::log::LogError;

/// Why a client cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KafkaFailure {
    /// The file of a secret cannot be read.
    #[error("kafka.secret_files: {property}: cannot read {path}: {detail}", path = path.display())]
    Secret {
        /// The property.
        property: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        detail: String,
    },
    /// librdkafka refuses the settings.
    #[error("kafka.properties: {detail}")]
    Settings {
        /// What it said.
        detail: String,
    },
    /// A client needs a thread, and there is none.
    #[error("a Kafka client's thread cannot be started: {detail}")]
    Thread {
        /// What the system said.
        detail: String,
    },
}

impl From<KafkaFailure> for LogError {
    fn from(failure: KafkaFailure) -> Self {
        Self::Io { detail: failure.to_string() }
    }
}

/// Why a client could not be created.
pub(super) fn not_created(error: &KafkaError) -> KafkaFailure {
    let detail = match error {
        KafkaError::ClientConfig(_, what, name, value) => format!("{name} = {value}: {what}"),
        other => other.to_string(),
    };
    KafkaFailure::Settings { detail }
}

/// What an error means for the log.
pub(super) fn log_error(error: &KafkaError, doing: &str) -> LogError {
    let detail = format!("{doing}: {error}");
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => LogError::Overloaded { waiting: 100_000, limit: 100_000 },
        Some(code) if denies(code) => LogError::Denied { detail },
        Some(code) if passes(code) => LogError::Busy { detail },
        Some(_) | None => LogError::Io { detail },
    }
}

/// Whether the broker does not know us, or does not let us.
pub(super) fn denies(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::Authentication
            | C::SaslAuthenticationFailed
            | C::SSL
            | C::TopicAuthorizationFailed
            | C::GroupAuthorizationFailed
            | C::ClusterAuthorizationFailed
            | C::TransactionalIdAuthorizationFailed
    )
}

/// Whether waiting may help.
fn passes(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as C;
    matches!(
        code,
        C::BrokerTransportFailure
            | C::AllBrokersDown
            | C::OperationTimedOut
            | C::RequestTimedOut
            | C::MessageTimedOut
            | C::NotLeaderForPartition
            | C::LeaderNotAvailable
            | C::NotEnoughReplicas
            | C::NotEnoughReplicasAfterAppend
            | C::NetworkException
            | C::BrokerNotAvailable
            | C::NotController
            | C::CoordinatorNotAvailable
            | C::CoordinatorLoadInProgress
            | C::Resolve
    )
}
