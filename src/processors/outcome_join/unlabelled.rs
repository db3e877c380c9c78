//! The predictions without an outcome of one respondent, of which one gets the label of the policy.
//!
//! When the window of a prediction closes without an outcome, that counts as an outcome at the end of its window: its group is
//! the predictions of the respondent from it up to then that are stored when it closes, and `learn_from` chooses one of them.
//!
//! ```text
//!              P1 ───────window───────▶|
//!                   P2        P3 ───────window───────▶|
//!                                          P4 ───────window───────▶|
//!   first:     P1 is chosen; P2, P3 are passed over; P4 begins a group
//!   last:      P3 is chosen, and gets the label at the end of its own window if no outcome comes; P1, P2 are passed over; P4
//!              begins a group
//!   one of P1 to P3 was learned from:  the others are passed over
//! ```
//!
//! A group is decided before anything else of its respondent is processed that comes after it closed, so it does not matter when
//! punctuations run. Without a label, or if every prediction is learned from, there are no groups.

use crate::{
    events::{answered::Encoded, labelled_example::LabelledExample},
    processors::{
        outcome_join::{
            pending::{PendingRef, StateRef},
            settings::{LearnFrom, UnlabelledPolicy},
            store::{Buffers, JoinContext, OutcomeStore},
        },
        waiting::Waiting,
    },
};
use foretell_streams::{
    state::{Position, StateError},
    time::EventTime,
    topology::{Context, ProcessError},
};

/// A prediction of a respondent, while its group is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Member {
    position: Position,
    standing: Standing,
    is_changed: bool,
}

/// A [`StateRef`] without its label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Waiting,
    Chosen,
    Learned,
    PassedOver,
}

impl OutcomeStore {
    /// Whether one prediction of a group gets a label.
    fn has_groups(&self) -> bool {
        let has_label = match self.settings.unlabelled {
            UnlabelledPolicy::Label(_) => true,
            UnlabelledPolicy::Drop => false,
        };
        has_label && self.settings.learn_from != LearnFrom::Every
    }

    /// Decides the groups of a respondent that have closed.
    pub(super) fn close(
        &self,
        respondent: &str,
        buffers: &mut Buffers,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        if !self.has_groups() {
            return Ok(());
        }
        let open = self.settings.join_window().open(ctx.stream_time());
        self.close_before(open, respondent, buffers, ctx)
    }

    /// Decides the groups of the first `limit` entries of all respondents that have closed.
    pub(super) fn close_expired(
        &self,
        open: EventTime,
        limit: usize,
        buffers: &mut Buffers,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        if !self.has_groups() {
            return Ok(());
        }
        let mut respondents: Vec<String> = Vec::new();
        let mut store = ctx.window(&self.pending);
        store.visit_expired(open, limit, |respondent, _, bytes| {
            let entry = PendingRef::parse(bytes).map_err(|error| self.pending.unreadable(error))?;
            if standing_of(entry) == Some(Standing::Waiting) {
                respondents.push(respondent.to_owned());
            }
            Ok(())
        })?;
        for respondent in respondents {
            self.close_before(open, &respondent, buffers, ctx)?;
        }
        Ok(())
    }

    /// Decides the group of a prediction that came after its window had closed.
    pub(super) fn close_late(
        &self,
        respondent: &str,
        position: Position,
        buffers: &mut Buffers,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let open = self.settings.join_window().open(ctx.stream_time());
        if position.time >= open || !self.has_groups() {
            return Ok(());
        }
        let mut members = self.members(respondent, buffers, ctx)?;
        // The others that have closed were decided before it came.
        members.retain(|one| one.position == position || one.position.time >= open);
        if members.first().is_some_and(|one| one.standing == Standing::Waiting) {
            self.decide(&mut members);
        }
        self.write(respondent, &members, buffers, ctx)
    }

    fn close_before(
        &self,
        open: EventTime,
        respondent: &str,
        buffers: &mut Buffers,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let mut members = self.members(respondent, buffers, ctx)?;
        for closing in 0..members.len() {
            let Member { position, standing, .. } = members[closing];
            if position.time < open && standing == Standing::Waiting {
                self.decide(&mut members[closing..]);
            }
        }
        self.write(respondent, &members, buffers, ctx)
    }

    /// Decides the group of the first of `members`, which is waiting and closes; the others are later.
    fn decide(&self, members: &mut [Member]) {
        let Some(first) = members.first() else { return };
        let end = first.position.time + self.settings.window;
        let size = members.partition_point(|one| one.position.time <= end);
        let group = &mut members[..size];
        let is_learned = group.iter().any(|one| one.standing == Standing::Learned);
        let chosen = match self.settings.learn_from {
            LearnFrom::First | LearnFrom::Every => 0,
            LearnFrom::Last => {
                group.iter().rposition(|one| one.standing.is_waiting()).unwrap_or_default()
            }
        };
        for (index, one) in group.iter_mut().enumerate() {
            if !one.standing.is_waiting() {
                continue;
            }
            one.standing = match index == chosen && !is_learned {
                true => Standing::Chosen,
                false => Standing::PassedOver,
            };
            one.is_changed = true;
        }
    }

    /// The stored predictions of a respondent, oldest first.
    fn members(
        &self,
        respondent: &str,
        buffers: &mut Buffers,
        ctx: &mut JoinContext<'_>,
    ) -> Result<Vec<Member>, StateError> {
        let always = EventTime::MIN..=EventTime::MAX;
        let entries = &mut buffers.entries;
        entries.fetch(&self.pending, &self.codec, respondent, always, ctx)?;
        entries.retain(|_, entry| entry.is_prediction());
        let member = |(position, entry)| {
            let standing = standing_of(entry)?;
            Some(Member { position, standing, is_changed: false })
        };
        Ok(entries.iter().filter_map(member).collect())
    }

    /// Stores the members whose state has changed.
    fn write(
        &self,
        respondent: &str,
        members: &[Member],
        buffers: &mut Buffers,
        ctx: &mut Context<'_, Encoded<LabelledExample>>,
    ) -> Result<(), ProcessError> {
        let Buffers { entries, entry } = buffers;
        for Member { position, standing, .. } in members.iter().filter(|one| one.is_changed) {
            let stored = entries.iter().find(|(stored, _)| stored == position);
            let Some((_, PendingRef::Prediction { record, .. })) = stored else { continue };
            entry.clear();
            match standing {
                Standing::Chosen => StateRef::Chosen.write(entry),
                Standing::PassedOver => StateRef::PassedOver.write(entry),
                Standing::Waiting | Standing::Learned => continue,
            }
            entry.extend_from_slice(record);
            ctx.window(&self.pending).replace_bytes(respondent, *position, entry)?;
            if *standing == Standing::PassedOver {
                self.leaves(Waiting::Prediction, ctx);
            }
        }
        Ok(())
    }
}

impl Standing {
    fn is_waiting(self) -> bool {
        match self {
            Self::Waiting | Self::Chosen => true,
            Self::Learned | Self::PassedOver => false,
        }
    }
}

/// The standing of a prediction; none for an outcome.
fn standing_of(entry: PendingRef<'_>) -> Option<Standing> {
    match entry {
        PendingRef::Prediction { state, .. } => Some(match state {
            StateRef::Waiting => Standing::Waiting,
            StateRef::Chosen => Standing::Chosen,
            StateRef::Learned(_) | StateRef::Held { .. } => Standing::Learned,
            StateRef::PassedOver => Standing::PassedOver,
        }),
        PendingRef::Outcome(_) => None,
    }
}
