//! The values of a column in training and live, by bin, for people to compare.

use serde::{Deserialize, Serialize};

use crate::{
    Column,
    drift::{LiveCounts, Profile, profile::BinNames},
};

/// Characters of a category that the name of its bin has at most.
const NAME_CHARACTERS_MAX: usize = 40;

/// A column in training and live.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distribution {
    /// The name of the column.
    pub name: String,
    /// The name of each bin: a range of numbers, of which the end belongs to it, or a category. The last bin is that of missing values.
    pub bins: Vec<String>,
    /// The number of training examples in each bin.
    pub trained: Vec<u64>,
    /// The number of live predictions in each bin.
    pub live: Vec<u64>,
}

impl Distribution {
    /// The distribution of each column of `live`, which was counted with `profile`. `columns` are those of the model. Empty if
    /// `live` has other columns.
    #[must_use]
    pub fn of(profile: &Profile, columns: &[Column], live: &LiveCounts) -> Vec<Self> {
        let trained = profile.baseline(columns).columns.into_iter().enumerate();
        let with_live = trained.filter_map(|(index, trained)| {
            let live = live.column(index)?;
            let bins = names(profile.bin_names(index));
            (live.len() == trained.counts.len() && bins.len() == live.len()).then_some(Self {
                name: trained.name,
                bins,
                trained: trained.counts,
                live,
            })
        });
        with_live.collect()
    }
}

fn names(bins: BinNames<'_>) -> Vec<String> {
    let mut names: Vec<String> = match bins {
        BinNames::Ends([]) => vec!["any".to_owned()],
        BinNames::Ends(ends @ [first, .., last] | ends @ [first @ last]) => {
            let between = ends.windows(2).map(|ends| match ends {
                [low, high] => format!("{}–{}", short(*low), short(*high)),
                _ => String::new(),
            });
            let first = format!("≤ {}", short(*first));
            let last = format!("> {}", short(*last));
            std::iter::once(first).chain(between).chain([last]).collect()
        }
        BinNames::Categories(categories) => {
            let shortened = |name: &str| name.chars().take(NAME_CHARACTERS_MAX).collect();
            let categories = categories.into_iter().map(shortened);
            categories.chain(["others".to_owned()]).collect()
        }
    };
    names.push("missing".to_owned());
    names
}

/// A number with at most four digits after the point; in exponential form if that would show none of them.
fn short(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude >= 1e9 || (magnitude > 0.0 && magnitude < 1e-3) {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ColumnKind, Label, TrainingSet, Value};

    #[test]
    fn numbers_are_short() {
        let check = |number: f64, expected: &str| assert_eq!(short(number), expected);
        check(9.0, "9");
        check(-0.0, "0");
        check(120.0, "120");
        check(1.0 / 3.0, "0.3333");
        check(-2.5, "-2.5");
        check(123_456.0, "123456");
        check(1e12, "1.000e12");
        check(0.000_012_3, "1.230e-5");
    }

    #[test]
    fn every_bin_has_a_name_and_two_counts() {
        let columns =
            [Column::new("x", ColumnKind::Numeric), Column::new("kind", ColumnKind::Categorical)];
        let mut set = TrainingSet::new(&columns);
        let long = "k".repeat(100);
        for number in 0..100 {
            let kind = if number < 60 { "a" } else { &long };
            set.push(&[Value::Number(f64::from(number)), Value::Text(kind.to_owned())], Label(0));
        }
        let profile = Profile::of(&set.sample());
        let mut live = LiveCounts::new(Some(&profile), 2);
        live.add_prediction([0.5, 0.5].into_iter(), 0.5, 10);
        live.add_value(&profile, (0, (&Value::Number(1e9)).into()), 7);
        live.add_value(&profile, (1, (&Value::Text("new".to_owned())).into()), 10);
        let found = Distribution::of(&profile, &columns, &live);
        let [x, kind] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(x.bins.first().map(String::as_str), Some("≤ 9"));
        assert_eq!(x.bins[1], "9–19");
        assert_eq!(x.bins[x.bins.len() - 2..], ["> 89".to_owned(), "missing".to_owned()]);
        assert_eq!(x.live[x.live.len() - 2..], [7, 3]);
        assert_eq!(kind.bins, ["a", &"k".repeat(40), "others", "missing"]);
        assert_eq!(
            (kind.trained.as_slice(), kind.live.as_slice()),
            (&[60, 40, 0, 0][..], &[0, 0, 10, 0][..])
        );
        // Another model's counts.
        let other = LiveCounts::new(None, 2);
        assert_eq!(Distribution::of(&profile, &columns, &other), []);
    }
}
