//! Wall-clock time and CPU time of a measurement. On a machine with other load, only the CPU time is stable.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::Context;

/// The unit of `/proc/self/stat` on Linux (`USER_HZ`).
const TICKS_A_SECOND: f64 = 100.0;

/// The start of a measurement.
pub(crate) struct Start {
    wall: Instant,
    process: f64,
    thread: f64,
}

impl Start {
    pub(crate) fn now() -> anyhow::Result<Self> {
        Ok(Self { wall: Instant::now(), process: process_seconds()?, thread: thread_seconds()? })
    }

    /// The speed at which `records` records were processed since the start.
    pub(crate) fn until_now(&self, records: u64) -> anyhow::Result<Speed> {
        let micros_per_record = |seconds: f64| seconds * 1e6 / records as f64;
        Ok(Speed {
            wall_micros: micros_per_record(self.wall.elapsed().as_secs_f64()),
            process_micros: micros_per_record(process_seconds()? - self.process),
            thread_micros: micros_per_record(thread_seconds()? - self.thread),
        })
    }
}

/// Microseconds per record.
#[derive(Clone, Copy, Debug, serde::Serialize)]
pub(crate) struct Speed {
    pub(crate) wall_micros: f64,
    /// CPU time of all threads of this process, including librdkafka's.
    pub(crate) process_micros: f64,
    /// CPU time of the thread that runs the pipeline.
    pub(crate) thread_micros: f64,
}

impl Speed {
    /// The median of each figure over several rounds.
    pub(crate) fn median(rounds: &[Self]) -> Self {
        let of = |figure: fn(&Self) -> f64| median(rounds.iter().map(figure).collect());
        Self {
            wall_micros: of(|speed| speed.wall_micros),
            process_micros: of(|speed| speed.process_micros),
            thread_micros: of(|speed| speed.thread_micros),
        }
    }
}

pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The resident memory of this process, in bytes.
pub(crate) fn resident_bytes() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no VmRSS")?;
    Ok(kilobytes.parse::<u64>()? * 1024)
}

fn process_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The process name in parentheses may contain spaces. User and system time are the 12th and 13th fields after it.
    let (_, fields) = stat.rsplit_once(") ").context("no process name in /proc/self/stat")?;
    let times = fields.split(' ').skip(11).take(2).map(str::parse::<f64>);
    Ok(times.sum::<Result<f64, _>>()? / TICKS_A_SECOND)
}

fn thread_seconds() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanos = stat.split(' ').next().context("/proc/thread-self/schedstat is empty")?;
    Ok(Duration::from_nanos(nanos.parse()?).as_secs_f64())
}
