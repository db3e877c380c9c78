//! Classification of librdkafka's errors: the only place where a code becomes a [`BrokerError`], named after the recovery.

use rdkafka::{
    error::{KafkaError, RDKafkaError},
    types::RDKafkaErrorCode as Code,
};

use foretell_streams::runtime::broker::BrokerError;

/// The recovery from an error code, unless its context requires another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recovery {
    Retry,
    Abort,
    Fenced,
    Fatal,
}

impl Recovery {
    fn error(self, text: String) -> BrokerError {
        match self {
            Self::Retry => BrokerError::Retry(text),
            Self::Abort => BrokerError::Abort(text),
            Self::Fenced => BrokerError::Fenced(text),
            Self::Fatal => BrokerError::Fatal(text),
        }
    }
}

/// Classifies `error`, which occurred while `doing` something ("commit offsets").
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only some kinds of rdkafka's errors carry more information than their code"
)]
pub(crate) fn broker_error(doing: &str, error: &KafkaError) -> BrokerError {
    let text = format!("cannot {doing}: {error}");
    match error {
        KafkaError::Transaction(error) => transaction_error(doing, error),
        // These carry a text instead of a code, and mean that the member's assignment differs from librdkafka's. Only a new
        // member has a consistent one.
        KafkaError::Subscription(_) | KafkaError::PauseResume(_) => BrokerError::Fenced(text),
        KafkaError::Seek(_) => BrokerError::Retry(text),
        KafkaError::MessageConsumptionFatal(code) if recovery(*code) != Recovery::Fatal => {
            BrokerError::Fenced(text)
        }
        KafkaError::ClientConfig(_, reason, property, value) => {
            let reason = without_value(reason, value, property);
            BrokerError::Fatal(format!("[broker] {property} is refused: {reason}"))
        }
        other => match other.rdkafka_error_code() {
            Some(code) => recovery(code).error(text),
            None => BrokerError::Fatal(text),
        },
    }
}

/// Removes the refused value, or parts of it, from a message of librdkafka, because it may be a secret.
fn without_value(reason: &str, value: &str, property: &str) -> String {
    let pieces = reason.split('"').enumerate().map(|(index, piece)| {
        let is_value = index % 2 == 1 && piece != property && value.contains(piece);
        if is_value { "…" } else { piece }
    });
    pieces.collect::<Vec<_>>().join("\"")
}

/// Classifies the error of a transaction, for which librdkafka itself determines the recovery (KIP-360).
pub(crate) fn transaction_error(doing: &str, error: &RDKafkaError) -> BrokerError {
    let text = format!("cannot {doing}: {} ({})", error.string(), error.name());
    let by_code = recovery(error.code());
    let recovery = if error.is_fatal() {
        // This producer cannot be used any more; whether a new one can depends on the code.
        if by_code == Recovery::Fatal { Recovery::Fatal } else { Recovery::Fenced }
    } else if error.txn_requires_abort() {
        Recovery::Abort
    } else if error.is_retriable() {
        Recovery::Retry
    } else {
        by_code
    };
    recovery.error(text)
}

/// The recovery from an error code.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "librdkafka has 180 codes and adds more; an unknown one needs an operator"
)]
pub(crate) fn recovery(code: Code) -> Recovery {
    match code {
        // Transient: the network, or a broker that is starting, moving or overloaded.
        Code::AllBrokersDown
        // Wrong credentials are reported when connecting (`unreachable`). Later, this means that a token expired before
        // the next one was sent; librdkafka reconnects with the new one.
        | Code::Authentication
        | Code::BrokerDestroy
        | Code::BrokerNotAvailable
        | Code::BrokerTransportFailure
        | Code::ConcurrentTransactions
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        // librdkafka (since 2.12) drops nodes that were removed, possibly during a request to one of them.
        | Code::DestroyBroker
        | Code::FencedLeaderEpoch
        | Code::InProgress
        | Code::KafkaStorageError
        | Code::LeaderNotAvailable
        | Code::NetworkException
        | Code::NotController
        | Code::NotCoordinator
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::NotLeaderForPartition
        | Code::OffsetNotAvailable
        | Code::OperationTimedOut
        | Code::PreviousInProgress
        | Code::QueueFull
        | Code::RebootstrapRequired
        | Code::ReplicaNotAvailable
        | Code::RequestTimedOut
        | Code::Resolve
        | Code::Retry
        | Code::ThrottlingQuotaExceeded
        | Code::TimedOutQueue
        | Code::Unknown
        | Code::UnknownLeaderEpoch
        // Some brokers do not know a new topic for a moment; callers that must not wait check before.
        | Code::UnknownPartition
        | Code::UnknownTopic
        | Code::UnknownTopicId
        | Code::UnknownTopicOrPartition
        | Code::UnstableOffsetCommit
        | Code::WaitCache
        | Code::WaitingForCoordinator => Recovery::Retry,

        // The group's generation has changed, or a record was not written: nothing was committed, and the records of
        // partitions that are still owned can be processed again.
        Code::AssignmentLost
        | Code::IllegalGeneration
        | Code::MessageTimedOut
        | Code::PurgeInflight
        | Code::PurgeQueue
        | Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::State
        | Code::UnknownMemberId => Recovery::Abort,

        // Another process has the same id, or the broker dropped the producer or member: start with new ones.
        Code::Fatal
        | Code::Fenced
        | Code::FencedInstanceId
        | Code::FencedMemberEpoch
        | Code::GaplessGuarantee
        | Code::Inconsistent
        | Code::InvalidProducerEpoch
        | Code::InvalidProducerIdMapping
        | Code::InvalidTransactionalState
        | Code::OutOfOrderSequenceNumber
        | Code::ProducerFenced
        | Code::TransactionCoordinatorFenced
        | Code::UnknownProducerId
        | Code::UnreleasedInstanceId => Recovery::Fenced,

        _ => Recovery::Fatal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_a_recovery() {
        use Recovery::{Abort, Fatal, Fenced, Retry};
        let cases = [
            (Code::BrokerTransportFailure, Retry),
            (Code::UnstableOffsetCommit, Retry),
            (Code::DestroyBroker, Retry),
            (Code::Authentication, Retry),
            (Code::ConcurrentTransactions, Retry),
            (Code::IllegalGeneration, Abort),
            (Code::RebalanceInProgress, Abort),
            (Code::MessageTimedOut, Abort),
            (Code::ProducerFenced, Fenced),
            (Code::InvalidProducerEpoch, Fenced),
            (Code::FencedInstanceId, Fenced),
            (Code::TopicAuthorizationFailed, Fatal),
            (Code::InvalidRecord, Fatal),
        ];
        for (code, expected) in cases {
            assert_eq!(recovery(code), expected, "{code:?}");
        }
    }

    #[test]
    fn a_refused_value_is_not_shown() {
        let check = |value: &str, reason: &str| {
            let property = "security.protocol";
            let shown = without_value(reason, value, property);
            assert!(shown.contains(property) && !shown.contains("hunter2"), "{shown}");
        };
        check(
            "hunter2",
            "Invalid value \"hunter2\" for configuration property \"security.protocol\"",
        );
        check(
            "ssl,hunter2",
            "Invalid value \"hunter2\" for configuration property \"security.protocol\"",
        );
    }

    #[test]
    fn errors_name_the_operation() {
        let error =
            broker_error("commit offsets", &KafkaError::ConsumerCommit(Code::NotCoordinator));
        assert!(matches!(&error, BrokerError::Retry(text) if text.contains("commit offsets")));
        let error =
            broker_error("poll", &KafkaError::MessageConsumptionFatal(Code::FencedInstanceId));
        assert!(matches!(error, BrokerError::Fenced(_)));
        let error = broker_error("seek", &KafkaError::Seek("_STATE".to_owned()));
        assert!(matches!(error, BrokerError::Retry(_)));
        let error = broker_error("assign", &KafkaError::Subscription("_FATAL".to_owned()));
        assert!(matches!(error, BrokerError::Fenced(_)));
    }
}
