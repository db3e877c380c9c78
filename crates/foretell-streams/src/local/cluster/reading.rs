//! Reading outside any group: the positions of readers and followers, and the ends of partitions.

use crate::{
    local::{cluster::Cluster, now::Now, session::Cursor},
    record::{InputRecord, Offset, TopicPartition},
    runtime::broker::{BrokerError, Isolation, ReadFrom, ReadTo},
};

impl Cluster {
    /// [`Broker::read`](crate::runtime::broker::Broker::read).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the partition does not exist; [`BrokerError::Gone`] if the topic does not exist.
    pub(crate) fn open(
        &mut self,
        source: &TopicPartition,
        from: ReadFrom,
        now: Now,
    ) -> Result<Cursor, BrokerError> {
        self.expire(now);
        let Some(log) = self.topics.log(source) else {
            return Err(self.topics.missing(source));
        };
        let position = match from {
            ReadFrom::Beginning => log.start(),
            ReadFrom::Offset(offset) => offset,
            ReadFrom::End => log.stable_end(),
        };
        Ok(Cursor { source: source.clone(), position, is_end_reported: false })
    }

    /// [`Follower::open`](crate::runtime::broker::Follower::open).
    ///
    /// # Errors
    /// As for [`Self::open`]; [`BrokerError::OutOfRange`] if the offset is not in the log, which a reader reports when it reads.
    pub(crate) fn open_in_range(
        &mut self,
        source: &TopicPartition,
        from: ReadFrom,
        now: Now,
    ) -> Result<Cursor, BrokerError> {
        let cursor = self.open(source, from, now)?;
        match self.topics.log(source) {
            Some(log) if log.reaches(cursor.position) => Ok(cursor),
            Some(_) | None => Err(BrokerError::OutOfRange(source.clone())),
        }
    }

    /// [`Broker::end`](crate::runtime::broker::Broker::end).
    ///
    /// # Errors
    /// [`BrokerError::Fatal`] if the partition does not exist; [`BrokerError::Gone`] if the topic does not exist.
    pub(crate) fn end(
        &mut self,
        source: &TopicPartition,
        isolation: Isolation,
        now: Now,
    ) -> Result<Offset, BrokerError> {
        self.expire(now);
        let Some(log) = self.topics.log(source) else {
            return Err(self.topics.missing(source));
        };
        Ok(match isolation {
            Isolation::ReadCommitted => log.stable_end(),
            Isolation::ReadUncommitted => log.end(),
        })
    }

    /// [`Reader::read`](crate::runtime::broker::Reader::read) without waiting. Also returns whether the result is new to
    /// the reader: records, or the end when it is reached first.
    ///
    /// # Errors
    /// [`BrokerError::OutOfRange`] if the position was trimmed or is after the end.
    pub(crate) fn read(
        &mut self,
        cursor: &mut Cursor,
        now: Now,
        records: &mut Vec<InputRecord>,
    ) -> Result<(ReadTo, bool), BrokerError> {
        self.expire(now);
        let before = records.len();
        let at_end = cursor.fetch(&self.topics, records)?;
        let is_new = records.len() > before || !cursor.is_end_reported;
        cursor.is_end_reported = at_end;
        Ok((if at_end { ReadTo::End } else { ReadTo::More }, is_new))
    }
}
