//! Encoding of categories as codes 0 to n - 1, by descending frequency; n is the code of unseen categories, n + 1 that
//! of missing ones.

use std::{
    borrow::Borrow,
    collections::{BTreeMap, HashMap},
    hash::Hash,
};

use foldhash::fast::RandomState;
use serde::{Deserialize, Serialize};

/// Maximum number of codes; rarer categories are encoded as unseen. LightGBM keeps a bit per category in every split,
/// and considers only the most frequent `max_bin` anyway.
pub(super) const CATEGORIES_MAX: usize = 4096;

/// Codes of the categories of a column (keys are texts) or of a cross (keys are pairs of codes).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    try_from = "Vec<K>",
    into = "Vec<K>",
    bound = "K: Eq + Hash + Clone + Serialize + for<'a> Deserialize<'a>"
)]
pub(super) struct Categories<K: Eq + Hash + Clone> {
    /// The keys, in the order of their codes.
    by_code: Vec<K>,
    codes: HashMap<K, u32, RandomState>,
}

impl<K: Eq + Hash + Clone> PartialEq for Categories<K> {
    fn eq(&self, other: &Self) -> bool {
        self.by_code == other.by_code
    }
}

impl<K: Eq + Hash + Clone> Categories<K> {
    /// Assigns codes by descending count; ties are in the order of their keys.
    pub(super) fn fit(counts: BTreeMap<K, u64>) -> Self
    where
        K: Ord,
    {
        let mut by_count: Vec<(K, u64)> = counts.into_iter().collect();
        by_count.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        by_count.truncate(CATEGORIES_MAX);
        Self::with_codes(by_count.into_iter().map(|(key, _)| key).collect())
    }

    fn with_codes(by_code: Vec<K>) -> Self {
        let codes = by_code.iter().cloned().zip(0..).collect();
        Self { by_code, codes }
    }

    /// The code of a missing value. It is a category of its own, because LightGBM sends NaN right at every split by
    /// category and so could not learn from it.
    pub(super) fn missing(&self) -> u32 {
        self.unseen() + 1
    }

    /// The code of a category that is not in the training data.
    pub(super) fn unseen(&self) -> u32 {
        u32::try_from(self.by_code.len()).expect("categories are bounded")
    }

    /// The code of `key`; `None` if it has none of its own.
    pub(super) fn known<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<u32>
    where
        K: Borrow<Q>,
    {
        self.codes.get(key).copied()
    }

    /// The code of `key`; that of unseen categories if it has none of its own.
    pub(super) fn code<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> u32
    where
        K: Borrow<Q>,
    {
        self.known(key).unwrap_or_else(|| self.unseen())
    }
}

impl<K: Eq + Hash + Clone> TryFrom<Vec<K>> for Categories<K> {
    type Error = &'static str;

    fn try_from(by_code: Vec<K>) -> Result<Self, Self::Error> {
        let count = by_code.len();
        if count > CATEGORIES_MAX {
            return Err("too many categories");
        }
        let categories = Self::with_codes(by_code);
        if categories.codes.len() == count { Ok(categories) } else { Err("duplicate category") }
    }
}

impl<K: Eq + Hash + Clone> From<Categories<K>> for Vec<K> {
    fn from(categories: Categories<K>) -> Self {
        categories.by_code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fitted(counts: &[(&str, u64)]) -> Categories<String> {
        Categories::fit(counts.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect())
    }

    #[test]
    fn codes_are_in_order_of_frequency_then_text() {
        let categories = fitted(&[("b", 2), ("a", 2), ("z", 9), ("c", 1)]);
        let check = |key: &str, expected: u32| assert_eq!(categories.code(key), expected, "{key}");
        check("z", 0);
        check("a", 1);
        check("b", 2);
        check("c", 3);
        check("never seen", 4);
        assert_eq!(categories.missing(), 5);
        assert_eq!(fitted(&[]).code("any"), 0);
    }

    #[test]
    fn the_rarest_of_too_many_categories_are_unseen() {
        let counts = (0..CATEGORIES_MAX as u64 + 5).map(|n| (format!("{n:06}"), 10_000 - n));
        let categories = Categories::fit(counts.collect());
        let unseen = u32::try_from(CATEGORIES_MAX).unwrap();
        assert_eq!(categories.code("000000"), 0);
        assert_eq!(categories.code(format!("{:06}", CATEGORIES_MAX + 1).as_str()), unseen);
    }

    #[test]
    fn codes_survive_a_round_trip() {
        let categories = fitted(&[("b", 2), ("a", 2), ("z", 9)]);
        let json = serde_json::to_string(&categories).unwrap();
        assert_eq!(json, r#"["z","a","b"]"#);
        assert_eq!(serde_json::from_str::<Categories<String>>(&json).unwrap(), categories);
        assert!(serde_json::from_str::<Categories<String>>(r#"["a","a"]"#).is_err());
    }
}
