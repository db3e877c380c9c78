//! The score of the challenger in predictions and labelled examples: a nullable record in both schemas.

use crate::events::answered::{ClassProbabilities, ClassProbabilitiesRef};
use foretell_avro::wire::{self, Cursor, Malformed};

/// The score of the challenger for the answers that the champion was given.
#[derive(Clone, Debug, PartialEq)]
pub struct ChallengerScore {
    /// The version of the challenger.
    pub model_version: String,
    /// The probability of every class, in the challenger's order.
    pub probabilities: ClassProbabilities,
}

/// A borrowed [`ChallengerScore`].
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "they are the fields of ChallengerScore")]
pub struct ChallengerScoreRef<'a> {
    pub model_version: &'a str,
    pub probabilities: ClassProbabilitiesRef<'a>,
}

/// The branches of a union of null and a value, as Avro encodes their indices.
pub(super) const NULL: u8 = 0;
pub(super) const VALUE: u8 = 2;

impl ChallengerScore {
    /// Borrows the score.
    #[must_use]
    pub fn borrow(&self) -> ChallengerScoreRef<'_> {
        ChallengerScoreRef {
            model_version: &self.model_version,
            probabilities: self.probabilities.borrow(),
        }
    }

    pub(super) fn of(score: ChallengerScoreRef<'_>) -> Self {
        Self {
            model_version: score.model_version.to_owned(),
            probabilities: score.probabilities.to_owned(),
        }
    }
}

impl<'a> ChallengerScoreRef<'a> {
    /// Appends the union of null and a score.
    pub(super) fn write(score: Option<Self>, out: &mut Vec<u8>) {
        let Some(score) = score else { return out.push(NULL) };
        out.push(VALUE);
        wire::write_blob(score.model_version.as_bytes(), out);
        score.probabilities.write(out);
    }

    /// Reads the union of null and a score.
    pub(super) fn read(cursor: &mut Cursor<'a>) -> Result<Option<Self>, Malformed> {
        Ok(match cursor.choice(2)? {
            0 => None,
            _ => Some(Self {
                model_version: cursor.text()?,
                probabilities: ClassProbabilitiesRef::read(cursor)?,
            }),
        })
    }
}
