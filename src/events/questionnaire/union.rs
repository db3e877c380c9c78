//! Makes the schemas of several sources one: each gets the questions of all, so that the events of every source have one layout.
//!
//! ```text
//!   lead:      age  job          ─┐                          age  job  plan
//!   companion:      job  plan    ─┴─▶ the questions of both   x    x    ·     lead      x: the source has a field for it
//!                                                             ·    x    x     companion
//! ```

use serde_json::json;

use crate::events::questionnaire::{
    EventSchemas, EventSource, Question, QuestionnaireSchema, answer::AnswerForm, schema::layout_of,
};

/// Two schemas that cannot be those of one application.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct Disunity {
    /// The index of the companion.
    pub companion: usize,
    /// The earlier source that it does not fit.
    pub other: EventSource,
    /// Why they do not fit, and what to do.
    pub problem: Problem,
}

/// Why two schemas do not fit; the earlier one is "the other schema".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// One answer has two types.
    #[error(
        "answer `{question}` is of type {found}, and in the other schema of type {expected}: give it one type in both, or another \
         name, or list it among the ignored fields of one"
    )]
    OtherType {
        /// The answer.
        question: String,
        /// Its type in the companion.
        found: String,
        /// Its type in the other schema.
        expected: String,
    },
    /// Two answers are called the same by an alias.
    #[error(
        "answer `{question}` has a name or an alias of answer `{known}` of the other schema: give both the same name, or remove \
         the alias"
    )]
    SharedAlias {
        /// The answer of the companion.
        question: String,
        /// The answer of the other schema.
        known: String,
    },
    /// An answer has the name of a metadata field of the lead.
    #[error(
        "answer `{question}` is called like a metadata field of the other schema, so a table could not have a column of either: \
         give it another name, or list it among the ignored fields"
    )]
    IsMetadata {
        /// The answer of the companion.
        question: String,
    },
    /// Respondents have ids of two types.
    #[error(
        "the respondent id `{field}` is {found}, and `{known}` of the other schema is {expected}: respondents need ids of one \
         type in all sources"
    )]
    OtherRespondents {
        /// The field of the companion.
        field: String,
        /// The type of its ids.
        found: &'static str,
        /// The field of the other schema.
        known: String,
        /// The type of its ids.
        expected: &'static str,
    },
}

/// The questions so far, each with the source that has it first.
struct Union {
    questions: Vec<Question>,
    answers: Vec<AnswerForm>,
    derived: Vec<serde_json::Value>,
    sources: Vec<EventSource>,
}

/// Gives the schemas of the lead and of its companions, which have names, the questions of all: the lead's first, in order.
///
/// # Errors
/// [`Disunity`] if one does not fit an earlier one.
pub fn unite(
    lead: QuestionnaireSchema,
    companions: Vec<(String, QuestionnaireSchema)>,
) -> Result<EventSchemas, Disunity> {
    if companions.is_empty() {
        return Ok(lead.into());
    }
    let mut union = Union {
        questions: lead.questions.clone(),
        answers: lead.answers.clone(),
        derived: lead.derived.clone(),
        sources: vec![EventSource::Lead; lead.questions.len()],
    };
    let mut named = Vec::new();
    for (index, (name, mut schema)) in companions.into_iter().enumerate() {
        schema.source = EventSource::companion(&name);
        let misfit = |(other, problem)| Disunity { companion: index, other, problem };
        check_metadata(&lead, &schema).map_err(|problem| misfit((EventSource::Lead, problem)))?;
        union.add(&schema).map_err(misfit)?;
        named.push(schema);
    }
    let lead = union.widen(lead);
    Ok(EventSchemas::of(lead, named.into_iter().map(|schema| union.widen(schema)).collect()))
}

fn check_metadata(lead: &QuestionnaireSchema, schema: &QuestionnaireSchema) -> Result<(), Problem> {
    if schema.respondent_id != lead.respondent_id {
        return Err(Problem::OtherRespondents {
            field: schema.fields.respondent_id.clone(),
            found: schema.respondent_id.type_name(),
            known: lead.fields.respondent_id.clone(),
            expected: lead.respondent_id.type_name(),
        });
    }
    let fields = &lead.fields;
    let optional = [&fields.event_id, &fields.completed].into_iter().flatten();
    let metadata: Vec<&String> =
        [&fields.respondent_id, &fields.event_time].into_iter().chain(optional).collect();
    match schema.questions.iter().find(|question| metadata.contains(&&question.name)) {
        Some(question) => Err(Problem::IsMetadata { question: question.name.clone() }),
        None => Ok(()),
    }
}

impl Union {
    /// Adds the questions of a schema that are not known yet.
    fn add(&mut self, schema: &QuestionnaireSchema) -> Result<(), (EventSource, Problem)> {
        for (index, question) in schema.questions.iter().enumerate() {
            let names = || question.aliases.iter().chain([&question.name]);
            let is_shared = |known: &Question| {
                known.name != question.name && names().any(|name| known.is_called(name))
            };
            if let Some(place) = self.questions.iter().position(is_shared) {
                let (question, known) = (question.name.clone(), self.questions[place].name.clone());
                let problem = Problem::SharedAlias { question, known };
                return Err((self.sources[place].clone(), problem));
            }
            let known = self.questions.iter().position(|known| known.name == question.name);
            let (answer, derived) = (&schema.answers[index], &schema.derived[index]);
            let Some(place) = known else {
                self.questions.push(question.clone());
                self.answers.push(answer.clone());
                self.derived.push(derived.clone());
                self.sources.push(schema.source.clone());
                continue;
            };
            let expected = &self.answers[place].kind;
            if answer.kind != *expected {
                let problem = Problem::OtherType {
                    question: question.name.clone(),
                    found: answer.kind.name(),
                    expected: expected.name(),
                };
                return Err((self.sources[place].clone(), problem));
            }
            self.add_aliases(place, &question.aliases);
        }
        Ok(())
    }

    fn add_aliases(&mut self, place: usize, aliases: &[String]) {
        let known = &mut self.questions[place].aliases;
        for alias in aliases {
            if !known.contains(alias) {
                known.push(alias.clone());
            }
        }
        if !known.is_empty() {
            self.derived[place]["aliases"] = json!(known);
        }
    }

    /// The schema with the questions of all sources.
    fn widen(&self, schema: QuestionnaireSchema) -> QuestionnaireSchema {
        let is_own =
            |question: &Question| schema.questions.iter().any(|known| known.name == question.name);
        QuestionnaireSchema {
            asked: self.questions.iter().map(is_own).collect(),
            questions: self.questions.clone(),
            layout: layout_of(&self.answers),
            answers: self.answers.clone(),
            derived: self.derived.clone(),
            ..schema
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::{Answer, AnswerRef, MetadataFields, ReadingRules};
    use foretell_streams::time::EventTime;
    use serde_json::Value;

    fn schema(who: &str, questions: &str) -> QuestionnaireSchema {
        let avsc = format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"who","type":"{who}"}},{{"name":"at","type":"long"}},{questions}]}}"#
        );
        let fields = MetadataFields {
            event_id: None,
            respondent_id: "who".to_owned(),
            event_time: "at".to_owned(),
            completed: None,
        };
        QuestionnaireSchema::new(&avsc, &fields, &[]).unwrap()
    }

    const AGE: &str = r#"{"name":"age","type":"int"}"#;
    const JOB: &str = r#"{"name":"job","type":["null","string"],"aliases":["trade"]}"#;

    fn united(lead: &str, companion: &str) -> Result<EventSchemas, Disunity> {
        let companion = schema("string", companion);
        unite(schema("string", lead), vec![("side".to_owned(), companion)])
    }

    #[test]
    fn every_source_has_the_questions_of_all() {
        let plan =
            r#"{"name":"plan","type":"string"},{"name":"job","type":"string","aliases":["work"]}"#;
        let schemas = united(&format!("{AGE},{JOB}"), plan).unwrap();
        let names = |schema: &QuestionnaireSchema| {
            schema.questions().iter().map(|question| question.name.clone()).collect::<Vec<_>>()
        };
        for schema in schemas.iter() {
            assert_eq!(names(schema), ["age", "job", "plan"]);
            assert_eq!(schema.layout(), schemas.lead().layout());
            assert_eq!(schema.questions()[1].aliases, ["trade", "work"]);
            assert_eq!(schema.derived[1]["aliases"], json!(["trade", "work"]));
        }
        let side = schemas.of_source(&EventSource::companion("side")).unwrap();
        assert_eq!(schemas.lead().asked(), [true, true, false]);
        assert_eq!(side.asked(), [false, true, true]);
        assert_eq!(side.names().collect::<Vec<_>>(), ["who", "at", "job", "plan"]);
        assert_eq!(schemas.companions().collect::<Vec<_>>(), ["side"]);
        // Without companions nothing changes.
        let alone = unite(schema("string", AGE), Vec::new()).unwrap();
        assert_eq!((alone.lead().asked(), alone.companions().count()), (&[true][..], 0));
    }

    #[test]
    fn an_event_of_a_source_has_answers_to_its_own_questions_only() {
        let rules =
            ReadingRules { categorical: vec!["plan".to_owned()], ..ReadingRules::default() };
        let schemas = united(AGE, r#"{"name":"plan","type":"long"}"#).unwrap().read_as(&rules);
        let schemas: Vec<_> = schemas.iter().collect();
        let enter = |schema: &QuestionnaireSchema, json: Value| {
            schema.from_json(&json, "", EventTime(1)).map(|event| {
                let answers = schema.layout().answers(&event.answers);
                (event.source.clone(), answers.map(AnswerRef::to_answer).collect::<Vec<_>>())
            })
        };
        let (lead, side) = (schemas[0], schemas[1]);
        let (source, answers) = enter(lead, json!({"who": "a", "age": 7})).unwrap();
        assert_eq!((source, answers), (EventSource::Lead, vec![Some(Answer::Number(7.0)), None]));
        let (source, answers) = enter(side, json!({"who": "a", "plan": 3})).unwrap();
        let plan = Some(Answer::Text("3".to_owned()));
        assert_eq!((source, answers), (EventSource::companion("side"), vec![None, plan]));
        for (schema, other) in [(lead, "plan"), (side, "age")] {
            for value in [json!(7), json!(null)] {
                let error = enter(schema, json!({"who": "a", other: value})).unwrap_err();
                assert!(error.to_string().contains(&format!("no field `{other}`")), "{error}");
            }
        }
    }

    #[test]
    fn schemas_that_do_not_fit_are_refused() {
        let check = |lead: &str, companion: &str, words: &[&str]| {
            let error = united(lead, companion).expect_err(companion);
            assert_eq!((error.companion, &error.other), (0, &EventSource::Lead));
            for word in words {
                assert!(error.to_string().contains(word), "{word:?} is not in {error}");
            }
        };
        let text = r#"{"name":"age","type":"string"}"#;
        check(AGE, text, &["`age` is of type string", "of type int", "ignored"]);
        let long = r#"{"name":"age","type":["null","long"]}"#;
        check(AGE, long, &["of type long", "of type int"]);
        let symbols = |symbol: &str| {
            let kind = format!(r#"{{"type":"enum","name":"E","symbols":["{symbol}"]}}"#);
            format!(r#"{{"name":"size","type":{kind}}}"#)
        };
        check(&symbols("S"), &symbols("L"), &["enum of L", "enum of S"]);
        check(JOB, r#"{"name":"trade","type":"string"}"#, &["`trade`", "`job`", "alias"]);
        let alias = r#"{"name":"work","type":"string","aliases":["age"]}"#;
        check(AGE, alias, &["`work`", "`age`", "the same name"]);

        let lead = schema("string", AGE);
        let numbers = vec![("side".to_owned(), schema("long", JOB))];
        let error = unite(lead.clone(), numbers).unwrap_err().to_string();
        assert!(error.contains("`who` is a long") && error.contains("is a string"), "{error}");
        let avsc = r#"{"type":"record","name":"R","fields":[{"name":"person","type":"string"},
            {"name":"then","type":"long"},{"name":"at","type":"long"}]}"#;
        let fields = MetadataFields {
            respondent_id: "person".to_owned(),
            event_time: "then".to_owned(),
            ..lead.metadata().clone()
        };
        let named = QuestionnaireSchema::new(avsc, &fields, &[]).unwrap();
        let error = unite(lead, vec![("side".to_owned(), named)]).unwrap_err();
        assert_eq!(error.problem, Problem::IsMetadata { question: "at".to_owned() });
    }

    #[test]
    fn a_companion_that_does_not_fit_another_names_it() {
        let [one, two] = [r#"{"name":"plan","type":"string"}"#, r#"{"name":"plan","type":"int"}"#]
            .map(|questions| schema("string", questions));
        let companions = vec![("one".to_owned(), one), ("two".to_owned(), two)];
        let error = unite(schema("string", AGE), companions).unwrap_err();
        assert_eq!((error.companion, error.other), (1, EventSource::companion("one")));
    }
}
