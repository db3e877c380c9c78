//! Whether the newest records of the inputs are where their respondents belong.

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

/// Of each partition, so many of its last offsets are looked at.
const SAMPLE: i64 = 20;
/// Looks at a partition, of [`READ_WAIT`] each.
const READS_MAX: u32 = 10;
const READ_WAIT: std::time::Duration = std::time::Duration::from_millis(200);

/// What was sampled of a topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sampled {
    /// Records that could be read.
    pub(super) records: usize,
    /// How many are misplaced, by how, and where the first of them is.
    pub(super) misplaced: BTreeMap<Misplaced, (usize, String)>,
}

/// Both inputs, with what was sampled of each.
pub(super) fn sample(config: &Config, cluster: &Cluster) -> anyhow::Result<Vec<(Topic, Sampled)>> {
    let codecs = cluster.codecs(config)?;
    let (events, outcomes) = (&config.topics.questionnaire_events, &config.topics.outcomes);
    let of_events = sample_of(cluster, events, |bytes| {
        Some(codecs.questionnaire.decode(bytes).ok()?.respondent_id)
    })?;
    let of_outcomes = sample_of(cluster, outcomes, |bytes| {
        Some(codecs.outcome.decode(bytes).ok()?.respondent_id)
    })?;
    Ok(vec![(events.clone(), of_events), (outcomes.clone(), of_outcomes)])
}

fn sample_of(
    cluster: &Cluster,
    topic: &Topic,
    respondent_of: impl Fn(&[u8]) -> Option<String>,
) -> anyhow::Result<Sampled> {
    let mut sampled = Sampled::default();
    let partitions = cluster.broker.partitions(topic)?.unwrap_or(0);
    for number in 0..i32::try_from(partitions)? {
        let source = TopicPartition { topic: topic.clone(), partition: Partition(number) };
        for record in newest(cluster, &source)? {
            let respondent = record.value.as_deref().and_then(&respondent_of);
            let Some(respondent) = respondent else { continue };
            sampled.records += 1;
            let key = record.key.as_deref();
            let misplaced = Misplaced::of(&respondent, key, source.partition, partitions);
            let place = || format!("{source}@{}", record.offset);
            if let Some(misplaced) = misplaced {
                sampled.misplaced.entry(misplaced).or_insert_with(|| (0, place())).0 += 1;
            }
        }
    }
    Ok(sampled)
}

fn newest(cluster: &Cluster, source: &TopicPartition) -> anyhow::Result<Vec<InputRecord>> {
    let end = cluster.broker.end(source, Isolation::ReadCommitted)?;
    let mut records = Vec::new();
    if end == Offset(0) {
        return Ok(records);
    }
    let from = ReadFrom::Offset(Offset((end.0 - SAMPLE).max(0)));
    let Ok(mut reader) = cluster.broker.read(source, from) else {
        // Retention has come between the two questions.
        return Ok(records);
    };
    for _ in 0..READS_MAX {
        if reader.read(READ_WAIT, &mut records)? == ReadTo::End {
            break;
        }
    }
    Ok(records)
}

/// What to say of it.
pub(super) fn placement(sampled: &anyhow::Result<Vec<(Topic, Sampled)>>) -> Vec<CheckResult> {
    let sampled = match sampled {
        Ok(sampled) => sampled,
        Err(error) => {
            let detail = format!("not checked: {error:#}");
            return vec![CheckResult::warning("records", detail, "mend that first")];
        }
    };
    sampled.iter().map(|(topic, sampled)| of_topic(topic, sampled)).collect()
}

fn of_topic(topic: &Topic, sampled: &Sampled) -> CheckResult {
    let name = format!("records of {topic}");
    if sampled.misplaced.is_empty() {
        let detail = match sampled.records {
            0 => "none yet".to_owned(),
            count => format!("the newest {count} are keyed by respondent, and where they belong"),
        };
        return CheckResult::ok(name, detail);
    }
    let misplaced = sampled.misplaced.iter();
    let told: Vec<String> =
        misplaced.map(|(how, (count, first))| format!("{count} ({first}: {how})")).collect();
    let detail = format!(
        "of the newest {}, these are not where their respondent belongs: {}",
        sampled.records,
        told.join(", ")
    );
    CheckResult::warning(name, detail, FIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::check_result::Status;

    fn check(records: usize, misplaced: &[(Misplaced, usize)], status: Status, words: &str) {
        let misplaced = misplaced.iter().map(|(how, count)| (*how, (*count, "t/0@7".to_owned())));
        let sampled = Sampled { records, misplaced: misplaced.collect() };
        let found = placement(&Ok(vec![(Topic::new("t"), sampled)]));
        assert_eq!((found.len(), found[0].status), (1, status));
        assert!(found[0].to_string().contains(words), "{}", found[0]);
    }

    #[test]
    fn what_is_said_of_a_sample() {
        check(0, &[], Status::Ok, "none yet");
        check(80, &[], Status::Ok, "newest 80");
        let elsewhere = Misplaced::OtherPartition { is_in: Partition(0), belongs_in: Partition(3) };
        let some = [(Misplaced::NoKey, 20), (elsewhere, 9)];
        check(80, &some, Status::Warning, "20 (t/0@7: it has no key), 9 (t/0@7: it is in");
        check(80, &some, Status::Warning, "murmur2_random");
        let found = placement(&Err(anyhow::anyhow!("no broker")));
        assert!(found[0].to_string().contains("no broker"), "{}", found[0]);
    }
}
