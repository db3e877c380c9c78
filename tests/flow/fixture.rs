//! The fixture of all tests: a small questionnaire, codecs with a registry in this process, and models trained on generated
//! answers.

use std::{ops::ControlFlow, sync::Arc, sync::OnceLock};

use foretell::{
    events::{
        codecs::Codecs,
        questionnaire::{
            Answer, AnswerRef, AnswerRow, EventSchemas, MetadataFields, QuestionnaireSchema, unite,
        },
        topics::{Topics, subject},
    },
    processors::convert,
};
use foretell_avro::{local::LocalRegistry, registry::SchemaRegistry};
use foretell_ml::{
    Calibration, Column, Example, Label, ModelBundle, Origin, Params, PipelineSpec, Recipe,
    Scaling, Scorer, Scratch, Seed, Threshold, TrainingSet, Value, drift::Profile, training::train,
};
use foretell_streams::time::WallTime;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// Visitors of a shop: how often they came, what they use, and for how long.
pub(crate) const SCHEMA: &str = r#"{
  "type": "record", "name": "Visit", "namespace": "flow", "fields": [
    {"name": "id", "type": "string", "default": ""},
    {"name": "who", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "done", "type": "boolean", "default": false},
    {"name": "visits", "type": ["null", "int"], "default": null},
    {"name": "plan", "type": ["null", "string"], "default": null},
    {"name": "minutes", "type": ["null", "double"], "default": null}
  ]}"#;

/// The same visitors in two topics: visits, and orders of plans. Both have the plan, and each names its metadata in its own way.
pub(crate) const VISITS: &str = r#"{
  "type": "record", "name": "Visit", "namespace": "flow", "fields": [
    {"name": "id", "type": "string", "default": ""},
    {"name": "who", "type": "string"},
    {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "done", "type": "boolean", "default": false},
    {"name": "visits", "type": ["null", "int"], "default": null},
    {"name": "plan", "type": ["null", "string"], "default": null}
  ]}"#;
pub(crate) const ORDERS: &str = r#"{
  "type": "record", "name": "Order", "namespace": "flow", "fields": [
    {"name": "minutes", "type": ["null", "double"], "default": null},
    {"name": "note", "type": {"type": "array", "items": "string"}, "default": []},
    {"name": "plan", "type": ["null", "string"], "default": null},
    {"name": "closed", "type": "boolean", "default": false},
    {"name": "number", "type": "string", "default": ""},
    {"name": "customer", "type": "string"},
    {"name": "ordered", "type": {"type": "long", "logicalType": "timestamp-micros"}}
  ]}"#;
/// The topic of the orders.
pub(crate) const ORDERS_TOPIC: &str = "orders";

/// The origin of event times, which tests give in seconds.
pub(crate) const EPOCH_MS: i64 = 1_800_000_000_000;
/// The clock is far ahead of the event times of the tests, except for those that are to be rejected.
pub(crate) const NOW: WallTime = WallTime(EPOCH_MS + 100_000_000);

/// The schemas of predictions that golden files were written with: an upgraded cluster has them under the same ids.
const PREDICTIONS_BEFORE: [&str; 2] = [
    include_str!("../../schemas/prediction/v2.avsc"),
    include_str!("../../schemas/prediction/v3.avsc"),
];

/// Topics, the questionnaire and the codecs.
pub(crate) struct Fixture {
    registry: Arc<LocalRegistry>,
    pub(crate) topics: Topics,
    pub(crate) schemas: EventSchemas,
    /// That of the lead.
    pub(crate) schema: Arc<QuestionnaireSchema>,
    pub(crate) codecs: Codecs,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with_schema(&Arc::new(LocalRegistry::new()), SCHEMA)
    }

    /// The same questions in two topics.
    pub(crate) fn of_two_sources() -> Self {
        let fields = MetadataFields {
            event_id: Some("number".to_owned()),
            respondent_id: "customer".to_owned(),
            event_time: "ordered".to_owned(),
            completed: Some("closed".to_owned()),
        };
        let orders = QuestionnaireSchema::new(ORDERS, &fields, &["note".to_owned()]).unwrap();
        let companions = vec![(ORDERS_TOPIC.to_owned(), orders)];
        let schemas = unite(lead(VISITS), companions).unwrap();
        Self::with_schemas(&Arc::new(LocalRegistry::new()), schemas)
    }

    /// The fixture of an instance on the same cluster with another version of the schema.
    pub(crate) fn evolved(&self, schema: &str) -> Self {
        Self::with_schema(&self.registry, schema)
    }

    fn with_schema(registry: &Arc<LocalRegistry>, avsc: &str) -> Self {
        Self::with_schemas(registry, lead(avsc).into())
    }

    fn with_schemas(registry: &Arc<LocalRegistry>, schemas: EventSchemas) -> Self {
        let topics = Topics::with_prefix("shop.").with_companions("shop.", schemas.companions());
        let schema = Arc::clone(schemas.lead());
        for (topic, text) in topics.schemas(&schemas) {
            if *topic == topics.predictions {
                for before in PREDICTIONS_BEFORE {
                    registry.register(&subject(topic), &schema.fill_answers(before)).unwrap();
                }
            }
            registry.register(&subject(topic), &text).unwrap();
        }
        let shared: Arc<dyn SchemaRegistry> = Arc::<LocalRegistry>::clone(registry);
        let codecs = Codecs::open(&shared, &topics, &schemas).unwrap();
        let registry = Arc::clone(registry);
        Self { registry, topics, schemas, schema, codecs }
    }

    /// The answers of a row, by the names of the questions.
    pub(crate) fn named_answers(&self, row: &AnswerRow) -> Vec<(&str, Option<Answer>)> {
        let answers = self.schema.layout().answers(row).map(AnswerRef::to_answer);
        let questions = self.schema.questions().iter();
        questions.map(|question| question.name.as_str()).zip(answers).collect()
    }

    /// The row of answers to the questions, in order.
    pub(crate) fn row(&self, answers: &[Option<Answer>]) -> AnswerRow {
        self.schema.layout().row_of(answers)
    }

    /// The columns of a model for the questions.
    pub(crate) fn columns(&self) -> Vec<Column> {
        self.schema.questions().iter().map(convert::column_of).collect()
    }
}

/// The schema of the lead.
fn lead(avsc: &str) -> QuestionnaireSchema {
    let fields = MetadataFields {
        event_id: Some("id".to_owned()),
        respondent_id: "who".to_owned(),
        event_time: "at".to_owned(),
        completed: Some("done".to_owned()),
    };
    QuestionnaireSchema::new(avsc, &fields, &[]).unwrap()
}

pub(crate) fn classes(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Examples whose label depends on the visits and the plan; a fifth of the plans is missing.
pub(crate) fn examples(number: usize, labels: u32, seed: u64) -> Vec<Example> {
    let mut random = StdRng::seed_from_u64(seed);
    let example = |_| {
        let visits = random.random_range(0..20_u32);
        let plan = random.random_range(0..5_usize);
        let minutes = random.random_range(0.0..60.0);
        let score = f64::from(visits) / 20.0 + f64::from(u8::from(plan == 1));
        let label = (1..labels).filter(|label| score > 1.5 * f64::from(*label) / f64::from(labels));
        let plan = ["free", "gold", "team", "trial", ""][plan];
        let plan = if plan.is_empty() { Value::Missing } else { Value::Text(plan.to_owned()) };
        let values = vec![Value::Number(visits.into()), plan, Value::Number(minutes)];
        Example { values, label: Label(u32::try_from(label.count()).unwrap()) }
    };
    (0..number).map(example).collect()
}

/// A small model of the classes, different for each seed.
pub(crate) fn model(classes: &[String], seed: u64, origin: Origin) -> ModelBundle {
    model_of(Fixture::new().columns(), classes, seed, origin)
}

/// A small model with other columns; there must be three, of the same kinds.
pub(crate) fn model_of(
    columns: Vec<Column>,
    classes: &[String],
    seed: u64,
    origin: Origin,
) -> ModelBundle {
    let labels = u32::try_from(classes.len()).unwrap();
    trained(columns, classes, (seed, origin), &examples(300, labels, seed))
}

/// A model trained with the third answer in one of `one_in` examples, or in none for 0.
pub(crate) fn model_rarely_given(one_in: usize) -> ModelBundle {
    let mut examples = examples(300, 2, 8);
    for (number, example) in examples.iter_mut().enumerate() {
        if one_in == 0 || number % one_in > 0 {
            example.values[2] = Value::Missing;
        }
    }
    let classes = classes(&["no", "yes"]);
    trained(Fixture::new().columns(), &classes, (8, Origin::default()), &examples)
}

fn trained(
    columns: Vec<Column>,
    classes: &[String],
    (seed, origin): (u64, Origin),
    examples: &[Example],
) -> ModelBundle {
    let recipe = Recipe {
        spec: PipelineSpec::new(columns, Scaling::MinMax, Vec::new()).unwrap(),
        classes: classes.to_vec(),
        threshold: Threshold::Fixed(0.5),
        calibration: Calibration::None,
        intervals: false,
        profile: false,
        params: Params {
            iterations: 15,
            num_leaves: 7,
            learning_rate: 0.2,
            min_data_in_leaf: 5,
            feature_fraction: 1.0,
            cat_smooth: 1.0,
            ..Params::default()
        },
        seed: Seed(seed),
        origin,
    };
    let set = TrainingSet::of(recipe.spec.columns(), examples);
    train(&set.sample(), &recipe, &mut |_, _| ControlFlow::Continue(())).unwrap()
}

/// The model that serves in most tests.
pub(crate) fn first_model() -> &'static ModelBundle {
    static MODEL: OnceLock<ModelBundle> = OnceLock::new();
    MODEL.get_or_init(|| model(&classes(&["no", "yes"]), 1, Origin::default()))
}

/// The first model with the profile of its training data, and of its scores of other examples.
pub(crate) fn profiled_model() -> &'static ModelBundle {
    static MODEL: OnceLock<ModelBundle> = OnceLock::new();
    MODEL.get_or_init(|| {
        let model = first_model().clone();
        let (scorer, mut scratch) = (Scorer::new(&model).unwrap(), Scratch::default());
        let held_out = examples(2_000, 2, 99);
        let scores: Vec<_> =
            held_out.iter().map(|one| scorer.score(&one.values, &mut scratch)).collect();
        let set = TrainingSet::of(&Fixture::new().columns(), &examples(2_000, 2, 1));
        let profile = Profile::of(&set.sample()).with_scores(&scores);
        ModelBundle { profile: Some(profile), ..model }
    })
}

/// The model after the first.
pub(crate) fn second_model() -> &'static ModelBundle {
    static MODEL: OnceLock<ModelBundle> = OnceLock::new();
    let origin = Origin { training: 1, ..Origin::default() };
    MODEL.get_or_init(|| model(&classes(&["no", "yes"]), 2, origin))
}
