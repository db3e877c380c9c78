//! One application on the test's cluster, under names of its own: its processes, and what its topics say.

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
        questionnaire::Question,
    },
    processors::convert,
};
use foretell_ml::{ModelBundle, Scorer, Scratch};
use tempfile::TempDir;

use crate::process::{Process, SOON, example, quick_settings};

/// Rows that the first model learns from.
pub(crate) const INITIAL: usize = 3000;

/// An application nobody else has.
pub(crate) struct Application {
    folder: Arc<TempDir>,
    settings: Vec<String>,
}

impl Application {
    /// On the cluster of `FORETELL_TEST_BROKERS` and `FORETELL_TEST_REGISTRY`.
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

    /// The same application, with `more` settings besides.
    pub(crate) fn with(&self, more: &[String]) -> Self {
        Self { folder: Arc::clone(&self.folder), settings: [&self.settings[..], more].concat() }
    }

    /// Starts a command of it.
    pub(crate) fn start(&self, arguments: &[&str]) -> Process {
        Process::start(&self.arguments(arguments))
    }

    /// Starts an instance of it.
    pub(crate) fn instance(&self, name: &str) -> Process {
        self.instance_after(":", name)
    }

    /// The same, in the place of a shell that has done `first`.
    pub(crate) fn instance_after(&self, first: &str, name: &str) -> Process {
        let instance = format!("application.instance={name}");
        self.start_after(first, &["run", "--set", &instance])
    }

    /// Starts a command of it, in the place of a shell that has done `first`.
    pub(crate) fn start_after(&self, first: &str, arguments: &[&str]) -> Process {
        Process::start_after(first, &self.arguments(arguments))
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        let sets = self.settings.iter().flat_map(|setting| ["--set", setting.as_str()]);
        ["--config", example()].into_iter().chain(sets).chain(more.iter().copied()).collect()
    }

    /// Makes it ready.
    pub(crate) fn init(&self) {
        let printed = self.start(&["init"]).succeed(SOON);
        assert!(printed.contains("first model"), "{printed}");
    }

    /// The configuration as its processes read it.
    pub(crate) fn config(&self) -> Config {
        Config::load(Path::new(example()), &self.settings).unwrap()
    }

    /// What its topics say by now.
    pub(crate) fn topics(&self) -> Topics {
        let config = self.config();
        Topics::read(&config, &Cluster::connect(&config, &foretell::app::clock()).unwrap())
    }
}

#[expect(clippy::disallowed_methods, reason = "a test target is told by its environment")]
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

/// What a client of the secure listeners needs; see `kafka-up.sh`.
#[expect(clippy::disallowed_methods, reason = "a test target is told by its environment")]
pub(crate) fn secure(name: &str) -> PathBuf {
    let folder = std::env::var("FORETELL_TEST_KAFKA").expect(
        "FORETELL_TEST_KAFKA is the folder of kafka-up.sh: see tests/broker/with-broker.sh",
    );
    PathBuf::from(folder).join("secure").join(name)
}

/// What was sent and what came of it: committed records only.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// The events that complete a questionnaire.
    pub(crate) completed: BTreeSet<String>,
    /// How often each event was scored.
    pub(crate) scored: BTreeMap<String, usize>,
    /// Predictions that the model announced under their version does not make.
    pub(crate) wrong_version: usize,
    /// The versions that predicted.
    pub(crate) versions: BTreeSet<String>,
    /// Who has an outcome.
    pub(crate) outcomes: BTreeSet<String>,
    /// How many labelled examples each respondent has in the training log.
    pub(crate) labelled: BTreeMap<String, usize>,
    /// Records dead-lettered.
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
        go_on(cluster.read_values(&names.models, |model: Model| {
            let bundle = model.bundle.map(|bytes| ModelBundle::from_bytes(&bytes).unwrap());
            scorers.extend(bundle.map(|bundle| (model.version, Scorer::new(&bundle).unwrap())));
            ControlFlow::Continue(())
        }));
        go_on(cluster.read_values(&names.predictions, |prediction: Prediction| {
            let scorer = scorers.get(&prediction.model_version);
            let makes = |scorer: &Scorer| {
                makes(scorer, &prediction, &mut scratch, &config.gather.questions)
            };
            topics.wrong_version += usize::from(!scorer.is_some_and(makes));
            topics.versions.insert(prediction.model_version);
            *topics.scored.entry(prediction.event_id).or_default() += 1;
            ControlFlow::Continue(())
        }));
        go_on(cluster.read_values(&names.outcomes, |outcome: Outcome| {
            topics.outcomes.insert(outcome.respondent_id);
            ControlFlow::Continue(())
        }));
        go_on(cluster.read_values(&names.labelled_examples, |example: LabelledExample| {
            if example.origin == ExampleOrigin::Stream {
                *topics.labelled.entry(example.respondent_id).or_default() += 1;
            }
            ControlFlow::Continue(())
        }));
        topics
    }

    /// Every completed questionnaire was scored once, by the model that its prediction names; every outcome
    /// was joined once; nothing was dead-lettered.
    pub(crate) fn check_exactly_once(&self) {
        let doubled: Vec<_> = self.scored.iter().filter(|(_, times)| **times != 1).collect();
        assert_eq!(doubled, [], "scored more than once");
        assert_eq!(self.scored.keys().cloned().collect::<BTreeSet<_>>(), self.completed);
        assert_eq!(self.wrong_version, 0, "predictions that their model does not make");
        let doubled: Vec<_> = self.labelled.iter().filter(|(_, times)| **times != 1).collect();
        assert_eq!(doubled, [], "joined more than once");
        assert_eq!(self.labelled.keys().cloned().collect::<BTreeSet<_>>(), self.outcomes);
        assert_eq!(self.dead_letters, 0);
    }
}

fn go_on(read: anyhow::Result<u64>) {
    read.unwrap();
}

/// Whether `scorer` says the same of the same features, to the last bit. A feature that was renamed since, or by the time,
/// is the same feature.
fn makes(
    scorer: &Scorer,
    prediction: &Prediction,
    scratch: &mut Scratch,
    questions: &[Question],
) -> bool {
    let mut features = prediction.features.clone();
    for feature in &mut features {
        let question = questions.iter().find(|question| question.is_called(&feature.name));
        let column = scorer
            .columns()
            .iter()
            .find(|column| question.is_some_and(|question| question.is_called(&column.name)));
        if let Some(column) = column {
            feature.name.clone_from(&column.name);
        }
    }
    let values = convert::values_of(&features, scorer.columns());
    let again = scorer.score(&values, scratch);
    let told = prediction.probabilities.iter().map(|class| class.probability.to_bits());
    told.eq(again.as_slice().iter().map(|probability| probability.to_bits()))
}
