//! Arbitrary histories of two workers that crash, stall and are fenced: the output is the input, once.

use proptest::prelude::*;

use super::*;

/// A worker that copies `in/p` to `out/p`, with all the recovery that the port asks for.
#[derive(Debug)]
struct Copier {
    name: String,
    session: Option<Session>,
    offsets: BTreeMap<TopicPartition, Offset>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Step,
    Commit,
    Stop,
    Crash,
    TimePasses,
}

impl Copier {
    fn step(&mut self, bench: &mut Bench) {
        let Some(mut session) = self.session.take() else {
            self.session = Some(bench.join(&self.name));
            self.offsets.clear();
            return;
        };
        match self.try_step(bench, &mut session) {
            Ok(()) => self.session = Some(session),
            Err(BrokerError::Abort(_)) => {
                bench.abort(&mut session).unwrap();
                self.offsets.clear();
                self.session = Some(session);
            }
            Err(BrokerError::Fenced(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn try_step(&mut self, bench: &mut Bench, session: &mut Session) -> Result<(), BrokerError> {
        let mut records = Vec::new();
        let now = bench.now();
        let rebalance = bench.cluster.poll(session, now, &mut records)?;
        for read in records {
            let copy = record("out", read.source.partition.0, &value_of(&read));
            bench.cluster.send(session, copy, now)?;
            self.offsets.insert(read.source, read.offset.next());
        }
        match rebalance {
            Some(Rebalance::Assigned(tasks)) => bench.assign(session, &tasks)?,
            Some(Rebalance::Revoked { tasks, lost }) => {
                if lost || is_abort(self.try_commit(bench, session)) {
                    bench.abort(session)?;
                    self.offsets.clear();
                }
                bench.cluster.unassign(session, &tasks, now)?;
            }
            None => {}
        }
        Ok(())
    }

    fn try_commit(&mut self, bench: &mut Bench, session: &Session) -> Result<(), BrokerError> {
        let offsets: Vec<_> = std::mem::take(&mut self.offsets).into_iter().collect();
        bench.commit(session, &offsets)
    }

    fn commit(&mut self, bench: &mut Bench) {
        let Some(mut session) = self.session.take() else { return };
        match self.try_commit(bench, &session) {
            Ok(()) => self.session = Some(session),
            Err(BrokerError::Abort(_)) => {
                bench.abort(&mut session).unwrap();
                self.session = Some(session);
            }
            Err(BrokerError::Fenced(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Stops properly: what is not committed comes again, at another's.
    fn stop(&mut self, bench: &mut Bench) {
        if let Some(session) = self.session.take() {
            let now = bench.now();
            match bench.cluster.leave(&session, now) {
                Ok(()) | Err(BrokerError::Fenced(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Lets four workers of three names copy while things happen to them; returns what the broker
/// looks like in the end.
fn copy_while(actions: &[(Action, usize)]) -> String {
    let mut bench = Bench::new();
    let names = ["a", "b", "c", "a"];
    let mut workers =
        names.map(|name| Copier { name: name.to_owned(), session: None, offsets: BTreeMap::new() });
    let mut expected = [String::new(), String::new()];
    let mut publish = |bench: &mut Bench, number: usize| {
        let partition = number % 2;
        bench.publish("in", i32::try_from(partition).unwrap(), &number.to_string());
        expected[partition] += &format!("{number} ");
    };
    for (number, (happening, worker)) in actions.iter().enumerate() {
        publish(&mut bench, number);
        match happening {
            Action::Step => workers[*worker].step(&mut bench),
            Action::Commit => workers[*worker].commit(&mut bench),
            Action::Stop => workers[*worker].stop(&mut bench),
            Action::Crash => workers[*worker].session = None,
            Action::TimePasses => bench.elapsed += TRANSACTION / 2,
        }
    }
    // The workers that are still there (one "a", for there would be two) must finish the job.
    workers[3].session = None;
    for _ in 0..20 {
        bench.elapsed += SECOND;
        for worker in &mut workers[..3] {
            worker.step(&mut bench);
            worker.commit(&mut bench);
        }
    }
    for (partition, expected) in (0..).zip(expected) {
        let copied: String = bench
            .seen("out", partition)
            .split_whitespace()
            .map(|record| format!("{} ", record.split('@').next().unwrap()))
            .collect();
        assert_eq!(copied, expected);
    }
    format!("{:?}", bench.cluster)
}

fn actions() -> impl Strategy<Value = Vec<(Action, usize)>> {
    let happening = prop_oneof![
        8 => Just(Action::Step),
        3 => Just(Action::Commit),
        1 => Just(Action::Stop),
        1 => Just(Action::Crash),
        2 => Just(Action::TimePasses),
    ];
    proptest::collection::vec((happening, 0_usize..4), 0..120)
}

proptest! {
    #[test]
    fn the_output_is_the_input_whatever_happens_and_the_same_every_time(steps in actions()) {
        prop_assert_eq!(copy_while(&steps), copy_while(&steps));
    }
}
