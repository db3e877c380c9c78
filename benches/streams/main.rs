//! Benchmark of the streams layer on a real Kafka against bare librdkafka in the same run: the cost of a topology, its
//! store, its transactions and its restores. Prints a table of ratios and writes `target/bench/streams.json`. A missed
//! bound is printed and does not fail the run, because the load of other programs on the machine changes the result.
//!
//! `FORETELL_TEST_BROKERS` names the Kafka. `FORETELL_BENCH_RECORDS`, `_ENTRIES`, `_ROUNDS` and `_SECONDS` shorten a
//! run, and `FORETELL_BENCH_ONLY` (`memory`, `throughput`, `restore`, `failover`) limits it to a part, for a profile.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures real time, and reads its settings from the environment"
)]

mod bare_pipeline;
mod cluster;
mod failover;
mod latency;
mod recent;
mod report;
mod streams_pipeline;

#[allow(dead_code, reason = "the benchmark of the job uses more of it")]
#[path = "../measure/mod.rs"]
mod measure;

use std::{env, str::FromStr, time::Duration};

use anyhow::Context;
use foretell_streams::{
    runtime::broker::ProcessingGuarantee,
    state::{Access, Checkpoint, MemoryStore, StateStore},
    time::WallTime,
};

use crate::{
    cluster::Cluster,
    latency::Latency,
    measure::{pipeline, usage},
    pipeline::measure_speed,
    report::Report,
    streams_pipeline::StreamsPipeline,
    usage::Speed,
};

/// Entries written at once by the measurement of memory.
const BATCH: usize = 1_000;

struct Settings {
    records: u64,
    entries: u64,
    rounds: usize,
    span: Duration,
    only: Option<String>,
}

/// The median speed of each pipeline.
struct Throughput {
    bare: Speed,
    bare_twice: Speed,
    exactly_once: Speed,
    at_least_once: Speed,
}

/// As in the binary: what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    if let Ok(names) = env::var(failover::VICTIM) {
        return failover::victim(&names);
    }
    let settings = Settings {
        records: number("RECORDS", 1_000_000)?,
        entries: number("ENTRIES", 1_000_000)?,
        rounds: number("ROUNDS", 3)?,
        span: Duration::from_secs(number("SECONDS", 8)?),
        only: env::var("FORETELL_BENCH_ONLY").ok(),
    };
    let mut report = Report::default();
    // Memory is measured first, while the heap is empty.
    if settings.only.as_deref().is_none_or(|only| only == "memory") {
        memory(Access::ByKey, &settings, &mut report)?;
        report.recent(&recent::measure(settings.entries)?);
    }
    if settings.only.as_deref() != Some("memory") {
        on_kafka(&settings, &mut report)?;
    }
    report.print();
    report.write()
}

/// The measurements that need a broker.
fn on_kafka(settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let is_wanted = |part: &str| settings.only.as_deref().is_none_or(|only| only == part);
    let servers = env::var("FORETELL_TEST_BROKERS")
        .context("FORETELL_TEST_BROKERS is not set: make bench-streams starts a Kafka")?;
    let cluster = Cluster::connect(servers)?;
    if is_wanted("throughput") {
        let throughput = throughput(&cluster, settings)?;
        report.throughput(&throughput);
        if settings.only.is_none() {
            latencies(&cluster, settings, &throughput, report)?;
        }
    }
    if is_wanted("restore") {
        restore(&cluster, settings, report)?;
    }
    if is_wanted("failover") {
        for (entries, is_warm) in
            [(settings.entries / 100, true), (settings.entries, true), (settings.entries, false)]
        {
            report.failover(&failover::measure(&cluster, entries, settings.rounds, is_warm)?);
        }
    }
    Ok(())
}

fn number<N: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    default: N,
) -> anyhow::Result<N> {
    let name = format!("FORETELL_BENCH_{name}");
    match env::var(&name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is not a number")),
        Err(_) => Ok(default),
    }
}

/// The memory of a key-value store. `benches/stores.rs` of the streams crate measures window stores.
fn memory(access: Access, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let before = usage::resident_bytes()?;
    let (mut store, mut payload) = (MemoryStore::new(access), 0);
    let mut entries = (0..settings.entries).map(|index| {
        let (key, value) = cluster::entry(index);
        payload += key.len() + value.len();
        (key.into_bytes(), value)
    });
    // In batches, as a restore writes them: the store copies borrowed changes.
    loop {
        let batch: Vec<_> = entries.by_ref().take(BATCH).collect();
        if batch.is_empty() {
            break;
        }
        let mut changes = batch.iter().map(|(key, value)| (&key[..], Some(&value[..])));
        store.write(&mut changes, Checkpoint::start(WallTime(0)))?;
    }
    drop(entries);
    let bytes = usage::resident_bytes()?.saturating_sub(before) as f64;
    let entries = store.len();
    anyhow::ensure!(entries as u64 == settings.entries, "two entries have the same key");
    report.memory(access, bytes / entries as f64, payload as f64 / entries as f64);
    // Freeing the store would leave pages in the heap that change the next measurement.
    std::mem::forget(store);
    Ok(())
}

fn throughput(cluster: &Cluster, settings: &Settings) -> anyhow::Result<Throughput> {
    use ProcessingGuarantee::{AtLeastOnce, ExactlyOnce};
    let input = cluster.new_topic("in")?;
    cluster.fill(&input, settings.records)?;
    let mut rounds: [Vec<Speed>; 4] = Default::default();
    for round in 0..settings.rounds {
        let mut run = |number: usize, pipeline| -> anyhow::Result<()> {
            let speed = measure_speed(pipeline, settings.records)?;
            println!("round {round}, pipeline {number}: {speed:.2?}");
            rounds[number].push(speed);
            Ok(())
        };
        let (output, more) = (cluster.new_topic("out")?, cluster.new_topic("more")?);
        let outputs = [output.clone(), more];
        run(0, bare_pipeline::start(cluster, &input, &outputs[..1], ExactlyOnce)?)?;
        run(1, bare_pipeline::start(cluster, &input, &outputs, ExactlyOnce)?)?;
        run(2, Box::new(StreamsPipeline::start(cluster, &input, &output, ExactlyOnce)?))?;
        run(3, Box::new(StreamsPipeline::start(cluster, &input, &output, AtLeastOnce)?))?;
    }
    let [bare, bare_twice, exactly_once, at_least_once] =
        rounds.map(|rounds| Speed::median(&rounds));
    Ok(Throughput { bare, bare_twice, exactly_once, at_least_once })
}

/// Measures latencies at a tenth of the maximum throughput of the exactly-once topology.
fn latencies(
    cluster: &Cluster,
    settings: &Settings,
    throughput: &Throughput,
    report: &mut Report,
) -> anyhow::Result<()> {
    use ProcessingGuarantee::{AtLeastOnce, ExactlyOnce};
    let rate = 1e6 / throughput.exactly_once.wall_micros / 10.0;
    let streams = |guarantee| -> anyhow::Result<Latency> {
        latency::measure(cluster, rate, settings.span, |input, output| {
            Ok(Box::new(StreamsPipeline::start(cluster, input, output, guarantee)?))
        })
    };
    let bare = |guarantee| -> anyhow::Result<Latency> {
        latency::measure(cluster, rate, settings.span, |input, output| {
            bare_pipeline::start(cluster, input, std::slice::from_ref(output), guarantee)
        })
    };
    let plain = bare(AtLeastOnce)?;
    report.latency("exactly once", rate, streams(ExactlyOnce)?, plain, bare(ExactlyOnce)?);
    report.latency("at least once", rate, streams(AtLeastOnce)?, plain, plain);
    Ok(())
}

fn restore(cluster: &Cluster, settings: &Settings, report: &mut Report) -> anyhow::Result<()> {
    let application = cluster.name("restore");
    let changelog = cluster.topic(&format!("{application}-last-changelog"), 1)?;
    cluster.fill_changelog(&changelog, settings.entries)?;
    let (mut bare, mut streams) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        bare.push(bare_pipeline::consume(cluster, &changelog, settings.entries)?);
        streams.push(streams_pipeline::restore(cluster, &application, settings.entries)?);
        println!("round {round}, bare: {:.2?}", bare[round]);
        println!("round {round}, restore: {:.2?}", streams[round]);
    }
    report.restore(Speed::median(&streams), Speed::median(&bare));
    Ok(())
}
