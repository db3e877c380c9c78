//! Scores observations with the champion, and with the challenger if there is one.
//!
//! The prediction is the champion's: its label, the feature contract and all metrics. The challenger's probabilities are
//! recorded in it, so that both models can be compared on the same observations once their outcomes are known.

use crate::{
    events::{
        answered::{ClassProbabilitiesRef, ClassProbability, Encoded},
        challenger::ChallengerScoreRef,
        prediction::{Prediction, PredictionRef, ScoreTrigger},
        questionnaire::{Question, RowLayout},
    },
    processors::{
        contract::ContractWatch,
        convert,
        gather::{GatherSettings, Gathered, Observation},
        metrics::ApplicationMetrics,
        model_table::Serving,
    },
};
use foretell_ml::{ModelVersion, Probabilities, Scorer, Scratch, features::OutOfDistribution};
use foretell_streams::{
    metrics::Counter,
    time::EventTime,
    topology::{Context, ProcessError, Processor, Record},
};

/// The processor from observations to predictions.
pub struct Score {
    /// The models. They are loaded for every record, so a swap happens between two records.
    pub serving: Serving,
    /// The settings by which observations are gathered: their questions, and the layout of the answers.
    pub gather: GatherSettings,
    /// The check of the feature contract.
    pub(super) contract: ContractWatch,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// Data prepared for the models that scored last.
    pub prepared: PreparedModels,
}

/// Data that depend on the models only.
#[derive(Default)]
pub struct PreparedModels {
    champion: Option<PreparedModel>,
    /// The counter of the champion's predictions.
    predictions: Option<Counter>,
    challenger: Option<PreparedModel>,
}

/// Data that depend on one model only.
struct PreparedModel {
    version: ModelVersion,
    /// The index of the question, and of the column, for each column of the model that has a question; in the order of the
    /// questions.
    columns: Vec<(usize, usize)>,
    scratch: Scratch,
    /// The encoded probabilities, in memory that every record uses again.
    encoded: Vec<u8>,
}

/// The score of an observation by one model.
struct ModelScore<'p> {
    probabilities: Probabilities,
    encoded: ClassProbabilitiesRef<'p>,
    out_of_distribution: OutOfDistribution,
}

impl PreparedModel {
    fn new(scorer: &Scorer, questions: &[Question]) -> Self {
        Self {
            version: scorer.version().clone(),
            columns: convert::columns_by_question(scorer.columns(), questions),
            scratch: Scratch::default(),
            encoded: Vec::new(),
        }
    }

    /// Scores with `scorer`, the model that this is prepared for.
    fn score(
        &mut self,
        scorer: &Scorer,
        layout: &RowLayout,
        observation: &Observation,
    ) -> ModelScore<'_> {
        let values = convert::values_by_column(&self.columns, layout, &observation.answers);
        let (probabilities, out_of_distribution) = scorer.score_columns(values, &mut self.scratch);
        let named = scorer.classes().iter().zip(probabilities.as_slice());
        let named =
            named.map(|(label, probability)| ClassProbability { label, probability: *probability });
        let encoded = ClassProbabilitiesRef::encode(named, &mut self.encoded);
        ModelScore { probabilities, encoded, out_of_distribution }
    }
}

impl Score {
    /// Prepares for models that did not score the record before.
    fn prepare(&mut self, champion: &Scorer, challenger: Option<&Scorer>) {
        let Self { prepared, gather: GatherSettings { questions, .. }, .. } = self;
        let is_for = |prepared: &Option<PreparedModel>, scorer: &Scorer| {
            prepared.as_ref().is_some_and(|prepared| &prepared.version == scorer.version())
        };
        if !is_for(&prepared.champion, champion) {
            self.contract.begin(champion, questions);
            prepared.predictions = Some(self.metrics.predictions(champion.version().as_str()));
            prepared.champion = Some(PreparedModel::new(champion, questions));
        }
        match challenger {
            None => prepared.challenger = None,
            Some(scorer) if is_for(&prepared.challenger, scorer) => {}
            Some(scorer) => prepared.challenger = Some(PreparedModel::new(scorer, questions)),
        }
    }

    /// Applies the feature contract of the champion to an observation. One of a session that ended before it was complete has fewer
    /// answers than others, which is no reason to report a feature as missing.
    fn admit(&mut self, observation: &Observation) -> Result<(), ProcessError> {
        let admitted = self.contract.admit(&self.gather.layout, &observation.answers);
        let is_whole = observation.trigger != ScoreTrigger::SessionEnd;
        if is_whole && !matches!(admitted, Err(ProcessError::Retry(_))) {
            self.contract.count(&self.gather.layout, &observation.answers);
        }
        admitted
    }
}

impl Processor for Score {
    type In = Gathered;
    type Out = Encoded<Prediction>;

    fn process(
        &mut self,
        record: &Record<Gathered>,
        ctx: &mut Context<'_, Encoded<Prediction>>,
    ) -> Result<(), ProcessError> {
        let Gathered::Due(observation) = &record.value else { return Ok(()) };
        let models = self.serving.models();
        let Some(champion) = &models.champion else {
            return Err(ProcessError::Retry("no model serves yet".to_owned()));
        };
        self.prepare(champion, models.challenger.as_deref());
        self.admit(observation)?;
        let PreparedModels { champion: prepared, predictions, challenger } = &mut self.prepared;
        let layout = &self.gather.layout;
        let prepared = prepared.as_mut().expect("it is prepared above");
        let score = prepared.score(champion, layout, observation);
        let challenger = models.challenger.as_deref().zip(challenger.as_mut());
        let challenger = challenger.map(|(scorer, prepared)| ChallengerScoreRef {
            model_version: scorer.version().as_str(),
            probabilities: prepared.score(scorer, layout, observation).encoded,
        });
        let predicted_at = ctx.now();
        let prediction = Encoded::new(PredictionRef {
            prediction_id: observation.identity.id_in(&mut [0; _]),
            respondent_id: &observation.respondent_id,
            event_id: &observation.event_id,
            event_time: observation.event_time,
            received_at: observation.received_at,
            predicted_at,
            model_version: champion.version().as_str(),
            label: &champion.classes()[champion.decide(&score.probabilities).index()],
            probabilities: score.encoded,
            challenger,
            trigger: observation.trigger,
            answers: (&observation.answers).into(),
        });
        ctx.count(predictions.as_ref().expect("it is prepared above"), 1);
        let OutOfDistribution { unseen_categories, out_of_range, not_numbers } =
            score.out_of_distribution;
        ctx.count(&self.metrics.unseen_categories(), unseen_categories);
        ctx.count(&self.metrics.out_of_range(), out_of_range);
        ctx.count(&self.metrics.not_numbers(), not_numbers);
        // The end of a session is no event that waits for its score.
        if observation.trigger != ScoreTrigger::SessionEnd {
            let waited = EventTime(predicted_at.0).since(EventTime(observation.received_at.0));
            self.metrics.scored_after(waited.as_secs_f64());
        }
        let key = Some(observation.respondent_id.clone().into_bytes());
        ctx.forward(&Record { key, value: prediction, time: observation.event_time })
    }
}
