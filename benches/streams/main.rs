//! The streams layer on a real Kafka, against bare librdkafka in the same run: what a topology, its store, its
//! transactions and its restores cost. Prints a table of ratios, and writes `target/bench/streams.json`. A bound
//! that is missed is said, and fails nothing: a machine that others use makes no verdicts.
//!
//! `FORETELL_TEST_BROKERS` names the Kafka. `FORETELL_BENCH_RECORDS`, `_ENTRIES`, `_ROUNDS` and `_SECONDS` shorten a
//! run, and `FORETELL_BENCH_ONLY` (`memory`, `throughput`, `restore`, `failover`) limits it to a part, for a profile.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures real time, and is told by its environment"
)]

mod bare;
mod cluster;
mod contender;
mod failover;
mod latency;
mod recent;
mod through;
mod usage;
mod verdict;

use std::{env, str::FromStr, time::Duration};

use anyhow::Context;
use foretell_streams::{
    runtime::broker::ProcessingGuarantee,
    state::{Access, Checkpoint, MemoryStore, StateStore},
    time::WallTime,
};

use crate::{
    bare::Bare, cluster::Cluster, contender::race, latency::Latency, through::Through,
    usage::Speed, verdict::Verdicts,
};

pub(crate) const COMMIT_INTERVAL: Duration = Duration::from_millis(100);

struct Settings {
    records: u64,
    entries: u64,
    rounds: usize,
    span: Duration,
    only: Option<String>,
}

/// The median speed of each contender.
struct Throughput {
    bare: Speed,
    bare_twice: Speed,
    exactly_once: Speed,
    at_least_once: Speed,
}

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
    let mut verdicts = Verdicts::default();
    // First, while the heap is empty.
    if settings.only.as_deref().is_none_or(|only| only == "memory") {
        memory(Access::ByKey, &settings, &mut verdicts)?;
        memory(Access::ByRange, &settings, &mut verdicts)?;
        verdicts.recent(&recent::measure(settings.entries)?);
    }
    if settings.only.as_deref() != Some("memory") {
        on_kafka(&settings, &mut verdicts)?;
    }
    verdicts.print();
    verdicts.write()
}

/// What takes a broker.
fn on_kafka(settings: &Settings, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    let is_wanted = |part: &str| settings.only.as_deref().is_none_or(|only| only == part);
    let servers = env::var("FORETELL_TEST_BROKERS")
        .context("FORETELL_TEST_BROKERS is not set: make bench-streams starts a Kafka")?;
    let cluster = Cluster::connect(servers)?;
    if is_wanted("throughput") {
        let throughput = throughput(&cluster, settings)?;
        verdicts.throughput(&throughput);
        if settings.only.is_none() {
            latencies(&cluster, settings, &throughput, verdicts)?;
        }
    }
    if is_wanted("restore") {
        restore(&cluster, settings, verdicts)?;
    }
    if is_wanted("failover") {
        for (entries, is_warm) in
            [(settings.entries / 100, true), (settings.entries, true), (settings.entries, false)]
        {
            verdicts.failover(&failover::measure(&cluster, entries, settings.rounds, is_warm)?);
        }
    }
    Ok(())
}

fn number<N: FromStr<Err: std::error::Error + Send + Sync + 'static>>(
    name: &str,
    otherwise: N,
) -> anyhow::Result<N> {
    let name = format!("FORETELL_BENCH_{name}");
    match env::var(&name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text} is no number")),
        Err(_) => Ok(otherwise),
    }
}

fn memory(access: Access, settings: &Settings, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    let before = usage::resident_bytes()?;
    let (mut store, mut payload) = (MemoryStore::new(access), 0);
    let mut entries = (0..settings.entries).map(|index| {
        let (key, value) = cluster::entry(index);
        payload += key.len() + value.len();
        (key.into_bytes(), Some(value))
    });
    store.write(&mut entries, Checkpoint::start(WallTime(0)))?;
    let bytes = usage::resident_bytes()?.saturating_sub(before) as f64;
    let entries = store.len();
    anyhow::ensure!(entries as u64 == settings.entries, "two entries have one key");
    verdicts.memory(access, bytes / entries as f64, payload as f64 / entries as f64);
    // The next one is to find the heap as this one found it.
    std::mem::forget(store);
    Ok(())
}

fn throughput(cluster: &Cluster, settings: &Settings) -> anyhow::Result<Throughput> {
    use ProcessingGuarantee::{AtLeastOnce, ExactlyOnce};
    let input = cluster.new_topic("in")?;
    cluster.fill(&input, settings.records)?;
    let mut rounds: [Vec<Speed>; 4] = Default::default();
    for round in 0..settings.rounds {
        let mut one = |place: usize, contender| -> anyhow::Result<()> {
            let speed = race(contender, settings.records)?;
            println!("round {round}, contender {place}: {speed:.2?}");
            rounds[place].push(speed);
            Ok(())
        };
        let (output, more) = (cluster.new_topic("out")?, cluster.new_topic("more")?);
        let outputs = [output.clone(), more];
        one(0, Box::new(Bare::start(cluster, &input, &outputs[..1], ExactlyOnce)?))?;
        one(1, Box::new(Bare::start(cluster, &input, &outputs, ExactlyOnce)?))?;
        one(2, Box::new(Through::start(cluster, &input, &output, ExactlyOnce)?))?;
        one(3, Box::new(Through::start(cluster, &input, &output, AtLeastOnce)?))?;
    }
    let [bare, bare_twice, exactly_once, at_least_once] =
        rounds.map(|rounds| Speed::median(&rounds));
    Ok(Throughput { bare, bare_twice, exactly_once, at_least_once })
}

/// Each at a tenth of what the slower of ours does at most.
fn latencies(
    cluster: &Cluster,
    settings: &Settings,
    throughput: &Throughput,
    verdicts: &mut Verdicts,
) -> anyhow::Result<()> {
    use ProcessingGuarantee::{AtLeastOnce, ExactlyOnce};
    let rate = 1e6 / throughput.exactly_once.wall_micros / 10.0;
    let ours = |guarantee| -> anyhow::Result<Latency> {
        latency::measure(cluster, rate, settings.span, |input, output| {
            Ok(Box::new(Through::start(cluster, input, output, guarantee)?))
        })
    };
    let bare = |guarantee| -> anyhow::Result<Latency> {
        latency::measure(cluster, rate, settings.span, |input, output| {
            Ok(Box::new(Bare::start(cluster, input, std::slice::from_ref(output), guarantee)?))
        })
    };
    let plain = bare(AtLeastOnce)?;
    verdicts.latency("exactly once", rate, ours(ExactlyOnce)?, plain, bare(ExactlyOnce)?);
    verdicts.latency("at least once", rate, ours(AtLeastOnce)?, plain, plain);
    Ok(())
}

fn restore(cluster: &Cluster, settings: &Settings, verdicts: &mut Verdicts) -> anyhow::Result<()> {
    let application = cluster.name("restore");
    let changelog = cluster.topic(&format!("{application}-last-changelog"), 1)?;
    cluster.fill_changelog(&changelog, settings.entries)?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for round in 0..settings.rounds {
        bare.push(bare::consume(cluster, &changelog, settings.entries)?);
        ours.push(through::restore(cluster, &application, settings.entries)?);
        println!("round {round}, bare: {:.2?}", bare[round]);
        println!("round {round}, restore: {:.2?}", ours[round]);
    }
    verdicts.restore(Speed::median(&ours), Speed::median(&bare));
    Ok(())
}
