//! Stores on disk with active tasks, zombies and standbys, and their recovery from corrupted files.

use std::{fs, ops::Bound, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    record::{Offset, Partition, Topic},
    state::{
        Change, Checkpoint, Incarnation, MemoryStore,
        disk::{
            engine::SUSPECT,
            store::{CHECKPOINT, CHECKPOINT_FORMAT},
        },
    },
    time::{EventTime, WallTime},
};

fn changelog(partition: i32) -> TopicPartition {
    TopicPartition { topic: Topic::new("changelog"), partition: Partition(partition) }
}

fn task_store(stores: &DiskStores, partition: i32) -> DiskStore {
    stores.0.open_as(&changelog(partition), Access::ByKey, Holder::Task).unwrap().unwrap()
}

fn at(offset: i64) -> Checkpoint {
    Checkpoint {
        offset: Offset(offset),
        stream_time: EventTime(offset * 10),
        complete_at: WallTime(offset * 100),
        incarnation: Some(Incarnation { id: 7, offset: Offset(1) }),
    }
}

type OwnedChange = (Vec<u8>, Option<Vec<u8>>);

fn put(key: u8, value: u8) -> OwnedChange {
    (vec![key], Some(vec![value]))
}

fn borrow((key, value): &OwnedChange) -> Change<'_> {
    (key, value.as_deref())
}

fn write(store: &mut dyn StateStore, changes: Vec<OwnedChange>, offset: i64) {
    store.write(&mut changes.iter().map(borrow), at(offset)).unwrap();
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
enum Operation {
    Write(Vec<(u8, Option<u8>)>),
    Clear,
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        6 => proptest::collection::vec((0..6_u8, any::<Option<u8>>()), 0..4).prop_map(Operation::Write),
        1 => Just(Operation::Clear),
        1 => Just(Operation::Reopen),
    ]
}

fn bound(inclusive: bool, key: &[u8]) -> Bound<&[u8]> {
    if inclusive { Bound::Included(key) } else { Bound::Excluded(key) }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]

    #[test]
    fn behaves_like_a_store_in_memory(
        operations in proptest::collection::vec(operation(), 0..25),
        from in 0..6_u8,
        span in 1..6_u8,
        inclusive in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let mut memory = MemoryStore::default();
        let mut stores = DiskStores::open(folder.path()).unwrap();
        let mut disk = task_store(&stores, 0);
        // Another store, which must not change.
        let mut other = task_store(&stores, 1);
        write(&mut other, vec![put(0, 77)], 5);
        for (operation, offset) in operations.into_iter().zip(1..) {
            match operation {
                Operation::Write(changes) => {
                    let changes: Vec<OwnedChange> = changes
                        .into_iter()
                        .map(|(key, value)| (vec![key], value.map(|value| vec![value])))
                        .collect();
                    write(&mut memory, changes.clone(), offset);
                    write(&mut disk, changes, offset);
                }
                Operation::Clear => {
                    memory.clear().unwrap();
                    disk.clear().unwrap();
                }
                Operation::Reopen => {
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
fn a_zombie_cannot_write() {
    let folder = tempfile::tempdir().unwrap();
    let stores = DiskStores::open(folder.path()).unwrap();
    let mut zombie = stores.open(&changelog(0), Access::ByKey).unwrap();
    let mut holder = stores.open(&changelog(0), Access::ByKey).unwrap();
    write(holder.as_mut(), vec![put(1, 1)], 1);
    let refused = zombie.write(&mut [put(1, 2)].iter().map(borrow), at(2));
    assert!(matches!(refused, Err(StateError::TakenOver(_))), "{refused:?}");
    assert!(matches!(zombie.clear(), Err(StateError::TakenOver(_))));
    assert_eq!(all(holder.as_ref()).unwrap(), [(vec![1], vec![1])]);
}

#[test]
fn an_active_task_takes_a_store_over_from_a_standby() {
    let folder = tempfile::tempdir().unwrap();
    let stores = DiskStores::open(folder.path()).unwrap();
    let mut standby = stores.open_standby(&changelog(0), Access::ByKey).unwrap().unwrap();
    write(standby.as_mut(), vec![put(1, 1)], 1);
    let task = task_store(&stores, 0);
    assert_eq!((task.checkpoint(), task.len()), (Some(at(1)), 1), "with its contents");
    assert!(task.is_held() && !standby.is_held());
    let refused = standby.write(&mut [put(1, 2)].iter().map(borrow), at(2));
    assert!(matches!(refused, Err(StateError::TakenOver(_))), "{refused:?}");
    // Dropping the former holder does not release the store.
    drop(standby);
    assert!(stores.open_standby(&changelog(0), Access::ByKey).unwrap().is_none());
    drop(task);
    assert!(stores.open_standby(&changelog(0), Access::ByKey).unwrap().is_some());
}

#[test]
fn a_store_that_is_not_open_is_removed_after_a_while() {
    let folder = tempfile::tempdir().unwrap();
    let stores = DiskStores::open(folder.path()).unwrap();
    write(&mut task_store(&stores, 0), vec![put(1, 1)], 1);
    let mut used = task_store(&stores, 1);
    write(&mut used, vec![put(1, 1)], 1);
    let kept = || task_store(&stores, 0).checkpoint().is_some();
    stores.clean(Duration::ZERO).unwrap();
    stores.clean(UNUSED_FOR / 2).unwrap();
    assert!(kept(), "it was open recently");
    stores.clean(UNUSED_FOR).unwrap();
    stores.clean(UNUSED_FOR + UNUSED_FOR / 2).unwrap();
    assert!(kept(), "it was open again in the meantime");
    stores.clean(UNUSED_FOR * 3).unwrap();
    stores.clean(UNUSED_FOR * 4).unwrap();
    assert!(!kept());
    assert_eq!(all(&used).unwrap(), [(vec![1], vec![1])]);
}

#[test]
fn a_folder_is_used_by_one_process_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let _first = DiskStores::open(folder.path()).unwrap();
    let Err(StateError::Disk(reason)) = DiskStores::open(folder.path()) else {
        panic!("the folder was opened twice")
    };
    assert!(reason.contains("another process") && reason.contains("state_dir"), "{reason}");
}

#[test]
fn the_error_for_an_unusable_folder_names_the_setting() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "in the way").unwrap();
    let Err(StateError::Disk(reason)) = DiskStores::open(&folder.path().join("file/stores")) else {
        panic!("the folder was created")
    };
    assert!(reason.contains("[streams] state_dir"), "{reason}");
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

/// One store with another checkpoint format, and a whole folder of another version of the engine.
#[test]
fn stores_in_another_format_are_rebuilt() {
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

/// The changes of a commit of the changelog: one key is deleted, one is set, and one changes with every commit.
fn commit(number: i64) -> Vec<OwnedChange> {
    let key = u8::try_from(number % 50).unwrap();
    let deleted = (vec![u8::try_from(number * 7 % 50).unwrap()], None);
    vec![deleted, put(key, key), put(200, key)]
}

/// Inverts bits of one byte of a file, or truncates the file: either the store reports the corruption, or the changelog
/// after its checkpoint makes it complete.
#[test]
fn a_corrupted_file_is_detected_or_repaired_from_the_changelog() {
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
    let (mut rebuilt, mut repaired) = (0, 0);
    for file in found {
        let length = fs::metadata(&file).unwrap().len();
        for corruption in 0..8_u64 {
            let folder = tempfile::tempdir().unwrap();
            copy(good.path(), folder.path());
            let path = folder.path().join(file.strip_prefix(good.path()).unwrap());
            let mut bytes = fs::read(&path).unwrap();
            let position = usize::try_from(length.min(9_000) * corruption / 8).unwrap();
            match bytes.get_mut(position) {
                Some(byte) if corruption % 2 == 0 => *byte ^= 0x55,
                _ => bytes.truncate(position),
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
                    assert_eq!(contents, expected, "{} at {position}", file.display());
                    if from == 0 { rebuilt += 1 } else { repaired += 1 }
                }
                Err(StateError::DiskCorrupted(_)) => rebuilt += 1,
                Err(error) => panic!("{}: {error}", file.display()),
            }
        }
    }
    assert!(rebuilt > 0 && repaired > 0, "{rebuilt} rebuilt, {repaired} repaired");
}

/// Writes a database with three commits in a table file and three in the journal.
fn make_small(folder: &Path) -> MemoryStore {
    let stores = DiskStores::open(folder).unwrap();
    let mut store = task_store(&stores, 0);
    let mut memory = MemoryStore::default();
    for number in 1..=SMALL {
        write(&mut store, commit(number), number);
        write(&mut memory, commit(number), number);
        if number == SMALL / 2 {
            store.tree.rotate_memtable_and_wait().unwrap();
        }
    }
    memory
}

const SMALL: i64 = 6;

/// Opens the store in `folder` and brings it up to date, as a worker does. Returns whether it was rebuilt from the
/// beginning.
fn recover(folder: &Path, expected: &MemoryStore) -> bool {
    let stores = DiskStores::open(folder).unwrap();
    let mut store = task_store(&stores, 0);
    let catch_up = |store: &mut DiskStore| {
        let from = store.checkpoint().map_or(0, |checkpoint| checkpoint.offset.0);
        for number in from + 1..=SMALL {
            let changes = commit(number);
            store.write(&mut changes.iter().map(borrow), at(number))?;
        }
        for key in 0..=u8::MAX {
            store.get(&[key])?;
        }
        all(store).map(|contents| (contents, from == 0))
    };
    let (contents, is_rebuilt) = match catch_up(&mut store) {
        Err(StateError::DiskCorrupted(_)) => {
            store.clear().unwrap();
            let (contents, _) = catch_up(&mut store).unwrap();
            (contents, true)
        }
        other => other.unwrap(),
    };
    assert_eq!(contents, all(expected).unwrap());
    is_rebuilt
}

/// A temporary folder in memory, where syncs are cheap, if there is such a file system.
fn memory_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// The path and bytes of a file, and its length without preallocated zeros at its end.
type FileImage = (PathBuf, Vec<u8>, usize);

fn read_files(folder: &Path) -> Vec<FileImage> {
    let mut found = Vec::new();
    files(folder, &mut found);
    found.sort();
    let with_bytes = found.into_iter().map(|path| {
        let bytes = fs::read(&path).unwrap();
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        (path.strip_prefix(folder).unwrap().to_owned(), bytes, used)
    });
    with_bytes.collect()
}

fn write_files(files: &[FileImage], folder: &Path) {
    for (path, bytes, used) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes[..*used]).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(u64::try_from(bytes.len()).unwrap()).unwrap();
    }
}

/// Inverts one bit of many bytes of every file. The engine panics at some, in a build with debug assertions.
#[test]
fn a_store_recovers_from_a_bit_flip_anywhere() {
    const POSITIONS: usize = 60;
    let good = memory_folder();
    let expected = make_small(good.path());
    let mut files = read_files(good.path());
    let (mut flips, mut rebuilt) = (0, 0);
    for number in 0..files.len() {
        let used = files[number].2;
        for position in (0..used).step_by((used / POSITIONS).max(1)) {
            let bit = 1 << (position % 8);
            files[number].1[position] ^= bit;
            let folder = memory_folder();
            write_files(&files, folder.path());
            flips += 1;
            rebuilt += usize::from(recover(folder.path(), &expected));
            files[number].1[position] ^= bit;
        }
    }
    assert!(flips > 300 && rebuilt > 0 && rebuilt < flips, "{rebuilt} of {flips} rebuilt");
}

/// A corruption that only the engine's own thread has met is found by the next process.
#[test]
fn a_database_is_checked_after_a_failure_in_the_middle_of_an_operation() {
    let folder = tempfile::tempdir().unwrap();
    let expected = make_small(folder.path());
    let suspect = folder.path().join(SUSPECT);
    fs::write(&suspect, []).unwrap();
    assert!(!recover(folder.path(), &expected), "it was not corrupted");
    assert!(!suspect.exists());
    let stores = DiskStores::open(folder.path()).unwrap();
    let panicked = stores.0.lock().engine.call(|| -> Result<(), fjall::Error> { panic!("a lock") });
    assert!(matches!(&panicked, Err(StateError::DiskCorrupted(reason)) if reason == "a lock"));
    let poisoned = stores.0.lock().engine.call(|| Err::<(), _>(fjall::Error::Poisoned));
    assert!(matches!(poisoned, Err(StateError::Disk(_))));
    assert!(suspect.exists());
    drop(stores);
    let mut found = Vec::new();
    files(folder.path(), &mut found);
    let table = found.iter().find(|path| path.parent().unwrap().ends_with("tables"));
    let table = table.unwrap_or_else(|| panic!("no table among {found:?}"));
    let mut bytes = fs::read(table).unwrap();
    bytes[3] ^= 0x55;
    fs::write(table, bytes).unwrap();
    assert!(recover(folder.path(), &expected), "the check has found the corruption");
    assert!(!suspect.exists());
}
