//! Tests of a task with a small topology: a record is processed as a whole or not at all, and processing after an abort
//! repeats exactly.

mod parts;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use crate::{
    codec::{Stored, Utf8},
    local::TopologyDriver,
    metrics::{Counter, StreamsMetrics},
    record::{Header, Offset, OutputRecord, Partition, Topic},
    state::{KeyValueHandle, MemoryStores, WindowHandle},
    task::{Progress, Task},
    time::{EventTime, WallTime},
    topology::{
        Context, Original, ProcessError, Processor, Punctuation, PunctuationKind, Record, Topology,
        TopologyBuilder,
    },
};

/// Writes to both of its stores, counts, forwards, and only then rejects bad words. Every ten milliseconds of stream time
/// it forwards the number of expired words.
struct Keep {
    last: KeyValueHandle<String>,
    all: WindowHandle<String>,
    words: Counter,
}

impl Processor for Keep {
    type In = String;
    type Out = String;

    fn start(&mut self, ctx: &mut Context<'_, String>) {
        ctx.schedule(PunctuationKind::StreamTime, Duration::from_millis(10));
        ctx.schedule(PunctuationKind::WallClock, Duration::from_secs(60));
    }

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let word = &record.value;
        let key = String::from_utf8_lossy(record.key.as_deref().unwrap_or_default()).into_owned();
        ctx.key_value(&self.last).put(&key, word)?;
        ctx.window(&self.all).add(&key, record.time, word)?;
        ctx.count(&self.words, 1);
        ctx.forward(record)?;
        let original = Original::from(ctx.input().unwrap());
        match word.as_str() {
            "bad" => {
                ctx.dead_letter(original, "kept", "rolled back with the record".to_owned());
                Err(ProcessError::reject("bad_word", "not that"))
            }
            "wait" if ctx.now() < WallTime(1_000) => {
                Err(ProcessError::Retry("too early".to_owned()))
            }
            "aside" => {
                ctx.dead_letter(original, "kept", "the record is processed as well".to_owned());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn punctuate(
        &mut self,
        punctuation: Punctuation,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let (value, time) = match punctuation {
            Punctuation::WallClock(now) => ("tick".to_owned(), EventTime(now.0)),
            Punctuation::StreamTime(now) => {
                let before = now - Duration::from_millis(10);
                let expired = ctx.window(&self.all).expire(before, 100)?;
                (format!("expired {}", expired.len()), now)
            }
        };
        ctx.forward(&Record { key: None, value, time })
    }
}

/// The last processor, which rejects one word after all processors before it have accepted it.
struct Refuse;

impl Processor for Refuse {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        ctx.forward(record)?;
        if record.value == "worse" {
            return Err(ProcessError::reject("worse_word", "not that either"));
        }
        Ok(())
    }
}

struct Fixture {
    driver: TopologyDriver,
    metrics: StreamsMetrics,
    words: Counter,
}

fn topic(name: &str) -> Topic {
    Topic::new(name)
}

fn topology(words: &Counter) -> Topology {
    let mut topology = TopologyBuilder::new("test", topic("dead"));
    let words_in = topology.source("words", topic("words"), Arc::new(Utf8));
    let more_in = topology.source("more", topic("more"), Arc::new(Utf8));
    let last = topology.key_value_store("last", Arc::new(Stored::version(1)));
    let all = topology.window_store("all", Arc::new(Stored::version(1)));
    let (words, stores) = (words.clone(), [last.id(), all.id()]);
    let kept = topology.process("keep", &[words_in, more_in], &stores, move || Keep {
        last: last.clone(),
        all: all.clone(),
        words: words.clone(),
    });
    let refused = topology.process("refuse", &[kept], &[], || Refuse);
    topology.sink("out", &[refused], topic("out"), Arc::new(Utf8));
    topology.build()
}

impl Fixture {
    fn new() -> Self {
        let words = Counter::unread();
        let metrics = StreamsMetrics::unregistered();
        let driver = TopologyDriver::new(topology(&words), WallTime(100), &metrics);
        Self { driver, metrics, words }
    }

    fn pipe(&mut self, word: &str, time: i64) -> Progress {
        let word = Some(word.as_bytes());
        self.driver.pipe(&topic("words"), Some(b"k"), word, EventTime(time)).unwrap()
    }

    /// Commits, and returns the outputs: values, or the class of a dead letter and its value.
    fn out(&mut self) -> Vec<String> {
        self.driver.commit();
        let records = self.driver.read_all();
        records.iter().map(|record| class_of(record) + &value_of(record)).collect()
    }

    fn logged(&self, store: &str) -> usize {
        self.driver.changelog(&topic(&format!("test-{store}-changelog"))).len()
    }
}

fn value_of(record: &OutputRecord) -> String {
    String::from_utf8(record.value.clone().unwrap_or_default()).unwrap()
}

fn class_of(record: &OutputRecord) -> String {
    let class = record.headers.iter().find(|header| header.name == "foretell.error.class");
    class.map_or(String::new(), |class| String::from_utf8(class.value.clone()).unwrap() + ": ")
}

/// Pipes `words` a millisecond apart, and compares the outputs, the number of counted words, and the number of stored ones.
fn check(words: &[&str], out: &[&str], counted: u64, kept: usize) {
    let mut fixture = Fixture::new();
    for (word, time) in words.iter().zip(0..) {
        assert_eq!(fixture.pipe(word, time), Progress::Idle);
    }
    assert_eq!(fixture.words.get(), 0, "metrics are published with the commit");
    assert_eq!(fixture.out(), out, "{words:?}");
    assert_eq!(fixture.words.get(), counted, "{words:?}");
    assert_eq!(fixture.logged("all"), kept, "{words:?}: one changelog record per word");
    assert_eq!(fixture.logged("last"), usize::from(kept > 0), "{words:?}: one for all words");
    let mut restored = fixture;
    restored.driver.restart();
    let entries = restored.driver.task().store_entries();
    assert_eq!(entries["all"], kept, "{words:?}");
}

#[test]
fn a_failed_record_is_rolled_back_and_dead_lettered() {
    check(&[], &[], 0, 0);
    check(&["a", "b"], &["a", "b"], 2, 2);
    check(&["a", "bad", "b"], &["a", "bad_word: bad", "b"], 2, 2);
    check(&["a", "worse", "b"], &["a", "worse_word: worse", "b"], 2, 2);
    check(&["bad", "worse"], &["bad_word: bad", "worse_word: worse"], 0, 0);
    check(&["aside", "a"], &["aside", "kept: aside", "a"], 2, 2);
}

#[test]
fn a_failed_record_does_not_move_stream_time() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 5);
    fixture.pipe("bad", 500);
    assert_eq!(fixture.driver.task().stream_time(), EventTime(5));
}

/// The clock shows 100, and stream time may be 10 s ahead of it.
#[test]
fn stream_time_does_not_follow_a_fast_clock() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 50);
    fixture.pipe("fast", 3_600_000);
    assert_eq!(fixture.driver.task().stream_time(), EventTime(10_100));
    let ahead = fixture.metrics.records_ahead("words");
    assert_eq!(ahead.get(), 0, "not committed yet");
    fixture.driver.commit();
    assert_eq!(ahead.get(), 1);
    // A broker rejects records with timestamps in the future.
    let changelog = fixture.driver.changelog(&topic("test-last-changelog"));
    assert_eq!(changelog.last().map(|record| record.timestamp), Some(EventTime(100)));
    fixture.pipe("within the tolerance", 10_100);
    fixture.driver.commit();
    assert_eq!(ahead.get(), 1, "only times beyond the tolerance count");
    fixture.driver.advance(Duration::from_secs(1)).unwrap();
    fixture.pipe("b", 60);
    assert_eq!(
        fixture.driver.task().stream_time(),
        EventTime(10_100),
        "stream time never goes back"
    );
}

#[test]
fn stream_time_advances_without_records_up_to_the_clock() {
    let mut fixture = Fixture::new();
    let second = Duration::from_secs(1);
    fixture.driver.advance_stream_time(second).unwrap();
    assert_eq!(fixture.driver.task().stream_time(), EventTime::MIN, "no record was processed yet");
    fixture.pipe("a", 5);
    fixture.driver.advance_stream_time(Duration::from_millis(20)).unwrap();
    assert_eq!(fixture.driver.task().stream_time(), EventTime(25));
    fixture.driver.advance_stream_time(second).unwrap();
    assert_eq!(fixture.driver.task().stream_time(), EventTime(100));
    assert_eq!(fixture.out(), ["a", "expired 1", "expired 0"]);
}

/// Stream time is flushed to a changelog although no store changes.
#[test]
fn a_restart_restores_the_stream_time_of_a_quiet_partition() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 5);
    fixture.driver.commit();
    fixture.driver.advance(Duration::from_secs(1_000)).unwrap();
    fixture.driver.advance_stream_time(Duration::from_millis(100)).unwrap();
    fixture.driver.commit();
    for _ in 0..100 {
        fixture.driver.advance_stream_time(Duration::from_secs(2)).unwrap();
        fixture.driver.commit();
    }
    let before = fixture.driver.task().stream_time();
    assert_eq!(before, EventTime(200_105));
    // The first record, its removal from the window, and stream time once a minute.
    assert_eq!((fixture.logged("last"), fixture.logged("all")), (1 + 3, 1 + 1));
    fixture.driver.restart();
    let after = fixture.driver.task().stream_time();
    assert!(before - Duration::from_secs(60) <= after && after <= before, "{after}");
    assert_eq!(fixture.driver.task().store_entries().values().sum::<usize>(), 1);
}

/// A punctuation that is due by the first record after a restart does not wait for the next record.
#[test]
fn the_first_record_after_a_restart_triggers_due_punctuations() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 5);
    fixture.driver.commit();
    fixture.driver.read_all();
    fixture.driver.restart();
    fixture.pipe("b", 90);
    assert_eq!(fixture.out(), ["b", "expired 1"]);
}

#[test]
fn an_empty_commit_keeps_the_last_committed_offset() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 5);
    fixture.driver.commit();
    let committed = fixture.driver.task().committed_offset();
    assert_eq!(committed.as_ref().map(|(_, offset)| *offset), Some(Offset(1)));
    fixture.driver.commit();
    assert_eq!(fixture.driver.task().committed_offset(), committed);
}

#[test]
fn a_dead_letter_has_the_coordinates_and_the_reason_in_its_headers() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 1);
    fixture.pipe("bad", 2);
    fixture.driver.commit();
    let letters = fixture.driver.read(&topic("dead"));
    let [letter] = letters.as_slice() else { panic!("{letters:?}") };
    assert_eq!(letter.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(letter.timestamp, EventTime(100), "its timestamp is the time of writing");
    let headers = [
        ("foretell.topic", "words"),
        ("foretell.partition", "0"),
        ("foretell.offset", "1"),
        ("foretell.timestamp", "2"),
        ("foretell.error.class", "bad_word"),
        ("foretell.error.message", "not that"),
        ("foretell.headers", "0"),
    ];
    let header =
        |(name, value): (&str, &str)| Header { name: name.to_owned(), value: value.into() };
    assert_eq!(letter.headers, headers.map(header));
}

#[test]
fn a_blocked_record_is_retried_and_holds_back_later_records() {
    let mut fixture = Fixture::new();
    assert_eq!(fixture.pipe("wait", 1), Progress::Blocked("too early".to_owned()));
    assert_eq!(fixture.pipe("a", 2), Progress::Blocked("too early".to_owned()));
    assert_eq!(fixture.driver.task().buffered(), 2);
    assert_eq!(fixture.out(), [""; 0]);
    fixture.driver.advance(Duration::from_secs(1)).unwrap();
    assert_eq!(fixture.driver.process().unwrap(), Progress::Idle);
    assert_eq!(fixture.out(), ["wait", "a"]);
    assert_eq!(fixture.words.get(), 2);
}

#[test]
fn records_that_are_processed_again_after_an_abort_give_the_same_outputs() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 0);
    assert_eq!(fixture.out(), ["a"]);
    // The last time is after the first punctuation.
    let play = |fixture: &mut Fixture| {
        fixture.pipe("b", 5);
        fixture.pipe("c", 12);
        fixture.pipe("bad", 13);
    };
    play(&mut fixture);
    fixture.driver.abort();
    assert_eq!(fixture.driver.task().stream_time(), EventTime(0));
    assert_eq!(fixture.out(), [""; 0]);
    play(&mut fixture);
    assert_eq!(fixture.out(), ["b", "c", "expired 1", "bad_word: bad"]);
    assert_eq!(fixture.words.get(), 3);
    assert_eq!(fixture.metrics.records("words").get(), 4, "each record is counted once");
}

#[test]
fn an_aborted_wall_clock_punctuation_is_called_again() {
    let mut fixture = Fixture::new();
    let minute = Duration::from_secs(60);
    // The first call starts the interval.
    fixture.driver.advance(Duration::ZERO).unwrap();
    fixture.driver.commit();
    fixture.driver.advance(minute).unwrap();
    fixture.driver.abort();
    fixture.driver.advance(Duration::ZERO).unwrap();
    fixture.driver.advance(Duration::ZERO).unwrap();
    assert_eq!(fixture.out(), ["tick"]);
}

/// A broker rejects timestamps far ahead of its clock, and with them the whole transaction.
#[test]
fn timestamps_of_outputs_are_never_ahead_of_the_clock() {
    let mut fixture = Fixture::new();
    fixture.pipe("ahead", 5_000);
    fixture.driver.commit();
    let written = fixture.driver.read_all();
    assert!(!written.is_empty());
    assert!(written.iter().all(|record| record.timestamp <= EventTime(100)), "{written:?}");
}

#[test]
fn a_restored_task_resumes_at_the_last_commit() {
    let mut fixture = Fixture::new();
    fixture.pipe("a", 0);
    fixture.pipe("b", 7);
    assert_eq!(fixture.out(), ["a", "b"]);
    fixture.pipe("lost", 8);
    fixture.driver.restart();
    assert_eq!(fixture.driver.task().stream_time(), EventTime(7));
    fixture.pipe("c", 9);
    fixture.pipe("d", 19);
    assert_eq!(fixture.out(), ["c", "d", "expired 2"]);
}

#[test]
fn the_dead_letter_of_an_unsendable_output_has_its_key_and_the_reason() {
    let metrics = StreamsMetrics::unregistered();
    let words = Counter::unread();
    let topology = Arc::new(topology(&words));
    let mut task = Task::open(&topology, Partition(3), &metrics, &MemoryStores).unwrap();
    let record = OutputRecord {
        topic: topic("out"),
        partition: None,
        timestamp: EventTime(7),
        key: Some(b"k".to_vec()),
        value: Some(vec![0; 100]),
        headers: Vec::new(),
    };
    task.dead_letter_output(record, Some((1, Offset(42))), "too large".to_owned());
    let outbox = task.take_outbox();
    assert_eq!(outbox.len(), 1);
    let letter = outbox.iter().next().unwrap();
    assert_eq!(*letter.topic, topic("dead"));
    assert_eq!((letter.key, letter.value), (Some(&b"k"[..]), None));
    let shown: Vec<_> =
        letter.headers.iter().map(|header| String::from_utf8_lossy(&header.value)).collect();
    let reason = "too large; it was the output for the record more/3@42";
    assert_eq!(shown, ["out", "3", "-1", "7", "unsendable", reason, "0"]);
    assert_eq!(metrics.dead_letters("unsendable").get(), 0);
    task.apply_commit(WallTime(100), &BTreeMap::new()).unwrap();
    assert_eq!(metrics.dead_letters("unsendable").get(), 1);
}

fn headers_of(record: &OutputRecord) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    record.headers.iter().map(|header| (header.name.clone(), text(&header.value))).collect()
}

fn with_headers(value: &[u8], headers: &[(&str, &str)]) -> OutputRecord {
    let header = |(name, value): &(&str, &str)| Header {
        name: (*name).to_owned(),
        value: value.as_bytes().to_vec(),
    };
    OutputRecord {
        topic: topic("words"),
        partition: None,
        timestamp: EventTime(1),
        key: Some(b"k".to_vec()),
        value: Some(value.to_vec()),
        headers: headers.iter().map(header).collect(),
    }
}

/// All headers in order, with a name that occurs twice and a name of an added header; then the added headers.
#[test]
fn a_dead_letter_keeps_the_headers_of_its_record() {
    let original_headers =
        [("trace-id", "1"), ("b", ""), ("trace-id", "2"), ("foretell.error.class", "earlier")];
    for value in [&b"bad"[..], b"aside", b"\xff"] {
        let mut fixture = Fixture::new();
        fixture.driver.pipe_record(with_headers(value, &original_headers)).unwrap();
        fixture.driver.commit();
        let letters = fixture.driver.read(&topic("dead"));
        let [letter] = letters.as_slice() else { panic!("{letters:?}") };
        assert_eq!(letter.value.as_deref(), Some(value));
        let headers = headers_of(letter);
        let (first, added_headers) = headers.split_at(original_headers.len());
        let expected = original_headers.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(first, expected, "{value:?}");
        assert_eq!(added_headers[0], ("foretell.topic".to_owned(), "words".to_owned()));
        let last = headers.iter().rfind(|(name, _)| name == "foretell.error.class").unwrap();
        assert_ne!(last.1, "earlier");
        assert_eq!(added_headers.last().unwrap(), &("foretell.headers".to_owned(), "4".to_owned()));
    }
}

#[test]
fn a_dead_letter_that_is_too_large_is_sent_without_value_and_original_headers() {
    let mut fixture = Fixture::new();
    fixture.driver.pipe_record(with_headers(b"bad", &[("trace-id", "1")])).unwrap();
    fixture.driver.commit();
    let letter = fixture.driver.read(&topic("dead")).pop().unwrap();
    let topology = Arc::new(topology(&Counter::unread()));
    let mut task =
        Task::open(&topology, Partition(0), &StreamsMetrics::unregistered(), &MemoryStores)
            .unwrap();
    assert!(task.can_dead_letter(letter.as_ref()));
    task.dead_letter_output(letter, None, "too large".to_owned());
    let outbox = task.take_outbox();
    let short = outbox.iter().next().unwrap().to_owned();
    assert_eq!((short.key.as_deref(), &short.value), (Some(&b"k"[..]), &None));
    let headers = headers_of(&short);
    assert_eq!(headers.iter().filter(|(name, _)| !name.starts_with("foretell.")).count(), 0);
    assert_eq!(class_of(&short), "bad_word: ");
    assert_eq!(headers.last().unwrap(), &("foretell.value.bytes".to_owned(), "3".to_owned()));
    assert!(!task.can_dead_letter(short.as_ref()), "no value and no original headers are left");
    let plain = OutputRecord { value: Some(b"bad".to_vec()), ..short };
    assert!(task.can_dead_letter(plain.as_ref()), "it has a value that can be left out");
}
