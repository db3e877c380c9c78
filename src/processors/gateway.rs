//! One event at a time into the stream, and its prediction back: what `POST /api/v1/events` does.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde_json::Value as Json;

use crate::{
    events::{
        prediction::Prediction,
        questionnaire::{QuestionnaireEvent, QuestionnaireSchema},
        topics::Topics,
    },
    processors::topology::Codecs,
    streams::{
        record::{OutputRecord, TopicPartition, partition_of},
        runtime::broker::{Broker, BrokerError, From, Publisher, Reader},
        time::{Clock, EventTime},
    },
};

/// Puts events on their topic, and waits for predictions on theirs.
pub struct Gateway {
    broker: Arc<dyn Broker>,
    publisher: Mutex<Box<dyn Publisher>>,
    schema: Arc<QuestionnaireSchema>,
    codecs: Codecs,
    topics: Topics,
    clock: Arc<dyn Clock>,
    sent: AtomicU64,
}

/// Why an event was not taken, or its prediction not had.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The event is wrong: the caller's to mend.
    #[error("{0}")]
    Refused(String),
    /// The event was written, but no prediction came in time (it may be incomplete, and wait for more).
    #[error("event {event_id} was written, but no prediction came within {waited:?}")]
    NoPrediction {
        /// The event.
        event_id: String,
        /// How long we waited.
        waited: Duration,
    },
    /// The broker can't be had.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

/// One look at the predictions, so that a wait ends in time.
const LOOK: Duration = Duration::from_millis(100);

impl Gateway {
    /// A gateway with a producer of its own.
    ///
    /// # Errors
    /// If no producer can be had.
    pub fn open(
        broker: Arc<dyn Broker>,
        schema: Arc<QuestionnaireSchema>,
        codecs: Codecs,
        topics: Topics,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, BrokerError> {
        let publisher = Mutex::new(broker.publish()?);
        Ok(Self { broker, publisher, schema, codecs, topics, clock, sent: AtomicU64::new(0) })
    }

    /// Writes an event and returns it as written, once the broker has it.
    ///
    /// # Errors
    /// [`GatewayError`]
    pub fn submit(&self, json: &Json) -> Result<QuestionnaireEvent, GatewayError> {
        let event = self.event_of(json)?;
        self.write(&event)?;
        Ok(event)
    }

    /// Writes an event and waits at most `wait` for its prediction. Blocks.
    ///
    /// # Errors
    /// [`GatewayError`]
    pub fn predict(&self, json: &Json, wait: Duration) -> Result<Prediction, GatewayError> {
        let event = self.event_of(json)?;
        let topic = &self.topics.predictions;
        let partitions = self.broker.partitions(topic)?.unwrap_or(1);
        let partition = partition_of(event.respondent_id.as_bytes(), partitions);
        let source = TopicPartition { topic: topic.clone(), partition };
        // Before the event is written, so that its prediction can only come after.
        let mut reader = self.broker.read(&source, From::End)?;
        reader.read(Duration::ZERO, &mut Vec::new())?;
        self.write(&event)?;
        let deadline = self.clock.elapsed() + wait;
        while self.clock.elapsed() < deadline {
            if let Some(prediction) = self.look(reader.as_mut(), &event)? {
                return Ok(prediction);
            }
        }
        Err(GatewayError::NoPrediction { event_id: event.event_id, waited: wait })
    }

    fn look(
        &self,
        reader: &mut dyn Reader,
        event: &QuestionnaireEvent,
    ) -> Result<Option<Prediction>, GatewayError> {
        let mut records = Vec::new();
        reader.read(LOOK, &mut records)?;
        for record in records {
            let Some(bytes) = &record.value else { continue };
            if let Ok(prediction) = self.codecs.prediction.decode(bytes)
                && prediction.event_id == event.event_id
                && prediction.respondent_id == event.respondent_id
            {
                return Ok(Some(prediction));
            }
        }
        Ok(None)
    }

    fn event_of(&self, json: &Json) -> Result<QuestionnaireEvent, GatewayError> {
        let now = self.clock.now();
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        let event_id = format!("api-{}-{number}", now.0);
        let event = self.schema.from_json(json, &event_id, EventTime(now.0));
        event.map_err(|error| GatewayError::Refused(error.to_string()))
    }

    fn write(&self, event: &QuestionnaireEvent) -> Result<(), GatewayError> {
        let mut bytes = Vec::new();
        let encoded = self.codecs.questionnaire.encode(event, &mut bytes);
        encoded.map_err(|error| GatewayError::Refused(error.to_string()))?;
        let record = OutputRecord {
            topic: self.topics.questionnaire_events.clone(),
            partition: None,
            timestamp: EventTime(self.clock.now().0),
            key: Some(event.respondent_id.clone().into_bytes()),
            value: Some(bytes),
            headers: Vec::new(),
        };
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        publisher.send(record)?;
        Ok(publisher.flush()?)
    }
}
