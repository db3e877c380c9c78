//! Concept drift: which policies forget what is not true any more, and how fast a judged champion follows.
#![expect(clippy::unwrap_used, reason = "tests may fail")]

use std::ops::ControlFlow;

use foretell_ml::{
    Calibration, Column, ColumnKind, DataPolicy, Example, InitialPolicy, Label, ModelBundle,
    Origin, Params, PipelineSpec, Recipe, Retention, Scaling, Scorer, Seed, Threshold, TrainingSet,
    Value,
    judge::{self, Verdict},
    training::{Holdout, evaluate, train, train_judged},
    training_set::{Arrival, History, InitialRow},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A rule by which an applicant gets a loan, from age and level of education.
type Concept = fn(f64, f64) -> bool;

/// Function 0 of the generator of Agrawal et al. ("Database Mining: A Performance Perspective", 1993).
const OLD: Concept = |age, _| !(40.0..60.0).contains(&age);
/// Its function 2.
const NEW: Concept = |age, level| match age {
    age if age < 40.0 => level <= 1.0,
    age if age < 60.0 => (1.0..=3.0).contains(&level),
    _ => level >= 2.0,
};

fn columns() -> Vec<Column> {
    let numbers = ["salary", "commission", "age", "level", "value", "years", "loan"];
    let categories = ["car", "zip"];
    let numeric = numbers.map(|name| Column::new(name, ColumnKind::Numeric));
    let categorical = categories.map(|name| Column::new(name, ColumnKind::Categorical));
    numeric.into_iter().chain(categorical).collect()
}

fn applicants(number: usize, concept: Concept, seed: u64) -> Vec<Example> {
    let mut random = StdRng::seed_from_u64(seed);
    let applicant = |_| {
        let salary = random.random_range(20_000.0..150_000.0);
        let commission =
            if salary >= 75_000.0 { 0.0 } else { random.random_range(10_000.0..75_000.0) };
        let age = f64::from(random.random_range(20..=80_u8));
        let level = f64::from(random.random_range(0..5_u8));
        let (car, zip) = (random.random_range(1..=20_u8), random.random_range(0..9_u8));
        let value = (9.0 - f64::from(zip)) * 100_000.0 * random.random_range(0.5..1.5);
        let years = f64::from(random.random_range(1..=30_u8));
        let loan = random.random_range(0.0..500_000.0);
        let numbers = [salary, commission, age, level, value, years, loan].map(Value::Number);
        let categories = [car, zip].map(|code| Value::Text(code.to_string()));
        let values = numbers.into_iter().chain(categories).collect();
        Example { values, label: Label(u32::from(concept(age, level))) }
    };
    (0..number).map(applicant).collect()
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
    let initial = TrainingSet::of(&columns, &applicants(4_000, OLD, 1));
    let rows: Vec<InitialRow> = (0..4_000).map(|row| InitialRow { row, event_time: 0 }).collect();
    let mut stream = History::new(&columns, policy, Seed(1));
    let events = applicants(2_000, OLD, 2).into_iter().chain(applicants(3_000, NEW, 3));
    for (number, Example { values, label }) in (0_i64..).zip(events) {
        let id = number.to_string();
        let event_time = number * MINUTE;
        let arrival = Arrival { id: &id, event_time, offset: number, is_correction: false };
        stream.add(arrival, &values, label);
    }
    let recipe = recipe(policy);
    let (sample, _) = stream.sample(&initial, &rows);
    let bundle = train(&sample, &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap();
    let unseen = applicants(4_000, NEW, 4);
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
    assert!(all < 0.75, "the concepts are too similar: {all}");
    let sampled = with(Retention::Reservoir(2_000), None, age);
    assert!(sampled < 0.75, "a random sample forgets nothing: {sampled}");
    let kept = with(Retention::Last(2_000), None, keep);
    assert!(kept < 0.75, "the initial data are kept: {kept}");
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

/// As [`applicants`], and one label in ten is wrong, so that no model is certain.
fn noisy(number: usize, concept: Concept, seed: u64) -> Vec<Example> {
    let mut examples = applicants(number, concept, seed);
    let mut random = StdRng::seed_from_u64(seed.wrapping_add(1_000));
    for example in &mut examples {
        if random.random_ratio(1, 10) {
            example.label = Label(1 - example.label.0);
        }
    }
    examples
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
    let unseen = noisy(4_000, NEW, 9);
    let loss = |scorer: &Scorer| evaluate(scorer, &unseen).log_loss.unwrap();
    let first = model(&noisy(4 * N, OLD, 1));
    let frozen = loss(&Scorer::new(&first).unwrap());
    let new = noisy(3 * N, NEW, 2);
    let oracle = loss(&Scorer::new(&model(&new)).unwrap());
    assert!(frozen > 1.5 * oracle, "the concepts are too similar: {frozen} and {oracle}");

    let abrupt: Vec<Example> = noisy(2 * N, OLD, 3).into_iter().chain(new.clone()).collect();
    // Over 2 N labels the new concept becomes more frequent, and then it is the only one.
    let mut random = StdRng::seed_from_u64(4);
    let both = noisy(2 * N, OLD, 5).into_iter().zip(noisy(2 * N, NEW, 6)).enumerate();
    let mixed = both.map(
        |(number, (old, new))| {
            if random.random_range(0..2 * N) < number { new } else { old }
        },
    );
    let gradual: Vec<Example> = mixed.chain(new).collect();
    for (kind, stream) in [("abrupt", abrupt), ("gradual", gradual)] {
        let champion = loss(&champion_after(&stream, &first));
        assert!(champion <= 1.05 * oracle, "{kind}: {champion}, and the oracle has {oracle}");
    }
}
