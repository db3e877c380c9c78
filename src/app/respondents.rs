//! Tests that a respondent id is the same for every input (*event in Avro, event in JSON, outcome in Avro, outcome in JSON, cell
//! of a table*) and for every type of respondent ids; and that an event keeps every digit of a `long`.

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc, time::Duration};

    use proptest::prelude::*;
    use serde_json::{Value as Json, json};

    use crate::{
        app::table,
        config::TableSettings,
        events::{
            codecs::Codecs,
            outcome::Outcome,
            questionnaire::{
                Answer, AnswerRef, MetadataFields, QuestionnaireEvent, QuestionnaireSchema,
            },
            topics::{Topics, subject},
        },
        processors::{
            event_time::TimeBounds,
            gateway::{EntrySettings, Gateway, GatewayError, GatewaySettings},
        },
    };
    use foretell_avro::{
        codec::AvroCodec, framing, local::LocalRegistry, registry::SchemaRegistry,
    };
    use foretell_streams::{
        codec::{Codec, CodecError},
        local::LocalBroker,
        record::OutputRecord,
        runtime::broker::Broker,
        time::{Clock, EventTime, ManualClock, WallTime},
    };

    /// The type of respondent ids and event ids in the event schema.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Text,
        Int,
        Long,
        UuidText,
        UuidFixed,
        UuidBytes,
    }

    const KINDS: [Kind; 6] =
        [Kind::Text, Kind::Int, Kind::Long, Kind::UuidText, Kind::UuidFixed, Kind::UuidBytes];
    const NOW: WallTime = WallTime(1_790_000_000_000);
    const LABEL: &str = "yes";

    impl Kind {
        fn avsc(self, name: &str) -> Json {
            match self {
                Self::Text => json!("string"),
                Self::Int => json!("int"),
                Self::Long => json!("long"),
                Self::UuidText => json!({"type": "string", "logicalType": "uuid"}),
                Self::UuidFixed => {
                    json!({"type": "fixed", "size": 16, "name": name, "logicalType": "uuid"})
                }
                Self::UuidBytes => json!({"type": "bytes", "logicalType": "uuid"}),
            }
        }

        /// The Avro bytes of an id; none if Avro cannot encode the text in this type.
        fn datum(self, spelling: &str) -> Option<Vec<u8>> {
            let hex = || {
                let digits: String = spelling.trim().chars().filter(|c| *c != '-').collect();
                let pairs = digits.as_bytes().chunks_exact(2);
                let byte =
                    |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
                pairs.map(byte).collect::<Option<Vec<u8>>>().filter(|bytes| bytes.len() == 16)
            };
            match self {
                Self::Text | Self::UuidText => Some(blob(spelling.as_bytes())),
                Self::Int | Self::Long => Some(long(spelling.trim().parse().ok()?)),
                Self::UuidFixed => hex(),
                Self::UuidBytes => hex().map(|bytes| blob(&bytes)),
            }
        }
    }

    fn long(value: i64) -> Vec<u8> {
        let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
        let mut bytes = Vec::new();
        while left >= 0x80 {
            bytes.push(u8::try_from(left & 0x7f).unwrap() | 0x80);
            left >>= 7;
        }
        bytes.push(u8::try_from(left).unwrap());
        bytes
    }

    fn blob(value: &[u8]) -> Vec<u8> {
        let mut bytes = long(i64::try_from(value.len()).unwrap());
        bytes.extend_from_slice(value);
        bytes
    }

    struct Fixture {
        kind: Kind,
        schema: Arc<QuestionnaireSchema>,
        codecs: Codecs,
        raw_outcomes: AvroCodec<Outcome>,
        gateway: Gateway,
    }

    impl Fixture {
        fn answers(&self, event: &QuestionnaireEvent) -> Vec<Option<Answer>> {
            self.schema.layout().answers(&event.answers).map(AnswerRef::to_answer).collect()
        }

        fn of(kind: Kind) -> Self {
            let avsc = json!({"type": "record", "name": "Event", "fields": [
                {"name": "who", "type": kind.avsc("Who")},
                {"name": "at", "type": "long"},
                {"name": "id", "type": kind.avsc("Id")},
                {"name": "number", "type": ["null", "long"]},
                {"name": "mark", "type": ["null", {"type": "string", "logicalType": "uuid"}], "default": null},
            ]})
            .to_string();
            let fields = MetadataFields {
                event_id: Some("id".to_owned()),
                respondent_id: "who".to_owned(),
                event_time: "at".to_owned(),
                completed: None,
            };
            let schema = Arc::new(QuestionnaireSchema::new(&avsc, &fields, &[]).unwrap());
            let (registry, topics) = (Arc::new(LocalRegistry::new()), Topics::with_prefix(""));
            for (topic, text) in topics.schemas(&Arc::clone(&schema).into()) {
                registry.register(&subject(topic), &text).unwrap();
            }
            let shared: Arc<dyn SchemaRegistry> = registry;
            let codecs = Codecs::open(&shared, &topics, &Arc::clone(&schema).into()).unwrap();
            let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOW));
            let broker: Arc<dyn Broker> = Arc::new(LocalBroker::new(Arc::clone(&clock)));
            let entries = EntrySettings {
                schemas: Arc::clone(&schema).into(),
                labels: vec!["no".to_owned(), LABEL.to_owned()],
                times: TimeBounds {
                    ahead_max: Duration::from_secs(60),
                    behind_max: Some(Duration::from_secs(60)),
                    clock_tolerance: Duration::from_secs(10),
                },
                codecs: codecs.clone(),
                topics: topics.clone(),
            };
            let settings = GatewaySettings {
                name: "api-test".to_owned(),
                entries,
                partitions: 1,
                waits_max: 1,
            };
            let (gateway, _threads) = Gateway::open(&broker, settings, &clock).unwrap();
            let raw_outcomes = AvroCodec::new(shared, &subject(&topics.outcomes)).unwrap();
            Self { kind, schema, codecs, raw_outcomes, gateway }
        }

        /// Decodes the record of an entry, and checks that it is keyed by its respondent.
        fn arrived<T>(
            record: &OutputRecord,
            codec: &dyn Codec<T>,
            respondent: impl FnOnce(&T) -> &str,
        ) -> T {
            let value = codec.decode(record.value.as_deref().unwrap()).unwrap();
            assert_eq!(record.key.as_deref(), Some(respondent(&value).as_bytes()));
            value
        }

        fn post(
            &self,
            event: &Json,
            key: Option<&str>,
        ) -> Result<QuestionnaireEvent, GatewayError> {
            let entry = self.gateway.event(event, key, None)?;
            let codec = self.codecs.questionnaire.as_ref();
            let event = Self::arrived(&entry.record, codec, |event| &event.respondent_id);
            assert_eq!((&event, &event.event_id), (&entry.event, &entry.id));
            Ok(event)
        }

        fn post_outcome(&self, outcome: &Json) -> Result<Outcome, GatewayError> {
            let entry = self.gateway.outcome(outcome, None)?;
            let codec = self.codecs.outcome.as_ref();
            Ok(Self::arrived(&entry.record, codec, |outcome| &outcome.respondent_id))
        }

        /// The Avro bytes of an event, as a producer writes them.
        fn event_bytes(&self, who: &str, mark: Option<&str>) -> Option<Vec<u8>> {
            let mut bytes = Vec::new();
            framing::frame(1, &mut bytes);
            bytes.extend(self.kind.datum(who)?);
            bytes.extend(long(NOW.0));
            bytes.extend(match self.kind {
                Kind::UuidText | Kind::UuidFixed | Kind::UuidBytes => self.kind.datum(UUID)?,
                Kind::Text | Kind::Int | Kind::Long => self.kind.datum("1")?,
            });
            bytes.extend(long(0));
            match mark {
                None => bytes.extend(long(0)),
                Some(mark) => bytes.extend([long(1), blob(mark.as_bytes())].concat()),
            }
            Some(bytes)
        }

        fn outcome_of(&self, who: &str) -> Result<Outcome, CodecError> {
            let outcome = Outcome {
                respondent_id: who.to_owned(),
                outcome_time: EventTime(NOW.0),
                label: LABEL.to_owned(),
                outcome_id: None,
            };
            let mut bytes = Vec::new();
            self.raw_outcomes.encode(&outcome, &mut bytes).unwrap();
            self.codecs.outcome.decode(&bytes)
        }

        fn rows(&self, header: &str, cells: &str) -> Result<Vec<table::Row>, table::TableError> {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            write!(file, "{header},label\n{cells},{LABEL}\n").unwrap();
            let table = TableSettings {
                path: file.path().to_owned(),
                columns: Vec::new(),
                skip: Vec::new(),
                label: "label".to_owned(),
                delimiter: ',',
                comment: None,
                missing: Vec::new(),
                label_suffix: String::new(),
                outcomes: String::new(),
                outcomes_if_acted: String::new(),
                truth: Vec::new(),
            };
            table::read(&table, &self.schema)
        }

        /// The respondent id of `spelling` by each input that can have it; none where it is rejected.
        fn ways(&self, spelling: &str) -> Vec<(&'static str, Option<String>)> {
            let outcome = json!({"respondent_id": spelling, "label": LABEL});
            let mut ways = vec![
                ("cell", self.rows("who", spelling).ok().map(|rows| rows[0].respondent_id.clone())),
                ("json", self.post(&json!({"who": spelling}), None).ok().map(|e| e.respondent_id)),
                ("json outcome", self.post_outcome(&outcome).ok().map(|o| o.respondent_id)),
                ("outcome", self.outcome_of(spelling).ok().map(|outcome| outcome.respondent_id)),
            ];
            if let Some(bytes) = self.event_bytes(spelling, None) {
                let event = self.codecs.questionnaire.decode(&bytes);
                ways.push(("event", event.ok().map(|event| event.respondent_id)));
            }
            ways
        }
    }

    const UUID: &str = "0123abcd-4567-49ef-8123-456789abcdef";

    /// An id in its canonical form, and a spelling of it.
    fn spelled(kind: Kind) -> BoxedStrategy<(String, String)> {
        let pads = ("[ \t]{0,2}", "[ \t]{0,2}");
        let bare = match kind {
            Kind::Text => "[a-zA-Z0-9]([a-zA-Z0-9 .+-]{0,6}[a-zA-Z0-9])?"
                .prop_map(|text| (text.clone(), text))
                .boxed(),
            Kind::Int => {
                (any::<i32>(), 0..4_usize).prop_map(|(n, how)| number(n.into(), how)).boxed()
            }
            Kind::Long => (prop_oneof![any::<i64>(), -9..99_i64], 0..4_usize)
                .prop_map(|(n, how)| number(n, how))
                .boxed(),
            Kind::UuidText | Kind::UuidFixed | Kind::UuidBytes => any::<([u8; 16], bool)>()
                .prop_map(|(bytes, is_upper)| {
                    let hex = hex::encode(bytes);
                    let form =
                        [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
                    let spelling = if is_upper { form.to_uppercase() } else { form.clone() };
                    (form, spelling)
                })
                .boxed(),
        };
        (bare, pads)
            .prop_map(|((form, spelling), (before, after))| {
                (form, format!("{before}{spelling}{after}"))
            })
            .boxed()
    }

    fn number(n: i64, how: usize) -> (String, String) {
        let sign = if n < 0 { "-" } else { "" };
        let digits = n.unsigned_abs();
        let spelling = match how {
            0 => n.to_string(),
            1 => format!("{sign}00{digits}"),
            2 if n >= 0 => format!("+{digits}"),
            _ => format!("{n}.0"),
        };
        (n.to_string(), spelling)
    }

    #[test]
    fn a_respondent_id_is_the_same_for_every_input() {
        for kind in KINDS {
            let fixture = Fixture::of(kind);
            let config = ProptestConfig {
                cases: 200,
                failure_persistence: None,
                ..ProptestConfig::default()
            };
            proptest!(config, |((form, spelling) in spelled(kind))| {
                for (way, respondent) in fixture.ways(&spelling) {
                    prop_assert_eq!(respondent.as_ref(), Some(&form), "{}: {:?}", way, spelling);
                }
            });
        }
    }

    #[test]
    fn an_invalid_respondent_id_is_rejected_by_every_input() {
        for (kind, spellings) in [
            (Kind::Int, ["x", "2147483648", "1.5"]),
            (Kind::Long, ["0x1", "9223372036854775808", "1e-1"]),
            (Kind::UuidText, ["x", "42", "0123abcd456749ef8123456789abcdef"]),
            (Kind::UuidFixed, ["x", "42", "{0123abcd-4567-49ef-8123-456789abcdef}"]),
        ] {
            let fixture = Fixture::of(kind);
            for spelling in spellings {
                for (way, respondent) in fixture.ways(spelling) {
                    // 16 bytes have no other spelling.
                    if way != "event" || kind == Kind::UuidText {
                        assert_eq!(respondent, None, "{kind:?}, {way}: {spelling:?}");
                    }
                }
                let outcome = json!({"respondent_id": spelling, "label": LABEL});
                let refused = fixture.post_outcome(&outcome).unwrap_err();
                let GatewayError::Unusable { class, message } = &refused else {
                    panic!("{refused:?}")
                };
                assert_eq!(*class, "invalid_value");
                assert!(
                    message.contains("`respondent_id`") && message.contains(spelling),
                    "{message}"
                );
                let dead = fixture.outcome_of(spelling).unwrap_err().to_string();
                assert!(dead.starts_with("invalid_value: field respondent_id is "), "{dead}");
            }
        }
        for kind in KINDS {
            for (way, respondent) in Fixture::of(kind).ways("  ") {
                assert_eq!(respondent, None, "{kind:?}, {way}");
            }
        }
    }

    #[test]
    fn a_generated_event_id_is_valid_in_the_schema() {
        for kind in KINDS {
            let fixture = Fixture::of(kind);
            let who = if matches!(kind, Kind::Text | Kind::Int | Kind::Long) { "7" } else { UUID };
            let event = json!({"who": who});
            let post = |key: Option<&str>| fixture.post(&event, key).unwrap().event_id;
            assert_ne!(post(None), post(None), "{kind:?}: each is an event of its own");
            for key in ["order 7", "order 7-0", "8e03978e-40d5"] {
                assert_eq!(post(Some(key)), post(Some(key)), "{kind:?}: sent again it is the same");
            }
            assert_ne!(post(Some("order 7-0")), post(Some("order 7-1")), "{kind:?}");
        }
        let uuids = Fixture::of(Kind::UuidFixed);
        let event = json!({"who": UUID});
        let post = |key: Option<&str>| uuids.post(&event, key).unwrap().event_id;
        assert_eq!(post(Some(&UUID.to_uppercase())), UUID, "a key that is one names the event");
        assert_eq!((post(None).as_bytes()[14], post(Some("k")).as_bytes()[14]), (b'7', b'5'));
    }

    #[test]
    fn a_text_that_is_not_a_uuid_is_dead_lettered() {
        let fixture = Fixture::of(Kind::UuidText);
        let read = |who: &str, mark: Option<&str>| {
            fixture.codecs.questionnaire.decode(&fixture.event_bytes(who, mark).unwrap())
        };
        let event = read(UUID, Some(&UUID.to_uppercase())).unwrap();
        assert_eq!(fixture.answers(&event)[1], Some(Answer::Text(UUID.to_owned())));
        for (bytes, field) in [(read("ann", None), "who"), (read(UUID, Some("ann")), "mark")] {
            let error = bytes.unwrap_err().to_string();
            let expected = format!("invalid_value: field {field} is \"ann\": it must be a UUID");
            assert!(error.starts_with(&expected), "{error}");
        }
        for event in [
            json!({"who": "ann"}),
            json!({"who": UUID, "id": "x"}),
            json!({"who": UUID, "mark": "x"}),
        ] {
            let refused = fixture.post(&event, None).unwrap_err();
            assert!(
                matches!(refused, GatewayError::Unusable { class: "invalid_value", .. }),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn an_entry_error_has_the_class_of_the_dead_letter() {
        let fixture = Fixture::of(Kind::Text);
        let event = |more: Json| {
            let mut event = json!({"who": "ann"});
            event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            fixture.post(&event, None).map(drop)
        };
        let outcome = |more: Json| {
            let mut outcome = json!({"respondent_id": "ann", "label": LABEL});
            outcome.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            fixture.post_outcome(&outcome).map(drop)
        };
        let class = |result: Result<(), GatewayError>| match result {
            Err(GatewayError::Unusable { class, .. }) => class,
            other => panic!("{other:?}"),
        };
        assert_eq!(class(event(json!({"at": NOW.0 + 60_001}))), "future_time");
        assert_eq!(class(event(json!({"at": NOW.0 - 60_001}))), "past_time");
        assert_eq!(class(event(json!({"who": " "}))), "missing_field");
        assert_eq!(class(event(json!({"who": null}))), "missing_field");
        assert_eq!(class(outcome(json!({"outcome_time": NOW.0 - 60_001}))), "past_time");
        assert_eq!(class(outcome(json!({"respondent_id": null}))), "missing_field");
        assert_eq!(class(outcome(json!({"label": "perhaps"}))), "unknown_label");
        // A value that cannot be encoded in Avro has no class.
        for wrong in
            [event(json!({"number": "x"})), event(json!({"x": 1})), event(json!({"who": 1}))]
        {
            assert!(matches!(wrong, Err(GatewayError::Refused(_))), "{wrong:?}");
        }
        assert_eq!(outcome(json!({"outcome_time": "2026-09-21T14:13:20Z"})), Ok(()), "ISO 8601");
    }

    fn check_long(fixture: &Fixture, whole: i64) {
        let expected = fixture.post(&json!({"who": "1", "number": whole}), Some("1")).unwrap();
        let carried = match &fixture.answers(&expected)[0] {
            Some(Answer::Number(number)) => *number as i64,
            Some(Answer::Whole(whole)) => *whole,
            other => panic!("{other:?}"),
        };
        assert_eq!(carried, whole, "as a JSON number");
        let mut bytes = Vec::new();
        fixture.codecs.questionnaire.encode(&expected, &mut bytes).unwrap();
        let tail = [long(1), long(whole), long(0)].concat();
        assert!(bytes.ends_with(&tail), "{whole} as Avro");
        let text = json!({"who": "1", "number": whole.to_string()});
        assert_eq!(fixture.post(&text, Some("1")).unwrap(), expected, "as a JSON string");
        for cell in [whole.to_string(), format!("{whole}.00")] {
            let rows = fixture.rows("number", &cell).unwrap();
            assert_eq!(rows[0].answers, expected.answers, "as a cell {cell:?}");
        }
    }

    #[test]
    fn an_event_keeps_every_digit_of_a_long() {
        let fixture = Fixture::of(Kind::Text);
        const EXACT: i64 = 1 << 53;
        for whole in [0, 1, EXACT - 1, EXACT, EXACT + 1, 1_800_000_000_000_000_001, i64::MAX] {
            check_long(&fixture, whole);
            check_long(&fixture, -whole);
        }
        check_long(&fixture, i64::MIN);
        let config =
            ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() };
        proptest!(config, |(whole: i64)| check_long(&fixture, whole));
    }

    #[test]
    fn a_number_beyond_a_long_is_reported_with_its_field_and_value() {
        let fixture = Fixture::of(Kind::Long);
        let beyond = "9223372036854775808";
        for (json, field) in [
            (format!(r#"{{"who": 1, "number": {beyond}}}"#), "number"),
            (format!(r#"{{"who": 1, "number": "{beyond}"}}"#), "number"),
            (format!(r#"{{"who": {beyond}}}"#), "who"),
        ] {
            let event = serde_json::from_str(&json).unwrap();
            let message = fixture.post(&event, None).unwrap_err().to_string();
            assert!(message.starts_with(&format!("field `{field}` is ")), "{message}");
            assert!(message.contains(beyond) && message.contains("64 bits"), "{message}");
        }
        // The JSON parser has read it as a float, which may be another number.
        let event = serde_json::from_str(r#"{"who": 1, "number": 9007199254740993.0}"#).unwrap();
        let message = fixture.post(&event, None).unwrap_err().to_string();
        assert!(message.contains("without a point or an exponent"), "{message}");
        let error = fixture.rows("number", beyond).unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains(beyond), "{error}");
        let ids = fixture.post(&json!({"who": i64::MAX, "id": i64::MIN}), None).unwrap();
        assert_eq!(ids.respondent_id, i64::MAX.to_string());
        assert_eq!(ids.event_id, i64::MIN.to_string());
    }
}
