//! Checks that the newest records of the inputs are keyed by respondent and in the partition of their key.

use std::collections::BTreeMap;

use crate::{
    app::{check_result::CheckResult, cluster::Cluster},
    config::Config,
    processors::placement::{FIX, Misplaced},
};
use foretell_streams::{
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Isolation, ReadFrom, ReadTo},
};

/// Number of offsets at the end of each partition that are read.
const SAMPLE: i64 = 20;
/// Bound of the reads of one partition, each of [`READ_WAIT`].
const READS_MAX: u32 = 10;
const READ_WAIT: std::time::Duration = std::time::Duration::from_millis(200);

/// A sample of the records of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Number of records that could be decoded.
    pub(super) records: usize,
    /// Number of misplaced records by kind, with the position of the first one.
    pub(super) misplaced: BTreeMap<Misplaced, (usize, String)>,
}

/// Samples the events of each source, and the outcomes.
pub(super) fn sample(config: &Config, cluster: &Cluster) -> anyhow::Result<Vec<(Topic, Sample)>> {
    let codecs = cluster.codecs(config)?;
    let mut samples = Vec::new();
    for (topic, codec) in config.topics.of_events().zip(codecs.of_events()) {
        let sample =
            sample_topic(cluster, topic, |bytes| Some(codec.decode(bytes).ok()?.respondent_id))?;
        samples.push((topic.clone(), sample));
    }
    let outcomes = &config.topics.outcomes;
    let of_outcomes = sample_topic(cluster, outcomes, |bytes| {
        Some(codecs.outcome.decode(bytes).ok()?.respondent_id)
    })?;
    samples.push((outcomes.clone(), of_outcomes));
    Ok(samples)
}

fn sample_topic(
    cluster: &Cluster,
    topic: &Topic,
    respondent_of: impl Fn(&[u8]) -> Option<String>,
) -> anyhow::Result<Sample> {
    let mut sample = Sample::default();
    let partitions = cluster.broker.partitions(topic)?.unwrap_or(0);
    for number in 0..i32::try_from(partitions)? {
        let source = TopicPartition { topic: topic.clone(), partition: Partition(number) };
        for record in read_newest(cluster, &source)? {
            let respondent = record.value.as_deref().and_then(&respondent_of);
            let Some(respondent) = respondent else { continue };
            sample.records += 1;
            let key = record.key.as_deref();
            let misplaced = Misplaced::of(&respondent, key, source.partition, partitions);
            let position = || format!("{source}@{}", record.offset);
            if let Some(misplaced) = misplaced {
                sample.misplaced.entry(misplaced).or_insert_with(|| (0, position())).0 += 1;
            }
        }
    }
    Ok(sample)
}

fn read_newest(cluster: &Cluster, source: &TopicPartition) -> anyhow::Result<Vec<InputRecord>> {
    let end = cluster.broker.end(source, Isolation::ReadCommitted)?;
    let mut records = Vec::new();
    if end == Offset(0) {
        return Ok(records);
    }
    let from = ReadFrom::Offset(Offset((end.0 - SAMPLE).max(0)));
    let Ok(mut reader) = cluster.broker.read(source, from) else {
        // Retention deleted the record meanwhile.
        return Ok(records);
    };
    for _ in 0..READS_MAX {
        if reader.read(READ_WAIT, &mut records)? == ReadTo::End {
            break;
        }
    }
    Ok(records)
}

/// One result for each topic that was sampled.
pub(super) fn placement(samples: &anyhow::Result<Vec<(Topic, Sample)>>) -> Vec<CheckResult> {
    match samples {
        Ok(samples) => samples.iter().map(|(topic, sample)| of_topic(topic, sample)).collect(),
        Err(error) => {
            let detail = format!("not checked: {error:#}");
            vec![CheckResult::warning("records", detail, "fix that first")]
        }
    }
}

fn of_topic(topic: &Topic, sample: &Sample) -> CheckResult {
    let name = format!("records of {topic}");
    if sample.misplaced.is_empty() {
        let detail = match sample.records {
            0 => "none yet".to_owned(),
            count => {
                format!("the newest {count} are keyed by respondent and in the right partition")
            }
        };
        return CheckResult::ok(name, detail);
    }
    let misplaced = sample.misplaced.iter();
    let misplaced: Vec<String> =
        misplaced.map(|(kind, (count, first))| format!("{count} ({first}: {kind})")).collect();
    let detail = format!(
        "of the newest {}, these are not where their respondent belongs: {}",
        sample.records,
        misplaced.join(", ")
    );
    CheckResult::warning(name, detail, FIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status;

    fn check(records: usize, misplaced: &[(Misplaced, usize)], status: Status, words: &str) {
        let misplaced = misplaced.iter().map(|(kind, count)| (*kind, (*count, "t/0@7".to_owned())));
        let sample = Sample { records, misplaced: misplaced.collect() };
        let results = placement(&Ok(vec![(Topic::new("t"), sample)]));
        assert_eq!((results.len(), results[0].status), (1, status));
        assert!(results[0].to_string().contains(words), "{}", results[0]);
    }

    #[test]
    fn misplaced_records_are_warned_about() {
        check(0, &[], Status::Ok, "none yet");
        check(80, &[], Status::Ok, "newest 80");
        let elsewhere = Misplaced::OtherPartition { is_in: Partition(0), belongs_in: Partition(3) };
        let some = [(Misplaced::NoKey, 20), (elsewhere, 9)];
        check(80, &some, Status::Warning, "20 (t/0@7: it has no key), 9 (t/0@7: it is in");
        check(80, &some, Status::Warning, "murmur2_random");
        let results = placement(&Err(anyhow::anyhow!("no broker")));
        assert!(results[0].to_string().contains("no broker"), "{}", results[0]);
    }
}
