//! Punctuations of a task, and its stream time: how it advances without records, and how it is stored.

use std::time::Duration;

use crate::{
    record::{InputRecord, OutputRecordRef},
    state::StateError,
    task::Task,
    time::{EventTime, WallTime},
    topology::{ProcessError, Punctuation, PunctuationKind},
};

/// Interval, in stream time, at which stream time is flushed to a changelog while inputs are quiet. A restart loses at
/// most this much of it.
const TIME_FLUSH_INTERVAL: Duration = Duration::from_secs(60);

/// The key of records that only carry stream time. No store has it: keys of key-value stores are UTF-8, and keys of window
/// stores begin with the byte of their layout.
const TIME_KEY: &[u8] = b"\xffstream-time";

impl Task {
    /// Whether a stream-time punctuation is scheduled.
    #[must_use]
    pub fn follows_stream_time(&self) -> bool {
        let schedules = &self.scope.schedules;
        schedules.iter().any(|schedule| schedule.kind == PunctuationKind::StreamTime)
    }

    /// Advances stream time by `span` while the inputs are quiet, but not past `now`, and calls the punctuations that are
    /// due. Does nothing before the first record, when there is no stream time yet.
    ///
    /// # Errors
    /// [`StateError`] if a store fails.
    pub fn advance_stream_time(&mut self, span: Duration, now: WallTime) -> Result<(), StateError> {
        self.scope.now = now;
        let time = self.scope.stream_time;
        let later = (time + span).min(EventTime(now.0));
        if time == EventTime::MIN || later <= time {
            return Ok(());
        }
        self.scope.stream_time = later;
        self.punctuate(PunctuationKind::StreamTime, later.0)?;
        self.is_time_pending |=
            !self.scope.stores.is_empty() && later.since(self.flushed_time) >= TIME_FLUSH_INTERVAL;
        Ok(())
    }

    /// Calls the wall-clock punctuations that are due.
    ///
    /// # Errors
    /// [`StateError`] if a store fails.
    pub fn punctuate_wall_clock(&mut self, now: WallTime) -> Result<(), StateError> {
        self.scope.now = now;
        self.punctuate(PunctuationKind::WallClock, now.0)
    }

    pub(super) fn punctuate(&mut self, kind: PunctuationKind, time: i64) -> Result<(), StateError> {
        for index in 0..self.scope.schedules.len() {
            let schedule = &mut self.scope.schedules[index];
            let interval = i64::try_from(schedule.interval.as_millis()).unwrap_or(i64::MAX);
            // More than an interval ahead: the clock was set back. The next one must not wait until it has caught up.
            let is_ahead = |next: i64| time < next && next <= time.saturating_add(interval);
            if schedule.kind != kind || schedule.next.is_some_and(is_ahead) {
                continue;
            }
            let is_first = schedule.next.replace(time.saturating_add(interval)).is_none();
            if is_first {
                continue;
            }
            let node = schedule.node;
            let punctuation = match kind {
                PunctuationKind::StreamTime => Punctuation::StreamTime(EventTime(time)),
                PunctuationKind::WallClock => Punctuation::WallClock(WallTime(time)),
            };
            let result = self.atomically(|scope| {
                scope
                    .with_node(node, |node_ref, scope| node_ref.punctuate(punctuation, scope, node))
            });
            match result {
                Ok(()) => self.failed_punctuations.remove(&node).map_or((), drop),
                Err(ProcessError::State(error)) => return Err(error),
                Err(error @ (ProcessError::Reject { .. } | ProcessError::Retry(_))) => {
                    // Its writes are rolled back, so the next punctuation finds the same entries in the stores.
                    self.metrics.punctuation_failed();
                    let error = error.to_string();
                    let logged = self.failed_punctuations.insert(node, error.clone());
                    if logged.as_ref() != Some(&error) {
                        tracing::warn!(task = %self.scope.partition, error, "a punctuation failed: it is tried again when it is next due");
                    }
                }
            }
            self.write_dead_letters();
        }
        Ok(())
    }

    /// Counts a record with an implausible event time: too far ahead of the clock, or before the year 2000.
    pub(super) fn count_implausible_time(
        &mut self,
        source: usize,
        record: &InputRecord,
        time: EventTime,
    ) {
        let source = &self.topology.sources[source];
        if time > self.scope.latest() {
            let counter = self.metrics.records_ahead(source.topic.as_str());
            self.scope.counts.push((counter, 1));
        }
        // `MIN` is no time: such a record does not advance stream time.
        if time < EventTime::YEAR_2000 && time != EventTime::MIN {
            let counter = self.metrics.records_before_2000(source.topic.as_str());
            self.scope.counts.push((counter, 1));
            source.warn_of_old_event_time(record, time, self.scope.now);
        }
    }

    /// Schedules the stream-time punctuations from the restored stream time on, so that the first record after a restore
    /// can make them due. Another record may be a long time coming.
    pub(super) fn resume_stream_time(&mut self) {
        let time = self.scope.stream_time;
        if time == EventTime::MIN {
            return;
        }
        for schedule in &mut self.scope.schedules {
            if schedule.kind == PunctuationKind::StreamTime {
                schedule.next = Some((time + schedule.interval).0);
            }
        }
    }

    /// A changelog record whose timestamp carries stream time, for a task whose stores have not changed for a while. It is
    /// a tombstone of a key that does not exist, so that compaction removes it.
    pub(super) fn time_record(&self) -> Option<OutputRecordRef<'_>> {
        Some(OutputRecordRef {
            topic: &self.topology.stores.first()?.changelog,
            partition: Some(self.scope.partition),
            timestamp: self.scope.changed_at(),
            key: Some(TIME_KEY),
            value: None,
            headers: &[],
        })
    }

    /// Saves stream time and the next punctuations, which an abort restores.
    pub(super) fn save_committed_times(&mut self) {
        let next = self.scope.schedules.iter().map(|schedule| schedule.next);
        self.committed_times = (self.scope.stream_time, next.collect());
    }
}
