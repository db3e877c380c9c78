//! Checks the names and the types of a syntax tree, and compiles it.
//!
//! The types are CEL's. As in CEL, numbers of different types are compared by value, but `+ - * / %` need two of the same
//! type. What would compare false for every value, such as a string with a number, is refused.

use crate::{
    error::Refusal,
    numbers::Arithmetic,
    program::{Comparison, Node},
    scope::{Group, GroupKind, Scope, Slot, Type, unknown_value},
    syntax::{Expression, Operator, Syntax},
};

/// Maximum number of nodes of a compiled condition. `all`, `exists` and `exists_one` are written out, once for each element.
const NODES_MAX: usize = 10_000;

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

/// Checks and compiles one condition.
pub(crate) struct Checker<'c> {
    text: &'c str,
    pub(crate) scope: &'c Scope,
    /// The variables of macros, the innermost last, with what they stand for.
    pub(crate) locals: Vec<(&'c str, Typed)>,
    nodes: usize,
}

impl<'c> Checker<'c> {
    pub(crate) fn new(text: &'c str, scope: &'c Scope) -> Self {
        Self { text, scope, locals: Vec::new(), nodes: 0 }
    }

    /// Compiles the whole condition.
    pub(crate) fn condition(mut self, syntax: &'c Expression) -> Result<Node, Refusal> {
        let typed = self.expression(syntax)?;
        if typed.kind.base != Base::Bool {
            let message = format!(
                "the condition is {}; it must be a bool, such as a comparison",
                typed.kind.base.shown()
            );
            return Err(Refusal::new(syntax.at, message));
        }
        Ok(typed.node)
    }

    pub(crate) fn expression(&mut self, syntax: &'c Expression) -> Result<Typed, Refusal> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            let message = format!(
                "the condition has more than {NODES_MAX} expressions with its macros written out"
            );
            return Err(Refusal::new(syntax.at, message));
        }
        Ok(match &syntax.kind {
            Syntax::Null => Typed::new(Node::Null, Base::Null),
            Syntax::Bool(value) => Typed::new(Node::Bool(*value), Base::Bool),
            Syntax::Int(value) => Typed::new(Node::Int(*value), Base::Int),
            Syntax::Uint(value) => Typed::new(Node::Uint(*value), Base::Uint),
            Syntax::Double(value) => Typed::new(Node::Double(*value), Base::Double),
            Syntax::Text(value) => Typed::new(Node::Text(value.as_str().into()), Base::Text),
            Syntax::Name(name) => self.name(syntax, name)?,
            Syntax::Select(operand, name) => {
                let (group_name, group) = self.group_of(operand, syntax.at)?;
                self.member(group_name, group, name, syntax.at)?
            }
            Syntax::Index(operand, key) => self.entry(operand, key, syntax.at)?,
            Syntax::Call(call) => self.call(syntax, call)?,
            Syntax::List(_) => {
                let message = "a list can stand only after in, in size(), and before all(), \
                               exists() and exists_one()";
                return Err(Refusal::new(syntax.at, message));
            }
            Syntax::Not(operand) => {
                let node = self.bool(operand, "!")?;
                Typed::new(Node::Not(Box::new(node)), Base::Bool)
            }
            Syntax::Negate(operand) => self.negation(operand, syntax.at)?,
            Syntax::Binary(operator, parts) => {
                let [left, right] = &**parts;
                self.binary(*operator, left, right, syntax.at)?
            }
            Syntax::And(parts) => Typed::new(Node::And(self.bools(parts, "&&")?), Base::Bool),
            Syntax::Or(parts) => Typed::new(Node::Or(self.bools(parts, "||")?), Base::Bool),
            Syntax::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                self.conditional(condition, then, otherwise, syntax.at)?
            }
        })
    }

    /// The text of an expression, shortened, for messages.
    pub(crate) fn shown(&self, syntax: &Expression) -> String {
        const CHARACTERS_MAX: usize = 40;
        let text = &self.text[syntax.start..syntax.end];
        match text.char_indices().nth(CHARACTERS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text.to_owned(),
        }
    }

    fn name(&self, syntax: &Expression, name: &str) -> Result<Typed, Refusal> {
        if let Some((_, typed)) = self.locals.iter().rev().find(|(local, _)| *local == name) {
            return Ok(typed.clone());
        }
        if let Some(slot) = self.scope.plain_slot(name) {
            return Ok(self.variable(slot));
        }
        let message = match self.scope.group(name) {
            Some(group) => {
                let example = group.members.values().next();
                let path = example.map_or(name, |slot| &self.scope.variable(*slot).path);
                format!("{name} is not a value; write one of its members, such as {path}")
            }
            None => {
                let locals = self.locals.iter().map(|(local, _)| *local);
                self.scope.unknown_name(name, locals)
            }
        };
        Err(Refusal::new(syntax.at, message))
    }

    fn variable(&self, slot: Slot) -> Typed {
        let variable = self.scope.variable(slot);
        let kind = Kind { base: variable.kind.into(), nullable: variable.nullable };
        Typed { node: Node::Variable(slot), kind }
    }

    /// The record or map that an expression names.
    pub(crate) fn group_of(
        &self,
        operand: &'c Expression,
        at: usize,
    ) -> Result<(&'c str, &'c Group), Refusal> {
        let scope = self.scope;
        let Syntax::Name(name) = &operand.kind else {
            let message = format!("{} has no fields and no keys", self.shown(operand));
            return Err(Refusal::new(at, message));
        };
        let is_local = self.locals.iter().any(|(local, _)| local == name);
        match scope.group(name).filter(|_| !is_local) {
            Some(group) => Ok((name.as_str(), group)),
            None => {
                // An unknown name is refused as such.
                self.name(operand, name)?;
                Err(Refusal::new(at, format!("{name} has no fields and no keys")))
            }
        }
    }

    /// `group.name`, or `group["name"]` with a literal.
    fn member(
        &self,
        group_name: &str,
        group: &Group,
        name: &str,
        at: usize,
    ) -> Result<Typed, Refusal> {
        let slot = self.member_slot(group_name, group, name, at)?;
        Ok(self.variable(slot))
    }

    pub(crate) fn member_slot(
        &self,
        group_name: &str,
        group: &Group,
        name: &str,
        at: usize,
    ) -> Result<Slot, Refusal> {
        group
            .members
            .get(name)
            .copied()
            .ok_or_else(|| Refusal::new(at, self.scope.unknown_member(group_name, group, name)))
    }

    /// `operand[key]`
    fn entry(
        &mut self,
        operand: &'c Expression,
        key: &'c Expression,
        at: usize,
    ) -> Result<Typed, Refusal> {
        let (name, group) = self.group_of(operand, at)?;
        if group.kind == GroupKind::Record {
            let message = format!("the fields of {name} are written with a dot, as in {name}.x");
            return Err(Refusal::new(at, message));
        }
        let typed = self.expression(key)?;
        if let Node::Text(text) = &typed.node {
            return self.member(name, group, text, key.at);
        }
        if typed.kind.base != Base::Text {
            let shown = self.shown(key);
            let hint = if let Node::Int(value) = typed.node {
                format!("; write {name}[\"{value}\"]")
            } else {
                String::new()
            };
            let base = typed.kind.base.shown();
            let message = format!("the keys of {name} are strings, but {shown} is {base}{hint}");
            return Err(Refusal::new(key.at, message));
        }
        let entries = group.members.iter().map(|(key, slot)| (key.as_str().into(), *slot));
        let entries: Box<[(Box<str>, Slot)]> = entries.collect();
        let kind = entries.first().map(|(_, slot)| self.scope.variable(*slot).kind);
        let kind = kind.unwrap_or(Type::Double);
        Ok(Typed::new(Node::Entry(Box::new(typed.node), entries), kind.into()))
    }

    /// An operand of `operator` that has to be a bool.
    pub(crate) fn bool(&mut self, syntax: &'c Expression, operator: &str) -> Result<Node, Refusal> {
        let typed = self.expression(syntax)?;
        if typed.kind.base == Base::Bool {
            return Ok(typed.node);
        }
        let (shown, base) = (self.shown(syntax), typed.kind.base.shown());
        Err(Refusal::new(syntax.at, format!("{operator} needs a bool, but {shown} is {base}")))
    }

    fn bools(&mut self, parts: &'c [Expression], operator: &str) -> Result<Box<[Node]>, Refusal> {
        parts.iter().map(|part| self.bool(part, operator)).collect()
    }

    fn negation(&mut self, operand: &'c Expression, at: usize) -> Result<Typed, Refusal> {
        let typed = self.expression(operand)?;
        if !matches!(typed.kind.base, Base::Int | Base::Double) {
            let (shown, base) = (self.shown(operand), typed.kind.base.shown());
            let message = format!("- needs an int or a double, but {shown} is {base}");
            return Err(Refusal::new(at, message));
        }
        Ok(Typed::new(Node::Negate(Box::new(typed.node)), typed.kind.base))
    }

    fn conditional(
        &mut self,
        condition: &'c Expression,
        then: &'c Expression,
        otherwise: &'c Expression,
        at: usize,
    ) -> Result<Typed, Refusal> {
        let condition = self.bool(condition, "?")?;
        let (one, other) = (self.expression(then)?, self.expression(otherwise)?);
        let base = match (one.kind.base, other.kind.base) {
            (base, Base::Null) | (Base::Null, base) => base,
            (base, other) if base == other => base,
            (base, other) => {
                let message = format!(
                    "both results of ? must have the same type, but {} is {} and {} {}",
                    self.shown(then),
                    base.shown(),
                    self.shown(otherwise),
                    other.shown()
                );
                return Err(Refusal::new(at, message));
            }
        };
        let nullable = one.kind.nullable || other.kind.nullable;
        let node = Node::Conditional(Box::new([condition, one.node, other.node]));
        Ok(Typed { node, kind: Kind { base, nullable } })
    }

    fn binary(
        &mut self,
        operator: Operator,
        left: &'c Expression,
        right: &'c Expression,
        at: usize,
    ) -> Result<Typed, Refusal> {
        if operator == Operator::In {
            return self.membership(left, right, at);
        }
        let one = Operand { typed: self.expression(left)?, syntax: left };
        let other = Operand { typed: self.expression(right)?, syntax: right };
        let ordered = |comparison| (Some(comparison), None);
        let calculated = |arithmetic| (None, Some(arithmetic));
        let (comparison, arithmetic) = match operator {
            Operator::Equal | Operator::NotEqual | Operator::In => (None, None),
            Operator::Less => ordered(Comparison::Less),
            Operator::LessOrEqual => ordered(Comparison::LessOrEqual),
            Operator::Greater => ordered(Comparison::Greater),
            Operator::GreaterOrEqual => ordered(Comparison::GreaterOrEqual),
            Operator::Add => calculated(Arithmetic::Add),
            Operator::Subtract => calculated(Arithmetic::Subtract),
            Operator::Multiply => calculated(Arithmetic::Multiply),
            Operator::Divide => calculated(Arithmetic::Divide),
            Operator::Remainder => calculated(Arithmetic::Remainder),
        };
        if let Some(arithmetic) = arithmetic {
            let base = self.arithmetic_type(arithmetic, &one, &other, at)?;
            let parts = Box::new([one.typed.node, other.typed.node]);
            return Ok(Typed::new(Node::Arithmetic(arithmetic, parts), base));
        }
        self.check_comparable(&one, &other, comparison.is_some(), at)?;
        let parts = Box::new([one.typed.node, other.typed.node]);
        let node = match comparison {
            Some(comparison) => Node::Compare(comparison, parts),
            None if operator == Operator::NotEqual => Node::Not(Box::new(Node::Equal(parts))),
            None => Node::Equal(parts),
        };
        Ok(Typed::new(node, Base::Bool))
    }
}

/// A checked operand, and how it is written.
pub(crate) struct Operand<'c> {
    pub(crate) typed: Typed,
    pub(crate) syntax: &'c Expression,
}

impl Operand<'_> {
    fn base(&self) -> Base {
        self.typed.kind.base
    }
}

impl Checker<'_> {
    /// Refuses a comparison that could never be true.
    pub(crate) fn check_comparable(
        &self,
        one: &Operand<'_>,
        other: &Operand<'_>,
        by_order: bool,
        at: usize,
    ) -> Result<(), Refusal> {
        let (base, other_base) = (one.base(), other.base());
        if base == Base::Null || other_base == Base::Null {
            if by_order {
                let message = "null has no order; compare with == or !=";
                return Err(Refusal::new(at, message));
            }
            let never = [one, other].into_iter().find(|side| !side.typed.kind.nullable);
            return never.map_or(Ok(()), |side| {
                Err(Refusal::new(at, format!("{} is never null", self.shown(side.syntax))))
            });
        }
        if base == other_base {
            self.check_value(one, other)?;
            return self.check_value(other, one);
        }
        if base.is_number() && other_base.is_number() {
            return Ok(());
        }
        let message = format!(
            "{} is {} and {} is {}: they cannot be compared{}",
            self.shown(one.syntax),
            base.shown(),
            self.shown(other.syntax),
            other_base.shown(),
            hint_for_text(one, other).or_else(|| hint_for_text(other, one)).unwrap_or_default()
        );
        Err(Refusal::new(at, message))
    }

    /// Refuses a literal that the variable that it is compared with can never be.
    fn check_value(&self, variable: &Operand<'_>, literal: &Operand<'_>) -> Result<(), Refusal> {
        let (Node::Variable(slot), Node::Text(text)) = (&variable.typed.node, &literal.typed.node)
        else {
            return Ok(());
        };
        let declared = self.scope.variable(*slot);
        match &declared.values {
            Some(values) if !values.iter().any(|value| **value == **text) => {
                let message = unknown_value(&declared.path, text, values);
                Err(Refusal::new(literal.syntax.at, message))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The type of both operands and of the result.
    fn arithmetic_type(
        &self,
        operator: Arithmetic,
        one: &Operand<'_>,
        other: &Operand<'_>,
        at: usize,
    ) -> Result<Base, Refusal> {
        let (base, other_base) = (one.base(), other.base());
        let has_overload = match operator {
            Arithmetic::Add => base.is_number() || base == Base::Text,
            Arithmetic::Subtract | Arithmetic::Multiply | Arithmetic::Divide => base.is_number(),
            Arithmetic::Remainder => matches!(base, Base::Int | Base::Uint),
        };
        if base == other_base && has_overload {
            return Ok(base);
        }
        let (symbol, needs) = match operator {
            Arithmetic::Add => ("+", "two numbers of the same type or two strings"),
            Arithmetic::Subtract => ("-", "two numbers of the same type"),
            Arithmetic::Multiply => ("*", "two numbers of the same type"),
            Arithmetic::Divide => ("/", "two numbers of the same type"),
            Arithmetic::Remainder => ("%", "two ints"),
        };
        let are_mixed = base.is_number() && other_base.is_number() && base != other_base;
        let hint = if !are_mixed || operator == Arithmetic::Remainder {
            String::new()
        } else {
            hint_for_double(one).or_else(|| hint_for_double(other)).unwrap_or_default()
        };
        let message = format!(
            "{symbol} needs {needs}, but {} is {} and {} is {}{hint}",
            self.shown(one.syntax),
            base.shown(),
            self.shown(other.syntax),
            other_base.shown(),
        );
        Err(Refusal::new(at, message))
    }
}

/// How to write a number that is compared with a string.
fn hint_for_text(text: &Operand<'_>, number: &Operand<'_>) -> Option<String> {
    let is_text = text.base() == Base::Text && !matches!(text.typed.node, Node::Text(_));
    let Syntax::Int(value) = &number.syntax.kind else { return None };
    is_text.then(|| format!("; write \"{value}\""))
}

/// How to write an int beside a double.
fn hint_for_double(operand: &Operand<'_>) -> Option<String> {
    if let Syntax::Int(value) = &operand.syntax.kind {
        return Some(format!("; write {value}.0"));
    }
    (operand.base() == Base::Int).then(|| "; convert the int with double()".to_owned())
}
