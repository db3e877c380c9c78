//! The codec of each topic that the topologies read or write in Avro, opened with the schema that its row in
//! [`crate::events::topics::TOPICS`] names.

use std::sync::Arc;

use crate::events::{
    action::Action,
    answered::{AnsweredCodec, AnsweredRecord},
    command::Command,
    decision::Decision,
    labelled_example::LabelledExample,
    model::Model,
    outcome::{Outcome, OutcomeCodec},
    prediction::Prediction,
    quality::Quality,
    questionnaire::{EventSchemas, QuestionnaireCodec, QuestionnaireEvent, QuestionnaireSchema},
    topics::{Topics, subject},
    trial::Trial,
};
use foretell_avro::{
    codec::{AvroCodec, AvroRecord, CodecSetupError},
    framing,
    registry::SchemaRegistry,
};
use foretell_streams::{codec::Codec, record::Topic};

/// The id of the writer schema that the value of a record names; none if it is not in Confluent's wire format.
#[must_use]
pub fn writer_schema(value: &[u8]) -> Option<u32> {
    framing::unframe(value).ok().map(|(id, _)| id)
}

/// The codecs of the record values.
#[derive(Clone)]
pub struct Codecs {
    /// Of `questionnaire-events`.
    pub questionnaire: Arc<dyn Codec<QuestionnaireEvent>>,
    /// Of the companions of the events, in the order of [`Topics::companions`](crate::events::topics::TopicTable::companions).
    pub companions: Vec<Arc<dyn Codec<QuestionnaireEvent>>>,
    /// Of `outcomes`.
    pub outcome: Arc<dyn Codec<Outcome>>,
    /// Of `predictions`.
    pub prediction: Arc<AnsweredCodec<Prediction>>,
    /// Of `actions`.
    pub action: Arc<AnsweredCodec<Action>>,
    /// Of `labelled-examples`.
    pub labelled_example: Arc<AnsweredCodec<LabelledExample>>,
    /// Of `models`.
    pub model: Arc<dyn Codec<Model>>,
    /// Of `trials`.
    pub trial: Arc<dyn Codec<Trial>>,
    /// Of `commands`.
    pub command: Arc<dyn Codec<Command>>,
    /// Of `decisions`.
    pub decision: Arc<dyn Codec<Decision>>,
    /// Of `quality`.
    pub quality: Arc<dyn Codec<Quality>>,
}

impl Codecs {
    /// Those of the events, in the order of their topics: the lead's first.
    pub fn of_events(&self) -> impl Iterator<Item = &Arc<dyn Codec<QuestionnaireEvent>>> {
        [&self.questionnaire].into_iter().chain(&self.companions)
    }

    /// Opens the codecs of `topics`. Events are read as `events`, in the order of the topics.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    pub fn open(
        registry: &Arc<dyn SchemaRegistry>,
        topics: &Topics,
        events: &EventSchemas,
    ) -> Result<Self, CodecSetupError> {
        let schemas = Schemas { registry, events: events.lead() };
        let mut of_events = Vec::new();
        for codec in event_codecs(registry, topics, events)? {
            of_events.push(Arc::new(codec) as Arc<dyn Codec<QuestionnaireEvent>>);
        }
        Ok(Self {
            questionnaire: of_events.remove(0),
            companions: of_events,
            outcome: Outcome::codec(schemas, &topics.outcomes)?,
            prediction: schemas.answered(&topics.predictions)?,
            action: schemas.answered(&topics.actions)?,
            labelled_example: schemas.answered(&topics.labelled_examples)?,
            model: Model::codec(schemas, &topics.models)?,
            trial: Trial::codec(schemas, &topics.trials)?,
            command: Command::codec(schemas, &topics.commands)?,
            decision: Decision::codec(schemas, &topics.decisions)?,
            quality: Quality::codec(schemas, &topics.quality)?,
        })
    }
}

/// The codecs of the events, in the order of their topics.
///
/// # Errors
/// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
pub fn event_codecs(
    registry: &Arc<dyn SchemaRegistry>,
    topics: &Topics,
    events: &EventSchemas,
) -> Result<Vec<QuestionnaireCodec>, CodecSetupError> {
    let codec = |(topic, schema): (&Topic, &Arc<QuestionnaireSchema>)| {
        QuestionnaireCodec::new(Arc::clone(registry), &subject(topic), Arc::clone(schema))
    };
    topics.of_events().zip(events.iter()).map(codec).collect()
}

/// The schemas that codecs are opened with.
#[derive(Clone, Copy)]
pub struct Schemas<'s> {
    /// The registry.
    pub registry: &'s Arc<dyn SchemaRegistry>,
    /// The event schema.
    pub events: &'s Arc<QuestionnaireSchema>,
}

impl Schemas<'_> {
    fn plain<T: AvroRecord + 'static>(
        self,
        topic: &Topic,
    ) -> Result<Arc<dyn Codec<T>>, CodecSetupError> {
        Ok(Arc::new(AvroCodec::new(Arc::clone(self.registry), &subject(topic))?))
    }

    fn answered<R: AnsweredRecord>(
        self,
        topic: &Topic,
    ) -> Result<Arc<AnsweredCodec<R>>, CodecSetupError> {
        let (registry, events) = (Arc::clone(self.registry), Arc::clone(self.events));
        Ok(Arc::new(AnsweredCodec::new(registry, &subject(topic), events)?))
    }
}

/// A type of the values of one topic.
pub trait TopicValue: Sized {
    /// The codec of `topic`.
    ///
    /// # Errors
    /// [`CodecSetupError`], such as [`CodecSetupError::NotRegistered`].
    fn codec(schemas: Schemas<'_>, topic: &Topic) -> Result<Arc<dyn Codec<Self>>, CodecSetupError>;
}

impl TopicValue for Prediction {
    fn codec(schemas: Schemas<'_>, topic: &Topic) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(schemas.answered(topic)?)
    }
}

impl TopicValue for Action {
    fn codec(schemas: Schemas<'_>, topic: &Topic) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(schemas.answered(topic)?)
    }
}

impl TopicValue for LabelledExample {
    fn codec(schemas: Schemas<'_>, topic: &Topic) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        Ok(schemas.answered(topic)?)
    }
}

impl TopicValue for Outcome {
    fn codec(schemas: Schemas<'_>, topic: &Topic) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
        let (registry, events) = (Arc::clone(schemas.registry), Arc::clone(schemas.events));
        Ok(Arc::new(OutcomeCodec::new(registry, &subject(topic), events)?))
    }
}

/// Types whose schema does not depend on the event schema.
macro_rules! plain_values {
    ($($value:ty),+) => {$(
        impl TopicValue for $value {
            fn codec(
                schemas: Schemas<'_>,
                topic: &Topic,
            ) -> Result<Arc<dyn Codec<Self>>, CodecSetupError> {
                schemas.plain(topic)
            }
        }
    )+};
}

plain_values!(Model, Trial, Command, Decision, Quality);
