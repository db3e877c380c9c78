//! The feature pipeline of a configuration.

use crate::{
    config::{ConfigError, error, raw::RawConfig, source::Sources},
    events::questionnaire::{MomentKind, QuestionnaireSchema},
    processors::convert,
};
use foretell_ml::{CalendarFeature, ColumnKind, PipelineSpec, Scaling, TimeUnit};

/// The feature pipeline before it is fitted: the answers of the event schema as the `[features]` section wants them.
pub(super) fn pipeline_of(
    raw: &RawConfig,
    sources: &Sources,
    schema: &QuestionnaireSchema,
) -> Result<PipelineSpec, ConfigError> {
    let features = &raw.features;
    for (key, names) in [
        ("features.ignored", &features.ignored),
        ("features.categorical", &features.categorical),
        ("features.numeric", &features.numeric),
    ] {
        let is_known = |name: &&String| schema.questions().iter().any(|one| one.name == **name);
        if let Some(name) = names.iter().find(|name| !is_known(name)) {
            let problem = format!("the event schema has no answer {name:?}");
            return Err(error::refused(sources, key, &problem));
        }
    }
    if let Some(name) = features.numeric.iter().find(|name| features.categorical.contains(name)) {
        let problem = format!("{name:?} is in categorical, too: remove it from one");
        return Err(error::refused(sources, "features.numeric", &problem));
    }
    if let Some(name) = features.numeric.iter().find(|name| !schema.may_be_number(name)) {
        let problem =
            format!("{name:?} cannot be used as a number, because of its type in the event schema");
        return Err(error::refused(sources, "features.numeric", &problem));
    }
    let questions = schema.questions().iter();
    let learned = questions.filter(|question| !features.ignored.contains(&question.name));
    let columns = learned.map(|question| {
        let mut column = convert::column_of(question);
        if features.categorical.contains(&column.name) {
            column.kind = ColumnKind::Categorical;
        } else if features.numeric.contains(&column.name) {
            column.kind = ColumnKind::Numeric;
        }
        column
    });
    let scaling: Scaling = features.scaling;
    let refuse = |source| {
        let source = Box::new(source);
        ConfigError::Features { named: sources.named("features"), source }
    };
    let spec = PipelineSpec::new(columns.collect(), scaling, features.crossed.clone());
    let calendar = calendar_of(raw, sources, schema)?;
    spec.and_then(|spec| spec.with_calendar(calendar)).map_err(refuse)
}

/// The configured parts of dates and times. It is an error to name a part that the answer does not have.
fn calendar_of(
    raw: &RawConfig,
    sources: &Sources,
    schema: &QuestionnaireSchema,
) -> Result<Vec<CalendarFeature>, ConfigError> {
    let mut calendar = Vec::new();
    for (name, parts) in &raw.features.calendar {
        let refuse = |problem: &str| {
            Err(error::refused(sources, "features.calendar", &format!("{name:?} {problem}")))
        };
        if *name == raw.events.event_time {
            return refuse(
                "is the event time, which is not an answer, and a model learns from answers only. Add a field of its own with the same time to \
                 the event schema, such as \"answered_at\" of logical type timestamp-millis, and name it",
            );
        }
        let Some(kind) = schema.moment(name) else {
            return refuse(&not_a_moment(name, schema));
        };
        let (has_date, has_time) = match kind {
            MomentKind::Date => (true, false),
            MomentKind::Time { .. } => (false, true),
            MomentKind::Timestamp { .. } => (true, true),
        };
        let unit = match kind {
            MomentKind::Date => TimeUnit::Days,
            MomentKind::Time { per_second } | MomentKind::Timestamp { per_second } => {
                TimeUnit::PartsOfSecond(u32::try_from(per_second).unwrap_or(u32::MAX))
            }
        };
        for part in parts {
            if !(if part.is_of_day() { has_time } else { has_date }) {
                return refuse(&format!("has no {}", part.name()));
            }
            calendar.push(CalendarFeature { column: name.clone(), part: *part, unit });
        }
    }
    Ok(calendar)
}

/// The problem with a name in `features.calendar` that is neither a date nor a time.
fn not_a_moment(name: &str, schema: &QuestionnaireSchema) -> String {
    let names = schema.questions().iter().map(|question| question.name.as_str());
    let moments: Vec<&str> = names.clone().filter(|name| schema.moment(name).is_some()).collect();
    let is_answer = names.into_iter().any(|answer| answer == name);
    let what =
        if is_answer { "is not a date or time" } else { "is not an answer of the event schema" };
    if moments.is_empty() {
        return format!(
            "{what}: name an answer of logical type date, time-… or timestamp-…; the event schema has none"
        );
    }
    format!("{what}; the answers that are dates or times: {}", moments.join(", "))
}
