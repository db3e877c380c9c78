//! Conditions compared with the interpreter of the crate cel, and hostile texts.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use std::{collections::HashMap, sync::Arc};

use cel::{Context, Program};
use foretell_rules::{Condition, Scope, Slot, Type, Value, Values};
use proptest::prelude::*;

const TEXTS: [&str; 7] = ["", "a", "b", "ab", "é", "12", "-3.5"];
const INTS: [i64; 8] = [0, 1, 2, -1, 25, 7, i64::MAX, i64::MIN];
const DOUBLES: [f64; 7] = [0.0, 1.0, 2.0, -1.0, 0.5, 25.0, -7.25];
const LABELS: [&str; 2] = ["a", "b"];

/// The variables: `label`, `probability` with the keys `a` and `b`, and `answers` with two fields of each type.
struct Variables {
    names: Vec<(&'static str, &'static str)>,
    values: Vec<Value<'static>>,
}

impl Values for Variables {
    fn value(&self, slot: Slot) -> Value<'_> {
        self.values[slot.index()]
    }
}

impl Variables {
    fn new(choices: &mut Choices<'_>) -> (Self, Scope) {
        let mut scope = Scope::new();
        let (mut names, mut values) = (Vec::new(), Vec::new());
        let mut declare = |slot: Slot, group, name, value| {
            assert_eq!(slot.index(), values.len());
            names.push((group, name));
            values.push(value);
        };
        let label = scope.plain("label", Type::Text);
        declare(label, "", "label", Value::Text(LABELS[choices.below(2)]));
        for key in LABELS {
            let value = Value::Double(DOUBLES[choices.below(DOUBLES.len())]);
            declare(scope.entry("probability", key, Type::Double), "probability", key, value);
        }
        for (name, kind) in FIELDS {
            let value = match (choices.below(4), kind) {
                (0, _) => Value::Null,
                (_, Type::Bool) => Value::Bool(choices.below(2) == 1),
                (_, Type::Int) => Value::Int(INTS[choices.below(INTS.len())]),
                (_, Type::Double) => Value::Double(DOUBLES[choices.below(DOUBLES.len())]),
                (_, Type::Text) => Value::Text(TEXTS[choices.below(TEXTS.len())]),
            };
            declare(scope.field("answers", name, kind, true), "answers", name, value);
        }
        (Self { names, values }, scope)
    }

    /// The same values for the interpreter.
    fn context(&self) -> Context<'static, 'static> {
        let mut groups: HashMap<&str, HashMap<String, cel::Value>> = HashMap::new();
        for ((group, name), value) in self.names.iter().zip(&self.values) {
            let value = match *value {
                Value::Null => cel::Value::Null,
                Value::Bool(value) => cel::Value::Bool(value),
                Value::Int(value) => cel::Value::Int(value),
                Value::Double(value) => cel::Value::Float(value),
                Value::Text(value) => cel::Value::String(Arc::new(value.to_owned())),
            };
            groups.entry(group).or_default().insert((*name).to_owned(), value);
        }
        let mut context = Context::default();
        let label = groups.remove("").unwrap().remove("label").unwrap();
        context.add_variable_from_value("label", label);
        for group in ["answers", "probability"] {
            context.add_variable_from_value(group, groups.remove(group).unwrap());
        }
        context
    }
}

const FIELDS: [(&str, Type); 8] = [
    ("flag", Type::Bool),
    ("other_flag", Type::Bool),
    ("int", Type::Int),
    ("other_int", Type::Int),
    ("double", Type::Double),
    ("other_double", Type::Double),
    ("text", Type::Text),
    ("other_text", Type::Text),
];

/// Writes expressions of a type, as the bytes choose. With no bytes left it chooses the first alternative.
struct Choices<'b> {
    bytes: &'b [u8],
}

impl Choices<'_> {
    fn below(&mut self, bound: usize) -> usize {
        match self.bytes.split_first() {
            Some((first, rest)) => {
                self.bytes = rest;
                usize::from(*first) % bound
            }
            None => 0,
        }
    }

    fn one_of<'p>(&mut self, parts: &[&'p str]) -> &'p str {
        parts[self.below(parts.len())]
    }

    fn field(&mut self, kind: Type) -> String {
        let fields: Vec<_> = FIELDS.iter().filter(|(_, other)| *other == kind).collect();
        format!("answers.{}", fields[self.below(fields.len())].0)
    }

    fn bool(&mut self, depth: usize) -> String {
        let Some(depth) = depth.checked_sub(1) else {
            return match self.below(3) {
                0 => "true".to_owned(),
                1 => "false".to_owned(),
                _ => self.field(Type::Bool),
            };
        };
        match self.below(18) {
            0 => self.field(Type::Bool),
            1 | 2 => format!("({} && {})", self.bool(depth), self.bool(depth)),
            3 | 4 => format!("({} || {})", self.bool(depth), self.bool(depth)),
            // The interpreter leaves out two adjacent ones, with their error for null.
            5 => format!("!({})", self.bool(depth)),
            6 => {
                let parts = [self.bool(depth), self.bool(depth), self.bool(depth)];
                format!("({} ? {} : {})", parts[0], parts[1], parts[2])
            }
            7..=9 => {
                let operator = self.one_of(&["==", "!=", "<", "<=", ">", ">="]);
                format!("({} {operator} {})", self.number(depth), self.number(depth))
            }
            10 => {
                let operator = self.one_of(&["==", "!=", "<", ">="]);
                format!("({} {operator} {})", self.text(depth), self.text(depth))
            }
            11 => {
                let operator = self.one_of(&["==", "!=", "<"]);
                format!("({} {operator} {})", self.bool(depth), self.bool(depth))
            }
            12 => {
                let kind = [Type::Bool, Type::Int, Type::Double, Type::Text][self.below(4)];
                let operator = self.one_of(&["==", "!="]);
                format!("({} {operator} null)", self.field(kind))
            }
            13 => {
                let elements = [self.number(depth), self.number(depth)];
                format!("({} in [{}, {}])", self.number(depth), elements[0], elements[1])
            }
            14 => format!("({} in [{}, 'a', 'ab'])", self.text(depth), self.text(depth)),
            15 => format!("({} in probability)", self.text(depth)),
            16 => self.text_test(depth),
            _ => self.quantified(depth),
        }
    }

    fn text_test(&mut self, depth: usize) -> String {
        let function = self.one_of(&["startsWith", "endsWith", "contains", "matches"]);
        if function == "matches" {
            let pattern = self.one_of(&["'^a'", "'b$'", "r'\\d+'", "'.'", "''"]);
            return format!("{}.matches({pattern})", self.text(depth));
        }
        format!("{}.{function}({})", self.text(depth), self.text(depth))
    }

    fn quantified(&mut self, depth: usize) -> String {
        let name = self.one_of(&["all", "exists", "exists_one"]);
        match self.below(3) {
            0 => {
                let fields = [self.field(Type::Int), self.field(Type::Double)];
                format!("[{}, 2, {}].{name}(x, x > {})", fields[0], fields[1], self.number(depth))
            }
            1 => format!("probability.{name}(key, probability[key] < {})", self.number(depth)),
            _ => format!("['a', ''].{name}(x, x == {} || {})", self.text(depth), self.bool(depth)),
        }
    }

    fn number(&mut self, depth: usize) -> String {
        if self.below(2) == 0 { self.int(depth) } else { self.double(depth) }
    }

    fn int(&mut self, depth: usize) -> String {
        let Some(depth) = depth.checked_sub(1) else {
            return match self.below(2) {
                0 => INTS[self.below(INTS.len())].to_string(),
                _ => self.field(Type::Int),
            };
        };
        match self.below(9) {
            0 => INTS[self.below(INTS.len())].to_string(),
            1 | 2 => self.field(Type::Int),
            3..=5 => {
                let operator = self.one_of(&["+", "-", "*", "/", "%"]);
                format!("({} {operator} {})", self.int(depth), self.int(depth))
            }
            6 => format!("-({})", self.int(depth)),
            7 => format!("size({})", self.text(depth)),
            _ => match self.below(2) {
                0 => format!("int({})", self.double(depth)),
                _ => format!("int({})", self.text(depth)),
            },
        }
    }

    /// Doubles stay finite and far from the largest ints, where the interpreter compares imprecisely.
    fn double(&mut self, depth: usize) -> String {
        let Some(depth) = depth.checked_sub(1) else {
            return match self.below(2) {
                0 => format!("{:?}", DOUBLES[self.below(DOUBLES.len())]),
                _ => self.field(Type::Double),
            };
        };
        match self.below(8) {
            0 => format!("{:?}", DOUBLES[self.below(DOUBLES.len())]),
            1 => self.field(Type::Double),
            2 => match self.below(3) {
                0 => "probability[label]".to_owned(),
                1 => format!("probability[{}]", self.field(Type::Text)),
                // A literal that is not a key is refused.
                _ => format!("probability[{} + '']", self.text(depth)),
            },
            3 | 4 => {
                let operator = self.one_of(&["+", "-", "*"]);
                format!("({} {operator} {})", self.double(depth), self.double(depth))
            }
            5 => format!("({} / 4.0)", self.double(depth)),
            6 => format!("-({})", self.double(depth)),
            _ => format!("double({})", self.text(0)),
        }
    }

    fn text(&mut self, depth: usize) -> String {
        let Some(depth) = depth.checked_sub(1) else {
            return match self.below(3) {
                0 => format!("{:?}", TEXTS[self.below(TEXTS.len())]),
                1 => "label".to_owned(),
                _ => self.field(Type::Text),
            };
        };
        match self.below(8) {
            0 => format!("{:?}", TEXTS[self.below(TEXTS.len())]),
            1 => "label".to_owned(),
            2 | 3 => self.field(Type::Text),
            4 => format!("({} + {})", self.text(depth), self.text(depth)),
            5 => format!("string({})", self.int(depth)),
            6 => format!("string({})", self.bool(depth)),
            _ => format!("({} ? {} : 'b')", self.bool(depth), self.text(depth)),
        }
    }
}

/// The value by the interpreter of cel; an error is none.
fn interpreted(text: &str, variables: &Variables) -> Option<bool> {
    let program = Program::compile(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    match program.execute(&variables.context()) {
        Ok(cel::Value::Bool(value)) => Some(value),
        Ok(cel::Value::Null) | Err(_) => None,
        Ok(other) => panic!("{text}: {other:?}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn conditions_have_the_values_of_the_interpreter(
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let mut choices = Choices { bytes: &bytes };
        let (variables, scope) = Variables::new(&mut choices);
        let text = choices.bool(4);
        let condition = Condition::compile(&text, &scope);
        let condition = condition.map_err(|error| TestCaseError::fail(format!("{text}: {error}")))?;
        prop_assert_eq!(condition.text(), &text);
        let expected = interpreted(&text, &variables);
        prop_assert_eq!(condition.holds(&variables).ok(), expected, "{}", text);
    }
}

/// Parts of texts that are almost conditions.
const PIECES: [&str; 64] = [
    "label",
    "answers",
    ".",
    "int",
    "double",
    "text",
    "flag",
    "probability",
    "[",
    "]",
    "(",
    ")",
    "{",
    "}",
    ",",
    "&&",
    "||",
    "!",
    "==",
    "!=",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "?",
    ":",
    "in",
    "true",
    "false",
    "null",
    "1",
    "2.5",
    "0x1f",
    "3u",
    "'a'",
    "\"b\"",
    "r'\\d'",
    "'",
    "\"",
    "\\",
    "has",
    "size",
    "matches",
    "startsWith",
    "all",
    "exists",
    "x",
    "\n",
    " ",
    " ",
    "//",
    "é",
    "\u{1f600}",
    "answers.int",
    "answers.text",
    "= ",
    "&",
    "9223372036854775808",
    "\r\n",
];

/// Whether a refusal points into the text, at most one behind the end of a line.
fn is_inside(text: &str, line: usize, column: usize) -> bool {
    let line = text.split('\n').nth(line - 1);
    line.is_some_and(|line| (1..=line.chars().count() + 1).contains(&column))
}

fn check_hostile(text: &str) -> Result<bool, TestCaseError> {
    let (variables, scope) = Variables::new(&mut Choices { bytes: &[1; 20] });
    match Condition::compile(text, &scope) {
        Ok(condition) => {
            // The result does not matter: that there is one does.
            let _result = condition.holds(&variables);
            Ok(true)
        }
        Err(error) => {
            let (line, column) = (error.line, error.column);
            prop_assert!(is_inside(text, line, column), "{:?}: {}", text, error);
            prop_assert!(!error.message.is_empty());
            Ok(false)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_texts_are_refused_with_a_position_inside(text in any::<String>()) {
        check_hostile(&text)?;
    }

    #[test]
    fn no_text_is_accepted_that_cel_refuses(
        pieces in proptest::collection::vec(0..PIECES.len(), 0..12),
    ) {
        let text: String = pieces.into_iter().map(|piece| PIECES[piece]).collect();
        if check_hostile(&text)? {
            prop_assert!(Program::compile(&text).is_ok(), "{:?}", text);
        }
    }

    /// A condition with a few characters changed, which gets past the first checks more often.
    #[test]
    fn damaged_conditions_are_refused_with_a_position_inside(
        bytes in proptest::collection::vec(any::<u8>(), 0..60),
        changes in proptest::collection::vec((any::<usize>(), 0..PIECES.len(), 0..3_usize), 1..4),
    ) {
        let mut text = Choices { bytes: &bytes }.bool(3);
        for (at, piece, removed) in changes {
            let characters: Vec<char> = text.chars().collect();
            let at = at % (characters.len() + 1);
            let end = (at + removed).min(characters.len());
            let before = characters[..at].iter().copied();
            let after = characters[end..].iter().copied();
            text = before.chain(PIECES[piece].chars()).chain(after).collect();
        }
        if check_hostile(&text)? {
            prop_assert!(Program::compile(&text).is_ok(), "{:?}", text);
        }
    }
}
