//! The way of dead letters back to their topics.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::processors::dead_letters::{
    DeadLetters, DeadLettersError, Wanted,
    letter::{Entry, Letter, LetterId, Unreplayable, mark},
};
use foretell_streams::{
    record::{OutputRecord, Topic},
    runtime::broker::{BrokerError, Member, Membership, ProcessingGuarantee, ReadFrom},
    time::EventTime,
};

/// What a replay did, or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Letters that returned to their topics, by topic.
    pub replayed: BTreeMap<String, u64>,
    /// Letters that were replayed before.
    pub before: u64,
    /// Letters that cannot be replayed, by the reason.
    pub kept: BTreeMap<&'static str, u64>,
    /// Ids that were named and are those of no letter.
    pub missing: Vec<LetterId>,
    /// Whether this says what a replay would do.
    pub dry_run: bool,
    /// Whether more letters are wanted than one replay takes: run it again.
    pub more: bool,
}

/// Maximum number of letters of one replay, whose places are in memory (16 bytes each).
pub const REPLAYED_AT_ONCE_MAX: usize = 1_000_000;
/// Letters of one transaction, and the bytes after which one ends.
const BATCH_LETTERS: usize = 500;
const BATCH_BYTES: usize = 8 << 20;
/// Further attempts of a call, or of a transaction that the broker aborts, for example because its coordinator moves.
const ATTEMPTS: usize = 5;

impl DeadLetters {
    /// Sends the records of the letters that are wanted to their topics, with their own keys, headers and partitions, each once:
    /// letters that were replayed before are passed over. `progress` gets the number of letters so far and of all. With
    /// `is_rehearsal`, it only says what it would do.
    ///
    /// Two replays at the same time exclude each other: the later one ends the earlier one, and goes on behind it.
    ///
    /// # Errors
    /// [`DeadLettersError`] if a class or a topic is unknown, before anything is replayed; [`BrokerError::Fenced`] in it if a
    /// later replay has taken over; others if the broker fails. What was replayed until
    /// then is marked, and the next replay goes on behind it.
    pub fn replay(
        &self,
        wanted: &Wanted,
        is_rehearsal: bool,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Replayed, DeadLettersError> {
        self.check_names(wanted)?;
        // First the transactions, so that every mark of an earlier replay is there when letters are looked for.
        let member = if is_rehearsal { None } else { Some(self.join()?) };
        let mut result =
            Replayed { missing: wanted.ids.clone(), dry_run: is_rehearsal, ..Replayed::default() };
        let places = self.open_letters(wanted, &mut result)?;
        let all = u64::try_from(places.len()).unwrap_or(u64::MAX);
        let mut batch =
            Batch { letters: Vec::new(), bytes: 0, member, partitions: BTreeMap::new() };
        for partition in self.partitions()? {
            let mut wanted = places.iter().filter(|id| id.partition == partition).peekable();
            let Some(first) = wanted.peek().copied() else { continue };
            let mut failure = Ok(());
            self.visit(partition, ReadFrom::Offset(first.offset), &mut |entry| {
                let Entry::Letter(letter) = entry else { return };
                if failure.is_err() || wanted.next_if_eq(&&letter.id).is_none() {
                    return;
                }
                failure = batch.add(letter, self, &mut result);
                progress(result.handled(), all);
            })?;
            failure?;
        }
        batch.commit(self, &mut result)?;
        if let Some(member) = batch.member {
            member.leave()?;
        }
        progress(all, all);
        Ok(result)
    }

    /// The places of the letters that are wanted and were not replayed, in order.
    fn open_letters(
        &self,
        wanted: &Wanted,
        result: &mut Replayed,
    ) -> Result<BTreeSet<LetterId>, BrokerError> {
        let mut places = BTreeSet::new();
        for partition in self.partitions()? {
            self.visit(partition, ReadFrom::Beginning, &mut |entry| match entry {
                Entry::Letter(letter) if wanted.includes(&letter) => {
                    result.missing.retain(|id| *id != letter.id);
                    if places.len() < REPLAYED_AT_ONCE_MAX {
                        places.insert(letter.id);
                    } else {
                        result.more = true;
                    }
                }
                Entry::Mark(id) => result.before += u64::from(places.remove(&id)),
                Entry::Letter(_) | Entry::Foreign => {}
            })?;
        }
        Ok(places)
    }

    /// A producer of transactions. It reads nothing: the group is only the name of its transactions.
    fn join(&self) -> Result<Box<dyn Member>, BrokerError> {
        self.broker.join(&Membership {
            group: format!("{}-dead-letters", self.application),
            member: "replay".to_owned(),
            lead: self.topic.clone(),
            co_partitioned: Vec::new(),
            guarantee: ProcessingGuarantee::ExactlyOnce,
            commit_interval: Membership::COMMIT_INTERVAL,
        })
    }
}

/// Letters of one transaction.
struct Batch {
    letters: Vec<Letter>,
    bytes: usize,
    /// None in a rehearsal.
    member: Option<Box<dyn Member>>,
    /// The number of partitions of each topic; none if it does not exist.
    partitions: BTreeMap<String, Option<u32>>,
}

impl Batch {
    fn add(
        &mut self,
        letter: Box<Letter>,
        of: &DeadLetters,
        result: &mut Replayed,
    ) -> Result<(), BrokerError> {
        if let Some(obstacle) = letter.obstacle() {
            result.keep(obstacle);
            return Ok(());
        }
        let topic = letter.described.topic.clone();
        if !self.partitions.contains_key(&topic) {
            let found = of.broker.partitions(&Topic::new(&topic))?;
            self.partitions.insert(topic.clone(), found);
        }
        if self.partitions[&topic].is_none() {
            result.keep(Unreplayable::TopicGone);
            return Ok(());
        }
        self.bytes += letter.value.as_ref().map_or(0, Vec::len);
        self.letters.push(*letter);
        if self.letters.len() >= BATCH_LETTERS || self.bytes >= BATCH_BYTES {
            self.commit(of, result)?;
        }
        Ok(())
    }

    /// Sends the letters with their marks in one transaction.
    fn commit(&mut self, of: &DeadLetters, result: &mut Replayed) -> Result<(), BrokerError> {
        let mut letters = std::mem::take(&mut self.letters);
        self.bytes = 0;
        if let Some(member) = &mut self.member {
            let now = EventTime(of.clock.now().0);
            let mut attempts = 0;
            loop {
                match send(member.as_mut(), &letters, &self.partitions, of, now) {
                    Ok(()) => break,
                    Err(Failed::Letter(index)) => {
                        letters.remove(index);
                        result.keep(Unreplayable::Refused);
                        member.abort()?;
                    }
                    Err(Failed::Broker(BrokerError::Abort(_))) if attempts < ATTEMPTS => {
                        attempts += 1;
                        member.abort()?;
                    }
                    Err(Failed::Broker(error)) => return Err(error),
                }
            }
        }
        for letter in letters {
            *result.replayed.entry(letter.described.topic).or_default() += 1;
        }
        Ok(())
    }
}

/// Why a transaction was not committed.
enum Failed {
    /// The topic refuses the record of this letter.
    Letter(usize),
    Broker(BrokerError),
}

fn send(
    member: &mut dyn Member,
    letters: &[Letter],
    partitions: &BTreeMap<String, Option<u32>>,
    of: &DeadLetters,
    now: EventTime,
) -> Result<(), Failed> {
    if letters.is_empty() {
        return Ok(());
    }
    let mut put = |record: OutputRecord, index: usize| {
        again(|| member.send(record.as_ref())).map_err(|error| {
            let is_refused = matches!(error, BrokerError::Unsendable { .. });
            if is_refused { Failed::Letter(index) } else { Failed::Broker(error) }
        })
    };
    for (index, letter) in letters.iter().enumerate() {
        let partitions = partitions.get(&letter.described.topic).copied().flatten();
        put(letter.record(partitions.unwrap_or(0), now), index)?;
        put(mark(&of.topic, letter.id, now), index)?;
    }
    again(|| member.commit(&[])).map_err(Failed::Broker)
}

/// Makes a call again if the broker is not available; each has a time limit of its own.
fn again(mut call: impl FnMut() -> Result<(), BrokerError>) -> Result<(), BrokerError> {
    let mut attempts = 0;
    loop {
        match call() {
            Err(BrokerError::Retry(_)) if attempts < ATTEMPTS => attempts += 1,
            result => return result,
        }
    }
}

impl Replayed {
    fn keep(&mut self, why: Unreplayable) {
        *self.kept.entry(why.reason()).or_default() += 1;
    }

    fn handled(&self) -> u64 {
        self.replayed.values().sum::<u64>() + self.kept.values().sum::<u64>()
    }
}
