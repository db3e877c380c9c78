//! The codec of each topic that the topologies read or write in Avro, opened with the schema that its row in
//! [`crate::events::topics::TOPICS`] names.

use std::sync::Arc;

use crate::events::{
    labelled_example::LabelledExample,
    model::Model,
    outcome::{Outcome, OutcomeCodec},
    prediction::Prediction,
    questionnaire::{QuestionnaireCodec, QuestionnaireEvent, QuestionnaireSchema},
    topics::{Topics, subject},
};
use foretell_avro::{
    codec::{AvroCodec, AvroRecord, CodecSetupError},
    registry::SchemaRegistry,
};
use foretell_streams::{codec::Codec, record::Topic};

/// The codecs of the record values.
#[derive(Clone)]
pub struct Codecs {
    /// Of `questionnaire-events`.
    pub questionnaire: Arc<dyn Codec<QuestionnaireEvent>>,
    /// Of `outcomes`.
    pub outcome: Arc<dyn Codec<Outcome>>,
    /// Of `predictions`.
    pub prediction: Arc<dyn Codec<Prediction>>,
    /// Of `labelled-examples`.
    pub labelled_example: Arc<dyn Codec<LabelledExample>>,
    /// Of `models`.
    pub model: Arc<dyn Codec<Model>>,
}

impl Codecs {
    /// Opens the codecs of `topics`. Events are read as `event_schema`.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    pub fn open(
        registry: &Arc<dyn SchemaRegistry>,
        topics: &Topics,
        event_schema: &Arc<QuestionnaireSchema>,
    ) -> Result<Self, CodecSetupError> {
        let outcome = OutcomeCodec::new(
            Arc::clone(registry),
            &subject(&topics.outcomes),
            Arc::clone(event_schema),
        )?;
        Ok(Self {
            questionnaire: Arc::new(event_codec(registry, topics, event_schema)?),
            outcome: Arc::new(outcome),
            prediction: codec(registry, &topics.predictions)?,
            labelled_example: codec(registry, &topics.labelled_examples)?,
            model: codec(registry, &topics.models)?,
        })
    }
}

/// The codec of the events.
///
/// # Errors
/// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
pub fn event_codec(
    registry: &Arc<dyn SchemaRegistry>,
    topics: &Topics,
    event_schema: &Arc<QuestionnaireSchema>,
) -> Result<QuestionnaireCodec, CodecSetupError> {
    let subject = subject(&topics.questionnaire_events);
    QuestionnaireCodec::new(Arc::clone(registry), &subject, Arc::clone(event_schema))
}

/// The codec of a topic with values of type `T`.
///
/// # Errors
/// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
pub fn codec<T: AvroRecord + 'static>(
    registry: &Arc<dyn SchemaRegistry>,
    topic: &Topic,
) -> Result<Arc<dyn Codec<T>>, CodecSetupError> {
    Ok(Arc::new(AvroCodec::<T>::new(Arc::clone(registry), &subject(topic))?))
}
