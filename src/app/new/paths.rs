//! The files of an application on the disk: which there are, and which may be written.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    app::{
        generate,
        new::{
            CONFIGURATION, INITIAL, PLAY, README, Request,
            files::{self, Application},
        },
    },
    config::Config,
};

/// The files of an application.
pub(super) struct Paths {
    folder: PathBuf,
    schema: PathBuf,
    subject: PathBuf,
}

impl Paths {
    pub(super) fn new(folder: &Path, id: &str) -> Self {
        let subject = folder.join("schemas").join(files::namespace(id));
        Self {
            folder: folder.to_owned(),
            schema: subject.join("v1.avsc"),
            subject: subject.join("subject.toml"),
        }
    }

    pub(super) fn in_folder(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Checks that no file is replaced by mistake, and that the file to read is not among them.
    pub(super) fn check(&self, request: &Request) -> anyhow::Result<()> {
        let folder = self.folder.display();
        let tables = [self.in_folder(INITIAL), self.in_folder(PLAY)];
        let is_source = |path: &PathBuf| {
            fs::canonicalize(path)
                .ok()
                .is_some_and(|path| fs::canonicalize(&request.file).ok() == Some(path))
        };
        anyhow::ensure!(
            !tables.iter().any(is_source),
            "{} is a table that `foretell new` has written: name the file that it was made from",
            request.file.display()
        );
        if request.data_only {
            let configuration = self.in_folder(CONFIGURATION);
            anyhow::ensure!(
                configuration.is_file(),
                "--data-only writes the tables of an application again, and there is no {}",
                configuration.display()
            );
            return Ok(());
        }
        let others = [
            self.schema.clone(),
            self.subject.clone(),
            self.in_folder(README),
            self.in_folder(CONFIGURATION),
        ];
        let existing: Vec<String> = others
            .iter()
            .chain(&tables)
            .filter(|path| path.exists())
            .map(|path| path.strip_prefix(&self.folder).unwrap_or(path).display().to_string())
            .collect();
        anyhow::ensure!(
            existing.is_empty() || request.force,
            "{folder} has {} already: choose another folder with --directory, replace them with --force, or write only the tables \
             again with --data-only",
            existing.join(", ")
        );
        Ok(())
    }

    /// The labels of the configuration that is there.
    pub(super) fn labels(&self) -> anyhow::Result<Vec<String>> {
        let config = Config::load(&self.in_folder(CONFIGURATION), &[]);
        Ok(config.context("--data-only cannot read the labels")?.classes)
    }

    /// Checks that the tables fit the schema that is there.
    pub(super) fn check_same_fields(&self, application: &Application<'_>) -> anyhow::Result<()> {
        let path = self.schema.display();
        let text = fs::read_to_string(&self.schema)
            .with_context(|| format!("--data-only cannot read the schema {path}"))?;
        let fields = |text: &str| -> Option<Vec<(String, String)>> {
            let schema: serde_json::Value = serde_json::from_str(text).ok()?;
            let fields = schema.get("fields")?.as_array()?;
            fields
                .iter()
                .map(|field| Some((field.get("name")?.to_string(), field.get("type")?.to_string())))
                .collect()
        };
        let there = fields(&text).with_context(|| format!("{path} is no Avro record"))?;
        let wanted = fields(&application.schema()).unwrap_or_default();
        let differing: Vec<&str> = wanted
            .iter()
            .filter(|field| !there.contains(field))
            .chain(there.iter().filter(|field| !wanted.contains(field)))
            .map(|(name, _)| name.as_str())
            .collect();
        let differing: BTreeSet<&str> = differing.into_iter().collect();
        anyhow::ensure!(
            differing.is_empty(),
            "the file no longer fits {path}: {} differ, so the tables are as they were. Evolve the schema with `foretell schema evolve`, use the \
             flags that the application was made with, or make another application with --directory",
            differing.into_iter().collect::<Vec<_>>().join(", ")
        );
        Ok(())
    }

    /// Writes the files besides the tables; the configuration is the last, so that it is there once all others are.
    pub(super) fn write_texts(
        &self,
        application: &Application<'_>,
    ) -> anyhow::Result<[PathBuf; 4]> {
        let texts = [
            (self.schema.clone(), application.schema()),
            (self.subject.clone(), files::SUBJECT.to_owned()),
            (self.in_folder(README), application.readme()),
            (self.in_folder(CONFIGURATION), application.configuration()),
        ];
        for (path, text) in &texts {
            generate::write_file(path, true, |to| Ok(to.write_all(text.as_bytes())?))?;
        }
        Ok(texts.map(|(path, _)| path))
    }

    pub(super) fn make_folders(&self) -> anyhow::Result<()> {
        for path in [&self.schema, &self.in_folder(INITIAL)] {
            let folder = path.parent().unwrap_or(path);
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(())
    }
}
