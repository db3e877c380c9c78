//! Three instances under a steady load, while processes and brokers die, stop and come back in an order drawn
//! from a seed; then everything committed is held against a plain sequential model.
//!
//! ```text
//!   load ──▶ Kafka (3 nodes) ◀──▶ foretell × 3        faults: one at a time, or a second one before the first
//!               │       ▲                             is over; then waited for until everything flows again
//!   watch ◀─────┘       └── faults ──▶
//!   in the end: everything sent ─▶ model ─▶ compare ◀─ everything committed
//! ```
//! `make chaos SECONDS=300 SEED=1` is a long one. Without parameters, one fault of each kind.

mod load;
mod model;
mod watch;

use std::{
    collections::BTreeSet, fmt::Write as _, fs, io::Write as _, path::PathBuf, process::Command,
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};

use crate::{
    application::Application,
    chaos::{load::Load, watch::Watch},
    process::{Http, Process, SOON, at, until},
};

const NAMES: [&str; 3] = ["one", "two", "three"];
const PARTITIONS: usize = 6;
const NODES: u32 = 3;

/// A zombie's session runs out in seconds. Nothing is trained, which would take the machine from the rest.
const QUICK: &[&str] = &[
    "topics.partitions=6",
    "broker.session_timeout=4s",
    "broker.transaction_timeout=3s",
    "learning.retrain_after=1000000",
    "tuning.iterations_max=30",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    /// `kill -9`, and a start under the same name: at once, or when others have taken over.
    Kill,
    /// SIGSTOP until others have taken over, then SIGCONT.
    Zombie,
    /// SIGTERM and a start.
    Restart,
    /// A broker's node is killed, and brought back when predictions have come without it.
    Node,
    /// A second fault before anybody has got over the first.
    Overlap,
}

/// Which two come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pair {
    /// One instance is stopped, another is killed at once: the third one alone takes everything over.
    ZombieAndKill,
    /// A broker's node is killed, and then an instance, which starts again while the node is away.
    NodeAndKill,
    /// An instance is killed, and a broker's node while the others take over.
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
            Self::Overlap => "a second one before that is over",
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

    /// The scoring partitions that it processes.
    fn scores(&self) -> BTreeSet<i64> {
        let status = self.http.status();
        let workers = at(&status, "/workers").as_object().unwrap();
        let scoring = workers.iter().filter(|(name, _)| name.contains("-scoring-"));
        let tasks = scoring.flat_map(|(_, worker)| at(worker, "/tasks").as_array().unwrap());
        let running = tasks.filter(|task| at(task, "/state") == "running");
        running.map(|task| at(task, "/partition").as_i64().unwrap()).collect()
    }
}

/// What a fault was like.
struct Happened {
    fault: Fault,
    from: Duration,
    to: Duration,
    /// Predictions committed meanwhile.
    predictions: usize,
}

struct Chaos {
    application: Application,
    instances: Vec<Instance>,
    load: Load,
    watch: Watch,
    dice: StdRng,
    happened: Vec<Happened>,
    /// What each life of an instance has logged, for when something is missing in the end.
    logs: Vec<(&'static str, String)>,
}

impl Chaos {
    fn start(seed: u64) -> Self {
        let application = Application::new("chaos", QUICK);
        application.init();
        let instances = NAMES.map(|name| Instance::start(&application, name)).into();
        let config = application.config();
        let (watch, load) = (Watch::start(&config), Load::start(config, seed));
        let dice = StdRng::seed_from_u64(seed);
        Self { application, instances, load, watch, dice, happened: Vec::new(), logs: Vec::new() }
    }

    /// Waits until `who` process all partitions, each of them some.
    fn until_shared(&self, who: &[usize]) {
        let what = format!("instances {who:?} share the partitions");
        until(&what, SOON, || {
            let shares: Vec<_> = who.iter().map(|index| self.instances[*index].scores()).collect();
            let all: BTreeSet<i64> = shares.iter().flatten().copied().collect();
            let is_shared = shares.iter().all(|share| !share.is_empty());
            (is_shared && all.len() == PARTITIONS).then_some(())
        });
    }

    /// Waits until what has been sent by now is predicted.
    fn until_caught_up(&self) {
        let sent = self.load.to_be_scored();
        until("what was sent is predicted", SOON, || {
            (self.watch.predictions() >= sent).then_some(())
        });
    }

    fn until_predicted(&self, more: usize) {
        let enough = self.watch.predictions() + more;
        until("predictions go on", SOON, || (self.watch.predictions() >= enough).then_some(()));
    }

    fn strike(&mut self, fault: Fault) {
        self.until_shared(&[0, 1, 2]);
        self.until_caught_up();
        self.until_predicted(50);
        let (from, before) = (self.watch.now(), self.watch.predictions());
        let sent = self.load.to_be_scored();
        let victim = self.dice.random_range(0..NAMES.len());
        let at_once = self.dice.random_bool(0.5);
        let others: Vec<usize> = (0..NAMES.len()).filter(|index| *index != victim).collect();
        tell(&format!("{:>6.1} s  {fault:?} {victim} at once: {at_once}", from.as_secs_f64()));
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
                script("kafka-up.sh", &[]);
            }
            Fault::Overlap => self.strike_twice(victim, &others),
        }
        if matches!(fault, Fault::Kill | Fault::Restart) {
            self.start_again(victim);
        }
        self.until_shared(&[0, 1, 2]);
        self.until_caught_up();
        let predictions = self.watch.predictions() - before;
        assert!(self.load.to_be_scored() > sent && predictions > 0, "{fault:?}: under load");
        self.happened.push(Happened { fault, from, to: self.watch.now(), predictions });
    }

    fn strike_twice(&mut self, victim: usize, others: &[usize]) {
        let pairs = [Pair::ZombieAndKill, Pair::NodeAndKill, Pair::KillAndNode];
        // The nodes of somebody else's cluster are not ours to kill.
        let pairs = if kafka().is_some() { &pairs[..] } else { &pairs[..1] };
        let pair = pairs[self.dice.random_range(0..pairs.len())];
        tell(&format!("          {pair:?}"));
        match pair {
            Pair::ZombieAndKill => {
                let (other, last) = (others[0], others[1]);
                self.instances[victim].process.signal("STOP");
                self.kill(other);
                self.until_shared(&[last]);
                self.until_predicted(50);
                self.instances[victim].process.signal("CONT");
                self.start_again(other);
            }
            Pair::NodeAndKill => {
                self.kill_node();
                self.kill(victim);
                self.start_again(victim);
                self.until_predicted(100);
                script("kafka-up.sh", &[]);
            }
            Pair::KillAndNode => {
                self.kill(victim);
                self.kill_node();
                self.until_predicted(100);
                self.start_again(victim);
                script("kafka-up.sh", &[]);
            }
        }
    }

    fn kill(&mut self, victim: usize) {
        let victim = &mut self.instances[victim].process;
        victim.signal("KILL");
        assert!(!victim.end(SOON).success());
    }

    fn start_again(&mut self, victim: usize) {
        let name = self.instances[victim].name;
        self.logs.push((name, self.instances[victim].process.errors()));
        self.instances[victim] = Instance::start(&self.application, name);
    }

    fn kill_node(&mut self) {
        let node = self.dice.random_range(1..=NODES).to_string();
        script("kafka-down.sh", &[&node, "--kill"]);
    }

    /// Stops the load, waits until nothing is under way, and compares.
    fn end(self) -> (Vec<Happened>, Vec<Duration>, model::Verdict) {
        let Self { instances, load, watch, application, happened, mut logs, .. } = self;
        let sent = load.stop();
        let wanted = model::expected(&sent);
        let to_be_scored: usize = wanted.predictions.values().map(Vec::len).sum();
        until("everything is predicted", SOON, || {
            (watch.predictions() >= to_be_scored).then_some(())
        });
        // An orderly stop commits what is under way; if something is missing after that, it is lost. Twice the
        // same is no wait for a result: outcomes have no sign of their own that the last one was joined.
        let mut found = watch::read(&application.config());
        until("the topics rest", SOON, || {
            let again = watch::read(&application.config());
            let is_at_rest = again == found;
            found = again;
            is_at_rest.then_some(())
        });
        for mut instance in instances {
            instance.process.signal("TERM");
            let status = instance.process.end(SOON);
            let errors = instance.process.errors();
            assert_eq!(status.code(), Some(0), "{errors}");
            assert!(!errors.contains("panicked"), "{errors}");
            logs.push((instance.name, errors));
        }
        let found = watch::read(&application.config());
        let pauses = happened.iter().map(|one| watch.pause(one.from, one.to)).collect();
        watch.stop();
        let verdict = model::compare(&sent, &found);
        if !verdict.is_clean() {
            logs.iter().for_each(|(name, log)| tell(&format!("--- {name}\n{}", warnings(log))));
        }
        (happened, pauses, verdict)
    }
}

#[test]
fn nothing_is_lost_doubled_or_out_of_order_whatever_dies() {
    let number = |name| variable(name).map(|text| text.parse::<u64>().expect("a number"));
    let seed = number("FORETELL_CHAOS_SEED").unwrap_or(1);
    let seconds = number("FORETELL_CHAOS_SECONDS").unwrap_or(0);
    let faults = faults();
    tell(&format!("chaos: seed {seed}, at least {seconds} s, {} kinds of faults", faults.len()));
    let mut chaos = Chaos::start(seed);
    loop {
        let mut round = faults.clone();
        round.shuffle(&mut chaos.dice);
        round.into_iter().for_each(|fault| chaos.strike(fault));
        if chaos.watch.now() >= Duration::from_secs(seconds) {
            break;
        }
    }
    let (happened, pauses, verdict) = chaos.end();
    tell(&table(&happened, &pauses, &verdict));
    for fault in faults {
        assert!(happened.iter().any(|one| one.fault == fault), "{fault:?} never happened");
    }
    let findings = verdict.findings.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(verdict.is_clean(), "seed {seed}:\n{findings}");
}

fn table(happened: &[Happened], pauses: &[Duration], verdict: &model::Verdict) -> String {
    let mut text =
        format!("\n{:<36}{:>8}{:>15}{:>13}\n", "fault", "times", "longest pause", "predictions");
    for fault in Fault::ALL {
        let these = || happened.iter().zip(pauses).filter(|(one, _)| one.fault == fault);
        let longest = these().map(|(_, pause)| pause.as_secs_f64()).fold(0.0, f64::max);
        let predictions: usize = these().map(|(one, _)| one.predictions).sum();
        let times = these().count();
        writeln!(text, "{:<36}{times:>8}{longest:>13.1} s{predictions:>13}", fault.name()).unwrap();
    }
    let model::Verdict { lost, doubled, out_of_order, wrong, .. } = verdict;
    writeln!(text, "lost {lost}, doubled {doubled}, out of order {out_of_order}, wrong {wrong}")
        .unwrap();
    text
}

/// The last of them, without what is said of every broker that is away.
fn warnings(log: &str) -> String {
    let is_told = |line: &&str| !line.contains(" INFO ") && !line.contains("Connection refused");
    let lines: Vec<&str> = log.lines().filter(is_told).collect();
    lines[lines.len().saturating_sub(100)..].join("\n")
}

/// All, on our own three nodes; without the nodes' own on somebody else's cluster, which is not ours to kill.
fn faults() -> Vec<Fault> {
    let Some(folder) = kafka() else {
        tell("chaos: FORETELL_TEST_BROKERS is not ours, so its nodes live on");
        return Fault::ALL.into_iter().filter(|fault| *fault != Fault::Node).collect();
    };
    let nodes = fs::read_to_string(folder.join("ports")).unwrap().lines().count();
    assert_eq!(
        nodes, 3,
        "chaos needs three nodes: NODES=3 tests/broker/with-broker.sh, or make chaos"
    );
    Fault::ALL.into()
}

fn kafka() -> Option<PathBuf> {
    variable("FORETELL_TEST_KAFKA").map(PathBuf::from)
}

fn script(name: &str, arguments: &[&str]) {
    let path = format!("{}/tests/broker/{name}", env!("CARGO_MANIFEST_DIR"));
    let folder = kafka().expect("the fault is drawn with our own nodes only");
    let mut command = Command::new(path);
    let output = command.arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

#[expect(clippy::disallowed_methods, reason = "a test target is told by its environment")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// To a person who watches, also where the output of tests is captured.
fn tell(text: &str) {
    // Not printed, which a lint forbids; a terminal that is gone is no reason to fail.
    let told = writeln!(std::io::stderr(), "{text}");
    drop(told);
}
