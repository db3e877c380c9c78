//! Benchmark of a window store in memory and on disk: memory of an entry, and microseconds and allocations of each
//! operation, with 1,000 and with `FORETELL_BENCH_ENTRIES` (1,000,000) entries. It is not a part of `benches/streams`,
//! because it counts allocations with an allocator of its own. `make bench-stores` runs it; `FORETELL_BENCH_ONLY` (`memory`,
//! `disk`) limits it to a part.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, measures real time, and reads its settings from the environment"
)]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout},
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    fmt::Write,
    fs,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use foretell_streams::{
    codec::{Codec, CodecError, Utf8},
    metrics::StreamsMetrics,
    record::{InputRecord, Offset, Partition, Topic, TopicPartition},
    state::{DiskStores, MemoryStores, StoreSupplier, WindowHandle, WindowStore, Windowed},
    task::Task,
    time::{EventTime, WallTime},
    topology::{Context, ProcessError, Processor, Record, TopologyBuilder},
};

/// The sizes of a pending prediction.
const KEY_BYTES: usize = 26;
const VALUE_BYTES: usize = 372;
/// Operations of one record; the median record is reported, so that a preempted one does not count.
const BATCH: i64 = 100;
const BATCHES: i64 = 200;
const BATCHES_A_COMMIT: i64 = 10;
/// As many records as a reader of librdkafka returns at once.
const READER_BATCH: usize = 512;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to mimalloc unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { mimalloc::MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { mimalloc::MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { mimalloc::MiMalloc.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Values as they are.
struct Bytes;

impl Codec<Vec<u8>> for Bytes {
    fn encode(&self, value: &Vec<u8>, bytes: &mut Vec<u8>) -> Result<(), CodecError> {
        bytes.extend_from_slice(value);
        Ok(())
    }

    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        Ok(bytes.to_vec())
    }
}

type Store<'s> = WindowStore<'s, Vec<u8>>;
type Operation = Box<dyn FnMut(i64, &mut Store<'_>)>;

/// The cost of one operation.
#[derive(Clone, Copy, Default)]
struct Cost {
    micros: f64,
    allocations: f64,
}

thread_local! {
    /// The operation of the next record and the number of its first call.
    static NEXT: RefCell<Option<(Operation, i64)>> = const { RefCell::new(None) };
    static COSTS: RefCell<Vec<Cost>> = const { RefCell::new(Vec::new()) };
}

struct Operations(WindowHandle<Vec<u8>>);

impl Processor for Operations {
    type In = String;
    type Out = String;

    fn process(
        &mut self,
        _record: &Record<String>,
        ctx: &mut Context<'_, String>,
    ) -> Result<(), ProcessError> {
        let mut store = ctx.window(&self.0);
        NEXT.with_borrow_mut(|next| {
            let (operation, first) = next.as_mut().expect("a batch sets it");
            let (before, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
            for number in *first..*first + BATCH {
                operation(number, &mut store);
            }
            let micros = start.elapsed().as_secs_f64() * 1e6 / BATCH as f64;
            let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
            let allocations = allocations as f64 / BATCH as f64;
            COSTS.with_borrow_mut(|costs| costs.push(Cost { micros, allocations }));
        });
        Ok(())
    }
}

struct Harness {
    task: Task,
    source: TopicPartition,
    offset: i64,
    commits: Vec<Cost>,
}

impl Harness {
    fn new(stores: &dyn StoreSupplier, partition: Partition) -> Self {
        let topic = Topic::new("events");
        let mut topology = TopologyBuilder::new("bench", Topic::new("dead-letters"));
        let source = topology.source("events", topic.clone(), Arc::new(Utf8));
        let store = topology.window_store("window", Arc::new(Bytes));
        let ids = [store.id()];
        topology.process("operations", &[source], &ids, move || Operations(store.clone()));
        let metrics = StreamsMetrics::unregistered();
        let topology = Arc::new(topology.build());
        let task = Task::open(&topology, partition, &metrics, stores);
        let mut task = task.expect("the stores can be used");
        task.start(WallTime(0));
        let source = TopicPartition { topic, partition };
        Self { task, source, offset: 0, commits: Vec::new() }
    }

    /// Runs `operation` with the numbers from 0 on, in batches of one record each.
    fn run(&mut self, batches: i64, operation: impl FnMut(i64, &mut Store<'_>) + 'static) -> Cost {
        NEXT.set(Some((Box::new(operation), 0)));
        COSTS.take();
        self.commits.clear();
        for batch in 0..batches {
            NEXT.with_borrow_mut(|next| {
                next.as_mut().expect("it is set above").1 = batch * BATCH;
            });
            self.task.add(InputRecord {
                source: self.source.clone(),
                offset: Offset(self.offset),
                timestamp: EventTime(0),
                key: None,
                value: Some(Vec::new()),
                headers: Vec::new(),
            });
            self.offset += 1;
            self.task.process_next(WallTime(0)).expect("stores do not fail");
            if batch % BATCHES_A_COMMIT == BATCHES_A_COMMIT - 1 {
                self.commit();
            }
        }
        median(COSTS.take())
    }

    fn commit(&mut self) {
        let (before, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
        match self.task.flush_changes(|_| Ok::<(), Infallible>(())) {
            Ok(()) => {
                let applied = self.task.apply_commit(WallTime(0), &BTreeMap::new());
                applied.expect("stores do not fail");
            }
        }
        let changes = (BATCH * BATCHES_A_COMMIT) as f64;
        let micros = start.elapsed().as_secs_f64() * 1e6 / changes;
        let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / changes;
        self.commits.push(Cost { micros, allocations });
    }
}

fn median(mut costs: Vec<Cost>) -> Cost {
    costs.sort_by(|a, b| a.micros.total_cmp(&b.micros));
    let allocations = costs.iter().map(|cost| cost.allocations).sum::<f64>() / costs.len() as f64;
    Cost { micros: costs[costs.len() / 2].micros, allocations }
}

fn write_key(key: &mut String, number: i64) {
    key.clear();
    write!(key, "respondent-{number:015}").expect("a string can be written");
    assert_eq!(key.len(), KEY_BYTES);
}

/// A number below `entries`, in another order than that of their times.
fn scatter(number: i64, entries: i64) -> i64 {
    number.wrapping_mul(7_368_787).rem_euclid(entries)
}

fn resident_bytes() -> f64 {
    let status = fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has a line");
    let kilobytes = line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number");
    kilobytes * 1024.0
}

type Rows = Vec<(&'static str, Cost)>;

fn measure(entries: i64, stores: &dyn StoreSupplier) -> Rows {
    let mut harness = Harness::new(stores, Partition(0));
    let before = resident_bytes();
    let value = vec![7; VALUE_BYTES];
    let mut key = String::new();
    harness.run(entries / BATCH, move |number, store| {
        write_key(&mut key, number);
        store.add(&key, EventTime(number), &value).expect("stores do not fail");
    });
    harness.commit();
    let bytes = (resident_bytes() - before) / entries as f64;
    let payload = KEY_BYTES + VALUE_BYTES;
    // The first pages of the process count as well, so this says little about 1,000 entries.
    println!("{entries:>9} entries: {:.0} bytes over {payload}", bytes - payload as f64);
    let mut rows = Vec::new();
    read_and_replace(entries, &mut harness, &mut rows);
    add_and_expire(entries, &mut harness, &mut rows);
    rows.push(("restore", restore(entries, stores)));
    rows
}

fn read_and_replace(entries: i64, harness: &mut Harness, rows: &mut Rows) {
    let mut key = String::new();
    let cost = harness.run(BATCHES, move |number, store| {
        let number = scatter(number, entries);
        write_key(&mut key, number);
        let time = EventTime(number);
        let found = store.fetch(&key, time, time).expect("stores do not fail");
        assert_eq!(found.len(), 1);
    });
    rows.push(("fetch, one entry", cost));
    let mut key = String::new();
    let cost = harness.run(BATCHES, move |number, store| {
        write_key(&mut key, entries * 5 + number);
        assert!(store.fetch_all(&key).expect("stores do not fail").is_empty());
    });
    rows.push(("fetch, no entry", cost));
    let mut entry = Windowed {
        key: String::new(),
        time: EventTime(0),
        sequence: 0,
        value: vec![8; VALUE_BYTES],
    };
    let cost = harness.run(BATCHES, move |number, store| {
        let number = scatter(number, entries);
        write_key(&mut entry.key, number);
        entry.time = EventTime(number);
        store.replace(&entry).expect("stores do not fail");
    });
    rows.push(("replace", cost));
    rows.push(("  flush and commit", median(std::mem::take(&mut harness.commits))));
    let (mut key, value) = (String::new(), vec![8; VALUE_BYTES]);
    let cost = harness.run(BATCHES, move |number, store| {
        let number = scatter(number, entries);
        write_key(&mut key, number);
        let time = EventTime(number);
        let mut positions = Vec::new();
        let visited = store.fetch_bytes(&key, time, time, |position, _| {
            positions.push(position);
            ControlFlow::Continue(())
        });
        visited.expect("stores do not fail");
        store.replace_bytes(&key, positions[0], &value).expect("stores do not fail");
    });
    rows.push(("fetch and replace", cost));
}

fn add_and_expire(entries: i64, harness: &mut Harness, rows: &mut Rows) {
    let cost = harness.run(BATCHES, move |_, store| {
        assert!(store.expire(EventTime(0), 100).expect("stores do not fail").is_empty());
    });
    rows.push(("expire, no entry", cost));
    let (mut key, value) = (String::new(), vec![9; VALUE_BYTES]);
    let cost = harness.run(BATCHES, move |number, store| {
        write_key(&mut key, entries + number);
        store.add(&key, EventTime(entries + number), &value).expect("stores do not fail");
    });
    rows.push(("add", cost));
    let (mut key, value) = (String::new(), vec![9; VALUE_BYTES]);
    let added = BATCHES * BATCH;
    let cost = harness.run(BATCHES, move |number, store| {
        let number = entries + added + number;
        write_key(&mut key, number);
        assert!(store.fetch_all(&key).expect("stores do not fail").is_empty());
        store.add(&key, EventTime(number), &value).expect("stores do not fail");
    });
    rows.push(("fetch, none, and add", cost));
    rows.push(("  flush and commit", median(std::mem::take(&mut harness.commits))));
    let cost = harness.run(BATCHES.min(entries / BATCH), move |number, store| {
        let expired = store.expire(EventTime(number + 1), 100).expect("stores do not fail");
        assert_eq!(expired.len(), 1);
    });
    rows.push(("expire, one entry", cost));
    rows.push(("  flush and commit", median(std::mem::take(&mut harness.commits))));
}

/// The cost of restoring an entry, in batches of records as a reader returns them.
fn restore(entries: i64, stores: &dyn StoreSupplier) -> Cost {
    let mut task = Harness::new(stores, Partition(1)).task;
    let (store, source) = task.changelogs().next().expect("the topology has a store");
    let record = |number: i64| {
        let mut key = String::new();
        write_key(&mut key, scatter(number, entries));
        // The layout of the keys of window stores in changelogs: length, key, time, sequence.
        let length = u32::try_from(key.len()).expect("a short key").to_be_bytes();
        let time = (number.unsigned_abs() | 1 << 63).to_be_bytes();
        let key = [&[1], &length[..], key.as_bytes(), &time, &[0; 4]].concat();
        InputRecord {
            source: source.clone(),
            offset: Offset(number),
            timestamp: EventTime(number),
            key: Some(key),
            value: Some(vec![7; VALUE_BYTES]),
            headers: Vec::new(),
        }
    };
    let (mut seconds, mut allocations) = (0.0, 0);
    for first in (0..entries).step_by(READER_BATCH) {
        let end = entries.min(first + i64::try_from(READER_BATCH).expect("a small number"));
        let records: Vec<_> = (first..end).map(record).collect();
        let (before, start) = (ALLOCATIONS.load(Ordering::Relaxed), Instant::now());
        task.restore(store, &records, WallTime(0)).expect("stores do not fail");
        seconds += start.elapsed().as_secs_f64();
        allocations += ALLOCATIONS.load(Ordering::Relaxed) - before;
    }
    let finished = task.finish_restore(store, Offset(entries), WallTime(0));
    finished.expect("stores do not fail");
    assert!(task.store_entries().values().all(|count| *count > 0), "the keys are read");
    let entries = entries as f64;
    Cost { micros: seconds * 1e6 / entries, allocations: allocations as f64 / entries }
}

/// Prints a table of both sizes, each in new stores.
fn table(name: &str, large: i64, mut stores: impl FnMut(i64) -> Box<dyn StoreSupplier>) {
    println!("\n{name}");
    let [small, large] = [1_000, large].map(|size| measure(size, stores(size).as_ref()));
    println!("{:<22} {:>9} {:>9} {:>12} {:>12}", "", "µs, 1,000", "large", "allocations", "large");
    for ((name, small), (_, large)) in small.into_iter().zip(large) {
        println!(
            "{name:<22} {:>9.3} {:>9.3} {:>12.2} {:>12.2}",
            small.micros, large.micros, small.allocations, large.allocations
        );
    }
}

fn main() {
    let large = std::env::var("FORETELL_BENCH_ENTRIES").ok();
    let large = large.map_or(1_000_000, |text| text.parse().expect("a number of entries"));
    let only = std::env::var("FORETELL_BENCH_ONLY").ok();
    let is_wanted = |part| only.as_deref().is_none_or(|only| only == part);
    if is_wanted("memory") {
        table("in memory", large, |_| Box::new(MemoryStores));
    }
    if is_wanted("disk") {
        let folder = tempfile::tempdir().expect("a folder can be made");
        table("on disk", large, |size| {
            let stores = DiskStores::open(&folder.path().join(size.to_string()));
            Box::new(stores.expect("the folder can be used"))
        });
    }
}
