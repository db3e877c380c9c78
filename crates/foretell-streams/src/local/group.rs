//! One consumer group: its members, the owner of each task, and the next rebalance to announce to a member. A pure
//! state machine that has neither topics nor offsets.
//!
//! ```text
//!   Free ──Grant──▶ Granted ──Offer──▶ Offered ──Accept──▶ Held ──Revoke──▶ Releasing ─┐
//!    ▲                 │ Withdraw     (by poll)          (by assign)       (by poll)   │ Release (by unassign)
//!    ├─────────────────┴──────────────────────────────────────────────────────────────◀┘
//!    └── Lose: from any state, when the member has left, was fenced, or is expelled
//! ```
//!
//! A task is granted to its new owner only after the previous owner has released it, as in the cooperative protocol
//! (KIP-429): two members never own a task at the same time. The assignment is sticky: quotas differ by at most one,
//! the members that own most get the larger quotas, and only tasks beyond a quota move.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    local::transaction::Epoch,
    record::Partition,
    runtime::broker::{BrokerError, Rebalance},
};

/// The members of a group and the owners of its tasks.
#[derive(Debug)]
pub(crate) struct Group {
    /// Increases with each change of members or grants.
    generation: u64,
    members: BTreeMap<String, MemberState>,
    /// By lead partition.
    tasks: Vec<TaskAssignment>,
    /// The epoch of the last join under each member name. A member that leaves removes its name.
    newest: BTreeMap<String, Epoch>,
}

#[derive(Debug)]
struct MemberState {
    /// The time at which the member is expelled, unless it polls before.
    deadline: Duration,
    /// The last generation that was announced to the member.
    announced: u64,
    /// The announced rebalance that the member has not answered yet.
    unanswered: Option<Rebalance>,
}

#[derive(Debug)]
struct TaskAssignment {
    owner: Ownership,
    /// The member that should own the task according to the last rebalance.
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

/// A transition of [`Ownership`]; see the drawing at the top of the module.
#[derive(Debug)]
enum OwnershipEvent {
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
    event: OwnershipEvent,
}

/// The status in the group of a session that has joined it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MembershipStatus {
    Joined,
    /// The member did not poll within the session timeout; it may join again.
    Expelled,
    /// Another member has joined under the same name.
    Fenced,
}

impl Group {
    /// A group without members, for a topic of `tasks` partitions.
    pub(crate) fn new(tasks: u32) -> Self {
        let free = || TaskAssignment { owner: Ownership::Free, successor: None };
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

    pub(crate) fn status(&self, name: &str, epoch: Epoch) -> MembershipStatus {
        if self.newest.get(name) != Some(&epoch) {
            MembershipStatus::Fenced
        } else if self.members.contains_key(name) {
            MembershipStatus::Joined
        } else {
            MembershipStatus::Expelled
        }
    }

    /// Adds a member. A member with the same name is fenced. Its tasks keep that name as their successor, so a restarted
    /// worker gets its tasks back and no other task moves.
    pub(crate) fn join(&mut self, name: &str, epoch: Epoch, deadline: Duration) {
        self.lose_tasks_of(name);
        self.newest.insert(name.to_owned(), epoch);
        self.members
            .insert(name.to_owned(), MemberState { deadline, announced: 0, unanswered: None });
        self.rebalance();
    }

    /// Removes a member that leaves, and its name.
    pub(crate) fn leave(&mut self, name: &str) {
        self.newest.remove(name);
        self.remove(name);
    }

    /// Removes the members whose deadline has passed. Returns whether there were any.
    pub(crate) fn expel(&mut self, now: Duration) -> bool {
        let late = |(name, member): (&String, &MemberState)| {
            (member.deadline <= now).then(|| name.clone())
        };
        let expelled: Vec<String> = self.members.iter().filter_map(late).collect();
        for name in &expelled {
            self.remove(name);
        }
        !expelled.is_empty()
    }

    /// The earliest time at which a member is expelled if it does not poll.
    pub(crate) fn next_deadline(&self) -> Option<Duration> {
        self.members.values().map(|member| member.deadline).min()
    }

    /// Extends a member's session until `deadline`.
    pub(crate) fn keep_alive(&mut self, name: &str, deadline: Duration) {
        self.member_mut(name).deadline = deadline;
    }

    /// The rebalance to announce to a member, repeated until it answers: revoked tasks first, then, once for each
    /// generation, the assigned tasks, which may be none.
    pub(crate) fn announce(&mut self, name: &str) -> Option<Rebalance> {
        let generation = self.generation;
        let member = self.member(name);
        if member.unanswered.is_some() {
            return member.unanswered.clone();
        }
        let announced_generation = member.announced;
        let revoked = self.tasks_where(|task| {
            task.owner.is_held_by(name) && task.successor.as_deref() != Some(name)
        });
        let rebalance = if !revoked.is_empty() {
            self.apply_to_all(&revoked, || OwnershipEvent::Revoke);
            Rebalance::Revoked { tasks: revoked, lost: false }
        } else if announced_generation < generation {
            let granted = self.tasks_where(|task| task.owner.is_granted_to(name));
            self.apply_to_all(&granted, || OwnershipEvent::Offer);
            self.member_mut(name).announced = generation;
            Rebalance::Assigned(granted)
        } else {
            return None;
        };
        self.member_mut(name).unanswered = Some(rebalance.clone());
        Some(rebalance)
    }

    /// Makes the member the owner of the tasks that were offered to it. Idempotent, because a worker that fails
    /// half-way repeats the whole call.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if `tasks` are not those of the last announcement: a bug in the worker.
    pub(crate) fn accept(&mut self, name: &str, tasks: &[Partition]) -> Result<(), BrokerError> {
        match &self.member(name).unanswered {
            Some(Rebalance::Assigned(offered)) if is_same_set(offered, tasks) => {}
            None if tasks.iter().all(|task| self.owns(name, *task)) => return Ok(()),
            announced => return Err(wrong_answer("assign", tasks, announced.as_ref())),
        }
        self.member_mut(name).unanswered = None;
        self.apply_to_all(tasks, || OwnershipEvent::Accept);
        Ok(())
    }

    /// Releases the tasks that were revoked from the member. Idempotent.
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if `tasks` are not those of the last announcement: a bug in the worker.
    pub(crate) fn release(&mut self, name: &str, tasks: &[Partition]) -> Result<(), BrokerError> {
        match &self.member(name).unanswered {
            Some(Rebalance::Revoked { tasks: revoked, .. }) if is_same_set(revoked, tasks) => {}
            None if !tasks.iter().any(|task| self.owns(name, *task)) => return Ok(()),
            announced => return Err(wrong_answer("unassign", tasks, announced.as_ref())),
        }
        self.member_mut(name).unanswered = None;
        self.apply_to_all(tasks, || OwnershipEvent::Release);
        if self.grant_free_tasks() {
            self.generation += 1;
        }
        Ok(())
    }

    /// Whether the group has this task.
    pub(crate) fn has(&self, task: Partition) -> bool {
        self.task(task).is_some()
    }

    /// Whether the member owns the task, which it does from its `assign` until its `unassign`.
    pub(crate) fn owns(&self, name: &str, task: Partition) -> bool {
        self.task(task).is_some_and(|task| match &task.owner {
            Ownership::Held(owner) | Ownership::Releasing(owner) => owner == name,
            Ownership::Free | Ownership::Granted(_) | Ownership::Offered(_) => false,
        })
    }

    fn task(&self, task: Partition) -> Option<&TaskAssignment> {
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
        self.apply_to_all(&lost, || OwnershipEvent::Lose);
    }

    /// Chooses the successors again and starts a new generation.
    fn rebalance(&mut self) {
        self.choose_successors();
        for task in &mut self.tasks {
            if let Ownership::Granted(member) = &task.owner
                && task.successor.as_ref() != Some(member)
            {
                task.apply(OwnershipEvent::Withdraw);
            }
        }
        self.grant_free_tasks();
        self.generation += 1;
    }

    fn choose_successors(&mut self) {
        let mut quotas = self.quotas();
        let mut successors: Vec<Option<String>> = vec![None; self.tasks.len()];
        // Tasks in use are placed first: moving a task that no member has started to read costs nothing.
        for in_use in [true, false] {
            for (task, successor) in self.tasks.iter().zip(&mut successors) {
                if task.is_in_use() == in_use
                    && let Some(name) = task.claimant()
                    && let Some(left @ 1..) = quotas.get_mut(name)
                {
                    *left -= 1;
                    *successor = Some(name.to_owned());
                }
            }
        }
        let mut vacancies = quotas.iter().flat_map(|(name, left)| (0..*left).map(move |_| name));
        for successor in successors.iter_mut().filter(|successor| successor.is_none()) {
            *successor = vacancies.next().map(|name| (*name).to_owned());
        }
        for (task, successor) in self.tasks.iter_mut().zip(successors) {
            task.successor = successor;
        }
    }

    /// The number of tasks that each member should own; the sum is the number of tasks. The larger quotas go to members
    /// that already read more tasks than the base quota, then to members that claim most.
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

    /// Grants each free task to its successor. Returns whether there was any.
    fn grant_free_tasks(&mut self) -> bool {
        let mut granted = false;
        for task in &mut self.tasks {
            if let (Ownership::Free, Some(successor)) = (&task.owner, &task.successor) {
                let grant = OwnershipEvent::Grant(successor.clone());
                task.apply(grant);
                granted = true;
            }
        }
        granted
    }

    fn member(&self, name: &str) -> &MemberState {
        self.members.get(name).expect("the caller has checked the status")
    }

    fn member_mut(&mut self, name: &str) -> &mut MemberState {
        self.members.get_mut(name).expect("the caller has checked the status")
    }

    fn tasks_where(&self, condition: impl Fn(&TaskAssignment) -> bool) -> Vec<Partition> {
        let numbered = (0..).map(Partition).zip(&self.tasks);
        numbered.filter(|(_, task)| condition(task)).map(|(partition, _)| partition).collect()
    }

    fn apply_to_all(&mut self, tasks: &[Partition], event: impl Fn() -> OwnershipEvent) {
        for task in tasks {
            let index = usize::try_from(task.0).expect("tasks are numbered from 0");
            self.tasks[index].apply(event());
        }
    }
}

impl TaskAssignment {
    fn apply(&mut self, event: OwnershipEvent) {
        let owner = std::mem::replace(&mut self.owner, Ownership::Free);
        self.owner = owner.next(event).expect("the group makes legal transitions only");
    }

    /// Whether a member reads the task, or is about to.
    fn is_in_use(&self) -> bool {
        matches!(self.owner, Ownership::Offered(_) | Ownership::Held(_))
    }

    /// The member that should keep the task if its quota allows it. A task that is being released counts for its
    /// successor.
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
    fn next(self, event: OwnershipEvent) -> Result<Self, IllegalTransition> {
        match (self, event) {
            (Self::Free, OwnershipEvent::Grant(successor)) => Ok(Self::Granted(successor)),
            (Self::Granted(_), OwnershipEvent::Withdraw) => Ok(Self::Free),
            (Self::Granted(name), OwnershipEvent::Offer) => Ok(Self::Offered(name)),
            (Self::Offered(name), OwnershipEvent::Accept) => Ok(Self::Held(name)),
            (Self::Held(name), OwnershipEvent::Revoke) => Ok(Self::Releasing(name)),
            (Self::Releasing(_), OwnershipEvent::Release) | (_, OwnershipEvent::Lose) => {
                Ok(Self::Free)
            }
            (from, event) => Err(IllegalTransition { from, event }),
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

/// Whether both slices hold the same tasks, in any order. Quadratic: both are short.
fn is_same_set(announced: &[Partition], answered: &[Partition]) -> bool {
    announced.len() == answered.len() && announced.iter().all(|task| answered.contains(task))
}

fn wrong_answer(call: &str, tasks: &[Partition], announced: Option<&Rebalance>) -> BrokerError {
    BrokerError::Fatal(format!(
        "{call}({tasks:?}) does not answer the announced rebalance: {announced:?}"
    ))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const NEVER: Duration = Duration::MAX;

    /// A group, and the tasks that each worker has accepted.
    struct Fixture {
        group: Group,
        epochs: u64,
        accepted: BTreeMap<String, BTreeSet<Partition>>,
    }

    impl Fixture {
        fn new(tasks: u32) -> Self {
            Self { group: Group::new(tasks), epochs: 0, accepted: BTreeMap::new() }
        }

        fn join(&mut self, name: &str) {
            self.group.join(name, Epoch(self.epochs), NEVER);
            self.epochs += 1;
            self.accepted.insert(name.to_owned(), BTreeSet::new());
        }

        fn expel(&mut self, name: &str) {
            self.group.keep_alive(name, Duration::ZERO);
            assert!(self.group.expel(Duration::ZERO));
            self.accepted.remove(name);
        }

        fn leave(&mut self, name: &str) {
            self.group.leave(name);
            self.accepted.remove(name);
        }

        /// Answers one announcement for one member. Returns false if nothing was announced.
        fn answer(&mut self, name: &str) -> bool {
            match self.group.announce(name) {
                None => return false,
                Some(Rebalance::Assigned(tasks)) => {
                    self.group.accept(name, &tasks).unwrap();
                    self.accepted.get_mut(name).unwrap().extend(tasks);
                }
                Some(Rebalance::Revoked { tasks, lost }) => {
                    assert!(!lost && !tasks.is_empty());
                    self.group.release(name, &tasks).unwrap();
                    self.accepted.get_mut(name).unwrap().retain(|task| !tasks.contains(task));
                }
            }
            self.check_no_task_has_two_owners();
            true
        }

        fn settle(&mut self) {
            let names: Vec<String> = self.accepted.keys().cloned().collect();
            while names.iter().any(|name| self.answer(name)) {}
        }

        fn check_no_task_has_two_owners(&self) {
            let mut owned = BTreeSet::new();
            for (name, tasks) in &self.accepted {
                for task in tasks {
                    assert!(self.group.owns(name, *task), "{name} does not own {task}");
                    assert!(owned.insert(*task), "{task} has two owners");
                }
            }
        }

        fn check_settled(&self) {
            let loads: Vec<usize> = self.accepted.values().map(BTreeSet::len).collect();
            let (Some(least), Some(most)) = (loads.iter().min(), loads.iter().max()) else {
                return;
            };
            assert_eq!(loads.iter().sum::<usize>(), self.group.tasks.len(), "{:?}", self.accepted);
            assert!(most - least <= 1, "{:?}", self.accepted);
        }

        /// The tasks of each worker, such as `a:0,2 b:1`.
        fn owners(&self) -> String {
            let show = |(name, tasks): (&String, &BTreeSet<Partition>)| {
                let tasks: Vec<String> = tasks.iter().map(Partition::to_string).collect();
                format!("{name}:{}", tasks.join(","))
            };
            self.accepted.iter().map(show).collect::<Vec<_>>().join(" ")
        }
    }

    /// Applies each change (`+a` joins, `-a` leaves, `!a` is expelled), settles, and compares the owners.
    fn check(tasks: u32, changes: &[(&str, &str)]) {
        let mut fixture = Fixture::new(tasks);
        for (change, expected) in changes {
            let (kind, name) = change.split_at(1);
            match kind {
                "+" => fixture.join(name),
                "-" => fixture.leave(name),
                _ => fixture.expel(name),
            }
            fixture.settle();
            fixture.check_settled();
            assert_eq!(fixture.owners(), *expected, "after {change}");
        }
    }

    #[test]
    fn tasks_are_balanced_and_assignment_is_sticky() {
        check(4, &[("+a", "a:0,1,2,3"), ("+b", "a:0,1 b:2,3"), ("+c", "a:0,1 b:2 c:3")]);
        check(2, &[("+a", "a:0,1"), ("+b", "a:0 b:1"), ("+c", "a:0 b:1 c:"), ("-a", "b:1 c:0")]);
        check(3, &[("+a", "a:0,1,2"), ("+b", "a:0,1 b:2"), ("!a", "b:0,1,2")]);
        check(1, &[("+a", "a:0"), ("-a", ""), ("+b", "b:0")]);
    }

    #[test]
    fn a_worker_that_rejoins_under_its_name_gets_its_tasks_back() {
        check(5, &[("+a", "a:0,1,2,3,4"), ("+b", "a:0,1,2 b:3,4"), ("+a", "a:0,1,2 b:3,4")]);
        check(5, &[("+a", "a:0,1,2,3,4"), ("+b", "a:0,1,2 b:3,4"), ("+b", "a:0,1,2 b:3,4")]);
    }

    #[test]
    fn a_task_moves_only_after_its_owner_has_released_it() {
        let mut fixture = Fixture::new(2);
        fixture.join("a");
        fixture.settle();
        fixture.join("b");
        assert!(fixture.answer("b"), "the generation is announced, with no tasks");
        let revoked = Rebalance::Revoked { tasks: vec![Partition(1)], lost: false };
        assert_eq!(fixture.group.announce("a"), Some(revoked.clone()));
        assert_eq!(fixture.group.announce("a"), Some(revoked), "repeated until it is answered");
        assert!(fixture.group.owns("a", Partition(1)), "a can still commit");
        assert!(!fixture.answer("b"));
        assert!(fixture.answer("a") && fixture.answer("b"));
        assert_eq!(fixture.owners(), "a:0 b:1");
    }

    #[test]
    fn an_answer_that_differs_from_the_announcement_is_refused() {
        let mut group = Group::new(2);
        group.join("a", Epoch(0), NEVER);
        let both = [Partition(0), Partition(1)];
        assert!(group.accept("a", &both).is_err(), "nothing was announced");
        assert_eq!(group.announce("a"), Some(Rebalance::Assigned(both.to_vec())));
        assert!(group.accept("a", &both[..1]).is_err() && group.release("a", &both).is_err());
        for _ in 0..2 {
            assert!(group.accept("a", &[both[1], both[0]]).is_ok(), "idempotent");
        }
        assert!(group.release("a", &both).is_err(), "nothing was revoked");
        group.join("b", Epoch(1), NEVER);
        let revoked = Rebalance::Revoked { tasks: both[1..].to_vec(), lost: false };
        assert_eq!(group.announce("a"), Some(revoked));
        assert!(group.release("a", &both).is_err() && group.accept("a", &both[1..]).is_err());
        for _ in 0..2 {
            assert!(group.release("a", &both[1..]).is_ok(), "idempotent");
        }
    }

    #[test]
    fn the_status_distinguishes_expelled_and_fenced_members() {
        let mut group = Group::new(1);
        group.join("a", Epoch(0), Duration::from_secs(1));
        assert_eq!(group.status("a", Epoch(0)), MembershipStatus::Joined);
        assert!(!group.expel(Duration::from_millis(999)));
        assert!(group.expel(Duration::from_secs(1)));
        assert_eq!(group.status("a", Epoch(0)), MembershipStatus::Expelled);
        group.join("a", Epoch(1), NEVER);
        assert_eq!(group.status("a", Epoch(0)), MembershipStatus::Fenced);
        group.leave("a");
        assert_eq!(group.status("a", Epoch(1)), MembershipStatus::Fenced);
    }

    #[derive(Clone, Copy, Debug)]
    enum Action {
        Join,
        Leave,
        Expel,
        /// A worker polls and does not answer yet.
        Announce,
        Answer,
    }

    impl Fixture {
        fn perform(&mut self, action: Action, name: &str) {
            let is_member = self.accepted.contains_key(name);
            match action {
                Action::Join => self.join(name),
                Action::Leave if is_member => self.leave(name),
                Action::Expel if is_member => self.expel(name),
                Action::Announce if is_member => drop(self.group.announce(name)),
                Action::Answer if is_member => drop(self.answer(name)),
                Action::Leave | Action::Expel | Action::Announce | Action::Answer => {}
            }
            self.check_no_task_has_two_owners();
        }
    }

    fn actions() -> impl Strategy<Value = Vec<(Action, u8)>> {
        let action = prop_oneof![
            2 => Just(Action::Join),
            1 => Just(Action::Leave),
            1 => Just(Action::Expel),
            3 => Just(Action::Announce),
            4 => Just(Action::Answer),
        ];
        proptest::collection::vec((action, 0_u8..5), 0..60)
    }

    proptest! {
        #[test]
        fn every_task_gets_one_owner_and_never_has_two(
            tasks in 0_u32..12, actions in actions()
        ) {
            let mut fixture = Fixture::new(tasks);
            for (action, name) in actions {
                fixture.perform(action, &format!("m{name}"));
            }
            fixture.settle();
            fixture.check_settled();
        }

        /// From any settled state, a change moves as few tasks as any balanced assignment could.
        #[test]
        fn a_change_moves_no_more_tasks_than_needed(
            tasks in 0_u32..12, actions in actions(), name in 0_u8..6
        ) {
            let mut fixture = Fixture::new(tasks);
            for (action, name) in actions {
                fixture.perform(action, &format!("m{name}"));
            }
            fixture.settle();
            let name = format!("m{name}");
            let mut before = fixture.accepted.clone();
            if before.remove(&name).is_some() {
                fixture.leave(&name);
            } else {
                fixture.join(&name);
            }
            fixture.settle();
            let members = fixture.accepted.len();
            if members == 0 {
                return Ok(());
            }
            let (base, extra) = (tasks as usize / members, tasks as usize % members);
            let over = before.values().filter(|tasks| tasks.len() > base).count();
            let excess: usize = before.values().map(|tasks| tasks.len().saturating_sub(base)).sum();
            let needed = excess - over.min(extra);
            let moved: usize = before.iter().map(|(name, tasks)| {
                tasks.difference(&fixture.accepted[name]).count()
            }).sum();
            prop_assert_eq!(moved, needed, "{:?} became {:?}", before, fixture.accepted);
        }
    }
}
