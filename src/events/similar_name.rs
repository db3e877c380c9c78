//! The name that a misspelt one probably means.

/// Of `names`, the one that is most similar to `name`, in any case; of equal ones, the first in the alphabet. At most a third of
/// the letters may differ.
pub fn nearest<'a>(name: &str, names: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest_of(name, names.into_iter().map(|known| (known, known)))
}

/// As [`nearest`], of names that are each paired with a result.
pub fn nearest_of<'a>(
    name: &str,
    names: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Option<&'a str> {
    let name = name.to_lowercase();
    let most = (name.chars().count() / 3).max(1);
    let distances = names.into_iter().map(|(known, result)| {
        // Insertions, deletions, replacements, and swaps of adjacent letters.
        (strsim::osa_distance(&name, &known.to_lowercase()), result)
    });
    distances.filter(|(distance, _)| *distance <= most).min().map(|(_, result)| result)
}

/// A part of a message about a name that does not exist: ` (did you mean age?)`, or nothing if none is similar.
pub fn hint<'a, N: AsRef<str> + 'a>(name: &str, names: impl IntoIterator<Item = &'a N>) -> String {
    let nearest = nearest(name, names.into_iter().map(AsRef::as_ref));
    nearest.map_or_else(String::new, |nearest| format!(" (did you mean {nearest}?)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_similar_name_is_found() {
        let check = |name: &str, expected: Option<&str>| {
            let known = ["age", "job", "hours_per_week", "Outcome"];
            assert_eq!(nearest(name, known), expected, "{name}");
        };
        check("agee", Some("age"));
        check("Age", Some("age"));
        check("jbo", Some("job"));
        check("outcome", Some("Outcome"));
        check("hours-per-week", Some("hours_per_week"));
        check("hoursperweek", Some("hours_per_week"));
        check("week", None);
        check("salary", None);
        assert_eq!(nearest("", []), None);
        let names = ["age"];
        assert_eq!(hint("aeg", &names), " (did you mean age?)");
        assert_eq!(hint("salary", &names), "");
    }
}
