//! Tables and ratios.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::{Map, Value, json};

use crate::{
    drained::{Drained, Traffic},
    measure::usage::Speed,
    meter::Cost,
    paced::Paced,
    stages::Stages,
};

/// CPU of the whole job, in microseconds an event with its outcome.
const CPU_MICROS_MAX: f64 = 11.0;
/// Of the speed of the bare loop.
const BARE_SHARE_MIN: f64 = 0.5;
const ALLOCATIONS_MAX: f64 = 5.0;
/// At 1,000 events a second.
const PACED_CPU_MICROS_MAX: f64 = 60.0;

/// Prints as it goes, and keeps all figures for the file.
#[derive(Default)]
pub(crate) struct Report {
    figures: Map<String, Value>,
}

impl Report {
    pub(crate) fn stages(&mut self, stages: &Stages) {
        println!(
            "\none task without a broker, an event with its outcome    CPU µs   allocations    bytes"
        );
        let mut total = Cost::default();
        for (name, cost) in &stages.stages {
            row(name, *cost);
            total += *cost;
        }
        row("all of it", total);
        row("all of it, with a challenger", stages.with_challenger);
        println!("measured alone");
        stages.parts.iter().for_each(|(name, cost)| row(name, *cost));
        bound(
            "allocations an event",
            total.allocations,
            ALLOCATIONS_MAX,
            total.allocations <= ALLOCATIONS_MAX,
        );
        let mut costs: BTreeMap<_, _> =
            stages.stages.iter().chain(&stages.parts).copied().collect();
        costs.insert("with a challenger", stages.with_challenger);
        self.figures.insert("stages".to_owned(), json!(costs));
    }

    pub(crate) fn drained(&mut self, job: &Drained, limit: &Speed) {
        println!("\na backlog on Kafka, {} thread", job.threads);
        println!(
            "  {:.0} events/s, {} MiB at most",
            job.events_a_second,
            job.resident_bytes_max >> 20
        );
        by_thread(job.cpu_micros, &job.cpu_micros_by_thread);
        println!(
            "  bare librdkafka: {:.0} events/s, {:.1} CPU µs an event",
            1e6 / limit.wall_micros,
            limit.process_micros
        );
        let share = job.events_a_second * limit.wall_micros / 1e6;
        bound("CPU µs an event", job.cpu_micros, CPU_MICROS_MAX, job.cpu_micros <= CPU_MICROS_MAX);
        bound("speed, to the bare loop's", share, BARE_SHARE_MIN, share >= BARE_SHARE_MIN);
        let figures = json!({ "job": job, "bare": limit, "share_of_bare": share });
        self.figures.insert("drained".to_owned(), figures);
    }

    pub(crate) fn traffic(&mut self, traffic: &[Traffic], events: usize) {
        println!("\nwritten an event                                          records    bytes");
        let an_event = |count: usize| count as f64 / events as f64;
        for Traffic { topic, records, bytes } in traffic {
            let (records, bytes) = (an_event(*records), an_event(*bytes));
            println!("  {topic:<54} {records:>8.2} {bytes:>8.0}");
        }
        let figures = json!({ "events": events, "topics": traffic });
        self.figures.insert("traffic".to_owned(), figures);
    }

    pub(crate) fn scaled(&mut self, one: &Drained, two: &Drained) {
        println!("\na backlog on Kafka, {} threads", two.threads);
        println!(
            "  {:.0} events/s, {:.2} of one thread's",
            two.events_a_second,
            two.events_a_second / one.events_a_second
        );
        by_thread(two.cpu_micros, &two.cpu_micros_by_thread);
        self.figures.insert("two_threads".to_owned(), json!(two));
    }

    pub(crate) fn paced(&mut self, paced: &Paced) {
        let [p50, p99, p999] = paced.latency_millis;
        println!("\n{} events/s", paced.rate);
        println!(
            "  event to prediction: p50 {p50:.1} ms, p99 {p99:.1} ms, p99.9 {p999:.1} ms; {} never came",
            paced.lost
        );
        println!("  mean of its parts, {:.1} commits/s:", paced.commits_a_second);
        for (name, millis) in &paced.parts_millis {
            println!("    {name:<40} {millis:>6.1} ms");
        }
        if let Some(micros) = paced.broker_cpu_micros {
            println!("  {micros:.1} CPU µs an event in the broker");
        }
        by_thread(paced.cpu_micros, &paced.cpu_micros_by_thread);
        bound(
            "CPU µs an event",
            paced.cpu_micros,
            PACED_CPU_MICROS_MAX,
            paced.cpu_micros <= PACED_CPU_MICROS_MAX,
        );
        self.figures.insert("paced".to_owned(), json!(paced));
    }

    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder)?;
        let file = folder.join("job.json");
        fs::write(&file, format!("{:#}\n", Value::Object(self.figures.clone())))?;
        println!("\nall figures are in {}", file.display());
        Ok(())
    }
}

fn row(name: &str, cost: Cost) {
    println!("  {name:<54} {:>8.2} {:>13.1} {:>8.0}", cost.micros, cost.allocations, cost.bytes);
}

fn by_thread(total: f64, threads: &BTreeMap<String, f64>) {
    println!("  {total:.1} CPU µs an event:");
    let mut threads: Vec<_> = threads.iter().collect();
    threads.sort_by(|one, other| other.1.total_cmp(one.1));
    for (name, micros) in threads.into_iter().filter(|(_, micros)| **micros >= 0.05) {
        println!("    {name:<20} {micros:>6.1}");
    }
}

fn bound(name: &str, value: f64, bound: f64, holds: bool) {
    let verdict = if holds { "met" } else { "missed" };
    println!("  {name}: {value:.2}, bound {bound}: {verdict}");
}
