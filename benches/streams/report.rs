//! The measurements of a run, compared with their bounds.

use std::{fs, path::Path};

use foretell_streams::state::Access;
use serde_json::{Value, json};

use crate::{
    COMMIT_INTERVAL, Throughput,
    failover::{Failover, SESSION},
    latency::Latency,
    recent::Cost,
    usage::Speed,
};

/// All measurements of a run.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
    figures: serde_json::Map<String, Value>,
}

struct Row {
    name: String,
    bound: String,
    measured: String,
    /// The ratio by CPU time of the process, and by CPU time of the pipeline's thread.
    by_cpu: String,
    /// `None` for a measurement without a bound.
    holds: Option<bool>,
}

impl Report {
    pub(crate) fn memory(&mut self, access: Access, entry: f64, payload: f64) {
        let name = format!("memory over {payload} bytes, {access:?}");
        self.row(&name, "-", format!("{:.0} bytes", entry - payload), None);
        self.figures.insert(name, json!({ "entry": entry, "payload": payload }));
    }

    /// The memory of a recent event has a bound, the time to recognise a repeat has none.
    pub(crate) fn recent(&mut self, cost: &Cost) {
        let Cost { bytes, thread_micros } = cost;
        let name = "memory of a recent event";
        self.row(name, "<= 64 bytes", format!("{bytes:.0} bytes"), Some(*bytes <= 64.0));
        self.row("  to look it up and store it", "-", format!("{thread_micros:.2} µs"), None);
        self.figures.insert(name.to_owned(), json!({ "bytes": bytes, "micros": thread_micros }));
    }

    pub(crate) fn throughput(&mut self, speeds: &Throughput) {
        let Throughput { bare, bare_twice, exactly_once, at_least_once } = speeds;
        self.ratio("pass-through, to a bare loop", *exactly_once, *bare, Some(0.5));
        self.ratio("  to one with two outputs", *exactly_once, *bare_twice, None);
        self.ratio("exactly once, to at least once", *exactly_once, *at_least_once, Some(0.75));
        let figures = json!({
            "bare": bare, "bare_twice": bare_twice,
            "exactly_once": exactly_once, "at_least_once": at_least_once,
        });
        self.figures.insert("throughput".to_owned(), figures);
    }

    pub(crate) fn restore(&mut self, streams: Speed, bare: Speed) {
        self.ratio("restore, to a bare consumer", streams, bare, Some(0.6));
        self.figures.insert("restore".to_owned(), json!({ "ours": streams, "bare": bare }));
    }

    /// With a standby, a failover takes the session timeout and less than a second, whatever the size of the state.
    pub(crate) fn failover(&mut self, failover: &Failover) {
        let Failover { entries, is_warm, seconds_from_kill, seconds_from_assignment, restored } =
            failover;
        let how = if *is_warm { "warm" } else { "cold" };
        let bound = SESSION.as_secs_f64() + 1.0;
        let text = if *is_warm { format!("< {bound:.1} s") } else { "-".to_owned() };
        self.row(
            &format!("failover, {entries} entries, {how}"),
            &text,
            format!("{seconds_from_kill:.2} s"),
            is_warm.then_some(*seconds_from_kill < bound),
        );
        let from_assignment = format!("{seconds_from_assignment:.2} s");
        self.row("  from the assignment", "-", from_assignment, None);
        let figures = json!({
            "session_seconds": SESSION.as_secs_f64(), "seconds_from_kill": seconds_from_kill,
            "seconds_from_assignment": seconds_from_assignment, "restored": restored,
        });
        self.figures.insert(format!("failover, {entries}, {how}"), figures);
    }

    /// `plain` is the bare loop without transactions, `same` the bare loop with the same guarantee.
    pub(crate) fn latency(
        &mut self,
        guarantee: &str,
        rate: f64,
        streams: Latency,
        plain: Latency,
        same: Latency,
    ) {
        let bound = match guarantee {
            "exactly once" => 1.5 * COMMIT_INTERVAL.as_secs_f64() * 1000.0 + plain.p99_millis,
            _ => 2.0 * plain.p99_millis,
        };
        self.row(
            &format!("p99 at {rate:.0}/s, {guarantee}"),
            &format!("<= {bound:.1} ms"),
            format!("{:.1} ms", streams.p99_millis),
            Some(streams.p99_millis <= bound),
        );
        let figures = json!({ "rate": rate, "ours": streams, "bare": plain, "bare_same": same });
        self.figures.insert(format!("latency, {guarantee}"), figures);
    }

    /// Adds the speed of `measured` relative to `peer`. Greater is faster.
    fn ratio(&mut self, name: &str, measured: Speed, peer: Speed, bound: Option<f64>) {
        let wall = peer.wall_micros / measured.wall_micros;
        let process = peer.process_micros / measured.process_micros;
        let thread = peer.thread_micros / measured.thread_micros;
        let text = bound.map_or("-".to_owned(), |bound| format!(">= {bound:.2}"));
        self.row(name, &text, format!("{wall:.2}"), bound.map(|bound| wall >= bound));
        if let Some(row) = self.rows.last_mut() {
            row.by_cpu = format!("{process:.2} / {thread:.2}");
        }
    }

    fn row(&mut self, name: &str, bound: &str, measured: String, holds: Option<bool>) {
        let (name, bound) = (name.to_owned(), bound.to_owned());
        self.rows.push(Row { name, bound, measured, by_cpu: String::new(), holds });
    }

    pub(crate) fn print(&self) {
        println!("\n{:<36} {:>12} {:>10} {:>15}", "", "bound", "measured", "process/thread");
        for row in &self.rows {
            let verdict = match row.holds {
                None => "",
                Some(true) => "ok",
                Some(false) => "MISSED",
            };
            let Row { name, bound, measured, by_cpu, .. } = row;
            println!("{name:<36} {bound:>12} {measured:>10} {by_cpu:>15}  {verdict}");
        }
        println!("Ratios by wall-clock time; then by CPU time, which other load does not change.");
    }

    pub(crate) fn write(self) -> anyhow::Result<()> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder)?;
        let verdicts = self.rows.iter().map(|row| {
            json!({ "name": row.name.trim(), "bound": row.bound, "measured": row.measured,
                "by_cpu": row.by_cpu, "holds": row.holds })
        });
        let all = json!({ "verdicts": verdicts.collect::<Vec<_>>(), "figures": self.figures });
        Ok(fs::write(folder.join("streams.json"), serde_json::to_string_pretty(&all)?)?)
    }
}
