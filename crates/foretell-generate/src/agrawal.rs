//! Loan applicants in two groups, by one of the ten functions of Agrawal, Imielinski and Swami ("Database Mining: A Performance
//! Perspective", IEEE Transactions on Knowledge and Data Engineering 5(6), 1993), numbered from 0 as in MOA.
//!
//! Every attribute has the distribution of the paper, in whole units. A function uses a few of them; the others are
//! irrelevant, and a change from one function to another changes nothing in the attributes.

use crate::{Cell, ConceptChange, Row, random::Random};

/// Names of the columns of a [`Row`].
pub const COLUMNS: [&str; 9] =
    ["salary", "commission", "age", "elevel", "car", "zipcode", "hvalue", "hyears", "loan"];
/// Name of a column with the name of each applicant.
pub const ID: &str = "applicant_id";
/// Name of the column with the label.
pub const LABEL: &str = "group";
/// The labels: the groups of the paper.
pub const GROUPS: [&str; 2] = ["A", "B"];
/// Number of functions.
pub const FUNCTIONS: u8 = 10;

/// A function that assigns applicants to groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function(u8);

/// Settings of a table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Settings {
    /// Random seed. The applicants depend on nothing else.
    pub seed: u64,
    /// The function of the first rows.
    pub function: Function,
    /// The function that takes its place, and when.
    pub change: Option<(Function, ConceptChange)>,
    /// Share of the applicants whose label is that of the other group: from 0 to 1.
    pub noise: f64,
}

/// The rows of a table, without end.
#[derive(Clone, Debug)]
pub struct Agrawal {
    settings: Settings,
    next: u64,
}

/// What random numbers are for.
const ATTRIBUTES: u64 = 1;
const CONCEPT: u64 = 2;
const NOISE: u64 = 3;

impl Agrawal {
    /// The table, from its first row on.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { settings, next: 0 }
    }
}

impl Iterator for Agrawal {
    type Item = Row;

    fn next(&mut self) -> Option<Row> {
        let Settings { seed, function, change, noise } = self.settings;
        let (row, unit) = (self.next, |purpose| Random::of_row(seed, purpose, self.next).unit());
        let applicant = Applicant::random(&mut Random::of_row(seed, ATTRIBUTES, row));
        let function = match change {
            Some((to, when)) if unit(CONCEPT) < when.share_of_new(row) => to,
            Some(_) | None => function,
        };
        let is_inverted = unit(NOISE) < noise;
        let is_in_a = function.is_in_a(&applicant) != is_inverted;
        self.next += 1;
        Some(Row { cells: applicant.cells(), label: GROUPS[usize::from(!is_in_a)] })
    }
}

/// The attributes of an applicant.
struct Applicant {
    salary: f64,
    commission: f64,
    age: u32,
    /// Level of education.
    elevel: u32,
    /// Make of the car.
    car: u32,
    zipcode: u32,
    /// Value of the house, which depends on `zipcode`.
    hvalue: f64,
    /// Years for which the house has been owned.
    hyears: u32,
    loan: f64,
}

impl Applicant {
    fn random(random: &mut Random) -> Self {
        let salary = random.between(20_000.0, 150_000.0).floor();
        let commission = random.between(10_000.0, 75_000.0).floor();
        let commission = if salary >= 75_000.0 { 0.0 } else { commission };
        let age = 20 + random.below(61);
        let elevel = random.below(5);
        let car = 1 + random.below(20);
        let zipcode = random.below(9);
        let hvalue = f64::from(9 - zipcode) * 100_000.0 * random.between(0.5, 1.5);
        let hyears = 1 + random.below(30);
        let loan = random.between(0.0, 500_000.0).floor();
        let hvalue = hvalue.floor();
        Self { salary, commission, age, elevel, car, zipcode, hvalue, hyears, loan }
    }

    /// In the order of [`COLUMNS`].
    fn cells(&self) -> Vec<Cell> {
        vec![
            Cell::Number(self.salary),
            Cell::Number(self.commission),
            Cell::Number(self.age.into()),
            Cell::Number(self.elevel.into()),
            Cell::Category(format!("car{}", self.car)),
            Cell::Category(format!("zipcode{}", self.zipcode)),
            Cell::Number(self.hvalue),
            Cell::Number(self.hyears.into()),
            Cell::Number(self.loan),
        ]
    }

    /// One of three values, by age.
    fn by_age<T>(&self, below_40: T, below_60: T, others: T) -> T {
        match self.age {
            ..40 => below_40,
            40..60 => below_60,
            60.. => others,
        }
    }

    /// Disposable income before what depends on the function.
    fn income(&self) -> f64 {
        2.0 * (self.salary + self.commission) / 3.0
    }

    fn cost_of_education(&self) -> f64 {
        5_000.0 * f64::from(self.elevel)
    }
}

impl Function {
    /// The function with this number, from 0 to below [`FUNCTIONS`].
    #[must_use]
    pub fn new(number: u8) -> Option<Self> {
        (number < FUNCTIONS).then_some(Self(number))
    }

    /// Whether an applicant is in group A.
    fn is_in_a(self, applicant: &Applicant) -> bool {
        let Applicant { salary, commission, age, elevel, loan, hvalue, hyears, .. } = *applicant;
        let thousand =
            |range: (f64, f64), value: f64| (range.0 * 1e3..=range.1 * 1e3).contains(&value);
        let low = applicant.by_age((50.0, 100.0), (75.0, 125.0), (25.0, 75.0));
        match self.0 {
            0 => !(40..60).contains(&age),
            1 => thousand(low, salary),
            2 => applicant.by_age(elevel <= 1, (1..=3).contains(&elevel), elevel >= 2),
            3 => {
                let range = match Self(2).is_in_a(applicant) {
                    true => applicant.by_age((25.0, 75.0), (50.0, 100.0), (50.0, 100.0)),
                    false => applicant.by_age((50.0, 100.0), (75.0, 125.0), (25.0, 75.0)),
                };
                thousand(range, salary)
            }
            4 => {
                let range = match thousand(low, salary) {
                    true => applicant.by_age((100.0, 300.0), (200.0, 400.0), (300.0, 500.0)),
                    false => applicant.by_age((200.0, 400.0), (300.0, 500.0), (100.0, 300.0)),
                };
                thousand(range, loan)
            }
            5 => thousand(low, salary + commission),
            6 => applicant.income() - loan / 5.0 - 20_000.0 > 0.0,
            7 => applicant.income() - applicant.cost_of_education() - 20_000.0 > 0.0,
            8 => applicant.income() - applicant.cost_of_education() - loan / 5.0 - 10_000.0 > 0.0,
            _ => {
                let equity = 0.1 * hvalue * f64::from(hyears.saturating_sub(20));
                applicant.income() - applicant.cost_of_education() + 0.2 * equity - 10_000.0 > 0.0
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(function: u8) -> Settings {
        let function = Function::new(function).unwrap();
        Settings { seed: 1, function, change: None, noise: 0.0 }
    }

    fn applicant(age: u32, elevel: u32, salary: f64, loan: f64) -> Applicant {
        let commission = if salary >= 75_000.0 { 0.0 } else { 20_000.0 };
        let (car, zipcode, hvalue, hyears) = (1, 4, 600_000.0, 25);
        Applicant { salary, commission, age, elevel, car, zipcode, hvalue, hyears, loan }
    }

    #[test]
    fn functions_assign_the_groups_of_the_paper() {
        let check = |function, applicant: &Applicant, expected| {
            let function = Function::new(function).unwrap();
            assert_eq!(function.is_in_a(applicant), expected, "function {function:?}");
        };
        let [young, middle, old] = [30, 40, 60].map(|age| applicant(age, 1, 60_000.0, 250_000.0));
        // Rows: functions 0 to 9. Columns: the three ages.
        let expected = [
            [true, false, true],
            [true, false, true],
            [true, true, false],
            [true, true, true],
            [true, false, false],
            [true, true, false],
            // 2/3 of 80,000 is 53,333; less 50,000 and 20,000.
            [false; 3],
            [true; 3],
            [false; 3],
            [true; 3],
        ];
        for (function, expected) in (0..).zip(expected) {
            for (applicant, expected) in [&young, &middle, &old].into_iter().zip(expected) {
                check(function, applicant, expected);
            }
        }
        check(3, &applicant(50, 4, 100_000.0, 0.0), true);
        check(3, &applicant(50, 4, 60_000.0, 0.0), false);
        check(4, &applicant(50, 0, 60_000.0, 450_000.0), true);
        check(6, &applicant(30, 0, 60_000.0, 100_000.0), true);
        check(7, &applicant(30, 4, 20_000.0, 0.0), false);
        // 2/3 of 40,000 is 26,666; less 20,000 and 10,000; and a fifth of the equity of 300,000.
        check(9, &applicant(30, 4, 20_000.0, 0.0), true);
        assert_eq!(Function::new(10), None);
    }

    #[test]
    fn attributes_are_in_their_ranges_and_both_groups_occur_with_every_function() {
        let number = |cell: &Cell| match cell {
            Cell::Number(number) => *number,
            Cell::Category(category) => {
                category.trim_start_matches(char::is_alphabetic).parse().unwrap()
            }
        };
        for function in 0..FUNCTIONS {
            let rows: Vec<Row> = Agrawal::new(settings(function)).take(2_000).collect();
            let in_a = rows.iter().filter(|row| row.label == "A").count();
            assert!((100..2_000).contains(&in_a), "function {function}: {in_a}");
            for Row { cells, .. } in rows {
                assert_eq!(cells.len(), COLUMNS.len());
                let values: Vec<f64> = cells.iter().map(number).collect();
                let ranges = [
                    20_000.0..=150_000.0,
                    if values[0] >= 75_000.0 { 0.0..=0.0 } else { 10_000.0..=75_000.0 },
                    20.0..=80.0,
                    0.0..=4.0,
                    1.0..=20.0,
                    0.0..=8.0,
                    (9.0 - values[5]) * 50_000.0..=(9.0 - values[5]) * 150_000.0,
                    1.0..=30.0,
                    0.0..=500_000.0,
                ];
                for (value, range) in values.iter().zip(ranges) {
                    assert!(range.contains(value), "{value} is not in {range:?}");
                }
            }
        }
    }

    #[test]
    fn labels_follow_the_old_function_then_the_new_one() {
        let [old, new] = [0, 2]
            .map(|function| Agrawal::new(settings(function)).take(4_000).collect::<Vec<Row>>());
        let with = |width| {
            let to = Function::new(2).unwrap();
            let change = Some((to, ConceptChange { at: 2_000, width }));
            let rows = Agrawal::new(Settings { change, ..settings(0) }).take(4_000);
            rows.collect::<Vec<Row>>()
        };
        let abrupt = with(0);
        assert_eq!(abrupt[..2_000], old[..2_000]);
        assert_eq!(abrupt[2_000..], new[2_000..]);
        let share_of_new = |rows: std::ops::Range<usize>| {
            let gradual = with(500);
            let differ = rows.filter(|row| old[*row] != new[*row]);
            let (mut all, mut of_new) = (0.0, 0.0);
            for row in differ {
                all += 1.0;
                of_new += if gradual[row] == new[row] { 1.0 } else { 0.0 };
            }
            of_new / all
        };
        assert!(share_of_new(0..1_000) < 0.01);
        assert!((0.4..0.6).contains(&share_of_new(1_700..2_300)));
        assert!(share_of_new(3_000..4_000) > 0.99);
    }

    #[test]
    fn noise_inverts_a_share_of_the_labels_and_changes_nothing_else() {
        let clean: Vec<Row> = Agrawal::new(settings(0)).take(10_000).collect();
        let noisy = Agrawal::new(Settings { noise: 0.1, ..settings(0) });
        let mut inverted = 0;
        for (row, clean) in noisy.zip(&clean) {
            assert_eq!(row.cells, clean.cells);
            inverted += u32::from(row.label != clean.label);
        }
        assert!((850..1_150).contains(&inverted), "{inverted}");
    }

    /// Documents and tests of learning quote results on these tables.
    #[test]
    fn a_table_stays_the_same_with_every_release() {
        let rows = Agrawal::new(settings(2)).take(3).map(|row| {
            let cells: Vec<String> = row.cells.iter().map(Cell::to_string).collect();
            format!("{},{}", cells.join(","), row.label)
        });
        let rows: Vec<String> = rows.collect();
        let expected = [
            "122272,0,66,2,car17,zipcode2,883800,18,289187,A",
            "51803,34841,27,4,car14,zipcode0,1225023,15,62891,B",
            "30566,49931,55,4,car7,zipcode3,768133,14,12795,B",
        ];
        assert_eq!(rows, expected);
    }
}
