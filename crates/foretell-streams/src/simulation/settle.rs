//! The quiescent phase: no more faults, all input must be processed, and windows must close.

use std::{fmt::Write as _, time::Duration};

use crate::{
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Broker as _, ProcessingGuarantee, ReadFrom, ReadTo},
    simulation::{
        at_least_once::History,
        model::{Committed, Stores},
        processes,
        run::{FAST_CLOCK_MAX_MS, Simulation},
        workload::WINDOW,
    },
    time::{Clock as _, EventTime},
};

/// Enough steps for every session to time out and every task to be restored.
const QUIESCENT_STEPS_MAX: usize = 5_000;
const QUIESCENT_STEP: Duration = Duration::from_millis(20);
/// Together with [`QUIET_STEP`], the time within which a timer that is due fires, and is committed.
const TIMER_STEPS: usize = 20;
const CLOSING_ROUNDS_MAX: usize = 4;
/// Together with [`QUIET_STEP`], longer than the time after which a quiet task advances its stream time, plus a window.
const QUIET_STEPS: usize = 300;
const QUIET_STEP: Duration = Duration::from_millis(200);

impl Simulation {
    /// Ends the fault phase, processes the remaining input and checks the result. Returns the committed outputs.
    pub(super) fn settle(&mut self) -> Result<String, String> {
        self.faults.stop_faults();
        self.faults.log_event(format_args!("quiescent phase"));
        self.process_all()?;
        // A record of a fast clock does not make the records after it late.
        let fast = Duration::from_millis(FAST_CLOCK_MAX_MS);
        for (ahead, is_in_time) in [(fast, false), (Duration::ZERO, true)] {
            let now = EventTime(self.clock.now().0);
            for partition in 0..i32::try_from(self.partitions).unwrap() {
                let key = format!("{partition}-quiescent");
                match is_in_time {
                    true => self.publish_in_time("in", partition, &key, now),
                    false => drop(self.publish("in", partition, &key, "fast", now + ahead)),
                }
            }
            self.process_all()?;
        }
        let last = EventTime(self.clock.now().0);
        // Windows close by stream time, which advances with the records of each task, or with the clock while there are
        // none.
        for round in 1.. {
            let closed = if self.falls_silent {
                self.run_without_input(QUIET_STEPS)?;
                last - WINDOW / 2
            } else {
                self.clock.advance(3 * WINDOW);
                let end = EventTime(self.clock.now().0);
                for partition in 0..i32::try_from(self.partitions).unwrap() {
                    self.publish("in", partition, &format!("{partition}-end"), "end", end);
                }
                self.process_all()?;
                end - WINDOW
            };
            let due = EventTime(self.clock.now().0);
            self.run_without_input(TIMER_STEPS)?;
            match self.check(closed, due) {
                Ok(()) => break,
                Err(violation) if round == CLOSING_ROUNDS_MAX => return Err(violation),
                Err(_) => {}
            }
        }
        self.expect_standbys()?;
        let mut contents = String::new();
        for record in self.read("out") {
            let value = String::from_utf8(record.value.unwrap_or_default()).unwrap();
            writeln!(contents, "{}@{} {value}", record.source, record.offset).unwrap();
        }
        Ok(contents)
    }

    /// Runs all instances without further input.
    fn run_without_input(&mut self, steps: usize) -> Result<(), String> {
        for _ in 0..steps {
            self.clock.advance(QUIET_STEP);
            for at in (0..processes::len()).rev() {
                self.turn(at)?;
            }
        }
        Ok(())
    }

    /// Checks that each instance with standbys has one of every task that it does not run itself.
    fn expect_standbys(&mut self) -> Result<(), String> {
        for _ in 0..QUIET_STEPS {
            if processes::missing_standby(self.partitions).is_none() {
                return Ok(());
            }
            self.clock.advance(QUIET_STEP);
            for at in (0..processes::len()).rev() {
                self.turn(at)?;
            }
        }
        Err(processes::missing_standby(self.partitions).unwrap_or_default())
    }

    /// Compares everything that is committed with the model.
    fn check(&self, still_open: EventTime, still_pending: EventTime) -> Result<(), String> {
        let changelog = |store: &str| self.read(&format!("simulation-{store}-changelog"));
        let committed = Committed {
            outputs: self.read("out"),
            dead_letters: self.read("dead"),
            stores: Stores::of([&changelog("numbers"), &changelog("window"), &changelog("timers")]),
            still_open,
            still_pending,
        };
        match self.guarantee {
            ProcessingGuarantee::ExactlyOnce => self.model.check(&committed),
            ProcessingGuarantee::AtLeastOnce => {
                let attempts = self.attempts.lock().unwrap().clone();
                let history = History { attempts, zombie_tasks: self.faults.zombie_tasks() };
                self.model.check_at_least_once(&committed, &history)
            }
        }
    }

    /// Runs all instances until the whole input is committed.
    fn process_all(&mut self) -> Result<(), String> {
        for _ in 0..QUIESCENT_STEPS_MAX {
            self.clock.advance(QUIESCENT_STEP);
            if processes::len() == 0 {
                self.start();
            }
            for at in (0..processes::len()).rev() {
                self.turn(at)?;
            }
            let is_done = |(source, end): (&TopicPartition, &Offset)| {
                self.broker.committed("group", source) == Some(*end)
            };
            if self.ends.iter().all(is_done) {
                return Ok(());
            }
        }
        Err(format!("the input was not processed completely; its ends are {:?}", self.ends))
    }

    /// The committed records of a topic.
    fn read(&self, topic: &str) -> Vec<InputRecord> {
        let mut records = Vec::new();
        for partition in 0..i32::try_from(self.partitions).unwrap() {
            let partition = Partition(partition);
            let source = TopicPartition { topic: Topic::new(topic), partition };
            let mut reader = self.broker.read(&source, ReadFrom::Beginning).unwrap();
            while reader.read(Duration::ZERO, &mut records).unwrap() == ReadTo::More {}
        }
        records
    }
}
