//! The topics that a play sends events to. A row of the table is one event if there are no companions. Otherwise each source gets
//! the part of the row that its schema has fields for, as its service would write it.
//!
//! ```text
//!   row ─▶ a whole event ─▶ parts ─┬─▶ companions, earlier        an answer that two sources have is written by the first
//!                                  └─▶ the closing source, last   has the completed flag; it makes the observation complete
//! ```
//!
//! Records of two topics with the same event time are processed in either order, and the event that completes an observation names
//! its prediction. So the parts of the others come earlier, as a registration comes before a questionnaire.

use std::{sync::Arc, time::Duration};

use crate::{
    app::cluster::Cluster,
    config::Config,
    events::questionnaire::{
        EventIdentity, EventSource, QuestionnaireEvent, QuestionnaireSchema, RowLayout,
    },
};
use foretell_streams::{
    codec::{Codec, CodecError},
    record::Topic,
};

/// The topics with events, the lead first. A clone shares them.
#[derive(Clone)]
pub struct PlaySources {
    sources: Arc<[PlaySource]>,
    /// The index of the source whose part comes last.
    closing: usize,
}

struct PlaySource {
    schema: Arc<QuestionnaireSchema>,
    topic: Topic,
    codec: Arc<dyn Codec<QuestionnaireEvent>>,
    /// Whether each answer is written by this source: it has a field for it, and no earlier source has.
    writes: Vec<bool>,
}

impl PlaySources {
    /// Opens the codecs.
    ///
    /// # Errors
    /// If a schema is not registered.
    pub fn open(config: &Config, cluster: &Cluster) -> anyhow::Result<Self> {
        let codecs = cluster.sample_codecs(config)?;
        let mut is_written = vec![false; config.event_schema.questions().len()];
        let sources = config.event_schemas.iter().zip(config.topics.of_events()).zip(codecs);
        let sources = sources.map(|((schema, topic), codec)| {
            let asked = schema.asked().iter().zip(&mut is_written);
            let writes = asked.map(|(is_asked, is_written)| {
                *is_asked && !std::mem::replace(is_written, *is_written || *is_asked)
            });
            let writes = writes.collect();
            PlaySource { schema: Arc::clone(schema), topic: topic.clone(), codec, writes }
        });
        let sources: Arc<[PlaySource]> = sources.collect();
        let has_flag = |source: &PlaySource| source.schema.metadata().completed.is_some();
        let closing = sources.iter().position(has_flag).unwrap_or(0);
        Ok(Self { sources, closing })
    }

    /// Whether there are companions.
    #[must_use]
    pub fn has_companions(&self) -> bool {
        self.sources.len() > 1
    }

    /// Whether a whole event can say that the questionnaire is completed.
    #[must_use]
    pub fn has_completed_flag(&self) -> bool {
        self.sources[self.closing].schema.metadata().completed.is_some()
    }

    /// The events that are sent for a whole one, which has the ids of the lead: the closing one at its time, those before it
    /// `ahead`. A companion without an answer sends nothing.
    #[must_use]
    pub fn parts(&self, whole: &QuestionnaireEvent, ahead: Duration) -> Vec<QuestionnaireEvent> {
        if !self.has_companions() {
            return vec![whole.clone()];
        }
        let others = (0..self.sources.len()).filter(|index| *index != self.closing);
        let others = others.map(|index| {
            let part = self.part(whole, index);
            QuestionnaireEvent { event_time: whole.event_time - ahead, completed: false, ..part }
        });
        let is_given = |part: &QuestionnaireEvent| {
            self.layout().answers(&part.answers).any(|answer| !answer.is_missing())
        };
        let mut parts: Vec<QuestionnaireEvent> = others.filter(is_given).collect();
        parts.push(self.part(whole, self.closing));
        parts
    }

    /// The part of the lead.
    #[must_use]
    pub fn part_of_lead(&self, whole: &QuestionnaireEvent) -> QuestionnaireEvent {
        self.part(whole, 0)
    }

    fn part(&self, whole: &QuestionnaireEvent, index: usize) -> QuestionnaireEvent {
        let source = &self.sources[index];
        let event_id = match source.schema.source() {
            EventSource::Lead => whole.event_id.clone(),
            EventSource::Companion(_) if !source.schema.names_events() => String::new(),
            EventSource::Companion(_) => {
                // Without an id, rows of a respondent at one time differ by their content only, as the events of the lead do.
                let lead = &self.sources[0].schema;
                let by_content =
                    || EventIdentity::of(whole, lead.questions(), lead.layout(), &[]).id();
                let named = Some(&whole.event_id).filter(|id| !id.is_empty());
                source.schema.event_id_of_name(&named.map_or_else(by_content, Clone::clone))
            }
        };
        QuestionnaireEvent {
            source: source.schema.source().clone(),
            event_id,
            answers: self.layout().keep(&whole.answers, |answer| source.writes[answer]),
            ..whole.clone()
        }
    }

    /// Encodes an event of one source. Returns its topic.
    ///
    /// # Errors
    /// If its schema does not allow it.
    pub fn encode(
        &self,
        event: &QuestionnaireEvent,
        bytes: &mut Vec<u8>,
    ) -> Result<&Topic, CodecError> {
        let source = self.source(event);
        source.codec.encode(event, bytes)?;
        Ok(&source.topic)
    }

    /// Decodes bytes as the source of `event` does.
    pub(super) fn decode(
        &self,
        event: &QuestionnaireEvent,
        bytes: &[u8],
    ) -> Result<QuestionnaireEvent, CodecError> {
        self.source(event).codec.decode(bytes)
    }

    /// The topic of the lead.
    #[must_use]
    pub fn lead(&self) -> &Topic {
        &self.sources[0].topic
    }

    fn source(&self, event: &QuestionnaireEvent) -> &PlaySource {
        let mut sources = self.sources.iter();
        let found = sources.find(|source| *source.schema.source() == event.source);
        found.expect("events of a play are made for its sources")
    }

    /// The layout of the answers of all sources.
    fn layout(&self) -> &RowLayout {
        self.sources[0].schema.layout()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::app::{
        play::{Action, EventFactory, Pace, PlaySettings, Script},
        schemas::{self, SetLevels},
        table,
    };
    use foretell_ml::Seed;
    use foretell_streams::time::EventTime;

    const TOML: &str = r#"
        application.id = "shop"
        [events]
        schema = "visit.avsc"
        respondent_id = "who"
        event_time = "at"
        event_id = "id"
        completed = "done"
        [[events.companions]]
        topic = "orders"
        schema = "order.avsc"
        event_id = "number"
        [outcomes]
        labels = ["no", "yes"]
        [data.play]
        path = "play.csv"
        label = "out"
    "#;
    const START: EventTime = EventTime(1_790_000_000_000);

    /// Live traffic of a table.
    fn opened() -> (EventFactory, Script, PlaySettings) {
        opened_of("who,id,age,job,out\nann,7,39,cook,no\nbob,8,40,,yes\n", true, false)
    }

    fn opened_of(
        table: &str,
        has_ids: bool,
        with_times: bool,
    ) -> (EventFactory, Script, PlaySettings) {
        let folder = tempfile::tempdir().unwrap();
        let avsc = |fields: &str| {
            format!(
                r#"{{"type":"record","name":"R","fields":[{{"name":"who","type":"string"}},{{"name":"at","type":"long"}},
                {{"name":"age","type":["null","int"],"default":null}},{fields}]}}"#
            )
        };
        let id = if has_ids { r#"{"name":"id","type":"string"},"# } else { "" };
        let visit = avsc(&format!(r#"{id}{{"name":"done","type":"boolean"}}"#));
        let toml = if has_ids { TOML.to_owned() } else { TOML.replace("event_id = \"id\"", "") };
        let order = avsc(
            r#"{"name":"number","type":"long"},{"name":"job","type":["null","string"],"default":null}"#,
        );
        for (name, text) in [
            ("visit.avsc", visit.as_str()),
            ("order.avsc", &order),
            ("foretell.toml", &toml),
            ("play.csv", table),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let config = Config::load(&folder.path().join("foretell.toml"), &[]);
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let cluster = Cluster::embedded(&crate::app::clock());
        let levels = SetLevels::WithNewVersions;
        schemas::register_with(&config, cluster.registry.as_ref(), levels, &mut |_| {}).unwrap();
        let sources = PlaySources::open(&config, &cluster).unwrap();
        let second = Duration::from_secs(1);
        let settings = PlaySettings {
            seed: Seed(1),
            pace: Pace {
                start: START,
                gap: second,
                piece_gap: second,
                outcome_delay_max: second,
                moved_back: Duration::ZERO,
                open_max: usize::MAX,
            },
            with_times,
            sessions: config.gather.sessions,
            join: config.join.clone(),
            with_actions: false,
            leave: None,
        };
        let table = config.data.play.clone().unwrap();
        let rows = table::of_configuration(&config, "data.play", &table, &[]).unwrap().rows;
        let mut factory = EventFactory::new(&config, &sources, &rows, "test", START).unwrap();
        let script = Script::of(&rows, &mut factory, &settings);
        (factory, script, settings)
    }

    /// Source, respondent, event id, seconds after the start, whether completed, scored, and the answers.
    fn events(script: &Script, factory: &EventFactory) -> Vec<String> {
        let events = script.actions.iter().filter_map(|scheduled| match &scheduled.action {
            Action::Event { event, is_scored, .. } => {
                let given = factory.answered(&event.answers);
                let source = event.source.companion_name().unwrap_or("lead");
                let second = (event.event_time.0 - START.0) / 1_000;
                let flags = (event.completed, *is_scored);
                Some(format!("{source} {}@{second} {flags:?} {given:?}", event.respondent_id))
            }
            Action::Outcome(_) | Action::OutcomeIf { .. } | Action::Bad { .. } => None,
        });
        events.collect()
    }

    #[test]
    fn a_row_is_split_by_source_and_the_part_with_the_flag_comes_last() {
        let (factory, script, _) = opened();
        // Bob has no job, so there is no order of his. The age is in both schemas, and the lead writes it.
        let expected = [
            "orders ann@1 (false, false) [false, true]",
            "lead ann@2 (true, true) [true, false]",
            "lead bob@3 (true, true) [true, false]",
        ];
        assert_eq!(events(&script, &factory), expected);
        let ids = script.actions.iter().filter_map(|scheduled| match &scheduled.action {
            Action::Event { event, .. } => Some(event.event_id.as_str()),
            Action::Outcome(_) | Action::OutcomeIf { .. } | Action::Bad { .. } => None,
        });
        // The table's id is valid for both fields.
        assert_eq!(ids.collect::<Vec<_>>(), ["7", "7", "8"]);
        assert_eq!(script.waits_for_parts().unwrap().len(), 1, "before the last part of ann");
    }

    #[test]
    fn rows_of_a_respondent_at_one_time_are_events_of_their_own() {
        // Dates without a time of day: three rows of one day, two of them equal.
        let day = "ann,1790000000000,39,cook,no\nann,1790000000000,40,cook,yes\n";
        let day = format!("who,at,age,job,out\n{day}ann,1790000000000,40,cook,yes\n");
        let check = |has_ids: bool, sent: usize, repeated: usize| {
            let (_, script, _) = opened_of(&day, has_ids, true);
            assert_eq!((script.repeated_rows, script.returning.len()), (repeated, 1));
            let ids = |source: &EventSource| -> BTreeSet<String> {
                let events =
                    script.actions.iter().filter_map(|scheduled| match &scheduled.action {
                        Action::Event { event, prediction_id, .. } if event.source == *source => {
                            Some(prediction_id.clone())
                        }
                        Action::Event { .. }
                        | Action::Outcome(_)
                        | Action::OutcomeIf { .. }
                        | Action::Bad { .. } => None,
                    });
                events.collect()
            };
            for source in [EventSource::Lead, EventSource::companion("orders")] {
                assert_eq!(ids(&source).len(), sent, "{source:?}");
                let (_, again, _) = opened_of(&day, has_ids, true);
                assert_eq!(again.actions, script.actions, "each run makes the same ids");
            }
        };
        check(true, 3, 0);
        // Without event ids, an event is its content.
        check(false, 2, 1);
    }

    #[test]
    fn one_source_alone_sends_its_parts_only() {
        let (factory, mut script, settings) = opened();
        script.keep_source(&EventSource::companion("orders"), &factory, &settings);
        let expected = ["orders ann@1 (false, false) [false, true]"];
        assert_eq!(events(&script, &factory), expected);
        assert_eq!(script.actions.len(), 1, "outcomes come with the lead");
        let (factory, mut script, settings) = opened();
        script.keep_source(&EventSource::Lead, &factory, &settings);
        assert_eq!(events(&script, &factory).len(), 2);
        assert!(script.actions.len() > 2, "and outcomes");
    }
}
