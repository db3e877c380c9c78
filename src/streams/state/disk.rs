//! Stores on disk, in one LSM tree each, all in one database of the process ([fjall](https://docs.rs/fjall)).
//!
//! ```text
//!   folder/                         one process at a time (it is locked)
//!     <changelog>/<partition>       a keyspace a store of a task
//!       0                →  Checkpoint
//!       1 ‖ key          →  value
//! ```
//! The disk is a cache of the changelog. What is written reaches the operating system with each commit, and
//! the disk when that sees fit: after a power cut, a tree is as it was a while ago, its checkpoint with it (or
//! newer than its checkpoint, which does no harm), and the changelog brings it up to date. For the same reason,
//! what is damaged is thrown away.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs, io,
    ops::Bound,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fjall::{Database, Keyspace, KeyspaceCreateOptions};

use crate::streams::{
    codec::{Codec, Stored},
    record::TopicPartition,
    state::{Access, Change, Checkpoint, Entry, StateError, StateStore, StoreSupplier},
};

/// For all stores together: blocks read from disk.
const CACHE_BYTES: u64 = 64 << 20;
/// A store, before it is flushed to a file.
const MEMTABLE_BYTES: u64 = 8 << 20;
/// For all stores together: what a start may have to read again.
const JOURNAL_BYTES: u64 = 128 << 20;

/// A store that nobody has open any more is removed after this long: its task may come back.
const UNUSED_FOR: Duration = Duration::from_secs(3600);

const CHECKPOINT: &[u8] = &[0];
const ENTRY: u8 = 1;
/// Of the checkpoint, and of what keys and values are made of: a store with another one is rebuilt.
const CHECKPOINT_FORMAT: u8 = 1;

/// The stores of a process, in one folder.
pub struct DiskStores {
    database: Database,
    leases: Leases,
}

/// Who has each store open.
#[derive(Clone, Default)]
struct Leases(Arc<Mutex<BTreeMap<String, Lease>>>);

#[derive(Clone, Copy, Default)]
struct Lease {
    /// Grows when the holder changes: whoever held it before must not write any more.
    number: u64,
    holder: Holder,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Holder {
    /// Since that time on the clock, if somebody has looked.
    #[default]
    Nobody,
    NobodySince(Duration),
    Standby,
    Task,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Lease>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DiskStores {
    /// Opens the database in `folder`, which is made if it is not there. One that is damaged is emptied: the
    /// changelogs have it all.
    ///
    /// # Errors
    /// [`StateError::Disk`] if another process has it, or the folder can't be used.
    pub fn open(folder: &Path) -> Result<Self, StateError> {
        let unusable = |error: &io::Error| {
            let folder = folder.display();
            StateError::Disk(format!(
                "cannot keep stores in {folder}: {error}. Set [streams] state_dir to a folder that this user may write to"
            ))
        };
        fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
        let database = match open_database(folder) {
            Ok(database) => database,
            Err(fjall::Error::Locked) => {
                let folder = folder.display();
                return Err(StateError::Disk(format!(
                    "another process has its stores in {folder}: give each instance its own [application] instance or [streams] state_dir"
                )));
            }
            Err(fjall::Error::Io(error)) if !is_damage(&error) => return Err(unusable(&error)),
            Err(error) => {
                let what = if is_other_format(&error) { "in another format" } else { "damaged" };
                tracing::error!(folder = %folder.display(), %error, "the stores are {what}: rebuilding all of them from their changelogs");
                fs::remove_dir_all(folder).map_err(|error| unusable(&error))?;
                fs::create_dir_all(folder).map_err(|error| unusable(&error))?;
                open_database(folder).map_err(|error| failed(&error))?
            }
        };
        Ok(Self { database, leases: Leases::default() })
    }
}

fn open_database(folder: &Path) -> Result<Database, fjall::Error> {
    Database::builder(folder)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES)
        .worker_threads(1)
        .open()
}

impl StoreSupplier for DiskStores {
    fn open(
        &self,
        changelog: &TopicPartition,
        _access: Access,
    ) -> Result<Box<dyn StateStore>, StateError> {
        match self.open_as(changelog, Holder::Task)? {
            Some(store) => Ok(Box::new(store)),
            None => Err(StateError::TakenOver(changelog.clone())),
        }
    }

    fn open_standby(
        &self,
        changelog: &TopicPartition,
    ) -> Result<Option<Box<dyn StateStore>>, StateError> {
        let store = self.open_as(changelog, Holder::Standby)?;
        Ok(store.map(|store| Box::new(store) as Box<dyn StateStore>))
    }

    fn clean(&self, now: Duration) -> Result<(), StateError> {
        let mut leases = self.leases.lock();
        for name in self.database.list_keyspace_names() {
            let lease = leases.entry(name.to_string()).or_default();
            match lease.holder {
                Holder::Nobody => lease.holder = Holder::NobodySince(now),
                Holder::NobodySince(since) if now >= since + UNUSED_FOR => {
                    tracing::info!(store = %*name, "removing a store that has moved away");
                    let tree = self.database.keyspace(&name, options);
                    tree.and_then(|tree| self.database.delete_keyspace(tree))
                        .map_err(|error| failed(&error))?;
                    leases.remove(&*name);
                }
                Holder::NobodySince(_) | Holder::Standby | Holder::Task => {}
            }
        }
        Ok(())
    }

    fn is_lasting(&self) -> bool {
        true
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default().max_memtable_size(MEMTABLE_BYTES)
}

impl DiskStores {
    /// None if a task has it and the new holder is not one.
    fn open_as(
        &self,
        changelog: &TopicPartition,
        holder: Holder,
    ) -> Result<Option<DiskStore>, StateError> {
        let name = changelog.to_string();
        let (tree, lease) = {
            let mut leases = self.leases.lock();
            let lease = leases.entry(name.clone()).or_default();
            if holder != Holder::Task && lease.holder == Holder::Task {
                return Ok(None);
            }
            *lease = Lease { number: lease.number + 1, holder };
            let number = lease.number;
            (self.database.keyspace(&name, options).map_err(|error| failed(&error))?, number)
        };
        let mut store = DiskStore {
            database: self.database.clone(),
            tree,
            changelog: changelog.clone(),
            name,
            leases: self.leases.clone(),
            lease,
            checkpoint: None,
        };
        match store.read_checkpoint() {
            Ok(checkpoint) => store.checkpoint = checkpoint,
            Err(error @ StateError::Disk(_)) => return Err(error),
            Err(error) => {
                tracing::warn!(%changelog, %error, "rebuilding the store from its changelog");
                store.clear()?;
            }
        }
        Ok(Some(store))
    }
}

/// One tree, for one holder of its lease.
struct DiskStore {
    database: Database,
    tree: Keyspace,
    changelog: TopicPartition,
    name: String,
    leases: Leases,
    lease: u64,
    checkpoint: Option<Checkpoint>,
}

impl Drop for DiskStore {
    fn drop(&mut self) {
        if let Some(lease) = self.leases.lock().get_mut(&self.name)
            && lease.number == self.lease
        {
            lease.holder = Holder::Nobody;
        }
    }
}

impl DiskStore {
    fn read_checkpoint(&self) -> Result<Option<Checkpoint>, StateError> {
        let Some(bytes) = self.tree.get(CHECKPOINT).map_err(|error| failed(&error))? else {
            return Ok(None);
        };
        let checkpoint = Stored::version(CHECKPOINT_FORMAT).decode(&bytes);
        checkpoint.map(Some).map_err(StateError::Corrupted)
    }

    fn is_held_in(&self, leases: &BTreeMap<String, Lease>) -> bool {
        leases.get(&self.name).is_some_and(|lease| lease.number == self.lease)
    }

    /// Runs `write` if nobody has taken over, and keeps everybody from it meanwhile.
    fn as_holder(
        &self,
        write: impl FnOnce() -> Result<(), fjall::Error>,
    ) -> Result<(), StateError> {
        let leases = self.leases.lock();
        if !self.is_held_in(&leases) {
            return Err(StateError::TakenOver(self.changelog.clone()));
        }
        write().map_err(|error| failed(&error))
    }
}

impl StateStore for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Cow<'_, [u8]>>, StateError> {
        let value = self.tree.get(entry_key(key)).map_err(|error| failed(&error))?;
        Ok(value.map(|value| Cow::Owned(value.to_vec())))
    }

    fn range<'s>(
        &'s self,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Box<dyn Iterator<Item = Result<Entry<'s>, StateError>> + 's> {
        let from = match from {
            Bound::Unbounded => Bound::Included(vec![ENTRY]),
            Bound::Included(_) | Bound::Excluded(_) => from.map(entry_key),
        };
        let to = to.map(entry_key);
        Box::new(self.tree.range((from, to)).map(|entry| {
            let (key, value) = entry.into_inner().map_err(|error| failed(&error))?;
            Ok((Cow::Owned(key[1..].to_vec()), Cow::Owned(value.to_vec())))
        }))
    }

    fn len(&self) -> usize {
        // The checkpoint is no entry.
        self.tree.approximate_len().saturating_sub(1)
    }

    fn write(
        &mut self,
        changes: &mut dyn Iterator<Item = Change>,
        checkpoint: Checkpoint,
    ) -> Result<(), StateError> {
        let mut batch = self.database.batch();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(&self.tree, entry_key(&key), value),
                None => batch.remove(&self.tree, entry_key(&key)),
            }
        }
        let mut bytes = Vec::new();
        let format = Stored::version(CHECKPOINT_FORMAT);
        format.encode(&checkpoint, &mut bytes).map_err(StateError::Unstorable)?;
        batch.insert(&self.tree, CHECKPOINT, bytes);
        self.as_holder(|| batch.commit())?;
        self.checkpoint = Some(checkpoint);
        Ok(())
    }

    fn checkpoint(&self) -> Option<Checkpoint> {
        self.checkpoint
    }

    fn clear(&mut self) -> Result<(), StateError> {
        self.checkpoint = None;
        self.as_holder(|| self.tree.clear())
    }

    fn is_held(&self) -> bool {
        self.is_held_in(&self.leases.lock())
    }
}

fn entry_key(key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + key.len());
    bytes.push(ENTRY);
    bytes.extend_from_slice(key);
    bytes
}

/// Whether another release has written it, with another version of the engine.
fn is_other_format(error: &fjall::Error) -> bool {
    use fjall::{Error::InvalidVersion, Error::Storage, LsmError};
    matches!(error, InvalidVersion(_) | Storage(LsmError::InvalidVersion(_)))
}

/// Whether bytes are missing or wrong, rather than the disk full or out of reach.
fn is_damage(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidData, NotFound, UnexpectedEof};
    matches!(error.kind(), InvalidData | NotFound | UnexpectedEof)
}

fn failed(error: &fjall::Error) -> StateError {
    if let fjall::Error::Io(io) | fjall::Error::Storage(fjall::LsmError::Io(io)) = error
        && !is_damage(io)
    {
        return StateError::Disk(format!(
            "cannot use the stores on disk: {io}. Make room, or set [streams] state_dir to another disk; nothing is lost"
        ));
    }
    if matches!(error, fjall::Error::Poisoned) {
        return StateError::Disk(
            "cannot use the stores on disk: an earlier write failed; the reason is in the log. Nothing is lost"
                .to_owned(),
        );
    }
    StateError::Damaged(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::streams::{
        record::{Offset, Partition, Topic},
        state::MemoryStore,
        time::{EventTime, WallTime},
    };

    fn changelog(partition: i32) -> TopicPartition {
        TopicPartition { topic: Topic::new("changelog"), partition: Partition(partition) }
    }

    fn task_store(stores: &DiskStores, partition: i32) -> DiskStore {
        stores.open_as(&changelog(partition), Holder::Task).unwrap().unwrap()
    }

    fn at(offset: i64) -> Checkpoint {
        Checkpoint {
            offset: Offset(offset),
            stream_time: EventTime(offset * 10),
            complete_at: WallTime(offset * 100),
        }
    }

    fn put(key: u8, value: u8) -> Change {
        (vec![key], Some(vec![value]))
    }

    fn write(store: &mut dyn StateStore, changes: Vec<Change>, offset: i64) {
        store.write(&mut changes.into_iter(), at(offset)).unwrap();
    }

    type Contents = Vec<(Vec<u8>, Vec<u8>)>;

    fn contents(
        store: &dyn StateStore,
        from: Bound<&[u8]>,
        to: Bound<&[u8]>,
    ) -> Result<Contents, StateError> {
        let entries = store.range(from, to);
        let owned = entries.map(|entry| entry.map(|(key, value)| (key.into(), value.into())));
        owned.collect()
    }

    fn all(store: &dyn StateStore) -> Result<Contents, StateError> {
        contents(store, Bound::Unbounded, Bound::Unbounded)
    }

    #[derive(Clone, Debug)]
    enum Step {
        Write(Vec<(u8, Option<u8>)>),
        Clear,
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            6 => proptest::collection::vec((0..6_u8, any::<Option<u8>>()), 0..4).prop_map(Step::Write),
            1 => Just(Step::Clear),
            1 => Just(Step::Reopen),
        ]
    }

    fn bound(inclusive: bool, key: &[u8]) -> Bound<&[u8]> {
        if inclusive { Bound::Included(key) } else { Bound::Excluded(key) }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(20))]

        #[test]
        fn behaves_like_a_store_in_memory(
            steps in proptest::collection::vec(step(), 0..25),
            from in 0..6_u8,
            span in 1..6_u8,
            inclusive in any::<bool>(),
        ) {
            let folder = tempfile::tempdir().unwrap();
            let mut memory = MemoryStore::default();
            let mut stores = DiskStores::open(folder.path()).unwrap();
            let mut disk = task_store(&stores, 0);
            // A neighbour, which nothing may reach.
            let mut other = task_store(&stores, 1);
            write(&mut other, vec![put(0, 77)], 5);
            for (step, offset) in steps.into_iter().zip(1..) {
                match step {
                    Step::Write(changes) => {
                        let changes: Vec<Change> = changes
                            .into_iter()
                            .map(|(key, value)| (vec![key], value.map(|value| vec![value])))
                            .collect();
                        write(&mut memory, changes.clone(), offset);
                        write(&mut disk, changes, offset);
                    }
                    Step::Clear => {
                        memory.clear().unwrap();
                        disk.clear().unwrap();
                    }
                    Step::Reopen => {
                        drop((disk, other, stores));
                        stores = DiskStores::open(folder.path()).unwrap();
                        disk = task_store(&stores, 0);
                        other = task_store(&stores, 1);
                    }
                }
                prop_assert_eq!(disk.checkpoint(), memory.checkpoint());
                prop_assert_eq!(all(&disk).unwrap(), all(&memory).unwrap());
                let (first, last) = ([from], [from + span]);
                let (from, to) = (bound(inclusive, &first), bound(!inclusive, &last));
                let found = contents(&disk, from, to).unwrap();
                prop_assert_eq!(found, contents(&memory, from, to).unwrap());
                for key in 0..6 {
                    prop_assert_eq!(disk.get(&[key]).unwrap(), memory.get(&[key]).unwrap());
                }
            }
            prop_assert_eq!(all(&other).unwrap(), vec![(vec![0], vec![77])]);
        }
    }

    #[test]
    fn a_ghost_can_not_write() {
        let folder = tempfile::tempdir().unwrap();
        let stores = DiskStores::open(folder.path()).unwrap();
        let mut ghost = stores.open(&changelog(0), Access::ByRange).unwrap();
        let mut holder = stores.open(&changelog(0), Access::ByRange).unwrap();
        write(holder.as_mut(), vec![put(1, 1)], 1);
        let refused = ghost.write(&mut [put(1, 2)].into_iter(), at(2));
        assert!(matches!(refused, Err(StateError::TakenOver(_))), "{refused:?}");
        assert!(matches!(ghost.clear(), Err(StateError::TakenOver(_))));
        assert_eq!(all(holder.as_ref()).unwrap(), [(vec![1], vec![1])]);
    }

    #[test]
    fn a_warm_copy_yields() {
        let folder = tempfile::tempdir().unwrap();
        let stores = DiskStores::open(folder.path()).unwrap();
        let mut copy = stores.open_standby(&changelog(0)).unwrap().unwrap();
        write(copy.as_mut(), vec![put(1, 1)], 1);
        let task = task_store(&stores, 0);
        assert_eq!((task.checkpoint(), task.len()), (Some(at(1)), 1), "it is handed over as it is");
        assert!(task.is_held() && !copy.is_held());
        let refused = copy.write(&mut [put(1, 2)].into_iter(), at(2));
        assert!(matches!(refused, Err(StateError::TakenOver(_))), "{refused:?}");
        // What no longer holds it gives nothing up.
        drop(copy);
        assert!(stores.open_standby(&changelog(0)).unwrap().is_none());
        drop(task);
        assert!(stores.open_standby(&changelog(0)).unwrap().is_some());
    }

    #[test]
    fn what_nobody_uses_is_removed_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let stores = DiskStores::open(folder.path()).unwrap();
        write(&mut task_store(&stores, 0), vec![put(1, 1)], 1);
        let mut used = task_store(&stores, 1);
        write(&mut used, vec![put(1, 1)], 1);
        let kept = || task_store(&stores, 0).checkpoint().is_some();
        stores.clean(Duration::ZERO).unwrap();
        stores.clean(UNUSED_FOR / 2).unwrap();
        assert!(kept(), "it was used a while ago");
        stores.clean(UNUSED_FOR).unwrap();
        stores.clean(UNUSED_FOR + UNUSED_FOR / 2).unwrap();
        assert!(kept(), "and again");
        stores.clean(UNUSED_FOR * 3).unwrap();
        stores.clean(UNUSED_FOR * 4).unwrap();
        assert!(!kept());
        assert_eq!(all(&used).unwrap(), [(vec![1], vec![1])]);
    }

    #[test]
    fn a_folder_has_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let _first = DiskStores::open(folder.path()).unwrap();
        let Err(StateError::Disk(why)) = DiskStores::open(folder.path()) else {
            panic!("a second one was let in")
        };
        assert!(why.contains("another process") && why.contains("state_dir"), "{why}");
    }

    #[test]
    fn a_folder_that_can_not_be_made_is_told_with_the_way_out() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "in the way").unwrap();
        let Err(StateError::Disk(why)) = DiskStores::open(&folder.path().join("file/stores"))
        else {
            panic!("it was made")
        };
        assert!(why.contains("[streams] state_dir"), "{why}");
    }

    fn files(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files(&path, found);
            } else {
                found.push(path);
            }
        }
    }

    fn copy(from: &Path, to: &Path) {
        let mut found = Vec::new();
        files(from, &mut found);
        for path in found {
            let target = to.join(path.strip_prefix(from).unwrap());
            fs::create_dir_all(target.parent().unwrap()).unwrap();
            fs::copy(&path, target).unwrap();
        }
    }

    fn make(folder: &Path) {
        let stores = DiskStores::open(folder).unwrap();
        let mut store = task_store(&stores, 3);
        write(&mut store, vec![put(1, 10), put(2, 20), put(3, 30)], 7);
        store.tree.rotate_memtable_and_wait().unwrap();
        write(&mut store, vec![(vec![2], None), put(4, 40)], 9);
    }

    /// A store from the future, or the past; and a whole folder of another engine.
    #[test]
    fn what_is_in_another_format_is_rebuilt() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path());
        let stores = DiskStores::open(folder.path()).unwrap();
        let store = task_store(&stores, 3);
        let mut checkpoint = store.tree.get(CHECKPOINT).unwrap().unwrap().to_vec();
        assert_eq!(checkpoint[0], CHECKPOINT_FORMAT);
        checkpoint[0] += 1;
        store.tree.insert(CHECKPOINT, checkpoint).unwrap();
        drop((store, stores));
        let emptied = || {
            let stores = DiskStores::open(folder.path()).unwrap();
            let store = task_store(&stores, 3);
            (store.checkpoint(), all(&store).unwrap()) == (None, Vec::new())
        };
        assert!(emptied());
        fs::remove_dir_all(folder.path()).unwrap();
        make(folder.path());
        assert!(!emptied());
        let version = folder.path().join("version");
        let mut bytes = fs::read(&version).unwrap();
        *bytes.last_mut().unwrap() = 99;
        fs::write(&version, bytes).unwrap();
        assert!(emptied());
    }

    /// The changelog: now a key is set, now one is deleted, and one changes every time.
    fn commit(number: i64) -> Vec<Change> {
        let key = u8::try_from(number % 50).unwrap();
        let deleted = (vec![u8::try_from(number * 7 % 50).unwrap()], None);
        vec![deleted, put(key, key), put(200, key)]
    }

    /// One byte of one file is another, or its end is missing: either the store says that it is damaged, or what the
    /// changelog has after its checkpoint makes it whole.
    #[test]
    fn what_is_damaged_is_found_out() {
        const COMMITS: i64 = 120;
        let good = tempfile::tempdir().unwrap();
        let stores = DiskStores::open(good.path()).unwrap();
        let mut store = task_store(&stores, 0);
        let mut memory = MemoryStore::default();
        for number in 1..=COMMITS {
            write(&mut store, commit(number), number);
            write(&mut memory, commit(number), number);
            if number == COMMITS / 2 {
                store.tree.rotate_memtable_and_wait().unwrap();
            }
        }
        drop((store, stores));
        let mut found = Vec::new();
        files(good.path(), &mut found);
        found.sort();
        let (mut rebuilt, mut whole) = (0, 0);
        for file in found {
            let length = fs::metadata(&file).unwrap().len();
            for harm in 0..8_u64 {
                let folder = tempfile::tempdir().unwrap();
                copy(good.path(), folder.path());
                let path = folder.path().join(file.strip_prefix(good.path()).unwrap());
                let mut bytes = fs::read(&path).unwrap();
                let place = usize::try_from(length.min(9_000) * harm / 8).unwrap();
                match bytes.get_mut(place) {
                    Some(byte) if harm % 2 == 0 => *byte ^= 0x55,
                    _ => bytes.truncate(place),
                }
                fs::write(&path, bytes).unwrap();
                let stores = DiskStores::open(folder.path()).unwrap();
                let mut store = task_store(&stores, 0);
                let from = store.checkpoint().map_or(0, |checkpoint| checkpoint.offset.0);
                for number in from + 1..=COMMITS {
                    write(&mut store, commit(number), number);
                }
                match all(&store) {
                    Ok(contents) => {
                        let expected = all(&memory).unwrap();
                        assert_eq!(contents, expected, "{} at {place}", file.display());
                        if from == 0 { rebuilt += 1 } else { whole += 1 }
                    }
                    Err(StateError::Damaged(_)) => rebuilt += 1,
                    Err(error) => panic!("{}: {error}", file.display()),
                }
            }
        }
        assert!(rebuilt > 0 && whole > 0, "{rebuilt} rebuilt, {whole} whole");
    }
}
