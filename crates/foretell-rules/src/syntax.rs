//! The syntax tree of a condition, before names and types are checked.

/// Maximum depth of a syntax tree, and of nested parentheses. The parser, the checker and the evaluation recurse at most as
/// deep: some 64 × 9 small frames, of a thread's 2 MiB.
pub(crate) const DEPTH_MAX: usize = 64;

/// An expression at bytes `start..end` of the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Expression {
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// The offset that errors of this expression name: that of its operator or its name.
    pub(crate) at: usize,
    /// The number of expressions from this one to its deepest part.
    pub(crate) depth: usize,
    pub(crate) kind: Syntax,
}

/// What an expression is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Syntax {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(String),
    Name(String),
    /// `operand.name`
    Select(Box<Expression>, String),
    /// `operand[key]`
    Index(Box<Expression>, Box<Expression>),
    Call(Call),
    List(Vec<Expression>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    Binary(Operator, Box<[Expression; 2]>),
    /// `a && b && …`
    And(Vec<Expression>),
    /// `a || b || …`
    Or(Vec<Expression>),
    /// `condition ? a : b`
    Conditional(Box<[Expression; 3]>),
}

/// `name(arguments)`, or `target.name(arguments)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    pub(crate) target: Option<Box<Expression>>,
    pub(crate) name: String,
    pub(crate) arguments: Vec<Expression>,
}

/// A binary operator, without `&&` and `||`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

impl Operator {
    pub(crate) fn of_symbol(symbol: &str) -> Option<Self> {
        Some(match symbol {
            "==" => Self::Equal,
            "!=" => Self::NotEqual,
            "<" => Self::Less,
            "<=" => Self::LessOrEqual,
            ">" => Self::Greater,
            ">=" => Self::GreaterOrEqual,
            "in" => Self::In,
            "+" => Self::Add,
            "-" => Self::Subtract,
            "*" => Self::Multiply,
            "/" => Self::Divide,
            "%" => Self::Remainder,
            _ => return None,
        })
    }

    /// How strongly the operator binds: relations 1, sums 2, products 3.
    pub(crate) fn precedence(self) -> u8 {
        match self {
            Self::Equal
            | Self::NotEqual
            | Self::Less
            | Self::LessOrEqual
            | Self::Greater
            | Self::GreaterOrEqual
            | Self::In => 1,
            Self::Add | Self::Subtract => 2,
            Self::Multiply | Self::Divide | Self::Remainder => 3,
        }
    }
}
