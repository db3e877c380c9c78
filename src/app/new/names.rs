//! Names of Avro fields for the columns of a file.

use std::collections::BTreeSet;

/// Maximum length of a name.
const LENGTH_MAX: usize = 64;
/// Letters with a common spelling in ASCII.
const LETTERS: &[(&str, &str)] = &[
    ("ä", "ae"),
    ("ö", "oe"),
    ("ü", "ue"),
    ("ß", "ss"),
    ("Ä", "Ae"),
    ("Ö", "Oe"),
    ("Ü", "Ue"),
    ("æ", "ae"),
    ("Æ", "Ae"),
    ("ø", "oe"),
    ("Ø", "Oe"),
    ("å", "aa"),
    ("Å", "Aa"),
    ("œ", "oe"),
    ("àáâãāăą", "a"),
    ("ÀÁÂÃĀĂĄ", "A"),
    ("çćčĉċ", "c"),
    ("ÇĆČĈĊ", "C"),
    ("ďđ", "d"),
    ("ĎĐ", "D"),
    ("èéêëēėęě", "e"),
    ("ÈÉÊËĒĖĘĚ", "E"),
    ("ğģ", "g"),
    ("ĞĢ", "G"),
    ("ìíîïīįı", "i"),
    ("ÌÍÎÏĪĮİ", "I"),
    ("ķ", "k"),
    ("łļľ", "l"),
    ("ŁĻĽ", "L"),
    ("ñńňņ", "n"),
    ("ÑŃŇŅ", "N"),
    ("òóôõōő", "o"),
    ("ÒÓÔÕŌŐ", "O"),
    ("ŕř", "r"),
    ("ŔŘ", "R"),
    ("śšşș", "s"),
    ("ŚŠŞȘ", "S"),
    ("ťţț", "t"),
    ("ŤŢȚ", "T"),
    ("ùúûūůűų", "u"),
    ("ÙÚÛŪŮŰŲ", "U"),
    ("ýÿ", "y"),
    ("Ý", "Y"),
    ("źżž", "z"),
    ("ŹŻŽ", "Z"),
    ("%", "percent"),
    ("€", "euro"),
    ("$", "dollar"),
    ("#", "number"),
];

/// Gives each column a valid Avro name that no other one has, in any case.
pub(super) struct Names {
    taken: BTreeSet<String>,
}

impl Names {
    /// `reserved` names are not given to columns.
    pub(super) fn new(reserved: &[&str]) -> Self {
        Self { taken: reserved.iter().map(|name| name.to_lowercase()).collect() }
    }

    /// The name of the column `name`, which is `number` of the file, from 1.
    pub(super) fn of(&mut self, name: &str, number: usize) -> String {
        let base = valid(name).unwrap_or_else(|| format!("column_{number}"));
        let suffixed = |count: usize| {
            let suffix = format!("_{count}");
            let end = base.len().min(LENGTH_MAX - suffix.len());
            format!("{}{suffix}", &base[..end])
        };
        let mut candidates = std::iter::once(base.clone()).chain((2..).map(suffixed));
        let free = |name: &String| !self.taken.contains(&name.to_lowercase());
        let name = candidates.find(free).unwrap_or_else(|| base.clone());
        self.taken.insert(name.to_lowercase());
        name
    }
}

/// The name in ASCII letters, digits and `_`; none if nothing is left of it.
pub(super) fn valid(name: &str) -> Option<String> {
    let mut text = String::new();
    for character in name.trim().chars() {
        if character.is_ascii_alphanumeric() || character == '_' {
            text.push(character);
            continue;
        }
        let spelled = LETTERS.iter().find(|(letters, _)| letters.contains(character));
        match spelled {
            Some((_, spelling)) if character.is_alphabetic() => text.push_str(spelling),
            Some((_, spelling)) => {
                push_gap(&mut text);
                text.push_str(spelling);
                text.push('_');
            }
            None => push_gap(&mut text),
        }
    }
    let is_plain = !name.trim().contains(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    // A name that is valid stays as it is, with `_` at its ends.
    let text = if is_plain { text.as_str() } else { text.trim_matches('_') };
    if !text.contains(|character: char| character.is_ascii_alphanumeric()) {
        return None;
    }
    let starts_with_digit = text.starts_with(|character: char| character.is_ascii_digit());
    let text = if starts_with_digit { format!("_{text}") } else { text.to_owned() };
    Some(text[..text.len().min(LENGTH_MAX)].to_owned())
}

fn push_gap(text: &mut String) {
    if !text.is_empty() && !text.ends_with('_') {
        text.push('_');
    }
}

/// A name for the application or a folder: as [`valid`], in lower case.
pub(super) fn of_application(name: &str) -> String {
    let name = valid(name).map(|name| name.trim_matches('_').to_lowercase());
    name.unwrap_or_else(|| "application".to_owned())
}

/// A name as a type: `penguins_raw` as `PenguinsRaw`.
pub(super) fn of_type(name: &str) -> String {
    let words = name.split('_').filter(|word| !word.is_empty());
    let capitalised = words.map(|word| word[..1].to_uppercase() + &word[1..]);
    let name: String = capitalised.collect();
    if name.starts_with(|character: char| character.is_ascii_alphabetic()) {
        name
    } else {
        format!("Event{name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_valid_and_unique() {
        let mut names = Names::new(&["event_id", "completed"]);
        let mut check =
            |name: &str, expected: &str| assert_eq!(names.of(name, 7), expected, "{name}");
        check("bill_length_mm", "bill_length_mm");
        check("SibSp", "SibSp");
        check("_hidden", "_hidden");
        check("Hours per week (avg)", "Hours_per_week_avg");
        check("größe", "groesse");
        check("1st", "_1st");
        check("Größe", "Groesse_2");
        check("event_id", "event_id_2");
        check("Completed", "Completed_2");
        check("a.b", "a_b");
        check("a b", "a_b_2");
        check("a_b", "a_b_3");
        check("share (%)", "share_percent");
        check("возраст", "column_7");
        check("", "column_7_2");
        check("___", "column_7_3");
        let long = "x".repeat(300);
        check(&long, &"x".repeat(64));
        check(&long, &format!("{}_2", "x".repeat(62)));
    }

    #[test]
    fn names_of_types() {
        assert_eq!(of_type("penguins_raw"), "PenguinsRaw");
        assert_eq!(of_type("2024"), "Event2024");
        assert_eq!(of_application("My visits (2024)"), "my_visits_2024");
        assert_eq!(of_application("…"), "application");
    }

    proptest! {
        #[test]
        fn any_names_become_valid_ones(texts in prop::collection::vec(".{0,80}", 1..20)) {
            let mut names = Names::new(&["event_id"]);
            let given: Vec<String> = texts.iter().map(|text| names.of(text, 1)).collect();
            let distinct: BTreeSet<String> = given.iter().map(|name| name.to_lowercase()).collect();
            prop_assert_eq!(distinct.len(), given.len());
            for name in given {
                prop_assert!(name.len() <= LENGTH_MAX);
                prop_assert!(name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
                prop_assert!(!name.starts_with(|c: char| c.is_ascii_digit()));
            }
        }
    }
}
