//! The section about actions of the configuration as written (see `raw.rs`), and its check: conditions are compiled here, so that
//! an error names the place in the file.

use std::{fmt, sync::Arc, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{
        Error, MapAccess, Visitor,
        value::{MapAccessDeserializer, StrDeserializer},
    },
};
#[cfg(test)]
use serde::{Serialize, Serializer, ser::SerializeMap as _};

use crate::{
    config::{ConfigError, Sources},
    processors::actions::{
        AFTER_MAX, ActionRule, ActionSettings, After, AtMost, CancelOn, NAME_MAX, REASONS_MAX,
        RULES_MAX, RuleSettings, Rules, TIMES_MAX, Variables,
    },
};
use foretell_rules::Condition;

/// Rules that act on predictions: see [Actions](actions.md). At most 100; each has its own `[[actions]]`.
#[derive(Clone, Debug, Deserialize)]
#[cfg_attr(test, derive(Serialize))]
#[serde(deny_unknown_fields)]
pub(super) struct RawAction {
    /// Name of the rule: up to 64 letters, digits, `_` and `-`; no other rule has it. Keep it when you change the rule: respondents
    /// stay in or out of its control share, and pending actions are done.
    pub name: String,
    /// [Condition](conditions.md) in CEL on a prediction, such as `label == "yes" && answers.age >= 25`; up to 4,096
    /// bytes.
    pub when: String,
    /// Time from the prediction to its action, up to 366 days: event time, or with `{ wall = "10m" }` the time of day. `0s`: at
    /// once.
    #[serde(default = "at_once")]
    pub after: RawAfter,
    /// What cancels a pending action. Without it, a pending action is done.
    #[serde(default)]
    pub cancel_on: Vec<CancelOn>,
    /// Maximum number of actions for one respondent in any period of event time; more are not requested. An event that is later
    /// than its period and `outcomes.grace` causes none.
    #[serde(default, deserialize_with = "at_most")]
    pub at_most: AtMost,
    /// Share of the respondents for whom the rule never acts, chosen by a hash; from 0 to below 1. Their actions are recorded as held
    /// out, so that the effect of acting can be measured.
    #[serde(default)]
    pub control: f64,
    /// Number of features on the record of an action, those that contribute most to its prediction; from 0 to 100.
    #[serde(default = "three")]
    pub reasons: usize,
}

/// The time from a prediction to its action: `"10m"` or `{ wall = "10m" }`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RawAfter(pub After);

fn at_once() -> RawAfter {
    RawAfter(After::EventTime(Duration::ZERO))
}

fn three() -> usize {
    3
}

impl<'de> Deserialize<'de> for RawAfter {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AfterVisitor)
    }
}

struct AfterVisitor;

impl<'de> Visitor<'de> for AfterVisitor {
    type Value = RawAfter;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration of event time, such as \"10m\", or { wall = \"10m\" }")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<RawAfter, E> {
        duration(text).map(|after| RawAfter(After::EventTime(after)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawAfter, A::Error> {
        let Some((key, text)) = map.next_entry::<String, String>()? else {
            return Err(A::Error::missing_field("wall"));
        };
        if key != "wall" {
            return Err(A::Error::unknown_field(&key, &["wall"]));
        }
        if let Some(other) = map.next_key::<String>()? {
            return Err(A::Error::unknown_field(&other, &["wall"]));
        }
        duration(&text).map(|after| RawAfter(After::Wall(after)))
    }
}

/// Reads a table; anything else is refused with an example of one.
fn at_most<'de, D: Deserializer<'de>>(deserializer: D) -> Result<AtMost, D::Error> {
    deserializer.deserialize_any(AtMostVisitor)
}

struct AtMostVisitor;

impl<'de> Visitor<'de> for AtMostVisitor {
    type Value = AtMost;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a number of actions in a period of event time, such as { times = 3, per = \"7d\" }",
        )
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<AtMost, A::Error> {
        AtMost::deserialize(MapAccessDeserializer::new(map))
    }
}

fn duration<E: Error>(text: &str) -> Result<Duration, E> {
    humantime_serde::deserialize(StrDeserializer::new(text))
}

#[cfg(test)]
impl Serialize for RawAfter {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            After::EventTime(after) => humantime_serde::serialize(&after, serializer),
            After::Wall(after) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("wall", &humantime_serde::Serde::from(after))?;
                map.end()
            }
        }
    }
}

/// Checks the rules, and compiles their conditions.
pub(super) fn settings(
    written: &[RawAction],
    variables: Variables,
    sources: &Sources,
) -> Result<ActionSettings, ConfigError> {
    if written.len() > RULES_MAX {
        let problem = format!("[[actions]]: {} rules: there can be {RULES_MAX}", written.len());
        return Err(ConfigError::At {
            place: sources.of(&format!("actions.{RULES_MAX}")),
            problem,
        });
    }
    let mut rules = Vec::with_capacity(written.len());
    for (index, action) in written.iter().enumerate() {
        let earlier = &written[..index];
        check(action, earlier).map_err(|(key, problem)| {
            let place = sources.of(&format!("actions.{index}.{key}"));
            ConfigError::At { place, problem: named(action, key, &problem) }
        })?;
        let condition = Condition::compile(&action.when, variables.scope()).map_err(|error| {
            let at = (error.line, error.column);
            let place = sources.inside(&format!("actions.{index}.when"), &action.when, at);
            ConfigError::At { place, problem: named(action, "when", &error.message) }
        })?;
        rules.push(ActionRule::new(action.settings(), condition));
    }
    Ok(ActionSettings { rules: Rules::new(rules), variables: Arc::new(variables) })
}

/// A problem with a key of a rule.
fn named(action: &RawAction, key: &str, problem: &str) -> String {
    format!("[[actions]] {:?} {key}: {problem}", action.name)
}

/// Checks the values of a rule; an error has the key and the problem.
fn check(action: &RawAction, earlier: &[RawAction]) -> Result<(), (&'static str, String)> {
    let refuse = |key, problem: &str| Err((key, problem.to_owned()));
    let name = &action.name;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) {
        let problem = format!("use 1 to {NAME_MAX} letters, digits, '_' and '-'");
        return Err(("name", problem));
    }
    if earlier.iter().any(|other| other.name == *name) {
        return refuse("name", "another rule has this name: each needs its own");
    }
    let (After::EventTime(after) | After::Wall(after)) = action.after.0;
    if after > AFTER_MAX {
        return refuse("after", "it can be 366 days at most");
    }
    let AtMost { times, per } = action.at_most;
    if !(1..=TIMES_MAX).contains(&times) {
        return Err(("at_most", format!("times is {times}: it must be from 1 to {TIMES_MAX}")));
    }
    if per.as_millis() == 0 || per > AFTER_MAX {
        return refuse("at_most", "per must be from 1 ms to 366 days, such as \"7d\"");
    }
    if !(0.0..1.0).contains(&action.control) {
        let problem =
            format!("it is {}: it must be a share from 0 to below 1, such as 0.1", action.control);
        return Err(("control", problem));
    }
    if action.reasons > REASONS_MAX {
        return Err((
            "reasons",
            format!("it is {}: it must be from 0 to {REASONS_MAX}", action.reasons),
        ));
    }
    Ok(())
}

impl RawAction {
    fn settings(&self) -> RuleSettings {
        RuleSettings {
            name: self.name.clone(),
            when: self.when.clone(),
            after: self.after.0,
            cancel_on: self.cancel_on.clone(),
            at_most: self.at_most,
            control: self.control,
            reasons: self.reasons,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::Config;

    /// The rules of a configuration with `written` after its other sections, on the example's events.
    fn load(written: &str) -> Result<ActionSettings, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("foretell.toml");
        let schema = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas/questionnaire-event/v1.avsc");
        // Seven lines, so that `written` begins on line 8.
        let text = format!(
            "application.id = 'a'\n[events]\nschema = '{schema}'\nrespondent_id = 'respondent_id'\n\
             event_time = 'event_time'\n[outcomes]\nlabels = ['<=50K', '>50K']\n{written}"
        );
        fs::write(&path, text).unwrap();
        let config = Config::load(&path, &["events.ignored=['event_id', 'completed']".to_owned()]);
        let shorten = |error: ConfigError| {
            error.to_string().replace(&format!("{}/", folder.path().display()), "")
        };
        config.map(|config| config.actions).map_err(shorten)
    }

    fn refused(written: &str, expected: &str) {
        let error = load(written).expect_err(written);
        assert_eq!(error, expected, "{written}");
    }

    #[test]
    fn a_rule_has_what_is_written_and_safe_defaults() {
        let rule = |written: &str| {
            let rules = load(written).unwrap().rules;
            rules.iter().next().unwrap().settings.clone()
        };
        let least = rule("[[actions]]\nname = 'call'\nwhen = 'answers.age >= 25'\n");
        let expected = RuleSettings {
            name: "call".to_owned(),
            when: "answers.age >= 25".to_owned(),
            after: After::EventTime(Duration::ZERO),
            cancel_on: Vec::new(),
            at_most: AtMost { times: 1, per: Duration::from_secs(7 * 24 * 60 * 60) },
            control: 0.0,
            reasons: 3,
        };
        assert_eq!(least, expected);
        let most = rule(
            "[[actions]]\nname = 'offer-call'\n\
             when = 'label == \">50K\" && probability[\">50K\"] >= 0.8 && answers.age >= 25'\n\
             after = { wall = '10m' }\ncancel_on = ['outcome', 'event', 'better_prediction']\n\
             at_most = { times = 2, per = '1d' }\ncontrol = 0.1\nreasons = 5\n",
        );
        let expected = RuleSettings {
            name: "offer-call".to_owned(),
            when: most.when.clone(),
            after: After::Wall(Duration::from_secs(600)),
            cancel_on: vec![CancelOn::Outcome, CancelOn::Event, CancelOn::BetterPrediction],
            at_most: AtMost { times: 2, per: Duration::from_secs(24 * 60 * 60) },
            control: 0.1,
            reasons: 5,
        };
        assert_eq!(most, expected);
        let after = rule("[[actions]]\nname = 'a'\nwhen = 'true'\nafter = '10m'\n").after;
        assert_eq!(after, After::EventTime(Duration::from_secs(600)));
        assert!(load("").unwrap().rules.is_empty());
    }

    #[test]
    fn a_condition_that_cannot_be_used_is_refused_with_file_line_and_column() {
        let refuse = |when: &str, expected: &str| {
            refused(&format!("[[actions]]\nname = 'call'\nwhen = {when}\n"), expected);
        };
        refuse(
            "'answers.agee >= 25'",
            "foretell.toml:10:17: [[actions]] \"call\" when: answers.agee is not a question of \
             the event schema; did you mean answers.age?",
        );
        refuse(
            "\"label == '>50k'\"",
            "foretell.toml:10:18: [[actions]] \"call\" when: label is never \">50k\"; did you mean \
             \">50K\"?",
        );
        let at = |when: &str, place: &str| {
            let error = load(&format!("[[actions]]\nname = 'call'\nwhen = {when}\n")).unwrap_err();
            let found = error.split(": [[actions]] \"call\" when: ").next().unwrap();
            assert_eq!(found, place, "{error}");
        };
        at("'answers.age >= '", "foretell.toml:10:24");
        at("'probability[\">5K\"] > 0.5'", "foretell.toml:10:21");
        at("'answers.age >= \"25\"'", "foretell.toml:10:21");
        at("'answers.age'", "foretell.toml:10:17");
        at("''", "foretell.toml:10:9");
        at("'''\nanswers.age >= 25\n&& answers.jobb == 'x'\n'''", "foretell.toml:12:12");
        at("\"label == \\\"yes\\\"\"", "foretell.toml:10: line 1, column 10 of the text");
        // In the second rule.
        let two =
            "[[actions]]\nname = 'a'\nwhen = 'true'\n[[actions]]\nname = 'b'\nwhen = 'nothing'\n";
        assert!(load(two).unwrap_err().starts_with("foretell.toml:13:9: [[actions]] \"b\" when: "));
    }

    #[test]
    fn a_value_out_of_bounds_is_refused_with_its_line() {
        let refuse = |keys: &str, expected: &str| {
            let written = format!("[[actions]]\nname = 'call'\nwhen = 'true'\n{keys}\n");
            refused(&written, &format!("foretell.toml:11: [[actions]] \"call\" {expected}"));
        };
        for control in ["1.0", "-0.1", "nan"] {
            let shown = if control == "nan" { "NaN" } else { control.trim_end_matches(".0") };
            let problem = format!(
                "control: it is {shown}: it must be a share from 0 to below 1, such as 0.1"
            );
            refuse(&format!("control = {control}"), &problem);
        }
        refuse("reasons = 101", "reasons: it is 101: it must be from 0 to 100");
        refuse("after = '367d'", "after: it can be 366 days at most");
        refuse("after = { wall = '367d' }", "after: it can be 366 days at most");
        let at_most = "at_most: times is 0: it must be from 1 to 100";
        refuse("at_most = { times = 0, per = '7d' }", at_most);
        let per = "at_most: per must be from 1 ms to 366 days, such as \"7d\"";
        refuse("at_most = { times = 1, per = '0s' }", per);
        let error = load("[[actions]]\nname = 'call'\nwhen = 'true'\nat_most = 3\n").unwrap_err();
        for words in
            ["foretell.toml:11", "invalid type: integer `3`", "{ times = 3, per = \"7d\" }"]
        {
            assert!(error.contains(words), "{words} in {error}");
        }
        let name = |name: &str| {
            let written = format!("[[actions]]\nname = '{name}'\nwhen = 'true'\n");
            let problem = "name: use 1 to 64 letters, digits, '_' and '-'";
            refused(&written, &format!("foretell.toml:9: [[actions]] {name:?} {problem}"));
        };
        ["", "a b", "a.b", "é", &"a".repeat(65)].iter().for_each(|invalid| name(invalid));
        let one = "[[actions]]\nname = 'call'\nwhen = 'true'\n";
        refused(
            &one.repeat(2),
            "foretell.toml:12: [[actions]] \"call\" name: another rule has this name: each needs its own",
        );
        let many = (0..101).map(|rule| one.replace("call", &format!("call{rule}")));
        let error = load(&many.collect::<String>()).unwrap_err();
        assert!(error.ends_with("[[actions]]: 101 rules: there can be 100"), "{error}");
        let long =
            format!("[[actions]]\nname = 'call'\nwhen = 'label != \"{}\"'\n", "a".repeat(4_096));
        assert!(load(&long).unwrap_err().contains("4096"));
    }

    #[test]
    fn an_unknown_key_or_value_is_refused() {
        let refuse = |keys: &str, words: &[&str]| {
            let written = format!("[[actions]]\nname = 'call'\nwhen = 'true'\n{keys}\n");
            let error = load(&written).expect_err(keys);
            for words in words {
                assert!(error.contains(words), "{words:?} in {error}");
            }
        };
        refuse("cancel = []", &["foretell.toml:11: ", "`cancel`", "`cancel_on`"]);
        refuse("cancel_on = ['outcomes']", &["foretell.toml:11: ", "`outcomes`", "`outcome`"]);
        refuse("after = 10", &["foretell.toml:11: ", "\"10m\", or { wall = \"10m\" }"]);
        refuse("after = 'soon'", &["foretell.toml:11: "]);
        refuse("after = { event = '10m' }", &["foretell.toml:11: ", "`event`", "`wall`"]);
        refuse("after = {}", &["foretell.toml:11: ", "`wall`"]);
        refuse("after = { wall = '1m', event = '1m' }", &["foretell.toml:11: ", "`event`"]);
        refuse("at_most = { times = 1 }", &["foretell.toml:11: ", "`per`"]);
        let error = load("[[actions]]\nname = 'call'\n").unwrap_err();
        assert!(error.contains("missing field `when`"), "{error}");
    }
}
