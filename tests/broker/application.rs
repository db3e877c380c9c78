//! Test harness: one Foretell application on the test cluster, under a unique topic prefix. Starts its processes and
//! reads back what they committed to its topics.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use foretell::{
    app::cluster::Cluster,
    config::Config,
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        outcome::Outcome,
        prediction::Prediction,
    },
    processors::{convert, gather::GatherSettings},
};
use foretell_ml::{ModelBundle, Scorer, Scratch};
use tempfile::TempDir;

use crate::process::{Process, SOON, example, quick_settings};

/// Rows of the table that the first model is trained on.
pub(crate) const INITIAL: usize = 3000;

/// An application whose topics, groups and changelogs no other test uses.
pub(crate) struct Application {
    folder: Arc<TempDir>,
    settings: Vec<String>,
}

impl Application {
    /// Creates an application on the cluster of `FORETELL_TEST_BROKERS` and `FORETELL_TEST_REGISTRY`.
    pub(crate) fn new(name: &str, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unique = folder.path().file_name().and_then(|name| name.to_str()).unwrap();
        let mut settings = quick_settings(folder.path(), INITIAL);
        settings.extend([
            format!("topics.prefix={name}-{}-", unique.trim_start_matches('.')),
            format!("broker.bootstrap_servers={}", brokers()),
            format!("schema_registry.url={}", registry()),
        ]);
        settings.extend(more.iter().map(|setting| (*setting).to_owned()));
        Self { folder: Arc::new(folder), settings }
    }

    /// Returns the same application with additional settings.
    pub(crate) fn with(&self, more: &[String]) -> Self {
        Self { folder: Arc::clone(&self.folder), settings: [&self.settings[..], more].concat() }
    }

    /// Starts `foretell` with `arguments` and the application's settings.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        Process::start(&self.arguments(arguments))
    }

    /// Starts an instance (`foretell run`) under a name.
    pub(crate) fn instance(&self, name: &str) -> Process {
        self.instance_after(":", name)
    }

    /// Like [`Self::instance`], from a shell that runs `first` before it.
    pub(crate) fn instance_after(&self, first: &str, name: &str) -> Process {
        let instance = format!("application.instance={name}");
        self.start_after(first, &["run", "--set", &instance])
    }

    /// Like [`Self::start`], from a shell that runs `first` before it.
    pub(crate) fn start_after(&self, first: &str, arguments: &[&str]) -> Process {
        Process::start_after(first, &self.arguments(arguments))
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let sets = self.settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
        ["--config", example()].into_iter().chain(sets).chain(more.iter().copied()).collect()
    }

    /// Runs `foretell init` and checks that it trained a first model.
    pub(crate) fn init(&self) {
        let printed = self.start(&["init"]).succeed(SOON);
        assert!(printed.contains("first model"), "{printed}");
    }

    /// The configuration, loaded as its processes load it.
    pub(crate) fn config(&self) -> Config {
        Config::load(Path::new(example()), &self.settings).unwrap()
    }

    /// Reads all its topics to their current ends.
    pub(crate) fn topics(&self) -> Topics {
        let config = self.config();
        Topics::read(&config, &Cluster::connect(&config, &foretell::app::clock()).unwrap())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test target is configured by its environment")]
fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: see tests/broker/with-broker.sh"))
}

pub(crate) fn brokers() -> String {
    variable("FORETELL_TEST_BROKERS")
}

pub(crate) fn registry() -> String {
    variable("FORETELL_TEST_REGISTRY")
}

/// Path of a file for clients of the secure listeners: certificates, a password, addresses. `kafka-up.sh` makes them.
#[expect(clippy::disallowed_methods, reason = "a test target is configured by its environment")]
pub(crate) fn secure(name: &str) -> PathBuf {
    let folder = std::env::var("FORETELL_TEST_KAFKA").expect(
        "FORETELL_TEST_KAFKA is the folder of kafka-up.sh: see tests/broker/with-broker.sh",
    );
    PathBuf::from(folder).join("secure").join(name)
}

/// Committed input and output records of an application, summarised.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// Ids of events that complete a questionnaire.
    pub(crate) completed: BTreeSet<String>,
    /// Number of predictions, by event id.
    pub(crate) scored: BTreeMap<String, usize>,
    /// Number of predictions that the model of their version does not reproduce.
    pub(crate) wrong_version: usize,
    /// Model versions that made at least one prediction.
    pub(crate) versions: BTreeSet<String>,
    /// Respondents with an outcome.
    pub(crate) outcomes: BTreeSet<String>,
    /// Number of labelled examples from the stream, by respondent.
    pub(crate) labelled: BTreeMap<String, usize>,
    pub(crate) dead_letters: usize,
}

impl Topics {
    fn read(config: &Config, cluster: &Cluster) -> Self {
        let (names, mut topics) = (&config.topics, Self::default());
        let codecs = cluster.codecs(config).unwrap();
        let to_end = |topic, visit: &mut dyn FnMut(&[u8])| {
            let read = cluster.read_to_end(topic, |record| {
                visit(record.value.as_deref().unwrap_or_default());
                Ok(ControlFlow::Continue(()))
            });
            read.unwrap();
        };
        to_end(&names.questionnaire_events, &mut |bytes| {
            let event = codecs.questionnaire.decode(bytes).unwrap();
            if event.completed {
                topics.completed.insert(event.event_id);
            }
        });
        to_end(&names.dead_letters, &mut |_| topics.dead_letters += 1);
        let mut scorers: BTreeMap<String, Scorer> = BTreeMap::new();
        let mut scratch = Scratch::default();
        let read = cluster.read_values(config, &names.models, |model: Model| {
            let bundle = model.bundle.map(|bytes| ModelBundle::from_bytes(&bytes).unwrap());
            scorers.extend(bundle.map(|bundle| (model.version, Scorer::new(&bundle).unwrap())));
            ControlFlow::Continue(())
        });
        read.unwrap();
        let read = cluster.read_values(config, &names.predictions, |prediction: Prediction| {
            let scorer = scorers.get(&prediction.model_version);
            let is_reproduced =
                |scorer: &Scorer| reproduces(scorer, &prediction, &mut scratch, &config.gather);
            topics.wrong_version += usize::from(!scorer.is_some_and(is_reproduced));
            topics.versions.insert(prediction.model_version);
            *topics.scored.entry(prediction.event_id).or_default() += 1;
            ControlFlow::Continue(())
        });
        read.unwrap();
        let read = cluster.read_values(config, &names.outcomes, |outcome: Outcome| {
            topics.outcomes.insert(outcome.respondent_id);
            ControlFlow::Continue(())
        });
        read.unwrap();
        let read =
            cluster.read_values(config, &names.labelled_examples, |example: LabelledExample| {
                if example.origin == ExampleOrigin::Stream {
                    *topics.labelled.entry(example.respondent_id).or_default() += 1;
                }
                ControlFlow::Continue(())
            });
        read.unwrap();
        topics
    }

    /// Asserts that every completed questionnaire was scored once, by the model that its prediction names; that every
    /// outcome was joined once; and that no record was dead-lettered.
    pub(crate) fn check_exactly_once(&self) {
        let duplicates: Vec<_> = self.scored.iter().filter(|(_, times)| **times != 1).collect();
        assert_eq!(duplicates, [], "scored more than once");
        assert_eq!(self.scored.keys().cloned().collect::<BTreeSet<_>>(), self.completed);
        assert_eq!(self.wrong_version, 0, "predictions that their model does not reproduce");
        let duplicates: Vec<_> = self.labelled.iter().filter(|(_, times)| **times != 1).collect();
        assert_eq!(duplicates, [], "joined more than once");
        assert_eq!(self.labelled.keys().cloned().collect::<BTreeSet<_>>(), self.outcomes);
        assert_eq!(self.dead_letters, 0);
    }
}

/// Whether `scorer` gives the published probabilities for the published features, to the last bit. Features are matched
/// by name or alias, so a feature that was renamed before or after the prediction is the same one.
fn reproduces(
    scorer: &Scorer,
    prediction: &Prediction,
    scratch: &mut Scratch,
    gather: &GatherSettings,
) -> bool {
    let GatherSettings { questions, layout, .. } = gather;
    let columns = scorer.columns();
    let values = convert::values_in_order(columns, questions, layout, &prediction.answers);
    let scored = scorer.score(&values, scratch);
    let published = prediction.probabilities.iter().map(|class| class.probability.to_bits());
    published.eq(scored.as_slice().iter().map(|probability| probability.to_bits()))
}
