//! Models, differences and decisions as text for a terminal.

use std::{
    collections::BTreeSet,
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Map, Value as Json};

use crate::{
    events::decision::{Decision, DecisionOutcome, ModelComparison},
    processors::{
        library::{
            Change, FeatureImportance, LibrarySummary, ModelDetails, ModelDifference, ModelSummary,
            RankChange,
        },
        model_table::CHAMPION,
    },
};

/// Writes text, coloured or not.
pub(super) struct Text {
    is_coloured: bool,
}

/// SGR codes of a terminal.
#[derive(Clone, Copy)]
enum Colour {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

/// Metrics in the order of the table; others follow.
const METRICS: [&str; 4] = ["log_loss", "auc", "accuracy", "f1"];
/// Maximum number of features that are shown.
const FEATURES_MAX: usize = 20;
/// Maximum number of decisions that are shown with a model.
const DECISIONS_MAX: usize = 10;
/// Width of a full bar.
const BAR: usize = 24;
/// Maximum width of a trigger in the table.
const TRIGGER_MAX: usize = 32;

impl Text {
    pub(super) fn new(is_coloured: bool) -> Self {
        Self { is_coloured }
    }

    fn paint(&self, colour: Colour, text: &str) -> String {
        if self.is_coloured {
            format!("\u{1b}[{}m{text}\u{1b}[0m", colour as u8)
        } else {
            text.to_owned()
        }
    }

    /// The table of models.
    pub(super) fn list(&self, summary: &LibrarySummary) -> String {
        if summary.models.is_empty() {
            return "no models yet: `foretell init` trains the first one".to_owned();
        }
        let named = summary.models.iter().flat_map(|model| model.metrics.keys());
        let named: BTreeSet<&str> = named.map(String::as_str).collect();
        let first = METRICS.into_iter().filter(|metric| named.contains(metric));
        let others = named.iter().copied().filter(|metric| !METRICS.contains(metric));
        let metrics: Vec<&str> = first.chain(others).collect();
        let mut head: Vec<String> =
            ["", "VERSION", "TRAINING", "CREATED", "EXAMPLES"].map(ToOwned::to_owned).into();
        head.extend(metrics.iter().map(|metric| metric.replace('_', " ").to_uppercase()));
        head.extend(["TRIGGER", "ALIASES"].map(ToOwned::to_owned));
        let rows = summary.models.iter().map(|model| row(model, &metrics));
        let rows: Vec<Vec<String>> = std::iter::once(head).chain(rows).collect();
        let mut lines = table(&rows);
        lines[0] = self.paint(Colour::Dim, &lines[0]);
        for (line, model) in lines[1..].iter_mut().zip(&summary.models) {
            if model.aliases.iter().any(|alias| alias == CHAMPION) {
                *line = self.paint(Colour::Bold, line);
            }
        }
        lines.join("\n")
    }

    /// Everything about a model.
    pub(super) fn details(&self, details: &ModelDetails) -> String {
        let ModelSummary { version, aliases, training, created_at, .. } = &details.summary;
        let is_champion = aliases.iter().any(|alias| alias == CHAMPION);
        let star = if is_champion { "★ " } else { "" };
        let mut text = self.paint(Colour::Bold, &format!("{star}model {version}"));
        if !aliases.is_empty() {
            text.push_str(&format!("  {}", aliases.join(", ")));
        }
        let origin = match training {
            0 => "first model".to_owned(),
            number => format!("training {number}"),
        };
        let trigger = details.summary.trigger.as_deref().unwrap_or("unknown trigger");
        let (created, bytes) = (time(created_at.0), grouped(details.summary.bundle_bytes));
        text.push_str(&format!("\n{origin} ({trigger}), {created}, {bytes} bytes\n"));
        let classes = details.classes.join(", ");
        let threshold = match details.classes.len() {
            2 => format!(", the second from a probability of {}", details.threshold),
            _ => String::new(),
        };
        text.push_str(&format!("classes {classes}{threshold}\n"));
        self.section(&mut text, "Metrics", metrics(&details.evaluation));
        let parameters = details.parameters.iter().map(|parameter| {
            let value = scalar(&parameter.value);
            let mark = match parameter.is_default() {
                true => String::new(),
                false => {
                    let mark = format!("* default {}", scalar(&parameter.default));
                    self.paint(Colour::Yellow, &mark)
                }
            };
            vec![parameter.name.clone(), value, mark]
        });
        self.section(&mut text, "Parameters", table(&parameters.collect::<Vec<_>>()));
        let lineage = flat(&details.lineage).into_iter().map(|(name, value)| vec![name, value]);
        self.section(&mut text, "Lineage", table(&lineage.collect::<Vec<_>>()));
        self.section(&mut text, "Feature importance", importance(&details.importance));
        let decisions = details.decisions.iter().take(DECISIONS_MAX);
        self.section(
            &mut text,
            "Decisions",
            decisions.map(|decision| self.decision(decision)).collect(),
        );
        text.trim_end().to_owned()
    }

    fn section(&self, text: &mut String, title: &str, lines: Vec<String>) {
        if lines.is_empty() {
            return;
        }
        text.push_str(&format!("\n{}\n", self.paint(Colour::Bold, title)));
        for line in lines {
            text.push_str(&format!("  {}\n", line.trim_end()));
        }
    }

    /// What differs between two models.
    pub(super) fn difference(&self, from: &str, to: &str, difference: &ModelDifference) -> String {
        if difference.is_empty() {
            return format!("{from} and {to} do not differ");
        }
        let mut text = format!("{} → {}\n", self.paint(Colour::Bold, from), {
            self.paint(Colour::Bold, to)
        });
        for (title, changes) in [
            ("Metrics", &difference.evaluation),
            ("Threshold and classes", &difference.decision),
            ("Parameters", &difference.parameters),
            ("Columns", &difference.columns),
            ("Lineage", &difference.lineage),
        ] {
            let rows = changes.iter().map(|change| self.change(change)).collect::<Vec<_>>();
            self.section(&mut text, title, table(&rows));
        }
        let rows = difference.importance.iter().map(|change| {
            let RankChange { feature, from, to } = change;
            let rank = |rank: &Option<usize>| rank.map_or("-".to_owned(), |rank| rank.to_string());
            vec![feature.clone(), rank(from), "→".to_owned(), rank(to)]
        });
        let title = "Rank of features by gain";
        self.section(&mut text, title, table(&rows.collect::<Vec<_>>()));
        text.trim_end().to_owned()
    }

    fn change(&self, change: &Change) -> Vec<String> {
        let (from, to) = (&change.from, &change.to);
        let delta = match (from.as_i64().zip(to.as_i64()), from.as_f64().zip(to.as_f64())) {
            (Some((from, to)), _) => format!("({:+})", to - from),
            (None, Some((from, to))) => format!("({:+.4})", to - from),
            (None, None) => String::new(),
        };
        let delta = self.paint(Colour::Dim, &delta);
        vec![change.name.clone(), scalar(&change.from), "→".to_owned(), scalar(&change.to), delta]
    }

    /// A decision in one line.
    pub(super) fn decision(&self, decision: &Decision) -> String {
        let colour = match decision.outcome {
            DecisionOutcome::Promoted | DecisionOutcome::RolledBack => Colour::Green,
            DecisionOutcome::Challenger => Colour::Yellow,
            DecisionOutcome::Refused | DecisionOutcome::Failed => Colour::Red,
        };
        let outcome = self.paint(colour, &decision.outcome.name().replace('_', " "));
        let mut line = format!("{}  {outcome}", time(decision.decided_at.0));
        if let Some(candidate) = &decision.candidate {
            line.push_str(&format!(" {candidate}"));
        }
        line.push_str(&format!("  {}: {}", decision.decision_id, decision.reason));
        if let Some(comparison) = &decision.comparison {
            line.push_str(&format!("; {}", compared(comparison)));
        }
        if let Some(name) = &decision.requested_by {
            line.push_str(&format!(" (requested by {name})"));
        }
        line
    }
}

fn row(model: &ModelSummary, metrics: &[&str]) -> Vec<String> {
    let is_champion = model.aliases.iter().any(|alias| alias == CHAMPION);
    let examples = model.examples.and_then(|examples| usize::try_from(examples).ok());
    let mut row = vec![
        if is_champion { "★".to_owned() } else { String::new() },
        model.version.clone(),
        model.training.to_string(),
        time(model.created_at.0),
        examples.map_or("-".to_owned(), grouped),
    ];
    row.extend(metrics.iter().map(|metric| {
        model.metrics.get(*metric).map_or("-".to_owned(), |value| format!("{value:.4}"))
    }));
    let trigger = model.trigger.as_deref().unwrap_or("-");
    row.push(match trigger.char_indices().nth(TRIGGER_MAX) {
        Some((end, _)) => format!("{}…", &trigger[..end]),
        None => trigger.to_owned(),
    });
    row.push(model.aliases.join(", "));
    row
}

/// The rows as lines, with columns of equal width. Numbers are aligned to the right.
fn table(rows: &[Vec<String>]) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> = (0..columns)
        .map(|column| cells(column).map(|cell| width(cell)).max().unwrap_or(0))
        .collect();
    let line = |row: &Vec<String>| {
        let mut line = String::new();
        for (index, cell) in row.iter().enumerate() {
            let space = " ".repeat(widths[index].saturating_sub(width(cell)));
            let gap = if index == 0 || widths[index - 1] == 0 { "" } else { "  " };
            let is_number = cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
                && cell.chars().all(|c| c.is_ascii_digit() || ".,-e".contains(c));
            let padded =
                if is_number { format!("{space}{cell}") } else { format!("{cell}{space}") };
            line.push_str(gap);
            line.push_str(&padded);
        }
        line.trim_end().to_owned()
    };
    rows.iter().map(line).collect()
}

/// Characters on a terminal, without colours.
fn width(cell: &str) -> usize {
    let mut is_code = false;
    let shown = cell.chars().filter(|c| {
        let is_shown = !is_code && *c != '\u{1b}';
        is_code = (is_code || *c == '\u{1b}') && *c != 'm';
        is_shown
    });
    shown.count()
}

/// The key of the intervals in an evaluation.
const INTERVALS: &str = "intervals";

/// The metrics with their intervals, if there are any.
fn metrics(evaluation: &Map<String, Json>) -> Vec<String> {
    let intervals = evaluation.get(INTERVALS).and_then(Json::as_object);
    let confidence = intervals.and_then(|intervals| intervals.get("confidence")?.as_f64());
    let mut rows = Vec::new();
    for (name, value) in evaluation.iter().filter(|(name, _)| *name != INTERVALS) {
        let interval = intervals.and_then(|intervals| intervals.get(name)?.as_array());
        let ends = interval.map(|ends| ends.iter().filter_map(Json::as_f64).collect::<Vec<_>>());
        let interval = match (ends.as_deref(), confidence) {
            (Some([low, high]), Some(confidence)) => {
                format!("({low:.4} to {high:.4}, {:.0} %)", confidence * 100.0)
            }
            _ => String::new(),
        };
        let shown = match value.as_f64().filter(|_| value.is_f64()) {
            Some(metric) => format!("{metric:.4}"),
            None => scalar(value),
        };
        rows.push(vec![name.clone(), shown, interval]);
    }
    table(&rows)
}

/// The first features with bars for gain and number of splits.
fn importance(features: &[FeatureImportance]) -> Vec<String> {
    let gain_max = features.iter().map(|one| one.gain).fold(0.0, f64::max);
    let splits_max = features.iter().map(|one| one.splits).max().unwrap_or(0);
    let rows = features.iter().take(FEATURES_MAX).map(|one| {
        vec![
            one.feature.clone(),
            bar(one.gain / gain_max),
            format!("{:.1}", one.gain),
            bar(one.splits as f64 / splits_max as f64),
            one.splits.to_string(),
        ]
    });
    let head = ["", "gain", "", "splits", ""].map(ToOwned::to_owned).to_vec();
    let rows: Vec<_> = std::iter::once(head).chain(rows).collect();
    let mut lines = table(&rows);
    if let Some(more) = features.len().checked_sub(FEATURES_MAX).filter(|more| *more > 0) {
        lines.push(format!("and {more} more, which --json lists"));
    }
    lines
}

/// A bar of eighths of a character; `share` is from 0 to 1.
fn bar(share: f64) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    // At most 192, so neither sign nor digits are lost.
    #[expect(clippy::cast_sign_loss, reason = "the share is not negative")]
    let eighths = (share * (BAR * 8) as f64).round() as usize;
    let bar = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    let space = " ".repeat(BAR - bar.chars().count());
    bar + &space
}

/// The fields of objects within objects, by their paths.
fn flat(fields: &Map<String, Json>) -> Vec<(String, String)> {
    let mut lines = Vec::new();
    for (name, value) in fields {
        if let Json::Object(inner) = value {
            let inner = flat(inner).into_iter();
            lines.extend(inner.map(|(inner, value)| (format!("{name}.{inner}"), value)));
        } else {
            lines.push((name.clone(), scalar(value)));
        }
    }
    lines
}

fn scalar(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Array(items) => {
            let items: Vec<String> = items.iter().map(scalar).collect();
            items.join(", ")
        }
        Json::Number(number) if number.is_f64() => {
            number.as_f64().map_or_else(String::new, rounded)
        }
        Json::Bool(_) | Json::Number(_) | Json::Object(_) => value.to_string(),
    }
}

/// A number with six decimals at most; a small one in scientific notation. `--json` has every digit.
fn rounded(number: f64) -> String {
    if number.abs() < 1e-4 && number.abs() > 0.0 {
        return format!("{number:.3e}");
    }
    let text = format!("{number:.6}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn compared(comparison: &ModelComparison) -> String {
    let ModelComparison { metric, examples, difference, low, high, confidence, margin, .. } =
        comparison;
    let (candidate, champion) = (comparison.candidate, comparison.champion);
    format!(
        "{metric} {candidate:.4} against {champion:.4} on {examples} examples: improvement {difference:+.4} ({low:+.4} to \
         {high:+.4}, {:.0} %; required {margin})",
        confidence * 100.0
    )
}

/// A number with commas between thousands.
fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Milliseconds since 1970 as a time in UTC, to the second.
fn time(milliseconds: i64) -> String {
    let since = Duration::from_millis(u64::try_from(milliseconds).unwrap_or(0));
    humantime_serde::re::humantime::format_rfc3339_seconds(UNIX_EPOCH + since).to_string()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::json;

    use super::*;

    fn summary(version: &str, aliases: &[&str], auc: Option<f64>) -> ModelSummary {
        let metrics = auc.into_iter().map(|auc| ("auc".to_owned(), auc)).collect();
        ModelSummary {
            version: version.to_owned(),
            aliases: aliases.iter().map(|alias| (*alias).to_owned()).collect(),
            training: 3,
            created_at: serde_json::from_value(json!(1_790_000_000_000_i64)).unwrap(),
            examples: Some(12_345),
            trigger: Some("labelled examples".to_owned()),
            parent: None,
            metrics,
            bundle_bytes: 83_112,
        }
    }

    fn details() -> ModelDetails {
        let importance = |feature: &str, gain, splits| FeatureImportance {
            feature: feature.to_owned(),
            gain,
            splits,
        };
        let fields = |json: Json| json.as_object().unwrap().clone();
        let parameter = |name: &str, value: Json, default: Json| {
            crate::processors::library::Parameter { name: name.to_owned(), value, default }
        };
        ModelDetails {
            summary: summary("3fa8c1", &["champion"], Some(0.92)),
            classes: vec!["no".to_owned(), "yes".to_owned()],
            threshold: 0.5,
            evaluation: fields(json!({
                "examples": 600, "auc": 0.92, "log_loss": 0.27,
                "intervals": {"confidence": 0.95, "auc": [0.9, 0.94]},
            })),
            parameters: vec![
                parameter("max_bin", json!(255), json!(255)),
                parameter("num_leaves", json!(63), json!(31)),
            ],
            lineage: fields(json!({"seed": 42, "policy": {"retention": {"last": 2000}}})),
            columns: Vec::new(),
            importance: vec![importance("age", 40.0, 8), importance("job", 10.0, 4)],
            decisions: vec![
                serde_json::from_value(json!({
                    "decision_id": "training-3", "outcome": "promoted", "reason": "it is better",
                    "trigger": null, "requested_by": "ann", "training": 3, "candidate": "3fa8c1",
                    "champion": "000000", "first_offset": null, "end_offset": null,
                    "decided_at": 1_790_000_000_000_i64,
                    "comparison": {"metric": "auc", "examples": 600, "candidate": 0.92, "champion": 0.9,
                        "difference": 0.02, "low": 0.01, "high": 0.03, "confidence": 0.95, "margin": 0.001},
                }))
                .unwrap(),
            ],
        }
    }

    #[test]
    fn the_list_marks_the_champion_and_aligns_columns() {
        let list = LibrarySummary {
            models: vec![
                summary("3fa8c1", &["champion"], Some(0.92)),
                summary("00aa11", &[], None),
            ],
            aliases: BTreeMap::new(),
        };
        let expected = "   VERSION  TRAINING  CREATED               EXAMPLES  AUC     TRIGGER            ALIASES
★  3fa8c1          3  2026-09-21T14:13:20Z    12,345  0.9200  labelled examples  champion
   00aa11          3  2026-09-21T14:13:20Z    12,345       -  labelled examples";
        assert_eq!(Text::new(false).list(&list), expected);
        let coloured = Text::new(true).list(&list);
        assert!(coloured.contains("\u{1b}[1m★  3fa8c1"), "{coloured:?}");
        let none = LibrarySummary { models: Vec::new(), aliases: BTreeMap::new() };
        assert!(Text::new(false).list(&none).contains("foretell init"));
    }

    #[test]
    fn a_model_is_shown_with_intervals_marks_bars_and_decisions() {
        let text = Text::new(false).details(&details());
        for line in [
            "★ model 3fa8c1  champion",
            "training 3 (labelled examples), 2026-09-21T14:13:20Z, 83,112 bytes",
            "classes no, yes, the second from a probability of 0.5",
            "  auc       0.9200  (0.9000 to 0.9400, 95 %)",
            "  max_bin     255",
            "  num_leaves   63  * default 31",
            "  policy.retention.last  2000",
            "  2026-09-21T14:13:20Z  promoted 3fa8c1  training-3: it is better; auc 0.9200 against 0.9000 on 600 examples: \
             improvement +0.0200 (+0.0100 to +0.0300, 95 %; required 0.001) (requested by ann)",
        ] {
            assert!(text.lines().any(|found| found == line), "{line:?} in\n{text}");
        }
        let bars: Vec<&str> = text.lines().filter(|line| line.contains('█')).collect();
        let full = "█".repeat(BAR);
        assert!(bars[0].contains(&format!("age  {full}  40.0  {full}")), "{text}");
        assert!(bars[1].contains("job  ██████  "), "{text}");
        assert!(!text.contains('\u{1b}'));
    }

    #[test]
    fn numbers_are_rounded_for_readers() {
        let check = |number: f64, expected: &str| {
            assert_eq!(scalar(&json!(number)), expected);
        };
        check(0.370_421_512_743, "0.370422");
        check(20.0, "20");
        check(0.05, "0.05");
        check(0.0, "0");
        check(0.000_012_34, "1.234e-5");
        check(-10.5, "-10.5");
        assert_eq!(scalar(&json!([0.813_375_000_001, 3])), "0.813375, 3");
    }

    #[test]
    fn a_bar_has_eighths_of_a_character() {
        let check = |share: f64, expected: &str| assert_eq!(bar(share).trim_end(), expected);
        check(0.0, "");
        check(1.0 / 24.0, "█");
        check(1.5 / 24.0, "█▌");
        check(f64::NAN, "");
        check(2.0, &"█".repeat(BAR));
    }

    #[test]
    fn a_difference_lists_what_differs() {
        let (from, mut to) = (details(), details());
        to.parameters[1].value = json!(31);
        to.evaluation.insert("auc".to_owned(), json!(0.93));
        to.importance.reverse();
        let difference = ModelDifference::between(&from, &to);
        let text = Text::new(false).difference("3fa8c1", "00aa11", &difference);
        let expected = "\
3fa8c1 → 00aa11

Metrics
  auc  0.92  →  0.93  (+0.0100)

Parameters
  num_leaves  63  →  31  (-32)

Rank of features by gain
  job  2  →  1
  age  1  →  2";
        assert_eq!(text, expected);
        let same = ModelDifference::between(&from, &from);
        assert_eq!(Text::new(false).difference("a", "b", &same), "a and b do not differ");
    }
}
