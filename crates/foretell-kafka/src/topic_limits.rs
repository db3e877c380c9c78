//! Looks up and caches the limits of the topics that a producer writes to.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard, PoisonError},
};

use crate::{admin::Admin, record_limits::RecordLimits};
use foretell_streams::{
    record::{OutputRecordRef, Topic},
    runtime::broker::BrokerError,
};

/// The limits of the topics that one producer has written to.
pub(crate) struct TopicLimits {
    admin: Arc<Admin>,
    /// In the order in which they were looked up. They are few, and a topic is found by the address of its name.
    known: Vec<(Topic, RecordLimits)>,
}

impl TopicLimits {
    pub(crate) fn new(admin: &Arc<Admin>) -> Self {
        Self { admin: Arc::clone(admin), known: Vec::new() }
    }

    /// Checks whether `record` can be written at all.
    pub(crate) fn check(&mut self, record: OutputRecordRef<'_>) -> Result<(), BrokerError> {
        let limits = match self.known.iter().find(|(topic, _)| topic == record.topic) {
            Some((_, known)) => *known,
            None => self.look_up(record.topic)?,
        };
        limits.check(record)
    }

    /// Drops the cached limits of `topic`, which has just refused a record, so that the next record looks them up.
    pub(crate) fn invalidate(&mut self, topic: &Topic) {
        self.known.retain(|(known, _)| known != topic);
        self.shared().remove(topic);
    }

    fn shared(&self) -> MutexGuard<'_, BTreeMap<Topic, RecordLimits>> {
        self.admin.topic_limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look_up(&mut self, topic: &Topic) -> Result<RecordLimits, BrokerError> {
        let shared = self.shared().get(topic).copied();
        if let Some(limits) = shared {
            self.known.push((topic.clone(), limits));
            return Ok(limits);
        }
        let Some(partitions) = self.admin.partitions(topic)? else {
            return Err(BrokerError::Gone(topic.clone()));
        };
        let message_bytes_max = self.admin.message_bytes_max(topic);
        let limits = RecordLimits { partitions, message_bytes_max };
        self.known.push((topic.clone(), limits));
        self.shared().insert(topic.clone(), limits);
        Ok(limits)
    }
}
