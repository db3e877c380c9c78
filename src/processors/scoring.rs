//! Scores observations with the model that the instance serves.

use crate::{
    events::{
        answered::{ClassProbabilitiesRef, ClassProbability, Encoded},
        prediction::{Prediction, PredictionRef},
    },
    processors::{
        contract::ContractWatch,
        convert,
        gather::{GatherSettings, Gathered},
        metrics::ApplicationMetrics,
        model_table::Serving,
    },
};
use foretell_ml::{ModelVersion, Scratch};
use foretell_streams::{
    metrics::Counter,
    time::EventTime,
    topology::{Context, ProcessError, Processor, Record},
};

/// The processor from observations to predictions.
pub struct Score {
    /// The model that serves. It is loaded for every record, so a swap happens between two records.
    pub serving: Serving,
    /// The settings by which observations are gathered: their questions, and the layout of the answers.
    pub gather: GatherSettings,
    /// The check of the feature contract.
    pub(super) contract: ContractWatch,
    /// The application's metrics.
    pub metrics: ApplicationMetrics,
    /// Data prepared for the model that scored last.
    pub prepared: Option<Prepared>,
}

/// Data that depend on the model only.
pub struct Prepared {
    version: ModelVersion,
    /// The index of the question, and of the column, for each column of the model that has a question; in the order of the
    /// questions.
    columns: Vec<(usize, usize)>,
    predictions: Counter,
    scratch: Scratch,
    /// The encoded probabilities, in memory that every record uses again.
    probabilities: Vec<u8>,
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
        let Some(scorer) = self.serving.scorer() else {
            return Err(ProcessError::Retry("no model serves yet".to_owned()));
        };
        let is_prepared = |prepared: &Prepared| &prepared.version == scorer.version();
        if !self.prepared.as_ref().is_some_and(is_prepared) {
            self.contract.begin(&scorer, &self.gather.questions);
            self.prepared = Some(Prepared {
                version: scorer.version().clone(),
                columns: convert::columns_by_question(scorer.columns(), &self.gather.questions),
                predictions: self.metrics.predictions(scorer.version().as_str()),
                scratch: Scratch::default(),
                probabilities: Vec::new(),
            });
        }
        self.contract.admit(&self.gather.layout, &observation.answers).inspect_err(|error| {
            if matches!(error, ProcessError::Reject { .. }) {
                self.contract.count(&self.gather.layout, &observation.answers);
            }
        })?;
        self.contract.count(&self.gather.layout, &observation.answers);
        let prepared = self.prepared.as_mut().expect("it is prepared above");
        let values =
            convert::values_by_column(&prepared.columns, &self.gather.layout, &observation.answers);
        let (probabilities, out_of_distribution) =
            scorer.score_columns(values, &mut prepared.scratch);
        let label = &scorer.classes()[scorer.decide(&probabilities).index()];
        let named = scorer.classes().iter().zip(probabilities.as_slice());
        let named =
            named.map(|(label, probability)| ClassProbability { label, probability: *probability });
        let predicted_at = ctx.now();
        let prediction = Encoded::new(PredictionRef {
            prediction_id: observation.identity.id_in(&mut [0; _]),
            respondent_id: &observation.respondent_id,
            event_id: &observation.event_id,
            event_time: observation.event_time,
            received_at: observation.received_at,
            predicted_at,
            model_version: scorer.version().as_str(),
            label,
            probabilities: ClassProbabilitiesRef::encode(named, &mut prepared.probabilities),
            answers: (&observation.answers).into(),
        });
        ctx.count(&prepared.predictions, 1);
        ctx.count(&self.metrics.unseen_categories(), out_of_distribution.unseen_categories);
        ctx.count(&self.metrics.out_of_range(), out_of_distribution.out_of_range);
        ctx.count(&self.metrics.not_numbers(), out_of_distribution.not_numbers);
        let waited = EventTime(predicted_at.0).since(EventTime(observation.received_at.0));
        self.metrics.scored_after(waited.as_secs_f64());
        let key = Some(observation.respondent_id.clone().into_bytes());
        ctx.forward(&Record { key, value: prediction, time: observation.event_time })
    }
}
