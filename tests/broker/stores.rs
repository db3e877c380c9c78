//! Stores on disk of real processes: how much a restart and a failover restore, and the errors of an unusable folder and a
//! full disk.

use std::{fs, path::Path};

use crate::{
    application::Application,
    process::{Http, Process, SOON, until},
};

const FIRST: usize = 600;
const SECOND: usize = 200;
pub(crate) const RESTORED: &str = "foretell_stream_task_restore_records_total";

/// Starts instance `one`, and waits until all its tasks are restored and run.
pub(crate) fn ready(application: &Application) -> (Process, Http) {
    let mut process = application.instance("one");
    let http = process.http();
    http.ready();
    until("its tasks run", SOON, || {
        let remaining = http.metric("foretell_stream_task_restore_remaining_records");
        let workers = http.status();
        let tasks = workers.pointer("/workers")?.as_object()?.values();
        let count: usize = tasks.filter_map(|worker| Some(worker["tasks"].as_array()?.len())).sum();
        // Four scoring tasks and the learning task.
        (count == 5 && remaining < 1.0).then_some(())
    });
    (process, http)
}

/// Sends `count` events and their outcomes, and waits for the predictions.
pub(crate) fn send(application: &Application, count: usize, seed: &str) {
    let count = count.to_string();
    let send = ["send", "--quiet", "--limit", &count, "--rate", "400", "--outcome-delay", "1s"];
    let sent = application.start(&[&send[..], &["--seed", seed]].concat()).succeed(SOON);
    assert!(sent.contains(&format!("{count} of {count} predictions came back")), "{sent}");
}

/// Waits until `count` events are scored and all their outcomes joined, exactly once.
pub(crate) fn until_joined(application: &Application, count: usize) {
    until("every outcome joined", SOON, || {
        let topics = application.topics();
        topics.check_exactly_once();
        (topics.completed.len() == count && topics.labelled.len() == topics.outcomes.len())
            .then_some(())
    });
}

#[test]
fn a_restart_restores_only_what_came_after_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = format!("streams.state_dir={}", folder.path().display());
    let more = [&state_dir, "broker.session_timeout=6s", "broker.transaction_timeout=5s"];
    let application = Application::new("stores", &more);
    application.init();

    let (mut process, _) = ready(&application);
    send(&application, FIRST, "1");
    until_joined(&application, FIRST);
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());

    // After a clean stop there is nothing to restore.
    let (mut process, http) = ready(&application);
    let restored = http.metric(RESTORED);
    assert!(restored < 1.0, "{restored}: {}", process.errors());
    let mut second = application.instance("one");
    assert!(!second.end(SOON).success());
    assert!(second.errors().contains("another process has its stores"), "{}", second.errors());
    send(&application, SECOND, "2");
    process.signal("KILL");
    assert!(!process.end(SOON).success());

    // After a kill, at most what came after the last checkpoint is restored. The changelogs have about three records an event.
    let (mut process, http) = ready(&application);
    let restored = http.metric(RESTORED);
    assert!(restored < (FIRST + SECOND) as f64, "{restored} records restored");
    until_joined(&application, FIRST + SECOND);
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());

    // Without its folder, everything is restored from the changelogs.
    fs::remove_dir_all(folder.path()).unwrap();
    let (mut process, http) = ready(&application);
    let restored = http.metric(RESTORED);
    assert!(restored >= FIRST as f64, "{restored}");
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}

/// The second instance has standby stores of the first one's tasks, so it restores little when it takes them over.
#[test]
fn a_standby_takes_over_with_a_short_restore() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = format!("streams.state_dir={}", folder.path().display());
    let more = [
        &state_dir,
        "streams.standby=true",
        "broker.session_timeout=6s",
        "broker.transaction_timeout=5s",
    ];
    let application = Application::new("standby", &more);
    application.init();
    let (mut first, _) = ready(&application);
    let mut second = application.instance("two");
    let two = second.http();
    two.ready();
    // It has two of the four scoring tasks, and three standby tasks: the other two and the learning task.
    let standbys = |http: &Http| http.metric("foretell_stream_standby_tasks");
    until("the standby tasks run", SOON, || (standbys(&two) > 2.5).then_some(()));
    send(&application, FIRST, "1");
    until_joined(&application, FIRST);
    until("the standby tasks have no lag", SOON, || {
        (two.metric("foretell_stream_standby_lag_records") < 1.0).then_some(())
    });
    let before = two.metric(RESTORED);
    first.signal("KILL");
    assert!(!first.end(SOON).success());
    until("it has taken over", SOON, || (standbys(&two) < 0.5).then_some(()));
    send(&application, SECOND, "2");
    until_joined(&application, FIRST + SECOND);
    let restored = two.metric(RESTORED) - before;
    assert!(restored < SECOND as f64, "{restored}");
    second.signal("TERM");
    assert_eq!(second.end(SOON).code(), Some(0), "{}", second.errors());
}

#[test]
fn a_state_dir_that_cannot_be_written_to_is_reported_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let file: &Path = &folder.path().join("file");
    fs::write(file, "not a folder").unwrap();
    let state_dir = format!("streams.state_dir={}", file.display());
    let application = Application::new("unwritable", &[&state_dir]);
    application.init();
    let mut process = application.instance("one");
    assert_eq!(process.end(SOON).code(), Some(1));
    let errors = process.errors();
    assert!(errors.contains("cannot keep stores in") && errors.contains("state_dir"), "{errors}");
}

/// A limit of 64 KiB on the size of files makes writes fail as on a full disk.
#[test]
fn a_full_disk_stops_the_instance_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let state_dir = format!("streams.state_dir={}", folder.path().display());
    let more = [&state_dir, "broker.session_timeout=6s", "broker.transaction_timeout=5s"];
    let application = Application::new("full", &more);
    application.init();
    let mut process = application.instance_after("trap '' XFSZ", "one");
    let http = process.http();
    http.ready();
    process.run_on("prlimit --fsize=65536:65536 --pid");
    let sending = application.start(&[
        "send",
        "--quiet",
        "--limit",
        "400",
        "--rate",
        "400",
        "--outcome-delay",
        "1s",
    ]);
    assert!(!process.end(SOON).success());
    let errors = process.errors();
    assert!(errors.contains("cannot use the stores on disk"), "{errors}");

    let (mut process, _) = ready(&application);
    sending.succeed(SOON);
    until_joined(&application, 400);
    process.signal("TERM");
    assert_eq!(process.end(SOON).code(), Some(0), "{}", process.errors());
}
