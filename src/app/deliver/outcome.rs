//! The result of an attempt, and the reasons for which an action is not delivered.

use std::time::Duration;

/// The result of one attempt to deliver an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it.
    Delivered,
    /// It may succeed later.
    Failed {
        reason: String,
        /// The time that the receiver wants to pass before the next attempt.
        retry_after: Option<Duration>,
    },
    /// It would fail again in the same way.
    Rejected(Rejection),
}

/// The reason for which an action is not delivered on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rejection {
    /// The class of the dead letter.
    pub(super) class: &'static str,
    pub(super) reason: String,
}

/// The receiver answered that it will never accept the action.
pub(super) const REFUSED: &str = "refused_delivery";
/// Every attempt failed, for the configured time.
pub(super) const FAILED: &str = "failed_delivery";
/// The action was due too long ago.
pub(super) const EXPIRED: &str = "expired_action";
/// The answer with the e-mail address is missing, or no address.
pub(super) const MALFORMED_ADDRESS: &str = "malformed_address";
/// The template of the e-mail cannot be filled in with this action.
pub(super) const UNRENDERABLE: &str = "unrenderable_email";

/// The classes of dead letters of this command, besides those of records that cannot be decoded.
pub(crate) const REJECTION_CLASSES: [&str; 5] =
    [REFUSED, FAILED, EXPIRED, MALFORMED_ADDRESS, UNRENDERABLE];

impl Rejection {
    /// The receiver, or the message itself, is the cause.
    pub(super) fn new(class: &'static str, reason: impl Into<String>) -> Self {
        Self { class, reason: reason.into() }
    }

    pub(super) fn given_up(attempts: u32, tried_for: Duration, last: &str) -> Self {
        let seconds = tried_for.as_secs();
        Self::new(FAILED, format!("given up after {attempts} attempts in {seconds} s: {last}"))
    }

    pub(super) fn expired(age: Duration, limit: Duration, attempts: u32) -> Self {
        let (age, limit) = (age.as_secs(), limit.as_secs());
        let reason =
            format!("it was due {age} s ago, the limit is {limit} s; {attempts} attempts failed");
        Self::new(EXPIRED, reason)
    }
}

impl From<Rejection> for Outcome {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl Outcome {
    /// The reason for which the receiver does not have the action; `None` if it has.
    pub(super) fn reason(&self) -> Option<&str> {
        match self {
            Self::Delivered => None,
            Self::Failed { reason, .. } => Some(reason),
            Self::Rejected(rejection) => Some(&rejection.reason),
        }
    }

    /// A failure that may pass.
    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self::Failed { reason: reason.into(), retry_after: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::dead_letters::DELIVERY_CLASSES;

    #[test]
    fn the_classes_are_known_where_dead_letters_are_listed() {
        assert_eq!(REJECTION_CLASSES, DELIVERY_CLASSES);
    }
}
