//! Types of expressions, by CEL's names, and compiled expressions with their types.

use crate::{program::Node, scope::Type, syntax::Expression};

/// The type of an expression. A value may be null if `nullable`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) base: Base,
    pub(crate) nullable: bool,
}

/// A type of CEL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Null,
    Bool,
    Int,
    Uint,
    Double,
    Text,
}

impl Base {
    /// The type as messages name it, with an article.
    pub(crate) fn shown(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a bool",
            Self::Int => "an int",
            Self::Uint => "a uint",
            Self::Double => "a double",
            Self::Text => "a string",
        }
    }

    pub(crate) fn is_number(self) -> bool {
        matches!(self, Self::Int | Self::Uint | Self::Double)
    }
}

impl From<Type> for Base {
    fn from(kind: Type) -> Self {
        match kind {
            Type::Bool => Self::Bool,
            Type::Int => Self::Int,
            Type::Double => Self::Double,
            Type::Text => Self::Text,
        }
    }
}

/// A compiled expression and its type.
#[derive(Clone, Debug)]
pub(crate) struct Typed {
    pub(crate) node: Node,
    pub(crate) kind: Kind,
}

impl Typed {
    /// An expression that is never null.
    pub(crate) fn new(node: Node, base: Base) -> Self {
        Self { node, kind: Kind { base, nullable: base == Base::Null } }
    }
}

/// A checked operand, and how it is written.
pub(crate) struct Operand<'c> {
    pub(crate) typed: Typed,
    pub(crate) syntax: &'c Expression,
}

impl Operand<'_> {
    pub(crate) fn base(&self) -> Base {
        self.typed.kind.base
    }
}
