//! The ratios between sizes, with their bounds.

use serde_json::json;

use crate::{
    drained::Drained,
    growth::{
        entries::Grown,
        on_kafka::{Disk, Shape},
        restore::Restored,
    },
    measure::{
        usage::median,
        verdicts::{Bound, Verdicts},
    },
};

/// Of the cost of an event: flat.
const FLAT_MAX: f64 = 1.15;
/// Of an entry's memory over its encoded bytes.
const OVERHEAD_BYTES_MAX: f64 = 100.0;
/// Of a recent event's memory.
const RECENT_EVENT_BYTES_MAX: f64 = 64.0;
/// Of the CPU with stores on disk, to that with stores in memory.
const DISK_MAX: f64 = 1.3;
/// Of the speed of a restore, to that of a bare consumer.
const RESTORE_MIN: f64 = 0.8;

#[derive(Default)]
pub(crate) struct Report(Verdicts);

impl Report {
    pub(crate) fn pending(&mut self, sizes: &[Grown]) {
        let entries = |size: &Grown| format!("{} predictions wait", size.entries);
        self.flat(sizes, entries);
        if let Some(largest) = sizes.last() {
            self.memory("memory of a waiting prediction", largest, OVERHEAD_BYTES_MAX);
        }
        self.0.figure("pending", json!(sizes));
    }

    pub(crate) fn keys(&mut self, sizes: &[Grown]) {
        let entries = |size: &Grown| format!("{} respondents", size.entries);
        self.flat(sizes, entries);
        if let Some(largest) = sizes.last() {
            let overhead = OVERHEAD_BYTES_MAX + RECENT_EVENT_BYTES_MAX;
            self.memory("memory of an observation and an event", largest, overhead);
        }
        self.0.figure("keys", json!(sizes));
    }

    /// The cost of an event at each size, to that at the first.
    fn flat(&mut self, sizes: &[Grown], name: impl Fn(&Grown) -> String) {
        let Some(first) = sizes.first() else { return };
        for size in sizes {
            let bound = (size.entries > first.entries).then_some(Bound::AtMost(FLAT_MAX));
            self.0.ratio(&format!("CPU an event, {}", name(size)), size.growth, bound);
            let stages = size.stages.iter().filter(|(_, cost)| cost.micros >= 0.05);
            let stages = stages.map(|(stage, cost)| format!("{stage} {:.2}", cost.micros));
            self.0.besides(format!(
                "{:.2} µs ({}), {:.1} allocations",
                size.cost.micros,
                stages.collect::<Vec<_>>().join(", "),
                size.cost.allocations
            ));
        }
    }

    fn memory(&mut self, name: &str, size: &Grown, overhead: f64) {
        let bound = size.encoded_bytes + overhead;
        let holds = size.bytes_an_entry <= bound;
        let measured = format!("{:.0} bytes", size.bytes_an_entry);
        self.0.row(name, &format!("<= {bound:.0} bytes"), measured, Some(holds));
        self.0.besides(format!("{:.0} bytes encoded", size.encoded_bytes));
        let longest = format!("{:.0} ms", size.longest_commit_millis);
        self.0.row("longest commit while it was filled", "-", longest, None);
    }

    pub(crate) fn restore(&mut self, restored: &Restored) {
        let Restored { entries, restore, bare, bytes_an_entry, encoded_bytes } = restored;
        self.0.ratio(
            &format!("restore of {entries} predictions, to a bare consumer"),
            bare.wall_micros / restore.wall_micros,
            Some(Bound::AtLeast(RESTORE_MIN)),
        );
        self.0.besides(format!(
            "{:.2} µs a record, {:.2} bare; CPU {:.2}, {:.2}",
            restore.wall_micros, bare.wall_micros, restore.process_micros, bare.process_micros
        ));
        let bound = encoded_bytes + OVERHEAD_BYTES_MAX;
        let measured = format!("{bytes_an_entry:.0} bytes");
        let holds = *bytes_an_entry <= bound;
        let name = "memory of a restored prediction";
        self.0.row(name, &format!("<= {bound:.0} bytes"), measured, Some(holds));
        self.0.besides(format!("{encoded_bytes:.0} bytes encoded"));
        self.0.figure("restore", json!(restored));
    }

    /// The CPU of the workers must stay. What librdkafka needs besides grows with partitions and threads, by smaller batches and
    /// more transactions; it and the speed, beside the broker on the same cores, may change as much as in the bare loop.
    pub(crate) fn scale(&mut self, shapes: &[Shape]) {
        let Some(first) = shapes.first() else { return };
        let bare_speed = |shape: &Shape| 1e6 / shape.bare.wall_micros;
        for shape in shapes {
            let Shape { partitions, threads, job, bare } = shape;
            let is_first = (*partitions, *threads) == (first.partitions, first.threads);
            self.0.ratio(
                &format!("workers' CPU an event, {partitions} partitions, {threads} threads"),
                workers(job) / workers(&first.job),
                (!is_first).then_some(Bound::AtMost(FLAT_MAX)),
            );
            self.0.besides(format!("{:.1} µs", workers(job)));
            self.0.ratio("  of the process", job.cpu_micros / first.job.cpu_micros, None);
            self.0.besides(format!(
                "{:.1} µs; bare {:.1}, {:.2} of its first",
                job.cpu_micros,
                bare.process_micros,
                bare.process_micros / first.bare.process_micros
            ));
            self.0.ratio("  speed", job.events_a_second / first.job.events_a_second, None);
            self.0.besides(format!(
                "{:.0} events/s; bare {:.0}, {:.2} of its first",
                job.events_a_second,
                bare_speed(shape),
                bare_speed(shape) / bare_speed(first)
            ));
        }
        self.0.figure("scale", json!(shapes));
    }

    pub(crate) fn disk(&mut self, disk: &Disk) {
        let micros = |runs: &[Drained]| median(runs.iter().map(|run| run.cpu_micros).collect());
        let (in_memory, on_disk) = (micros(&disk.memory), micros(&disk.disk));
        let bound = Some(Bound::AtMost(DISK_MAX));
        self.0.ratio("CPU an event, stores on disk to in memory", on_disk / in_memory, bound);
        self.0.besides(format!("{on_disk:.1} µs, {in_memory:.1}"));
        self.0.figure("disk", json!(disk));
    }

    pub(crate) fn finish(self) -> anyhow::Result<()> {
        self.0.print("");
        println!("Ratios are to the first of their kind.");
        self.0.write("growth")
    }
}

/// CPU microseconds an event of the workers' threads.
fn workers(job: &Drained) -> f64 {
    job.cpu_micros_by_thread.get("workers").copied().unwrap_or_default()
}
