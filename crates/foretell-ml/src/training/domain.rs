//! The values of one parameter that a study searches, and their coordinates.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
    ser::SerializeMap as _,
};

use crate::training::{
    ParamValue, TrainingError,
    searchable::{Searchable, Values},
    within,
};

/// Upper bound of the values of a choice.
const CHOICES_MAX: usize = 64;

/// The values that a study may give a parameter.
#[derive(Clone, Debug, PartialEq)]
pub enum Domain {
    /// Numbers from `low` to `high`, both included. A parameter of whole numbers is rounded.
    Range {
        /// Smallest value.
        low: f64,
        /// Largest value; equal to `low` to fix the parameter.
        high: f64,
        /// Whether it is searched on a logarithmic scale; `low` must then be above 0.
        log: bool,
    },
    /// Whole numbers from `low` to `high`, both included, each as probable as the next one, or on a logarithmic scale.
    Int {
        /// Smallest value.
        low: i32,
        /// Largest value.
        high: i32,
        /// Whether it is searched on a logarithmic scale; `low` must then be above 0.
        log: bool,
    },
    /// These values, without an order.
    Choice(Vec<ParamValue>),
}

/// The coordinates of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Axis {
    /// Numbers from 0 to 1, in the order of the values.
    Line,
    /// Indices of this many values without an order.
    Choices(usize),
}

impl Domain {
    /// Numbers on a linear scale.
    #[must_use]
    pub const fn linear(low: f64, high: f64) -> Self {
        Self::Range { low, high, log: false }
    }

    /// Numbers on a logarithmic scale.
    #[must_use]
    pub const fn log(low: f64, high: f64) -> Self {
        Self::Range { low, high, log: true }
    }

    /// Whole numbers.
    #[must_use]
    pub const fn int(low: i32, high: i32) -> Self {
        Self::Int { low, high, log: false }
    }

    pub(super) fn axis(&self) -> Axis {
        match self {
            Self::Range { .. } | Self::Int { .. } => Axis::Line,
            Self::Choice(values) => Axis::Choices(values.len()),
        }
    }

    /// The values, if they are listed or there is only one.
    pub(super) fn values(&self) -> Vec<ParamValue> {
        match self {
            Self::Choice(values) => values.clone(),
            Self::Range { low, high, .. } if low >= high => vec![ParamValue::Number(*low)],
            Self::Int { low, high, .. } if low >= high => vec![ParamValue::Number((*low).into())],
            Self::Range { .. } | Self::Int { .. } => Vec::new(),
        }
    }

    /// The value at a coordinate.
    pub(super) fn value_at(&self, coordinate: f64) -> ParamValue {
        match self {
            Self::Range { low, high, log } => {
                ParamValue::Number(at(*low, *high, *log, coordinate).clamp(*low, *high))
            }
            Self::Int { low, high, log } => {
                let (low, high) = (f64::from(*low), f64::from(*high));
                let number = at(low - 0.5, high + 0.5, *log, coordinate).round();
                // Without the sign of a zero.
                ParamValue::Number(number.clamp(low, high) + 0.0)
            }
            Self::Choice(values) => {
                let index = (0..values.len()).find(|index| coordinate < (*index + 1) as f64);
                values[index.unwrap_or(values.len() - 1)].clone()
            }
        }
    }

    /// The inverse of [`Self::value_at`]; for a number outside the domain, that of the nearest end; NaN for a value of another
    /// type, or that is no choice.
    pub(super) fn coordinate_of(&self, value: &ParamValue) -> f64 {
        let number = value.number().unwrap_or(f64::NAN);
        match self {
            Self::Range { low, high, log } => coordinate(*low, *high, *log, number),
            Self::Int { low, high, log } => {
                coordinate(f64::from(*low) - 0.5, f64::from(*high) + 0.5, *log, number)
            }
            Self::Choice(values) => {
                let index = values.iter().position(|choice| choice == value);
                index.map_or(f64::NAN, |index| index as f64)
            }
        }
    }

    /// The value of the domain that is nearest to `value`. Of a choice it is `exact` if that is one, else the nearest number,
    /// else the first.
    pub(super) fn nearest(&self, value: &ParamValue, exact: &ParamValue) -> ParamValue {
        let number = value.number();
        match self {
            Self::Range { low, high, .. } => {
                ParamValue::Number(number.map_or(*low, |number| number.clamp(*low, *high)))
            }
            Self::Int { low, high, .. } => {
                let (low, high) = (f64::from(*low), f64::from(*high));
                ParamValue::Number(number.map_or(low, |number| number.round().clamp(low, high)))
            }
            Self::Choice(values) if values.contains(exact) => exact.clone(),
            Self::Choice(values) => {
                let numbers = || values.iter().filter_map(ParamValue::number);
                let (least, most) = numbers()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |ends, n| {
                        (ends.0.min(n), ends.1.max(n))
                    });
                let number = number.filter(|_| least <= most).map(|n| n.clamp(least, most));
                let distance = |n: &f64| (n - number.unwrap_or(f64::NAN)).abs();
                let nearest = numbers().min_by(|a, b| distance(a).total_cmp(&distance(b)));
                let nearest = nearest.filter(|_| number.is_some()).map(ParamValue::Number);
                nearest.unwrap_or_else(|| values[0].clone())
            }
        }
    }

    /// Checks that the domain is not empty, is finite, and lies within the bounds of its parameter.
    pub(super) fn check(&self, parameter: &Searchable) -> Result<(), TrainingError> {
        let (low, high, log) = match self {
            Self::Range { low, high, log } => (*low, *high, *log),
            Self::Int { low, high, log } => (f64::from(*low), f64::from(*high), *log),
            Self::Choice(values) => {
                if values.is_empty() || values.len() > CHOICES_MAX {
                    let problem = format!("{} choices: give it 1 to {CHOICES_MAX}", values.len());
                    return Err(parameter.refuse(problem));
                }
                return values.iter().try_for_each(|value| parameter.check(value));
            }
        };
        let (least, most) = match parameter.values {
            Values::Whole(least, most) | Values::Real(least, most) => (least, most),
            Values::Flag | Values::Text(_) => {
                let problem = format!(
                    "a range of numbers, but its value is {}: write {{ choice = […] }}",
                    parameter.values_in_words()
                );
                return Err(parameter.refuse(problem));
            }
        };
        if low > high {
            let problem = format!("a range from {low} to {high}: the lower end is above the upper");
            return Err(parameter.refuse(problem));
        }
        let least = if log { least.max(f64::MIN_POSITIVE) } else { least };
        within(parameter.name, low, least, most)?;
        within(parameter.name, high, low, most)
    }
}

/// The number at `fraction` of the way from `low` (0) to `high` (1).
fn at(low: f64, high: f64, log: bool, fraction: f64) -> f64 {
    match log {
        true => (low.ln() + fraction * (high / low).ln()).exp(),
        false => low + fraction * (high - low),
    }
}

/// The inverse of [`at`]; 0 or 1 for a number outside, NaN for NaN.
fn coordinate(low: f64, high: f64, log: bool, number: f64) -> f64 {
    if number.is_nan() {
        return f64::NAN;
    }
    let fraction = match log {
        true => (number.max(low) / low).ln() / (high / low).ln(),
        false => (number - low) / (high - low),
    };
    // In a range of one value this is 0 / 0 for the value itself.
    if fraction.is_nan() { 0.0 } else { fraction.clamp(0.0, 1.0) }
}

/// As TOML: `{ loguniform = [7, 63] }`.
impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Range { low, high, log } => {
                write!(f, "{{ {} = [{low}, {high}] }}", if *log { "loguniform" } else { "uniform" })
            }
            Self::Int { low, high, log } => {
                write!(f, "{{ int = [{low}, {high}]{} }}", if *log { ", log = true" } else { "" })
            }
            Self::Choice(values) => {
                let values = values.iter().map(ParamValue::to_toml);
                write!(f, "{{ choice = [{}] }}", values.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

impl Serialize for Domain {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match self {
            Self::Range { low, high, log } => {
                map.serialize_entry(if *log { "loguniform" } else { "uniform" }, &[low, high])?;
            }
            Self::Int { low, high, log } => {
                map.serialize_entry("int", &[low, high])?;
                if *log {
                    map.serialize_entry("log", log)?;
                }
            }
            Self::Choice(values) => map.serialize_entry("choice", values)?,
        }
        map.end()
    }
}

/// The keys of a domain as written.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Written {
    low: Option<f64>,
    high: Option<f64>,
    uniform: Option<[f64; 2]>,
    loguniform: Option<[f64; 2]>,
    int: Option<[i32; 2]>,
    choice: Option<Vec<ParamValue>>,
    log: bool,
}

impl Written {
    fn domain(self) -> Result<Domain, &'static str> {
        let Self { low, high, uniform, loguniform, int, choice, log } = self;
        match (low, high, uniform, loguniform, int, choice) {
            (Some(low), Some(high), None, None, None, None) => Ok(Domain::Range { low, high, log }),
            (None, None, Some([low, high]), None, None, None) if !log => {
                Ok(Domain::linear(low, high))
            }
            (None, None, None, Some([low, high]), None, None) if !log => Ok(Domain::log(low, high)),
            (None, None, None, None, Some([low, high]), None) => Ok(Domain::Int { low, high, log }),
            (None, None, None, None, None, Some(values)) if !log => Ok(Domain::Choice(values)),
            _ => Err("write one of { uniform = [low, high] }, { loguniform = [low, high] }, \
                      { int = [low, high] }, { choice = [value, …] }, or a value to fix the parameter"),
        }
    }
}

/// A table with one of the keys `uniform`, `loguniform`, `int` and `choice`, or with `low`, `high` and `log`; or a value.
impl<'de> Deserialize<'de> for Domain {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Domain;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the values of a parameter, such as { uniform = [0.1, 0.9] } or { choice = [1, 2] }, or one value")
            }

            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Domain, E> {
                Ok(Domain::Choice(vec![ParamValue::Flag(value)]))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Domain, E> {
                self.visit_f64(value as f64)
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Domain, E> {
                self.visit_f64(value as f64)
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Domain, E> {
                Ok(Domain::Choice(vec![ParamValue::Number(value)]))
            }

            fn visit_str<E: de::Error>(self, value: &str) -> Result<Domain, E> {
                Ok(Domain::Choice(vec![ParamValue::of_text(value)]))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Domain, A::Error> {
                let written = Written::deserialize(de::value::MapAccessDeserializer::new(map))?;
                written.domain().map_err(de::Error::custom)
            }
        }

        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::searchable::{SEARCHABLE, position_of};

    fn number(value: &ParamValue) -> f64 {
        value.number().unwrap()
    }

    #[test]
    fn coordinates_and_values_convert_into_each_other() {
        let check = |domain: Domain, coordinate: f64, value: f64| {
            let found = number(&domain.value_at(coordinate));
            assert!((found - value).abs() < 1e-9, "{domain} at {coordinate}: {found}");
            let found = domain.coordinate_of(&ParamValue::Number(value));
            assert!((found - coordinate).abs() < 1e-9, "{domain} of {value}: {found}");
        };
        check(Domain::linear(2.0, 6.0), 0.25, 3.0);
        check(Domain::log(0.01, 100.0), 0.5, 1.0);
        check(Domain::log(0.01, 100.0), 1.0, 100.0);
        check(Domain::linear(3.0, 3.0), 0.0, 3.0);
        check(Domain::log(3.0, 3.0), 0.0, 3.0);
        check(Domain::int(3, 5), 0.5, 4.0);
        check(Domain::int(0, 3), 0.125, 0.0);
        let numbers = [5.0, 7.0, 9.0].map(ParamValue::Number).to_vec();
        check(Domain::Choice(numbers), 2.0, 9.0);
    }

    #[test]
    fn whole_numbers_are_equally_probable() {
        let domain = Domain::int(-1, 3);
        for (count, expected) in (0..1000).zip((0..5).flat_map(|n| std::iter::repeat_n(n - 1, 200)))
        {
            let value = number(&domain.value_at((f64::from(count) + 0.5) / 1000.0));
            assert_eq!(value.to_bits(), f64::from(expected).to_bits());
        }
        assert_eq!(domain.value_at(0.0), ParamValue::Number(-1.0));
        assert_eq!(domain.value_at(1.0), ParamValue::Number(3.0));
    }

    #[test]
    fn a_value_outside_has_the_coordinate_of_the_nearest_end() {
        let coordinate = |domain: Domain, value| domain.coordinate_of(&ParamValue::Number(value));
        assert!(coordinate(Domain::log(0.01, 1.0), 0.0).abs() < 1e-9);
        assert!((coordinate(Domain::linear(0.0, 1.0), 7.0) - 1.0).abs() < 1e-9);
        let choice = Domain::Choice(vec![ParamValue::Flag(true)]);
        assert!(choice.coordinate_of(&ParamValue::Flag(false)).is_nan());
        assert!(Domain::int(1, 2).coordinate_of(&ParamValue::of_text("x")).is_nan());
    }

    #[test]
    fn a_range_of_one_value_gives_exactly_that_value() {
        for value in [0.1, 0.3, 7.0, 63.0, 1e-3, 123.456] {
            for range in [Domain::linear(value, value), Domain::log(value, value)] {
                for fraction in [0.0, 0.1, 0.5, 0.99, 1.0] {
                    let found = number(&range.value_at(fraction));
                    assert_eq!(found.to_bits(), value.to_bits(), "{range}");
                }
                for other in [0.0, value, 1e9] {
                    let found = range.coordinate_of(&ParamValue::Number(other));
                    assert!((0.0..=1.0).contains(&found), "{range} {other}");
                }
            }
        }
    }

    #[test]
    fn each_form_of_a_domain_is_read() {
        let check = |json: &str, expected: Domain| {
            assert_eq!(serde_json::from_str::<Domain>(json).unwrap(), expected, "{json}");
            let again = serde_json::to_string(&expected).unwrap();
            assert_eq!(serde_json::from_str::<Domain>(&again).unwrap(), expected, "{again}");
        };
        check(r#"{"low": 7, "high": 63, "log": true}"#, Domain::log(7.0, 63.0));
        check(r#"{"low": 0.5, "high": 1}"#, Domain::linear(0.5, 1.0));
        check(r#"{"uniform": [0.5, 1]}"#, Domain::linear(0.5, 1.0));
        check(r#"{"loguniform": [7, 63]}"#, Domain::log(7.0, 63.0));
        check(r#"{"int": [3, 12]}"#, Domain::int(3, 12));
        check(r#"{"int": [3, 12], "log": true}"#, Domain::Int { low: 3, high: 12, log: true });
        let values =
            vec![ParamValue::Number(1.0), ParamValue::Flag(true), ParamValue::of_text("x")];
        check(r#"{"choice": [1, true, "x"]}"#, Domain::Choice(values.clone()));
        for (json, value) in ["1", "true", "\"x\""].into_iter().zip(values) {
            check(json, Domain::Choice(vec![value]));
        }
    }

    #[test]
    fn other_forms_are_refused() {
        let check = |json: &str, expected: &str| {
            let error = serde_json::from_str::<Domain>(json).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        };
        let forms = "write one of { uniform = [low, high] }";
        check("{}", forms);
        check(r#"{"low": 1}"#, forms);
        check(r#"{"uniform": [0, 1], "int": [0, 1]}"#, forms);
        check(r#"{"uniform": [0, 1], "log": true}"#, forms);
        check(r#"{"normal": [0, 1]}"#, "unknown field `normal`");
        check("[1, 2]", "the values of a parameter, such as");
    }

    #[test]
    fn domains_are_checked() {
        let check = |name: &str, domain: Domain, expected: Option<&str>| {
            let error = domain.check(&SEARCHABLE[position_of(name).unwrap()]).err();
            let error = error.map(|error| error.to_string());
            match expected {
                Some(expected) => assert!(error.unwrap().contains(expected), "{domain}"),
                None => assert_eq!(error, None, "{domain}"),
            }
        };
        check("lambda_l1", Domain::linear(0.0, 1.0), None);
        check("lambda_l1", Domain::linear(0.5, 0.5), None);
        check("lambda_l1", Domain::log(0.5, 0.5), None);
        check("lambda_l1", Domain::log(0.0, 1.0), Some("lambda_l1 is 0"));
        let reversed = "a range from 12 to 3: the lower end is above the upper";
        for domain in [Domain::linear(12.0, 3.0), Domain::log(12.0, 3.0), Domain::int(12, 3)] {
            check("num_leaves", domain, Some(reversed));
        }
        check("lambda_l1", Domain::linear(f64::NAN, 1.0), Some("NaN"));
        check("lambda_l1", Domain::linear(0.0, f64::INFINITY), Some("inf"));
        check("lambda_l1", Domain::linear(-1.0, 1.0), Some("-1"));
        check("max_depth", Domain::int(3, 9), None);
        check("max_depth", Domain::int(3, 99), Some("99, not 3 to 64"));
        check("max_depth", Domain::Int { low: -1, high: 9, log: true }, Some("max_depth is -1"));
        check("extra_trees", Domain::int(0, 1), Some("write { choice = […] }"));
        check("boosting", Domain::Choice(vec![ParamValue::of_text("rf")]), Some("rf is not gbdt"));
        check("boosting", Domain::Choice(Vec::new()), Some("0 choices"));
    }
}
