//! The quiescent phase: nothing fails any more, all that was put in has to come out, and windows have to close.

use std::{fmt::Write as _, time::Duration};

use crate::{
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    runtime::broker::{Broker as _, ProcessingGuarantee, ReadFrom, ReadTo},
    simulation::{
        at_least_once::Seen,
        model::{Found, Stores},
        processes,
        workload::WINDOW,
        world::{FAST_CLOCK_MAX_MS, World},
    },
    time::{Clock as _, EventTime},
};

/// Long enough for every session to run out, and every task to be restored.
const CALM_STEPS_MAX: usize = 5_000;
const CALM_STEP: Duration = Duration::from_millis(20);
const CLOSING_ROUNDS_MAX: usize = 4;
/// Longer than a task has to be quiet before its stream time goes on, and than a window after that.
const QUIET_STEPS: usize = 300;
const QUIET_STEP: Duration = Duration::from_millis(200);

impl World {
    /// Ends the fault phase, and says what was committed.
    pub(super) fn settle(&mut self) -> Result<String, String> {
        self.faults.stop_faults();
        self.faults.note(format_args!("calm"));
        self.finish()?;
        // One clock is fast; the records after it are in time all the same.
        let fast = Duration::from_millis(FAST_CLOCK_MAX_MS);
        for (ahead, is_in_time) in [(fast, false), (Duration::ZERO, true)] {
            let now = EventTime(self.clock.now().0);
            for partition in 0..i32::try_from(self.partitions).unwrap() {
                let key = format!("{partition}-calm");
                match is_in_time {
                    true => self.put_in_time("in", partition, &key, now),
                    false => drop(self.put("in", partition, &key, "fast", now + ahead)),
                }
            }
            self.finish()?;
        }
        let last = EventTime(self.clock.now().0);
        // Windows close by stream time, which goes on with the records of each task, or with the clock where nothing
        // comes any more.
        for round in 1.. {
            let closed = if self.falls_silent {
                self.let_it_be_quiet()?;
                last - WINDOW / 2
            } else {
                self.clock.advance(3 * WINDOW);
                let end = EventTime(self.clock.now().0);
                for partition in 0..i32::try_from(self.partitions).unwrap() {
                    self.put("in", partition, &format!("{partition}-end"), "end", end);
                }
                self.finish()?;
                end - WINDOW
            };
            match self.check(closed) {
                Ok(()) => break,
                Err(wrong) if round == CLOSING_ROUNDS_MAX => return Err(wrong),
                Err(_) => {}
            }
        }
        self.expect_copies()?;
        let mut contents = String::new();
        for record in self.read("out") {
            let value = String::from_utf8(record.value.unwrap_or_default()).unwrap();
            writeln!(contents, "{}@{} {value}", record.source, record.offset).unwrap();
        }
        Ok(contents)
    }

    /// Nothing comes, and the instances go on turning.
    fn let_it_be_quiet(&mut self) -> Result<(), String> {
        for _ in 0..QUIET_STEPS {
            self.clock.advance(QUIET_STEP);
            for at in (0..processes::len()).rev() {
                self.turn(at)?;
            }
        }
        Ok(())
    }

    /// Who keeps copies has one of every task that it has not itself.
    fn expect_copies(&mut self) -> Result<(), String> {
        for _ in 0..QUIET_STEPS {
            if processes::lacks_a_copy(self.partitions).is_none() {
                return Ok(());
            }
            self.clock.advance(QUIET_STEP);
            for at in (0..processes::len()).rev() {
                self.turn(at)?;
            }
        }
        Err(processes::lacks_a_copy(self.partitions).unwrap_or_default())
    }

    /// Holds what is committed against the model.
    fn check(&self, still_open: EventTime) -> Result<(), String> {
        let changelog = |store: &str| self.read(&format!("simulation-{store}-changelog"));
        let found = Found {
            outputs: self.read("out"),
            dead_letters: self.read("dead"),
            stores: Stores::of(&changelog("numbers"), &changelog("window")),
            still_open,
        };
        match self.guarantee {
            ProcessingGuarantee::ExactlyOnce => self.model.check(&found),
            ProcessingGuarantee::AtLeastOnce => {
                let attempts = self.attempts.lock().unwrap().clone();
                let seen = Seen { attempts, zombie_tasks: self.faults.zombie_tasks() };
                self.model.check_at_least_once(&found, &seen)
            }
        }
    }

    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..CALM_STEPS_MAX {
            self.clock.advance(CALM_STEP);
            if processes::len() == 0 {
                self.start();
            }
            for at in (0..processes::len()).rev() {
                self.turn(at)?;
            }
            let is_done = |(source, end): (&TopicPartition, &Offset)| {
                self.broker.with(|cluster, _| cluster.committed("group", source)) == Some(*end)
            };
            if self.ends.iter().all(is_done) {
                return Ok(());
            }
        }
        Err(format!("not all was processed, of {:?}", self.ends))
    }

    /// What is committed to a topic.
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
