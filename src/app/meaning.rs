//! Tests that a value means the same for every input: compares *table cell → training log → model* with *event in Avro and in
//! JSON → prediction → model*, bit by bit, for arbitrary schemas and values.

#[cfg(test)]
mod tests {
    use std::{io::Write as _, sync::Arc};

    use proptest::{prelude::*, test_runner::TestRunner};
    use serde_json::{Value as Json, json};

    use crate::{
        app::{initial, table},
        config::TableSettings,
        events::{
            answered::{AnsweredCodec, AnsweredRecord as _, ClassProbabilities},
            labelled_example::LabelledExample,
            prediction::{Prediction, ScoreTrigger},
            questionnaire::{
                AnswerRow, MetadataFields, QuestionnaireCodec, QuestionnaireSchema, ReadingRules,
                answer::planted::{self, Difference},
            },
        },
        processors::convert,
    };
    use foretell_avro::{framing, local::LocalRegistry, registry::SchemaRegistry};
    use foretell_ml::{
        Column, ColumnKind, Example, Label, PipelineSpec, Scaling, TrainingSet, Value,
        features::civil,
    };
    use foretell_streams::{
        codec::Codec,
        time::{EventTime, WallTime},
    };

    /// The number of schemas to test, each with up to [`ROWS_MAX`] rows of up to [`COLUMNS_MAX`] answers.
    const CASES: u32 = 1_000;
    const COLUMNS_MAX: usize = 8;
    const ROWS_MAX: usize = 4;

    /// The type of an answer.
    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Kind {
        Int,
        Long,
        Float,
        Double,
        Text,
        /// Text that is read as a number.
        Spelled,
        Boolean,
        Symbols,
        Date,
        TimeOfDay,
        /// The unit, in parts of a second.
        Timestamp(i64),
        /// The number of digits after the point.
        Decimal(usize),
        Uuid,
    }

    /// One answer in its three written forms.
    #[derive(Clone, Debug)]
    struct Written {
        cell: String,
        json: Json,
        avro: Option<Vec<u8>>,
    }

    #[derive(Clone, Debug)]
    struct Question {
        kind: Kind,
        is_category: bool,
        is_null_first: bool,
        answers: Vec<Written>,
    }

    impl Kind {
        fn avsc(self, number: usize) -> Json {
            match self {
                Self::Int => json!("int"),
                Self::Long => json!("long"),
                Self::Float => json!("float"),
                Self::Double => json!("double"),
                Self::Text | Self::Spelled => json!("string"),
                Self::Boolean => json!("boolean"),
                Self::Symbols => {
                    json!({"type": "enum", "name": format!("E{number}"), "symbols": ["S", "M", "NONE"]})
                }
                Self::Date => json!({"type": "int", "logicalType": "date"}),
                Self::TimeOfDay => json!({"type": "int", "logicalType": "time-millis"}),
                Self::Timestamp(per_second) => {
                    let unit = match per_second {
                        1_000 => "millis",
                        1_000_000 => "micros",
                        _ => "nanos",
                    };
                    json!({"type": "long", "logicalType": format!("timestamp-{unit}")})
                }
                Self::Decimal(scale) => {
                    json!({"type": "bytes", "logicalType": "decimal", "precision": 20, "scale": scale})
                }
                Self::Uuid => {
                    json!({"type": {"type": "fixed", "size": 16, "name": format!("U{number}"),
                    "logicalType": "uuid"}})["type"]
                        .clone()
                }
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

    fn written(cell: impl ToString, json: Json, avro: Vec<u8>) -> Written {
        Written { cell: cell.to_string(), json, avro: Some(avro) }
    }

    /// Text with varying white space around it.
    fn text(word: &str, pads: (usize, usize, usize)) -> Written {
        let padded = |pad: usize| format!("{}{word}{}", " ".repeat(pad), "\t".repeat(pad / 2));
        let (cell, json, avro) = (padded(pads.0), padded(pads.1), padded(pads.2));
        written(cell, json!(json), blob(avro.as_bytes()))
    }

    fn iso_date(days: i64) -> String {
        let (year, month, day) = civil(days);
        format!("{year:04}-{month:02}-{day:02}")
    }

    fn iso_time(parts: i64, per_second: i64) -> String {
        let (seconds, rest) = (parts / per_second, parts % per_second);
        let digits = per_second.to_string().len() - 1;
        let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        format!("{hour:02}:{minute:02}:{second:02}.{rest:0digits$}")
    }

    /// A moment as ISO 8601 or as a number, in a table and in JSON.
    fn moment(number: i64, iso: &str, ways: (bool, bool)) -> Written {
        let cell = if ways.0 { iso.to_owned() } else { number.to_string() };
        let json = if ways.1 { json!(iso) } else { json!(number) };
        written(cell, json, long(number))
    }

    fn decimal(unscaled: i64, scale: usize) -> Written {
        let digits = format!("{:0width$}", unscaled.unsigned_abs(), width = scale + 1);
        let (whole, fraction) = digits.split_at(digits.len() - scale);
        let sign = if unscaled < 0 { "-" } else { "" };
        let point = if scale > 0 { "." } else { "" };
        let cell = format!("{sign}{whole}{point}{fraction}");
        let json = serde_json::from_str(&cell).unwrap();
        written(cell, json, blob(&unscaled.to_be_bytes()))
    }

    fn uuid(bytes: [u8; 16], is_upper: bool) -> Written {
        let hex = hex::encode(bytes);
        let shown = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-");
        let cell = if is_upper { shown.to_uppercase() } else { shown.clone() };
        written(cell, json!(shown), bytes.to_vec())
    }

    #[expect(clippy::too_many_lines, reason = "a few lines a type")]
    fn given(kind: Kind) -> BoxedStrategy<Written> {
        let pads = || (0..3_usize, 0..3_usize, 0..3_usize);
        let ways = || (any::<bool>(), any::<bool>());
        match kind {
            Kind::Int => prop_oneof![any::<i32>(), Just(-99)]
                .prop_flat_map(|n| (Just(n), any::<bool>()))
                .prop_map(|(n, with_point)| {
                    let cell = if with_point { format!("{n}.0") } else { n.to_string() };
                    written(cell, json!(n), long(n.into()))
                })
                .boxed(),
            Kind::Long => prop_oneof![
                any::<i64>(),
                1_800_000_000_000_000_000..1_800_000_000_000_000_009_i64,
                -9..9_i64
            ]
            .prop_map(|n| written(n, json!(n), long(n)))
            .boxed(),
            Kind::Float => (prop_oneof![any::<f32>(), -99.0..99.0_f32], any::<bool>())
                .prop_filter("finite", |(x, _)| x.is_finite())
                .prop_map(|(x, is_short)| {
                    let short: f64 = x.to_string().parse().unwrap();
                    let json = if is_short { json!(short) } else { json!(f64::from(x)) };
                    written(x, json, x.to_le_bytes().to_vec())
                })
                .boxed(),
            Kind::Double => prop_oneof![any::<f64>(), -99.0..99.0_f64]
                .prop_filter("finite", |x| x.is_finite())
                .prop_map(|x| written(x, json!(x), x.to_le_bytes().to_vec()))
                .boxed(),
            Kind::Text => ("[a-zA-Z0-9?.\"', äß\u{a0}-]{0,6}", pads())
                .prop_map(|(word, pads)| text(&word, pads))
                .boxed(),
            Kind::Spelled => (prop_oneof![any::<f64>(), -99.0..99.0_f64], pads())
                .prop_filter("finite", |(x, _)| x.is_finite())
                .prop_map(|(x, pads)| text(&x.to_string(), pads))
                .boxed(),
            Kind::Boolean => (any::<bool>(), any::<bool>())
                .prop_map(|(flag, is_upper)| {
                    let cell =
                        if is_upper { flag.to_string().to_uppercase() } else { flag.to_string() };
                    written(cell, json!(flag), vec![u8::from(flag)])
                })
                .boxed(),
            Kind::Symbols => (0..3_i64, 0..3_usize)
                .prop_map(|(index, pad)| {
                    let symbol = ["S", "M", "NONE"][usize::try_from(index).unwrap()];
                    let padded = format!("{}{symbol}", " ".repeat(pad));
                    written(padded.clone(), json!(padded), long(index))
                })
                .boxed(),
            Kind::Date => (-700_000..2_900_000_i64, ways())
                .prop_map(|(days, ways)| moment(days, &iso_date(days), ways))
                .boxed(),
            Kind::TimeOfDay => (0..86_400_000_i64, ways())
                .prop_map(|(millis, ways)| moment(millis, &iso_time(millis, 1_000), ways))
                .boxed(),
            Kind::Timestamp(per_second) => {
                (-9_000_000_000..9_000_000_000_i64, 0..per_second, ways())
                    .prop_map(move |(seconds, rest, ways)| {
                        let number = seconds * per_second + rest;
                        let within = seconds.rem_euclid(86_400) * per_second + rest;
                        let date = iso_date(seconds.div_euclid(86_400));
                        let iso = format!("{date}T{}Z", iso_time(within, per_second));
                        moment(number, &iso, ways)
                    })
                    .boxed()
            }
            Kind::Decimal(scale) => prop_oneof![-99_999..99_999_i64, any::<i64>()]
                .prop_map(move |unscaled| {
                    // Values that JSON and tables can have, which write a 64-bit float.
                    decimal(unscaled % 1_000_000_000_000_000, scale)
                })
                .boxed(),
            Kind::Uuid => any::<([u8; 16], bool)>().prop_map(|(bytes, up)| uuid(bytes, up)).boxed(),
        }
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![
            prop::sample::select(vec![
                Kind::Int,
                Kind::Long,
                Kind::Float,
                Kind::Double,
                Kind::Text,
                Kind::Spelled,
                Kind::Boolean,
                Kind::Symbols,
                Kind::Date,
                Kind::TimeOfDay,
                Kind::Uuid,
            ]),
            prop::sample::select(vec![1_000, 1_000_000, 1_000_000_000]).prop_map(Kind::Timestamp),
            (0..5_usize).prop_map(Kind::Decimal),
        ]
    }

    /// No answer: a blank cell or a configured text, a JSON null or no field, an Avro null.
    fn missing() -> impl Strategy<Value = Written> {
        (prop::sample::select(vec!["", "  ", "?", " ? "]), any::<bool>()).prop_map(
            |(cell, blank)| {
                let json = if blank { json!(" ") } else { Json::Null };
                Written { cell: cell.to_owned(), json, avro: None }
            },
        )
    }

    fn questions() -> impl Strategy<Value = Vec<Question>> {
        (1..=ROWS_MAX).prop_flat_map(|rows| {
            let question = (kinds(), any::<bool>(), any::<bool>()).prop_flat_map(move |drawn| {
                let (kind, is_category, is_null_first) = drawn;
                let answer = prop_oneof![8 => given(kind), 2 => missing().boxed()];
                prop::collection::vec(answer, rows).prop_map(move |answers| Question {
                    kind,
                    is_category: is_category && kind != Kind::Spelled,
                    is_null_first,
                    answers,
                })
            });
            prop::collection::vec(question, 1..=COLUMNS_MAX)
        })
    }

    struct Ways {
        schema: Arc<QuestionnaireSchema>,
        events: QuestionnaireCodec,
        log: AnsweredCodec<LabelledExample>,
        predictions: AnsweredCodec<Prediction>,
        columns: Vec<Column>,
        table: TableSettings,
        _file: tempfile::NamedTempFile,
    }

    const LABEL: &str = "yes";

    impl Ways {
        fn of(questions: &[Question]) -> Self {
            let name = |number: usize| format!("q{number}");
            let fields = questions.iter().enumerate().map(|(number, question)| {
                let avsc = question.kind.avsc(number);
                let union = if question.is_null_first {
                    json!(["null", avsc])
                } else {
                    json!([avsc, "null"])
                };
                json!({"name": name(number), "type": union})
            });
            let metadata =
                [json!({"name": "who", "type": "string"}), json!({"name": "at", "type": "long"})];
            let fields: Vec<Json> = metadata.into_iter().chain(fields).collect();
            let avsc = json!({"type": "record", "name": "Event", "fields": fields}).to_string();
            let metadata = MetadataFields {
                event_id: None,
                respondent_id: "who".to_owned(),
                event_time: "at".to_owned(),
                completed: None,
            };
            let named = |wanted: &dyn Fn(&Question) -> bool| {
                let found = questions.iter().enumerate().filter(|(_, question)| wanted(question));
                found.map(|(number, _)| name(number)).collect::<Vec<_>>()
            };
            let rules = ReadingRules {
                categorical: named(&|question| question.is_category),
                numeric: named(&|question| question.kind == Kind::Spelled),
                missing: vec!["?".to_owned(), "-99".to_owned(), "NONE".to_owned()],
            };
            let schema = QuestionnaireSchema::new(&avsc, &metadata, &[]).expect(&avsc);
            let schema = Arc::new(schema.read_as(&rules));
            let registry = Arc::new(LocalRegistry::new());
            registry.register("events-value", &avsc).unwrap();
            let registry: Arc<dyn SchemaRegistry> = registry;
            let filled = [
                ("log-value", LabelledExample::TEMPLATE),
                ("predictions-value", Prediction::TEMPLATE),
            ];
            for (subject, template) in filled {
                registry.register(subject, &schema.fill_answers(template)).unwrap();
            }
            let shared = || (Arc::clone(&registry), Arc::clone(&schema));
            let open_events =
                |(registry, schema)| QuestionnaireCodec::new(registry, "events-value", schema);
            let open_log = |(registry, schema)| AnsweredCodec::new(registry, "log-value", schema);
            let open_predictions =
                |(registry, schema)| AnsweredCodec::new(registry, "predictions-value", schema);
            let column = |question: &crate::events::questionnaire::Question| {
                let mut column = convert::column_of(question);
                if rules.categorical.contains(&column.name) {
                    column.kind = ColumnKind::Categorical;
                } else if rules.numeric.contains(&column.name) {
                    column.kind = ColumnKind::Numeric;
                }
                column
            };
            let columns = schema.questions().iter().map(column).collect();
            let (file, table) = write_table(questions);
            Self {
                events: open_events(shared()).unwrap(),
                log: open_log(shared()).unwrap(),
                predictions: open_predictions(shared()).unwrap(),
                schema,
                columns,
                table,
                _file: file,
            }
        }

        fn values(&self, answers: &AnswerRow) -> Vec<Value> {
            let (questions, layout) = (self.schema.questions(), self.schema.layout());
            convert::values_in_order(&self.columns, questions, layout, answers)
        }

        /// The way through a table: cell, labelled example, Avro, example.
        fn learned(&self) -> Vec<Vec<Value>> {
            let rows =
                table::read(&self.table, &self.schema).unwrap_or_else(|error| panic!("{error}"));
            let learned = rows.iter().map(|row| {
                let example = initial::example("initial".to_owned(), row, EventTime(0));
                let mut bytes = Vec::new();
                self.log.encode(&example, &mut bytes).unwrap();
                let example = self.log.decode(&bytes).unwrap();
                let classes = [LABEL.to_owned()];
                convert::example_of(&example, &self.columns, &self.schema, &classes).unwrap().values
            });
            learned.collect()
        }

        /// The way through an Avro event of a producer: bytes, event, observation.
        fn scored(&self, questions: &[Question], row: usize) -> Vec<Value> {
            let mut bytes = Vec::new();
            framing::frame(1, &mut bytes);
            bytes.extend(blob(b"r"));
            bytes.extend(long(7));
            for question in questions {
                let (null, other) = if question.is_null_first { (0, 1) } else { (1, 0) };
                match &question.answers[row].avro {
                    None => bytes.extend(long(null)),
                    Some(avro) => {
                        bytes.extend(long(other));
                        bytes.extend_from_slice(avro);
                    }
                }
            }
            self.values(&self.events.decode(&bytes).unwrap().answers)
        }

        /// The way through JSON: event, Avro, event, and the answers published with the prediction.
        fn posted(&self, questions: &[Question], row: usize) -> Vec<Value> {
            let mut event = json!({"who": "r", "at": 7});
            for (number, question) in questions.iter().enumerate() {
                event[format!("q{number}")] = question.answers[row].json.clone();
            }
            let event = self.schema.from_json(&event, "", EventTime(0));
            let event = event.unwrap_or_else(|error| panic!("{error}"));
            let mut bytes = Vec::new();
            self.events.encode(&event, &mut bytes).unwrap();
            let answers = self.events.decode(&bytes).unwrap().answers;
            let prediction = Prediction {
                prediction_id: String::new(),
                respondent_id: event.respondent_id,
                event_id: event.event_id,
                event_time: event.event_time,
                received_at: WallTime(0),
                predicted_at: WallTime(0),
                model_version: String::new(),
                label: LABEL.to_owned(),
                probabilities: ClassProbabilities::from_iter([]),
                challenger: None,
                trigger: ScoreTrigger::Complete,
                answers,
            };
            bytes.clear();
            self.predictions.encode(&prediction, &mut bytes).unwrap();
            let published: Prediction = self.predictions.decode(&bytes).unwrap();
            self.values(&published.answers)
        }
    }

    fn write_table(questions: &[Question]) -> (tempfile::NamedTempFile, TableSettings) {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let names = (0..questions.len()).map(|number| format!("q{number}"));
        writer.write_record(names.chain(["label".to_owned()])).unwrap();
        for row in 0..questions[0].answers.len() {
            let cells = questions.iter().map(|question| question.answers[row].cell.as_str());
            writer.write_record(cells.chain([LABEL])).unwrap();
        }
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&writer.into_inner().unwrap()).unwrap();
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
        (file, table)
    }

    /// Compares numbers by their bits.
    fn bits(values: &[Value]) -> Vec<String> {
        let shown = values.iter().map(|value| match value {
            Value::Missing => "missing".to_owned(),
            Value::Number(number) => format!("{number} {:x}", number.to_bits()),
            Value::Text(text) => format!("{text:?}"),
        });
        shown.collect()
    }

    fn check(questions: &[Question]) -> Result<(), TestCaseError> {
        let ways = Ways::of(questions);
        let learned = ways.learned();
        let spec = PipelineSpec::new(ways.columns.clone(), Scaling::MinMax, Vec::new()).unwrap();
        let examples =
            learned.iter().map(|values| Example { values: values.clone(), label: Label(0) });
        let set = TrainingSet::of(&ways.columns, &examples.collect::<Vec<_>>());
        let pipeline = spec.fit(&set.sample());
        let features = |values: &[Value]| {
            let mut row = Vec::new();
            pipeline.transform(values, &mut row);
            row.into_iter().map(f64::to_bits).collect::<Vec<_>>()
        };
        for (row, learned) in learned.iter().enumerate() {
            let (scored, posted) = (ways.scored(questions, row), ways.posted(questions, row));
            prop_assert_eq!(bits(learned), bits(&scored), "a cell, and an event in Avro");
            prop_assert_eq!(bits(learned), bits(&posted), "a cell, and an event in JSON");
            prop_assert_eq!(features(learned), features(&scored));
        }
        Ok(())
    }

    fn hold(difference: Option<Difference>) -> Result<(), String> {
        planted::plant(difference);
        let config =
            ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() };
        let held = TestRunner::new(config).run(&questions(), |questions| check(&questions));
        planted::plant(None);
        held.map_err(|error| error.to_string())
    }

    #[test]
    fn a_value_means_the_same_in_training_and_in_scoring() {
        assert_eq!(hold(None), Ok(()));
    }

    #[test]
    fn planted_differences_are_found() {
        for difference in
            [Difference::UntrimmedEvents, Difference::RoundedIds, Difference::WideFloats]
        {
            assert!(hold(Some(difference)).is_err(), "{difference:?}");
        }
    }
}
