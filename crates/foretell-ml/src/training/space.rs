//! The search space of a study: a domain for each parameter that is searched.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{self, MapAccess, Visitor},
};

use crate::training::{
    Domain, ParamValue, Params, TrainingError,
    domain::Axis,
    searchable::{self, SEARCHABLE, Searchable},
};

/// Upper bound of the values of `max_bin`, each of which needs bins of its own.
pub(super) const MAX_BIN_VALUES_MAX: usize = 4;

/// LightGBM's parameters that a study searches, each with its values: `{ uniform = [0.1, 0.9] }`,
/// `{ loguniform = [0.01, 1] }`, `{ int = [2, 9] }` (with `log = true` on a logarithmic scale), `{ choice = ["gbdt", "dart"] }`,
/// or one value, such as `63`, which fixes it. `{ low = 0.01, high = 1, log = true }` is another form of `loguniform`, and
/// without `log` of `uniform`. Whole numbers are rounded. A parameter that is not listed is searched if it is by default.
#[derive(Clone, Debug, PartialEq)]
pub struct Space {
    /// By index in [`SEARCHABLE`], whose order is that of the random numbers.
    domains: BTreeMap<usize, Domain>,
}

/// The default space, of the first nine parameters in [`SEARCHABLE`].
impl Default for Space {
    fn default() -> Self {
        let domains = [
            Domain::log(7.0, 63.0),
            Domain::log(0.03, 0.3),
            Domain::log(5.0, 200.0),
            Domain::linear(0.3, 1.0),
            Domain::linear(0.5, 1.0),
            Domain::log(1e-3, 10.0),
            Domain::log(1e-3, 10.0),
            Domain::log(5.0, 200.0),
            Domain::log(1.0, 100.0),
        ];
        Self { domains: domains.into_iter().enumerate().collect() }
    }
}

/// One parameter that is searched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dimension<'s> {
    pub(super) parameter: &'static Searchable,
    pub(super) domain: &'s Domain,
}

impl Space {
    /// The space with another domain for a parameter, which is searched from then on.
    ///
    /// # Errors
    /// [`TrainingError::Parameter`] if the parameter cannot be searched.
    pub fn with(mut self, name: &str, domain: Domain) -> Result<Self, TrainingError> {
        self.domains.insert(searchable::position_of(name)?, domain);
        Ok(self)
    }

    /// The domain of a parameter; `None` if it is not searched.
    #[must_use]
    pub fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.get(&searchable::position_of(name).ok()?)
    }

    /// Checks that each domain is not empty, is finite, and lies within the bounds of its parameter.
    ///
    /// # Errors
    /// [`TrainingError::Setting`] or [`TrainingError::Parameter`] for the first that does not.
    pub fn check(&self) -> Result<(), TrainingError> {
        for Dimension { parameter, domain } in self.dimensions() {
            domain.check(parameter)?;
            let is_bounded = (1..=MAX_BIN_VALUES_MAX).contains(&domain.values().len());
            if parameter.name == "max_bin" && !is_bounded {
                let problem = format!(
                    "each value is a copy of the examples in memory: give it one value, or a choice of up to {MAX_BIN_VALUES_MAX}"
                );
                return Err(parameter.refuse(problem));
            }
        }
        Ok(())
    }

    /// The parameters that are searched, in the order of their coordinates.
    pub(super) fn dimensions(&self) -> impl Iterator<Item = Dimension<'_>> {
        self.domains
            .iter()
            .map(|(index, domain)| Dimension { parameter: &SEARCHABLE[*index], domain })
    }

    /// The axes of the points that samplers propose.
    pub(super) fn axes(&self) -> Vec<Axis> {
        self.domains.values().map(Domain::axis).collect()
    }

    /// `params` with each searched parameter moved to the nearest value of its domain; the others are kept.
    pub(super) fn clamp(&self, mut params: Params) -> Params {
        for dimension in self.dimensions() {
            dimension.clamp(&mut params);
        }
        params
    }

    /// `params` with the searched parameters of a point.
    pub(super) fn at(&self, mut params: Params, point: &[f64]) -> Params {
        for (dimension, coordinate) in self.dimensions().zip(point) {
            dimension.set(&mut params, &dimension.domain.value_at(*coordinate));
        }
        params
    }

    /// The point with a fraction of each axis, 0 to 1.
    pub(super) fn stretched(&self, fractions: &[f64]) -> Vec<f64> {
        let stretch = |(axis, fraction): (Axis, &f64)| match axis {
            Axis::Line => *fraction,
            Axis::Choices(number) => (fraction * number as f64).floor().min((number - 1) as f64),
        };
        self.axes().into_iter().zip(fractions).map(stretch).collect()
    }

    /// The point of some parameters, and NaN as the coordinate of a value that is no choice of its domain. Numbers outside
    /// their domain have the coordinate of the nearest end.
    pub(super) fn point_of(&self, params: &Params) -> Vec<f64> {
        let coordinate = |dimension: Dimension<'_>| {
            let value = params.get(dimension.parameter.name);
            value.map_or(f64::NAN, |value| dimension.domain.coordinate_of(&value))
        };
        self.dimensions().map(coordinate).collect()
    }

    /// `params` with the searched parameters of other ones, each moved to the nearest value of its domain.
    pub(super) fn with_searched_from(&self, mut params: Params, from: &Params) -> Params {
        for Dimension { parameter, .. } in self.dimensions() {
            if let Some(value) = from.get(parameter.name) {
                params.set(parameter.name, value);
            }
        }
        self.clamp(params)
    }
}

impl Dimension<'_> {
    /// Moves the parameter to the nearest value of its domain.
    ///
    /// A parameter's default counts as within its default domain: `lambda_l1` is 0 by default, which its logarithmic default
    /// domain cannot contain, and a study of the default space starts from the defaults.
    fn clamp(&self, params: &mut Params) {
        let Some(value) = params.get(self.parameter.name) else { return };
        let is_default = Params::default().get(self.parameter.name).as_ref() == Some(&value);
        if is_default && Space::default().domain(self.parameter.name) == Some(self.domain) {
            return;
        }
        let value = match value {
            // 0 or less is no limit, so the nearest number is the largest.
            ParamValue::Number(depth) if self.parameter.name == "max_depth" && depth <= 0.0 => {
                self.domain.nearest(&ParamValue::Number(f64::INFINITY), &value)
            }
            ParamValue::Number(_) | ParamValue::Flag(_) | ParamValue::Text(_) => {
                self.domain.nearest(&value, &value)
            }
        };
        self.set(params, &value);
    }

    fn set(&self, params: &mut Params, value: &ParamValue) {
        let rounded = value.number().filter(|_| self.parameter.is_whole()).map(f64::round);
        let value = rounded.map_or_else(|| value.clone(), ParamValue::Number);
        params.set(self.parameter.name, value);
    }
}

impl Serialize for Space {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(
            self.dimensions().map(|dimension| (dimension.parameter.name, dimension.domain)),
        )
    }
}

/// Names of the parameters, as the fields of a struct, so that a deserializer may suggest them.
const NAMES: &[&str] = &names();

const fn names() -> [&'static str; SEARCHABLE.len()] {
    let mut names = [""; SEARCHABLE.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = SEARCHABLE[index].name;
        index += 1;
    }
    names
}

/// The default space, with the domains that are there in place of the default ones.
impl<'de> Deserialize<'de> for Space {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Domains;

        impl<'de> Visitor<'de> for Domains {
            type Value = Space;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of parameters with the values to search")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Space, A::Error> {
                let mut space = Space::default();
                while let Some(name) = map.next_key::<String>()? {
                    space = space.with(&name, map.next_value()?).map_err(de::Error::custom)?;
                }
                Ok(space)
            }
        }

        deserializer.deserialize_struct("Space", NAMES, Domains)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn space(name: &str, domain: Domain) -> Space {
        Space::default().with(name, domain).unwrap()
    }

    #[test]
    fn parameters_are_moved_to_the_nearest_value_of_their_domains() {
        let check = |domain: Domain, expected: u32| {
            let params = space("num_leaves", domain.clone()).clamp(Params::default());
            assert_eq!(params, Params { num_leaves: expected, ..Params::default() }, "{domain:?}");
        };
        check(Domain::linear(63.0, 63.0), 63);
        check(Domain::log(63.0, 63.0), 63);
        check(Domain::linear(40.0, 50.0), 40);
        check(Domain::log(3.0, 15.0), 15);
        check(Domain::linear(2.0, 1024.0), Params::default().num_leaves);
        check(Domain::int(40, 50), 40);
        check(Domain::Choice(vec![ParamValue::Number(63.0), ParamValue::Number(30.0)]), 30);
        let fixed =
            |domain| space("lambda_l1", domain).clamp(Params::default()).lambda_l1.to_bits();
        assert_eq!(fixed(Domain::log(0.5, 0.5)), 0.5_f64.to_bits());
        assert_eq!(fixed(Domain::log(1e-3, 5.0)), 1e-3_f64.to_bits());
        assert_eq!(fixed(Domain::linear(0.0, 0.0)), 0.0_f64.to_bits());
    }

    #[test]
    fn further_parameters_begin_at_lightgbms_default_if_their_domain_has_it() {
        let check = |name: &str, domain: Domain, expected: ParamValue| {
            let params = space(name, domain).clamp(Params::default());
            assert_eq!(params.get(name), Some(expected), "{name}");
        };
        let texts = |texts: &[&str]| {
            Domain::Choice(texts.iter().map(|text| ParamValue::of_text(text)).collect())
        };
        check("boosting", texts(&["dart", "gbdt"]), ParamValue::of_text("gbdt"));
        check("boosting", texts(&["dart"]), ParamValue::of_text("dart"));
        check("extra_trees", texts(&["true", "false"]), ParamValue::Flag(false));
        check("max_depth", Domain::int(3, 12), ParamValue::Number(12.0));
        let deep = [6.0, 9.0].map(ParamValue::Number).to_vec();
        check("max_depth", Domain::Choice(deep), ParamValue::Number(9.0));
        let depths = [6.0, -1.0, 9.0].map(ParamValue::Number).to_vec();
        check("max_depth", Domain::Choice(depths), ParamValue::Number(-1.0));
        check("path_smooth", Domain::linear(0.0, 5.0), ParamValue::Number(0.0));
    }

    #[test]
    fn the_default_space_and_unsearched_parameters_keep_the_defaults() {
        assert_eq!(Space::default().clamp(Params::default()), Params::default());
        let params = Params { bagging_freq: 7, ..Params::default() };
        assert_eq!(Space::default().clamp(params.clone()), params);
    }

    #[test]
    fn points_and_parameters_convert_into_each_other() {
        let space = space(
            "boosting",
            Domain::Choice(vec![ParamValue::of_text("gbdt"), ParamValue::of_text("dart")]),
        );
        let axes = space.axes();
        assert_eq!((axes.len(), axes[9]), (10, Axis::Choices(2)));
        let mut point = vec![0.77; 9];
        point.push(1.0);
        let params = space.at(Params::default(), &point);
        params.check().unwrap();
        assert_eq!(params.get("boosting"), Some(ParamValue::of_text("dart")));
        for (found, expected) in space.point_of(&params).iter().zip(&point) {
            assert!((found - expected).abs() < 0.02, "{found} {expected}");
        }
        let rf =
            Params { extra: [("boosting".into(), ParamValue::of_text("rf"))].into(), ..params };
        assert!(space.point_of(&rf)[9].is_nan());
    }

    #[test]
    fn a_space_is_read_over_the_default() {
        let read = |json: &str| serde_json::from_str::<Space>(json);
        assert_eq!(read("{}").unwrap(), Space::default());
        let found = read(r#"{"num_leaves": {"low": 3, "high": 9}, "max_depth": {"int": [3, 9]}}"#);
        let expected = space("num_leaves", Domain::linear(3.0, 9.0));
        assert_eq!(found.unwrap(), expected.with("max_depth", Domain::int(3, 9)).unwrap());
        let again = serde_json::to_string(&Space::default()).unwrap();
        assert_eq!(read(&again).unwrap(), Space::default());
        let error = read(r#"{"objective": "rmse"}"#).unwrap_err().to_string();
        assert!(error.contains("it follows from [outcomes] labels"), "{error}");
    }

    #[test]
    fn domains_are_checked() {
        let check = |name: &str, domain: Domain, is_valid: bool| {
            assert_eq!(space(name, domain.clone()).check().is_ok(), is_valid, "{name} {domain:?}");
        };
        let bins = |number: u32| {
            Domain::Choice((0..number).map(|n| ParamValue::Number(f64::from(n + 15))).collect())
        };
        check("max_bin", bins(1), true);
        check("max_bin", bins(4), true);
        check("max_bin", bins(5), false);
        check("max_bin", Domain::linear(15.0, 255.0), false);
        check("lambda_l1", Domain::log(0.0, 1.0), false);
        check("lambda_l1", Domain::linear(0.0, 1.0), true);
        assert_eq!(Space::default().check(), Ok(()));
    }
}
