//! What a task does by the time: punctuations, stream time that goes on without records, and how stream time is kept.

use std::time::Duration;

use crate::{
    record::{InputRecord, OutputRecordRef},
    state::StateError,
    task::Task,
    time::{EventTime, WallTime},
    topology::{ProcessError, Punctuation, PunctuationKind},
};

/// While inputs are quiet, changelogs are told stream time so often, in stream time: a restart loses no more of it.
const TIME_TOLD_EVERY: Duration = Duration::from_secs(60);

/// No store's key is like this: those of key-value stores are UTF-8, and those of window stores begin with a layout.
const TIME_KEY: &[u8] = b"\xffstream-time";

impl Task {
    /// Whether a stream-time punctuation is scheduled.
    #[must_use]
    pub fn follows_stream_time(&self) -> bool {
        let schedules = &self.scope.schedules;
        schedules.iter().any(|schedule| schedule.kind == PunctuationKind::StreamTime)
    }

    /// Advances stream time by `span` while the inputs are quiet, but not past the time of day, and calls the punctuations
    /// that are due. Before the first record there is no stream time to advance.
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
        self.owes_time |=
            !self.scope.stores.is_empty() && later.since(self.told_time) >= TIME_TOLD_EVERY;
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
            if schedule.kind != kind || schedule.next.is_some_and(|next| time < next) {
                continue;
            }
            let interval = i64::try_from(schedule.interval.as_millis()).unwrap_or(i64::MAX);
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
                    // What it was about is in its stores as before, and comes up again when it is next due.
                    self.metrics.punctuation_failed();
                    let error = error.to_string();
                    let flushed = self.failed_punctuations.insert(node, error.clone());
                    if flushed.as_ref() != Some(&error) {
                        tracing::warn!(task = %self.scope.partition, error, "a punctuation failed: it is tried again when it is next due");
                    }
                }
            }
            self.write_dead_letters();
        }
        Ok(())
    }

    /// Counts a record whose event time can hardly be right.
    pub(super) fn note_time(&mut self, source: usize, record: &InputRecord, time: EventTime) {
        let source = &self.topology.sources[source];
        if time > self.scope.latest() {
            let counter = self.metrics.records_ahead(source.topic.as_str());
            self.scope.counts.push((counter, 1));
        }
        if time < EventTime::YEAR_2000 {
            let counter = self.metrics.records_before_2000(source.topic.as_str());
            self.scope.counts.push((counter, 1));
            source.warn_of_the_past(record, time, self.scope.now);
        }
    }

    /// Stream time goes on from where the changelogs left it: the first record after a restore may be the last
    /// for a long time, and what it makes due must not wait for the one after.
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

    /// A record of which only the timestamp matters, for a changelog that nothing else was written to for long. It says
    /// that what has never been there is not there.
    pub(super) fn time_alone(&self) -> Option<OutputRecordRef<'_>> {
        Some(OutputRecordRef {
            topic: &self.topology.stores.first()?.changelog,
            partition: Some(self.scope.partition),
            timestamp: self.scope.changed_at(),
            key: Some(TIME_KEY),
            value: None,
            headers: &[],
        })
    }

    pub(super) fn keep_times(&mut self) {
        let next = self.scope.schedules.iter().map(|schedule| schedule.next);
        self.committed_times = (self.scope.stream_time, next.collect());
    }
}
