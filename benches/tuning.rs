//! Benchmark of tuning: studies of the default space beside those of Optuna with Python's LightGBM, with as many trials, folds,
//! early stopping and pruning. The parameters that each finds are then measured on other folds, the same for both, because the
//! best of many trials is too good on its own folds. Prints a table and writes `target/bench/tuning.json`; fails if the
//! parameters that were found within Optuna's CPU time are worse than Optuna's.
//!
//! `FORETELL_BENCH_PYTHON` is a Python with numpy, lightgbm and optuna. `FORETELL_BENCH_TRIALS` (50), `FORETELL_BENCH_SEEDS` (5)
//! and `FORETELL_BENCH_ROWS` (8,000) set the size.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and measures real time"
)]

use std::{
    env, fs,
    io::{BufWriter, Write as _},
    ops::ControlFlow,
    path::Path,
    process::Command,
};

use anyhow::Context;
use flate2::read::GzDecoder;
use foretell_ml::{
    Column, ColumnKind, Label, Params, PipelineSpec, Sample, Scaling, Seed, TrainingSet, Value,
    training::{
        Domain, SEARCHABLE, SamplerKind, Space, TrainingData, Trial, TuningSettings, Values, Watch,
        tune,
    },
};
use serde_json::{Value as Json, json};

/// The sampler that is compared with Optuna: the default of the configuration.
const SAMPLER: SamplerKind = SamplerKind::Gp;
const FOLDS: u32 = 3;
/// Folds of the measurement of the parameters that were found.
const MEASURED_FOLDS: u32 = 5;
/// Mean log loss of the parameters found within Optuna's CPU time, as a multiple of that of Optuna's. The noise of five seeds is
/// about a thousandth.
const LOG_LOSS_RATIO_MAX: f64 = 1.002;

/// As in the binary: what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A table with a label in its last column.
struct Table {
    name: &'static str,
    spec: PipelineSpec,
    set: TrainingSet,
    rows: Vec<(Vec<Value>, u32)>,
}

fn main() -> anyhow::Result<()> {
    let python = env::var("FORETELL_BENCH_PYTHON").context("FORETELL_BENCH_PYTHON is not set")?;
    let trials = number("FORETELL_BENCH_TRIALS", 50)?;
    let seeds = 1..=number("FORETELL_BENCH_SEEDS", 5)?;
    let rows = number("FORETELL_BENCH_ROWS", 8_000)?;
    let mut report = json!({ "trials": trials, "seeds": seeds.end(), "rows": rows });
    println!(
        "studies of {trials} trials, {rows} rows, {FOLDS} folds, means of {} seeds:",
        seeds.end()
    );
    let mut ratios = Vec::new();
    for table in [adult(rows)?, generated(rows)?] {
        let sample = table.set.sample();
        let defaults = measured(&table, &sample, &Params::default(), 1)?;
        println!("{}: log loss {defaults:.5} with the default parameters", table.name);
        let mut of_optuna = Mean::new("optuna");
        let mut budgets = Vec::new();
        for seed in seeds.clone() {
            let found = optuna(&python, &table, &sample, trials, seed)?;
            of_optuna.add(measured(&table, &sample, &found.params, seed)?, &found);
            budgets.push((seed, found.seconds));
        }
        let mut means = vec![of_optuna];
        let mut in_time = 0.0;
        for sampler in [SamplerKind::Tpe, SamplerKind::Gp, SamplerKind::Random] {
            let mut mean = Mean::new(sampler.name());
            for &(seed, budget) in &budgets {
                let (found, best_in_time) = study(&table, &sample, sampler, trials, seed, budget)?;
                mean.add(measured(&table, &sample, &found.params, seed)?, &found);
                if sampler == SAMPLER {
                    in_time += measured(&table, &sample, &best_in_time, seed)?;
                }
            }
            means.push(mean);
        }
        for mean in &means {
            let [log_loss, seconds, leaves] = mean.of();
            println!(
                "  {:<8} log loss {log_loss:.5}  CPU time {seconds:.1} s  {:.2} million leaves",
                mean.name,
                leaves / 1e6
            );
            report[table.name][mean.name] =
                json!({ "log_loss": log_loss, "seconds": seconds, "leaves": leaves });
        }
        let in_time = in_time / budgets.len() as f64;
        println!("  {:<8} log loss {in_time:.5}  in the CPU time of optuna", SAMPLER.name());
        report[table.name]["in_time"] = json!(in_time);
        let of = |wanted: &str| means.iter().find(|mean| mean.name == wanted).map(Mean::of);
        let (ours, optuna) = of(SAMPLER.name()).zip(of("optuna")).context("both were measured")?;
        ratios.push((table.name, in_time / optuna[0], ours[0] / optuna[0], ours[1] / optuna[1]));
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("tuning.json"), serde_json::to_vec_pretty(&report)?)?;
    for (name, in_time, losses, times) in ratios {
        println!(
            "{name}: {} to Optuna, log loss {in_time:.4} in the same time, {losses:.4} of all trials in {times:.2} of its time",
            SAMPLER.name()
        );
        anyhow::ensure!(
            in_time <= LOG_LOSS_RATIO_MAX,
            "{name}: log loss is {in_time:.4} of Optuna's in the same time"
        );
    }
    Ok(())
}

fn number(variable: &str, default: u32) -> anyhow::Result<u32> {
    match env::var(variable) {
        Ok(text) => text.parse().with_context(|| format!("{variable}={text}")),
        Err(_) => Ok(default),
    }
}

/// Sums over the seeds.
struct Mean {
    name: &'static str,
    seeds: f64,
    /// Log loss of the parameters found, seconds of CPU time, and leaves of all trees that were trained.
    sums: [f64; 3],
}

impl Mean {
    fn new(name: &'static str) -> Self {
        Self { name, seeds: 0.0, sums: [0.0; 3] }
    }

    fn add(&mut self, log_loss: f64, found: &Found) {
        self.seeds += 1.0;
        for (sum, value) in self.sums.iter_mut().zip([log_loss, found.seconds, found.leaves]) {
            *sum += value;
        }
    }

    fn of(&self) -> [f64; 3] {
        self.sums.map(|sum| sum / self.seeds)
    }
}

/// What a study found.
struct Found {
    params: Params,
    /// CPU time.
    seconds: f64,
    /// Leaves of the trees that it trained, as if every tree had as many as it may have.
    leaves: f64,
}

/// Runs a study. Also returns the best parameters of the trials that it ran within `budget` seconds of CPU time.
fn study(
    table: &Table,
    sample: &Sample<'_>,
    sampler: SamplerKind,
    trials: u32,
    seed: u32,
    budget: f64,
) -> anyhow::Result<(Found, Params)> {
    let settings = TuningSettings { folds: FOLDS, trials, sampler, ..TuningSettings::default() };
    let started = processor_seconds()?;
    let (mut in_time, mut failed) = (0, None);
    let trials = run(table, sample, &settings, Seed(seed.into()), &mut |_| {
        match processor_seconds() {
            Ok(now) => in_time += usize::from(now - started <= budget),
            Err(error) => failed = Some(error),
        }
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(()), Err)?;
    let seconds = processor_seconds()? - started;
    let leaves = |trial: &Trial| {
        // Pruned after half of the folds.
        let folds = if trial.pruned { (FOLDS / 2).max(1) } else { FOLDS };
        let trees =
            (trial.iterations + settings.early_stopping_rounds).min(settings.iterations_max);
        f64::from(folds) * f64::from(trees) * f64::from(trial.params.num_leaves)
    };
    let leaves = trials.iter().map(leaves).sum();
    let found = Found { params: best(&trials)?.params.clone(), seconds, leaves };
    Ok((found, best(&trials[..in_time])?.params.clone()))
}

/// The log loss of some parameters on folds that no study has used.
fn measured(table: &Table, sample: &Sample<'_>, params: &Params, seed: u32) -> anyhow::Result<f64> {
    let settings = TuningSettings {
        folds: MEASURED_FOLDS,
        trials: 1,
        start: params.clone(),
        ..TuningSettings::default()
    };
    let seed = Seed(u64::from(seed) + 1_000_000);
    let trials = run(table, sample, &settings, seed, &mut |_| ControlFlow::Continue(()))?;
    Ok(best(&trials)?.log_loss)
}

fn best(trials: &[Trial]) -> anyhow::Result<&Trial> {
    foretell_ml::training::best_trial(trials).context("no trial ran all folds")
}

/// The trials of a study.
fn run(
    table: &Table,
    sample: &Sample<'_>,
    settings: &TuningSettings,
    seed: Seed,
    on_trial: &mut dyn FnMut(&Trial) -> ControlFlow<()>,
) -> anyhow::Result<Vec<Trial>> {
    let data = TrainingData { examples: sample, spec: &table.spec, classes: 2 };
    let watch = Watch { on_trial, stop: &|| false };
    Ok(tune(data, settings, seed, &[], watch)?.trials)
}

/// As [`study`] with Optuna. Python gets the features of a model, so that it has nothing to encode.
fn optuna(
    python: &str,
    table: &Table,
    sample: &Sample<'_>,
    trials: u32,
    seed: u32,
) -> anyhow::Result<Found> {
    let pipeline = table.spec.fit(sample);
    let path = env::temp_dir().join(format!("foretell-tuning-{}", std::process::id()));
    let mut file = BufWriter::new(fs::File::create(&path)?);
    let mut row = Vec::new();
    for (values, label) in &table.rows {
        pipeline.transform(values, &mut row);
        row.push((*label).into());
        for feature in &row {
            file.write_all(&feature.to_le_bytes())?;
        }
    }
    file.flush()?;
    let settings = TuningSettings::default();
    let searched = SEARCHABLE.iter().filter_map(|parameter| {
        let domain = Space::default().domain(parameter.name)?.clone();
        let Domain::Range { low, high, log } = domain else { return None };
        let is_whole = matches!(parameter.values, Values::Whole(..));
        Some((parameter.name, low, high, log, is_whole))
    });
    let space: Vec<_> = searched.collect();
    let value_of = |(name, low, high, _, is_whole): &(&str, f64, f64, bool, bool)| {
        let value = settings.start.get(name).and_then(|value| value.number()).unwrap_or(*low);
        let value = value.clamp(*low, *high);
        let value = if *is_whole { json!(value.round() as i64) } else { json!(value) };
        ((*name).to_owned(), value)
    };
    let start: serde_json::Map<String, Json> = space.iter().map(value_of).collect();
    let arguments = json!({
        "path": path,
        "features": pipeline.features(),
        "categorical": pipeline.categorical_features(),
        "parameters": settings.start.to_lightgbm(2, Seed(seed.into())),
        "space": space,
        "start": start,
        "trials": trials,
        "folds": FOLDS,
        "iterations_max": settings.iterations_max,
        "early_stopping_rounds": settings.early_stopping_rounds,
        "seed": seed,
    });
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/tuning.py");
    let output = Command::new(python).arg(script).arg(arguments.to_string()).output()?;
    fs::remove_file(&path)?;
    let error = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "{python} failed: {error}");
    let found: Json = serde_json::from_slice(&output.stdout)?;
    let mut fields = serde_json::to_value(&settings.start)?;
    for (name, value) in found["parameters"].as_object().context("the parameters")? {
        fields[name] = value.clone();
    }
    let number = |name: &'static str| found[name].as_f64().context(name);
    let params = serde_json::from_value(fields)?;
    Ok(Found { params, seconds: number("seconds")?, leaves: number("leaves")? })
}

/// The first rows of the worked example.
fn adult(rows: u32) -> anyhow::Result<Table> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/adult/adult.data.gz");
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(GzDecoder::new(fs::File::open(path)?));
    // Age, weight, years of education, gains, losses, hours.
    const NUMBERS: [usize; 6] = [0, 2, 4, 10, 11, 12];
    let mut found = Vec::new();
    for record in reader.records().take(usize::try_from(rows)?) {
        let record = record?;
        let cells: Vec<&str> = record.iter().collect();
        let Some((label, cells)) = cells.split_last() else { continue };
        let value = |(index, cell): (usize, &&str)| match cell.parse() {
            Ok(number) if NUMBERS.contains(&index) => Value::Number(number),
            _ if *cell == "?" => Value::Missing,
            _ => Value::Text((*cell).to_owned()),
        };
        let values = cells.iter().enumerate().map(value).collect();
        found.push((values, u32::from(label.starts_with(">50K"))));
    }
    table("adult", 14, &NUMBERS, found)
}

/// Rows whose label follows from numbers and categories by products and thresholds, with noise.
fn generated(rows: u32) -> anyhow::Result<Table> {
    const NUMBERS: [usize; 8] = [0, 1, 2, 3, 4, 5, 6, 7];
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut found = Vec::new();
    for _ in 0..rows {
        let numbers: Vec<f64> = NUMBERS.iter().map(|_| next()).collect();
        let categories: Vec<f64> = (0..4).map(|_| (next() * 12.0).floor()).collect();
        let score = 3.0 * numbers[0] * numbers[1] - 2.0 * (numbers[2] - 0.5).abs()
            + numbers[3]
            + if categories[0] % 3.0 < 0.5 { 0.8 } else { 0.0 }
            + if categories[1] > 6.5 { numbers[4] } else { -numbers[4] };
        let is_one = next() < 1.0 / (1.0 + (-3.0 * (score - 0.9)).exp());
        let mut values: Vec<Value> = numbers.into_iter().map(Value::Number).collect();
        values.extend(categories.iter().map(|category| Value::Text(format!("c{category}"))));
        found.push((values, u32::from(is_one)));
    }
    table("generated", 12, &NUMBERS, found)
}

fn table(
    name: &'static str,
    columns: usize,
    numbers: &[usize],
    rows: Vec<(Vec<Value>, u32)>,
) -> anyhow::Result<Table> {
    let column = |index: usize| match numbers.contains(&index) {
        true => Column::new(&format!("n{index}"), ColumnKind::Numeric),
        false => Column::new(&format!("c{index}"), ColumnKind::Categorical),
    };
    let columns: Vec<Column> = (0..columns).map(column).collect();
    let mut set = TrainingSet::new(&columns);
    for (values, label) in &rows {
        set.push(values, Label(*label));
    }
    Ok(Table { name, spec: PipelineSpec::new(columns, Scaling::None, Vec::new())?, set, rows })
}

/// CPU time of this thread.
fn processor_seconds() -> anyhow::Result<f64> {
    let schedule = fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = schedule.split_whitespace().next().context("three numbers")?;
    Ok(nanoseconds.parse::<f64>()? / 1e9)
}
