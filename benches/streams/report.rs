//! The measurements of a run, compared with their bounds.

use foretell_streams::state::Access;
use serde_json::json;

use crate::{
    Throughput,
    failover::{Failover, SESSION},
    latency::Latency,
    measure::{
        bare::COMMIT_INTERVAL,
        verdicts::{Bound, Verdicts},
    },
    recent::Cost,
    usage::Speed,
};

/// All measurements of a run.
#[derive(Default)]
pub(crate) struct Report(Verdicts);

impl Report {
    pub(crate) fn memory(&mut self, access: Access, entry: f64, payload: f64) {
        let name = format!("memory over {payload} bytes, {access:?}");
        self.0.row(&name, "-", format!("{:.0} bytes", entry - payload), None);
        self.0.figure(&name, json!({ "entry": entry, "payload": payload }));
    }

    /// The memory of a recent event has a bound, the time to recognise a repeat has none.
    pub(crate) fn recent(&mut self, cost: &Cost) {
        let Cost { bytes, thread_micros } = cost;
        let name = "memory of a recent event";
        self.0.row(name, "<= 64 bytes", format!("{bytes:.0} bytes"), Some(*bytes <= 64.0));
        self.0.row("  to look it up and store it", "-", format!("{thread_micros:.2} µs"), None);
        self.0.figure(name, json!({ "bytes": bytes, "micros": thread_micros }));
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
        self.0.figure("throughput", figures);
    }

    pub(crate) fn restore(&mut self, streams: Speed, bare: Speed) {
        self.ratio("restore, to a bare consumer", streams, bare, Some(0.6));
        self.0.figure("restore", json!({ "ours": streams, "bare": bare }));
    }

    /// With a standby, a failover takes the session timeout and less than a second, whatever the size of the state.
    pub(crate) fn failover(&mut self, failover: &Failover) {
        let Failover { entries, is_warm, seconds_from_kill, seconds_from_assignment, restored } =
            failover;
        let how = if *is_warm { "warm" } else { "cold" };
        let bound = SESSION.as_secs_f64() + 1.0;
        let text = if *is_warm { format!("< {bound:.1} s") } else { "-".to_owned() };
        self.0.row(
            &format!("failover, {entries} entries, {how}"),
            &text,
            format!("{seconds_from_kill:.2} s"),
            is_warm.then_some(*seconds_from_kill < bound),
        );
        let from_assignment = format!("{seconds_from_assignment:.2} s");
        self.0.row("  from the assignment", "-", from_assignment, None);
        let figures = json!({
            "session_seconds": SESSION.as_secs_f64(), "seconds_from_kill": seconds_from_kill,
            "seconds_from_assignment": seconds_from_assignment, "restored": restored,
        });
        self.0.figure(&format!("failover, {entries}, {how}"), figures);
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
        self.0.row(
            &format!("p99 at {rate:.0}/s, {guarantee}"),
            &format!("<= {bound:.1} ms"),
            format!("{:.1} ms", streams.p99_millis),
            Some(streams.p99_millis <= bound),
        );
        let figures = json!({ "rate": rate, "ours": streams, "bare": plain, "bare_same": same });
        self.0.figure(&format!("latency, {guarantee}"), figures);
    }

    /// Adds the speed of `measured` relative to `peer`. Greater is faster.
    fn ratio(&mut self, name: &str, measured: Speed, peer: Speed, bound: Option<f64>) {
        let wall = peer.wall_micros / measured.wall_micros;
        let process = peer.process_micros / measured.process_micros;
        let thread = peer.thread_micros / measured.thread_micros;
        self.0.ratio(name, wall, bound.map(Bound::AtLeast));
        self.0.besides(format!("{process:.2} / {thread:.2}"));
    }

    pub(crate) fn print(&self) {
        self.0.print("process / thread");
        println!("Ratios by wall-clock time; then by CPU time, which other load does not change.");
    }

    pub(crate) fn write(self) -> anyhow::Result<()> {
        self.0.write("streams")
    }
}
