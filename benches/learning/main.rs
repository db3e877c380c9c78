//! Benchmark of learning at scale: the memory of a training set and of a training, the CPU time of a training beside that of
//! Python's LightGBM on the same features, with the same parameters and one thread, and the first training after a restart. Prints a table and writes
//! `target/bench/learning.json`; fails if a bound of docs/benchmarks.md is exceeded.
//!
//! `FORETELL_BENCH_EXAMPLES` (10,000,000), `FORETELL_BENCH_COMPARED` (1,000,000, of them compared with Python) and
//! `FORETELL_BENCH_RESTARTED` (1,000,000, read after a restart) set the size; `FORETELL_BENCH_PYTHON` is a Python with numpy and lightgbm, without which nothing is compared.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and measures real time"
)]

mod restart;

use std::{
    env, fs,
    io::{BufWriter, Write as _},
    ops::ControlFlow,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::Context;
use foretell_ml::{
    Calibration, Column, ColumnKind, DataPolicy, Label, Origin, Params, PipelineSpec, Recipe,
    Retention, Scaling, Seed, Threshold, TrainingSet, ValueRef,
    training::train,
    training_set::{Arrival, History},
};
use serde_json::json;

/// Columns of numbers; the last has numbers that need 64 bits.
const NUMBERS: usize = 8;
/// Columns of categories.
const CATEGORIES: usize = 6;
/// Iterations of the training whose memory is measured. More take longer, and no more memory but their trees.
const ITERATIONS: u32 = 10;
/// Iterations of the training that is compared with Python's.
const ITERATIONS_COMPARED: u32 = 50;
/// Peak of the process with 10,000,000 examples of 14 features.
const PEAK_BYTES_MAX: u64 = 6 << 30;
/// Memory of the training set, as a multiple of its raw columns.
const SET_RATIO_MAX: f64 = 2.5;
/// Time of a training, as a multiple of Python's.
const TIME_RATIO_MAX: f64 = 1.1;
/// Time after a restart until 1,000,000 examples on disk can be trained on.
const RESTART_SECONDS_MAX: f64 = 10.0;

/// As in the binary: what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let examples = number("FORETELL_BENCH_EXAMPLES", 10_000_000)?;
    let compared = number("FORETELL_BENCH_COMPARED", 1_000_000)?.min(examples);
    let mut report = json!({ "examples": examples, "compared": compared });
    if let Ok(python) = env::var("FORETELL_BENCH_PYTHON") {
        let [foretell, python] = compare(&python, compared)?;
        let ratio = foretell / python;
        println!(
            "CPU time of a training of {compared} examples, twice {ITERATIONS_COMPARED} iterations:"
        );
        println!("  foretell {foretell:.2} s, Python's LightGBM {python:.2} s, ratio {ratio:.2}");
        report["foretell_to_python_seconds"] = ratio.into();
    } else {
        println!("FORETELL_BENCH_PYTHON is not set: nothing is compared with Python");
    }
    measure_memory(examples, &mut report)?;
    restart::measure(number("FORETELL_BENCH_RESTARTED", 1_000_000)?, &mut report)?;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("learning.json"), serde_json::to_vec_pretty(&report)?)?;
    let within = |name: &str, max: f64| match report[name].as_f64() {
        Some(found) if found > max => anyhow::bail!("{name} is {found:.2}, more than {max}"),
        Some(_) | None => Ok(()),
    };
    within("set_to_raw_columns", SET_RATIO_MAX)?;
    within("peak_bytes", PEAK_BYTES_MAX as f64)?;
    within("foretell_to_python_seconds", TIME_RATIO_MAX)?;
    within("restart_seconds", RESTART_SECONDS_MAX)
}

fn number(variable: &str, default: u32) -> anyhow::Result<u32> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

/// Fills a training set, then trains on it.
fn measure_memory(examples: u32, report: &mut serde_json::Value) -> anyhow::Result<()> {
    let policy = DataPolicy { retention: Retention::All, ..DataPolicy::default() };
    let (before, started) = (memory("VmRSS")?, Instant::now());
    let mut history = History::new(&columns(), policy, Seed(1));
    for number in 0..examples {
        let id = format!("{number:032x}");
        let (event_time, offset) = (number.into(), number.into());
        let arrival = Arrival { id: &id, event_time, offset, is_correction: false };
        let (numbers, categories, label) = example(number);
        history.add(arrival, values(&numbers, &categories), Label(label));
    }
    let filled = started.elapsed();
    let (resident, raw) = (memory("VmRSS")?.saturating_sub(before), history.raw_bytes());
    let ratio = history.bytes() as f64 / raw as f64;
    println!("training set of {examples} examples × {} columns:", NUMBERS + CATEGORIES);
    println!(
        "  raw columns {} MiB, set {} MiB (ratio {ratio:.2}), resident {} MiB, {:.0} ns an example",
        raw >> 20,
        history.bytes() >> 20,
        resident >> 20,
        filled.as_secs_f64() * 1e9 / f64::from(examples)
    );
    let initial = TrainingSet::new(&columns());
    let (sample, _) = history.sample(&initial, &[]);
    let started = Instant::now();
    let bundle = train(&sample, &recipe(ITERATIONS)?, &mut |_, _| ControlFlow::Continue(()))?;
    let (took, peak) = (started.elapsed(), memory("VmHWM")?);
    let auc = bundle.evaluation.auc.context("two classes")?;
    println!(
        "  training, twice {ITERATIONS} iterations: {:.1} s, AUC {auc:.3}, peak of the process {} MiB",
        took.as_secs_f64(),
        peak >> 20
    );
    report["set_to_raw_columns"] = ratio.into();
    report["resident_to_raw_columns"] = (resident as f64 / raw as f64).into();
    report["peak_bytes"] = peak.into();
    Ok(())
}

/// Trains on the same examples here and with Python; returns the seconds of CPU time of both.
fn compare(python: &str, examples: u32) -> anyhow::Result<[f64; 2]> {
    let mut set = TrainingSet::new(&columns());
    for number in 0..examples {
        let (numbers, categories, label) = example(number);
        set.push(values(&numbers, &categories), Label(label));
    }
    let recipe = recipe(ITERATIONS_COMPARED)?;
    let started = processor_seconds()?;
    let bundle = train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(()))?;
    let foretell = processor_seconds()? - started;
    // Python gets the features of the model, so that it has nothing to encode.
    let path = env::temp_dir().join(format!("foretell-learning-{}", std::process::id()));
    let mut file = BufWriter::new(fs::File::create(&path)?);
    let mut row = Vec::new();
    for number in 0..examples {
        let (numbers, categories, label) = example(number);
        bundle.pipeline.transform(values(&numbers, &categories), &mut row);
        row.push(label.into());
        for feature in &row {
            file.write_all(&feature.to_le_bytes())?;
        }
    }
    file.flush()?;
    let categorical = bundle.pipeline.categorical_features();
    let arguments = json!({
        "path": path,
        "features": bundle.pipeline.features(),
        "categorical": categorical,
        "parameters": format!("{} num_threads=1", recipe.params.to_lightgbm(2, recipe.seed)),
        "iterations": ITERATIONS_COMPARED,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/learning.py");
    let output = Command::new(python).arg(script).arg(arguments.to_string()).output()?;
    fs::remove_file(&path)?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{python} failed: {error}");
    let seconds = String::from_utf8(output.stdout)?;
    Ok([foretell, seconds.trim().parse().with_context(|| format!("{seconds:?}"))?])
}

fn columns() -> Vec<Column> {
    let column = |index| match index {
        index if index < NUMBERS => Column::new(&format!("n{index}"), ColumnKind::Numeric),
        index => Column::new(&format!("c{index}"), ColumnKind::Categorical),
    };
    (0..NUMBERS + CATEGORIES).map(column).collect()
}

fn recipe(iterations: u32) -> anyhow::Result<Recipe> {
    Ok(Recipe {
        spec: PipelineSpec::new(columns(), Scaling::None, Vec::new())?,
        classes: vec!["no".to_owned(), "yes".to_owned()],
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: false,
        params: Params { iterations, ..Params::default() },
        seed: Seed(1),
        origin: Origin::default(),
    })
}

/// Categories have these names.
const NAMES: [&str; 16] = [
    "amber", "azure", "beige", "black", "blue", "brown", "coral", "green", "grey", "ochre",
    "olive", "pink", "red", "rose", "teal", "white",
];

/// The numbers, the indexes of the categories, and the label of an example; the label follows from both, with noise.
fn example(number: u32) -> ([f64; NUMBERS], [usize; CATEGORIES], u32) {
    let mut state = u64::from(number).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = |below: u64| {
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^= state >> 31;
        state % below
    };
    let mut numbers = [0.0; NUMBERS];
    for (column, number) in numbers.iter_mut().enumerate() {
        *number = match column {
            column if column + 1 < NUMBERS => next(50 << column) as f64,
            _ => next(1 << 40) as f64 / 1e5,
        };
    }
    let mut categories = [0; CATEGORIES];
    for category in &mut categories {
        *category = usize::try_from(next(NAMES.len() as u64)).unwrap_or(0);
    }
    let score = numbers[0] + if categories[0] % 3 == 0 { 25.0 } else { 0.0 } + next(20) as f64;
    (numbers, categories, u32::from(score > 45.0))
}

fn values<'e>(
    numbers: &'e [f64; NUMBERS],
    categories: &'e [usize; CATEGORIES],
) -> impl Iterator<Item = ValueRef<'e>> {
    let numbers = numbers.iter().map(|number| ValueRef::Number(*number));
    numbers.chain(categories.iter().map(|category| ValueRef::Text(NAMES[*category])))
}

/// CPU time of this thread.
fn processor_seconds() -> anyhow::Result<f64> {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = schedule.split_whitespace().next().context("three numbers")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}

/// Bytes of this process by a line of `/proc/self/status`.
fn memory(name: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes =
        line.and_then(|line| line.trim().strip_suffix(" kB")).context("no such line")?;
    Ok(kilobytes.trim().parse::<u64>()? << 10)
}
