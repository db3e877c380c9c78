//! Checks and compiles the binary operators.

use crate::{
    checker::Checker,
    error::Refusal,
    numbers::Arithmetic,
    program::{Comparison, Node},
    scope::unknown_value,
    syntax::{Expression, Operator, Syntax},
    typed::{Base, Operand, Typed},
};

impl<'c> Checker<'c> {
    pub(crate) fn binary(
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
