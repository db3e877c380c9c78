//! The functions and macros of conditions, and `in`.

use regex::RegexBuilder;

use crate::{
    checker::Checker,
    error::Refusal,
    program::{Conversion, Node, TextTest},
    scope::{GroupKind, nearest},
    syntax::{Call, Expression, Syntax},
    typed::{Base, Operand, Typed},
};

/// Maximum size of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 1 << 20;

/// What can be called: each name, and how the call is written.
const FUNCTIONS: [(&str, Function, &str); 14] = [
    ("has", Function::Has, "has(answers.x)"),
    ("size", Function::Size, "size(x)"),
    ("double", Function::Convert(Conversion::Double), "double(x)"),
    ("int", Function::Convert(Conversion::Int), "int(x)"),
    ("uint", Function::Convert(Conversion::Uint), "uint(x)"),
    ("string", Function::Convert(Conversion::Text), "string(x)"),
    ("startsWith", Function::Test(TextTest::StartsWith), "x.startsWith(\"a\")"),
    ("endsWith", Function::Test(TextTest::EndsWith), "x.endsWith(\"a\")"),
    ("contains", Function::Test(TextTest::Contains), "x.contains(\"a\")"),
    ("matches", Function::Matches, "x.matches(\"a.*\")"),
    ("all", Function::Macro(Macro::All), "[1, 2].all(x, x > 0)"),
    ("exists", Function::Macro(Macro::Exists), "[1, 2].exists(x, x > 0)"),
    ("exists_one", Function::Macro(Macro::ExistsOne), "[1, 2].exists_one(x, x > 0)"),
    // The name of `exists_one` in later releases of the specification.
    ("existsOne", Function::Macro(Macro::ExistsOne), "[1, 2].existsOne(x, x > 0)"),
];

/// Functions and macros of CEL that conditions do not have.
const UNSUPPORTED: [&str; 23] = [
    "bool",
    "bytes",
    "duration",
    "dyn",
    "timestamp",
    "type",
    "map",
    "filter",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getFullYear",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getSeconds",
    "min",
    "max",
    "cel",
    "math",
    "optional",
];

#[derive(Clone, Copy)]
enum Function {
    Has,
    Size,
    Convert(Conversion),
    Test(TextTest),
    Matches,
    Macro(Macro),
}

#[derive(Clone, Copy)]
enum Macro {
    All,
    Exists,
    ExistsOne,
}

impl<'c> Checker<'c> {
    pub(crate) fn call(
        &mut self,
        syntax: &'c Expression,
        call: &'c Call,
    ) -> Result<Typed, Refusal> {
        let name = call.name.as_str();
        let Some((_, function, written)) = FUNCTIONS.iter().find(|(other, ..)| *other == name)
        else {
            return Err(Refusal::new(syntax.at, unknown_function(name)));
        };
        let wrong = || Refusal::new(syntax.at, format!("{name} is called as in {written}"));
        let target = call.target.as_deref();
        match (function, target, &call.arguments[..]) {
            (Function::Has, None, [field]) => self.has(field),
            (Function::Size, None, [operand]) | (Function::Size, Some(operand), []) => {
                self.size(operand)
            }
            (Function::Convert(conversion), None, [operand]) => {
                self.conversion(*conversion, name, operand)
            }
            (Function::Test(test), Some(target), [argument]) => {
                let parts = [self.text(target, name)?, self.text(argument, name)?];
                Ok(Typed::new(Node::Test(*test, Box::new(parts)), Base::Bool))
            }
            (Function::Matches, Some(target), [pattern])
            | (Function::Matches, None, [target, pattern]) => self.matches(target, pattern),
            (Function::Macro(quantifier), Some(range), [variable, predicate]) => {
                let Syntax::Name(variable) = &variable.kind else { return Err(wrong()) };
                self.quantified(*quantifier, name, range, (variable, predicate))
            }
            _ => Err(wrong()),
        }
    }

    fn has(&mut self, field: &'c Expression) -> Result<Typed, Refusal> {
        let Syntax::Select(operand, name) = &field.kind else {
            let message = "has() asks for a field, as in has(answers.x)";
            return Err(Refusal::new(field.at, message));
        };
        let (group_name, group) = self.group_of(operand, field.at)?;
        let slot = self.member_slot(group_name, group, name, field.at)?;
        let is_nullable = self.scope.variable(slot).nullable;
        let node = if is_nullable { Node::Has(slot) } else { Node::Bool(true) };
        Ok(Typed::new(node, Base::Bool))
    }

    /// `size` of a string, a list or a map.
    fn size(&mut self, operand: &'c Expression) -> Result<Typed, Refusal> {
        let length = if let Syntax::List(elements) = &operand.kind {
            self.elements(elements)?;
            Some(elements.len())
        } else {
            self.keys(operand).map(|keys| keys.len())
        };
        let node = match length {
            Some(length) => Node::Int(i64::try_from(length).unwrap_or(i64::MAX)),
            None => Node::Size(Box::new(self.text(operand, "size")?)),
        };
        Ok(Typed::new(node, Base::Int))
    }

    fn conversion(
        &mut self,
        conversion: Conversion,
        name: &str,
        operand: &'c Expression,
    ) -> Result<Typed, Refusal> {
        let typed = self.expression(operand)?;
        let base = typed.kind.base;
        let is_text = matches!(conversion, Conversion::Text);
        let has_overload =
            base.is_number() || base == Base::Text || (is_text && base == Base::Bool);
        if !has_overload {
            let message = format!("{name}() cannot convert {}", base.shown());
            return Err(Refusal::new(operand.at, message));
        }
        let to = match conversion {
            Conversion::Double => Base::Double,
            Conversion::Int => Base::Int,
            Conversion::Uint => Base::Uint,
            Conversion::Text => Base::Text,
        };
        Ok(Typed::new(Node::Convert(conversion, Box::new(typed.node)), to))
    }

    fn matches(
        &mut self,
        target: &'c Expression,
        pattern: &'c Expression,
    ) -> Result<Typed, Refusal> {
        let target = self.text(target, "matches")?;
        let Node::Text(written) = self.text(pattern, "matches")? else {
            let message =
                "the pattern of matches must be a literal, as it is compiled at the start";
            return Err(Refusal::new(pattern.at, message));
        };
        let regex = RegexBuilder::new(&written).size_limit(PATTERN_BYTES_MAX).build();
        let regex = regex.map_err(|error| {
            let problem = error.to_string();
            let last = problem.lines().last().unwrap_or_default();
            let problem = last.strip_prefix("error: ").unwrap_or(last);
            Refusal::new(pattern.at, format!("{} is not a pattern: {problem}", self.shown(pattern)))
        })?;
        Ok(Typed::new(Node::Matches(Box::new(target), regex), Base::Bool))
    }

    /// An operand of the function `name` that has to be a string.
    fn text(&mut self, syntax: &'c Expression, name: &str) -> Result<Node, Refusal> {
        let typed = self.expression(syntax)?;
        if typed.kind.base == Base::Text {
            return Ok(typed.node);
        }
        let (shown, base) = (self.shown(syntax), typed.kind.base.shown());
        Err(Refusal::new(syntax.at, format!("{name} needs a string, but {shown} is {base}")))
    }

    /// `all`, `exists` or `exists_one` over a list or the keys of a map, as one expression for each element.
    fn quantified(
        &mut self,
        quantifier: Macro,
        name: &str,
        range: &'c Expression,
        (variable, predicate): (&'c str, &'c Expression),
    ) -> Result<Typed, Refusal> {
        let elements = if let Syntax::List(elements) = &range.kind {
            let typed = self.elements(elements)?;
            for (typed, syntax) in typed.iter().zip(elements) {
                // An element that has no value would have to leave the whole list without one.
                let is_plain = !matches!(syntax.kind, Syntax::Conditional(_))
                    && matches!(
                        typed.node,
                        Node::Null
                            | Node::Bool(_)
                            | Node::Int(_)
                            | Node::Uint(_)
                            | Node::Double(_)
                            | Node::Text(_)
                            | Node::Variable(_)
                    );
                if !is_plain {
                    let message = format!("an element before {name} is a literal or a variable");
                    return Err(Refusal::new(syntax.at, message));
                }
            }
            typed
        } else if let Some(keys) = self.keys(range) {
            keys.into_iter().map(|key| Typed::new(Node::Text(key.into()), Base::Text)).collect()
        } else {
            let message = format!("{name} needs a list or a map, as in [1, 2].{name}(x, x > 0)");
            return Err(Refusal::new(range.at, message));
        };
        let mut parts = Vec::with_capacity(elements.len());
        if elements.is_empty() {
            return Err(Refusal::new(range.at, format!("the list before {name} is empty")));
        }
        for element in elements {
            self.locals.push((variable, element));
            parts.push(self.bool(predicate, name)?);
            self.locals.pop();
        }
        let parts = parts.into();
        let node = match quantifier {
            Macro::All => Node::And(parts),
            Macro::Exists => Node::Or(parts),
            Macro::ExistsOne => Node::ExactlyOne(parts),
        };
        Ok(Typed::new(node, Base::Bool))
    }

    /// `left in right`
    pub(crate) fn membership(
        &mut self,
        left: &'c Expression,
        right: &'c Expression,
        at: usize,
    ) -> Result<Typed, Refusal> {
        let element = Operand { typed: self.expression(left)?, syntax: left };
        if let Some(keys) = self.keys(right) {
            if element.typed.kind.base != Base::Text {
                let shown = self.shown(right);
                return Err(Refusal::new(left.at, format!("the keys of {shown} are strings")));
            }
            let keys = keys.into_iter().map(Box::from).collect();
            let node = Node::InKeys(Box::new(element.typed.node), keys);
            return Ok(Typed::new(node, Base::Bool));
        }
        let Syntax::List(elements) = &right.kind else {
            let message = "in needs a list or a map, as in label in [\"a\", \"b\"]";
            return Err(Refusal::new(at, message));
        };
        let mut others = Vec::with_capacity(elements.len());
        for (typed, syntax) in self.elements(elements)?.into_iter().zip(elements) {
            let other = Operand { typed, syntax };
            self.check_comparable(&element, &other, false, syntax.at)?;
            others.push(other.typed.node);
        }
        let texts = others.iter().map(|node| {
            let Node::Text(text) = node else { return None };
            Some(text.clone())
        });
        let node = match texts.collect() {
            Some(texts) => {
                let mut texts: Vec<Box<str>> = texts;
                texts.sort_unstable();
                Node::InTexts(Box::new(element.typed.node), texts.into())
            }
            None => Node::In(Box::new(element.typed.node), others.into()),
        };
        Ok(Typed::new(node, Base::Bool))
    }

    fn elements(&mut self, elements: &'c [Expression]) -> Result<Vec<Typed>, Refusal> {
        elements.iter().map(|element| self.expression(element)).collect()
    }

    /// The keys of the map that an expression names; none if it is not a map.
    fn keys(&self, syntax: &Expression) -> Option<Vec<&'c str>> {
        let Syntax::Name(name) = &syntax.kind else { return None };
        let is_local = self.locals.iter().any(|(local, _)| local == name);
        let group = self.scope.group(name).filter(|_| !is_local)?;
        let is_map = group.kind == GroupKind::Map;
        is_map.then(|| group.members.keys().map(String::as_str).collect())
    }
}

fn unknown_function(name: &str) -> String {
    if UNSUPPORTED.contains(&name) {
        return format!("{name}() is not supported in a condition");
    }
    let names = FUNCTIONS.iter().map(|(other, _, written)| (*other, *written));
    match nearest(name, names) {
        Some(written) => format!("there is no function {name}; did you mean {written}?"),
        None => format!("there is no function {name}"),
    }
}
