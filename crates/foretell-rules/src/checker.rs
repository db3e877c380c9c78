//! Checks the names and the types of a syntax tree, and compiles it. Operators and calls are in `operators.rs` and `calls.rs`.
//!
//! The types are CEL's. As in CEL, numbers of different types are compared by value, but `+ - * / %` need two of the same
//! type. What would compare false for every value, such as a string with a number, is refused.

use crate::{
    error::Refusal,
    program::Node,
    scope::{Group, GroupKind, Scope, Slot, Type},
    syntax::{Expression, Syntax},
    typed::{Base, Kind, Typed},
};

/// Maximum number of nodes of a compiled condition. `all`, `exists` and `exists_one` are written out, once for each element.
const NODES_MAX: usize = 10_000;

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
}
