//! The labelled examples that the join makes.

use crate::{
    events::{
        action::{ExampleActionRef, ExampleActions, ExampleActionsRef},
        answered::Encoded,
        labelled_example::{
            ExampleOrigin, ExamplePredictionRef, LabelledExample, LabelledExampleRef,
        },
        prediction::PredictionRef,
    },
    processors::outcome_join::{
        labelled::Labelled,
        settings::LearnFrom,
        store::{JoinContext, OutcomeStore},
    },
};
use foretell_streams::{
    codec::CodecError,
    state::StateError,
    time::EventTime,
    topology::{ProcessError, Record},
};

impl OutcomeStore {
    /// Forwards the example of a stored prediction that leaves the store.
    pub(super) fn emit_stored(
        &self,
        record: &[u8],
        labelled: Labelled<'_>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let predictions = &self.codec.predictions;
        match predictions.read(record, |prediction| self.emit_closed(prediction, labelled, ctx)) {
            Ok(emitted) => emitted,
            Err(CodecError::Unavailable { message }) => Err(ProcessError::Retry(message)),
            // It was written with a schema that the registry does not have any more. No retry would help.
            Err(error) => {
                tracing::error!(%error, "dropping a prediction that cannot be read: it makes no example");
                Ok(())
            }
        }
    }

    /// Forwards the example of a prediction that leaves the store, or is not kept.
    pub(super) fn emit_closed(
        &self,
        prediction: PredictionRef<'_>,
        labelled: Labelled<'_>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        // The window of one for which there is no room may still be open.
        let time = (prediction.event_time + self.settings.window).min(ctx.stream_time());
        self.emit(prediction, labelled, time, ctx)
    }

    /// Forwards the example of a prediction.
    pub(super) fn emit(
        &self,
        prediction: PredictionRef<'_>,
        labelled: Labelled<'_>,
        time: EventTime,
        ctx: &mut JoinContext<'_>,
    ) -> Result<(), ProcessError> {
        let example = self.example(prediction, labelled, ctx)?;
        ctx.count(&self.metrics.labelled_examples(labelled.source()), 1);
        let key = Some(prediction.respondent_id.as_bytes().to_vec());
        ctx.forward(&Record { key, value: example, time })
    }

    /// The example of a prediction, with the actions that came due for its respondent up to the outcome, or within the window
    /// if there is none. If every prediction is learned from, an example has the actions that its prediction caused.
    fn example(
        &self,
        prediction: PredictionRef<'_>,
        labelled: Labelled<'_>,
        ctx: &mut JoinContext<'_>,
    ) -> Result<Encoded<LabelledExample>, StateError> {
        let PredictionRef { prediction_id, respondent_id, event_time, .. } = prediction;
        let until = labelled.outcome_time.unwrap_or(event_time + self.settings.window);
        let mut due = match &self.acted {
            Some(acted) if until >= event_time => {
                acted.between(respondent_id, (event_time, until), ctx)?
            }
            Some(_) | None => Vec::new(),
        };
        if self.settings.learn_from == LearnFrom::Every {
            due.retain(|(_, acted)| acted.prediction_id == prediction_id);
        }
        let actions = ExampleActions::of(due.iter().map(|(time, acted)| ExampleActionRef {
            action_id: &acted.action_id,
            rule: &acted.rule,
            rule_version: &acted.rule_version,
            acted: acted.acted,
            propensity: acted.propensity,
            acted_at: *time,
        }));
        Ok(example(prediction, labelled, actions.borrow()))
    }
}

fn example(
    prediction: PredictionRef<'_>,
    Labelled { label, outcome_time, replaced }: Labelled<'_>,
    actions: ExampleActionsRef<'_>,
) -> Encoded<LabelledExample> {
    Encoded::new(LabelledExampleRef {
        example_id: prediction.prediction_id,
        respondent_id: prediction.respondent_id,
        origin: ExampleOrigin::Stream,
        event_time: prediction.event_time,
        outcome_time,
        label,
        prediction: Some(ExamplePredictionRef {
            prediction_id: prediction.prediction_id,
            model_version: prediction.model_version,
            predicted_at: prediction.predicted_at,
            probabilities: prediction.probabilities,
        }),
        challenger: prediction.challenger,
        correction: replaced.is_some(),
        replaced,
        actions,
        answers: prediction.answers,
    })
}
