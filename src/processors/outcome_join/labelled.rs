//! The label that an example gets.

use crate::{events::labelled_example::LabelSource, processors::outcome_join::pending::StateRef};
use foretell_streams::time::EventTime;

/// The label of an example.
#[derive(Clone, Copy)]
pub(super) struct Labelled<'a> {
    pub(super) label: &'a str,
    /// None if the label is from the policy for unlabelled predictions.
    pub(super) outcome_time: Option<EventTime>,
    /// The label that a correction replaces.
    pub(super) replaced: Option<&'a str>,
}

impl<'a> Labelled<'a> {
    /// That of an example that is held; none in another state.
    pub(super) fn held(state: StateRef<'a>) -> Option<Self> {
        match state {
            StateRef::Held { label, outcome_time } => {
                Some(Self { label, outcome_time: Some(outcome_time), replaced: None })
            }
            StateRef::Waiting | StateRef::Learned(_) | StateRef::PassedOver | StateRef::Chosen => {
                None
            }
        }
    }

    /// Where it is from.
    pub(super) fn source(&self) -> LabelSource {
        match (self.replaced, self.outcome_time) {
            (Some(_), _) => LabelSource::Correction,
            (None, Some(_)) => LabelSource::Outcome,
            (None, None) => LabelSource::Policy,
        }
    }
}
