//! Latency from sending a record until its result can be read, at a constant rate.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use foretell_streams::{codec::Codec, record::Topic};
use rdkafka::{
    ClientConfig, Message, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};

use crate::{
    bare_pipeline,
    cluster::{Cluster, PARTITIONS},
    pipeline::Pipeline,
};

/// Time from the first result until measuring starts, so that fetch and batch sizes have settled.
const WARM_UP: Duration = Duration::from_secs(2);
const STEP: Duration = Duration::from_millis(2);
const WAIT: Duration = Duration::from_millis(50);
/// The benchmark fails without a result within this time.
const FIRST_RESULT_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, serde::Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_millis: f64,
    pub(crate) p99_millis: f64,
}

/// Sends `rate` records per second for `span` through the pipeline that `start` creates.
pub(crate) fn measure(
    cluster: &Cluster,
    rate: f64,
    span: Duration,
    start: impl FnOnce(&Topic, &Topic) -> anyhow::Result<Box<dyn Pipeline>> + Send,
) -> anyhow::Result<Latency> {
    let (input, output) = (cluster.new_topic("in")?, cluster.new_topic("out")?);
    let (stop, results) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let pipeline = scope.spawn(|| -> anyhow::Result<()> {
            let _stop = StopAtEnd(&stop);
            let mut pipeline = start(&input, &output)?;
            while !stop.load(Ordering::Relaxed) {
                pipeline.turn()?;
            }
            pipeline.leave()
        });
        let sender = scope.spawn(|| send(cluster, &input, rate, &stop));
        let receiver = scope.spawn(|| receive(cluster, &output, &stop, &results));
        let begun = Instant::now();
        while results.load(Ordering::Relaxed) == 0
            && !stop.load(Ordering::Relaxed)
            && begun.elapsed() < FIRST_RESULT_WITHIN
        {
            thread::park_timeout(WAIT);
        }
        wait_for(WARM_UP, &stop);
        let from = i64::try_from(cluster.started.elapsed().as_micros())?;
        wait_for(span, &stop);
        let to = i64::try_from(cluster.started.elapsed().as_micros())?;
        // Wait for the results of records in flight.
        wait_for(Duration::from_secs(1), &stop);
        stop.store(true, Ordering::Relaxed);
        pipeline.join().expect("a pipeline does not panic")?;
        sender.join().expect("the sender does not panic")?;
        let mut samples = receiver.join().expect("the receiver does not panic")?;
        samples.retain(|(sent, _)| (from..to).contains(sent));
        let mut micros: Vec<i64> = samples.into_iter().map(|(_, micros)| micros).collect();
        micros.sort_unstable();
        let at = |share: usize| -> anyhow::Result<f64> {
            let micros = micros.get(micros.len() * share / 100).context("no results")?;
            Ok(*micros as f64 / 1000.0)
        };
        Ok(Latency { p50_millis: at(50)?, p99_millis: at(99)? })
    })
}

struct StopAtEnd<'s>(&'s AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn wait_for(span: Duration, stop: &AtomicBool) {
    let begun = Instant::now();
    while begun.elapsed() < span && !stop.load(Ordering::Relaxed) {
        thread::park_timeout(WAIT);
    }
}

fn send(cluster: &Cluster, input: &Topic, rate: f64, stop: &AtomicBool) -> anyhow::Result<()> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &cluster.servers).set("linger.ms", "0");
    config.set("partitioner", "murmur2_random").set("delivery.report.only.error", "true");
    let producer: BaseProducer = config.create()?;
    let (begun, mut sent) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let due = begun.elapsed().mul_f64(rate).as_secs();
        while sent < due {
            let (key, value) = cluster.reading(sent)?;
            let record = BaseRecord::to(input.as_str()).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error)?;
            sent += 1;
        }
        producer.poll(Duration::ZERO);
        thread::park_timeout(STEP);
    }
    producer.flush(Duration::from_secs(5))?;
    Ok(())
}

/// The send time and the latency of each result, in microseconds.
fn receive(
    cluster: &Cluster,
    output: &Topic,
    stop: &AtomicBool,
    results: &AtomicU64,
) -> anyhow::Result<Vec<(i64, i64)>> {
    let consumer: BaseConsumer =
        bare_pipeline::consumer(cluster, &cluster.name("receive")).create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..i32::try_from(PARTITIONS)? {
        all.add_partition_offset(output.as_str(), partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let mut samples = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(message) = consumer.poll(WAIT) else { continue };
        let message = message?;
        let now = i64::try_from(cluster.started.elapsed().as_micros())?;
        let sent = cluster.codec.decode(message.payload().unwrap_or_default())?.sent;
        samples.push((sent, now - sent));
        results.fetch_add(1, Ordering::Relaxed);
    }
    Ok(samples)
}
