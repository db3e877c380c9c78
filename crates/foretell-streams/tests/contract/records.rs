//! Records, topics and readers: a round trip, partitions by key, start positions, creation of topics, refused records.

use foretell_streams::{
    record::{
        Header, InputRecord, Offset, OutputRecord, Partition, Topic, TopicPartition, partition_of,
    },
    runtime::broker::{BrokerError, Cleanup, Follower, ReadFrom, ReadTo, TopicSpec},
    time::EventTime,
};

use super::{Cluster, POLLS_MAX, Worker, at, numbers, output, texts, until};

pub(crate) fn records_are_read_as_they_were_written(cluster: &Cluster<'_>) {
    let topic = cluster.topic("all", 1);
    let header = |name: &str, value: &[u8]| Header { name: name.to_owned(), value: value.to_vec() };
    let record = |key: Option<&[u8]>, value: Option<&[u8]>, timestamp, headers| OutputRecord {
        topic: topic.clone(),
        partition: Some(Partition(0)),
        timestamp: EventTime(timestamp),
        key: key.map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers,
    };
    let now = 1_700_000_000_000;
    let sent = [
        record(Some(b"a"), Some(b"one"), now, Vec::new()),
        record(Some(b"a"), None, now + 1, Vec::new()),
        record(None, Some(b""), now - 1_000_000, Vec::new()),
        record(Some(b""), Some(b"\0\xff"), 1, vec![header("empty", b"")]),
        // A header may be repeated, and the order counts.
        record(
            Some(b"b"),
            Some(b"h"),
            now,
            vec![header("x", b"1"), header("w", b"\0"), header("x", b"2")],
        ),
    ];
    let mut publisher = cluster.broker.publish().unwrap();
    for record in sent.clone() {
        publisher.send(record).unwrap();
    }
    publisher.flush().unwrap();
    let expected: Vec<InputRecord> = (0..)
        .zip(sent)
        .map(|(offset, sent)| InputRecord {
            source: at(&topic, 0),
            offset: Offset(offset),
            timestamp: sent.timestamp,
            key: sent.key,
            value: sent.value,
            headers: sent.headers,
        })
        .collect();
    assert_eq!(cluster.read(&topic, 0), expected);
    // A reader of a changelog may leave out headers, and nothing else.
    let mut changelog =
        cluster.broker.read_changelog(&at(&topic, 0), ReadFrom::Offset(Offset(1))).unwrap();
    let without_headers =
        |record: &InputRecord| InputRecord { headers: Vec::new(), ..record.clone() };
    let found = cluster.read_all(changelog.as_mut()).unwrap();
    let found: Vec<_> = found.iter().map(without_headers).collect();
    let expected: Vec<_> = expected[1..].iter().map(without_headers).collect();
    assert_eq!(found, expected);
}

pub(crate) fn a_key_selects_the_partition_of_the_default_partitioner(cluster: &Cluster<'_>) {
    let topic = cluster.topic("keyed", 5);
    let mut publisher = cluster.broker.publish().unwrap();
    for number in 0..50 {
        let key = format!("respondent-{number}");
        let by_key = OutputRecord {
            partition: None,
            key: Some(key.clone().into_bytes()),
            ..output(&topic, 0, &key)
        };
        publisher.send(by_key).unwrap();
    }
    publisher.flush().unwrap();
    for partition in 0..5 {
        for record in cluster.read(&topic, partition) {
            let key = record.key.unwrap();
            assert_eq!(partition_of(&key, 5), Partition(partition), "{key:?}");
        }
    }
}

pub(crate) fn a_reader_starts_at_the_given_position(cluster: &Cluster<'_>) {
    let topic = cluster.topic("read", 1);
    let source = at(&topic, 0);
    assert_eq!(cluster.read(&topic, 0), [], "an empty partition has an end");
    cluster.publish(&topic, 0, 0..2500);
    assert_eq!(texts(&cluster.read(&topic, 0)), numbers(0..2500));
    let from = cluster.read_from(&source, ReadFrom::Offset(Offset(2400))).unwrap();
    assert_eq!(texts(&from), numbers(2400..2500));
    let at_end = cluster.read_from(&source, ReadFrom::Offset(Offset(2500))).unwrap();
    assert_eq!(at_end, []);

    let mut tail = cluster.broker.read(&source, ReadFrom::End).unwrap();
    cluster.publish(&topic, 0, 2500..2510);
    let mut records = Vec::new();
    for _ in 0..POLLS_MAX {
        let to = tail.read(cluster.poll_timeout, &mut records).unwrap();
        (cluster.advance_clock)();
        if records.len() >= 10 && to == ReadTo::End {
            break;
        }
    }
    assert_eq!(texts(&records), numbers(2500..2510));
    // An idle reader at the end reports the end again, and reads records that are written later.
    assert_eq!(tail.read(cluster.poll_timeout, &mut records).unwrap(), ReadTo::End);
    cluster.publish(&topic, 0, 2510..2511);
    for _ in 0..POLLS_MAX {
        tail.read(cluster.poll_timeout, &mut records).unwrap();
        (cluster.advance_clock)();
        if records.len() == 11 {
            return;
        }
    }
    panic!("the reader did not read a record written after it had reached the end");
}

pub(crate) fn a_follower_reads_the_partitions_that_are_open(cluster: &Cluster<'_>) {
    let topic = cluster.topic("followed", 2);
    let (first, second) = (at(&topic, 0), at(&topic, 1));
    let publish = |range: std::ops::Range<usize>| {
        for partition in 0..2 {
            cluster.publish(&topic, partition, range.clone());
        }
    };
    let mut follower = cluster.broker.follow().unwrap();
    let take = |follower: &mut dyn Follower, count: usize| {
        let mut records = Vec::new();
        until(&format!("{count} followed records"), || {
            follower.read(cluster.poll_timeout, &mut records).unwrap();
            (cluster.advance_clock)();
            records.len() >= count
        });
        let of = |source: &TopicPartition| {
            let of_source = records.iter().filter(|record| record.source == *source);
            texts(&of_source.cloned().collect::<Vec<_>>())
        };
        [of(&first), of(&second)]
    };
    publish(0..3);
    assert_eq!(follower.open(&first, ReadFrom::Beginning).unwrap(), Offset(0));
    assert_eq!(take(&mut *follower, 3), [numbers(0..3), numbers(0..0)]);
    assert_eq!(follower.open(&second, ReadFrom::End).unwrap(), Offset(3));
    publish(3..5);
    assert_eq!(take(&mut *follower, 4), [numbers(3..5), numbers(3..5)]);
    follower.close(&first).unwrap();
    publish(5..6);
    assert_eq!(take(&mut *follower, 1), [numbers(0..0), numbers(5..6)]);
    assert_eq!(follower.open(&first, ReadFrom::Offset(Offset(4))).unwrap(), Offset(4));
    assert_eq!(take(&mut *follower, 2), [numbers(4..6), numbers(0..0)]);
    follower.close(&second).unwrap();
    // The open partitions are still followed after these errors.
    let out_of_range = follower.open(&second, ReadFrom::Offset(Offset(1000)));
    assert!(
        matches!(&out_of_range, Err(BrokerError::OutOfRange(gone)) if *gone == second),
        "{out_of_range:?}"
    );
    assert!(follower.open(&at(&topic, 2), ReadFrom::Beginning).is_err(), "no partition 2");
    let is_open = follower.open(&first, ReadFrom::Beginning);
    assert!(is_open.is_err(), "a partition can be opened once: {is_open:?}");
    assert!(follower.close(&second).is_err(), "it is closed");
    publish(6..7);
    assert_eq!(take(&mut *follower, 1), [numbers(6..7), numbers(0..0)]);
}

pub(crate) fn an_offset_out_of_range_and_a_missing_topic_are_errors_of_a_reader(
    cluster: &Cluster<'_>,
) {
    let topic = cluster.topic("short", 1);
    cluster.publish(&topic, 0, 0..3);
    let source = at(&topic, 0);
    let answer = cluster.read_from(&source, ReadFrom::Offset(Offset(1000)));
    assert!(matches!(&answer, Err(BrokerError::OutOfRange(gone)) if *gone == source), "{answer:?}");
    let missing = Topic::new(&format!("{}-missing", cluster.name));
    let answer = cluster.read_from(&at(&missing, 0), ReadFrom::Beginning);
    assert!(matches!(&answer, Err(BrokerError::Gone(gone)) if *gone == missing), "{answer:?}");
    assert!(cluster.broker.read(&at(&topic, 1), ReadFrom::Beginning).is_err());
}

pub(crate) fn creating_topics_is_idempotent(cluster: &Cluster<'_>) {
    let spec = |suffix: &str, partitions, cleanup| TopicSpec {
        name: Topic::new(&format!("{}-{suffix}", cluster.name)),
        partitions,
        cleanup,
        message_bytes_max: Some(2_000_000),
    };
    let day = std::time::Duration::from_secs(86_400);
    let specs = [
        spec("delete", 3, Cleanup::Delete { retention: Some(day) }),
        spec("compact", 1, Cleanup::Compact),
        spec("both", 2, Cleanup::CompactDelete { retention: day }),
    ];
    assert_eq!(cluster.broker.partitions(&specs[0].name).unwrap(), None);
    let created = cluster.broker.create_topics(&specs).unwrap();
    assert_eq!(created, specs.each_ref().map(|spec| spec.name.clone()));
    assert_eq!(cluster.broker.create_topics(&specs).unwrap(), []);
    for spec in &specs {
        assert_eq!(cluster.broker.partitions(&spec.name).unwrap(), Some(spec.partitions));
        // A created topic can be written to at once.
        cluster.publish(&spec.name, 0, 0..1);
    }
    let other = TopicSpec { partitions: 4, ..specs[0].clone() };
    let answer = cluster.broker.create_topics(&[other]);
    assert!(
        matches!(&answer, Err(BrokerError::Fatal(text)) if text.contains("3 partitions")),
        "{answer:?}"
    );
}

/// The refusal does not fail the transaction that is open.
pub(crate) fn a_record_that_can_never_be_written_is_refused(cluster: &Cluster<'_>) {
    let (input, good) = (cluster.topic("in", 1), cluster.topic("good", 1));
    let missing = Topic::new(&format!("{}-missing", cluster.name));
    let large = OutputRecord { value: Some(vec![7; 3_000_000]), ..output(&good, 0, "") };
    let mut worker = Worker::join(cluster, cluster.membership("a", &input, &[]));
    worker.until_assigned(1);
    let refused = |answer: Result<(), BrokerError>, expected: &Topic| {
        let named =
            matches!(&answer, Err(BrokerError::Unsendable { topic, .. }) if topic == expected);
        assert!(named, "{answer:?}");
    };
    let topic_is_gone = |answer: Result<(), BrokerError>| {
        assert!(
            matches!(&answer, Err(BrokerError::Gone(topic)) if *topic == missing),
            "{answer:?}"
        );
    };
    worker.member.send(output(&good, 0, "0").as_ref()).unwrap();
    topic_is_gone(worker.member.send(output(&missing, 0, "lost").as_ref()));
    refused(worker.member.send(output(&good, 9, "lost").as_ref()), &good);
    refused(worker.member.send(large.as_ref()), &good);
    worker.member.send(output(&good, 0, "1").as_ref()).unwrap();
    worker.member.commit(&[]).unwrap();
    worker.member.leave().unwrap();

    let mut publisher = cluster.broker.publish().unwrap();
    topic_is_gone(publisher.send(output(&missing, 0, "lost")));
    refused(publisher.send(large), &good);
    publisher.send(output(&good, 0, "2")).unwrap();
    publisher.flush().unwrap();
    assert_eq!(texts(&cluster.read(&good, 0)), numbers(0..3));
}
