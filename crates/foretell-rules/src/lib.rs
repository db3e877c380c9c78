//! Conditions in the Common Expression Language (CEL), checked against declared variables and compiled, so that a condition
//! that would fail is refused before it is used.
//!
//! ```text
//!  text ─▶ tokens ─▶ parser ─▶ syntax tree ─▶ checker, with a Scope ─▶ program ─▶ holds(values)
//!                  positions, depth            names, types            three-valued, no names
//! ```
//!
//! A [`Scope`] declares the variables, each with a [`Slot`]. [`Condition::compile`] parses a text and checks its names and
//! types, and [`Condition::holds`] evaluates it with the [`Values`] of the slots. `docs/conditions.md` describes the part of
//! CEL that is supported.
//!
//! ```
//! use foretell_rules::{Condition, Scope, Slot, Type, Value, Values};
//!
//! struct Prediction {
//!     label: String,
//!     age: Option<f64>,
//! }
//!
//! impl Values for Prediction {
//!     fn value(&self, slot: Slot) -> Value<'_> {
//!         match slot.index() {
//!             0 => Value::Text(&self.label),
//!             _ => self.age.map_or(Value::Null, Value::Double),
//!         }
//!     }
//! }
//!
//! let mut scope = Scope::new();
//! scope.plain("label", Type::Text);
//! scope.field("answers", "age", Type::Double, true);
//!
//! let condition = Condition::compile("label == '>50K' && answers.age >= 25", &scope)?;
//! assert_eq!(condition.holds(&Prediction { label: ">50K".into(), age: Some(31.0) }), Ok(true));
//! assert!(condition.holds(&Prediction { label: ">50K".into(), age: None }).is_err());
//!
//! let refused = Condition::compile("answers.agee >= 25", &scope).unwrap_err();
//! assert_eq!((refused.line, refused.column), (1, 9));
//! assert_eq!(refused.message, "answers.agee is not a field of answers; did you mean answers.age?");
//! # Ok::<(), foretell_rules::ConditionError>(())
//! ```

mod calls;
mod checker;
mod condition;
mod error;
mod literals;
mod numbers;
mod operators;
mod parser;
mod program;
mod scope;
mod syntax;
mod tokens;
mod typed;

pub use condition::{Condition, LENGTH_MAX};
pub use error::{ConditionError, Undefined};
pub use program::{Value, Values};
pub use scope::{Scope, Slot, Type, Variable};
