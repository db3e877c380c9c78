//! Reads the topics from beginning to end, and counts what the checks of the report need.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use crate::{
    app::{
        cluster::Cluster,
        demo::{
            DecisionReport, ModelReport, QualityReport,
            quality::{self, LabelledPrediction},
            uplift::ActionContents,
        },
        play::Script,
    },
    config::Config,
    events::{
        action::Action,
        decision::Decision,
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        prediction::Prediction,
    },
    processors::convert,
};
use foretell_ml::{ModelBundle, Probabilities, Scorer, Scratch, features::OutOfDistribution};

/// Contents of the topics.
#[derive(Default)]
pub(super) struct TopicContents {
    /// Number of records by prediction id.
    pub(super) predictions: BTreeMap<String, usize>,
    /// Number of predictions that their model does not reproduce.
    pub(super) wrong_version: usize,
    /// Out-of-distribution inputs in all predictions.
    pub(super) out_of_distribution: OutOfDistribution,
    /// Number of labelled examples from the stream with the label of an outcome: of outcomes that were joined.
    pub(super) joined: usize,
    /// Number of labelled examples from the stream with the label of the policy for predictions without an outcome.
    pub(super) by_policy: usize,
    /// Number of corrections of labelled examples.
    pub(super) corrected: usize,
    /// Number of dead letters by error class.
    pub(super) dead_letters: BTreeMap<String, usize>,
    /// All models, in the order of their trainings.
    pub(super) models: Vec<ModelReport>,
    /// Quality of all predictions of the script that have a label.
    pub(super) quality: Option<QualityReport>,
    /// All actions, and the examples of which some were due.
    pub(super) actions: ActionContents,
    /// All decisions, in order.
    pub(super) decisions: Vec<DecisionReport>,
}

/// Reads all topics. `script` was sent, and `in_script` has the ids of the predictions for events of the script.
pub(super) fn examine(
    config: &Config,
    cluster: &Cluster,
    script: &Script,
    in_script: &BTreeSet<&str>,
) -> anyhow::Result<TopicContents> {
    let scorers = read_scorers(config, cluster)?;
    let models = scorers.iter().map(|scorer| ModelReport {
        version: scorer.version().as_str().to_owned(),
        training: scorer.lineage().origin.training,
        ..ModelReport::default()
    });
    let mut contents = TopicContents { models: models.collect(), ..TopicContents::default() };
    read_predictions(config, cluster, &scorers, in_script, &mut contents)?;
    let labelled = read_examples(config, cluster, &scorers, &mut contents)?;
    evaluate_models(&labelled, &mut contents.models);
    // An action may change what is true.
    let mut truth = script.truth.clone();
    truth.retain(|prediction, _| {
        !(script.potential.contains_key(prediction) && contents.actions.has_acted_on(prediction))
    });
    contents.quality = quality::report(&config.classes, &labelled, &truth);
    cluster.read_values(config, &config.topics.actions, |action: Action| {
        contents.actions.add_action(action);
        ControlFlow::Continue(())
    })?;
    cluster.read_values(config, &config.topics.decisions, |decision: Decision| {
        contents.decisions.push(DecisionReport::from(decision));
        ControlFlow::Continue(())
    })?;
    cluster.read_to_end(&config.topics.dead_letters, |record| {
        let class = record.headers.iter().find(|header| header.name == "foretell.error.class");
        let class = class.map(|header| String::from_utf8_lossy(&header.value).into_owned());
        *contents.dead_letters.entry(class.unwrap_or_default()).or_default() += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(contents)
}

/// A scorer for each model, in the order of their trainings.
fn read_scorers(config: &Config, cluster: &Cluster) -> anyhow::Result<Vec<Scorer>> {
    let mut bundles = Vec::new();
    cluster.read_values(config, &config.topics.models, |model: Model| {
        bundles.extend(model.bundle);
        ControlFlow::Continue(())
    })?;
    let scorers = bundles.iter().map(|bytes| Scorer::new(&ModelBundle::from_bytes(bytes)?));
    let mut scorers = scorers.collect::<Result<Vec<_>, foretell_ml::BundleError>>()?;
    scorers.sort_by_key(|scorer| scorer.lineage().origin.training);
    Ok(scorers)
}

fn index_of(version: &str, scorers: &[Scorer]) -> Option<usize> {
    scorers.iter().position(|scorer| scorer.version().as_str() == version)
}

/// Scores each prediction again with the model that it names.
fn read_predictions(
    config: &Config,
    cluster: &Cluster,
    scorers: &[Scorer],
    in_script: &BTreeSet<&str>,
    contents: &mut TopicContents,
) -> anyhow::Result<()> {
    let (mut scratch, events) = (Scratch::default(), &config.event_schema);
    cluster.read_values(config, &config.topics.predictions, |prediction: Prediction| {
        let Prediction { prediction_id, model_version, probabilities, answers, .. } = prediction;
        let is_in_script = in_script.contains(prediction_id.as_str());
        *contents.predictions.entry(prediction_id).or_default() += 1;
        let mut is_reproduced = false;
        if let Some(index) = index_of(&model_version, scorers) {
            let (scorer, model) = (&scorers[index], &mut contents.models[index]);
            model.predictions += 1;
            model.predictions_in_play += usize::from(is_in_script);
            let columns = convert::columns_by_question(scorer.columns(), events.questions());
            let values = convert::values_by_column(&columns, events.layout(), &answers);
            let (again, inputs) = scorer.score_columns(values, &mut scratch);
            contents.out_of_distribution.unseen_categories += inputs.unseen_categories;
            contents.out_of_distribution.out_of_range += inputs.out_of_range;
            let published = probabilities.iter().map(|class| class.probability.to_bits());
            is_reproduced = published.eq(again.as_slice().iter().map(|one| one.to_bits()));
        }
        contents.wrong_version += usize::from(!is_reproduced);
        ControlFlow::Continue(())
    })?;
    Ok(())
}

/// Counts the labelled examples. Returns those with a prediction, by prediction id, with their final labels.
fn read_examples(
    config: &Config,
    cluster: &Cluster,
    scorers: &[Scorer],
    contents: &mut TopicContents,
) -> anyhow::Result<BTreeMap<String, LabelledPrediction>> {
    let (mut labelled, mut scratch, events) =
        (BTreeMap::new(), Scratch::default(), &config.event_schema);
    let first = scorers
        .first()
        .map(|scorer| (scorer, convert::columns_by_question(scorer.columns(), events.questions())));
    cluster.read_values(config, &config.topics.labelled_examples, |example: LabelledExample| {
        match (example.origin, example.correction, example.outcome_time) {
            (ExampleOrigin::Initial, ..) => {}
            (ExampleOrigin::Stream, true, _) => contents.corrected += 1,
            (ExampleOrigin::Stream, false, Some(_)) => contents.joined += 1,
            (ExampleOrigin::Stream, false, None) => contents.by_policy += 1,
        }
        contents.actions.add_example(&example);
        if let (Some(prediction), Some(label)) =
            (example.prediction, convert::label_of(&example.label, &config.classes))
            && let Some(model) = index_of(&prediction.model_version, scorers)
            && let Some((first, columns)) = &first
        {
            let values = convert::values_by_column(columns, events.layout(), &example.answers);
            let (of_first_model, _) = first.score_columns(values, &mut scratch);
            let by_class = prediction.probabilities.iter().map(|class| class.probability);
            let probabilities = Probabilities::new(by_class.collect());
            let decision = scorers[model].decide(&probabilities);
            // A correction replaces its example.
            let prediction =
                LabelledPrediction { model, probabilities, of_first_model, decision, label };
            labelled.insert(example.example_id, prediction);
        }
        ControlFlow::Continue(())
    })?;
    Ok(labelled)
}

/// Evaluates each model on the examples that it predicted.
fn evaluate_models(labelled: &BTreeMap<String, LabelledPrediction>, models: &mut [ModelReport]) {
    for (index, model) in models.iter_mut().enumerate() {
        let own = labelled.values().filter(|one| one.model == index);
        let Some(evaluation) = quality::evaluate(own) else { continue };
        model.labelled = usize::try_from(evaluation.examples).unwrap_or(usize::MAX);
        model.auc = evaluation.auc;
        model.log_loss = evaluation.log_loss;
    }
}
