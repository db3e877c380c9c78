//! The one place where a librdkafka code becomes a [`BrokerError`], named for the recovery.

use rdkafka::{
    error::{KafkaError, RDKafkaError},
    types::RDKafkaErrorCode as Code,
};

use foretell_streams::runtime::broker::BrokerError;

/// What to do about a code, when nobody knows better from where it came.
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

/// Names the recovery from `error`, which came up when `doing` something ("commit offsets").
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "of the kinds of rdkafka's errors only some say more than their code"
)]
pub(crate) fn broker_error(doing: &str, error: &KafkaError) -> BrokerError {
    let text = format!("cannot {doing}: {error}");
    match error {
        KafkaError::Transaction(error) => transaction_error(doing, error),
        // These come as texts, and mean that our idea of the assignment is not librdkafka's any
        // more: only a new member is sure to agree with itself.
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

/// librdkafka quotes what it refuses, or a part of it; whatever was set may be a secret.
fn without_value(reason: &str, value: &str, property: &str) -> String {
    let pieces = reason.split('"').enumerate().map(|(index, piece)| {
        let is_value = index % 2 == 1 && piece != property && value.contains(piece);
        if is_value { "…" } else { piece }
    });
    pieces.collect::<Vec<_>>().join("\"")
}

/// Names the recovery from a transaction's error: librdkafka itself says which it wants (KIP-360).
pub(crate) fn transaction_error(doing: &str, error: &RDKafkaError) -> BrokerError {
    let text = format!("cannot {doing}: {} ({})", error.string(), error.name());
    let by_code = recovery(error.code());
    let recovery = if error.is_fatal() {
        // The producer is of no more use; whether the next one is depends on why.
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

/// What a code asks for.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "librdkafka has 180 codes and adds more; one that we do not know wants a person"
)]
pub(crate) fn recovery(code: Code) -> Recovery {
    match code {
        // The network, or a broker that is starting, moving or full: it passes.
        Code::AllBrokersDown
        // Who was never let in is told so when connecting (`unreachable`). After that it is a token that ended
        // before the next was shown: librdkafka connects again, and shows the new one.
        | Code::Authentication
        | Code::BrokerDestroy
        | Code::BrokerNotAvailable
        | Code::BrokerTransportFailure
        | Code::ConcurrentTransactions
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        // librdkafka lets go of a node that is gone (since 2.12), perhaps of the very one that was asked.
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
        // A new topic is unknown to some brokers for a moment; who must not wait checks first.
        | Code::UnknownPartition
        | Code::UnknownTopic
        | Code::UnknownTopicId
        | Code::UnknownTopicOrPartition
        | Code::UnstableOffsetCommit
        | Code::WaitCache
        | Code::WaitingForCoordinator => Recovery::Retry,

        // The group has moved on without us, or a record did not get through: nothing is
        // committed, and what we still own can be processed again.
        Code::AssignmentLost
        | Code::IllegalGeneration
        | Code::MessageTimedOut
        | Code::PurgeInflight
        | Code::PurgeQueue
        | Code::RebalanceInProgress
        | Code::StaleMemberEpoch
        | Code::State
        | Code::UnknownMemberId => Recovery::Abort,

        // Somebody took our name, or the broker forgot us: begin again.
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
    fn codes_ask_for_a_recovery() {
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
    fn errors_say_what_we_were_doing() {
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
