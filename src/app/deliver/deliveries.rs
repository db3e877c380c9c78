//! The open deliveries, and what to do next with each: a pure function of the clock, the settings, the records and the results.
//!
//! ```text
//!   accept ─▶ waiting ──due, not quiet, below the rate, a connection free──▶ sending ──delivered─────────▶ closed
//!               ▲  │                                                          │ ├──refused, given up──▶ closed, dead letter
//!               │  └──expired─────────────────────────────────────────────────│─┴─────────────────────▶ closed, dead letter
//!               └─────────────────────── after the back-off ──────────failed──┘
//! ```
//!
//! An action has one delivery for each channel that wants it. The deliveries of one respondent on one channel are sent one after
//! another, in the order of the topic. An offset can be committed when every delivery before it is closed.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use rand::{SeedableRng, rngs::StdRng};

use crate::{
    app::deliver::{
        action::DueAction,
        backoff,
        outcome::{Outcome, Rejection},
        quiet_hours,
        rate::RecentAttempts,
    },
    config::ChannelSettings,
};
use foretell_streams::{
    record::{Offset, Partition},
    time::{Clock, WallTime},
};

/// The time after which a delivery that waits for a time of the day is looked at again: the wall clock may jump.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// The two times of a clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Now {
    pub(super) wall: WallTime,
    pub(super) elapsed: Duration,
}

impl Now {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self { wall: clock.now(), elapsed: clock.elapsed() }
    }
}

/// The number of a delivery in this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DeliveryId(u64);

/// What to do next.
#[derive(Debug)]
pub(super) enum Next {
    /// Send the action on the channel, and report the result to [`Deliveries::finished`].
    Attempt { id: DeliveryId, channel: usize, action: Arc<DueAction> },
    /// Dead-letter the action, which is not delivered on the channel.
    Reject { channel: usize, action: Arc<DueAction>, rejection: Rejection },
}

/// The consequence of the result of an attempt.
#[derive(Debug)]
pub(super) enum Finished {
    Delivered,
    /// Another attempt follows after this time.
    Waits(Duration),
    /// Dead-letter the action, which was not delivered on the channel.
    Rejected(Arc<DueAction>, Rejection),
    /// The partition was revoked, or the group's offsets were read again: the new owner delivers.
    Unknown,
}

/// All open deliveries of this process.
#[derive(Debug)]
pub(super) struct Deliveries {
    channels: Vec<Channel>,
    /// The uncommitted records of each partition, in the order of offsets.
    partitions: BTreeMap<Partition, VecDeque<Entry>>,
    open: BTreeMap<DeliveryId, Delivery>,
    next_id: u64,
    random: StdRng,
}

#[derive(Debug)]
struct Channel {
    settings: ChannelSettings,
    /// The deliveries that wait, by the time to look at each. A delivery behind another of its respondent is not among them.
    waiting: BTreeSet<(Duration, DeliveryId)>,
    /// The open deliveries of each respondent, in order. By partition too, so that a revoked one is removed whole.
    respondents: BTreeMap<(Partition, String), VecDeque<DeliveryId>>,
    /// The newest attempts of each rule.
    recent: BTreeMap<String, RecentAttempts>,
    /// Attempts without a result.
    sending: usize,
}

/// A record, and the numbers of its deliveries and of those that are open.
#[derive(Debug)]
struct Entry {
    offset: Offset,
    deliveries: usize,
    open: usize,
}

#[derive(Debug)]
struct Delivery {
    channel: usize,
    partition: Partition,
    offset: Offset,
    action: Arc<DueAction>,
    /// The number of attempts, and the time of the first.
    attempts: u32,
    first: Option<Duration>,
}

impl Deliveries {
    /// No deliveries; `seed` is of the back-off.
    pub(super) fn new(channels: Vec<ChannelSettings>, seed: u64) -> Self {
        let channels = channels.into_iter().map(|settings| Channel {
            settings,
            waiting: BTreeSet::new(),
            respondents: BTreeMap::new(),
            recent: BTreeMap::new(),
            sending: 0,
        });
        Self {
            channels: channels.collect(),
            partitions: BTreeMap::new(),
            open: BTreeMap::new(),
            next_id: 0,
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Adds the record at an offset, with the action to deliver if it has one.
    pub(super) fn accept(
        &mut self,
        partition: Partition,
        offset: Offset,
        action: Option<Arc<DueAction>>,
        now: Now,
    ) {
        let deliveries =
            action.map_or(0, |action| self.open_on_channels(partition, offset, &action, now));
        let entry = Entry { offset, deliveries, open: deliveries };
        self.partitions.entry(partition).or_default().push_back(entry);
    }

    /// Opens a delivery on each channel that wants the action, and returns their number.
    fn open_on_channels(
        &mut self,
        partition: Partition,
        offset: Offset,
        action: &Arc<DueAction>,
        now: Now,
    ) -> usize {
        let mut open = 0;
        for (channel, of) in self.channels.iter_mut().enumerate() {
            if !of.wants(&action.rule) {
                continue;
            }
            open += 1;
            let id = DeliveryId(self.next_id);
            self.next_id += 1;
            of.enqueue(partition, &action.respondent_id, id, now);
            let action = Arc::clone(action);
            let delivery =
                Delivery { channel, partition, offset, action, attempts: 0, first: None };
            self.open.insert(id, delivery);
        }
        open
    }

    /// The next thing to do at this time; `None` if there is none.
    pub(super) fn next(&mut self, now: Now) -> Option<Next> {
        self.next_of_all(now, &|_| true)
    }

    /// As [`Self::next`] before a stop: only what keeps the offset of a delivered record from being committed, since that record
    /// would be delivered again after the next start.
    pub(super) fn next_before_stop(&mut self, now: Now) -> Option<Next> {
        let delivered = self.partitions.iter().filter_map(|(partition, entries)| {
            let last = entries.iter().rfind(|entry| entry.open < entry.deliveries)?;
            Some((*partition, last.offset))
        });
        let delivered: BTreeMap<Partition, Offset> = delivered.collect();
        self.next_of_all(now, &|delivery| {
            delivered.get(&delivery.partition).is_some_and(|last| delivery.offset <= *last)
        })
    }

    fn next_of_all(&mut self, now: Now, is_wanted: &dyn Fn(&Delivery) -> bool) -> Option<Next> {
        (0..self.channels.len()).find_map(|channel| self.next_of(channel, now, is_wanted))
    }

    fn next_of(
        &mut self,
        channel: usize,
        now: Now,
        is_wanted: &dyn Fn(&Delivery) -> bool,
    ) -> Option<Next> {
        loop {
            let of = &mut self.channels[channel];
            let mut due = of.waiting.iter().take_while(|(at, _)| *at <= now.elapsed);
            let (at, id) = *due.find(|(_, id)| is_wanted(&self.open[id]))?;
            let delivery = self.open.get_mut(&id).expect("a waiting delivery is open");
            let expires_in = of.expires_in(&delivery.action, now.wall);
            let Some(expires_in) = expires_in else {
                of.waiting.remove(&(at, id));
                let action = Arc::clone(&delivery.action);
                let rejection = of.expired(&action, now.wall, delivery.attempts);
                self.close(id, now);
                return Some(Next::Reject { channel, action, rejection });
            };
            if let Some(wait) = of.must_wait(&delivery.action.rule, now) {
                of.waiting.remove(&(at, id));
                let wait = wait.min(expires_in).min(LOOK_AGAIN).max(Duration::from_millis(1));
                of.waiting.insert((now.elapsed + wait, id));
                continue;
            }
            if of.sending >= of.settings.connections_max {
                return None;
            }
            of.waiting.remove(&(at, id));
            of.sending += 1;
            if let Some(rate) = of.settings.rate {
                let recent = of.recent.entry(delivery.action.rule.clone()).or_default();
                recent.note(rate, now.elapsed);
            }
            delivery.attempts = delivery.attempts.saturating_add(1);
            delivery.first.get_or_insert(now.elapsed);
            let action = Arc::clone(&delivery.action);
            return Some(Next::Attempt { id, channel, action });
        }
    }

    /// Takes the result of an attempt on a channel.
    pub(super) fn finished(
        &mut self,
        id: DeliveryId,
        channel: usize,
        outcome: Outcome,
        now: Now,
    ) -> Finished {
        let of = &mut self.channels[channel];
        of.sending -= 1;
        let Some(delivery) = self.open.get(&id) else { return Finished::Unknown };
        let action = Arc::clone(&delivery.action);
        let (reason, retry_after) = match outcome {
            Outcome::Delivered => {
                self.close(id, now);
                return Finished::Delivered;
            }
            Outcome::Rejected(rejection) => {
                self.close(id, now);
                return Finished::Rejected(action, rejection);
            }
            Outcome::Failed { reason, retry_after } => (reason, retry_after),
        };
        let wait = backoff::wait(delivery.attempts, retry_after, &mut self.random);
        let first = delivery.first.unwrap_or(now.elapsed);
        let gives_up = first + of.settings.retry_for;
        if now.elapsed >= gives_up {
            let tried_for = now.elapsed.saturating_sub(first);
            let rejection = Rejection::given_up(delivery.attempts, tried_for, &reason);
            self.close(id, now);
            return Finished::Rejected(action, rejection);
        }
        // The last attempt is at the end.
        let wait = wait.min(gives_up - now.elapsed);
        let expires_in = of.expires_in(&action, now.wall).unwrap_or_default();
        of.waiting.insert((now.elapsed + wait.min(expires_in), id));
        Finished::Waits(wait)
    }

    /// Closes a delivery; the next one of its respondent on its channel becomes due.
    fn close(&mut self, id: DeliveryId, now: Now) {
        let Some(delivery) = self.open.remove(&id) else { return };
        let Delivery { channel, partition, offset, action, .. } = delivery;
        self.channels[channel].dequeue(partition, &action.respondent_id, now);
        let entries = self.partitions.get_mut(&partition).expect("an open delivery has a record");
        let entry = entries.binary_search_by_key(&offset, |entry| entry.offset);
        entries[entry.expect("an open delivery has a record")].open -= 1;
    }

    /// Removes the records whose deliveries are closed, up to the first that is open, and returns the offset to commit for each
    /// partition with such records.
    pub(super) fn take_committable(&mut self) -> Vec<(Partition, Offset)> {
        let mut committable = Vec::new();
        for (partition, entries) in &mut self.partitions {
            let mut last = None;
            while let Some(entry) = entries.pop_front_if(|entry| entry.open == 0) {
                last = Some(entry.offset);
            }
            committable.extend(last.map(|offset| (*partition, offset.next())));
        }
        committable
    }

    /// Forgets a partition, whose new owner delivers what was not committed.
    pub(super) fn forget(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
        self.open.retain(|_, delivery| delivery.partition != partition);
        for channel in &mut self.channels {
            channel.respondents.retain(|(of, _), _| *of != partition);
            channel.waiting.retain(|(_, id)| self.open.contains_key(id));
        }
    }

    /// Forgets every partition.
    pub(super) fn forget_all(&mut self) {
        for partition in self.partitions.keys().copied().collect::<Vec<_>>() {
            self.forget(partition);
        }
    }

    /// The number of uncommitted records of a partition.
    pub(super) fn records_of(&self, partition: Partition) -> usize {
        self.partitions.get(&partition).map_or(0, VecDeque::len)
    }

    /// The number of attempts without a result.
    pub(super) fn sending(&self) -> usize {
        self.channels.iter().map(|channel| channel.sending).sum()
    }

    /// For each channel: the number of open deliveries, and the earliest due time among them.
    pub(super) fn backlog(&self) -> Vec<(usize, Option<WallTime>)> {
        let mut backlog = vec![(0, None); self.channels.len()];
        for delivery in self.open.values() {
            let (open, earliest) = &mut backlog[delivery.channel];
            *open += 1;
            let due = delivery.action.due;
            *earliest = Some(earliest.map_or(due, |earliest: WallTime| earliest.min(due)));
        }
        backlog
    }
}

impl Channel {
    fn wants(&self, rule: &str) -> bool {
        self.settings.rules.as_ref().is_none_or(|rules| rules.iter().any(|one| one == rule))
    }

    /// Adds a delivery behind the others of its respondent.
    fn enqueue(&mut self, partition: Partition, respondent: &str, id: DeliveryId, now: Now) {
        let queue = self.respondents.entry((partition, respondent.to_owned())).or_default();
        queue.push_back(id);
        if queue.len() == 1 {
            self.waiting.insert((now.elapsed, id));
        }
    }

    /// Removes the first delivery of a respondent.
    fn dequeue(&mut self, partition: Partition, respondent: &str, now: Now) {
        let key = (partition, respondent.to_owned());
        let Some(queue) = self.respondents.get_mut(&key) else { return };
        queue.pop_front();
        match queue.front() {
            Some(next) => drop(self.waiting.insert((now.elapsed, *next))),
            None => drop(self.respondents.remove(&key)),
        }
    }

    /// The time that an attempt for a rule has to wait, for the quiet hours or the rate.
    fn must_wait(&self, rule: &str, now: Now) -> Option<Duration> {
        let hours = self.settings.quiet_hours;
        let quiet = hours.and_then(|hours| quiet_hours::remaining(hours, now.wall));
        let free_at = self.settings.rate.zip(self.recent.get(rule));
        let free_at = free_at.and_then(|(rate, recent)| recent.free_at(rate, now.elapsed));
        quiet.max(free_at.map(|free_at| free_at.saturating_sub(now.elapsed)))
    }

    /// The time until an action expires; `None` if it has.
    fn expires_in(&self, action: &DueAction, now: WallTime) -> Option<Duration> {
        let age = now.since(action.due);
        self.settings.expires.checked_sub(age).filter(|left| !left.is_zero())
    }

    fn expired(&self, action: &DueAction, now: WallTime, attempts: u32) -> Rejection {
        Rejection::expired(now.since(action.due), self.settings.expires, attempts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::deliver::{
            action::tests::due_action,
            outcome::{EXPIRED, FAILED, REFUSED},
        },
        config::{QuietHours, Rate},
    };
    use foretell_streams::time::{ManualClock, WallTime};

    /// 2026-11-29 12:00 UTC.
    const NOON: i64 = 1_795_953_600_000;
    const SECOND: Duration = Duration::from_secs(1);
    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn settings(name: &str) -> ChannelSettings {
        ChannelSettings {
            name: name.to_owned(),
            rules: None,
            timeout: SECOND,
            retry_for: HOUR,
            expires: HOUR * 24,
            connections_max: 4,
            rate: None,
            quiet_hours: None,
        }
    }

    /// Deliveries with a clock that the test sets.
    struct Fixture {
        deliveries: Deliveries,
        clock: ManualClock,
        offset: i64,
    }

    impl Fixture {
        fn new(channels: Vec<ChannelSettings>) -> Self {
            let clock = ManualClock::at(WallTime(NOON));
            Self { deliveries: Deliveries::new(channels, 1), clock, offset: 0 }
        }

        fn now(&self) -> Now {
            Now::of(&self.clock)
        }

        /// Accepts an action that is due now, at the next offset of partition 0.
        fn accept(&mut self, respondent: &str, rule: &str) {
            let id = format!("a{}", self.offset);
            let action = due_action(&id, respondent, rule, self.clock.now());
            self.deliveries.accept(Partition(0), Offset(self.offset), Some(action), self.now());
            self.offset += 1;
        }

        /// The ids of the actions whose attempts begin now, with the numbers of their deliveries and channels.
        fn begun(&mut self) -> Vec<(DeliveryId, usize, String)> {
            let now = self.now();
            let next = std::iter::from_fn(|| self.deliveries.next(now));
            let begun = next.map(|next| match next {
                Next::Attempt { id, channel, action } => (id, channel, action.action_id.clone()),
                Next::Reject { rejection, .. } => panic!("{rejection:?}"),
            });
            begun.collect()
        }

        fn ids(&mut self) -> Vec<String> {
            self.begun().into_iter().map(|(_, _, id)| id).collect()
        }

        fn finish(&mut self, id: DeliveryId, channel: usize, outcome: Outcome) -> Finished {
            let now = self.now();
            self.deliveries.finished(id, channel, outcome, now)
        }

        fn committable(&mut self) -> Option<i64> {
            self.deliveries.take_committable().first().map(|(_, offset)| offset.0)
        }
    }

    fn failed() -> Outcome {
        Outcome::failed("status 500")
    }

    #[test]
    fn an_offset_is_committed_when_every_delivery_before_it_is_closed() {
        let mut fixture = Fixture::new(vec![settings("a"), settings("b")]);
        for respondent in ["ann", "bob", "eve"] {
            fixture.accept(respondent, "call");
        }
        let begun = fixture.begun();
        assert_eq!(begun.len(), 6, "each action on each channel: {begun:?}");
        assert_eq!(fixture.committable(), None);
        // Everything but the first action on the second channel.
        let (last, others): (Vec<_>, Vec<_>) =
            begun.into_iter().partition(|(_, channel, id)| *channel == 1 && id == "a0");
        for (id, channel, _) in others {
            assert!(matches!(fixture.finish(id, channel, Outcome::Delivered), Finished::Delivered));
        }
        assert_eq!(fixture.committable(), None);
        assert_eq!(fixture.deliveries.records_of(Partition(0)), 3);
        fixture.finish(last[0].0, 1, Outcome::Delivered);
        assert_eq!(fixture.committable(), Some(3));
        assert_eq!(fixture.deliveries.records_of(Partition(0)), 0);
    }

    #[test]
    fn a_stop_delivers_what_precedes_a_delivered_record_and_nothing_else() {
        let mut fixture = Fixture::new(vec![settings("a")]);
        for respondent in ["ann", "ann", "bob", "eve"] {
            fixture.accept(respondent, "call");
        }
        let before_stop = |fixture: &mut Fixture| {
            let now = fixture.now();
            fixture.deliveries.next_before_stop(now).map(|next| match next {
                Next::Attempt { id, action, .. } => (id, action.action_id.clone()),
                Next::Reject { rejection, .. } => panic!("{rejection:?}"),
            })
        };
        assert!(before_stop(&mut fixture).is_none(), "nothing is delivered");
        let now = fixture.now();
        let mut next = || match fixture.deliveries.next(now) {
            Some(Next::Attempt { id, .. }) => id,
            other => panic!("{other:?}"),
        };
        let (ann, bob) = (next(), next());
        fixture.finish(bob, 0, Outcome::Delivered);
        assert!(before_stop(&mut fixture).is_none(), "the second one of ann waits for the first");
        fixture.finish(ann, 0, Outcome::Delivered);
        let (second, id) = before_stop(&mut fixture).unwrap();
        assert_eq!(id, "a1");
        fixture.finish(second, 0, Outcome::Delivered);
        assert!(before_stop(&mut fixture).is_none(), "the one of eve is left to the next start");
        assert_eq!(fixture.committable(), Some(3));
    }

    #[test]
    fn records_without_a_delivery_are_committed_in_their_order() {
        let rules = Some(vec!["call".to_owned()]);
        let mut fixture = Fixture::new(vec![ChannelSettings { rules, ..settings("a") }]);
        fixture.accept("ann", "mail");
        let now = fixture.now();
        fixture.deliveries.accept(Partition(0), Offset(1), None, now);
        assert_eq!((fixture.ids().len(), fixture.committable()), (0, Some(2)));
    }

    #[test]
    fn deliveries_of_a_respondent_are_made_in_order() {
        let mut fixture = Fixture::new(vec![settings("a")]);
        for respondent in ["ann", "ann", "bob", "ann"] {
            fixture.accept(respondent, "call");
        }
        let begun = fixture.begun();
        let ids: Vec<_> = begun.iter().map(|(_, _, id)| id.as_str()).collect();
        assert_eq!(ids, ["a0", "a2"]);
        let (ann, ..) = begun[0];
        fixture.finish(ann, 0, failed());
        assert_eq!(fixture.ids(), [""; 0], "the second one waits for the first");
        fixture.clock.advance(SECOND);
        let again = fixture.begun();
        assert_eq!(again[0].2, "a0");
        fixture.finish(again[0].0, 0, Rejection::new(REFUSED, "status 400").into());
        assert_eq!(fixture.ids(), ["a1"]);
    }

    #[test]
    fn a_channel_has_no_more_attempts_than_connections() {
        let mut fixture = Fixture::new(vec![settings("a"), settings("b")]);
        for number in 0..10 {
            fixture.accept(&format!("r{number}"), "call");
        }
        let begun = fixture.begun();
        assert_eq!(begun.iter().filter(|(_, channel, _)| *channel == 0).count(), 4);
        assert_eq!(begun.len(), 8);
        // The second channel goes on while the first hangs.
        let (id, ..) = *begun.iter().find(|(_, channel, _)| *channel == 1).unwrap();
        fixture.finish(id, 1, Outcome::Delivered);
        assert!(fixture.begun().iter().all(|(_, channel, _)| *channel == 1));
    }

    #[test]
    fn a_failed_delivery_is_tried_again_until_its_time_is_over() {
        let retry_for = HOUR;
        let mut fixture = Fixture::new(vec![ChannelSettings { retry_for, ..settings("a") }]);
        fixture.accept("ann", "call");
        let (mut attempts, mut waits) = (0, Vec::new());
        let rejection = loop {
            let begun = fixture.begun();
            let Some((id, ..)) = begun.first() else {
                fixture.clock.advance(Duration::from_millis(100));
                continue;
            };
            attempts += 1;
            match fixture.finish(*id, 0, failed()) {
                Finished::Waits(wait) => waits.push(wait),
                Finished::Rejected(_, rejection) => break rejection,
                other @ (Finished::Delivered | Finished::Unknown) => panic!("{other:?}"),
            }
        };
        assert_eq!(rejection.class, FAILED);
        assert!(rejection.reason.contains(&format!("after {attempts} attempts")), "{rejection:?}");
        assert!(rejection.reason.ends_with("status 500"), "{rejection:?}");
        let took = fixture.clock.elapsed();
        assert!(took >= HOUR && took < HOUR + Duration::from_secs(1), "{took:?}");
        assert!(waits.iter().all(|wait| *wait <= Duration::from_secs(300)), "{waits:?}");
        assert!((12..60).contains(&attempts), "{attempts}");
        assert_eq!(fixture.committable(), Some(1));
    }

    #[test]
    fn the_receiver_may_ask_for_a_later_attempt() {
        let mut fixture = Fixture::new(vec![settings("a")]);
        fixture.accept("ann", "call");
        let (id, ..) = fixture.begun()[0];
        let retry_after = Some(SECOND * 90);
        fixture.finish(id, 0, Outcome::Failed { reason: "status 429".to_owned(), retry_after });
        fixture.clock.advance(SECOND * 89);
        assert_eq!(fixture.ids(), [""; 0]);
        fixture.clock.advance(SECOND);
        let (id, ..) = fixture.begun()[0];
        // Later than the end of the attempts: the last attempt is at the end.
        let later = || {
            let (reason, retry_after) = ("status 429".to_owned(), Some(HOUR));
            Outcome::Failed { reason, retry_after }
        };
        let left = HOUR - SECOND * 90;
        assert!(matches!(fixture.finish(id, 0, later()), Finished::Waits(wait) if wait == left));
        fixture.clock.advance(left);
        let (id, ..) = fixture.begun()[0];
        assert!(matches!(fixture.finish(id, 0, later()), Finished::Rejected(..)));
    }

    #[test]
    fn an_action_that_is_too_old_is_not_sent() {
        let expires = HOUR;
        let mut fixture = Fixture::new(vec![ChannelSettings { expires, ..settings("a") }]);
        fixture.accept("ann", "call");
        fixture.clock.advance(HOUR);
        let now = fixture.now();
        let Some(Next::Reject { channel: 0, rejection, .. }) = fixture.deliveries.next(now) else {
            panic!("it is not rejected");
        };
        assert_eq!(rejection.class, EXPIRED);
        assert_eq!(fixture.committable(), Some(1));
        // One that fails until then, too.
        fixture.accept("bob", "call");
        fixture.clock.advance(HOUR - SECOND);
        let (id, ..) = fixture.begun()[0];
        let retry_after = Some(SECOND * 100);
        fixture.finish(id, 0, Outcome::Failed { reason: String::new(), retry_after });
        fixture.clock.advance(SECOND);
        let now = fixture.now();
        let next = fixture.deliveries.next(now);
        assert!(matches!(next, Some(Next::Reject { .. })), "{next:?}");
    }

    #[test]
    fn actions_wait_for_the_end_of_the_quiet_hours() {
        // Noon is quiet until one o'clock.
        let quiet_hours = Some(QuietHours { from: 11 * 60, to: 13 * 60, zone: 0 });
        let quiet = ChannelSettings { quiet_hours, ..settings("a") };
        let mut fixture = Fixture::new(vec![quiet.clone(), settings("b")]);
        fixture.accept("ann", "call");
        let begun = fixture.begun();
        assert_eq!(begun.iter().map(|(_, channel, _)| *channel).collect::<Vec<_>>(), [1]);
        for _ in 0..59 {
            fixture.clock.advance(SECOND * 60);
            assert_eq!(fixture.ids(), [""; 0]);
        }
        fixture.clock.advance(SECOND * 60);
        assert_eq!(fixture.ids(), ["a0"]);
        // Unless they expire before it.
        let expires = HOUR / 2;
        let mut fixture = Fixture::new(vec![ChannelSettings { expires, ..quiet }]);
        fixture.accept("ann", "call");
        assert_eq!(fixture.ids(), [""; 0]);
        fixture.clock.advance(expires);
        let now = fixture.now();
        let next = fixture.deliveries.next(now);
        assert!(matches!(next, Some(Next::Reject { .. })), "{next:?}");
    }

    #[test]
    fn the_rate_of_one_rule_does_not_delay_another() {
        let rate = Some(Rate { times: 2, per: SECOND * 10 });
        let settings = ChannelSettings { rate, connections_max: 64, ..settings("a") };
        let mut fixture = Fixture::new(vec![settings]);
        for number in 0..5 {
            fixture.accept(&format!("r{number}"), "call");
        }
        fixture.accept("ann", "mail");
        assert_eq!(fixture.ids(), ["a0", "a1", "a5"]);
        fixture.clock.advance(SECOND * 9);
        assert_eq!(fixture.ids(), [""; 0]);
        fixture.clock.advance(SECOND);
        assert_eq!(fixture.ids(), ["a2", "a3"]);
        fixture.clock.advance(SECOND * 10);
        assert_eq!(fixture.ids(), ["a4"]);
    }

    #[test]
    fn the_results_of_a_revoked_partition_are_ignored() {
        let mut fixture = Fixture::new(vec![settings("a")]);
        fixture.accept("ann", "call");
        fixture.accept("ann", "call");
        let (old, ..) = fixture.begun()[0];
        fixture.deliveries.forget(Partition(0));
        assert_eq!(fixture.deliveries.sending(), 1, "its connection is still in use");
        // The partition comes back, and the same records are read again.
        fixture.offset = 0;
        fixture.accept("ann", "call");
        let (new, ..) = fixture.begun()[0];
        assert!(matches!(fixture.finish(old, 0, failed()), Finished::Unknown));
        assert_eq!(fixture.committable(), None);
        assert!(matches!(fixture.finish(new, 0, Outcome::Delivered), Finished::Delivered));
        assert_eq!((fixture.committable(), fixture.deliveries.sending()), (Some(1), 0));
    }

    #[test]
    fn the_same_seed_gives_the_same_attempts() {
        let run = |seed: u64| {
            let mut fixture = Fixture::new(vec![settings("a")]);
            fixture.deliveries = Deliveries::new(vec![settings("a")], seed);
            (0..20).for_each(|number| fixture.accept(&format!("r{}", number % 7), "call"));
            let mut trace = Vec::new();
            for step in 0..600_u64 {
                for (id, channel, action) in fixture.begun() {
                    trace.push((step, action));
                    fixture.finish(id, channel, failed());
                }
                fixture.clock.advance(Duration::from_millis(100));
            }
            trace
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
