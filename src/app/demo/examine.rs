//! Reads the topics from end to end and says what is there, as an outsider would.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use crate::{
    app::cluster::Cluster,
    config::Config,
    events::{
        labelled_example::{ExampleOrigin, LabelledExample},
        model::Model,
        prediction::Prediction,
    },
    processors::convert,
};
use foretell_ml::{
    Label, ModelBundle, Probabilities, Scorer, Scratch, features::OutOfDistribution,
    training::Evaluation,
};

/// What is on the topics.
#[derive(Default)]
pub(super) struct Found {
    /// How often each prediction is there, by its id: that of an event.
    pub(super) predictions: BTreeMap<String, usize>,
    /// Predictions that the model announced under their version does not make.
    pub(super) wrong_version: usize,
    /// What the models that made the predictions had not seen the like of, in all of them.
    pub(super) out_of_distribution: OutOfDistribution,
    /// Labelled examples from the stream.
    pub(super) joined: usize,
    /// Corrections of those.
    pub(super) corrected: usize,
    /// Records dead-lettered, by class.
    pub(super) dead_letters: BTreeMap<String, usize>,
    /// The models in the order in which they were announced.
    pub(super) models: Vec<FoundModel>,
}

/// One model, and how it did on what it had not learned from.
pub(super) struct FoundModel {
    pub(super) version: String,
    pub(super) training: u64,
    pub(super) predictions: usize,
    /// Those of them that are of the play, and not of the events after it, which close its windows.
    pub(super) in_play: usize,
    /// Of its predictions whose outcome came: scored first, learned from later.
    pub(super) live: Option<Evaluation>,
}

/// `in_play` has the ids of the play's predictions.
pub(super) fn examine(
    config: &Config,
    cluster: &Cluster,
    in_play: &BTreeSet<String>,
) -> anyhow::Result<Found> {
    let scorers = scorers_of(config, cluster)?;
    let mut predictions: BTreeMap<String, usize> = BTreeMap::new();
    let mut by_version: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    let mut wrong_version = 0;
    let mut out_of_distribution = OutOfDistribution::default();
    let mut scratch = Scratch::default();
    cluster.read_values(&config.topics.predictions, |prediction: Prediction| {
        *predictions.entry(prediction.prediction_id.clone()).or_default() += 1;
        let [all, played] = by_version.entry(prediction.model_version.clone()).or_default();
        *all += 1;
        *played += usize::from(in_play.contains(&prediction.prediction_id));
        let announced =
            scorers.iter().find(|scorer| scorer.version().as_str() == prediction.model_version);
        let is_its_own = announced.is_some_and(|scorer| {
            let values = convert::values_of(&prediction.features, scorer.columns());
            let odd = scorer.out_of_distribution(&values);
            out_of_distribution.unseen_categories += odd.unseen_categories;
            out_of_distribution.out_of_range += odd.out_of_range;
            let again = scorer.score(&values, &mut scratch);
            let told = prediction.probabilities.iter().map(|class| class.probability.to_bits());
            told.eq(again.as_slice().iter().map(|probability| probability.to_bits()))
        });
        wrong_version += usize::from(!is_its_own);
        ControlFlow::Continue(())
    })?;

    let classes = &config.classes;
    let (mut joined, mut corrected) = (0, 0);
    let mut live: BTreeMap<String, (Vec<Probabilities>, Vec<Label>)> = BTreeMap::new();
    cluster.read_values(&config.topics.labelled_examples, |example: LabelledExample| {
        let is_ours = example.origin == ExampleOrigin::Stream;
        joined += usize::from(is_ours && !example.correction);
        corrected += usize::from(is_ours && example.correction);
        if let (Some(prediction), Some(label)) =
            (example.prediction, convert::label_of(&example.label, classes))
        {
            let (probabilities, labels) = live.entry(prediction.model_version).or_default();
            let by_class = prediction.probabilities.iter().map(|class| class.probability);
            probabilities.push(Probabilities::new(by_class.collect()));
            labels.push(label);
        }
        ControlFlow::Continue(())
    })?;

    let models = scorers.iter().map(|scorer| {
        let version = scorer.version().as_str().to_owned();
        let scored = live.get(&version);
        let [predictions, in_play] = by_version.get(&version).copied().unwrap_or_default();
        FoundModel {
            training: scorer.lineage().origin.training,
            predictions,
            in_play,
            live: scored.map(|(probabilities, labels)| {
                let decisions: Vec<Label> =
                    probabilities.iter().map(|told| scorer.decide(told)).collect();
                Evaluation::new(probabilities, &decisions, labels)
            }),
            version,
        }
    });
    let models = models.collect();
    Ok(Found {
        predictions,
        wrong_version,
        out_of_distribution,
        joined,
        corrected,
        dead_letters: dead_letters(config, cluster)?,
        models,
    })
}

/// Every announced bundle, made ready, in the order of the trainings.
fn scorers_of(config: &Config, cluster: &Cluster) -> anyhow::Result<Vec<Scorer>> {
    let mut bundles = Vec::new();
    cluster.read_values(&config.topics.models, |model: Model| {
        bundles.extend(model.bundle);
        ControlFlow::Continue(())
    })?;
    let scorers = bundles.iter().map(|bytes| Scorer::new(&ModelBundle::from_bytes(bytes)?));
    let mut scorers = scorers.collect::<Result<Vec<_>, foretell_ml::BundleError>>()?;
    scorers.sort_by_key(|scorer| scorer.lineage().origin.training);
    Ok(scorers)
}

fn dead_letters(config: &Config, cluster: &Cluster) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut by_class: BTreeMap<String, usize> = BTreeMap::new();
    cluster.read_to_end(&config.topics.dead_letters, |record| {
        let header = record.headers.iter().find(|header| header.name == "foretell.error.class");
        let class = header
            .map_or_else(String::new, |header| String::from_utf8_lossy(&header.value).into_owned());
        *by_class.entry(class).or_default() += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(by_class)
}
