//! Variants of a configuration: keys that `foretell replay` sets in addition to the file, the environment and the flags.

use std::{fs, path::Path};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::{
    Config, ConfigError,
    keys::{Keys, Kind},
    overrides::Override,
    source::{Source, written_form},
    wording,
};

/// Maximum number of variants in a file.
const VARIANTS_MAX: usize = 16;
/// Maximum number of characters of a name, which is the first column of a table.
const NAME_MAX: usize = 40;

/// A configuration with a name.
#[derive(Clone, Debug)]
pub struct Variant {
    /// The name in the file of variants.
    pub name: String,
    /// The configuration with the keys of the variant.
    pub config: Config,
}

/// Keys and sections that a variant cannot set, each with the reason.
const FIXED: &[(&str, &str)] = &[
    ("application", "all variants are the same application"),
    ("topics", "all variants read the same topics"),
    ("broker", "all variants read the same topics"),
    ("schema_registry", "all variants read the same topics"),
    ("streams.clock_tolerance", ""),
    ("streams", "it has no effect in a replay, which runs in memory and commits nothing"),
    ("delivery", "it has no effect in a replay, which delivers nothing"),
    ("mlflow", "it has no effect in a replay, which tracks nothing"),
    ("http", "it has no effect in a replay, which serves no HTTP"),
    ("events.schema", "all variants read the same events"),
    ("events.event_id", "all variants read the same events"),
    ("events.respondent_id", "all variants read the same events"),
    ("events.event_time", "all variants read the same events"),
    ("events.completed", "all variants read the same events"),
    ("events.companions", "all variants read the same events"),
    ("outcomes.labels", "metrics of other labels could not be compared"),
    ("data.play", "all variants replay the same table"),
];

impl Config {
    /// Reads the variants in `file`, each over the configuration at `path` with `sets`, as [`Self::load`] reads it.
    ///
    /// # Errors
    /// [`ConfigError`], whose message is one line that names the file, the line, the variant and the key.
    pub fn load_variants(
        path: &Path,
        sets: &[String],
        file: &Path,
    ) -> Result<Vec<Variant>, ConfigError> {
        let text = fs::read_to_string(file).map_err(|source| ConfigError::Unreadable {
            what: "the variants",
            path: file.to_owned(),
            source,
        })?;
        let found = VariantsFile { path: file, text: &text }.read(&Keys::of_configuration())?;
        let load = |(name, overrides): (String, Vec<Override>)| {
            Ok(Variant { config: Self::load_with(path, &[], sets, &overrides)?, name })
        };
        found.into_iter().map(load).collect()
    }
}

/// A file of variants.
struct VariantsFile<'t> {
    path: &'t Path,
    text: &'t str,
}

/// The keys of one variant.
struct Collector<'f> {
    file: &'f VariantsFile<'f>,
    keys: &'f Keys,
    variant: &'f str,
    overrides: Vec<Override>,
}

impl VariantsFile<'_> {
    /// The overrides of each variant, in the order of the file.
    fn read(&self, keys: &Keys) -> Result<Vec<(String, Vec<Override>)>, ConfigError> {
        let root = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            let problem = wording::plain(&error.message().trim().replace('\n', "; "));
            self.refuse(at, problem)
        })?;
        let mut named = Vec::new();
        for (section, value) in root.get_ref() {
            let DeValue::Table(variants) = value.get_ref() else {
                return Err(self.misplaced(section.span().start, section.get_ref()));
            };
            if section.get_ref() != "variants" {
                return Err(self.misplaced(section.span().start, section.get_ref()));
            }
            named.extend(variants);
        }
        named.sort_by_key(|(name, _)| name.span().start);
        let start = named.get(VARIANTS_MAX).map(|(name, _)| name.span().start);
        if let Some(start) = start {
            let problem = format!("{} variants: there can be {VARIANTS_MAX}", named.len());
            return Err(self.refuse(start, problem));
        }
        named.into_iter().map(|(name, value)| self.variant(name, value, keys)).collect()
    }

    fn variant(
        &self,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &Spanned<DeValue<'_>>,
        keys: &Keys,
    ) -> Result<(String, Vec<Override>), ConfigError> {
        let (at, name) = (name.span().start, name.get_ref().as_ref());
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) {
            let problem = format!(
                "{name:?} is no name: use 1 to {NAME_MAX} letters, digits, '.', '_' and '-'"
            );
            return Err(self.refuse(at, problem));
        }
        let DeValue::Table(table) = value.get_ref() else {
            let problem = format!("variant {name}: write its keys under [variants.{name}]");
            return Err(self.refuse(at, problem));
        };
        let mut collector = Collector { file: self, keys, variant: name, overrides: Vec::new() };
        collector.add(table, "")?;
        // This order sets a section before its keys, whatever the file has first.
        collector.overrides.sort_by(|one, other| one.key.cmp(&other.key));
        Ok((name.to_owned(), collector.overrides))
    }

    fn misplaced(&self, at: usize, name: &str) -> ConfigError {
        let problem = format!(
            "{name:?} is not in a variant: a file of variants has sections [variants.NAME] only"
        );
        self.refuse(at, problem)
    }

    fn refuse(&self, at: usize, problem: String) -> ConfigError {
        ConfigError::At { place: format!("{}:{}", self.path.display(), self.line(at)), problem }
    }

    fn line(&self, at: usize) -> usize {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        1 + before.iter().filter(|byte| **byte == b'\n').count()
    }
}

impl Collector<'_> {
    /// Adds the keys of a table; `above` is the section that it is of.
    fn add(&mut self, table: &DeTable<'_>, above: &str) -> Result<(), ConfigError> {
        for (name, value) in table {
            let name_text = name.get_ref();
            let key = if above.is_empty() {
                name_text.to_string()
            } else {
                format!("{above}.{name_text}")
            };
            let at = name.span().start;
            let text = self.file.text.get(value.span()).unwrap_or_default();
            // A table in braces is the value of a key that is no section, such as a domain of [tuning.space].
            let is_value = text.starts_with('{') && self.keys.kind(&key) != Some(Kind::Section);
            if let (DeValue::Table(inner), false) = (value.get_ref(), is_value) {
                self.add(inner, &key)?;
                continue;
            }
            let line = self.file.line(at);
            let (path, variant) = (self.file.path.to_owned(), self.variant.to_owned());
            let source = Source::Variant { path, line, variant };
            if let Some(reason) = reason_against(&key) {
                let place = source.to_string();
                let problem = format!("{}: a variant cannot set it: {reason}", written_form(&key));
                return Err(ConfigError::At { place, problem });
            }
            self.overrides.push(Override { key, value: text.to_owned(), source });
        }
        Ok(())
    }
}

/// The reason why a variant cannot set `key`; none if it can.
fn reason_against(key: &str) -> Option<&'static str> {
    let is_in = |section: &str| {
        key.strip_prefix(section).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let (_, reason) = FIXED.iter().find(|(fixed, _)| is_in(fixed))?;
    (!reason.is_empty()).then_some(*reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Vec<Variant>, String> {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/adult/foretell.toml");
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("variants.toml");
        fs::write(&file, text).unwrap();
        let sets = ["learning.seed=7".to_owned()];
        Config::load_variants(Path::new(example), &sets, &file).map_err(|error| {
            error.to_string().replace(&folder.path().display().to_string(), "FOLDER")
        })
    }

    #[test]
    fn a_variant_overrides_keys_in_every_form_of_toml() {
        let variants = load(
            "[variants.second]\n\"learning.retrain_after\" = 500\nlearning.last = \"7d\"\n\
             scoring.when = { answers = 5 }\n\n\
             [variants.first]\n[variants.first.learning]\nlast = 200\n\
             [variants.first.tuning]\nspace.num_leaves = { int = [7, 15] }\n\
             [variants.first.data.initial]\npath = \"other.csv\"\n",
        )
        .unwrap();
        let [second, first] = variants.as_slice() else { panic!("{variants:?}") };
        assert_eq!((second.name.as_str(), first.name.as_str()), ("second", "first"));
        let (second, first) = (&second.config, &first.config);
        assert_eq!(second.learning.rules.retrain_after, 500);
        assert_eq!(
            second.learning.policy.retention,
            foretell_ml::Retention::Within(7 * 86_400_000)
        );
        assert_eq!(first.learning.policy.retention, foretell_ml::Retention::Last(200));
        assert_eq!((first.learning.rules.retrain_after, first.learning.seed), (3_000, 7));
        assert!(!format!("{:?}", second.gather.when).contains("Complete"));
        let initial = first.data.initial.as_ref().unwrap();
        assert!(initial.path.ends_with("deploy/adult/other.csv"), "{initial:?}");
        assert_eq!(initial.label, "income_bracket", "the other keys of the table stay");
        assert_ne!(
            format!("{:?}", first.tuning.study.space),
            format!("{:?}", second.tuning.study.space)
        );
    }

    #[test]
    fn an_error_names_the_file_the_line_the_variant_and_the_key() {
        let check = |text: &str, expected: &str| {
            let error = load(text).map(|variants| variants.len()).unwrap_err();
            assert!(error.starts_with(expected), "{text:?}: {error}");
        };
        check(
            "[variants.fast]\n\nlearning.retrain_after2 = 5",
            "FOLDER/variants.toml:3: variant fast: there is no [learning] retrain_after2: did you mean [learning] retrain_after?",
        );
        check(
            "[variants.fast]\nlearning.retrain_after = \"soon\"",
            "FOLDER/variants.toml:2: variant fast: [learning] retrain_after: ",
        );
        check(
            "[variants.fast]\nlearning.judge.holdout = 2.0",
            "FOLDER/variants.toml:2: variant fast: [learning.judge] holdout: it is 2: set a share",
        );
        check(
            "[variants.fast]\ntopics.partitions = 2",
            "FOLDER/variants.toml:2: variant fast: [topics] partitions: a variant cannot set it: all variants read",
        );
        check(
            "[variants.fast.broker]\nbootstrap_servers = \"other:9092\"",
            "FOLDER/variants.toml:2: variant fast: [broker] bootstrap_servers: a variant cannot",
        );
        check("[variants.fast]\nx = ", "FOLDER/variants.toml:2: ");
        check("[learning]\nretrain_after = 5", "FOLDER/variants.toml:1: \"learning\" is not in");
        check("variants = 5", "FOLDER/variants.toml:1: \"variants\" is not in a variant");
        check("[variants]\nfast = 5", "FOLDER/variants.toml:2: variant fast: write its keys under");
        check(
            "[variants.\"a b\"]\nlearning.seed = 5",
            "FOLDER/variants.toml:1: \"a b\" is no name",
        );
        let many: String = (0..17).map(|number| format!("[variants.v{number}]\n")).collect();
        check(&many, "FOLDER/variants.toml:17: 17 variants: there can be 16");
    }

    #[test]
    fn only_settings_that_can_differ_are_accepted() {
        for key in [
            "streams.clock_tolerance",
            "outcomes.window",
            "events.duplicates_within",
            "data.initial.path",
        ] {
            assert_eq!(reason_against(key), None, "{key}");
        }
        for key in ["streams", "streams.threads", "http.bind", "outcomes.labels", "data.play.path"]
        {
            assert!(reason_against(key).is_some(), "{key}");
        }
    }
}
