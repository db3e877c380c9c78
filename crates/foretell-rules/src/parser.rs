//! The parser of CEL: precedence climbing over the tokens.

use crate::{
    error::Refusal,
    literals::Number,
    syntax::{Call, DEPTH_MAX, Expression, Operator, Syntax},
    tokens::{Located, Token, tokenize},
};

/// Words that CEL reserves for the languages that embed it.
const RESERVED: [&str; 17] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];
/// Operators of other languages that look like names, with those of CEL.
const WORDS: [(&str, &str); 3] = [("and", "&&"), ("or", "||"), ("not", "!")];

/// Parses one condition.
pub(crate) struct Parser<'t> {
    text: &'t str,
    tokens: Vec<Located>,
    /// The index of the next token.
    next: usize,
    /// The number of expressions around the present one.
    nesting: usize,
}

impl<'t> Parser<'t> {
    pub(crate) fn new(text: &'t str) -> Result<Self, Refusal> {
        Ok(Self { text, tokens: tokenize(text)?, next: 0, nesting: 0 })
    }

    /// The whole text as an expression.
    pub(crate) fn condition(mut self) -> Result<Expression, Refusal> {
        let expression = self.expression()?;
        if self.peek().token == Token::End {
            return Ok(expression);
        }
        Err(self.unexpected("an operator or the end"))
    }

    /// `or ? or : expression`, or less.
    fn expression(&mut self) -> Result<Expression, Refusal> {
        self.nesting += 1;
        if self.nesting > DEPTH_MAX {
            return Err(too_deep(self.peek().start));
        }
        let condition = self.or()?;
        let at = self.peek().start;
        let expression = if self.takes("?") {
            let then = self.or()?;
            self.expect(":", "a : of the ? before")?;
            let parts = [condition, then, self.expression()?];
            let (start, end) = (parts[0].start, parts[2].end);
            let depth = depth_of(&parts);
            self.made(start..end, at, depth, Syntax::Conditional(Box::new(parts)))?
        } else {
            condition
        };
        self.nesting -= 1;
        Ok(expression)
    }

    fn or(&mut self) -> Result<Expression, Refusal> {
        let first = self.and()?;
        self.chain(first, "||", Self::and, Syntax::Or)
    }

    fn and(&mut self) -> Result<Expression, Refusal> {
        let first = self.binary(1)?;
        self.chain(first, "&&", |parser| parser.binary(1), Syntax::And)
    }

    /// `first symbol part symbol part …` as one expression, so that a long chain is not deep.
    fn chain(
        &mut self,
        first: Expression,
        symbol: &str,
        part: impl Fn(&mut Self) -> Result<Expression, Refusal>,
        of: impl Fn(Vec<Expression>) -> Syntax,
    ) -> Result<Expression, Refusal> {
        let at = self.peek().start;
        if !self.is(symbol) {
            return Ok(first);
        }
        let start = first.start;
        let mut parts = vec![first];
        while self.takes(symbol) {
            parts.push(part(self)?);
        }
        let depth = depth_of(&parts);
        self.made(start..self.end(), at, depth, of(parts))
    }

    /// Operators that bind at least as strongly as `precedence`; those of the same precedence from left to right.
    fn binary(&mut self, precedence: u8) -> Result<Expression, Refusal> {
        let mut left = self.unary()?;
        while let Some(operator) = self.operator().filter(|next| next.precedence() >= precedence) {
            let at = self.advance().start;
            let right = self.binary(operator.precedence() + 1)?;
            let (start, end) = (left.start, right.end);
            let parts = [left, right];
            let depth = depth_of(&parts);
            left = self.made(start..end, at, depth, Syntax::Binary(operator, Box::new(parts)))?;
        }
        Ok(left)
    }

    /// `!` and `-` before a value. A minus before a number belongs to the number, as the smallest int has no positive one.
    fn unary(&mut self) -> Result<Expression, Refusal> {
        let mut operators = Vec::new();
        while self.is("!") || self.is("-") {
            operators.push((self.is("-"), self.advance().start));
        }
        let sign = match (&self.peek().token, &operators[..]) {
            // As in other implementations of CEL, none of two minuses belongs to the number.
            (Token::Number(_), [.., (true, _), (true, _)]) => None,
            (Token::Number(_), [.., (true, at)]) => Some(*at),
            _ => None,
        };
        if sign.is_some() {
            operators.pop();
        }
        let mut expression = self.member(sign)?;
        for (is_minus, at) in operators.into_iter().rev() {
            let (end, depth) = (expression.end, expression.depth);
            let of = if is_minus { Syntax::Negate } else { Syntax::Not };
            expression = self.made(at..end, at, depth, of(Box::new(expression)))?;
        }
        Ok(expression)
    }

    /// A value with fields, keys and calls behind it. `sign` is where the minus of a number is.
    fn member(&mut self, sign: Option<usize>) -> Result<Expression, Refusal> {
        let mut operand = self.primary(sign)?;
        loop {
            let start = operand.start;
            if self.takes(".") {
                let located = self.peek().clone();
                if located.token != Token::Name || is_keyword(self.slice(&located)) {
                    return Err(self.unexpected("a name after the dot"));
                }
                let name = self.take_word().to_owned();
                let mut depth = operand.depth;
                let kind = if self.takes("(") {
                    let arguments = self.list(")")?;
                    depth = depth.max(depth_of(&arguments));
                    Syntax::Call(Call { target: Some(Box::new(operand)), name, arguments })
                } else {
                    Syntax::Select(Box::new(operand), name)
                };
                operand = self.made(start..self.end(), located.start, depth, kind)?;
            } else if self.is("[") {
                let at = self.advance().start;
                let key = self.expression()?;
                self.expect("]", "a ]")?;
                let depth = operand.depth.max(key.depth);
                let kind = Syntax::Index(Box::new(operand), Box::new(key));
                operand = self.made(start..self.end(), at, depth, kind)?;
            } else {
                return Ok(operand);
            }
        }
    }

    fn primary(&mut self, sign: Option<usize>) -> Result<Expression, Refusal> {
        let located = self.peek().clone();
        let start = located.start;
        let (kind, depth) = match located.token {
            Token::Number(number) => {
                self.advance();
                let number = signed(number, sign.is_some())
                    .ok_or_else(|| Refusal::new(start, "the number is too large for an int"))?;
                (number, 0)
            }
            Token::Text(text) => {
                self.advance();
                (Syntax::Text(text), 0)
            }
            Token::Name => self.name()?,
            Token::Symbol("(") => {
                self.advance();
                let inner = self.expression()?;
                self.expect(")", "a ) of the ( before")?;
                // The text with the parentheses; the position stays.
                return Ok(Expression { start, end: self.end(), ..inner });
            }
            Token::Symbol("[") => {
                self.advance();
                let parts = self.list("]")?;
                let depth = depth_of(&parts);
                (Syntax::List(parts), depth)
            }
            Token::Symbol("{") => {
                return Err(Refusal::new(start, "maps are not supported in a condition"));
            }
            Token::Symbol(_) | Token::End => return Err(self.unexpected("a value")),
        };
        let start = sign.unwrap_or(start);
        self.made(start..self.end(), start, depth, kind)
    }

    /// A name, a call or a keyword, and its depth.
    fn name(&mut self) -> Result<(Syntax, usize), Refusal> {
        let at = self.peek().start;
        let name = self.take_word();
        let keyword = match name {
            "null" => Some(Syntax::Null),
            "true" => Some(Syntax::Bool(true)),
            "false" => Some(Syntax::Bool(false)),
            "in" => return Err(Refusal::new(at, "expected a value before in")),
            _ => None,
        };
        if let Some(keyword) = keyword {
            return Ok((keyword, 0));
        }
        if RESERVED.contains(&name) {
            return Err(Refusal::new(at, format!("{name} is a reserved word of CEL")));
        }
        let is_call = self.is("(");
        if let Some((word, right)) = WORDS.into_iter().find(|(word, _)| *word == name && !is_call) {
            let message = format!("{word} is not an operator of conditions; did you mean {right}?");
            return Err(Refusal::new(at, message));
        }
        let name = name.to_owned();
        if self.takes("(") {
            let arguments = self.list(")")?;
            let depth = depth_of(&arguments);
            return Ok((Syntax::Call(Call { target: None, name, arguments }), depth));
        }
        Ok((Syntax::Name(name), 0))
    }

    /// Expressions separated by commas up to `close`.
    fn list(&mut self, close: &'static str) -> Result<Vec<Expression>, Refusal> {
        let mut parts = Vec::new();
        while !self.takes(close) {
            parts.push(self.expression()?);
            // A list may end with a comma; arguments may not.
            let is_last = self.is(close);
            if !is_last {
                self.expect(",", if close == "]" { "a , or a ]" } else { "a , or a )" })?;
                if close == ")" && self.is(close) {
                    return Err(self.unexpected("a value"));
                }
            }
        }
        Ok(parts)
    }

    fn made(
        &self,
        span: std::ops::Range<usize>,
        at: usize,
        depth_inside: usize,
        kind: Syntax,
    ) -> Result<Expression, Refusal> {
        let depth = depth_inside + 1;
        if depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        Ok(Expression { start: span.start, end: span.end, at, depth, kind })
    }

    fn peek(&self) -> &Located {
        &self.tokens[self.next]
    }

    /// The text of the next token, which is taken.
    fn take_word(&mut self) -> &'t str {
        let text = self.text;
        let taken = self.advance();
        &text[taken.start..taken.end]
    }

    /// The next token, which is taken. The end is never taken.
    fn advance(&mut self) -> &Located {
        let taken = self.next;
        self.next = (taken + 1).min(self.tokens.len() - 1);
        &self.tokens[taken]
    }

    fn is(&self, symbol: &str) -> bool {
        matches!(self.peek().token, Token::Symbol(next) if next == symbol)
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let is = self.is(symbol);
        if is {
            self.advance();
        }
        is
    }

    fn expect(&mut self, symbol: &str, expected: &str) -> Result<(), Refusal> {
        if self.takes(symbol) { Ok(()) } else { Err(self.unexpected(expected)) }
    }

    /// The binary operator that the next token is.
    fn operator(&self) -> Option<Operator> {
        match &self.peek().token {
            Token::Symbol(symbol) => Operator::of_symbol(symbol),
            Token::Name => Operator::of_symbol(self.slice(self.peek())),
            Token::Number(_) | Token::Text(_) | Token::End => None,
        }
    }

    /// The offset behind the last token that was taken.
    fn end(&self) -> usize {
        self.next.checked_sub(1).map_or(0, |last| self.tokens[last].end)
    }

    fn slice(&self, located: &Located) -> &'t str {
        &self.text[located.start..located.end]
    }

    fn unexpected(&self, expected: &str) -> Refusal {
        let next = self.peek();
        let word = self.slice(next);
        let right = WORDS.into_iter().find(|(other, _)| word.eq_ignore_ascii_case(other));
        let message = match right {
            Some((_, right)) => {
                format!("{word} is not an operator of conditions; did you mean {right}?")
            }
            None if next.token == Token::End => {
                format!("expected {expected}, but the condition ends here")
            }
            None => format!("expected {expected}, but found {word}"),
        };
        Refusal::new(next.start, message)
    }
}

fn too_deep(at: usize) -> Refusal {
    Refusal::new(at, format!("the condition is nested more than {DEPTH_MAX} levels deep"))
}

fn depth_of(parts: &[Expression]) -> usize {
    parts.iter().map(|part| part.depth).max().unwrap_or(0)
}

fn is_keyword(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "in")
}

/// The number with its sign; none if it is not an int.
fn signed(number: Number, is_negative: bool) -> Option<Syntax> {
    Some(match (number, is_negative) {
        (Number::Int(magnitude), false) => Syntax::Int(i64::try_from(magnitude).ok()?),
        (Number::Int(magnitude), true) => Syntax::Int(0_i64.checked_sub_unsigned(magnitude)?),
        (Number::Double(double), false) => Syntax::Double(double),
        (Number::Double(double), true) => Syntax::Double(-double),
        (Number::Uint(value), false) => Syntax::Uint(value),
        (Number::Uint(_), true) => return None, // a uint has no sign
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expression with a pair of parentheses around every operation.
    fn shown(expression: &Expression) -> String {
        let all = |parts: &[Expression]| parts.iter().map(shown).collect::<Vec<_>>();
        match &expression.kind {
            Syntax::Null => "null".into(),
            Syntax::Bool(value) => value.to_string(),
            Syntax::Int(value) => value.to_string(),
            Syntax::Uint(value) => format!("{value}u"),
            Syntax::Double(value) => format!("{value:?}"),
            Syntax::Text(value) => format!("{value:?}"),
            Syntax::Name(name) => name.clone(),
            Syntax::Select(operand, name) => format!("{}.{name}", shown(operand)),
            Syntax::Index(operand, key) => format!("{}[{}]", shown(operand), shown(key)),
            Syntax::Call(call) => {
                let target = call.target.iter().map(|target| shown(target) + ".");
                let arguments = all(&call.arguments).join(", ");
                format!("{}{}({arguments})", target.collect::<String>(), call.name)
            }
            Syntax::List(parts) => format!("[{}]", all(parts).join(", ")),
            Syntax::Not(operand) => format!("!{}", shown(operand)),
            Syntax::Negate(operand) => format!("-{}", shown(operand)),
            Syntax::Binary(operator, parts) => {
                let [left, right] = &**parts;
                format!("({} {operator:?} {})", shown(left), shown(right))
            }
            Syntax::And(parts) => format!("({})", all(parts).join(" && ")),
            Syntax::Or(parts) => format!("({})", all(parts).join(" || ")),
            Syntax::Conditional(parts) => {
                let [condition, then, otherwise] = &**parts;
                format!("({} ? {} : {})", shown(condition), shown(then), shown(otherwise))
            }
        }
    }

    fn parse(text: &str) -> Result<Expression, Refusal> {
        Parser::new(text).and_then(Parser::condition)
    }

    fn check(text: &str, expected: &str) {
        assert_eq!(parse(text).map(|expression| shown(&expression)), Ok(expected.into()), "{text}");
    }

    fn check_refused(text: &str, at: usize, message: &str) {
        assert_eq!(parse(text), Err(Refusal::new(at, message)), "{text}");
    }

    #[test]
    fn operators_bind_as_the_specification_says() {
        check("a || b && c || d", "(a || (b && c) || d)");
        check("a && b == c + d * e", "(a && (b Equal (c Add (d Multiply e))))");
        check("1 - 2 - 3", "((1 Subtract 2) Subtract 3)");
        check("1 < 2 == true", "((1 Less 2) Equal true)");
        check("a in [1, 2,] in b", "((a In [1, 2]) In b)");
        check("a ? b : c ? d : e", "(a ? b : (c ? d : e))");
        check("a || b ? c : d", "((a || b) ? c : d)");
        check("(a ? b : c) + 1", "((a ? b : c) Add 1)");
        check("!a.b && !!c", "(!a.b && !!c)");
        check("-a * -b.size()", "(-a Multiply -b.size())");
        check("a % b / c", "((a Remainder b) Divide c)");
    }

    #[test]
    fn values_have_fields_keys_and_calls() {
        check("a.b['c'].d(1, 2).e", "a.b[\"c\"].d(1, 2).e");
        check("f(g(), [])", "f(g(), [])");
        check("a.package.if()", "a.package.if()");
        check("index", "index");
    }

    #[test]
    fn a_minus_belongs_to_a_number() {
        check("-9223372036854775808", "-9223372036854775808");
        check("1 - 1", "(1 Subtract 1)");
        check("1 -1", "(1 Subtract 1)");
        check("--1", "--1");
        check("-1.5", "-1.5");
        check_refused("9223372036854775808", 0, "the number is too large for an int");
        check_refused("- -9223372036854775808", 3, "the number is too large for an int");
        check_refused("-1u", 1, "the number is too large for an int");
    }

    #[test]
    fn a_text_that_does_not_parse_is_refused_where_it_fails() {
        check_refused("", 0, "expected a value, but the condition ends here");
        check_refused("a ==", 4, "expected a value, but the condition ends here");
        check_refused("a b", 2, "expected an operator or the end, but found b");
        check_refused("(a", 2, "expected a ) of the ( before, but the condition ends here");
        check_refused("a ? b", 5, "expected a : of the ? before, but the condition ends here");
        check_refused("f(a,)", 4, "expected a value, but found )");
        check_refused("[a b]", 3, "expected a , or a ], but found b");
        check_refused("a.1", 1, "expected an operator or the end, but found .1");
        check_refused("a.in", 2, "expected a name after the dot, but found in");
        check_refused("a > 1 and b", 6, "and is not an operator of conditions; did you mean &&?");
        check_refused("a OR b", 2, "OR is not an operator of conditions; did you mean ||?");
        check_refused("not a", 0, "not is not an operator of conditions; did you mean !?");
        check_refused("in [1]", 0, "expected a value before in");
        check_refused("while", 0, "while is a reserved word of CEL");
        check_refused("{'a': 1}", 0, "maps are not supported in a condition");
        check_refused("a && .b", 5, "expected a value, but found .");
    }

    #[test]
    fn depth_is_bounded_and_long_chains_are_not_deep() {
        let long = vec!["a"; 1000].join(" && ");
        assert_eq!(parse(&long).unwrap().depth, 2);

        let deep = |levels: usize| format!("{}a{}", "(".repeat(levels), ")".repeat(levels));
        assert!(parse(&deep(DEPTH_MAX - 1)).is_ok());
        let message = "the condition is nested more than 64 levels deep";
        check_refused(&deep(DEPTH_MAX), DEPTH_MAX, message);
        let shapes = [
            ("(", 1_000),
            ("[", 1_000),
            ("!", 1_000),
            ("-", 1_000),
            ("a[", 1_000),
            ("f(", 1_000),
            ("a.", 1_000),
            ("1+", 1_000),
            ("a?b:", 1_000),
            ("1 in ", 800),
            ("a.f(", 1_000),
        ];
        for (part, times) in shapes {
            let refused = parse(&format!("{}a", part.repeat(times))).unwrap_err();
            assert_eq!(refused.message, message, "{part}");
        }
    }
}
