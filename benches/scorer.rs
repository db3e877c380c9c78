//! Benchmark of foretell-ml's scorer against LightGBM's prediction, on the worked example: one row at a time, as in a
//! stream; and of its explanations against LightGBM's contributions. Prints tables, writes `target/bench/scorer.json`, and fails
//! if a score differs in one bit, or a contribution by more than 1e-9.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and measures real time"
)]

use std::{fs, hint::black_box, ops::ControlFlow, path::Path, time::Instant};

use anyhow::Context;
use foretell::{
    app::table,
    config::Config,
    processors::{convert, gather::GatherSettings},
};
use foretell_ml::{
    Calibration, Example, Label, ModelBundle, Origin, Params, Recipe, Scorer, Scratch, Seed,
    TrainingSet, ValueRef, training::train,
};
use lightgbm3::Booster;

const ROUNDS: usize = 5;
/// Rows that are explained in a round: LightGBM takes some milliseconds for each.
const EXPLAINED: usize = 1_000;
/// Bound on the time of an explanation with 200 trees of 63 leaves, in microseconds.
const EXPLANATION_MICROS_MAX: f64 = 400.0;

/// As in the binary: what is measured is what runs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = Config::load(&root.join("deploy/adult/foretell.toml"), &[])?;
    let learned = examples(&config, config.data.initial.as_ref())?;
    let learned = TrainingSet::of(config.pipeline.columns(), &learned);
    let scored = examples(&config, config.data.play.as_ref())?;
    println!("trees × leaves   foretell µs   lightgbm3 µs   in a batch µs   ratio   to the batch");
    let (mut ratios, mut explanations) = (serde_json::Map::new(), Vec::new());
    for (iterations, num_leaves) in [(100, 31), (300, 31), (200, 63)] {
        let recipe = Recipe {
            spec: config.pipeline.clone(),
            classes: config.classes.clone(),
            threshold: config.learning.threshold,
            calibration: Calibration::None,
            intervals: false,
            profile: false,
            params: Params { iterations, num_leaves, ..Params::default() },
            seed: Seed(1),
            origin: Origin::default(),
        };
        let bundle = train(&learned.sample(), &recipe, &mut |_, _| ControlFlow::Continue(()))?;
        let [foretell, single, batch] = compare(&bundle, &scored)?;
        let size = format!("{iterations} × {num_leaves}");
        println!(
            "{size:<14} {foretell:>13.2} {single:>14.2} {batch:>15.2} {:>7.1} {:>14.1}",
            single / foretell,
            batch / foretell
        );
        let name = format!("{iterations}x{num_leaves}");
        ratios
            .insert(format!("lightgbm3_single_row_to_foretell_{name}"), (single / foretell).into());
        ratios.insert(format!("lightgbm3_batch_to_foretell_{name}"), (batch / foretell).into());
        let [foretell, single] = compare_explanations(&bundle, &scored[..EXPLAINED])?;
        let name = format!("lightgbm3_contributions_to_foretell_{name}");
        ratios.insert(name, (single / foretell).into());
        explanations.push((size, foretell, single));
    }
    print_explanations(&explanations);
    let folder = root.join("target/bench");
    fs::create_dir_all(&folder)?;
    let file = folder.join("scorer.json");
    fs::write(&file, serde_json::json!({ "ratios": ratios }).to_string())?;
    println!(
        "every bit equal on {} rows, contributions within 1e-9 on {EXPLAINED}; ratios in {}",
        scored.len(),
        file.display()
    );
    Ok(())
}

/// Prints microseconds per row of Foretell and of LightGBM, by size.
fn print_explanations(explanations: &[(String, f64, f64)]) {
    println!("\ntrees × leaves   explanation µs   lightgbm3 µs   ratio   bound µs");
    for (size, foretell, single) in explanations {
        let bound = match size.as_str() {
            "200 × 63" => EXPLANATION_MICROS_MAX.to_string(),
            _ => String::new(),
        };
        let ratio = single / foretell;
        println!("{size:<14} {foretell:>16.1} {single:>14.1} {ratio:>7.1} {bound:>10}");
    }
}

/// Microseconds per row: foretell-ml including features, LightGBM with one row at a time, and LightGBM with one batch.
fn compare(bundle: &ModelBundle, scored: &[Example]) -> anyhow::Result<[f64; 3]> {
    let scorer = Scorer::new(bundle)?;
    let peer = Booster::from_string(&bundle.booster)?;
    let rows = scored.iter().map(|example| {
        let mut row = Vec::new();
        bundle.pipeline.transform(&example.values, &mut row);
        row
    });
    let rows: Vec<Vec<f64>> = rows.collect();
    let flat = rows.concat();
    let width = i32::try_from(bundle.pipeline.features())?;
    let predict = |rows: &[f64]| peer.predict_with_params(rows, width, true, "num_threads=1");
    let mut scratch = Scratch::default();
    for (example, row) in scored.iter().zip(&rows) {
        let foretell = scorer.score(&example.values, &mut scratch).as_slice()[1];
        anyhow::ensure!(foretell.to_bits() == predict(row)?[0].to_bits(), "a bit differs");
    }
    let foretell = best(scored.len(), || {
        for example in scored {
            black_box(scorer.score(black_box(&example.values), &mut scratch));
        }
        Ok(())
    })?;
    let single = best(rows.len(), || {
        for row in &rows {
            black_box(predict(black_box(row))?);
        }
        Ok(())
    })?;
    let batch = best(rows.len(), || {
        black_box(predict(black_box(&flat))?);
        Ok(())
    })?;
    Ok([foretell, single, batch])
}

/// Microseconds per row: an explanation by foretell-ml, including features, and LightGBM's contributions of one row.
fn compare_explanations(bundle: &ModelBundle, explained: &[Example]) -> anyhow::Result<[f64; 2]> {
    let scorer = Scorer::new(bundle)?;
    let peer = Booster::from_string(&bundle.booster)?;
    let width = i32::try_from(bundle.pipeline.features())?;
    let explain = |example: &Example| {
        scorer.explain(example.values.iter().map(ValueRef::from).enumerate(), Label(1))
    };
    let mut rows = Vec::new();
    for example in explained {
        let mut row = Vec::new();
        bundle.pipeline.transform(&example.values, &mut row);
        let expected = peer.predict_contrib(&row, width, true)?;
        let explanation = explain(example)?;
        // The columns and crosses of the worked example are the features.
        let found = explanation.contributions.iter().map(|one| one.log_odds);
        for (found, expected) in found.chain([explanation.base]).zip(&expected) {
            anyhow::ensure!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        }
        rows.push(row);
    }
    let foretell = best(explained.len(), || {
        for example in explained {
            black_box(explain(black_box(example))?);
        }
        Ok(())
    })?;
    let single = best(rows.len(), || {
        for row in &rows {
            black_box(peer.predict_contrib(black_box(row), width, true)?);
        }
        Ok(())
    })?;
    Ok([foretell, single])
}

fn examples(
    config: &Config,
    table: Option<&foretell::config::TableSettings>,
) -> anyhow::Result<Vec<Example>> {
    let rows =
        table::read(table.context("the worked example names its data")?, &config.event_schema)?;
    let GatherSettings { questions, layout, .. } = &config.gather;
    let columns = config.pipeline.columns();
    rows.iter()
        .map(|row| {
            let label = convert::label_of(&row.label, &config.classes).context("a known label")?;
            Ok(Example {
                values: convert::values_in_order(columns, questions, layout, &row.answers),
                label,
            })
        })
        .collect()
}

/// Microseconds per row, in the best round.
fn best(rows: usize, mut round: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<f64> {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        round()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e6 / rows as f64);
    }
    Ok(best)
}
