//! Which predictions are acted on during a demo, so that outcomes can depend on it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::{
    app::{cluster::Cluster, play::io},
    config::Config,
    events::action::{Action, ActionState},
    processors::actions::After,
};
use foretell_streams::{record::InputRecord, runtime::StopSignal};

/// The actions that were requested so far.
#[derive(Clone, Default)]
pub(super) struct RequestedActions {
    /// The ids of their predictions.
    predictions: Arc<Mutex<BTreeSet<String>>>,
    /// Number of records on the topic, of any state.
    records: Arc<AtomicUsize>,
}

impl RequestedActions {
    /// Follows the topic until `stop`.
    pub(super) fn follow(
        config: &Config,
        cluster: &Cluster,
        stop: &StopSignal,
    ) -> anyhow::Result<Self> {
        let requested = Self::default();
        let topic = &config.topics.actions;
        let codec = cluster.codec::<Action>(config, topic)?;
        let into = requested.clone();
        let visit = move |record: &InputRecord| {
            let action = record.value.as_ref().and_then(|bytes| codec.decode(bytes).ok());
            let Some(action) = action else { return };
            if action.state == ActionState::Requested {
                into.lock().insert(action.prediction_id);
            }
            into.records.fetch_add(1, Ordering::SeqCst);
        };
        io::follow(cluster.broker.as_ref(), topic, stop, visit)?;
        Ok(requested)
    }

    /// Number of records that were read.
    pub(super) fn records(&self) -> usize {
        self.records.load(Ordering::SeqCst)
    }

    /// Whether an action was requested for one of these predictions.
    pub(super) fn includes_any(&self, predictions: &[String]) -> bool {
        let requested = self.lock();
        predictions.iter().any(|id| requested.contains(id))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.predictions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Event time after a prediction at which its actions are requested or cancelled, also in a partition whose stream time is a little
/// behind. An action that waits by the time of day is requested too late for the outcomes of a demo.
pub(super) fn decided_after(config: &Config) -> Duration {
    let waits = config.actions.rules.iter().map(|rule| match rule.settings.after {
        After::EventTime(after) => after,
        After::Wall(_) => Duration::ZERO,
    });
    waits.max().unwrap_or_default() + config.join.window / 30
}
