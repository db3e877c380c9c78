//! The identity of an event. A repeated event has the same identity, in any record.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::events::questionnaire::{
    AnswerRef, Question, QuestionnaireEvent, RowLayout, row::EXACT_WHOLE_MAX,
};

/// A hash of the respondent and the event id, or, without an event id, of respondent, time and content; and of the companion that
/// the event comes from, if it does not come from the lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct EventIdentity([u8; 32]);

/// The first bytes of an identity, enough to distinguish the events of one partition: among a billion, two are equal with a
/// probability of 10⁻¹¹ (2⁶⁰ / 2⁹⁷).
pub type Fingerprint = [u8; 12];

/// The number of bytes of an identity in an id, with two hexadecimal digits each.
pub(super) const ID_BYTES: usize = 16;

impl EventIdentity {
    /// The identity of `event`, whose answers have this layout and the order of `questions`; `withdrawn` names the questions
    /// whose answers it withdraws.
    #[must_use]
    pub fn of(
        event: &QuestionnaireEvent,
        questions: &[Question],
        layout: &RowLayout,
        withdrawn: &[String],
    ) -> Self {
        let mut hash = Sha256::new();
        let mut add = |kind: u8, bytes: &[u8]| {
            // Preceded by its length, so that different parts have different bytes.
            hash.update([kind]);
            hash.update(u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(bytes);
        };
        // Services number their events on their own, so the ids of two sources may be equal. Those of the lead are without a source,
        // as they were before there were companions.
        if let Some(name) = event.source.companion_name() {
            add(b'o', name.as_bytes());
        }
        add(b'r', event.respondent_id.as_bytes());
        if !event.event_id.is_empty() {
            add(b'i', event.event_id.as_bytes());
            return Self(hash.finalize().into());
        }
        add(b't', &event.event_time.0.to_be_bytes());
        add(b'c', &[u8::from(event.completed)]);
        // By name, so that a new question in the schema does not change identities.
        for (question, answer) in questions.iter().zip(layout.answers(&event.answers)) {
            if answer.is_missing() {
                continue;
            }
            add(b'q', question.name.as_bytes());
            match answer {
                AnswerRef::Missing => {}
                AnswerRef::Number(number) => add(b'n', &number.to_bits().to_be_bytes()),
                AnswerRef::Whole(whole) if whole.unsigned_abs() > EXACT_WHOLE_MAX => {
                    add(b'l', &whole.to_be_bytes());
                }
                AnswerRef::Whole(whole) => add(b'n', &(whole as f64).to_bits().to_be_bytes()),
                AnswerRef::Id(whole) => add(b's', whole.to_string().as_bytes()),
                AnswerRef::Text(text) => add(b's', text.as_bytes()),
                AnswerRef::Flag(flag) => add(b's', if flag { b"true" } else { b"false" }),
            }
        }
        for name in withdrawn {
            add(b'w', name.as_bytes());
        }
        Self(hash.finalize().into())
    }

    /// The identity of the end of a session whose last event has this identity. No event has the same one, because the bytes that
    /// are hashed begin with another kind of part.
    #[must_use]
    pub fn of_session_end(&self) -> Self {
        let mut hash = Sha256::new();
        hash.update(b"e");
        hash.update(self.0);
        Self(hash.finalize().into())
    }

    /// The identity as an id: 32 hexadecimal digits.
    #[must_use]
    pub fn id(&self) -> String {
        self.id_in(&mut [0; _]).to_owned()
    }

    /// The identity as an id, in `buffer`.
    pub fn id_in<'b>(&self, buffer: &'b mut [u8; 2 * ID_BYTES]) -> &'b str {
        hex::encode_to_slice(&self.0[..ID_BYTES], buffer).expect("it has two digits for each byte");
        std::str::from_utf8(buffer).expect("digits are ASCII")
    }

    /// The fingerprint of the identity.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        *self.0.first_chunk().expect("a hash has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::questionnaire::{Answer, EventSource, QuestionKind, row::RowType};
    use foretell_streams::time::EventTime;

    fn questions(names: &[&str]) -> Vec<Question> {
        let question = |name: &&str| Question {
            name: (*name).to_owned(),
            kind: QuestionKind::Number,
            aliases: Vec::new(),
        };
        names.iter().map(question).collect()
    }

    fn numbers() -> RowLayout {
        RowLayout::new([RowType::Number; 3])
    }

    fn event(id: &str, who: &str, at: i64, answers: &[Option<f64>]) -> QuestionnaireEvent {
        QuestionnaireEvent {
            source: EventSource::Lead,
            event_id: id.to_owned(),
            respondent_id: who.to_owned(),
            event_time: EventTime(at),
            completed: false,
            answers: numbers().row_of(
                &answers.iter().map(|answer| answer.map(Answer::Number)).collect::<Vec<_>>(),
            ),
        }
    }

    #[test]
    fn the_identity_of_an_event_with_an_id_depends_on_id_and_respondent_only() {
        let of = |event: &QuestionnaireEvent| {
            EventIdentity::of(event, &questions(&["a"]), &numbers(), &[])
        };
        let first = of(&event("e", "ann", 1, &[Some(1.0)]));
        assert_eq!(first, of(&event("e", "ann", 2, &[Some(2.0)])));
        assert_ne!(first, of(&event("e", "bob", 1, &[Some(1.0)])));
        assert_ne!(first, of(&event("f", "ann", 1, &[Some(1.0)])));
        assert_ne!(of(&event("b", "a", 1, &[None])), of(&event("", "ab", 1, &[None])));
        assert_eq!(first.id().len(), 32);
        assert!(first.id().starts_with(&format!("{:02x}", first.fingerprint()[0])));
    }

    #[test]
    fn events_of_two_sources_with_the_same_ids_are_not_the_same() {
        let of = |event: &QuestionnaireEvent| {
            EventIdentity::of(event, &questions(&["a"]), &numbers(), &[])
        };
        for id in ["1", ""] {
            let lead = event(id, "ann", 1, &[Some(1.0)]);
            let from = |name| {
                let source = EventSource::companion(name);
                of(&QuestionnaireEvent { source, ..lead.clone() })
            };
            assert_ne!(from("registrations"), of(&lead));
            assert_ne!(from("registrations"), from("visits"));
            assert_eq!(from("registrations"), from("registrations"));
        }
        let named = QuestionnaireEvent {
            source: EventSource::companion("registrations"),
            ..event("1", "ann", 1, &[])
        };
        assert_eq!(of(&named).id(), "4d6b905f9d43a14d73a464fe0af07dfa");
    }

    /// If a release changed identities, repeats of earlier events would be scored again.
    #[test]
    fn identities_do_not_change() {
        let names = questions(&["a", "b"]);
        let id = |layout: &[RowType], answers: &[Option<Answer>]| {
            let layout = RowLayout::new(layout.iter().copied());
            let event =
                QuestionnaireEvent { answers: layout.row_of(answers), ..event("", "ann", 1, &[]) };
            EventIdentity::of(&event, &names, &layout, &["b".to_owned()]).id()
        };
        let with_id = event("e", "ann", 1, &[None, None]);
        let with_id = EventIdentity::of(&with_id, &names, &numbers(), &["b".to_owned()]).id();
        let text = |text: &str| Some(Answer::Text(text.to_owned()));
        let whole = Answer::Whole((1 << 53) + 1);
        let session_end = EventIdentity([7; 32]).of_session_end().id();
        let ids = [
            session_end,
            with_id,
            id(&[RowType::Number, RowType::Text], &[Some(Answer::Number(1.5)), text("x")]),
            id(&[RowType::Whole, RowType::Text], &[Some(whole), None]),
        ];
        // Earlier releases had numbers and texts only.
        let (number, digits) = (Some(Answer::Number(39.0)), text("39"));
        let of = |row_type, answer: &Option<Answer>| id(&[row_type], std::slice::from_ref(answer));
        assert_eq!(of(RowType::Whole, &number), of(RowType::Number, &number));
        assert_eq!(of(RowType::Id, &digits), of(RowType::Text, &digits));
        assert_eq!(of(RowType::Flag, &text("true")), of(RowType::Text, &text("true")));
        let expected = [
            "073dbfed72f7654137b61d8da399a932",
            "c64f6360a7c5f9450482760e82415409",
            "e235c806895e584b8acd8e89b0befb66",
            "8d7e62d33eddc9acb321ec47034e2397",
        ];
        assert_eq!(ids, expected);
    }

    #[test]
    fn the_end_of_a_session_has_an_identity_of_its_own() {
        let of = |id: &str| {
            let event = event(id, "ann", 1, &[None]);
            EventIdentity::of(&event, &questions(&["a"]), &numbers(), &[])
        };
        let (one, other) = (of("e"), of("f"));
        let ends = [one.of_session_end(), other.of_session_end()];
        assert_ne!(ends[0], ends[1]);
        assert!(ends.iter().all(|end| ![one, other].contains(end)));
        assert_eq!(ends[0], of("e").of_session_end());
    }

    #[test]
    fn without_an_id_time_and_content_count() {
        let base = event("", "ann", 1, &[Some(1.0), None]);
        let names = questions(&["a", "b"]);
        let of = |event: &QuestionnaireEvent| EventIdentity::of(event, &names, &numbers(), &[]);
        assert_eq!(of(&base), of(&base.clone()));
        assert_ne!(of(&base), of(&event("", "ann", 2, &[Some(1.0), None])));
        assert_ne!(of(&base), of(&event("", "ann", 1, &[None, Some(1.0)])));
        assert_ne!(of(&base), of(&event("", "ann", 1, &[Some(2.0), None])));
        assert_ne!(of(&base), of(&QuestionnaireEvent { completed: true, ..base.clone() }));
        assert_ne!(of(&base), EventIdentity::of(&base, &names, &numbers(), &["b".to_owned()]));
        // A new question without an answer does not change the identity.
        let wider = event("", "ann", 1, &[Some(1.0), None, None]);
        assert_eq!(
            of(&base),
            EventIdentity::of(&wider, &questions(&["a", "b", "c"]), &numbers(), &[])
        );
    }
}
