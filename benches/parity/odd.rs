//! Columns of every kind with values that are easy to encode differently: missing, infinite, tiny and huge numbers, numbers
//! as texts and categories, dates far away, and texts that no training had.

use foretell_ml::{
    CalendarFeature, CalendarPart, Calibration, Column, ColumnKind, Example, Label, Origin, Params,
    PipelineSpec, Recipe, Scaling, Seed, Threshold, TimeUnit, Value,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Numbers at the edges of what a float, a calendar and LightGBM tell apart.
const NUMBERS: [f64; 22] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.1,
    1e-36,
    -1e-35,
    1e-34,
    5e-324,
    1e15,
    1e16,
    1e21,
    -1e22,
    1e300,
    -1.7e308,
    123_456.789,
    2.5,
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    9_007_199_254_740_993.0,
    1_795_885_530_999.0,
];
/// Texts that are numbers for one parser and not for another, and categories.
const TEXTS: [&str; 26] = [
    "a",
    "b",
    "",
    " ",
    "7",
    "7.0",
    " 7 ",
    "\u{a0}7\u{3000}",
    "\u{1f}7",
    "1_000",
    "1e3",
    "1E+3",
    ".5",
    "5.",
    "+5",
    "--5",
    "inf",
    "-Infinity",
    "nan",
    "0x10",
    "1e400",
    "٣",
    "ümläut",
    "true",
    "1,5",
    "e5",
];

fn columns() -> Vec<Column> {
    let numeric = ["whole", "gaps", "text", "day", "moment"];
    let categorical = ["kind", "code", "flag"];
    let numeric = numeric.map(|name| Column::new(name, ColumnKind::Numeric));
    let categorical = categorical.map(|name| Column::new(name, ColumnKind::Categorical));
    numeric.into_iter().chain(categorical).collect()
}

pub(crate) fn recipe(classes: u32) -> anyhow::Result<Recipe> {
    let cross = |left: &str, right: &str| (left.to_owned(), right.to_owned());
    let crosses = vec![cross("kind", "code"), cross("kind", "flag")];
    let spec = PipelineSpec::new(columns(), Scaling::Standard, crosses)?;
    let parts = [
        CalendarPart::Year,
        CalendarPart::Month,
        CalendarPart::Day,
        CalendarPart::Weekday,
        CalendarPart::Hour,
        CalendarPart::Minute,
    ];
    let of = |column: &str, part, unit| CalendarFeature { column: column.to_owned(), part, unit };
    let days = parts[..4].iter().map(|part| of("day", *part, TimeUnit::Days));
    let moments = parts.iter().map(|part| of("moment", *part, TimeUnit::PartsOfSecond(1_000)));
    Ok(Recipe {
        spec: spec.with_calendar(days.chain(moments).collect())?,
        classes: (0..classes).map(|class| format!("class {class}")).collect(),
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: false,
        params: Params {
            iterations: 60,
            min_data_in_leaf: 5,
            cat_smooth: 1.0,
            min_data_per_group: 5,
            ..Params::default()
        },
        seed: Seed(1),
        origin: Origin::default(),
    })
}

/// Examples of which every tenth value is odd; the label depends on each column.
pub(crate) fn examples(number: u32, classes: u32, seed: u64) -> Vec<Example> {
    let mut random = StdRng::seed_from_u64(seed);
    let example = |_| {
        let (whole, gaps) = (random.random_range(0..100_u8), random.random_range(-3.0..3.0));
        let day = random.random_range(-20_000..40_000_i32);
        let moment = random.random_range(-1_000_000_000_000..3_000_000_000_000_i64);
        let (kind, code) = (random.random_range(0..7_u8), random.random_range(0..12_u8));
        let flag = random.random_bool(0.4);
        let score = f64::from(whole) / 50.0
            + gaps
            + f64::from(kind % 3)
            + f64::from(u8::from(flag != (code > 5)))
            + f64::from(u8::from(moment.rem_euclid(86_400_000) < 43_200_000))
            + f64::from(u8::from(day.rem_euclid(7) < 3))
            + random.random_range(-1.0..1.0);
        let mut values = vec![
            Value::Number(whole.into()),
            Value::Number(gaps),
            Value::Text(format!(" {} ", f64::from(whole) / 4.0)),
            Value::Number(day.into()),
            Value::Number(moment as f64),
            Value::Text(char::from(b'a' + kind).to_string()),
            Value::Number(f64::from(code) / 2.0),
            Value::Text(flag.to_string()),
        ];
        for value in &mut values[1..] {
            if random.random_bool(0.1) {
                *value = match random.random_range(0..3_u8) {
                    0 => Value::Missing,
                    1 => Value::Number(NUMBERS[random.random_range(0..NUMBERS.len())]),
                    _ => Value::Text(TEXTS[random.random_range(0..TEXTS.len())].to_owned()),
                };
            }
        }
        let label = (1..classes).filter(|class| score > 1.5 * f64::from(*class)).count();
        Example { values, label: Label(u32::try_from(label).expect("there are few classes")) }
    };
    (0..number).map(example).collect()
}

/// Each odd value in every column.
pub(crate) fn rows() -> Vec<Vec<Value>> {
    let texts = TEXTS.iter().map(|text| Value::Text((*text).to_owned()));
    let numbers = NUMBERS.iter().map(|number| Value::Number(*number));
    let all = numbers.chain(texts).chain([Value::Missing]);
    all.map(|value| vec![value; columns().len()]).chain([Vec::new()]).collect()
}
