//! The dead letters of an application, read when they are asked for, and their way back.
//!
//! ```text
//!   dead-letters ─▶ letters and marks ─┬─▶ list, find
//!                                      └─▶ those that are wanted and not marked ─▶ their topics, and a mark behind each,
//!                                                                                 in one transaction
//! ```
//! A letter stays in the topic. The mark says that it was replayed, so it is replayed once, also if several clients ask or one
//! fails.

mod letter;
mod replay;
mod shown;
mod unknown;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

pub use letter::{KEY_CHARS_MAX, Letter, LetterId, LetterSummary, NotAnId, REPLAYED, Unreplayable};
pub use replay::{REPLAYED_AT_ONCE_MAX, Replayed};
use serde::Serialize;
use serde_json::Value as Json;
pub use unknown::{DELIVERY_CLASSES, DeadLettersError};

use crate::processors::dead_letters::{letter::Entry, shown::shown};
use foretell_streams::{
    record::{Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Broker, BrokerError, Isolation, ReadFrom, ReadTo},
    time::{Clock, EventTime},
};

/// The topic `dead-letters` of an application.
#[derive(Clone)]
pub struct DeadLetters {
    /// The cluster.
    pub broker: Arc<dyn Broker>,
    /// The name of the topic.
    pub topic: Topic,
    /// The application: the transactions of a replay have its name.
    pub application: String,
    /// The clock of the records that are written.
    pub clock: Arc<dyn Clock>,
    /// Decodes a value for people.
    pub decode: Arc<Decode>,
}

/// Decodes a value by its own schema; the error says why it cannot be.
pub type Decode = dyn Fn(&[u8]) -> Result<Json, String> + Send + Sync;

/// Which letters are wanted. Each list that is not empty narrows them down.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// These letters.
    pub ids: Vec<LetterId>,
    /// Those of these classes.
    pub classes: Vec<String>,
    /// Those whose record was in one of these topics.
    pub topics: Vec<String>,
    /// Those that were written at this time or later.
    pub since: Option<EventTime>,
}

/// The newest letters that are wanted.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Listing {
    /// Newest first.
    pub letters: Vec<LetterSummary>,
    /// The number of all that are wanted, by class.
    pub classes: BTreeMap<String, Count>,
}

/// Numbers of letters of a class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// All of them.
    pub letters: u64,
    /// Those that were replayed.
    pub replayed: u64,
}

/// Maximum number of letters in a list: some hundred bytes each, without the values.
pub const LISTED_MAX: usize = 1_000;
/// Offsets that are read first for each of the newest letters.
const OFFSETS_OF_A_LETTER: i64 = 3;
/// Maximum number of classes in a list. Foretell has some thirty; other clients may write more.
const CLASSES_MAX: usize = 100;
/// The time that one read waits for records.
const WAIT: Duration = Duration::from_millis(200);

impl Wanted {
    /// Whether every letter is wanted.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let Self { ids, classes, topics, since } = self;
        ids.is_empty() && classes.is_empty() && topics.is_empty() && since.is_none()
    }

    fn includes(&self, letter: &Letter) -> bool {
        let among = |list: &[String], one: &String| list.is_empty() || list.contains(one);
        (self.ids.is_empty() || self.ids.contains(&letter.id))
            && among(&self.classes, &letter.described.class)
            && among(&self.topics, &letter.described.topic)
            && self.since.is_none_or(|since| letter.written_at >= since)
    }
}

impl DeadLetters {
    /// The newest `limit` of the letters that are wanted, and the numbers of all of them.
    ///
    /// # Errors
    /// [`DeadLettersError`] if a class or a topic is unknown, or the topic cannot be read.
    pub fn list(&self, wanted: &Wanted, limit: usize) -> Result<Listing, DeadLettersError> {
        self.check_names(wanted)?;
        let limit = limit.min(LISTED_MAX);
        let mut found = Found { limit, ..Found::default() };
        for partition in self.partitions()? {
            // A mark comes after its letter, in the same partition.
            found.classes_of.clear();
            self.visit(partition, ReadFrom::Beginning, &mut |entry| match entry {
                Entry::Letter(letter) if wanted.includes(&letter) => found.add(&letter),
                Entry::Mark(id) => found.mark(id),
                Entry::Letter(_) | Entry::Foreign => {}
            })?;
        }
        let letters = found.newest.into_values().rev().collect();
        Ok(Listing { letters, classes: found.classes })
    }

    /// The newest `limit` letters, without their numbers by class: it reads only the ends of the partitions.
    ///
    /// # Errors
    /// [`BrokerError`] if the topic cannot be read.
    pub fn newest(&self, limit: usize) -> Result<Vec<LetterSummary>, BrokerError> {
        let limit = limit.min(LISTED_MAX);
        let mut newest = BTreeMap::new();
        for partition in self.partitions()? {
            let source = TopicPartition { topic: self.topic.clone(), partition };
            let end = self.broker.end(&source, Isolation::ReadCommitted)?;
            newest.extend(self.newest_of(partition, end, limit)?);
            while newest.len() > limit {
                newest.pop_first();
            }
        }
        Ok(newest.into_values().rev().collect())
    }

    /// The newest letters of a partition. Marks and the markers of transactions have offsets too, after a replay one for each
    /// letter or more, so it reads from farther back until it has enough.
    fn newest_of(
        &self,
        partition: Partition,
        end: Offset,
        limit: usize,
    ) -> Result<BTreeMap<(EventTime, LetterId), LetterSummary>, BrokerError> {
        let mut back = i64::try_from(limit).unwrap_or(i64::MAX).saturating_mul(OFFSETS_OF_A_LETTER);
        loop {
            let mut found = Found { limit, ..Found::default() };
            let from = Offset(end.0.saturating_sub(back).max(0));
            if end.0 > 0 {
                self.visit(partition, ReadFrom::Offset(from), &mut |entry| match entry {
                    Entry::Letter(letter) => found.add(&letter),
                    Entry::Mark(id) => found.mark(id),
                    Entry::Foreign => {}
                })?;
            }
            if from.0 == 0 || found.newest.len() >= limit {
                return Ok(found.newest);
            }
            back = back.saturating_mul(8);
        }
    }

    /// The letter at `id` as JSON, its value decoded if that is possible; `None` if there is no letter.
    ///
    /// # Errors
    /// [`BrokerError`] if the topic cannot be read.
    pub fn show(&self, id: LetterId) -> Result<Option<Json>, BrokerError> {
        let found = self.find(id)?;
        Ok(found.map(|(letter, is_replayed)| shown(&letter, is_replayed, &*self.decode)))
    }

    /// The letter at `id`, and whether it was replayed; `None` if there is no letter.
    ///
    /// # Errors
    /// [`BrokerError`] if the topic cannot be read.
    pub fn find(&self, id: LetterId) -> Result<Option<(Letter, bool)>, BrokerError> {
        if !self.partitions()?.any(|partition| partition == id.partition) {
            return Ok(None);
        }
        let (mut found, mut is_replayed) = (None, false);
        let read =
            self.visit(id.partition, ReadFrom::Offset(id.offset), &mut |entry| match entry {
                Entry::Letter(letter) if letter.id == id => found = Some(*letter),
                Entry::Mark(mark) => is_replayed |= mark == id,
                Entry::Letter(_) | Entry::Foreign => {}
            });
        match read {
            // The place is beyond the end, or retention has deleted it.
            Err(BrokerError::OutOfRange(_)) => return Ok(None),
            read => read?,
        }
        Ok(found.map(|letter| (letter, is_replayed)))
    }

    fn partitions(&self) -> Result<impl Iterator<Item = Partition> + use<>, BrokerError> {
        let number = self.broker.partitions(&self.topic)?;
        let number = number.ok_or_else(|| BrokerError::Gone(self.topic.clone()))?;
        let number = i32::try_from(number).expect("a broker numbers partitions with 31 bits");
        Ok((0..number).map(Partition))
    }

    /// Passes the records of a partition to `visit`, up to the end that it has now.
    fn visit(
        &self,
        partition: Partition,
        from: ReadFrom,
        visit: &mut dyn FnMut(Entry),
    ) -> Result<(), BrokerError> {
        let source = TopicPartition { topic: self.topic.clone(), partition };
        let mut reader = self.broker.read(&source, from)?;
        let mut records = Vec::new();
        loop {
            let read = reader.read(WAIT, &mut records)?;
            records.drain(..).map(Entry::of).for_each(&mut *visit);
            if read == ReadTo::End {
                return Ok(());
            }
        }
    }
}

/// A list that is being made.
#[derive(Default)]
struct Found {
    limit: usize,
    newest: BTreeMap<(EventTime, LetterId), LetterSummary>,
    classes: BTreeMap<String, Count>,
    /// The time and the class of each letter of the partition that no mark was read for: some 50 bytes a letter.
    classes_of: HashMap<LetterId, (EventTime, Arc<str>)>,
    names: BTreeSet<Arc<str>>,
}

impl Found {
    fn add(&mut self, letter: &Letter) {
        let class = letter.described.class.as_str();
        let is_known = self.classes.contains_key(class) || self.classes.len() < CLASSES_MAX;
        let class = if is_known { class } else { "other" };
        self.classes.entry(class.to_owned()).or_default().letters += 1;
        let name = self.names.get(class).cloned().unwrap_or_else(|| Arc::from(class));
        self.names.insert(Arc::clone(&name));
        self.classes_of.insert(letter.id, (letter.written_at, name));
        self.newest.insert((letter.written_at, letter.id), letter.summary());
        if self.newest.len() > self.limit {
            self.newest.pop_first();
        }
    }

    fn mark(&mut self, id: LetterId) {
        let Some((written_at, class)) = self.classes_of.remove(&id) else { return };
        if let Some(count) = self.classes.get_mut(&*class) {
            count.replayed += 1;
        }
        if let Some(letter) = self.newest.get_mut(&(written_at, id)) {
            letter.replayed = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use foretell_streams::{
        local::LocalBroker,
        record::{Header, InputRecord, OutputRecord},
        runtime::broker::{Cleanup, Publisher, TopicSpec},
        task::dead_letter,
        time::ManualClock,
    };

    use super::*;

    const EVENTS: &str = "events";

    struct Fixture {
        letters: DeadLetters,
        clock: Arc<ManualClock>,
        publisher: Box<dyn Publisher>,
    }

    fn fixture() -> Fixture {
        let clock = Arc::new(ManualClock::at(foretell_streams::time::WallTime(1_000)));
        let broker = LocalBroker::new(Arc::clone(&clock) as Arc<dyn Clock>);
        let topic = Topic::new("dead-letters");
        let cleanup = Cleanup::Delete { retention: None };
        let spec = |name: &Topic| TopicSpec {
            name: name.clone(),
            partitions: 2,
            cleanup,
            message_bytes_max: None,
        };
        broker.create_topics(&[spec(&topic), spec(&Topic::new(EVENTS))]).unwrap();
        let publisher = broker.publish().unwrap();
        let application = "app".to_owned();
        let letters = DeadLetters {
            broker: Arc::new(broker),
            topic,
            application,
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            decode: Arc::new(|value| Ok(Json::from(value.len()))),
        };
        Fixture { letters, clock, publisher }
    }

    impl Fixture {
        /// Dead-letters a record of the events, and returns it.
        fn fail(&mut self, number: u8, class: &'static str) -> InputRecord {
            let record = InputRecord {
                source: TopicPartition {
                    topic: Topic::new(EVENTS),
                    partition: Partition(i32::from(number % 2)),
                },
                offset: Offset(number.into()),
                timestamp: EventTime(7),
                key: Some(vec![number]),
                value: Some(vec![0, number]),
                headers: vec![Header { name: "foretell.topic".to_owned(), value: vec![number] }],
            };
            let letter = dead_letter::of_input(
                &self.letters.topic,
                &record,
                (class, Some(3)),
                format!("reason {number}"),
                EventTime(i64::from(number)),
            );
            self.send(letter);
            record
        }

        fn send(&mut self, record: OutputRecord) {
            self.publisher.send(record).unwrap();
            self.publisher.flush().unwrap();
        }

        fn replay(&self, wanted: &Wanted) -> Replayed {
            self.letters.replay(wanted, false, &mut |_, _| {}).unwrap()
        }

        /// The records that came back, by their keys.
        fn returned(&self) -> Vec<InputRecord> {
            let mut returned = Vec::new();
            for partition in [Partition(0), Partition(1)] {
                let source = TopicPartition { topic: Topic::new(EVENTS), partition };
                let mut reader = self.letters.broker.read(&source, ReadFrom::Beginning).unwrap();
                while reader.read(WAIT, &mut returned).unwrap() == ReadTo::More {}
            }
            returned.sort_by(|a, b| a.key.cmp(&b.key));
            returned
        }
    }

    fn of_class(class: &str) -> Wanted {
        Wanted { classes: vec![class.to_owned()], ..Wanted::default() }
    }

    #[test]
    fn the_newest_are_listed_and_all_are_counted() {
        let mut fixture = fixture();
        for number in 0..30 {
            fixture.fail(number, if number < 25 { "late_outcome" } else { "malformed" });
        }
        let listing = fixture.letters.list(&Wanted::default(), 10).unwrap();
        let offsets: Vec<i64> = listing.letters.iter().map(|letter| letter.offset).collect();
        assert_eq!(offsets, (20..30).rev().collect::<Vec<_>>());
        let count = |letters| Count { letters, replayed: 0 };
        let newest = fixture.letters.newest(5).unwrap();
        assert_eq!(newest, listing.letters[..5]);
        let expected = [("late_outcome", count(25)), ("malformed", count(5))];
        assert_eq!(
            listing.classes,
            expected.map(|(class, count)| (class.to_owned(), count)).into()
        );
        let since = Wanted { since: Some(EventTime(28)), ..Wanted::default() };
        assert_eq!(fixture.letters.list(&since, 10).unwrap().letters.len(), 2);
        let one = Wanted { ids: vec![listing.letters[3].id], ..Wanted::default() };
        assert_eq!(fixture.letters.list(&one, 10).unwrap().letters, listing.letters[3..4]);
    }

    #[test]
    fn a_letter_returns_as_it_was_and_once() {
        let mut fixture = fixture();
        let records: Vec<InputRecord> =
            (0..4).map(|number| fixture.fail(number, "unknown_schema")).collect();
        fixture.fail(4, "malformed");
        let rehearsed =
            fixture.letters.replay(&of_class("unknown_schema"), true, &mut |_, _| {}).unwrap();
        assert_eq!(fixture.returned(), []);
        let replayed = fixture.replay(&of_class("unknown_schema"));
        assert_eq!(replayed.replayed, [(EVENTS.to_owned(), 4)].into());
        assert!(rehearsed.dry_run);
        assert_eq!(Replayed { dry_run: false, ..rehearsed }, replayed);
        let returned = fixture.returned();
        assert_eq!(returned.len(), 4);
        for (returned, record) in returned.iter().zip(&records) {
            assert_eq!(returned.source, record.source);
            assert_eq!((&returned.key, &returned.value), (&record.key, &record.value));
            assert_eq!(returned.headers, record.headers);
        }
        let again = fixture.replay(&Wanted::default());
        assert_eq!((again.before, again.replayed), (4, [(EVENTS.to_owned(), 1)].into()));
        assert_eq!(fixture.replay(&Wanted::default()).before, 5);
        assert_eq!(fixture.returned().len(), 5);
        let newest = fixture.letters.newest(1).unwrap();
        assert_eq!((newest.len(), newest[0].replayed), (1, true), "behind the marks");
        let listing = fixture.letters.list(&Wanted::default(), 10).unwrap();
        assert!(listing.letters.iter().all(|letter| letter.replayed));
        assert_eq!(listing.classes["unknown_schema"], Count { letters: 4, replayed: 4 });
        let (letter, is_replayed) = fixture.letters.find(listing.letters[0].id).unwrap().unwrap();
        assert!(is_replayed);
        assert_eq!(letter.described.message, "reason 4");
        assert_eq!(letter.described.schema_id, Some(3));
        let nowhere = LetterId { offset: Offset(99_999), ..letter.id };
        assert_eq!(fixture.letters.show(nowhere).unwrap(), None);
        let replayed = fixture.replay(&Wanted { ids: vec![nowhere], ..Wanted::default() });
        assert_eq!(replayed.missing, [nowhere]);
        let shown = fixture.letters.show(letter.id).unwrap().unwrap();
        assert_eq!((&shown["value"], &shown["replayed"]), (&Json::from(2), &Json::from(true)));
    }

    #[test]
    fn misspelt_names_are_refused_with_the_known_ones_and_those_of_letters_are_known() {
        let mut fixture = fixture();
        fixture.fail(0, "malformed");
        fixture.fail(1, "of_another_release");
        let of = |classes: &[&str], topics: &[&str]| Wanted {
            classes: classes.iter().map(ToString::to_string).collect(),
            topics: topics.iter().map(ToString::to_string).collect(),
            ..Wanted::default()
        };
        let check = |wanted: &Wanted, expected: Result<usize, &str>| {
            let listed = fixture.letters.list(wanted, 10).map(|listing| listing.letters.len());
            let replayed = fixture.letters.replay(wanted, true, &mut |_, _| {});
            let replayed = replayed.map(|replayed| replayed.replayed.values().sum::<u64>());
            match expected {
                Ok(number) => {
                    assert_eq!((listed.unwrap(), replayed.unwrap()), (number, number as u64));
                }
                Err(words) => {
                    for error in [listed.unwrap_err(), replayed.unwrap_err()] {
                        assert!(error.to_string().contains(words), "{words:?} in {error}");
                    }
                }
            }
        };
        check(&of(&["malformed"], &[]), Ok(1));
        check(&of(&["late_outcome"], &[]), Ok(0));
        check(&of(&["failed_delivery"], &[]), Ok(0));
        check(&of(&["of_another_release"], &[EVENTS]), Ok(1));
        check(&of(&["malform"], &[]), Err("there is no class \"malform\""));
        check(&of(&["malform"], &[]), Err(", malformed, "));
        check(&of(&["of_another_release", "new"], &[]), Err("no class \"new\""));
        check(&of(&["malform"], &[]), Err(", of_another_release, "));
        check(&of(&[], &["event"]), Err("topic \"event\" does not exist"));
        check(&of(&[], &["event"]), Err("there are dead letters of events"));
        check(&of(&[], &["dead-letters"]), Ok(0));
    }

    #[test]
    fn the_schema_id_is_that_of_the_value_if_the_headers_have_none() {
        let mut fixture = fixture();
        let record = fixture.fail(0, "late_outcome");
        let check = |value: &[u8], header: Option<u32>, expected: Option<u32>| {
            let record = InputRecord { value: Some(value.to_vec()), ..record.clone() };
            let topic = &fixture.letters.topic;
            let class = ("late_outcome", header);
            let letter = dead_letter::of_input(topic, &record, class, String::new(), EventTime(1));
            let read = InputRecord {
                source: TopicPartition { topic: topic.clone(), partition: Partition(0) },
                offset: Offset(0),
                timestamp: EventTime(1),
                key: letter.key,
                value: letter.value,
                headers: letter.headers,
            };
            let Entry::Letter(letter) = Entry::of(read) else { panic!("it is a letter") };
            assert_eq!(letter.summary().schema_id, expected);
            assert_eq!(
                shown(&letter, false, &*fixture.letters.decode)["schema_id"],
                Json::from(expected)
            );
        };
        check(&[0, 0, 0, 1, 2, 9], None, Some(258));
        check(&[0, 0, 0, 1, 2, 9], Some(7), Some(7));
        check(&[1, 0, 0, 1, 2, 9], None, None);
        check(b"{}", None, None);
    }

    #[test]
    fn a_letter_that_fails_again_can_be_replayed_again() {
        let mut fixture = fixture();
        fixture.fail(1, "malformed");
        fixture.replay(&Wanted::default());
        let mut again = fixture.returned().remove(0);
        again.offset = Offset(9);
        let now = EventTime(fixture.clock.now().0);
        let class = ("malformed", None);
        let letter =
            dead_letter::of_input(&fixture.letters.topic, &again, class, String::new(), now);
        fixture.send(letter);
        let replayed = fixture.replay(&Wanted::default());
        assert_eq!((replayed.before, replayed.replayed[EVENTS]), (1, 1));
        assert_eq!(fixture.returned()[1].headers, again.headers);
    }

    #[test]
    fn what_cannot_return_is_counted_and_stays() {
        let mut fixture = fixture();
        let record = fixture.fail(0, "malformed");
        let letter = |topic: &str, offset: i64, record: &InputRecord| {
            let source = TopicPartition { topic: Topic::new(topic), ..record.source.clone() };
            let record = InputRecord { source, offset: Offset(offset), ..record.clone() };
            let to = Topic::new("dead-letters");
            dead_letter::of_input(&to, &record, ("malformed", None), String::new(), EventTime(1))
        };
        fixture.send(letter("gone", 3, &record));
        fixture.send(letter(EVENTS, -1, &record));
        fixture.send(dead_letter::without_value(letter(EVENTS, 4, &record)));
        fixture.send(OutputRecord::new(
            &Topic::new("dead-letters"),
            None,
            Some(b"?"),
            EventTime(1),
        ));
        let replayed = fixture.replay(&Wanted::default());
        assert_eq!(replayed.replayed[EVENTS], 1);
        let reasons = [Unreplayable::WithoutValue, Unreplayable::Output, Unreplayable::TopicGone];
        assert_eq!(replayed.kept, reasons.map(|reason| (reason.reason(), 1)).into());
        let listing = fixture.letters.list(&Wanted::default(), 10).unwrap();
        assert_eq!(listing.classes["malformed"], Count { letters: 4, replayed: 1 });
        let left_out = listing.letters.iter().filter(|letter| letter.offset == 4);
        assert_eq!(left_out.map(|letter| letter.value_bytes).collect::<Vec<_>>(), [Some(2)]);
    }

    #[test]
    fn a_partition_that_is_gone_is_chosen_by_the_key() {
        let mut fixture = fixture();
        let mut record = fixture.fail(0, "malformed");
        record.source.partition = Partition(7);
        let now = EventTime(1);
        let class = ("malformed", None);
        let letter =
            dead_letter::of_input(&fixture.letters.topic, &record, class, String::new(), now);
        fixture.send(letter);
        fixture.replay(&Wanted::default());
        assert_eq!(fixture.returned().len(), 2);
    }

    #[test]
    fn ids_are_parsed() {
        let check = |text: &str, expected: Option<(i32, i64)>| {
            let id = text.parse::<LetterId>().ok();
            assert_eq!(id.map(|id| (id.partition.0, id.offset.0)), expected, "{text}");
        };
        check("3:1042", Some((3, 1042)));
        check("0:0", Some((0, 0)));
        check("-1:0", None);
        check("1:-1", None);
        check("7", None);
        check("a:b", None);
    }
}
