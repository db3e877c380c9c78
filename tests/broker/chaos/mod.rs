//! Chaos test: three instances under a steady load, while processes and broker nodes are killed, stopped and restarted in an
//! order drawn from a seed. At the end, everything committed is compared with a sequential model.
//!
//! ```text
//!   load ──▶ Kafka (3 nodes) ◀──▶ foretell × 3        faults: one at a time, or a second one before recovery
//!               │       ▲                             from the first; after each, wait for full recovery
//!   monitor ◀───┘       └── faults ──▶
//!   at the end: all records sent ─▶ model ─▶ compare ◀─ all records committed
//! ```
//! `make chaos SECONDS=300 SEED=1` runs it for long. By default each kind of fault is injected once.

mod load;
mod model;
mod monitor;

use std::{
    collections::BTreeSet, fmt::Write as _, fs, io::Write as _, path::PathBuf, process::Command,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    application::Application,
    chaos::{load::Load, monitor::PredictionMonitor},
    process::{Http, Process, SOON, at, until},
};

const NAMES: [&str; 3] = ["one", "two", "three"];
const PARTITIONS: usize = 6;
const NODES: u32 = 3;

/// Short timeouts, so that the session of a zombie expires in seconds; and no trainings, which would take CPU time.
const QUICK: &[&str] = &[
    "topics.partitions=6",
    "broker.session_timeout=4s",
    "broker.transaction_timeout=3s",
    "learning.retrain_after=1000000",
    "tuning.iterations_max=30",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// `kill -9`, and a start under the same name: at once, or when other instances have taken over.
    Kill,
    /// SIGSTOP until other instances have taken over, then SIGCONT.
    Zombie,
    /// SIGTERM and a start.
    Restart,
    /// A broker node is killed, and restarted when predictions have been made without it.
    Node,
    /// A second fault before recovery from the first.
    Overlap,
}

/// The two faults of a [`Fault::Overlap`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FaultPair {
    /// One instance is stopped and another is killed at once, so the third takes over all partitions.
    ZombieAndKill,
    /// A broker node is killed, and then an instance, which restarts while the node is down.
    NodeAndKill,
    /// An instance is killed, and a broker node while the other instances take over.
    KillAndNode,
}

impl Fault {
    const ALL: [Self; 5] = [Self::Kill, Self::Zombie, Self::Restart, Self::Node, Self::Overlap];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "instance killed",
            Self::Zombie => "instance stopped past its session",
            Self::Restart => "instance restarted",
            Self::Node => "broker node killed",
            Self::Overlap => "second fault before recovery",
        }
    }
}

struct Instance {
    name: &'static str,
    process: Process,
    http: Http,
}

impl Instance {
    fn start(application: &Application, name: &'static str) -> Self {
        let mut process = application.instance(name);
        let http = process.http();
        Self { name, process, http }
    }

    /// The scoring partitions whose tasks run on this instance.
    fn scoring_partitions(&self) -> BTreeSet<i64> {
        let status = self.http.status();
        let workers = at(&status, "/workers").as_object().unwrap();
        let scoring = workers.iter().filter(|(name, _)| name.contains("-scoring-"));
        let tasks = scoring.flat_map(|(_, worker)| at(worker, "/tasks").as_array().unwrap());
        let running = tasks.filter(|task| at(task, "/state") == "running");
        running.map(|task| at(task, "/partition").as_i64().unwrap()).collect()
    }
}

/// A fault that was injected and recovered from. Times are on the clock of the [`PredictionMonitor`].
struct InjectedFault {
    fault: Fault,
    from: Duration,
    to: Duration,
    /// Predictions committed between `from` and `to`.
    predictions: usize,
}

struct Chaos {
    application: Application,
    instances: Vec<Instance>,
    load: Load,
    monitor: PredictionMonitor,
    rng: StdRng,
    injected: Vec<InjectedFault>,
    /// Logs of the processes that have ended, by instance; printed if the comparison fails.
    logs: Vec<(&'static str, String)>,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let application = Application::new("chaos", QUICK);
        application.init();
        let instances = NAMES.map(|name| Instance::start(&application, name)).into();
        let config = application.config();
        let (monitor, load) = (PredictionMonitor::start(&config), Load::start(config, seed));
        let rng = StdRng::seed_from_u64(seed);
        let (injected, logs) = (Vec::new(), Vec::new());
        Self { application, instances, load, monitor, rng, injected, logs }
    }

    /// Waits until the instances with these indices process all partitions, each of them at least one.
    fn until_shared(&self, indices: &[usize]) {
        let what = format!("instances {indices:?} share the partitions");
        until(&what, SOON, || {
            let instances = indices.iter().map(|index| &self.instances[*index]);
            let shares: Vec<_> = instances.map(Instance::scoring_partitions).collect();
            let all: BTreeSet<i64> = shares.iter().flatten().copied().collect();
            let is_shared = shares.iter().all(|share| !share.is_empty());
            (is_shared && all.len() == PARTITIONS).then_some(())
        });
    }

    /// Waits until all events sent so far are scored.
    fn until_caught_up(&self) {
        let sent = self.load.to_be_scored();
        until("all events sent are scored", SOON, || {
            (self.monitor.predictions() >= sent).then_some(())
        });
    }

    /// Waits for `count` predictions more.
    fn until_predicted(&self, count: usize) {
        let enough = self.monitor.predictions() + count;
        until("predictions continue", SOON, || {
            (self.monitor.predictions() >= enough).then_some(())
        });
    }

    /// Injects a fault while everything runs, and waits for full recovery.
    fn inject(&mut self, fault: Fault) {
        self.until_shared(&[0, 1, 2]);
        self.until_caught_up();
        self.until_predicted(50);
        let (from, before) = (self.monitor.now(), self.monitor.predictions());
        let sent = self.load.to_be_scored();
        let victim = self.rng.random_range(0..NAMES.len());
        let at_once = self.rng.random_bool(0.5);
        let others: Vec<usize> = (0..NAMES.len()).filter(|index| *index != victim).collect();
        let seconds = from.as_secs_f64();
        print_progress(&format!("{seconds:>6.1} s  {fault:?} {victim} at once: {at_once}"));
        match fault {
            Fault::Kill => {
                self.kill(victim);
                if !at_once {
                    self.until_shared(&others);
                }
            }
            Fault::Zombie => {
                self.instances[victim].process.signal("STOP");
                self.until_shared(&others);
                self.until_predicted(50);
                self.instances[victim].process.signal("CONT");
            }
            Fault::Restart => {
                let victim = &mut self.instances[victim].process;
                victim.signal("TERM");
                let status = victim.end(SOON);
                assert_eq!(status.code(), Some(0), "{}", victim.errors());
            }
            Fault::Node => {
                self.kill_node();
                self.until_predicted(100);
                run_script("kafka-up.sh", &[]);
            }
            Fault::Overlap => self.inject_pair(victim, &others),
        }
        if matches!(fault, Fault::Kill | Fault::Restart) {
            self.restart(victim);
        }
        self.until_shared(&[0, 1, 2]);
        self.until_caught_up();
        let predictions = self.monitor.predictions() - before;
        assert!(self.load.to_be_scored() > sent && predictions > 0, "{fault:?}: under load");
        self.injected.push(InjectedFault { fault, from, to: self.monitor.now(), predictions });
    }

    fn inject_pair(&mut self, victim: usize, others: &[usize]) {
        let pairs = [FaultPair::ZombieAndKill, FaultPair::NodeAndKill, FaultPair::KillAndNode];
        // Nodes are killed only in the cluster that the test started.
        let pairs = if own_kafka().is_some() { &pairs[..] } else { &pairs[..1] };
        let pair = pairs[self.rng.random_range(0..pairs.len())];
        print_progress(&format!("          {pair:?}"));
        match pair {
            FaultPair::ZombieAndKill => {
                let (other, last) = (others[0], others[1]);
                self.instances[victim].process.signal("STOP");
                self.kill(other);
                self.until_shared(&[last]);
                self.until_predicted(50);
                self.instances[victim].process.signal("CONT");
                self.restart(other);
            }
            FaultPair::NodeAndKill => {
                self.kill_node();
                self.kill(victim);
                self.restart(victim);
                self.until_predicted(100);
                run_script("kafka-up.sh", &[]);
            }
            FaultPair::KillAndNode => {
                self.kill(victim);
                self.kill_node();
                self.until_predicted(100);
                self.restart(victim);
                run_script("kafka-up.sh", &[]);
            }
        }
    }

    fn kill(&mut self, victim: usize) {
        let victim = &mut self.instances[victim].process;
        victim.signal("KILL");
        assert!(!victim.end(SOON).success());
    }

    /// Starts an instance that has ended, under the same name.
    fn restart(&mut self, victim: usize) {
        let name = self.instances[victim].name;
        self.logs.push((name, self.instances[victim].process.errors()));
        self.instances[victim] = Instance::start(&self.application, name);
    }

    fn kill_node(&mut self) {
        let node = self.rng.random_range(1..=NODES).to_string();
        run_script("kafka-down.sh", &[&node, "--kill"]);
    }

    /// Stops the load and the instances, and compares what they committed with the model. Returns the longest pause of each
    /// fault as well.
    fn end(self) -> (Vec<InjectedFault>, Vec<Duration>, model::Comparison) {
        let Self { instances, load, monitor, application, injected, mut logs, .. } = self;
        let sent = load.stop();
        let expected = model::expected(&sent);
        let to_be_scored: usize = expected.predictions.values().map(Vec::len).sum();
        until("all events are scored", SOON, || {
            (monitor.predictions() >= to_be_scored).then_some(())
        });
        // Nothing shows that the last outcome was joined, so wait until the topics stop changing. A clean stop commits what
        // is in progress; a record that is missing after that is lost.
        let mut committed = monitor::read(&application.config());
        until("the topics stop changing", SOON, || {
            let now = monitor::read(&application.config());
            let is_unchanged = now == committed;
            committed = now;
            is_unchanged.then_some(())
        });
        for mut instance in instances {
            instance.process.signal("TERM");
            let status = instance.process.end(SOON);
            let errors = instance.process.errors();
            assert_eq!(status.code(), Some(0), "{errors}");
            assert!(!errors.contains("panicked"), "{errors}");
            logs.push((instance.name, errors));
        }
        let committed = monitor::read(&application.config());
        let pauses = injected.iter().map(|fault| monitor.pause(fault.from, fault.to)).collect();
        monitor.stop();
        let comparison = model::compare(&sent, &committed);
        if !comparison.is_equal() {
            for (name, log) in logs {
                print_progress(&format!("--- {name}\n{}", warnings(&log)));
            }
        }
        (injected, pauses, comparison)
    }
}

#[test]
fn no_record_is_lost_duplicated_or_reordered_under_chaos() {
    let number = |name| variable(name).map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("FORETELL_CHAOS_SEED").unwrap_or(1);
    let seconds = number("FORETELL_CHAOS_SECONDS").unwrap_or(0);
    let faults = faults();
    let kinds = faults.len();
    print_progress(&format!("chaos: seed {seed}, at least {seconds} s, {kinds} kinds of faults"));
    let mut chaos = Chaos::start(seed);
    loop {
        let mut round = faults.clone();
        round.shuffle(&mut chaos.rng);
        round.into_iter().for_each(|fault| chaos.inject(fault));
        if chaos.monitor.now() >= Duration::from_secs(seconds) {
            break;
        }
    }
    let (injected, pauses, comparison) = chaos.end();
    print_progress(&table(&injected, &pauses, &comparison));
    for fault in faults {
        assert!(injected.iter().any(|one| one.fault == fault), "{fault:?} was not injected");
    }
    let differences: Vec<_> = comparison.differences.iter().take(20).cloned().collect();
    assert!(comparison.is_equal(), "seed {seed}:\n{}", differences.join("\n"));
}

fn table(
    injected: &[InjectedFault],
    pauses: &[Duration],
    comparison: &model::Comparison,
) -> String {
    let mut text =
        format!("\n{:<36}{:>8}{:>15}{:>13}\n", "fault", "times", "longest pause", "predictions");
    for fault in Fault::ALL {
        let of_kind = || injected.iter().zip(pauses).filter(|(one, _)| one.fault == fault);
        let longest = of_kind().map(|(_, pause)| pause.as_secs_f64()).fold(0.0, f64::max);
        let predictions: usize = of_kind().map(|(one, _)| one.predictions).sum();
        let times = of_kind().count();
        writeln!(text, "{:<36}{times:>8}{longest:>13.1} s{predictions:>13}", fault.name()).unwrap();
    }
    let model::Comparison { lost, duplicated, out_of_order, wrong, .. } = comparison;
    writeln!(
        text,
        "lost {lost}, duplicated {duplicated}, out of order {out_of_order}, wrong {wrong}"
    )
    .unwrap();
    text
}

/// The last hundred warnings and errors of a log, without those of connections to a node that is down.
fn warnings(log: &str) -> String {
    let is_relevant =
        |line: &&str| !line.contains(" INFO ") && !line.contains("Connection refused");
    let lines: Vec<&str> = log.lines().filter(is_relevant).collect();
    lines[lines.len().saturating_sub(100)..].join("\n")
}

/// All faults on the cluster that the test started; on another cluster, those that kill no broker node.
fn faults() -> Vec<Fault> {
    let Some(folder) = own_kafka() else {
        print_progress("chaos: the brokers were not started by the test, so no node is killed");
        return Fault::ALL.into_iter().filter(|fault| *fault != Fault::Node).collect();
    };
    let nodes = fs::read_to_string(folder.join("ports")).unwrap().lines().count();
    assert_eq!(
        nodes, 3,
        "chaos needs three nodes: NODES=3 tests/broker/with-broker.sh, or make chaos"
    );
    Fault::ALL.into()
}

/// Folder of the Kafka that `with-broker.sh` started, if it did.
fn own_kafka() -> Option<PathBuf> {
    variable("FORETELL_TEST_KAFKA").map(PathBuf::from)
}

fn run_script(name: &str, arguments: &[&str]) {
    let path = format!("{}/tests/broker/{name}", env!("CARGO_MANIFEST_DIR"));
    let folder = own_kafka().expect("nodes are killed in the test's own cluster only");
    let mut command = Command::new(path);
    let output = command.arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::disallowed_methods, reason = "a test target is configured by its environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Prints progress to standard error, which the test runner does not capture.
fn print_progress(text: &str) {
    // `eprintln!` would be captured; a closed standard error is no reason to fail.
    let written = writeln!(std::io::stderr(), "{text}");
    drop(written);
}
