//! Arbitrary histories of workers that crash, stall and are fenced: each input record is copied to the output once.

use proptest::prelude::*;

use super::*;

/// A worker that copies `in/p` to `out/p` and recovers from errors as the port requires.
#[derive(Debug)]
struct Copier {
    name: String,
    session: Option<Session>,
    offsets: BTreeMap<TopicPartition, Offset>,
}

#[derive(Clone, Copy, Debug)]
enum Action {
    Turn,
    Commit,
    Stop,
    Crash,
    AdvanceTime,
}

impl Copier {
    fn turn(&mut self, fixture: &mut Fixture) {
        let Some(mut session) = self.session.take() else {
            self.session = Some(fixture.join(&self.name));
            self.offsets.clear();
            return;
        };
        match self.try_turn(fixture, &mut session) {
            Ok(()) => self.session = Some(session),
            Err(BrokerError::Abort(_)) => {
                fixture.abort(&mut session).unwrap();
                self.offsets.clear();
                self.session = Some(session);
            }
            Err(BrokerError::Fenced(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn try_turn(
        &mut self,
        fixture: &mut Fixture,
        session: &mut Session,
    ) -> Result<(), BrokerError> {
        let mut records = Vec::new();
        let now = fixture.now();
        let rebalance = fixture.cluster.poll(session, now, &mut records)?;
        for read in records {
            let copy = record("out", read.source.partition.0, &value_of(&read));
            fixture.cluster.send(session, copy, now)?;
            self.offsets.insert(read.source, read.offset.next());
        }
        match rebalance {
            Some(Rebalance::Assigned(tasks)) => fixture.assign(session, &tasks)?,
            Some(Rebalance::Revoked { tasks, lost }) => {
                if lost || is_abort(self.try_commit(fixture, session)) {
                    fixture.abort(session)?;
                    self.offsets.clear();
                }
                fixture.cluster.unassign(session, &tasks, now)?;
            }
            None => {}
        }
        Ok(())
    }

    fn try_commit(&mut self, fixture: &mut Fixture, session: &Session) -> Result<(), BrokerError> {
        let offsets: Vec<_> = std::mem::take(&mut self.offsets).into_iter().collect();
        fixture.commit(session, &offsets)
    }

    fn commit(&mut self, fixture: &mut Fixture) {
        let Some(mut session) = self.session.take() else { return };
        match self.try_commit(fixture, &session) {
            Ok(()) => self.session = Some(session),
            Err(BrokerError::Abort(_)) => {
                fixture.abort(&mut session).unwrap();
                self.session = Some(session);
            }
            Err(BrokerError::Fenced(_)) => {}
            Err(other) => panic!("{other}"),
        }
    }

    /// Leaves the group. Another worker processes the uncommitted records again.
    fn stop(&mut self, fixture: &mut Fixture) {
        if let Some(session) = self.session.take() {
            let now = fixture.now();
            match fixture.cluster.leave(&session, now) {
                Ok(()) | Err(BrokerError::Fenced(_)) => {}
                Err(other) => panic!("{other}"),
            }
        }
    }
}

/// Runs four workers with three names through `actions`, checks the output, and returns the final state of the broker.
fn copy_while(actions: &[(Action, usize)]) -> String {
    let mut fixture = Fixture::new();
    let names = ["a", "b", "c", "a"];
    let mut workers =
        names.map(|name| Copier { name: name.to_owned(), session: None, offsets: BTreeMap::new() });
    let mut expected = [String::new(), String::new()];
    let mut publish = |fixture: &mut Fixture, number: usize| {
        let partition = number % 2;
        fixture.publish("in", i32::try_from(partition).unwrap(), &number.to_string());
        expected[partition] += &format!("{number} ");
    };
    for (number, (action, worker)) in actions.iter().enumerate() {
        publish(&mut fixture, number);
        match action {
            Action::Turn => workers[*worker].turn(&mut fixture),
            Action::Commit => workers[*worker].commit(&mut fixture),
            Action::Stop => workers[*worker].stop(&mut fixture),
            Action::Crash => workers[*worker].session = None,
            Action::AdvanceTime => fixture.elapsed += TRANSACTION / 2,
        }
    }
    // The remaining workers, with one of the two named "a", must copy the rest.
    workers[3].session = None;
    for _ in 0..20 {
        fixture.elapsed += SECOND;
        for worker in &mut workers[..3] {
            worker.turn(&mut fixture);
            worker.commit(&mut fixture);
        }
    }
    for (partition, expected) in (0..).zip(expected) {
        let copied: String = fixture
            .visible("out", partition)
            .split_whitespace()
            .map(|record| format!("{} ", record.split('@').next().unwrap()))
            .collect();
        assert_eq!(copied, expected);
    }
    format!("{:?}", fixture.cluster)
}

fn actions() -> impl Strategy<Value = Vec<(Action, usize)>> {
    let action = prop_oneof![
        8 => Just(Action::Turn),
        3 => Just(Action::Commit),
        1 => Just(Action::Stop),
        1 => Just(Action::Crash),
        2 => Just(Action::AdvanceTime),
    ];
    proptest::collection::vec((action, 0_usize..4), 0..120)
}

proptest! {
    #[test]
    fn each_input_is_copied_once_and_the_history_is_deterministic(actions in actions()) {
        prop_assert_eq!(copy_while(&actions), copy_while(&actions));
    }
}
