//! The folder of a subject: all versions of its schema, and the checks of them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::app::check_result::CheckResult;
use foretell_avro::evolution::{self, ChangeKind, Level, Schema, breaches, changes};

const SUBJECT_FILE: &str = "subject.toml";

/// A subject with all versions of its schema.
#[derive(Clone, Debug)]
pub struct History {
    pub folder: PathBuf,
    /// Decides which versions must be able to read each other.
    pub level: Level,
    /// Digests of the released versions, by name (`v1`).
    pub released: BTreeMap<String, String>,
    /// Oldest first; never empty.
    pub versions: Vec<Version>,
}

/// One version of a schema.
#[derive(Clone, Debug)]
pub struct Version {
    /// Counted from 1.
    pub number: usize,
    pub path: PathBuf,
    /// Content of the file.
    pub text: String,
    /// The content, parsed.
    pub schema: Schema,
}

/// Content of `subject.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubject {
    compatibility: Level,
    #[serde(default)]
    released: BTreeMap<String, String>,
}

/// The subject in `folder`, or all subjects in its subfolders.
///
/// # Errors
/// If there is no subject, or one cannot be read; the message says what to create.
pub fn histories(folder: &Path) -> anyhow::Result<Vec<History>> {
    if folder.join(SUBJECT_FILE).exists() {
        return Ok(vec![History::read(folder)?]);
    }
    let mut folders = paths_in(folder)?;
    folders.retain(|path| path.join(SUBJECT_FILE).exists());
    anyhow::ensure!(
        !folders.is_empty(),
        "{} holds no subject: create a folder with the versions (v1.avsc, v2.avsc, …) and a {SUBJECT_FILE} with the line \
         compatibility = \"BACKWARD\" (or another level)",
        folder.display()
    );
    folders.iter().map(|folder| History::read(folder)).collect()
}

/// Everything in `folder`, in order.
fn paths_in(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot read the folder {}", folder.display());
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).with_context(context)? {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

impl History {
    /// Reads the folder of a subject.
    ///
    /// # Errors
    /// If a file is missing or invalid.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(SUBJECT_FILE);
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "cannot read {}: create it with the line compatibility = \"BACKWARD\" (or another level)",
                file.display()
            )
        })?;
        let raw: RawSubject = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", file.display(), error.message()))?;
        let mut numbers = Vec::new();
        for path in paths_in(folder)? {
            if path.extension().is_some_and(|extension| extension == "avsc") {
                let number = number_of(&path).with_context(|| {
                    format!("{} is no version: name it v1.avsc, v2.avsc, …", path.display())
                })?;
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        anyhow::ensure!(!numbers.is_empty(), "{} has no v1.avsc", folder.display());
        let missing = (1..=numbers.len()).find(|number| !numbers.contains(number));
        if let Some(missing) = missing {
            anyhow::bail!("{} has no v{missing}.avsc, but a later version", folder.display());
        }
        let versions = numbers.into_iter().map(|number| Version::read(folder, number));
        let versions = versions.collect::<anyhow::Result<_>>()?;
        Ok(Self {
            folder: folder.to_owned(),
            level: raw.compatibility,
            released: raw.released,
            versions,
        })
    }

    /// Name of the folder.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or(self.folder.as_os_str());
        name.to_string_lossy().into_owned()
    }

    #[must_use]
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("a history has a version")
    }

    /// Whether the newest version is not released, so that it may still change.
    #[must_use]
    pub fn has_draft(&self) -> bool {
        !self.released.contains_key(&self.newest().name())
    }

    /// Checks the files: every problem, or one line that there is none.
    #[must_use]
    pub fn check(&self) -> Vec<CheckResult> {
        let mut results = Vec::new();
        let mut fail = |check: &str, detail: String, fix: &str| {
            results.push(CheckResult::failed(format!("{} {check}", self.name()), detail, fix));
        };
        for problem in self.changed_releases() {
            let fix =
                "restore it, and make the change in the next version (`foretell schema evolve`)";
            fail("released", problem, fix);
        }
        let schemas: Vec<Schema> =
            self.versions.iter().map(|version| version.schema.clone()).collect();
        for breach in breaches(self.level, &schemas) {
            let detail = format!(
                "v{} cannot read records of v{}, as {} requires: {}",
                breach.reading,
                breach.written,
                self.level.name(),
                breach.reason
            );
            let fix = "give fields defaults, and renamed fields their old name as an alias; or set another level";
            fail("compatibility", detail, fix);
        }
        for problem in self.lost_aliases() {
            fail("aliases", problem, "keep it: older records have the field or type by that name");
        }
        let newest = self.newest();
        let json = serde_json::from_str(&newest.text).unwrap_or_default();
        let mut undescribed = Vec::new();
        find_undescribed(&json, "", &mut undescribed);
        if !undescribed.is_empty() {
            let detail = format!("{} has no \"doc\" for {}", newest.name(), undescribed.join(", "));
            fail("docs", detail, "describe each in a sentence, for readers of the data");
        }
        if results.is_empty() {
            let count = self.versions.len();
            let plural = if count == 1 { "" } else { "s" };
            let draft = if self.has_draft() { "the newest a draft" } else { "all released" };
            let detail = format!("{count} version{plural}, {draft}, {}", self.level.name());
            results.push(CheckResult::ok(self.name(), detail));
        }
        results
    }

    /// Released versions that were changed or deleted, and versions that should have been released.
    fn changed_releases(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for version in &self.versions {
            match self.released.get(&version.name()) {
                Some(digest) if *digest != version.digest() => {
                    problems.push(format!("{} is not the file that was released", version.name()));
                }
                None if version.number < self.versions.len() => problems.push(format!(
                    "{} is older than the newest, but {SUBJECT_FILE} does not have its digest ({})",
                    version.name(),
                    version.digest()
                )),
                Some(_) | None => (),
            }
        }
        let exists = |name: &str| self.versions.iter().any(|version| version.name() == name);
        let deleted = self.released.keys().filter(|name| !exists(name));
        problems
            .extend(deleted.map(|name| format!("{name} was released, but its file is missing")));
        problems
    }

    fn lost_aliases(&self) -> Vec<String> {
        let mut lost = Vec::new();
        for pair in self.versions.windows(2) {
            let mut changes = changes(&pair[0].schema, &pair[1].schema).unwrap_or_default();
            changes.retain(|change| matches!(change.kind, ChangeKind::AliasLost(_)));
            lost.extend(changes.iter().map(|change| format!("{}: {change}", pair[1].name())));
        }
        lost
    }

    /// Records the digests of all versions in `subject.toml`. From then on none of them may change.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn release(&mut self) -> anyhow::Result<()> {
        if !self.has_draft() {
            return Ok(());
        }
        let file = self.folder.join(SUBJECT_FILE);
        let mut text = fs::read_to_string(&file)?;
        // Comments and layout of the file are kept: the table comes last, and lines are appended to it.
        if self.released.is_empty() && !text.contains("[released]") {
            text.push_str("\n[released]\n");
        }
        for version in &self.versions {
            let Entry::Vacant(vacant) = self.released.entry(version.name()) else { continue };
            let digest = version.digest();
            text.push_str(&format!("{} = \"{digest}\"\n", version.name()));
            vacant.insert(digest);
        }
        let raw: Result<RawSubject, _> = toml::from_str(&text);
        let text = match raw {
            Ok(raw) if raw.released == self.released => text,
            Ok(_) | Err(_) => toml::to_string(&RawSubject {
                compatibility: self.level,
                released: self.released.clone(),
            })?,
        };
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

impl Version {
    fn read(folder: &Path, number: usize) -> anyhow::Result<Self> {
        let path = folder.join(format!("v{number}.avsc"));
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let schema =
            parse(&text).with_context(|| format!("{} is not a valid schema", path.display()))?;
        Ok(Self { number, path, text, schema })
    }

    /// Name of the version and its file, such as `v1`.
    #[must_use]
    pub fn name(&self) -> String {
        format!("v{}", self.number)
    }

    /// SHA-256 of the file, as `sha256sum` prints it.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.text))
    }
}

/// Reads a schema from a file.
///
/// # Errors
/// If there is no file, or no valid schema in it.
pub fn read_schema(path: &Path) -> anyhow::Result<Schema> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a valid schema", path.display()))
}

pub(super) fn parse(text: &str) -> anyhow::Result<Schema> {
    evolution::parse(text).map_err(anyhow::Error::msg)
}

fn number_of(path: &Path) -> Option<usize> {
    let number = path.file_stem()?.to_str()?.strip_prefix('v')?;
    let is_plain = number.chars().all(|c| c.is_ascii_digit()) && !number.starts_with('0');
    if is_plain { number.parse().ok() } else { None }
}

/// Collects the paths of the records, enums and fields that have no `doc`.
fn find_undescribed(schema: &serde_json::Value, path: &str, missing: &mut Vec<String>) {
    use serde_json::Value;
    let is_described =
        |value: &Value| value["doc"].as_str().is_some_and(|doc| !doc.trim().is_empty());
    match schema {
        Value::Array(branches) => {
            for branch in branches {
                find_undescribed(branch, path, missing);
            }
        }
        Value::Object(object) => {
            if let Some(name) = object.get("name").and_then(Value::as_str)
                && !is_described(schema)
            {
                let name = if path.is_empty() { name } else { &format!("{path} ({name})") };
                missing.push(name.to_owned());
            }
            for field in object.get("fields").and_then(Value::as_array).into_iter().flatten() {
                let name = field["name"].as_str().unwrap_or_default();
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
                if !is_described(field) {
                    missing.push(path.clone());
                }
                find_undescribed(&field["type"], &path, missing);
            }
            for inner in ["type", "items", "values"] {
                if let Some(inner @ (Value::Object(_) | Value::Array(_))) = object.get(inner) {
                    find_undescribed(inner, path, missing);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}
