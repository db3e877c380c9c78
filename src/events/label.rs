//! Labels: finds the configured class that a text names.

use crate::events::questionnaire::spelling::{flag_in, is_same_number};

/// The class, of dead letters and of HTTP errors, of an outcome whose label is not configured.
pub const UNKNOWN_LABEL: &str = "unknown_label";

/// The class that `text` names: by its spelling, without surrounding white space; else by its number (`1.0` for `1`) or as a
/// boolean (`FALSE` for `false`).
#[must_use]
pub fn class_of<'c>(text: &str, classes: &'c [String]) -> Option<&'c String> {
    let text = text.trim();
    let find = |is_same: &dyn Fn(&str) -> bool| classes.iter().find(|class| is_same(class));
    find(&|class| class == text)
        .or_else(|| find(&|class| is_same_number(class, text)))
        .or_else(|| flag_in(text).and_then(|flag| find(&|class| flag_in(class) == Some(flag))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_names_a_class_by_its_value() {
        let check = |classes: &[&str], text: &str, expected: Option<&str>| {
            let classes: Vec<String> = classes.iter().map(|class| (*class).to_owned()).collect();
            assert_eq!(class_of(text, &classes).map(String::as_str), expected, "{text:?}");
        };
        check(&["no", "yes"], " yes ", Some("yes"));
        check(&["no", "yes"], "Yes", None);
        check(&["0", "1"], "1.0", Some("1"));
        check(&["0", "1"], "01", Some("1"));
        check(&["1", "1.0"], "1.0", Some("1.0"));
        check(
            &["9007199254740992", "9007199254740993"],
            "9007199254740993.0",
            Some("9007199254740993"),
        );
        check(&["false", "true"], "FALSE", Some("false"));
        check(&["No", "True"], "true", Some("True"));
        check(&["0", "1"], "true", None);
        check(&["0", "1"], "", None);
    }
}
