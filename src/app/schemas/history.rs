//! A subject's folder: all its versions, and whether they keep what it promises.

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

/// A subject, as its folder has it.
#[derive(Clone, Debug)]
pub struct History {
    /// Where it is.
    pub folder: PathBuf,
    /// Which versions must be able to read each other.
    pub level: Level,
    /// The digests of the released versions, by `v1` and so on.
    pub released: BTreeMap<String, String>,
    /// All of them, oldest first.
    pub versions: Vec<Version>,
}

/// One version.
#[derive(Clone, Debug)]
pub struct Version {
    /// From 1 on.
    pub number: usize,
    /// Its file.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// The same, understood.
    pub schema: Schema,
}

/// `subject.toml`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawSubject {
    compatibility: Level,
    #[serde(default)]
    released: BTreeMap<String, String>,
}

/// The subject in `folder`, or those in its folders.
///
/// # Errors
/// If there is none, or one can't be read; the line says what to make.
pub fn histories(folder: &Path) -> anyhow::Result<Vec<History>> {
    if folder.join(SUBJECT_FILE).exists() {
        return Ok(vec![History::read(folder)?]);
    }
    let entries = fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.join(SUBJECT_FILE).exists() {
            folders.push(path);
        }
    }
    folders.sort();
    anyhow::ensure!(
        !folders.is_empty(),
        "{} holds no subject: put the versions into a folder as v1.avsc and so on, and beside them {SUBJECT_FILE} \
         with the line compatibility = \"BACKWARD\" (or another level)",
        folder.display()
    );
    folders.iter().map(|folder| History::read(folder)).collect()
}

impl History {
    /// Reads a subject's folder.
    ///
    /// # Errors
    /// If a file is missing, or is not what it should be.
    pub fn read(folder: &Path) -> anyhow::Result<Self> {
        let file = folder.join(SUBJECT_FILE);
        let text = fs::read_to_string(&file).with_context(|| {
            format!(
                "cannot read {}: it says compatibility = \"BACKWARD\" or another level",
                file.display()
            )
        })?;
        let raw: RawSubject = toml::from_str(&text)
            .map_err(|error| anyhow::anyhow!("{}: {}", file.display(), error.message()))?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.extension().is_some_and(|kind| kind == "avsc") {
                let number = number_of(&path).with_context(|| {
                    format!(
                        "{} is no version: they are called v1.avsc, v2.avsc and so on",
                        path.display()
                    )
                })?;
                numbers.push(number);
            }
        }
        numbers.sort_unstable();
        anyhow::ensure!(!numbers.is_empty(), "{} has no v1.avsc", folder.display());
        let missing = (1..=numbers.len()).find(|number| !numbers.contains(number));
        if let Some(missing) = missing {
            anyhow::bail!("{} has no v{missing}.avsc, but later versions", folder.display());
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

    /// The folder's name.
    #[must_use]
    pub fn name(&self) -> String {
        let name = self.folder.file_name().unwrap_or(self.folder.as_os_str());
        name.to_string_lossy().into_owned()
    }

    /// The newest version.
    #[must_use]
    pub fn newest(&self) -> &Version {
        self.versions.last().expect("a folder without a version is not read")
    }

    /// Whether the newest version may still change.
    #[must_use]
    pub fn has_draft(&self) -> bool {
        !self.released.contains_key(&self.newest().name())
    }

    /// Whether the files keep what the folder promises: one finding a subject and promise.
    #[must_use]
    pub fn check(&self) -> Vec<CheckResult> {
        let mut found = Vec::new();
        let mut fail = |what: &str, detail: String, fix: &str| {
            found.push(CheckResult::failed(format!("{} {what}", self.name()), detail, fix));
        };
        for problem in self.unkept() {
            fail(
                "released",
                problem,
                "put it back as it was, and make the change in the next version (`foretell schema evolve`)",
            );
        }
        let schemas: Vec<Schema> =
            self.versions.iter().map(|version| version.schema.clone()).collect();
        for breach in breaches(self.level, &schemas) {
            let detail = format!(
                "v{} can't read records of v{}, against {}: {}",
                breach.reading,
                breach.written,
                self.level.name(),
                breach.reason
            );
            fail(
                "compatibility",
                detail,
                "give fields defaults, and those renamed their old name as an alias; or declare another level",
            );
        }
        for problem in self.lost_aliases() {
            fail(
                "aliases",
                problem,
                "keep it: older records have the field, or the type, under that name",
            );
        }
        let newest = self.newest();
        let json = serde_json::from_str(&newest.text).unwrap_or_default();
        let mut undescribed = Vec::new();
        find_undescribed(&json, "", &mut undescribed);
        if !undescribed.is_empty() {
            let detail = format!("{} has no \"doc\" for {}", newest.name(), undescribed.join(", "));
            fail(
                "docs",
                detail,
                "say in a sentence what each is: who reads the data has nothing else",
            );
        }
        if found.is_empty() {
            let draft = if self.has_draft() { ", the newest a draft" } else { ", all released" };
            let detail = format!(
                "{} version{}{draft}, {}",
                self.versions.len(),
                plural(self.versions.len()),
                self.level.name()
            );
            found.push(CheckResult::ok(self.name(), detail));
        }
        found
    }

    /// What is released and not any more as it was; what is not released and older than the newest.
    fn unkept(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for version in &self.versions {
            match self.released.get(&version.name()) {
                Some(digest) if *digest != version.digest() => {
                    problems.push(format!("{} is not the file that was released", version.name()));
                }
                None if version.number < self.versions.len() => {
                    problems.push(format!("{} is older than the newest, and {SUBJECT_FILE} does not have its digest ({})", version.name(), version.digest()));
                }
                Some(_) | None => (),
            }
        }
        let gone = self
            .released
            .keys()
            .filter(|name| !self.versions.iter().any(|version| version.name() == **name));
        problems.extend(gone.map(|name| format!("{name} was released, and its file is gone")));
        problems
    }

    fn lost_aliases(&self) -> Vec<String> {
        let pairs = self.versions.windows(2);
        let lost = pairs.flat_map(|pair| {
            let changes = changes(&pair[0].schema, &pair[1].schema).unwrap_or_default();
            changes.into_iter().filter_map(|change| match change.kind {
                ChangeKind::AliasLost(_) => Some(format!("{}: {change}", pair[1].name())),
                ChangeKind::Added(_)
                | ChangeKind::Removed(_)
                | ChangeKind::Renamed { .. }
                | ChangeKind::TypeRenamed { .. }
                | ChangeKind::Retyped { .. }
                | ChangeKind::SymbolsAdded(_)
                | ChangeKind::SymbolsRemoved(_)
                | ChangeKind::Moved
                | ChangeKind::Default { .. }
                | ChangeKind::Documented => None,
            })
        });
        lost.collect()
    }

    /// Notes in the folder that all versions there are released: none of them may change from here on.
    ///
    /// # Errors
    /// If the file can't be written.
    pub fn release(&mut self) -> anyhow::Result<()> {
        if !self.has_draft() {
            return Ok(());
        }
        let file = self.folder.join(SUBJECT_FILE);
        let mut text = fs::read_to_string(&file)?;
        // What a person has written there stays as it is: the table comes last, and grows at its end.
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

    /// `v1` and so on.
    #[must_use]
    pub fn name(&self) -> String {
        format!("v{}", self.number)
    }

    /// The SHA-256 of the file, as `sha256sum` prints it.
    #[must_use]
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(&self.text))
    }
}

/// The schema in a file.
///
/// # Errors
/// If there is none.
pub fn read_schema(path: &Path) -> anyhow::Result<Schema> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&text).with_context(|| format!("{} is not a valid schema", path.display()))
}

pub(super) fn parse(text: &str) -> anyhow::Result<Schema> {
    evolution::parse(text).map_err(anyhow::Error::msg)
}

pub(super) fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

fn number_of(path: &Path) -> Option<usize> {
    let number = path.file_stem()?.to_str()?.strip_prefix('v')?;
    let is_plain = number.chars().all(|c| c.is_ascii_digit()) && !number.starts_with('0');
    if is_plain { number.parse().ok() } else { None }
}

/// The paths of the records, enums and fields that have no description.
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
            if let (Some(name), false) =
                (object.get("name").and_then(Value::as_str), is_described(schema))
            {
                missing.push(if path.is_empty() {
                    name.to_owned()
                } else {
                    format!("{path} ({name})")
                });
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
