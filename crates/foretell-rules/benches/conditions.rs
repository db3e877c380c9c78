//! Benchmark of conditions of rules: nanoseconds and allocations of an evaluation, against the bound of 1 µs and the
//! interpreter of the crate cel. Prints a table, writes `target/bench/rules.json`, and fails if a bound is missed.
//! `make bench-rules` runs it.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "a benchmark prints, and measures real time"
)]
#![expect(unsafe_code, reason = "an allocator that counts")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    collections::HashMap,
    fs,
    hint::black_box,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use cel::{Context, Program};
use foretell_rules::{Condition, Scope, Slot, Type, Value, Values};

/// Maximum nanoseconds of an evaluation of the conditions here.
const NANOSECONDS_MAX: f64 = 1000.0;
const ROUNDS: usize = 15;
const EVALUATIONS: u32 = 20_000;

/// The conditions, each with a name.
const CONDITIONS: [(&str, &str); 6] = [
    (
        "the documentation's",
        r#"label == ">50K" && probability[">50K"] >= 0.8 && answers.age >= 25"#,
    ),
    ("of the predicted class", "probability[label] > 0.9 || answers.age < 30.0"),
    ("one of 8 countries", "answers.country in ['AT', 'BE', 'CH', 'DE', 'ES', 'FR', 'IT', 'NL']"),
    ("a pattern", r"answers.country.matches('^[A-M][A-Z]$')"),
    ("a missing answer", "answers.income > 1000 || has(answers.age) && answers.age > 20"),
    ("arithmetic", "(answers.age - 18.0) * 2.5 / 10.0 > 1.5 && double(answers.visits) > 0.5"),
];

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Prediction(Vec<Value<'static>>);

impl Values for Prediction {
    fn value(&self, slot: Slot) -> Value<'_> {
        self.0[slot.index()]
    }
}

fn main() {
    let (scope, prediction) = prediction();
    let context = context();
    let mut rows = Vec::new();
    println!(
        "{:<24} {:>9} {:>12} {:>9} {:>7}",
        "condition", "ns", "allocations", "cel, ns", "ratio"
    );
    for (name, text) in CONDITIONS {
        let condition = Condition::compile(text, &scope).expect("the condition is right");
        let program = Program::compile(text).expect("the condition is right");
        let expected = condition.holds(&prediction);
        let by_cel = program.execute(&context);
        assert_eq!(by_cel.ok(), expected.ok().map(cel::Value::Bool), "{text}");
        // In turns, so that a slow moment of the machine affects both.
        let (mut ours, mut theirs) = (f64::INFINITY, f64::INFINITY);
        let mut allocations = 0.0;
        for _ in 0..ROUNDS {
            let before = ALLOCATIONS.load(Ordering::Relaxed);
            ours = ours.min(nanoseconds(|| condition.holds(black_box(&prediction)) == expected));
            let made = ALLOCATIONS.load(Ordering::Relaxed) - before;
            allocations = made as f64 / f64::from(EVALUATIONS);
            theirs = theirs.min(nanoseconds(|| program.execute(black_box(&context)).is_ok()));
        }
        let ratio = theirs / ours;
        println!("{name:<24} {ours:>9.0} {allocations:>12.2} {theirs:>9.0} {ratio:>7.1}");
        rows.push((name, ours, allocations, theirs));
    }
    write(&rows);
    for (name, ours, allocations, _) in rows {
        assert!(ours <= NANOSECONDS_MAX, "{name}: {ours} ns of at most {NANOSECONDS_MAX}");
        assert!(allocations < 0.01, "{name}: {allocations} allocations an evaluation");
    }
}

fn nanoseconds(evaluate: impl Fn() -> bool) -> f64 {
    let start = Instant::now();
    for _ in 0..EVALUATIONS {
        assert!(black_box(evaluate()), "another result");
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(EVALUATIONS)
}

fn prediction() -> (Scope, Prediction) {
    let mut scope = Scope::new();
    scope.plain("label", Type::Text);
    scope.entry("probability", "<=50K", Type::Double);
    scope.entry("probability", ">50K", Type::Double);
    scope.field("answers", "age", Type::Double, true);
    scope.field("answers", "visits", Type::Int, true);
    scope.field("answers", "country", Type::Text, true);
    scope.field("answers", "income", Type::Double, true);
    let values = vec![
        Value::Text(">50K"),
        Value::Double(0.15),
        Value::Double(0.85),
        Value::Double(31.0),
        Value::Int(3),
        Value::Text("IT"),
        Value::Null,
    ];
    (scope, Prediction(values))
}

/// The same for the interpreter, whose context is made once, outside of what is measured.
fn context() -> Context<'static, 'static> {
    let mut context = Context::default();
    context.add_variable_from_value("label", ">50K");
    let probability = HashMap::from([("<=50K", 0.15), (">50K", 0.85)]);
    context.add_variable_from_value("probability", probability);
    let answers: HashMap<&str, cel::Value> = HashMap::from([
        ("age", cel::Value::Float(31.0)),
        ("visits", cel::Value::Int(3)),
        ("country", "IT".into()),
        ("income", cel::Value::Null),
    ]);
    context.add_variable_from_value("answers", answers);
    context
}

fn write(rows: &[(&str, f64, f64, f64)]) {
    let rows = rows.iter().map(|(name, ours, allocations, theirs)| {
        format!(
            "  {{\"condition\": \"{name}\", \"nanoseconds\": {ours:.1}, \"allocations\": {allocations:.3}, \
             \"cel_nanoseconds\": {theirs:.1}}}"
        )
    });
    let text = format!("[\n{}\n]\n", rows.collect::<Vec<_>>().join(",\n"));
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/bench");
    fs::create_dir_all(&folder).expect("target/bench can be made");
    fs::write(folder.join("rules.json"), text).expect("target/bench/rules.json can be written");
}
