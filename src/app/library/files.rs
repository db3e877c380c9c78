//! Writes a model as files that other tools can read, and imports a model from such files.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::{
    app::{cluster::Cluster, library::reproduce::are_same},
    config::{self, CONFIGURATION, Config},
    events::model::Model,
    processors::{convert, learning::outputs::records_of},
};
use foretell_ml::{Column, ModelBundle, bundle::BUNDLE_BYTES_MAX, export};
use foretell_streams::{
    record::OutputRecord,
    time::{Clock, EventTime},
};

/// The trigger in the record of an imported model.
const TRIGGER: &str = "import";

/// Files that an import reads, by name.
const IMPORTED: [&str; 3] = [export::MODEL_FILE, export::PIPELINE_FILE, export::LINEAGE_FILE];

/// Writes the files of a model into a folder, and those of the configuration that say what its answers mean, so that
/// `foretell serve` needs no others. The folder is created if it does not exist. Files that exist are replaced only with `force`.
/// Files of an earlier export that this one has not are removed, so that the folder has the files of one model.
///
/// # Errors
/// If a file exists or cannot be written.
pub fn export_to(
    config: &Config,
    bundle: &ModelBundle,
    folder: &Path,
    force: bool,
) -> anyhow::Result<Exported> {
    let files = export::export(bundle).into_iter();
    let files = files.map(|file| (file.name.to_owned(), file.content));
    let files: Vec<(String, String)> = files.chain(config.model_files()).collect();
    if !force {
        let existing = files.iter().map(|(name, _)| folder.join(name)).find(|path| path.exists());
        if let Some(path) = existing {
            anyhow::bail!(
                "{} exists: choose another folder, or replace it with --force",
                path.display()
            );
        }
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let before = written_before(folder)?;
    let mut paths = Vec::new();
    for (name, content) in &files {
        let path = folder.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        paths.push(path);
    }
    let is_written = |name: &String| files.iter().any(|(written, _)| written == name);
    for name in before.iter().filter(|name| !is_written(name)) {
        let path = folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", path.display()));
            }
            Ok(()) | Err(_) => {}
        }
    }
    let mut others = Vec::new();
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !is_written(&name) {
            others.push(name);
        }
    }
    others.sort();
    Ok(Exported { paths, others })
}

/// The files of an exported model.
#[derive(Debug)]
pub struct Exported {
    /// The files that were written.
    pub paths: Vec<PathBuf>,
    /// Names of what else is in the folder: it was not written by an export, so it stays.
    others: Vec<String>,
}

impl Exported {
    /// A warning about files that are not the model's, if there are some.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        const NAMES_MAX: usize = 10;
        let folder = self.paths.first()?.parent()?.display();
        let (shown, more) = self.others.split_at(self.others.len().min(NAMES_MAX));
        let more =
            if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        let shown = shown.join(", ");
        (!shown.is_empty()).then(|| {
            format!("{folder} has files that are not the model's, which stay: {shown}{more}")
        })
    }
}

/// Names of the files that an earlier export may have written into the folder.
fn written_before(folder: &Path) -> anyhow::Result<Vec<String>> {
    let path = folder.join(CONFIGURATION);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(config::written_with(&text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        // It is not one of an export.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Reads a model from a folder, or from files with the names of an export, and checks that it fits the configuration.
///
/// # Errors
/// If files are missing or malformed, or the model has other classes or columns than the configuration. The message lists
/// what differs.
pub fn read(config: &Config, paths: &[PathBuf]) -> anyhow::Result<ModelBundle> {
    let mut files = BTreeMap::new();
    for (name, path) in files_of(paths)? {
        files.insert(name, content(&path)?);
    }
    let bundle = export::import(|name| files.get(name).map(Vec::as_slice))?;
    let mut problems = Vec::new();
    if bundle.classes != config.classes {
        problems.push(format!(
            "its classes are {:?}, and [outcomes] labels is {:?}",
            bundle.classes, config.classes
        ));
    }
    // Answers that `[features]` leaves out may be columns of a model, as the schema has them.
    let questions = config.gather.questions.iter().map(convert::column_of);
    let known: Vec<Column> = config.pipeline.columns().iter().cloned().chain(questions).collect();
    problems.extend(columns_that_differ(bundle.pipeline.columns(), &known));
    anyhow::ensure!(
        problems.is_empty(),
        "the model does not fit the event schema: {}",
        problems.join("; ")
    );
    Ok(bundle)
}

/// Each column of a model that is not known, or whose first known one has another kind.
fn columns_that_differ(columns: &[Column], known: &[Column]) -> Vec<String> {
    let problem = |column: &Column| match known.iter().find(|known| are_same(known, column)) {
        None => Some(format!("there is no {}", column.name)),
        Some(known) if known.kind != column.kind => {
            Some(format!("{} is {:?}, not {:?}", column.name, known.kind, column.kind))
        }
        Some(_) => None,
    };
    columns.iter().filter_map(problem).collect()
}

/// The files that are imported, by their names in an export.
fn files_of(paths: &[PathBuf]) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let inside = IMPORTED.map(|name| (name, path.join(name)));
            files.extend(inside.into_iter().filter(|(_, path)| path.exists()));
        } else {
            let known =
                IMPORTED.into_iter().find(|name| path.file_name().is_some_and(|own| own == *name));
            let name = known.with_context(|| {
                format!("{}: a file must be named {}", path.display(), IMPORTED.join(", "))
            })?;
            files.push((name, path.clone()));
        }
    }
    Ok(files)
}

/// The content of a file, up to a byte more than an import accepts.
fn content(path: &Path) -> anyhow::Result<Vec<u8>> {
    let cannot = || format!("cannot read {}", path.display());
    let file = fs::File::open(path).with_context(cannot)?;
    let mut bytes = Vec::new();
    let max = u64::try_from(BUNDLE_BYTES_MAX)? + 1;
    file.take(max).read_to_end(&mut bytes).with_context(cannot)?;
    Ok(bytes)
}

/// Writes a model to the topic of models, without an alias.
///
/// # Errors
/// If it cannot be written.
pub fn write(
    config: &Config,
    cluster: &Cluster,
    clock: &dyn Clock,
    bundle: &ModelBundle,
) -> anyhow::Result<()> {
    let topic = &config.topics.models;
    let now = clock.now();
    let [model, _] = records_of(bundle, TRIGGER, now)?;
    let mut value = Vec::new();
    cluster.codec::<Model>(config, topic)?.encode(&model, &mut value)?;
    let mut publisher = cluster.broker.publish()?;
    publisher.send(OutputRecord {
        topic: topic.clone(),
        partition: None,
        timestamp: EventTime(now.0),
        key: Some(model.version.into_bytes()),
        value: Some(value),
        headers: Vec::new(),
    })?;
    publisher.flush()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::*;
    use crate::app::library::{self, fixture::Project};
    use foretell_ml::{
        ColumnKind, Example, Label, Origin, Params, PipelineSpec, Recipe, Scaling, Seed,
        TrainingSet, Value,
        training::{Calibration, Threshold, train},
    };

    /// A model of these columns, whose label is 1 if the first number is at least 20.
    fn model(columns: Vec<Column>, classes: [&str; 2]) -> ModelBundle {
        let example = |number: u32| {
            let values = columns.iter().map(|column| match column.kind {
                ColumnKind::Numeric => Value::Number(f64::from(number % 40)),
                ColumnKind::Categorical => Value::Text((number % 3).to_string()),
            });
            Example { values: values.collect(), label: Label(u32::from(number % 40 >= 20)) }
        };
        let examples: Vec<Example> = (0..200).map(example).collect();
        let recipe = Recipe {
            spec: PipelineSpec::new(columns.clone(), Scaling::Standard, Vec::new()).unwrap(),
            classes: classes.map(ToOwned::to_owned).to_vec(),
            threshold: Threshold::Fixed(0.5),
            calibration: Calibration::None,
            intervals: false,
            profile: false,
            params: Params { iterations: 5, ..Params::default() },
            seed: Seed(1),
            origin: Origin::default(),
        };
        let set = TrainingSet::of(&columns, &examples);
        train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }

    fn questions() -> Vec<Column> {
        vec![Column::new("age", ColumnKind::Numeric), Column::new("job", ColumnKind::Categorical)]
    }

    fn write_model(project: &Project, bundle: &ModelBundle) {
        let clock = crate::app::clock();
        write(&project.config, &project.cluster, clock.as_ref(), bundle).unwrap();
    }

    #[test]
    fn an_exported_model_is_imported_as_the_same_one() {
        let project = Project::new();
        let bundle = model(questions(), ["0", "1"]);
        write_model(&project, &bundle);
        let library = library::open(&project.config, &project.cluster).unwrap();
        let version = bundle.version();
        let folder = project.folder().join("exported/here");
        let stored = library.bundle(&version.as_str()[..6]).unwrap();
        let export = |force: bool| export_to(&project.config, &stored, &folder, force);
        let paths = export(false).unwrap().paths;
        assert!(paths.iter().all(|path| path.is_file()) && paths.len() == 6, "{paths:?}");
        let error = export(false).unwrap_err();
        assert!(error.to_string().contains("--force"), "{error}");
        export(true).unwrap();

        let same = read(&project.config, std::slice::from_ref(&folder)).unwrap();
        assert_eq!(same, bundle);
        let two = [folder.join(export::MODEL_FILE), folder.join(export::PIPELINE_FILE)];
        let imported = read(&project.config, &two).unwrap();
        assert!(imported.lineage.imported && imported.booster == bundle.booster);
        write_model(&project, &imported);
        let list = library.summary().unwrap().models;
        assert_eq!(list[0].version, imported.version().as_str());
        assert_eq!(list[0].trigger.as_deref(), Some(TRIGGER));
        assert!(list[0].aliases.is_empty());
    }

    #[test]
    fn a_folder_has_the_files_of_one_model_and_keeps_what_is_not_of_one() {
        let project = Project::new();
        let (bundle, folder) = (model(questions(), ["0", "1"]), project.folder().join("exported"));
        let export = || export_to(&project.config, &bundle, &folder, true).unwrap();
        let names = || {
            let entries = fs::read_dir(&folder).unwrap();
            let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<String> = names.collect();
            names.sort();
            names
        };
        let exported = export();
        assert!(exported.warning().is_none(), "{exported:?}");
        let own = names();
        // The model before had events of companions.
        let toml = fs::read_to_string(folder.join(CONFIGURATION)).unwrap();
        let companion = |topic: &str, schema: &str| {
            format!("[[events.companions]]\ntopic = {topic:?}\nschema = {schema:?}\n")
        };
        let companions = companion("orders", "orders.avsc") + &companion("mine", "my.avsc");
        let companions = companions + &companion("../outside", "../outside.avsc");
        let outside = project.folder().join("outside.avsc");
        fs::write(&outside, "{}").unwrap();
        fs::write(folder.join(CONFIGURATION), format!("{toml}\n{companions}")).unwrap();
        for name in ["orders.avsc", "my.avsc", "notes.txt", "model.txt.bak"] {
            fs::write(folder.join(name), "{}").unwrap();
        }
        fs::create_dir(folder.join("code")).unwrap();
        let exported = export();
        let kept = ["code", "model.txt.bak", "my.avsc", "notes.txt"].map(str::to_owned);
        let mut expected = [&own[..], &kept].concat();
        expected.sort();
        assert_eq!(names(), expected);
        assert!(outside.exists());
        let warning = exported.warning().unwrap();
        assert!(
            warning.ends_with("which stay: code, model.txt.bak, my.avsc, notes.txt"),
            "{warning}"
        );
        // A configuration of the user names no file of an export.
        fs::write(folder.join(CONFIGURATION), companion("orders", "orders.avsc")).unwrap();
        fs::write(folder.join("orders.avsc"), "{}").unwrap();
        export();
        assert!(names().contains(&"orders.avsc".to_owned()));
    }

    #[test]
    fn a_model_that_does_not_fit_is_refused_with_all_differences() {
        let project = Project::new();
        let check = |bundle: &ModelBundle, words: &[&str]| {
            let folder = project.folder().join(bundle.version().as_str());
            fs::create_dir_all(&folder).unwrap();
            for file in export::export(bundle) {
                fs::write(folder.join(file.name), file.content).unwrap();
            }
            let message = read(&project.config, &[folder]).unwrap_err().to_string();
            for word in words {
                assert!(message.contains(word), "{word:?} in {message:?}");
            }
        };
        let mut columns = questions();
        columns[0].kind = ColumnKind::Categorical;
        columns.push(Column::new("height", ColumnKind::Numeric));
        let expected = ["age is Numeric, not Categorical", "there is no height"];
        check(&model(columns, ["0", "1"]), &expected);
        check(&model(questions(), ["no", "yes"]), &["[\"no\", \"yes\"]", "[outcomes] labels"]);
    }

    #[test]
    fn files_that_are_missing_or_have_other_names_are_reported() {
        let project = Project::new();
        let refuse = |paths: &[PathBuf], words: &str| {
            let message = format!("{:#}", read(&project.config, paths).unwrap_err());
            assert!(message.contains(words), "{words:?} in {message:?}");
        };
        refuse(&[project.folder().to_owned()], "model.txt");
        refuse(&[project.folder().join("event.avsc")], "a file must be named model.txt");
        refuse(&[project.folder().join("none/model.txt")], "cannot read ");
    }

    #[test]
    fn a_model_has_the_kinds_of_the_configured_features() {
        use foretell_ml::ColumnKind::Categorical;
        let mut columns = questions();
        columns[0].kind = Categorical;
        let (project, bundle) = (Project::new(), model(columns, ["0", "1"]));
        write_model(&project, &bundle);
        let paths = [project.folder().join("exported")];
        export_to(&project.config, &bundle, &paths[0], false).unwrap();
        let message = format!("{:#}", read(&project.config, &paths).unwrap_err());
        assert!(message.contains("age is Numeric, not Categorical"), "{message}");
        let project = project.configured(&[r#"features.categorical=["age"]"#]);
        read(&project.config, &paths).unwrap();
    }

    #[test]
    fn columns_must_be_known_with_their_kind() {
        use foretell_ml::ColumnKind::{Categorical, Numeric};
        let renamed =
            Column { aliases: vec!["income".to_owned()], ..Column::new("salary", Numeric) };
        let questions = [Column::new("age", Numeric), Column::new("job", Categorical), renamed];
        let model = [
            Column::new("age", Categorical),
            Column::new("job", Categorical),
            Column::new("income", Numeric),
            Column::new("height", Numeric),
        ];
        let problems = columns_that_differ(&model, &questions);
        assert_eq!(problems, ["age is Numeric, not Categorical", "there is no height"]);
    }
}
