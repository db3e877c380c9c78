//! Specification of the features: columns, scaling, crosses and parts of dates; checked once.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    example::{Column, ColumnKind},
    features::{CalendarFeature, FittedPipeline, Scaling},
    training_set::Sample,
};

/// Maximum number of features, with which a row takes 32 KiB.
pub const COLUMNS_MAX: usize = 4096;

/// Specification of the features of a row: one per column, then one per cross, then one per part of a date or time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawSpec", into = "RawSpec")]
pub struct PipelineSpec {
    columns: Vec<Column>,
    scaling: Scaling,
    crosses: Vec<(String, String)>,
    /// Columns of `crosses`, as indexes into `columns`.
    crossed: Vec<(usize, usize)>,
    calendar: Vec<CalendarFeature>,
    /// Columns of `calendar`, as indexes into `columns`.
    dated: Vec<usize>,
}

/// Reasons why a specification is invalid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// The list of columns is empty.
    #[error("there are no columns")]
    NoColumns,
    /// More features than [`COLUMNS_MAX`].
    #[error("there are {features} columns and crosses, more than {COLUMNS_MAX}")]
    TooMany {
        /// Number of columns, crosses and calendar features.
        features: usize,
    },
    /// LightGBM's model text cannot represent the name.
    #[error(
        "the name {name:?} of a column is empty or has white space or one of \" , : [ ] {{ }} in it"
    )]
    Name {
        /// The invalid name.
        name: String,
    },
    /// Two features have the same name.
    #[error("two columns or crosses are named {name}")]
    Duplicate {
        /// The duplicate name.
        name: String,
    },
    /// A cross names an unknown column.
    #[error("the cross {left} × {right} names {unknown}, which is not a column")]
    UnknownColumn {
        /// First column of the cross.
        left: String,
        /// Second column of the cross.
        right: String,
        /// The unknown one of the two.
        unknown: String,
    },
    /// A calendar feature names a column that is not numeric or unknown.
    #[error("the calendar names {column}, which is not a numeric column")]
    NotDated {
        /// Name of the column.
        column: String,
    },
    /// A cross names a numeric column; only categorical columns can be crossed.
    #[error("the cross {left} × {right} names {numeric}, which is not categorical")]
    NotCategorical {
        /// First column of the cross.
        left: String,
        /// Second column of the cross.
        right: String,
        /// The numeric one of the two.
        numeric: String,
    },
}

impl PipelineSpec {
    /// Checks columns and crosses (pairs of names of categorical columns). A name may contain any character except white
    /// space, control characters and `",:[]{}`, which LightGBM's model text does not allow.
    ///
    /// # Errors
    /// [`SpecError`] for the first column or cross that is invalid.
    pub fn new(
        columns: Vec<Column>,
        scaling: Scaling,
        crosses: Vec<(String, String)>,
    ) -> Result<Self, SpecError> {
        if columns.is_empty() {
            return Err(SpecError::NoColumns);
        }
        let features = columns.len() + crosses.len();
        if features > COLUMNS_MAX {
            return Err(SpecError::TooMany { features });
        }
        let mut crossed = Vec::with_capacity(crosses.len());
        for (left, right) in &crosses {
            crossed.push((
                find(&columns, (left, right), left)?,
                find(&columns, (left, right), right)?,
            ));
        }
        let (calendar, dated) = (Vec::new(), Vec::new());
        Self { columns, scaling, crosses, crossed, calendar, dated }.with_names_checked()
    }

    /// Replaces the calendar features.
    ///
    /// # Errors
    /// [`SpecError`] for the first one that is invalid.
    pub fn with_calendar(mut self, calendar: Vec<CalendarFeature>) -> Result<Self, SpecError> {
        let features = self.columns.len() + self.crosses.len() + calendar.len();
        if features > COLUMNS_MAX {
            return Err(SpecError::TooMany { features });
        }
        self.dated.clear();
        for feature in &calendar {
            let matches = |column: &Column| {
                column.name == feature.column && column.kind == ColumnKind::Numeric
            };
            let Some(index) = self.columns.iter().position(matches) else {
                return Err(SpecError::NotDated { column: feature.column.clone() });
            };
            self.dated.push(index);
        }
        self.calendar = calendar;
        self.with_names_checked()
    }

    fn with_names_checked(self) -> Result<Self, SpecError> {
        let mut names = BTreeSet::new();
        for name in self.feature_names() {
            let forbidden = |c: char| c.is_whitespace() || c.is_control() || "\",:[]{}".contains(c);
            if name.is_empty() || name.contains(forbidden) {
                return Err(SpecError::Name { name });
            }
            if !names.insert(name.clone()) {
                return Err(SpecError::Duplicate { name });
            }
        }
        Ok(self)
    }

    /// Columns, in the order of a row's values.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Scaling of the numeric columns.
    #[must_use]
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }

    /// Pairs of categorical columns that are features of their own.
    #[must_use]
    pub fn crosses(&self) -> &[(String, String)] {
        &self.crosses
    }

    /// Columns of the crosses, as indexes into the columns.
    pub(super) fn crossed(&self) -> &[(usize, usize)] {
        &self.crossed
    }

    /// Parts of dates and times that are features of their own.
    #[must_use]
    pub fn calendar(&self) -> &[CalendarFeature] {
        &self.calendar
    }

    /// Columns of the calendar features, as indexes into the columns.
    pub(super) fn dated(&self) -> &[usize] {
        &self.dated
    }

    /// Names of the features: columns, then crosses (`left_x_right`), then parts of dates (`column_part`).
    #[must_use]
    pub fn feature_names(&self) -> Vec<String> {
        let columns = self.columns.iter().map(|column| column.name.clone());
        let crosses = self.crosses.iter().map(|(left, right)| format!("{left}_x_{right}"));
        let calendar = self.calendar.iter();
        let calendar = calendar.map(|CalendarFeature { column, part, .. }| {
            let part = part.name();
            format!("{column}_{part}")
        });
        columns.chain(crosses).chain(calendar).collect()
    }

    /// Indexes of the categorical features.
    #[must_use]
    pub fn categorical_features(&self) -> Vec<usize> {
        let columns = self.columns.iter().map(|column| column.kind);
        let kinds = columns.chain(self.crosses.iter().map(|_| ColumnKind::Categorical));
        let numbered = kinds.enumerate().filter(|(_, kind)| *kind == ColumnKind::Categorical);
        numbered.map(|(feature, _)| feature).collect()
    }

    /// Fits categories and scales to a sample of a training set with these columns. Labels and weights are not used.
    #[must_use]
    pub fn fit(&self, sample: &Sample<'_>) -> FittedPipeline {
        FittedPipeline::fit(self, sample)
    }
}

fn find(columns: &[Column], cross: (&str, &str), name: &str) -> Result<usize, SpecError> {
    let (left, right) = (cross.0.to_owned(), cross.1.to_owned());
    let Some(index) = columns.iter().position(|column| column.name == name) else {
        return Err(SpecError::UnknownColumn { left, right, unknown: name.to_owned() });
    };
    match columns[index].kind {
        ColumnKind::Categorical => Ok(index),
        ColumnKind::Numeric => {
            Err(SpecError::NotCategorical { left, right, numeric: name.to_owned() })
        }
    }
}

/// The serialised form of a specification, which is checked when it is read.
#[derive(Serialize, Deserialize)]
struct RawSpec {
    columns: Vec<Column>,
    scaling: Scaling,
    crosses: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    calendar: Vec<CalendarFeature>,
}

impl TryFrom<RawSpec> for PipelineSpec {
    type Error = SpecError;

    fn try_from(raw: RawSpec) -> Result<Self, SpecError> {
        Self::new(raw.columns, raw.scaling, raw.crosses)?.with_calendar(raw.calendar)
    }
}

impl From<PipelineSpec> for RawSpec {
    fn from(spec: PipelineSpec) -> Self {
        let PipelineSpec { columns, scaling, crosses, calendar, .. } = spec;
        Self { columns, scaling, crosses, calendar }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::{CalendarPart, TimeUnit};

    fn columns() -> Vec<Column> {
        let column = Column::new;
        vec![
            column("age", ColumnKind::Numeric),
            column("job", ColumnKind::Categorical),
            column("land", ColumnKind::Categorical),
        ]
    }

    fn check(columns: Vec<Column>, crosses: &[(&str, &str)], expected: Result<&[&str], SpecError>) {
        let crosses = crosses.iter().map(|(left, right)| ((*left).to_owned(), (*right).to_owned()));
        let spec = PipelineSpec::new(columns, Scaling::None, crosses.collect());
        let names = spec.map(|spec| spec.feature_names());
        assert_eq!(
            names,
            expected.map(|names| names.iter().map(|name| (*name).to_owned()).collect())
        );
    }

    #[test]
    fn a_specification_is_checked() {
        let text = str::to_owned;
        check(columns(), &[], Ok(&["age", "job", "land"]));
        check(columns(), &[("land", "job")], Ok(&["age", "job", "land", "land_x_job"]));
        check(Vec::new(), &[], Err(SpecError::NoColumns));
        let (left, right) = (text("job"), text("town"));
        check(
            columns(),
            &[("job", "town")],
            Err(SpecError::UnknownColumn { left, right, unknown: text("town") }),
        );
        let (left, right) = (text("age"), text("job"));
        check(
            columns(),
            &[("age", "job")],
            Err(SpecError::NotCategorical { left, right, numeric: text("age") }),
        );
        let twice = SpecError::Duplicate { name: text("job_x_land") };
        check(columns(), &[("job", "land"), ("job", "land")], Err(twice));
        for name in ["", "a b", "a\"b", "a,b", "a[0]", "a\nb", "a\0b"] {
            let mut columns = columns();
            columns[0].name = text(name);
            check(columns, &[], Err(SpecError::Name { name: text(name) }));
        }
        let many = vec![columns().remove(0); COLUMNS_MAX + 1];
        check(many, &[], Err(SpecError::TooMany { features: COLUMNS_MAX + 1 }));
    }

    #[test]
    fn parts_of_dates_are_features() {
        let part = |column: &str, part| CalendarFeature {
            column: column.to_owned(),
            part,
            unit: TimeUnit::Days,
        };
        let spec = || PipelineSpec::new(columns(), Scaling::None, Vec::new()).unwrap();
        let dated = spec().with_calendar(vec![part("age", CalendarPart::Weekday)]).unwrap();
        assert_eq!(dated.feature_names(), ["age", "job", "land", "age_weekday"]);
        assert_eq!(dated.categorical_features(), [1, 2]);
        let json = serde_json::to_string(&dated).unwrap();
        assert_eq!(serde_json::from_str::<PipelineSpec>(&json).unwrap(), dated);
        for wrong in ["job", "town"] {
            let refused = spec().with_calendar(vec![part(wrong, CalendarPart::Year)]);
            assert_eq!(refused, Err(SpecError::NotDated { column: wrong.to_owned() }));
        }
        let twice = vec![part("age", CalendarPart::Year), part("age", CalendarPart::Year)];
        assert!(matches!(spec().with_calendar(twice), Err(SpecError::Duplicate { .. })));
    }

    #[test]
    fn crosses_are_categorical_features() {
        let crosses = vec![("job".to_owned(), "land".to_owned())];
        let spec = PipelineSpec::new(columns(), Scaling::None, crosses).unwrap();
        assert_eq!(spec.categorical_features(), [1, 2, 3]);
    }

    #[test]
    fn a_deserialised_specification_is_checked() {
        let spec = PipelineSpec::new(columns(), Scaling::MinMax, Vec::new()).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<PipelineSpec>(&json).unwrap(), spec);
        assert!(serde_json::from_str::<PipelineSpec>(&json.replace("\"job\"", "\"age\"")).is_err());
    }
}
