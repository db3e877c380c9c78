//! `foretell run` on a real Kafka with more partitions, more threads, and stores on disk, beside bare loops.

use foretell_ml::ModelBundle;

use crate::{
    drained::{Application, Drained},
    growth::progress,
    limit,
    measure::usage::Speed,
};

/// Partitions and threads.
const SHAPES: [(usize, usize); 3] = [(1, 1), (4, 1), (4, 2)];
const DISK_ROUNDS: usize = 3;

/// The job and the bare loop that moves the same records with as many partitions and threads.
#[derive(Debug, serde::Serialize)]
pub(crate) struct Shape {
    pub(crate) partitions: usize,
    pub(crate) threads: usize,
    pub(crate) job: Drained,
    pub(crate) bare: Speed,
}

pub(crate) fn scale(model: &ModelBundle, events: usize) -> anyhow::Result<Vec<Shape>> {
    let mut shapes = Vec::new();
    for (partitions, threads) in SHAPES {
        progress(&format!("a backlog on {partitions} partitions, {threads} threads"));
        let application =
            Application::prepare(model, &[format!("topics.partitions={partitions}")])?;
        application.publish_backlog(events)?;
        let job = application.drain(threads, events)?;
        let traffic = application.traffic(events)?;
        let bare = limit::measure(&application, &traffic, events, threads)?;
        progress(&format!("{job:.1?}\nbare: {bare:.1?}"));
        shapes.push(Shape { partitions, threads, job, bare });
    }
    Ok(shapes)
}

/// The job with stores in memory and on disk, each several times in turns.
#[derive(Debug, Default, serde::Serialize)]
pub(crate) struct Disk {
    pub(crate) memory: Vec<Drained>,
    pub(crate) disk: Vec<Drained>,
}

pub(crate) fn disk(model: &ModelBundle, events: usize) -> anyhow::Result<Disk> {
    let mut both = Disk::default();
    for _ in 0..DISK_ROUNDS {
        let folder = tempfile::tempdir()?;
        let on_disk = vec![format!("streams.state_dir={}", folder.path().display())];
        for (place, settings, runs) in
            [("in memory", Vec::new(), &mut both.memory), ("on disk", on_disk, &mut both.disk)]
        {
            progress(&format!("a backlog with stores {place}"));
            let application = Application::prepare(model, &settings)?;
            application.publish_backlog(events)?;
            let run = application.drain(1, events)?;
            progress(&format!("{run:.1?}"));
            runs.push(run);
        }
    }
    Ok(both)
}
