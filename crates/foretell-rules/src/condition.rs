//! A condition: its text, and the program that it was compiled to.

use crate::{
    checker::Checker,
    error::{ConditionError, Refusal, Undefined},
    parser::Parser,
    program::{Node, Values},
    scope::Scope,
};

/// Maximum length of a condition, in bytes. It bounds the work and the memory of the parser.
pub const LENGTH_MAX: usize = 4096;

/// A condition that was parsed, checked and compiled.
#[derive(Clone, Debug)]
pub struct Condition {
    text: String,
    program: Node,
}

impl Condition {
    /// Parses `text`, and checks it against the variables of `scope`.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, with its position.
    pub fn compile(text: &str, scope: &Scope) -> Result<Self, ConditionError> {
        let program = Self::program(text, scope).map_err(|refusal| refusal.locate(text))?;
        Ok(Self { text: text.to_owned(), program })
    }

    fn program(text: &str, scope: &Scope) -> Result<Node, Refusal> {
        if text.len() > LENGTH_MAX {
            let message =
                format!("the condition has {} bytes: {LENGTH_MAX} at most are allowed", text.len());
            return Err(Refusal::new(0, message));
        }
        let syntax = Parser::new(text)?.condition()?;
        Checker::new(text, scope).condition(&syntax)
    }

    /// Whether the condition holds for `values`.
    ///
    /// # Errors
    ///
    /// The condition is neither true nor false, for example because an answer that it compares is missing.
    pub fn holds(&self, values: &impl Values) -> Result<bool, Undefined> {
        self.program.truth(values)
    }

    /// The text of the condition.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}
