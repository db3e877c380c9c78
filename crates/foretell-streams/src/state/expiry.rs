//! Reads and expiry of a window store: committed entries merged with uncommitted changes.

use std::ops::ControlFlow;

use crate::{
    state::{Position, StateError, Store, window_key::WindowKey},
    time::EventTime,
};

/// The first committed entry, in the order of expiry, that may have to expire. All before it are removed or overwritten by
/// uncommitted changes, so a call that expires nothing reads no committed entry.
#[derive(Clone, Default)]
pub(super) enum ExpiryStart {
    #[default]
    Unknown,
    /// The entry with this name and position, or a later one.
    At(Vec<u8>, Position),
    /// None of them.
    End,
}

impl ExpiryStart {
    /// Moves it back to `key`, which has been committed.
    pub(super) fn include(&mut self, key: WindowKey<'_>) {
        let is_earlier = match self {
            Self::Unknown => false,
            Self::At(name, position) => key.expiry_order() < (*position, name.as_slice()),
            Self::End => true,
        };
        if is_earlier {
            *self = Self::At(key.name.to_vec(), key.position);
        }
    }

    fn set(&mut self, key: WindowKey<'_>) {
        match self {
            Self::At(name, position) => {
                name.clear();
                name.extend_from_slice(key.name);
                *position = key.position;
            }
            Self::Unknown | Self::End => *self = Self::At(key.name.to_vec(), key.position),
        }
    }

    /// Whether an entry with a time before `before` may follow.
    fn may_precede(&self, before: EventTime) -> bool {
        match self {
            Self::Unknown => true,
            Self::At(_, position) => position.time < before,
            Self::End => false,
        }
    }
}

impl Store {
    /// Passes the entries of `name` with positions in `from..=to` to `visit`, in order, until it breaks.
    pub(super) fn fetch(
        &self,
        name: &[u8],
        from: Position,
        to: Position,
        mut visit: impl FnMut(Position, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let mut dirty = self.dirty.of_name(name, from, to).peekable();
        let mut flow = ControlFlow::Continue(());
        self.committed.fetch(name, from, to, &mut |position, value| {
            flow = (|| {
                while let Some((at, value)) = dirty.next_if(|(at, _)| *at < position) {
                    value.map_or(ControlFlow::Continue(()), |value| visit(at, value))?;
                }
                // A change hides the committed entry.
                match dirty.next_if(|(at, _)| *at == position) {
                    Some((_, None)) => ControlFlow::Continue(()),
                    Some((_, Some(value))) => visit(position, value),
                    None => visit(position, value),
                }
            })();
            flow
        })?;
        if flow.is_continue() {
            for (position, value) in dirty {
                if value.is_some_and(|value| visit(position, value).is_break()) {
                    break;
                }
            }
        }
        Ok(())
    }

    /// The sequence of the next entry with this name and time.
    pub(super) fn next_sequence(&self, name: &[u8], time: EventTime) -> Result<u32, StateError> {
        let mut next = 0;
        let (from, to) = (Position::first_at(time), Position::last_at(time));
        self.fetch(name, from, to, |position, _| {
            next = position.sequence + 1;
            ControlFlow::Continue(())
        })?;
        Ok(next)
    }

    /// Sets an entry of a window store to the bytes that `encode` appends. `is_new` is false only if it exists.
    pub(super) fn put_entry<E>(
        &mut self,
        key: WindowKey<'_>,
        is_new: bool,
        encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.key.clear();
        key.append_to(&mut self.key);
        self.dirty.put(&self.key, is_new, encode)
    }

    /// Removes an entry of a window store, if it exists.
    pub(super) fn delete_entry(&mut self, key: WindowKey<'_>) {
        self.key.clear();
        key.append_to(&mut self.key);
        self.dirty.delete(&self.key);
    }

    /// Whether the index by time has no entry for this key. An engine with its own order needs none.
    pub(super) fn is_unindexed(&mut self, key: WindowKey<'_>) -> Result<bool, StateError> {
        if !self.needs_time_index() {
            return Ok(false);
        }
        self.key.clear();
        key.append_to(&mut self.key);
        match self.dirty.get(&self.key) {
            Some(change) => Ok(change.is_none()),
            None => Ok(self.committed.get(&self.key)?.is_none()),
        }
    }

    /// As [`Self::find_expired`], for a caller that removes none of them.
    pub(super) fn find_oldest(
        &mut self,
        before: EventTime,
        limit: usize,
        found: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        let start = self.expiry_start.clone();
        self.find_expired(before, limit, found)?;
        self.expiry_start = start;
        Ok(())
    }

    /// Appends the keys of the oldest entries with times before `before`, at most `limit`, to `found`. The caller removes
    /// all of them, or rolls back.
    pub(super) fn find_expired(
        &mut self,
        before: EventTime,
        limit: usize,
        found: &mut Vec<u8>,
    ) -> Result<(), StateError> {
        let Self { committed, dirty, expiry_start, .. } = self;
        let mut changed = dirty.by_time().take_while(|key| key.position.time < before).peekable();
        let mut left = limit;
        if left > 0 && expiry_start.may_precede(before) {
            let start = std::mem::take(expiry_start);
            let from = match &start {
                ExpiryStart::At(name, position) => Some((name.as_slice(), *position)),
                ExpiryStart::Unknown | ExpiryStart::End => None,
            };
            *expiry_start = ExpiryStart::End;
            committed.oldest(from, &mut |name, position| {
                let key = WindowKey { name, position };
                let is_expired = position.time < before;
                if is_expired && dirty.contains(key) {
                    return ControlFlow::Continue(());
                }
                let is_earlier =
                    |change: &WindowKey<'_>| change.expiry_order() < key.expiry_order();
                while left > 0
                    && let Some(change) = changed.next_if(is_earlier)
                {
                    change.append_to(found);
                    left -= 1;
                }
                if left == 0 || !is_expired {
                    expiry_start.set(key);
                    return ControlFlow::Break(());
                }
                key.append_to(found);
                left -= 1;
                ControlFlow::Continue(())
            })?;
        }
        changed.take(left).for_each(|change| change.append_to(found));
        Ok(())
    }
}
