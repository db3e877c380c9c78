//! Concept drift: which policies forget what is not true any more, and how fast a judged champion follows.
#![expect(clippy::unwrap_used, reason = "tests may fail")]

use std::ops::ControlFlow;

use foretell_generate::{
    Cell, ConceptChange, Row,
    agrawal::{self, Agrawal, Function, Settings},
};
use foretell_ml::{
    Calibration, Column, ColumnKind, DataPolicy, Example, InitialPolicy, Label, ModelBundle,
    Origin, Params, PipelineSpec, Recipe, Retention, Scaling, Scorer, Seed, Threshold, TrainingSet,
    Value,
    judge::{self, Verdict},
    training::{Holdout, evaluate, train, train_judged},
    training_set::{Arrival, History, InitialRow},
};

/// Functions of the generator: the concept that holds first, and the one that takes its place.
const OLD: u8 = 0;
const NEW: u8 = 2;

fn columns() -> Vec<Column> {
    let kind = |name: &str| match name {
        "car" | "zipcode" => ColumnKind::Categorical,
        _ => ColumnKind::Numeric,
    };
    agrawal::COLUMNS.map(|name| Column::new(name, kind(name))).to_vec()
}

fn settings(concept: u8, seed: u64) -> Settings {
    Settings { seed, function: Function::new(concept).unwrap(), change: None, noise: 0.0 }
}

fn applicants(number: usize, settings: Settings) -> Vec<Example> {
    let value = |cell| match cell {
        Cell::Number(number) => Value::Number(number),
        Cell::Category(category) => Value::Text(category),
    };
    let example = |row: Row| Example {
        values: row.cells.into_iter().map(value).collect(),
        label: Label(u32::from(row.label == agrawal::GROUPS[1])),
    };
    Agrawal::new(settings).take(number).map(example).collect()
}

fn recipe(policy: DataPolicy) -> Recipe {
    Recipe {
        spec: PipelineSpec::new(columns(), Scaling::None, Vec::new()).unwrap(),
        classes: vec!["no".to_owned(), "yes".to_owned()],
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: false,
        params: Params { iterations: 100, feature_fraction: 1.0, ..Params::default() },
        seed: Seed(1),
        origin: Origin { policy, ..Origin::default() },
    }
}

/// The AUC on the new concept of a retraining after 4,000 initial examples, and 2,000 from the stream, of the old concept, and
/// 3,000 of the new one, a minute apart.
fn auc_after_drift(policy: DataPolicy) -> f64 {
    const MINUTE: i64 = 60_000;
    let columns = columns();
    let initial = TrainingSet::of(&columns, &applicants(4_000, settings(OLD, 1)));
    let rows: Vec<InitialRow> = (0..4_000).map(|row| InitialRow { row, event_time: 0 }).collect();
    let mut stream = History::new(&columns, policy, Seed(1));
    let events =
        applicants(2_000, settings(OLD, 2)).into_iter().chain(applicants(3_000, settings(NEW, 3)));
    for (number, Example { values, label }) in (0_i64..).zip(events) {
        let id = number.to_string();
        let event_time = number * MINUTE;
        let arrival = Arrival { id: &id, event_time, offset: number, is_correction: false };
        stream.add(arrival, &values, label);
    }
    let recipe = recipe(policy);
    let (sample, _) = stream.sample(&initial, &rows);
    let bundle = train(&sample, &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let unseen = applicants(4_000, settings(NEW, 4));
    evaluate(&Scorer::new(&bundle).unwrap(), &unseen).auc.unwrap()
}

#[test]
fn a_bounded_history_forgets_a_concept_that_all_data_keep() {
    const MINUTE: i64 = 60_000;
    let with = |retention, half_life, initial| {
        auc_after_drift(DataPolicy { retention, half_life, initial })
    };
    let (keep, age) = (InitialPolicy::Keep, InitialPolicy::Age);
    let all = with(Retention::All, None, keep);
    assert!(all < 0.8, "the concepts are too similar: {all}");
    let sampled = with(Retention::Reservoir(2_000), None, age);
    assert!(sampled < 0.8, "a random sample forgets nothing: {sampled}");
    let kept = with(Retention::Last(2_000), None, keep);
    assert!(kept < 0.8, "the initial data are kept: {kept}");
    for (forgetful, auc) in [
        ("last = 2000", with(Retention::Last(2_000), None, age)),
        ("last = a time", with(Retention::Within(2_000 * MINUTE), None, age)),
        ("half_life", with(Retention::All, Some(300 * MINUTE), age)),
    ] {
        assert!(auc >= 0.99, "{forgetful}: {auc}");
    }
}

/// Labels between two trainings.
const N: usize = 1_000;

/// One label in ten is wrong, so that no model is certain.
fn noisy(concept: u8, seed: u64) -> Settings {
    Settings { noise: 0.1, ..settings(concept, seed) }
}

/// A stream in which the new concept takes the place of the old one.
fn changing(at: usize, width: usize) -> Settings {
    let [at, width] = [at, width].map(|rows| u64::try_from(rows).unwrap());
    let to = Function::new(NEW).unwrap();
    Settings { change: Some((to, ConceptChange { at, width })), ..noisy(OLD, 3) }
}

/// A model in the role of champion or challenger, and the number of examples before its training's end.
struct Contender {
    scorer: Scorer,
    seen: usize,
}

/// The champion after a stream, retrained after every N labels on the newest 2 N, and replaced only by a better model. A
/// model that is not certainly better or worse is the challenger, and is compared again after the next N labels.
fn champion_after(stream: &[Example], first: &ModelBundle) -> Scorer {
    let policy = DataPolicy {
        retention: Retention::Last(2 * N),
        initial: InitialPolicy::Age,
        half_life: None,
    };
    let mut history = History::new(&columns(), policy, Seed(1));
    let mut champion = Contender { scorer: Scorer::new(first).unwrap(), seen: 0 };
    let mut challenger = None;
    for (number, Example { values, label }) in stream.iter().enumerate() {
        let (id, offset) = (number.to_string(), i64::try_from(number).unwrap());
        let arrival = Arrival { id: &id, event_time: offset, offset, is_correction: false };
        history.add(arrival, values, *label);
        if !(number + 1).is_multiple_of(N) {
            continue;
        }
        if let Some(contender) = challenger.take()
            && is_better(&contender, &champion, &history)
        {
            champion = contender;
        }
        let all = history.sample_since(0);
        let held_out = ((number + 1 - champion.seen) * 3 / 10).min(all.len() / 2);
        let kept = all.subset(|index| index < all.len() - held_out);
        let newest = all.subset(|index| index >= all.len() - held_out);
        let holdout = Holdout {
            kept: &kept,
            held_out: &newest,
            opponent: Some(&champion.scorer),
            judge: judge::Settings::default(),
        };
        let mut go_on = |_, _| ControlFlow::Continue(());
        let judged = train_judged(&all, &holdout, &recipe(policy), &mut go_on).unwrap();
        let scorer = Scorer::new(&judged.bundle).unwrap();
        let contender = Contender { scorer, seen: number + 1 };
        match judged.comparison.unwrap().verdict(0.0) {
            Verdict::Better => champion = contender,
            Verdict::Undecided => challenger = Some(contender),
            Verdict::Worse => {}
        }
    }
    champion.scorer
}

/// Whether a challenger is better than the champion on the examples since its training.
fn is_better(challenger: &Contender, champion: &Contender, history: &History) -> bool {
    let sample = history.sample_since(i64::try_from(challenger.seen).unwrap());
    let labels: Vec<Label> = sample.labels().collect();
    let [one, other] = [challenger, champion]
        .map(|contender| judge::predict(&contender.scorer, &columns(), &sample));
    let comparison = judge::compare(&one, &other, &labels, &judge::Settings::default());
    comparison.unwrap().verdict(0.0) == Verdict::Better
}

#[test]
fn a_judged_champion_comes_close_to_an_oracle_within_three_batches_of_a_change() {
    let model = |examples: &[Example]| {
        let set = TrainingSet::of(&columns(), examples);
        let recipe = recipe(DataPolicy::default());
        train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap()
    };
    let unseen = applicants(4_000, noisy(NEW, 9));
    let loss = |scorer: &Scorer| evaluate(scorer, &unseen).log_loss.unwrap();
    let first = model(&applicants(4 * N, noisy(OLD, 1)));
    let frozen = loss(&Scorer::new(&first).unwrap());
    let oracle = loss(&Scorer::new(&model(&applicants(3 * N, noisy(NEW, 2)))).unwrap());
    assert!(frozen > 1.5 * oracle, "the concepts are too similar: {frozen} and {oracle}");

    let abrupt = applicants(5 * N, changing(2 * N, 0));
    // From .018 to .982 of the new concept within 2 N labels.
    let gradual = applicants(7 * N, changing(3 * N, N));
    for (kind, stream) in [("abrupt", abrupt), ("gradual", gradual)] {
        let champion = loss(&champion_after(&stream, &first));
        assert!(champion <= 1.05 * oracle, "{kind}: {champion}, and the oracle has {oracle}");
    }
}
