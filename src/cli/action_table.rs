//! The tables of a demo about the rules of actions: what each has done, and its uplift.

use crate::app::demo::{LabelReport, RuleReport};

/// Lines of the tables.
pub(super) fn lines(rules: &[RuleReport]) -> Vec<String> {
    let names = rules.iter().flat_map(|rule| {
        let labels = rule.labels.iter().map(|label| label.label.as_str());
        labels.chain([rule.rule.as_str()])
    });
    let width = names.map(|name| name.chars().count()).max().unwrap_or(0).max(12);
    let mut lines = vec![format!(
        "{:<width$}  {:>9}  {:>9}  {:>8}",
        "rule", "requested", "cancelled", "held out"
    )];
    for rule in rules {
        lines.push(format!(
            "{:<width$}  {:>9}  {:>9}  {:>8}",
            rule.rule, rule.requested, rule.cancelled, rule.held_out
        ));
    }
    for rule in rules {
        lines.push(String::new());
        lines.push(format!(
            "uplift of {}: labels of {} examples on which it acted, and of {} that it held out",
            rule.rule, rule.examples_acted, rule.examples_held_out
        ));
        lines.push(format!(
            "{:<width$}  {:>6}  {:>8}  {:>7}  {:<18}  {:>7}",
            "label", "acted", "held out", "uplift", "(95 % interval)", "truth"
        ));
        lines.extend(rule.labels.iter().map(|label| line(label, width)));
    }
    lines
}

fn line(label: &LabelReport, width: usize) -> String {
    let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{share:.3}"));
    let signed = |number: Option<f64>| number.map_or("-".to_owned(), |one| format!("{one:+.3}"));
    let interval = label
        .uplift
        .map_or("-".to_owned(), |uplift| format!("({:+.3} to {:+.3})", uplift.low, uplift.high));
    let difference = signed(label.uplift.map(|uplift| uplift.difference));
    format!(
        "{:<width$}  {:>6}  {:>8}  {difference:>7}  {interval:<18}  {:>7}",
        label.label,
        share(label.acted),
        share(label.held_out),
        signed(label.truth),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::processors::uplift::Difference;

    #[test]
    fn what_was_done_and_its_effect_are_in_columns() {
        let label = |label: &str, uplift, truth| LabelReport {
            label: label.to_owned(),
            acted: Some(0.5),
            held_out: Some(0.25),
            uplift,
            truth,
        };
        let uplift = Difference { difference: 0.25, low: 0.1, high: 0.375 };
        let rule = RuleReport {
            rule: "offer".to_owned(),
            requested: 70,
            cancelled: 5,
            held_out: 30,
            examples_acted: 69,
            examples_held_out: 29,
            labels: vec![label("bought", Some(uplift), Some(0.21)), label("liked", None, None)],
        };
        let expected = "\
rule          requested  cancelled  held out
offer                70          5        30

uplift of offer: labels of 69 examples on which it acted, and of 29 that it held out
label          acted  held out   uplift  (95 % interval)       truth
bought         0.500     0.250   +0.250  (+0.100 to +0.375)   +0.210
liked          0.500     0.250        -  -                         -";
        assert_eq!(lines(&[rule]).join("\n"), expected);
    }
}
