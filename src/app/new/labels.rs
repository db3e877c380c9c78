//! The classes among the texts of the label: which spellings are the same class, and in which order they are.

use std::{cmp::Ordering, collections::BTreeMap};

use anyhow::bail;

use crate::app::new::values::{DecimalMark, MissingMarks, Number};

/// Maximum number of classes.
const CLASSES_MAX: usize = 100;
/// Different labels that are counted.
const COUNTED_MAX: usize = 300;
/// Spellings of one class that are counted.
const SPELLINGS_MAX: usize = 20;
/// More different numbers than this are measurements, not classes.
const NUMBERS_MAX: usize = 20;
/// A class with fewer rows is hard to learn.
const ROWS_FEW: u64 = 10;
/// Words for what did not happen, which is then the first of two classes.
const NEGATIVE: &[&str] = &["0", "no", "n", "false", "f", "negative", "off", "-1", "none"];

/// The labels of the rows that were read so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels {
    /// Index of each class, by the form that its spellings have in common.
    classes: BTreeMap<String, usize>,
    spellings: Vec<BTreeMap<String, u64>>,
    missing: u64,
    /// Rows with a label that is a number.
    numbers: u64,
    rows: u64,
    has_more: bool,
}

/// A class.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Class {
    /// The spelling that is used.
    pub(super) name: String,
    pub(super) rows: u64,
    /// Other spellings of it in the file.
    pub(super) others: Vec<String>,
}

/// The classes, in the order of `outcomes.labels`.
#[derive(Clone, Debug)]
pub(super) struct Classes {
    pub(super) classes: Vec<Class>,
    /// Index of each class, by the form that its spellings have in common.
    by_form: BTreeMap<String, usize>,
}

impl Labels {
    /// Adds the trimmed label of a row, and returns the index of its class; none if there is no label, or there are too many.
    pub(super) fn add(&mut self, text: &str, marks: &MissingMarks) -> Option<usize> {
        if marks.is_no_label(text) {
            self.missing += 1;
            return None;
        }
        self.rows += 1;
        self.numbers += u64::from(Number::parse(text, DecimalMark::Point).is_some());
        let form = form_of(text);
        let next = self.spellings.len();
        let class = match self.classes.get(&form) {
            Some(class) => *class,
            None if next == COUNTED_MAX => {
                self.has_more = true;
                return None;
            }
            None => {
                self.classes.insert(form, next);
                self.spellings.push(BTreeMap::new());
                next
            }
        };
        let spellings = &mut self.spellings[class];
        if spellings.len() < SPELLINGS_MAX || spellings.contains_key(text) {
            *spellings.entry(text.to_owned()).or_default() += 1;
        }
        Some(class)
    }

    /// The classes of the label called `name`. `positive` is the second of two, if the user names it.
    ///
    /// # Errors
    /// If they are no classes: one only, or too many. The message says what to do.
    pub(super) fn classes(&self, name: &str, positive: Option<&str>) -> anyhow::Result<Classes> {
        let distinct = self.classes.len();
        let is_number = self.numbers == self.rows;
        if is_number && (distinct > NUMBERS_MAX || self.has_more) {
            bail!(
                "the label {name:?} has more than {NUMBERS_MAX} different numbers, so it is a quantity, and Foretell predicts classes: add a \
                 column with classes to the file, such as whether the number is above a limit (pandas: \
                 table[\"high\"] = table[{name:?}] > 100), name it with --label, and leave this one out with --ignore"
            );
        }
        if distinct > CLASSES_MAX || self.has_more {
            bail!(
                "the label {name:?} has more than {CLASSES_MAX} different values: is it the right column? Else combine rare values into one"
            );
        }
        match distinct {
            0 => bail!("the label {name:?} has no value in any row"),
            1 => bail!(
                "the label {name:?} has one value only, {:?}: a model needs examples of at least two. If blank cells mean the other \
                 outcome, write it into them",
                self.class(0).name
            ),
            _ => {}
        }
        let mut classes: Vec<(&String, Class)> =
            self.classes.iter().map(|(form, index)| (form, self.class(*index))).collect();
        classes.sort_by(|(form, class), (other_form, other)| {
            // Numbers first.
            let number = |form: &str| form.parse::<f64>().ok();
            match (number(form), number(other_form)) {
                (Some(one), Some(other)) => one.total_cmp(&other),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => class.name.cmp(&other.name),
            }
        });
        if let [(form, class), (other_form, other)] = &classes[..] {
            let is_negative = |form: &str| NEGATIVE.contains(&form);
            let is_reversed = match (is_negative(form), is_negative(other_form)) {
                (true, false) => false,
                (false, true) => true,
                // Mostly, the rarer class is the one that is looked for.
                (_, _) => !is_number && class.rows < other.rows,
            };
            if is_reversed {
                classes.swap(0, 1);
            }
        }
        if let Some(positive) = positive {
            let form = form_of(positive.trim());
            let place = classes.iter().position(|(other, _)| **other == form);
            let Some(place) = place.filter(|_| classes.len() == 2) else {
                let names = classes.iter().map(|(_, class)| class.name.as_str());
                let names = names.collect::<Vec<_>>().join(", ");
                bail!("--positive {positive:?} is not one of two labels: there are {names}");
            };
            classes.swap(place, 1);
        }
        let by_form =
            classes.iter().enumerate().map(|(index, (form, _))| ((*form).clone(), index)).collect();
        Ok(Classes { classes: classes.into_iter().map(|(_, class)| class).collect(), by_form })
    }

    fn class(&self, index: usize) -> Class {
        let spellings = &self.spellings[index];
        // The most frequent; of equal ones, the first.
        let name = spellings.iter().rev().max_by_key(|(_, rows)| **rows);
        let name = name.map_or("", |(name, _)| name.as_str());
        // `1.0` is `1`.
        let number = Number::parse(name, DecimalMark::Point).filter(|_| self.numbers == self.rows);
        Class {
            name: number.map_or_else(|| name.to_owned(), |_| form_of(name)),
            rows: spellings.values().sum(),
            others: spellings.keys().filter(|other| *other != name).cloned().collect(),
        }
    }

    /// The class of the first row that has a label.
    pub(super) fn first<'c>(&self, classes: &'c Classes) -> Option<&'c Class> {
        let (form, _) = self.classes.iter().find(|(_, index)| **index == 0)?;
        classes.classes.get(*classes.by_form.get(form)?)
    }

    /// Share of the rows without a label, from 0 to 1.
    pub(super) fn missing_share(&self) -> f64 {
        self.missing as f64 / ((self.missing + self.rows) as f64).max(1.0)
    }

    /// Number of different labels, at least.
    pub(super) fn distinct(&self) -> usize {
        self.classes.len() + usize::from(self.has_more)
    }
}

impl Classes {
    /// The index of the class of a trimmed label.
    pub(super) fn index_of(&self, text: &str) -> Option<usize> {
        self.by_form.get(&form_of(text)).copied()
    }

    /// Spells the classes as `names` does.
    ///
    /// # Errors
    /// If a class is not among `names`.
    pub(super) fn spell(&mut self, names: &[String]) -> anyhow::Result<()> {
        let mut others = Vec::new();
        for class in &mut self.classes {
            let form = form_of(&class.name);
            match names.iter().find(|name| form_of(name.trim()) == form) {
                Some(name) => name.clone_into(&mut class.name),
                None => others.push(format!("{:?} ({} rows)", class.name, class.rows)),
            }
        }
        anyhow::ensure!(
            others.is_empty(),
            "labels that outcomes.labels of foretell.toml does not have, so the tables are as they were: {}. Add them there, or correct \
             the file",
            others.join(", ")
        );
        Ok(())
    }

    /// What was normalised, and what is rare.
    pub(super) fn remarks(&self) -> (Vec<String>, Vec<String>) {
        let (mut notes, mut rare) = (Vec::new(), Vec::new());
        for Class { name, rows, others } in &self.classes {
            if !others.is_empty() {
                let others: Vec<String> = others.iter().map(|other| format!("{other:?}")).collect();
                notes.push(format!("label {name:?} is also spelled {}", others.join(", ")));
            }
            if *rows < ROWS_FEW {
                rare.push(format!("{name:?} ({rows})"));
            }
        }
        let warnings = if rare.is_empty() {
            Vec::new()
        } else {
            vec![format!(
                "labels with few rows will hardly be learned, and may be missing in one of the two tables: {}",
                rare.join(", ")
            )]
        };
        (notes, warnings)
    }
}

/// What the spellings of a label have in common: the number; else the text in lower case with single spaces and without a full
/// stop at the end.
fn form_of(text: &str) -> String {
    if let Some(number) = Number::parse(text, DecimalMark::Point) {
        let value = number.value();
        return number.whole().map_or_else(|| value.to_string(), |whole| whole.to_string());
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let text = words.join(" ").to_lowercase();
    match text.strip_suffix('.') {
        Some(before) if !before.is_empty() => before.trim_end().to_owned(),
        Some(_) | None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classes(labels: &[(&str, u64)], positive: Option<&str>) -> anyhow::Result<Classes> {
        let (mut found, marks) = (Labels::default(), MissingMarks::new(None));
        for (label, rows) in labels {
            for _ in 0..*rows {
                found.add(label, &marks);
            }
        }
        found.classes("out", positive)
    }

    fn check(labels: &[(&str, u64)], positive: Option<&str>, expected: &[&str]) {
        let found = classes(labels, positive).unwrap();
        let names: Vec<&str> = found.classes.iter().map(|class| class.name.as_str()).collect();
        assert_eq!(names, expected, "{labels:?}");
        for (label, _) in labels.iter().filter(|(label, _)| !label.is_empty()) {
            assert!(found.index_of(label).is_some(), "{label}");
        }
    }

    #[test]
    fn spellings_of_a_class_are_one_class() {
        check(&[(">50K", 5), (">50K.", 2), ("<=50K", 20)], None, &["<=50K", ">50K"]);
        check(&[("Yes", 5), ("yes", 2), ("YES", 1), ("no", 3)], None, &["no", "Yes"]);
        check(&[("1.0", 5), ("1", 2), ("0.0", 3), ("", 9)], None, &["0", "1"]);
        check(&[("a.", 1), ("b.", 2)], None, &["b.", "a."]);
        check(&[("TRUE", 9), ("FALSE", 2)], None, &["FALSE", "TRUE"]);
    }

    #[test]
    fn the_second_of_two_classes_is_the_positive_one() {
        check(&[("churned", 3), ("stayed", 9)], None, &["stayed", "churned"]);
        check(&[("good", 7), ("bad", 3)], None, &["good", "bad"]);
        check(&[("good", 7), ("bad", 3)], Some("Good"), &["bad", "good"]);
        check(&[("1", 9), ("2", 3)], None, &["1", "2"]);
        check(&[("10", 1), ("9", 1), ("-1", 1)], None, &["-1", "9", "10"]);
        check(&[("c", 1), ("a", 2), ("b", 3)], None, &["a", "b", "c"]);
        let error = classes(&[("a", 1), ("b", 1)], Some("c")).unwrap_err().to_string();
        assert!(error.contains("a, b"), "{error}");
    }

    #[test]
    fn what_is_no_class_is_refused() {
        let refused = |labels: &[(&str, u64)]| classes(labels, None).unwrap_err().to_string();
        assert!(refused(&[("yes", 4), ("", 9)]).contains("one value only, \"yes\""));
        assert!(refused(&[("", 9), ("NA", 1)]).contains("no value in any row"));
        let numbers: Vec<String> = (0..400).map(|number| format!("{number}.5")).collect();
        let numbers: Vec<(&str, u64)> = numbers.iter().map(|text| (text.as_str(), 1)).collect();
        assert!(refused(&numbers[..21]).contains("a quantity"));
        assert!(refused(&numbers).contains("a quantity"));
        let texts: Vec<String> = (0..400).map(|number| format!("x{number}")).collect();
        let texts: Vec<(&str, u64)> = texts.iter().map(|text| (text.as_str(), 1)).collect();
        assert!(refused(&texts).contains("right column?"));
    }

    #[test]
    fn rare_classes_are_reported() {
        let (notes, warnings) = classes(&[("a", 9), ("A", 30), ("b", 9)], None).unwrap().remarks();
        assert_eq!(notes, ["label \"A\" is also spelled \"a\""]);
        assert!(warnings[0].contains("\"b\" (9)"), "{warnings:?}");
    }
}
