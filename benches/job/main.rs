//! The whole job on the worked example: events and outcomes in; predictions, labelled examples and changelogs out,
//! exactly once, committed every 100 ms, with a model of 200 trees of 63 leaves.
//!
//! ```text
//!   in this process   one task without a broker: CPU and allocations by stage
//!   on a real Kafka   `foretell run` drains a backlog with 1 and 2 threads: CPU by thread, memory, bytes by topic
//!                     the limit: bare librdkafka moves records of the same number and size in the same transactions
//!                     `foretell run` at a steady rate: CPU an event, latency from an event to its prediction
//! ```
//! With the argument `growth` it measures how the job grows instead, see [`growth`]; with `join`, what the outcome join and the
//! rules of actions cost, see [`joining`]; with `training`, scoring while models are trained, see [`training`].
//!
//! Prints tables and ratios, and writes `target/bench/job.json`. Absolute times depend on the machine; the ratios of one run
//! can be compared. `FORETELL_BENCH_EVENTS`, `_RATE` and `_SECONDS` change the size of a run, `FORETELL_BENCH_ONLY` (`stages`,
//! `drain`, `rate`) limits it to a part. `FORETELL_BENCH_SET="key=value key=value"` are settings of the configuration besides.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a benchmark prints, measures real time, reads its environment, and may panic"
)]

mod counting;
mod drained;
mod growth;
mod joining;
mod limit;
mod meter;
mod paced;
mod report;
mod stages;
mod task;
mod training;
mod workload;

#[allow(dead_code, reason = "the benchmark of the streams layer uses more of it")]
#[path = "../measure/mod.rs"]
mod measure;
#[allow(dead_code, unused_imports, reason = "the tests use more of it")]
#[path = "../../tests/process/mod.rs"]
mod process;

use std::{env, fmt::Display, str::FromStr, time::Duration};

use foretell_ml::ModelBundle;

use crate::{drained::Application, report::Report};

#[global_allocator]
static ALLOCATOR: counting::CountingAllocator = counting::CountingAllocator;

/// Size of a run.
struct Settings {
    /// Events of the backlog, each with its outcome.
    events: usize,
    /// Events a second, for the latency.
    rate: usize,
    /// How long the steady rate lasts.
    span: Duration,
    only: Option<String>,
}

impl Settings {
    fn from_environment() -> anyhow::Result<Self> {
        Ok(Self {
            events: variable("EVENTS", 200_000)?,
            rate: variable("RATE", 1_000)?,
            span: Duration::from_secs(variable("SECONDS", 20)?),
            only: env::var("FORETELL_BENCH_ONLY").ok(),
        })
    }

    fn includes(&self, part: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == part)
    }
}

fn main() -> anyhow::Result<()> {
    let (settings, model) = (Settings::from_environment()?, workload::model()?);
    if env::args().any(|argument| argument == "growth") {
        return growth::measure(&settings, &model);
    }
    if env::args().any(|argument| argument == "join") {
        return joining::measure(&settings, &model);
    }
    if env::args().any(|argument| argument == "training") {
        return training::measure(&settings, &model);
    }
    let mut report = Report::default();
    if settings.includes("stages") {
        report.stages(&stages::measure(&model)?);
    }
    if settings.includes("drain") {
        drain(&settings, &model, &mut report)?;
    }
    if settings.includes("rate") {
        let application = Application::prepare(&model, &[])?;
        report.paced(&paced::measure(&application, settings.rate, settings.span)?);
    }
    report.write()
}

fn drain(settings: &Settings, model: &ModelBundle, report: &mut Report) -> anyhow::Result<()> {
    let application = Application::prepare(model, &[])?;
    application.publish_backlog(settings.events)?;
    let one = application.drain(1, settings.events)?;
    let traffic = application.traffic(settings.events)?;
    let limit = limit::measure(&application, &traffic, settings.events, 1)?;
    report.drained(&one, &limit);
    report.traffic(&traffic, settings.events);
    let application = Application::prepare(model, &[])?;
    application.publish_backlog(settings.events)?;
    report.scaled(&one, &application.drain(2, settings.events)?);
    Ok(())
}

/// The settings of the configuration in `FORETELL_BENCH_SET`.
fn more_settings() -> anyhow::Result<Vec<String>> {
    Ok(variable("SET", String::new())?.split_whitespace().map(str::to_owned).collect())
}

fn variable<T: FromStr<Err: Display>>(name: &str, default: T) -> anyhow::Result<T> {
    let name = format!("FORETELL_BENCH_{name}");
    match env::var(&name) {
        Ok(text) => text.parse().map_err(|error| anyhow::anyhow!("{name}={text}: {error}")),
        Err(_) => Ok(default),
    }
}
