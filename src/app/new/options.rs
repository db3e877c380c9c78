//! The columns that the user names with options, and those that may be the label if none is named.

use anyhow::bail;

use crate::{
    app::new::{Request, column::ColumnSummary, form, names, plan::NamedColumns},
    events::similar_name,
};

/// The columns that the user names.
pub(super) fn named_columns(
    names: &[String],
    label: &str,
    request: &Request,
) -> anyhow::Result<NamedColumns> {
    let one = |flag: &str, name: &Option<String>| {
        name.as_deref().map(|name| index_of(names, flag, name)).transpose()
    };
    let many = |flag: &str, listed: &[String]| {
        let mut found = Vec::new();
        for value in listed {
            // A name may have commas.
            let listed = if names.contains(value) { vec![value.clone()] } else { items_of(value) };
            for name in &listed {
                found.push(index_of(names, flag, name)?);
            }
        }
        anyhow::Ok(found)
    };
    let named = NamedColumns {
        label: index_of(names, "--label", label)?,
        respondent_id: one("--respondent-id", &request.respondent_id)?,
        event_time: one("--event-time", &request.event_time)?,
        ignored: many("--ignore", &request.ignored)?,
        used: many("--use", &request.used)?,
    };
    let roles = [Some(named.label), named.respondent_id, named.event_time];
    let all = roles.into_iter().flatten().chain(named.ignored.iter().chain(&named.used).copied());
    let mut all: Vec<usize> = all.collect();
    all.sort_unstable();
    if let Some(pair) = all.windows(2).find(|pair| pair[0] == pair[1]) {
        bail!("column {:?} is named by two options: name it once", names[pair[0]]);
    }
    Ok(named)
}

/// The items of a list that is separated by commas. As in a CSV file, an item with commas has quotes around it.
pub(super) fn items_of(list: &str) -> Vec<String> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .from_reader(list.as_bytes());
    let rows = reader.records().map_while(Result::ok);
    rows.flat_map(|row| row.iter().map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The column with this name, or else with this name in another case or as a field.
fn index_of(names: &[String], flag: &str, name: &str) -> anyhow::Result<usize> {
    let matches = |is_same: &dyn Fn(&str) -> bool| -> Vec<usize> {
        (0..names.len()).filter(|index| is_same(&names[*index])).collect()
    };
    let wanted = names::valid(name).map(|name| name.to_lowercase());
    for found in [
        matches(&|other| other == name),
        // Columns without names are named by their numbers.
        matches(&|other| other.strip_prefix("column_") == Some(name.trim())),
        matches(&|other| other.trim().eq_ignore_ascii_case(name.trim())),
        matches(&|other| {
            wanted.is_some() && names::valid(other).map(|other| other.to_lowercase()) == wanted
        }),
    ] {
        match found[..] {
            [] => {}
            [only] => return Ok(only),
            [..] => bail!(
                "{flag} {name:?} names {} columns: give them different names in the file",
                found.len()
            ),
        }
    }
    let nearest = similar_name::nearest(name, names.iter().map(String::as_str));
    let hint = nearest.map_or_else(String::new, |nearest| format!(" Did you mean {nearest:?}?"));
    bail!("{flag}: there is no column {name:?}.{hint} The file has {}", listed(names))
}

/// Names for a message: not all of many.
fn listed(names: &[String]) -> String {
    const NAMES: usize = 50;
    let shown: Vec<String> = names.iter().take(NAMES).map(|name| format!("{name:?}")).collect();
    let more = names.len().saturating_sub(NAMES);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

/// The message if the user names no label: the columns that may be one.
pub(super) fn candidates(summaries: &[ColumnSummary]) -> String {
    const CLASSES_MAX: usize = 20;
    const WORDS: &[&str] = &[
        "label",
        "outcome",
        "target",
        "class",
        "y",
        "result",
        "response",
        "converted",
        "churn",
        "churned",
        "survived",
        "status",
    ];
    let mut found: Vec<(bool, usize, &ColumnSummary)> = summaries
        .iter()
        .enumerate()
        .filter(|(_, column)| {
            (2..=CLASSES_MAX).contains(&column.values.len()) && !column.has_more_values
        })
        .map(|(index, column)| {
            let words = form::words_of(&column.name);
            (!words.iter().any(|word| WORDS.contains(&word.as_str())), index, column)
        })
        .collect();
    // Named as a label first, then from the last column on.
    found.sort_by_key(|(is_other, index, _)| (*is_other, std::cmp::Reverse(*index)));
    let shown = found.iter().take(10).map(|(_, _, column)| {
        let values: Vec<String> =
            column.values.keys().take(4).map(|value| format!("{value:?}")).collect();
        let more = if column.values.len() > 4 { ", …" } else { "" };
        format!(
            "  --label {:?}  ({} values: {}{more})",
            column.name,
            column.values.len(),
            values.join(", ")
        )
    });
    let shown: Vec<String> = shown.collect();
    let names: Vec<String> = summaries.iter().map(|column| column.name.clone()).collect();
    if shown.is_empty() {
        return format!(
            "name the column to predict with --label. No column has from 2 to {CLASSES_MAX} values; there are {}",
            listed(&names)
        );
    }
    format!("name the column to predict with --label, such as\n{}", shown.join("\n"))
}
