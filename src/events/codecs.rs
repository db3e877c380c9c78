//! The codec of each topic that the topologies read or write in Avro, opened with the schema that its row in
//! [`crate::events::topics::TOPICS`] names.

use std::sync::Arc;

use crate::events::{
    answered::{AnsweredCodec, AnsweredRecord},
    labelled_example::LabelledExample,
    model::Model,
    outcome::{Outcome, OutcomeCodec},
    prediction::Prediction,
    questionnaire::{QuestionnaireCodec, QuestionnaireEvent, QuestionnaireSchema},
    topics::{Topics, subject},
    trial::Trial,
};
use foretell_avro::{
    codec::{AvroCodec, CodecSetupError},
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
    pub prediction: Arc<AnsweredCodec<Prediction>>,
    /// Of `labelled-examples`.
    pub labelled_example: Arc<AnsweredCodec<LabelledExample>>,
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
        Ok(Self {
            questionnaire: Arc::new(event_codec(registry, topics, event_schema)?),
            outcome: Outcome::codec(registry, &topics.outcomes, event_schema)?,
            prediction: answered(registry, &topics.predictions, event_schema)?,
            labelled_example: answered(registry, &topics.labelled_examples, event_schema)?,
            model: Model::codec(registry, &topics.models, event_schema)?,
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

/// A type of the values of one topic.
pub trait TopicValue: Sized {
    /// The codec of `topic`.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    fn codec(
        registry: &Arc<dyn SchemaRegistry>,
        topic: &Topic,
        event_schema: &Arc<QuestionnaireSchema>,
    ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError>;
}

impl TopicValue for Prediction {
    fn codec(
        registry: &Arc<dyn SchemaRegistry>,
        topic: &Topic,
        event_schema: &Arc<QuestionnaireSchema>,
    ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(answered(registry, topic, event_schema)?)
    }
}

impl TopicValue for LabelledExample {
    fn codec(
        registry: &Arc<dyn SchemaRegistry>,
        topic: &Topic,
        event_schema: &Arc<QuestionnaireSchema>,
    ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(answered(registry, topic, event_schema)?)
    }
}

impl TopicValue for Outcome {
    fn codec(
        registry: &Arc<dyn SchemaRegistry>,
        topic: &Topic,
        event_schema: &Arc<QuestionnaireSchema>,
    ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        let (registry, events) = (Arc::clone(registry), Arc::clone(event_schema));
        Ok(Arc::new(OutcomeCodec::new(registry, &subject(topic), events)?))
    }
}

impl TopicValue for Model {
    fn codec(
        registry: &Arc<dyn SchemaRegistry>,
        topic: &Topic,
        _: &Arc<QuestionnaireSchema>,
    ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(Arc::new(AvroCodec::new(Arc::clone(registry), &subject(topic))?))
    }
}

impl TopicValue for Trial {
    fn codec(
        registry: &Arc<dyn SchemaRegistry>,
        topic: &Topic,
        _: &Arc<QuestionnaireSchema>,
    ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(Arc::new(AvroCodec::new(Arc::clone(registry), &subject(topic))?))
    }
}

fn answered<R: AnsweredRecord>(
    registry: &Arc<dyn SchemaRegistry>,
    topic: &Topic,
    event_schema: &Arc<QuestionnaireSchema>,
) -> Result<Arc<AnsweredCodec<R>>, CodecSetupError> {
    let codec =
        AnsweredCodec::new(Arc::clone(registry), &subject(topic), Arc::clone(event_schema))?;
    Ok(Arc::new(codec))
}
