//! Merges the partitions of the events and of the outcomes by event time, as a task does. A batch of each is in memory.

use std::{collections::VecDeque, time::Duration};

use anyhow::Context;

use crate::app::replay::feed::{Feed, FeedPosition};
use foretell_streams::{
    codec::CodecError,
    record::{InputRecord, Offset, OutputRecord, TopicPartition},
    runtime::broker::{BrokerError, ReadTo, Reader},
    time::EventTime,
};

/// The time that one read waits for records.
const READ_WAIT: Duration = Duration::from_millis(500);
/// Reads of a broker that is not available until the replay fails: half a minute.
const RETRIES_MAX: u32 = 60;

/// Extracts the event time of a value.
type EventTimeOf = Box<dyn Fn(&[u8]) -> Result<EventTime, CodecError>>;

/// The records of all partitions.
pub(super) struct MergedFeed {
    partitions: Vec<PartitionFeed>,
    range: (Option<EventTime>, Option<EventTime>),
    ahead_max: Duration,
}

/// The records of one partition.
struct PartitionFeed {
    source: TopicPartition,
    reader: Box<dyn Reader>,
    event_time_of: EventTimeOf,
    /// The offset after the last record that is replayed.
    end: Offset,
    position: Offset,
    is_read: bool,
    /// Records that were read, each with the time by which it is merged.
    records: VecDeque<(EventTime, InputRecord)>,
}

impl MergedFeed {
    /// Without partitions. Records with an event time outside the range are left out. An event time more than `ahead_max` after
    /// the time of writing counts as that.
    pub(super) fn new(range: (Option<EventTime>, Option<EventTime>), ahead_max: Duration) -> Self {
        Self { partitions: Vec::new(), range, ahead_max }
    }

    /// Adds a partition up to an offset. At equal event times, one that was added earlier comes first.
    pub(super) fn add(
        &mut self,
        source: &TopicPartition,
        reader: Box<dyn Reader>,
        end: Offset,
        event_time_of: impl Fn(&[u8]) -> Result<EventTime, CodecError> + 'static,
    ) {
        self.partitions.push(PartitionFeed {
            source: source.clone(),
            reader,
            event_time_of: Box::new(event_time_of),
            end,
            position: Offset(0),
            is_read: end.0 == 0,
            records: VecDeque::new(),
        });
    }
}

impl Feed for MergedFeed {
    fn next(&mut self) -> anyhow::Result<Option<OutputRecord>> {
        let mut earliest: Option<(EventTime, usize)> = None;
        for (index, partition) in self.partitions.iter_mut().enumerate() {
            let Some(time) = partition.head(self.range, self.ahead_max)? else { continue };
            if earliest.is_none_or(|(least, _)| time < least) {
                earliest = Some((time, index));
            }
        }
        let Some((_, index)) = earliest else { return Ok(None) };
        let Some((_, record)) = self.partitions[index].records.pop_front() else { return Ok(None) };
        let InputRecord { source, timestamp, key, value, headers, .. } = record;
        let (topic, partition) = (source.topic, None);
        Ok(Some(OutputRecord { topic, partition, timestamp, key, value, headers }))
    }

    fn position(&self) -> FeedPosition {
        let sum = |of: fn(&PartitionFeed) -> i64| self.partitions.iter().map(of).sum::<i64>();
        let waiting =
            |partition: &PartitionFeed| i64::try_from(partition.records.len()).unwrap_or(i64::MAX);
        let done = sum(|partition| partition.position.0)
            - self.partitions.iter().map(waiting).sum::<i64>();
        let number = |number: i64| u64::try_from(number).unwrap_or(0);
        FeedPosition { done: number(done), of: number(sum(|partition| partition.end.0)) }
    }
}

impl PartitionFeed {
    /// The time of the next record; none at the end.
    fn head(
        &mut self,
        range: (Option<EventTime>, Option<EventTime>),
        ahead_max: Duration,
    ) -> anyhow::Result<Option<EventTime>> {
        while self.records.is_empty() && !self.is_read {
            for record in self.read()? {
                if let Some(time) = self.time_of(&record, range, ahead_max)? {
                    self.records.push_back((time, record));
                }
            }
        }
        Ok(self.records.front().map(|(time, _)| *time))
    }

    /// The time by which a record is merged; none if it is outside the range. A record that cannot be decoded comes at once, as
    /// in a task, and is in the range if it was written in it.
    fn time_of(
        &self,
        record: &InputRecord,
        (from, until): (Option<EventTime>, Option<EventTime>),
        ahead_max: Duration,
    ) -> anyhow::Result<Option<EventTime>> {
        let decoded = (self.event_time_of)(record.value.as_deref().unwrap_or_default());
        let (place, time) = match decoded {
            Ok(time) => (time.min(record.timestamp + ahead_max), time),
            Err(CodecError::Unreadable { .. }) => (EventTime::MIN, record.timestamp),
            Err(error @ (CodecError::Unavailable { .. } | CodecError::OtherFormat { .. })) => {
                return Err(error).with_context(|| format!("{}@{}", self.source, record.offset));
            }
        };
        let is_outside =
            from.is_some_and(|from| time < from) || until.is_some_and(|until| time >= until);
        Ok((!is_outside).then_some(place))
    }

    /// The next batch of records before the end.
    fn read(&mut self) -> anyhow::Result<Vec<InputRecord>> {
        let mut records = Vec::new();
        let mut retries = 0;
        while records.is_empty() && !self.is_read {
            match self.reader.read(READ_WAIT, &mut records) {
                Ok(read_to) => self.is_read = read_to == ReadTo::End,
                Err(BrokerError::Retry(reason)) if retries < RETRIES_MAX => {
                    retries += 1;
                    tracing::warn!(source = %self.source, reason, "cannot read the history now");
                }
                Err(BrokerError::OutOfRange(_)) => anyhow::bail!(
                    "records of {} were deleted by its retention while they were read: choose a later --from",
                    self.source
                ),
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot read {}", self.source));
                }
            }
        }
        let end = self.end;
        self.is_read |= records.iter().any(|record| record.offset.next() >= end);
        records.retain(|record| record.offset < end);
        if let Some(last) = records.last() {
            self.position = last.offset.next();
        }
        if self.is_read {
            self.position = end;
        }
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use foretell_streams::record::{Partition, Topic};

    /// A reader of batches; the times are the values as text, and the offsets ascend.
    struct Batches(VecDeque<Result<Vec<(i64, &'static str)>, BrokerError>>, TopicPartition);

    impl Reader for Batches {
        fn read(
            &mut self,
            _wait: Duration,
            records: &mut Vec<InputRecord>,
        ) -> Result<ReadTo, BrokerError> {
            let Some(batch) = self.0.pop_front() else { return Ok(ReadTo::End) };
            records.extend(batch?.into_iter().map(|(offset, value)| InputRecord {
                source: self.1.clone(),
                offset: Offset(offset),
                timestamp: EventTime(50),
                key: None,
                value: Some(value.as_bytes().to_vec()),
                headers: Vec::new(),
            }));
            Ok(ReadTo::More)
        }
    }

    type Batch = Result<Vec<(i64, &'static str)>, BrokerError>;

    fn merged(
        range: (Option<i64>, Option<i64>),
        partitions: Vec<(i64, Vec<Batch>)>,
    ) -> anyhow::Result<Vec<String>> {
        let range = (range.0.map(EventTime), range.1.map(EventTime));
        let mut feed = MergedFeed::new(range, Duration::from_millis(10));
        for (number, (end, batches)) in (0..).zip(partitions) {
            let source =
                TopicPartition { topic: Topic::new("events"), partition: Partition(number) };
            let reader = Box::new(Batches(batches.into(), source.clone()));
            feed.add(&source, reader, Offset(end), |bytes| {
                let text = String::from_utf8_lossy(bytes);
                let text = text.trim_end_matches(char::is_alphabetic);
                text.parse().map(EventTime).map_err(|_| CodecError::Unreadable {
                    class: "malformed",
                    schema_id: None,
                    message: String::new(),
                })
            });
        }
        let mut values = Vec::new();
        while let Some(record) = feed.next()? {
            values.push(String::from_utf8(record.value.unwrap_or_default())?);
        }
        let FeedPosition { done, of } = feed.position();
        assert_eq!(done, of);
        Ok(values)
    }

    #[test]
    fn partitions_are_merged_by_event_time_up_to_their_ends() {
        let one = vec![Ok(vec![(0, "1"), (2, "7")]), Ok(vec![]), Ok(vec![(3, "8"), (9, "9")])];
        let other = vec![Ok(vec![(0, "2"), (1, "7b"), (5, "3")])];
        let found = merged((None, None), vec![(8, one), (6, other), (0, Vec::new())]).unwrap();
        assert_eq!(found, ["1", "2", "7", "7b", "3", "8"], "an end without a record, and disorder");
    }

    #[test]
    fn a_range_is_by_event_time_and_unreadable_records_come_at_once() {
        let batch = || vec![Ok(vec![(0, "5"), (1, "bad"), (2, "20"), (3, "99"), (4, "30")])];
        let check = |range, expected: &[&str]| {
            assert_eq!(merged(range, vec![(5, batch())]).unwrap(), expected, "{range:?}");
        };
        check((None, None), &["5", "bad", "20", "99", "30"]);
        check((Some(6), Some(30)), &["20"]);
        check((Some(20), Some(60)), &["bad", "20", "30"]);
        // An event time far ahead counts as the time of writing and ten more.
        let other = vec![Ok(vec![(0, "59"), (1, "70")])];
        let found = merged((None, None), vec![(5, batch()), (2, other)]).unwrap();
        assert_eq!(found, ["5", "bad", "20", "59", "99", "30", "70"]);
    }

    #[test]
    fn errors_are_retried_or_say_what_to_do() {
        let retry = || Err(BrokerError::Retry("no leader".to_owned()));
        let found = merged((None, None), vec![(1, vec![retry(), Ok(vec![(0, "1")])])]).unwrap();
        assert_eq!(found, ["1"]);
        let source = TopicPartition { topic: Topic::new("events"), partition: Partition(0) };
        let gone = vec![Err(BrokerError::OutOfRange(source))];
        let error = merged((None, None), vec![(1, gone)]).unwrap_err().to_string();
        assert!(error.contains("choose a later --from"), "{error}");
        let never = (0..=RETRIES_MAX).map(|_| retry()).collect();
        assert!(merged((None, None), vec![(1, never)]).is_err());
    }
}
