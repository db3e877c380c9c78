//! Conditions over the worked example's variables: values, missing answers, and what is refused.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

use foretell_rules::{Condition, LENGTH_MAX, Scope, Slot, Type, Undefined, Value, Values};

/// The variables of the tests, with a value for each.
struct Example {
    scope: Scope,
    values: Vec<Value<'static>>,
}

impl Values for Example {
    fn value(&self, slot: Slot) -> Value<'_> {
        self.values[slot.index()]
    }
}

impl Example {
    fn new() -> Self {
        let mut scope = Scope::new();
        let mut values = Vec::new();
        let label = scope.plain("label", Type::Text);
        scope.one_of(label, ["<=50K".to_owned(), ">50K".to_owned()]);
        values.push(Value::Text(">50K"));
        for (key, probability) in [("<=50K", 0.15), (">50K", 0.85)] {
            scope.entry("probability", key, Type::Double);
            values.push(Value::Double(probability));
        }
        scope.describe("probability", "a class");
        let fields = [
            ("age", Type::Double, Value::Double(31.0)),
            ("children", Type::Int, Value::Int(2)),
            ("member", Type::Bool, Value::Bool(true)),
            ("country", Type::Text, Value::Text("Österreich")),
            ("income", Type::Double, Value::Null),
            ("visits", Type::Int, Value::Null),
            ("subscribed", Type::Bool, Value::Null),
            ("city", Type::Text, Value::Null),
        ];
        for (name, kind, value) in fields {
            scope.field("answers", name, kind, true);
            values.push(value);
        }
        scope.describe("answers", "a question of the event schema");
        Self { scope, values }
    }

    fn holds(&self, text: &str) -> Result<bool, Undefined> {
        let condition = Condition::compile(text, &self.scope);
        condition.unwrap_or_else(|error| panic!("{text}: {error}")).holds(self)
    }
}

fn check(text: &str, expected: Result<bool, Undefined>) {
    assert_eq!(Example::new().holds(text), expected, "{text}");
}

fn check_holds(texts: &[&str]) {
    for text in texts {
        check(text, Ok(true));
    }
}

fn check_refused(text: &str, column: usize, message: &str) {
    let refused = Condition::compile(text, &Example::new().scope).unwrap_err();
    assert_eq!((refused.message.as_str(), refused.line, refused.column), (message, 1, column));
}

#[test]
fn the_condition_of_the_documentation_holds() {
    check_holds(&[r#"label == ">50K" && probability[">50K"] >= 0.8 && answers.age >= 25"#]);
}

#[test]
fn numbers_are_compared_across_types() {
    check_holds(&[
        "answers.age >= 25 && answers.age > 30.5 && answers.age == 31 && 31u == answers.age",
        "answers.children > 1.5 && answers.children == 2.0 && answers.children < 3u",
        "answers.children in [1.0, 2.0]",
        "answers.children != 2.5",
    ]);
}

#[test]
fn a_missing_answer_makes_an_ordering_undefined() {
    let undefined = Err(Undefined::NoSuchOverload);
    for text in [
        "answers.income >= 25",
        "25 < answers.visits",
        "answers.visits + 1 > 0",
        "-answers.income < 0.0",
        "answers.city.startsWith('a')",
        "answers.city.matches('a')",
        "size(answers.city) > 0",
        "int(answers.income) == 1",
        "string(answers.subscribed) == 'true'",
        "answers.subscribed",
        "!answers.subscribed",
        "answers.subscribed ? true : true",
        "answers.subscribed && true",
        "[answers.income].exists(x, x > 1.0)",
        "[1.0].exists_one(x, answers.income > x)",
    ] {
        check(text, undefined);
    }
}

#[test]
fn a_missing_answer_is_equal_to_null_only() {
    check_holds(&[
        "answers.income == null && answers.age != null",
        "!has(answers.income) && has(answers.age)",
        "answers.income != 25.0 && !(answers.income == 25)",
        "answers.city != 'Wien' && !(answers.city in ['Wien', 'Graz'])",
        "answers.income in [1.0, null]",
        "has(answers.income) ? answers.income > 1.0 : answers.age > 30.0",
        "answers.income == answers.visits",
    ]);
}

#[test]
fn and_and_or_absorb_what_is_undefined() {
    check_holds(&[
        "answers.income > 1.0 || label == '>50K'",
        "label == '>50K' || answers.income > 1.0",
        "!(answers.income > 1.0 && label == '<=50K')",
        "!(label == '<=50K' && answers.income > 1.0)",
        "[answers.income, answers.age].exists(x, x > 1.0)",
        "![answers.income, answers.age].all(x, x > 50.0)",
    ]);
    check("answers.income > 1.0 || label == '<=50K'", Err(Undefined::NoSuchOverload));
    check("1 / (answers.children - 2) > 0 && answers.income > 1.0", Err(Undefined::DivisionByZero));
}

#[test]
fn maps_have_entries_keys_and_a_size() {
    check_holds(&[
        "probability[label] == 0.85",
        "label in probability && !(answers.country in probability)",
        "size(probability) == 2",
        "probability.exists_one(class, probability[class] > 0.5)",
        "probability.all(class, class.endsWith('50K'))",
        "probability['<=' + '50K'] < 0.2",
    ]);
    check("probability[answers.country] > 0.0", Err(Undefined::NoSuchKey));
    check("probability[answers.city] > 0.0", Err(Undefined::NoSuchOverload));
    check("answers.city in probability", Err(Undefined::NoSuchOverload));
}

#[test]
fn functions_of_strings_work_on_code_points() {
    check_holds(&[
        "answers.country.startsWith('Öst') && answers.country.endsWith('reich')",
        "answers.country.contains('erre') && !answers.country.contains('ERRE')",
        "size(answers.country) == 10 && answers.country.size() == 10",
        r"answers.country.matches('^\\w{10}$') && matches(answers.country, r'r{2}')",
        "answers.country.matches('') && !answers.country.matches('^reich')",
        "answers.country + '!' == 'Österreich!' && 'a' < 'b' && 'Z' < 'a' && 'z' < 'ä'",
    ]);
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    check_refused(
        "answers.agee >= 25",
        9,
        "answers.agee is not a question of the event schema; did you mean answers.age?",
    );
    check_refused("age >= 25", 1, "there is no age; did you mean answers.age?");
    check_refused("labl == '>50K'", 1, "there is no labl; did you mean label?");
    check_refused("answer.age > 1", 1, "there is no answer; did you mean answers?");
    check_refused("answers.member == True", 19, "there is no True; did you mean true?");
    check_refused(
        "probability[\">50k\"] > 0.5",
        13,
        "probability[\">50k\"] is not a class; did you mean probability[\">50K\"]?",
    );
    check_refused(
        "probability['rich'] > 0.5",
        13,
        "probability[\"rich\"] is not a class; there are probability[\"<=50K\"], probability[\">50K\"]",
    );
    check_refused("label == '>50k'", 10, "label is never \">50k\"; did you mean \">50K\"?");
    check_refused(
        "label in ['>50K', 'x']",
        19,
        "label is never \"x\"; it can be \"<=50K\", \">50K\"",
    );
    check_refused("salary > 1", 1, "there is no salary; there are label, answers, probability");
    check_refused(
        "has(answers.agee)",
        13,
        "answers.agee is not a question of the event schema; did you mean answers.age?",
    );
    check_refused(
        "label.startswith('a')",
        7,
        "there is no function startswith; did you mean x.startsWith(\"a\")?",
    );
    check_refused("foo(1)", 1, "there is no function foo");
    check_refused("timestamp('x') > 1", 1, "timestamp() is not supported in a condition");
    check_refused("[1].map(x, x) == 1", 5, "map() is not supported in a condition");
    check_refused("startsWith(label, 'a')", 1, "startsWith is called as in x.startsWith(\"a\")");
}

#[test]
fn wrong_types_are_refused() {
    check_refused(
        "answers.age == '25'",
        13,
        "answers.age is a double and '25' is a string: they cannot be compared",
    );
    check_refused(
        "label == 1",
        7,
        "label is a string and 1 is an int: they cannot be compared; write \"1\"",
    );
    check_refused(
        "answers.member > 1",
        16,
        "answers.member is a bool and 1 is an int: they cannot be compared",
    );
    check_refused(
        "probability[1] > 0.5",
        13,
        "the keys of probability are strings, but 1 is an int; write probability[\"1\"]",
    );
    check_refused("answers.age + 1 > 30", 13, "+ needs two numbers of the same type, but answers.age is a double and 1 is an int; write 1.0".replace("same type,", "same type or two strings,").as_str());
    check_refused(
        "answers.age * answers.children > 3",
        13,
        "* needs two numbers of the same type, but answers.age is a double and answers.children is an int; convert the int with double()",
    );
    check_refused(
        "answers.age % 2 == 1",
        13,
        "% needs two ints, but answers.age is a double and 2 is an int",
    );
    check_refused(
        "answers.age",
        9,
        "the condition is a double; it must be a bool, such as a comparison",
    );
    check_refused("answers.age && true", 9, "&& needs a bool, but answers.age is a double");
    check_refused("!label", 2, "! needs a bool, but label is a string");
    check_refused("-label == 'a'", 1, "- needs an int or a double, but label is a string");
    check_refused("label ? 1 : 2", 1, "? needs a bool, but label is a string");
    check_refused(
        "(true ? 1 : 'a') == 1",
        7,
        "both results of ? must have the same type, but 1 is an int and 'a' a string",
    );
    check_refused("label == null", 7, "label is never null");
    check_refused("answers.age > null", 13, "null has no order; compare with == or !=");
}

#[test]
fn what_is_not_a_value_is_refused() {
    check_refused(
        "answers == 1",
        1,
        "answers is not a value; write one of its members, such as answers.age",
    );
    check_refused(
        "answers['age'] > 1",
        8,
        "the fields of answers are written with a dot, as in answers.x",
    );
    check_refused("label.age > 1", 7, "label has no fields and no keys");
    check_refused("size(answers.age) > 1", 14, "size needs a string, but answers.age is a double");
    check_refused(
        "label.matches(label)",
        15,
        "the pattern of matches must be a literal, as it is compiled at the start",
    );
    check_refused("label.matches('(')", 15, "'(' is not a pattern: unclosed group");
    check_refused(
        "[1, 2] == 1",
        1,
        "a list can stand only after in, in size(), and before all(), exists() and exists_one()",
    );
    check_refused("label in 'abc'", 7, "in needs a list or a map, as in label in [\"a\", \"b\"]");
    check_refused("answers.age in probability", 9, "the keys of probability are strings");
    check_refused("has(label)", 5, "has() asks for a field, as in has(answers.x)");
    check_refused("double(true) > 1.0", 8, "double() cannot convert a bool");
    check_refused("[1 / 0].all(x, x > 0)", 4, "an element before all is a literal or a variable");
    check_refused("[].all(x, x > 0)", 1, "the list before all is empty");
    check_refused(
        "label.all(x, x > 0)",
        1,
        "all needs a list or a map, as in [1, 2].all(x, x > 0)",
    );
}

#[test]
fn positions_count_lines_and_characters() {
    let refused = Condition::compile(
        "label == '>50K' &&\r\n  answers.country == 'Ö' && answers.agee > 1",
        &Example::new().scope,
    );
    let refused = refused.unwrap_err();
    assert_eq!((refused.line, refused.column), (2, 37));
    assert!(refused.to_string().ends_with("did you mean answers.age?, at line 2, column 37"));
}

#[test]
fn the_size_of_a_condition_is_bounded() {
    let long = format!("label == '{}'", "a".repeat(LENGTH_MAX));
    check_refused(&long, 1, "the condition has 4107 bytes: 4096 at most are allowed");
    let list = format!("[{}]", vec!["1"; 30].join(","));
    let nested = format!("{list}.all(a, {list}.all(b, {list}.all(c, a + b + c > 0)))");
    let refused = Condition::compile(&nested, &Example::new().scope).unwrap_err();
    let message = "the condition has more than 10000 expressions with its macros written out";
    assert_eq!(refused.message, message);
    let pattern = r"label.matches('(\\w{1000}){1000}')";
    let refused = Condition::compile(pattern, &Example::new().scope).unwrap_err();
    assert!(refused.message.contains("size limit"), "{refused}");
}
