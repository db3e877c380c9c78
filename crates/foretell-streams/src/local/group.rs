//! One consumer group: who is in it, who owns which task, and what a member must be told next. A pure
//! state machine; it knows neither topics nor offsets.
//!
//! ```text
//!   Free ──Grant──▶ Granted ──Offer──▶ Offered ──Accept──▶ Held ──Revoke──▶ Releasing ─┐
//!    ▲                 │ Withdraw      (told by poll)   (answered)       (told by poll) │ Release
//!    ├─────────────────┴─────────────────────────────────────────────────────────────◀─┘
//!    └── Lose: from anywhere, when the member has left, was fenced, or is expelled
//! ```
//!
//! A task is never given to its successor before the owner has let it go: that is the cooperative protocol
//! (KIP-429), and with it two members never own a task at one time. The balance is sticky: quotas are
//! equal but for one, the extra ones go to those who own most, and only what exceeds a quota moves.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    local::transaction::Epoch,
    record::Partition,
    runtime::broker::{BrokerError, Rebalance},
};

/// Members, tasks, and who owns what.
#[derive(Debug)]
pub(crate) struct Group {
    /// Grows with each change of the members or of what was granted.
    generation: u64,
    members: BTreeMap<String, MemberState>,
    /// By lead partition.
    tasks: Vec<Task>,
    /// The last one to join under each name that was not given up by leaving.
    newest: BTreeMap<String, Epoch>,
}

#[derive(Debug)]
struct MemberState {
    /// When it is expelled, unless it polls before.
    deadline: Duration,
    /// The generation it was last told of.
    told: u64,
    /// What it was told and has not answered yet.
    unanswered: Option<Rebalance>,
}

#[derive(Debug)]
struct Task {
    owner: Ownership,
    /// Who is to own it.
    successor: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Ownership {
    Free,
    Granted(String),
    Offered(String),
    Held(String),
    Releasing(String),
}

#[derive(Debug)]
enum Step {
    Grant(String),
    Withdraw,
    Offer,
    Accept,
    Revoke,
    Release,
    Lose,
}

#[derive(Debug)]
struct IllegalTransition {
    #[expect(dead_code, reason = "read by Debug, when the expectation fails")]
    from: Ownership,
    #[expect(dead_code, reason = "read by Debug, when the expectation fails")]
    step: Step,
}

/// How somebody who joined once stands with the group now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Member,
    /// It has not polled for too long; it may join again.
    Expelled,
    /// Another has taken its name.
    Fenced,
}

impl Group {
    /// A group without members, for a topic of `tasks` partitions.
    pub(crate) fn new(tasks: u32) -> Self {
        let free = || Task { owner: Ownership::Free, successor: None };
        Self {
            generation: 0,
            members: BTreeMap::new(),
            tasks: (0..tasks).map(|_| free()).collect(),
            newest: BTreeMap::new(),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn standing(&self, name: &str, epoch: Epoch) -> Standing {
        if self.newest.get(name) != Some(&epoch) {
            Standing::Fenced
        } else if self.members.contains_key(name) {
            Standing::Member
        } else {
            Standing::Expelled
        }
    }

    /// Adds a member. One with the same name is fenced, and what it owned is the new one's to get: it is
    /// successor already, so that a restarted worker gets its tasks back, and nobody else moves.
    pub(crate) fn join(&mut self, name: &str, epoch: Epoch, deadline: Duration) {
        self.lose_tasks_of(name);
        self.newest.insert(name.to_owned(), epoch);
        self.members.insert(name.to_owned(), MemberState { deadline, told: 0, unanswered: None });
        self.rebalance();
    }

    /// Removes a member that says goodbye, and forgets its name.
    pub(crate) fn leave(&mut self, name: &str) {
        self.newest.remove(name);
        self.remove(name);
    }

    /// Removes the members whose time is up, and says whether there were any.
    pub(crate) fn expel(&mut self, now: Duration) -> bool {
        let late =
            |(name, slot): (&String, &MemberState)| (slot.deadline <= now).then(|| name.clone());
        let expelled: Vec<String> = self.members.iter().filter_map(late).collect();
        for name in &expelled {
            self.remove(name);
        }
        !expelled.is_empty()
    }

    /// When the next member is expelled if it does not poll.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.members.values().map(|slot| slot.deadline).min()
    }

    /// Grants a member time until `deadline`.
    pub(crate) fn keep_alive(&mut self, name: &str, deadline: Duration) {
        self.slot_mut(name).deadline = deadline;
    }

    /// What a member must be told: again and again, until it answers. First what it loses, then, for
    /// each generation, what it gets, which may be nothing.
    pub(crate) fn announce(&mut self, name: &str) -> Option<Rebalance> {
        let generation = self.generation;
        let slot = self.slot(name);
        if slot.unanswered.is_some() {
            return slot.unanswered.clone();
        }
        let told = slot.told;
        let revoked = self.tasks_where(|task| {
            task.owner.is_held_by(name) && task.successor.as_deref() != Some(name)
        });
        let rebalance = if !revoked.is_empty() {
            self.step_all(&revoked, || Step::Revoke);
            Rebalance::Revoked { tasks: revoked, lost: false }
        } else if told < generation {
            let granted = self.tasks_where(|task| task.owner.is_granted_to(name));
            self.step_all(&granted, || Step::Offer);
            self.slot_mut(name).told = generation;
            Rebalance::Assigned(granted)
        } else {
            return None;
        };
        self.slot_mut(name).unanswered = Some(rebalance.clone());
        Some(rebalance)
    }

    /// The member takes what it was offered. To take it twice is the same as once, for a worker that
    /// could not finish its own part of it tries all of it again.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if that is not what it was told last: the worker's mistake.
    pub(crate) fn accept(&mut self, name: &str, tasks: &[Partition]) -> Result<(), BrokerError> {
        match &self.slot(name).unanswered {
            Some(Rebalance::Assigned(offered)) if same(offered, tasks) => {}
            None if tasks.iter().all(|task| self.owns(name, *task)) => return Ok(()),
            told => return Err(wrong_answer("assign", tasks, told.as_ref())),
        }
        self.slot_mut(name).unanswered = None;
        self.step_all(tasks, || Step::Accept);
        Ok(())
    }

    /// The member lets go of what was revoked. Twice is the same as once.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if that is not what it was told last: the worker's mistake.
    pub(crate) fn release(&mut self, name: &str, tasks: &[Partition]) -> Result<(), BrokerError> {
        match &self.slot(name).unanswered {
            Some(Rebalance::Revoked { tasks: revoked, .. }) if same(revoked, tasks) => {}
            None if !tasks.iter().any(|task| self.owns(name, *task)) => return Ok(()),
            told => return Err(wrong_answer("unassign", tasks, told.as_ref())),
        }
        self.slot_mut(name).unanswered = None;
        self.step_all(tasks, || Step::Release);
        if self.grant_free_tasks() {
            self.generation += 1;
        }
        Ok(())
    }

    /// Whether there is such a task.
    pub(crate) fn has(&self, task: Partition) -> bool {
        self.task(task).is_some()
    }

    /// Whether the task is the member's: from its `assign` up to its `unassign`.
    pub(crate) fn owns(&self, name: &str, task: Partition) -> bool {
        self.task(task).is_some_and(|task| match &task.owner {
            Ownership::Held(owner) | Ownership::Releasing(owner) => owner == name,
            Ownership::Free | Ownership::Granted(_) | Ownership::Offered(_) => false,
        })
    }

    fn task(&self, task: Partition) -> Option<&Task> {
        self.tasks.get(usize::try_from(task.0).ok()?)
    }

    fn remove(&mut self, name: &str) {
        self.lose_tasks_of(name);
        if self.members.remove(name).is_some() {
            self.rebalance();
        }
    }

    fn lose_tasks_of(&mut self, name: &str) {
        let lost = self.tasks_where(|task| task.owner.member() == Some(name));
        self.step_all(&lost, || Step::Lose);
    }

    /// Chooses the successors again and begins a generation.
    fn rebalance(&mut self) {
        self.choose_successors();
        for task in &mut self.tasks {
            if let Ownership::Granted(member) = &task.owner
                && task.successor.as_ref() != Some(member)
            {
                task.step(Step::Withdraw);
            }
        }
        self.grant_free_tasks();
        self.generation += 1;
    }

    fn choose_successors(&mut self) {
        let mut room = self.quotas();
        let mut successors: Vec<Option<String>> = vec![None; self.tasks.len()];
        // Those that are in use claim first: to move a task that nobody has begun to read costs nothing.
        for in_use in [true, false] {
            for (task, successor) in self.tasks.iter().zip(&mut successors) {
                if task.is_in_use() == in_use
                    && let Some(name) = task.claimant()
                    && let Some(left @ 1..) = room.get_mut(name)
                {
                    *left -= 1;
                    *successor = Some(name.to_owned());
                }
            }
        }
        let mut places = room.iter().flat_map(|(name, left)| (0..*left).map(move |_| name));
        for successor in successors.iter_mut().filter(|successor| successor.is_none()) {
            *successor = places.next().map(|name| (*name).to_owned());
        }
        for (task, successor) in self.tasks.iter_mut().zip(successors) {
            task.successor = successor;
        }
    }

    /// How many tasks each member is to own. They add up to all. One more than the others may keep
    /// those who read one more already, then those who would otherwise get less than they had.
    fn quotas(&self) -> BTreeMap<String, usize> {
        if self.members.is_empty() {
            return BTreeMap::new();
        }
        let base = self.tasks.len() / self.members.len();
        let extra = self.tasks.len() % self.members.len();
        let claims = |name: &str| {
            let claimed = self.tasks.iter().filter(|task| task.claimant() == Some(name));
            let in_use = claimed.clone().filter(|task| task.is_in_use()).count();
            (in_use > base, claimed.count())
        };
        let mut by_claims: Vec<&String> = self.members.keys().collect();
        // Stable: by name among equals.
        by_claims.sort_by_key(|name| std::cmp::Reverse(claims(name)));
        let quota =
            |(rank, name): (usize, &String)| (name.clone(), base + usize::from(rank < extra));
        by_claims.into_iter().enumerate().map(quota).collect()
    }

    /// Grants what nobody owns to its successor, and says whether there was any.
    fn grant_free_tasks(&mut self) -> bool {
        let mut granted = false;
        for task in &mut self.tasks {
            if let (Ownership::Free, Some(successor)) = (&task.owner, &task.successor) {
                let grant = Step::Grant(successor.clone());
                task.step(grant);
                granted = true;
            }
        }
        granted
    }

    fn slot(&self, name: &str) -> &MemberState {
        self.members.get(name).expect("the caller has checked the standing")
    }

    fn slot_mut(&mut self, name: &str) -> &mut MemberState {
        self.members.get_mut(name).expect("the caller has checked the standing")
    }

    fn tasks_where(&self, condition: impl Fn(&Task) -> bool) -> Vec<Partition> {
        let numbered = (0..).map(Partition).zip(&self.tasks);
        numbered.filter(|(_, task)| condition(task)).map(|(partition, _)| partition).collect()
    }

    fn step_all(&mut self, tasks: &[Partition], step: impl Fn() -> Step) {
        for task in tasks {
            let index = usize::try_from(task.0).expect("tasks are numbered from 0");
            self.tasks[index].step(step());
        }
    }
}

impl Task {
    fn step(&mut self, step: Step) {
        let owner = std::mem::replace(&mut self.owner, Ownership::Free);
        self.owner = owner.next(step).expect("the group takes only steps of its drawing");
    }

    /// Whether a member reads it, or is about to.
    fn is_in_use(&self) -> bool {
        matches!(self.owner, Ownership::Offered(_) | Ownership::Held(_))
    }

    /// With whom it should stay, if that can be. What is being released is as good as the successor's.
    fn claimant(&self) -> Option<&str> {
        match &self.owner {
            Ownership::Granted(name) | Ownership::Offered(name) | Ownership::Held(name) => {
                Some(name)
            }
            Ownership::Free | Ownership::Releasing(_) => self.successor.as_deref(),
        }
    }
}

impl Ownership {
    fn next(self, step: Step) -> Result<Self, IllegalTransition> {
        match (self, step) {
            (Self::Free, Step::Grant(successor)) => Ok(Self::Granted(successor)),
            (Self::Granted(_), Step::Withdraw) => Ok(Self::Free),
            (Self::Granted(name), Step::Offer) => Ok(Self::Offered(name)),
            (Self::Offered(name), Step::Accept) => Ok(Self::Held(name)),
            (Self::Held(name), Step::Revoke) => Ok(Self::Releasing(name)),
            (Self::Releasing(_), Step::Release) | (_, Step::Lose) => Ok(Self::Free),
            (from, step) => Err(IllegalTransition { from, step }),
        }
    }

    fn member(&self) -> Option<&str> {
        match self {
            Self::Free => None,
            Self::Granted(name)
            | Self::Offered(name)
            | Self::Held(name)
            | Self::Releasing(name) => Some(name),
        }
    }

    fn is_held_by(&self, name: &str) -> bool {
        matches!(self, Self::Held(owner) if owner == name)
    }

    fn is_granted_to(&self, name: &str) -> bool {
        matches!(self, Self::Granted(successor) if successor == name)
    }
}

/// Whether both name the same tasks, in whatever order; neither is long.
fn same(told: &[Partition], answered: &[Partition]) -> bool {
    told.len() == answered.len() && told.iter().all(|task| answered.contains(task))
}

fn wrong_answer(call: &str, tasks: &[Partition], told: Option<&Rebalance>) -> BrokerError {
    BrokerError::Fatal(format!("{call}({tasks:?}) does not answer what poll said: {told:?}"))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NEVER: Duration = Duration::MAX;

    /// A group, and what each worker believes to own.
    struct World {
        group: Group,
        epochs: u64,
        believes: BTreeMap<String, BTreeSet<Partition>>,
    }

    impl World {
        fn new(tasks: u32) -> Self {
            Self { group: Group::new(tasks), epochs: 0, believes: BTreeMap::new() }
        }

        fn join(&mut self, name: &str) {
            self.group.join(name, Epoch(self.epochs), NEVER);
            self.epochs += 1;
            self.believes.insert(name.to_owned(), BTreeSet::new());
        }

        fn expel(&mut self, name: &str) {
            self.group.keep_alive(name, Duration::ZERO);
            assert!(self.group.expel(Duration::ZERO));
            self.believes.remove(name);
        }

        fn leave(&mut self, name: &str) {
            self.group.leave(name);
            self.believes.remove(name);
        }

        /// One answer of one member; false if there was nothing to be answered.
        fn answer(&mut self, name: &str) -> bool {
            match self.group.announce(name) {
                None => return false,
                Some(Rebalance::Assigned(tasks)) => {
                    self.group.accept(name, &tasks).unwrap();
                    self.believes.get_mut(name).unwrap().extend(tasks);
                }
                Some(Rebalance::Revoked { tasks, lost }) => {
                    assert!(!lost && !tasks.is_empty());
                    self.group.release(name, &tasks).unwrap();
                    self.believes.get_mut(name).unwrap().retain(|task| !tasks.contains(task));
                }
            }
            self.check_no_task_has_two_owners();
            true
        }

        fn settle(&mut self) {
            let names: Vec<String> = self.believes.keys().cloned().collect();
            while names.iter().any(|name| self.answer(name)) {}
        }

        fn check_no_task_has_two_owners(&self) {
            let mut owned = BTreeSet::new();
            for (name, tasks) in &self.believes {
                for task in tasks {
                    assert!(self.group.owns(name, *task), "{name} is wrong about {task}");
                    assert!(owned.insert(*task), "{task} has two owners");
                }
            }
        }

        fn check_settled(&self) {
            let loads: Vec<usize> = self.believes.values().map(BTreeSet::len).collect();
            let (Some(least), Some(most)) = (loads.iter().min(), loads.iter().max()) else {
                return;
            };
            assert_eq!(loads.iter().sum::<usize>(), self.group.tasks.len(), "{:?}", self.believes);
            assert!(most - least <= 1, "{:?}", self.believes);
        }

        /// Who owns what: `a:0,2 b:1`.
        fn owners(&self) -> String {
            let show = |(name, tasks): (&String, &BTreeSet<Partition>)| {
                let tasks: Vec<String> = tasks.iter().map(Partition::to_string).collect();
                format!("{name}:{}", tasks.join(","))
            };
            self.believes.iter().map(show).collect::<Vec<_>>().join(" ")
        }
    }

    /// Settles after each step: `+a` joins, `-a` leaves, `!a` is expelled.
    fn check(tasks: u32, steps: &[(&str, &str)]) {
        let mut world = World::new(tasks);
        for (step, expected) in steps {
            let (kind, name) = step.split_at(1);
            match kind {
                "+" => world.join(name),
                "-" => world.leave(name),
                _ => world.expel(name),
            }
            world.settle();
            world.check_settled();
            assert_eq!(world.owners(), *expected, "after {step}");
        }
    }

    #[test]
    fn tasks_spread_evenly_and_stay_where_they_can() {
        check(4, &[("+a", "a:0,1,2,3"), ("+b", "a:0,1 b:2,3"), ("+c", "a:0,1 b:2 c:3")]);
        check(2, &[("+a", "a:0,1"), ("+b", "a:0 b:1"), ("+c", "a:0 b:1 c:"), ("-a", "b:1 c:0")]);
        check(3, &[("+a", "a:0,1,2"), ("+b", "a:0,1 b:2"), ("!a", "b:0,1,2")]);
        check(1, &[("+a", "a:0"), ("-a", ""), ("+b", "b:0")]);
    }

    #[test]
    fn a_worker_that_comes_back_under_its_name_gets_its_tasks_back() {
        check(5, &[("+a", "a:0,1,2,3,4"), ("+b", "a:0,1,2 b:3,4"), ("+a", "a:0,1,2 b:3,4")]);
        check(5, &[("+a", "a:0,1,2,3,4"), ("+b", "a:0,1,2 b:3,4"), ("+b", "a:0,1,2 b:3,4")]);
    }

    #[test]
    fn a_successor_waits_for_the_answer_of_the_owner() {
        let mut world = World::new(2);
        world.join("a");
        world.settle();
        world.join("b");
        assert!(world.answer("b"), "it hears of the generation, in which it gets nothing");
        let revoked = Rebalance::Revoked { tasks: vec![Partition(1)], lost: false };
        assert_eq!(world.group.announce("a"), Some(revoked.clone()));
        assert_eq!(world.group.announce("a"), Some(revoked), "again, until it is answered");
        assert!(world.group.owns("a", Partition(1)), "so it can commit");
        assert!(!world.answer("b"));
        assert!(world.answer("a") && world.answer("b"));
        assert_eq!(world.owners(), "a:0 b:1");
    }

    #[test]
    fn a_wrong_answer_is_refused() {
        let mut group = Group::new(2);
        group.join("a", Epoch(0), NEVER);
        let both = [Partition(0), Partition(1)];
        assert!(group.accept("a", &both).is_err(), "nothing was announced");
        assert_eq!(group.announce("a"), Some(Rebalance::Assigned(both.to_vec())));
        assert!(group.accept("a", &both[..1]).is_err() && group.release("a", &both).is_err());
        for _ in 0..2 {
            assert!(group.accept("a", &[both[1], both[0]]).is_ok(), "twice is the same as once");
        }
        assert!(group.release("a", &both).is_err(), "nothing was revoked");
        group.join("b", Epoch(1), NEVER);
        let revoked = Rebalance::Revoked { tasks: both[1..].to_vec(), lost: false };
        assert_eq!(group.announce("a"), Some(revoked));
        assert!(group.release("a", &both).is_err() && group.accept("a", &both[1..]).is_err());
        for _ in 0..2 {
            assert!(group.release("a", &both[1..]).is_ok(), "twice is the same as once");
        }
    }

    #[test]
    fn standing_tells_the_expelled_from_the_fenced() {
        let mut group = Group::new(1);
        group.join("a", Epoch(0), Duration::from_secs(1));
        assert_eq!(group.standing("a", Epoch(0)), Standing::Member);
        assert!(!group.expel(Duration::from_millis(999)));
        assert!(group.expel(Duration::from_secs(1)));
        assert_eq!(group.standing("a", Epoch(0)), Standing::Expelled);
        group.join("a", Epoch(1), NEVER);
        assert_eq!(group.standing("a", Epoch(0)), Standing::Fenced);
        group.leave("a");
        assert_eq!(group.standing("a", Epoch(1)), Standing::Fenced);
    }

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Join,
        Leave,
        Expel,
        /// A worker polls, and is told something that it does not answer yet.
        Hear,
        Answer,
    }

    impl World {
        fn happen(&mut self, happening: Action, name: &str) {
            let is_member = self.believes.contains_key(name);
            match happening {
                Action::Join => self.join(name),
                Action::Leave if is_member => self.leave(name),
                Action::Expel if is_member => self.expel(name),
                Action::Hear if is_member => drop(self.group.announce(name)),
                Action::Answer if is_member => drop(self.answer(name)),
                Action::Leave | Action::Expel | Action::Hear | Action::Answer => {}
            }
            self.check_no_task_has_two_owners();
        }
    }

    fn actions() -> impl Strategy<Value = Vec<(Action, u8)>> {
        let happening = prop_oneof![
            2 => Just(Action::Join),
            1 => Just(Action::Leave),
            1 => Just(Action::Expel),
            3 => Just(Action::Hear),
            4 => Just(Action::Answer),
        ];
        proptest::collection::vec((happening, 0_u8..5), 0..60)
    }

    proptest! {
        #[test]
        fn every_task_ends_with_one_owner_and_never_has_two(
            tasks in 0_u32..12, steps in actions()
        ) {
            let mut world = World::new(tasks);
            for (happening, name) in steps {
                world.happen(happening, &format!("m{name}"));
            }
            world.settle();
            world.check_settled();
        }

        /// From any settled state, a change moves as few tasks as any balanced assignment could.
        #[test]
        fn no_more_moves_than_needed(
            tasks in 0_u32..12, steps in actions(), name in 0_u8..6
        ) {
            let mut world = World::new(tasks);
            for (happening, name) in steps {
                world.happen(happening, &format!("m{name}"));
            }
            world.settle();
            let name = format!("m{name}");
            let mut before = world.believes.clone();
            if before.remove(&name).is_some() {
                world.leave(&name);
            } else {
                world.join(&name);
            }
            world.settle();
            let members = world.believes.len();
            if members == 0 {
                return Ok(());
            }
            let (base, extra) = (tasks as usize / members, tasks as usize % members);
            let over = before.values().filter(|tasks| tasks.len() > base).count();
            let excess: usize = before.values().map(|tasks| tasks.len().saturating_sub(base)).sum();
            let needed = excess - over.min(extra);
            let moved: usize = before.iter().map(|(name, tasks)| {
                tasks.difference(&world.believes[name]).count()
            }).sum();
            prop_assert_eq!(moved, needed, "{:?} became {:?}", before, world.believes);
        }
    }
}
