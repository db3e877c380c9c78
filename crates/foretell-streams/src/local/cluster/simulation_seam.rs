//! Test-only operations for the simulation, beyond the port: to inspect a member, and to plant a bug.

use std::collections::BTreeMap;

use crate::{
    local::{cluster::Cluster, group::MembershipStatus, now::Now, session::Session},
    record::{Offset, Partition, TopicPartition},
    runtime::broker::BrokerError,
};

impl Cluster {
    /// The offsets to which an abort would rewind.
    pub(crate) fn rewind_offsets(&self, session: &Session) -> BTreeMap<TopicPartition, Offset> {
        let rewind_offset = |source: &TopicPartition| self.rewind_offset(session, source);
        session.inputs().map(|source| (source.clone(), rewind_offset(source))).collect()
    }

    /// Whether the member owns a task.
    pub(crate) fn owns(&self, session: &Session, task: Partition) -> bool {
        let member = &session.membership.member;
        let group = &self.subscription(session).group;
        matches!(self.status(session), Ok(MembershipStatus::Joined)) && group.owns(member, task)
    }

    /// [`Cluster::commit`] without the check that the member owns the partitions: a bug that the simulation must find.
    pub(crate) fn commit_without_ownership_check(
        &mut self,
        session: &Session,
        offsets: &[(TopicPartition, Offset)],
        now: Now,
    ) -> Result<(), BrokerError> {
        self.expire(now);
        self.status(session)?;
        if self.has_nothing_to_commit(session, offsets) {
            return Ok(());
        }
        self.commit_checked(session, offsets, now)
    }
}
