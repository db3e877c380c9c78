//! Several instances on one broker, a clock turned by hand, and whatever can go wrong, all from one seed: the
//! crashes, the zombies, the lost answers. What comes out is held against a plain sequential model.
//!
//! ```text
//!   seed ─▶ FaultInjector ─▶ FaultyBroker ─▶ LocalBroker      every call may fail; for a while, all of them
//!             ├──────▶ FaultyReader                     records with an error; an end that is told again
//!             ├──────▶ FaultyMember ─▶ a queue          at least once: accepted is not written
//!             ├──────▶ Disk                             lost, damaged, older than what was written
//!             ├──────▶ processes                        one stalls in a call, the others go on
//!             └──────▶ World: turn, start, stop, kill, stall, put, let time pass, make all topics again
//!                        └─ when it is calm again ─▶ Model::check, or ::check_at_least_once
//! ```
//! Faults overlap: an instance that recovers gets more faults than others; several die or stall at the same time; the
//! broker is away while tasks move and restore. Event times are not those of the records: there are backfills from before
//! the start, in several orders, producers whose clocks are fast, and partitions that fall silent. In every fourth seed nobody
//! crashes, so that one life sees many fences, damages and takeovers: an instance may only end for what it has been through since
//! its last success (`process`). In half of the seeds all topics are deleted and recreated, and disks are of the old ones. The table counts how many faults came while somebody was still joining,
//! restoring, or cut off.
//!
//! `make simulation SEEDS=200 FIRST=1`; a failure prints its seed, and the last of what happened.

#![expect(clippy::print_stdout, reason = "what `make simulation` shows")]

mod at_least_once;
mod disk;
mod fault_injector;
mod faults;
mod member;
mod model;
mod process;
mod processes;
mod settle;
mod workload;
mod world;

use std::{env, fmt::Write as _, thread};

use crate::{
    planted::Planted,
    runtime::broker::ProcessingGuarantee,
    simulation::{
        fault_injector::{Bug, Fault, FaultCounts},
        world::{Outcome, SESSION_TIMEOUT, Setting, TRANSACTION_TIMEOUT, simulate},
    },
};

use ProcessingGuarantee::{AtLeastOnce, ExactlyOnce};

fn setting(guarantee: ProcessingGuarantee, bug: Option<Bug>) -> Setting {
    // A zombie's commit meets two guards. To see what the group's is worth, the other one, that its
    // transaction has timed out, is taken away.
    // And nothing else leaves transactions open for long enough for a restore to find them.
    let is_endless =
        matches!(bug, Some(Bug::StaleGroupMetadata | Bug::InTheLayer(Planted::ReaderNotReopened)));
    let transaction_timeout = if is_endless { SESSION_TIMEOUT * 3 } else { TRANSACTION_TIMEOUT };
    Setting { guarantee, bug, favoured: bug.and_then(Bug::favoured), transaction_timeout }
}

/// What many seeds came to.
#[derive(Default)]
struct Sum {
    fault_counts: FaultCounts,
    records: u64,
    zombie_tasks: usize,
    violations: Vec<String>,
}

impl Sum {
    fn of(seeds: impl Iterator<Item = u64>, setting: Setting) -> Self {
        let mut sum = Self::default();
        for seed in seeds {
            match simulate(seed, setting) {
                Ok(outcome) => sum.add(outcome),
                Err(wrong) => sum.violations.push(wrong),
            }
        }
        sum
    }

    fn add(&mut self, outcome: Outcome) {
        self.records += outcome.records;
        self.zombie_tasks += outcome.zombie_tasks;
        self.fault_counts.overlapping += outcome.fault_counts.overlapping;
        for (fault, times) in outcome.fault_counts.faults {
            *self.fault_counts.faults.entry(fault).or_default() += times;
        }
    }
}

/// `name` from the environment, or else `default`.
#[expect(clippy::disallowed_methods, reason = "`make simulation` says which seeds")]
fn number(name: &str, default: u64) -> u64 {
    env::var(name).map_or(default, |text| text.parse().expect("a number"))
}

fn table(first: u64, seeds: u64, [exactly, at_least]: &[Sum; 2]) -> String {
    let mut text = String::new();
    let last = first + seeds - 1;
    let title = format!("seeds {first} to {last}");
    writeln!(text, "\n{title:<36}{:>14}{:>15}", "exactly once", "at least once").unwrap();
    let mut row = |what: &str, one: String, other: String| {
        writeln!(text, "{what:<36}{one:>14}{other:>15}").unwrap();
    };
    let mut count = |what: &str, of: &dyn Fn(&Sum) -> u64| {
        row(what, of(exactly).to_string(), of(at_least).to_string());
    };
    count("records", &|sum| sum.records);
    for fault in Fault::ALL {
        count(fault.name(), &|sum| {
            sum.fault_counts.faults.get(&fault).map_or(0, |times| *times as u64)
        });
    }
    let is_trouble = |(fault, _): &(&Fault, &usize)| **fault != Fault::EndToldAgain;
    count("faults in all", &|sum| {
        sum.fault_counts.faults.iter().filter(is_trouble).map(|(_, times)| *times as u64).sum()
    });
    count("  of these amid a recovery", &|sum| sum.fault_counts.overlapping as u64);
    count("tasks a zombie wrote for", &|sum| sum.zombie_tasks as u64);
    count("violations", &|sum| sum.violations.len() as u64);
    text
}

#[test]
fn whatever_happens_each_record_counts() {
    let first = number("FORETELL_SIMULATION_FIRST", 1);
    let seeds = number("FORETELL_SIMULATION_SEEDS", 40);
    let run = |guarantee| Sum::of(first..first + seeds, setting(guarantee, None));
    let sums = thread::scope(|scope| {
        let other = scope.spawn(|| run(AtLeastOnce));
        [run(ExactlyOnce), other.join().expect("no seed panics")]
    });
    println!("{}", table(first, seeds, &sums));
    let violations = sums.map(|sum| sum.violations).concat();
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
}

/// The wait for open transactions holds even where they outlive the sessions of their members.
#[test]
fn a_transaction_that_never_ends_hides_nothing() {
    let endless =
        Setting { transaction_timeout: SESSION_TIMEOUT * 3, ..setting(ExactlyOnce, None) };
    let Sum { violations, .. } = Sum::of(1..=20, endless);
    assert!(violations.is_empty(), "{}", violations.join("\n\n"));
}

#[test]
fn a_seed_gives_the_same_bytes_twice() {
    for guarantee in [ExactlyOnce, AtLeastOnce] {
        for seed in 1..=5 {
            let run = || simulate(seed, setting(guarantee, None));
            assert_eq!(run(), run(), "seed {seed}, {guarantee:?}");
        }
    }
}

/// The seeds of `make test`.
const SEEDS_MAX: u64 = 40;

fn bugs(guarantee: ProcessingGuarantee) -> Vec<Bug> {
    let of_one: &[Bug] = match guarantee {
        ExactlyOnce => &[
            Bug::OffsetsOutsideTheTransaction,
            Bug::StaleGroupMetadata,
            Bug::LostAnswerTakenForAnAbort,
            // What comes again without a failure may do so at least once.
            Bug::RepeatsAfterARebalance,
            Bug::InTheLayer(Planted::StateBeforeTheCommit),
            // What is counted again at least once hides what a checkpoint passes over.
            Bug::InTheLayer(Planted::EndAskedAfterTheCommit),
            // Without transactions there is nothing to be decided.
            Bug::InTheLayer(Planted::ReaderNotReopened),
        ],
        AtLeastOnce => &[
            Bug::OffsetsBeforeTheOutputs,
            Bug::FailedDeliveryForgotten,
            Bug::ChangelogsBeforeTheOutputs,
        ],
    };
    let of_both = [
        Bug::NoSeekAfterAnAbort,
        Bug::SkipsAfterAPause,
        Bug::CheckpointAhead,
        Bug::StreamTimeAheadOfTheClock,
        Bug::InTheLayer(Planted::MergeByRecordTime),
        Bug::InTheLayer(Planted::OffsetsTrustedInAnyLog),
        Bug::InTheLayer(Planted::RecordsDroppedWithAnError),
        Bug::InTheLayer(Planted::FencesNotForgotten),
        Bug::InTheLayer(Planted::RebuildsNotForgotten),
        Bug::InTheLayer(Planted::CopyKeptAfterTakeover),
    ];
    of_one.iter().copied().chain(of_both).collect()
}

/// The first seed that finds `bug`, and nothing wrong without it.
fn caught_by(guarantee: ProcessingGuarantee, bug: Bug) -> Option<u64> {
    let with = setting(guarantee, Some(bug));
    let without = Setting { bug: None, ..with };
    let finds = |seed: &u64| simulate(*seed, with).is_err() && simulate(*seed, without).is_ok();
    (1..=SEEDS_MAX).find(finds)
}

#[test]
fn planted_bugs_are_caught() {
    let all_caught = |guarantee| {
        let caught = bugs(guarantee).into_iter().map(|bug| (bug, caught_by(guarantee, bug)));
        caught.collect::<Vec<_>>()
    };
    let [exactly, at_least] = thread::scope(|scope| {
        let other = scope.spawn(|| all_caught(AtLeastOnce));
        [all_caught(ExactlyOnce), other.join().expect("no seed panics")]
    });
    let mut text = format!("\n{:<36}{:>14}{:>15}\n", "planted bug", "guarantee", "caught by seed");
    for (short, caught) in [("exactly once", &exactly), ("at least once", &at_least)] {
        for (bug, seed) in caught {
            let seed = seed.map_or("none".to_owned(), |seed| seed.to_string());
            writeln!(text, "{:<36}{short:>14}{seed:>15}", bug.name()).unwrap();
        }
    }
    println!("{text}");
    let is_missed = |(_, seed): &&(Bug, Option<u64>)| seed.is_none();
    let missed: Vec<_> = exactly.iter().chain(&at_least).filter(is_missed).collect();
    assert!(missed.is_empty(), "not caught by {SEEDS_MAX} seeds: {missed:?}");
}
