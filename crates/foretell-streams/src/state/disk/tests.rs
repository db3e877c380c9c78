//! Stores on disk as workers, zombies and copies use them; and what becomes of them where bytes are others.

use std::{fs, path::PathBuf};

use proptest::prelude::*;

use super::*;
use crate::{
    record::{Offset, Partition, Topic},
    state::{Incarnation, MemoryStore, disk::engine::SUSPECT},
    time::{EventTime, WallTime},
};

fn changelog(partition: i32) -> TopicPartition {
    TopicPartition { topic: Topic::new("changelog"), partition: Partition(partition) }
}

fn task_store(stores: &DiskStores, partition: i32) -> DiskStore {
    stores.0.open_as(&changelog(partition), Holder::Task).unwrap().unwrap()
}

fn at(offset: i64) -> Checkpoint {
    Checkpoint {
        offset: Offset(offset),
        stream_time: EventTime(offset * 10),
        complete_at: WallTime(offset * 100),
        incarnation: Some(Incarnation { id: 7, offset: Offset(1) }),
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
fn a_zombie_can_not_write() {
    let folder = tempfile::tempdir().unwrap();
    let stores = DiskStores::open(folder.path()).unwrap();
    let mut zombie = stores.open(&changelog(0), Access::ByRange).unwrap();
    let mut holder = stores.open(&changelog(0), Access::ByRange).unwrap();
    write(holder.as_mut(), vec![put(1, 1)], 1);
    let refused = zombie.write(&mut [put(1, 2)].into_iter(), at(2));
    assert!(matches!(refused, Err(StateError::TakenOver(_))), "{refused:?}");
    assert!(matches!(zombie.clear(), Err(StateError::TakenOver(_))));
    assert_eq!(all(holder.as_ref()).unwrap(), [(vec![1], vec![1])]);
}

#[test]
fn a_standby_yields() {
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
fn a_folder_that_can_not_be_made_is_reported_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "in the way").unwrap();
    let Err(StateError::Disk(why)) = DiskStores::open(&folder.path().join("file/stores")) else {
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

/// A few commits in a file, and a few in the journal.
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

/// What is in the folder, brought up to date as a worker does; true if nothing of it was of use.
fn recover(folder: &Path, expected: &MemoryStore) -> bool {
    let stores = DiskStores::open(folder).unwrap();
    let mut store = task_store(&stores, 0);
    let catch_up = |store: &mut DiskStore| {
        let from = store.checkpoint().map_or(0, |checkpoint| checkpoint.offset.0);
        for number in from + 1..=SMALL {
            let changes = commit(number);
            store.write(&mut changes.into_iter(), at(number))?;
        }
        for key in 0..=u8::MAX {
            store.get(&[key])?;
        }
        all(store).map(|contents| (contents, from == 0))
    };
    let (contents, is_rebuilt) = match catch_up(&mut store) {
        Err(StateError::Damaged(_)) => {
            store.clear().unwrap();
            let (contents, _) = catch_up(&mut store).unwrap();
            (contents, true)
        }
        other => other.unwrap(),
    };
    assert_eq!(contents, all(expected).unwrap());
    is_rebuilt
}

/// A folder where a sync costs nothing, if there is one: what is tested are bytes, not disks.
fn quick_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A file, and how many of its bytes are more than room for what is still to come.
type Written = (PathBuf, Vec<u8>, usize);

fn read_files(folder: &Path) -> Vec<Written> {
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

fn write_files(files: &[Written], folder: &Path) {
    for (path, bytes, used) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &bytes[..*used]).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        file.set_len(u64::try_from(bytes.len()).unwrap()).unwrap();
    }
}

/// A byte of a file is another: the engine panics at some, in a build that checks its own assumptions.
#[test]
fn any_byte_may_be_another() {
    const PLACES: usize = 60;
    let good = quick_folder();
    let expected = make_small(good.path());
    let mut files = read_files(good.path());
    let (mut flips, mut rebuilt) = (0, 0);
    for number in 0..files.len() {
        let used = files[number].2;
        for place in (0..used).step_by((used / PLACES).max(1)) {
            let bit = 1 << (place % 8);
            files[number].1[place] ^= bit;
            let folder = quick_folder();
            write_files(&files, folder.path());
            flips += 1;
            rebuilt += usize::from(recover(folder.path(), &expected));
            files[number].1[place] ^= bit;
        }
    }
    assert!(flips > 300 && rebuilt > 0 && rebuilt < flips, "{rebuilt} of {flips} rebuilt");
}

/// What only the engine's own thread comes across is found by the next process.
#[test]
fn what_was_given_up_is_read_once() {
    let folder = tempfile::tempdir().unwrap();
    let expected = make_small(folder.path());
    let suspect = folder.path().join(SUSPECT);
    fs::write(&suspect, []).unwrap();
    assert!(!recover(folder.path(), &expected), "it was whole");
    assert!(!suspect.exists());
    let stores = DiskStores::open(folder.path()).unwrap();
    let panicked = stores.0.lock().engine.call(|| -> Result<(), fjall::Error> { panic!("a lock") });
    assert!(matches!(&panicked, Err(StateError::Damaged(why)) if why == "a lock"));
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
    assert!(recover(folder.path(), &expected), "it is damaged, and nobody had read it yet");
    assert!(!suspect.exists());
}
