//! The basics of CEL's specification as a table: expressions that are true, and expressions without a value.

use foretell_rules::{Condition, Scope, Slot, Undefined, Value, Values};

struct NoValues;

impl Values for NoValues {
    fn value(&self, _: Slot) -> Value<'_> {
        Value::Null
    }
}

fn value(text: &str) -> Result<bool, Undefined> {
    let condition = Condition::compile(text, &Scope::new());
    condition.unwrap_or_else(|error| panic!("{text}: {error}")).holds(&NoValues)
}

fn check_true(texts: &[&str]) {
    for text in texts {
        assert_eq!(value(text), Ok(true), "{text}");
    }
}

fn check_undefined(undefined: Undefined, texts: &[&str]) {
    for text in texts {
        assert_eq!(value(text), Err(undefined), "{text}");
    }
}

#[test]
fn literals() {
    check_true(&[
        "0x7fffffffffffffff == 9223372036854775807",
        "-0x10 == -16 && 0xAu == 10u",
        "-9223372036854775808 < -9223372036854775807",
        "18446744073709551615u > 9223372036854775807",
        "1.5e3 == 1500.0 && .5 == 0.5 && 1e-3 == 0.001 && 2.0E+1 == 20.0",
        r#""\x41\101\u0041\U00000041" == 'AAAA'"#,
        r#"'\'' == "'" && "\"" == '"' && '\?\`' == '?`'"#,
        r"size(r'\n') == 2 && size('\n') == 1 && size('\a\b\f\r\t\v\\') == 7",
        "'''it's''' == \"it's\" && \"\"\"a\nb\"\"\" == 'a\\nb'",
        r#"r"""\""" == '\\'"#,
        "true && !false && null == null",
        "'\u{e9}' == '\\u00e9' && '\\377' == '\u{ff}'",
    ]);
}

#[test]
fn numbers_are_on_one_line() {
    check_true(&[
        "1 == 1.0 && 1u == 1 && 1.0 == 1u && !(1 == 1.5)",
        "1 < 1.1 && 1u < 1.1 && -1 < 0u && 1.9 < 2 && 2u > 1.9",
        "9223372036854775807 < 9223372036854775808.0",
        "9007199254740993 > 9007199254740992.0",
        "18446744073709551615u < 18446744073709551616.0",
        "-9223372036854775808 == -9223372036854775808.0",
        "1 in [2, 1.0] && !(1 in [1.5, 2u]) && 1u in [1]",
        "-0.0 == 0.0 && 0 == -0.0",
    ]);
}

#[test]
fn nan_is_equal_to_nothing() {
    check_true(&[
        "!(0.0 / 0.0 == 0.0 / 0.0) && 0.0 / 0.0 != 0.0 / 0.0",
        "!(0.0 / 0.0 < 1.0) && !(0.0 / 0.0 >= 1.0) && !(1 < 0.0 / 0.0) && !(1u > 0.0 / 0.0)",
        "!(0.0 / 0.0 in [0.0 / 0.0, 1.0]) && 1 != 0.0 / 0.0",
    ]);
}

#[test]
fn strings_and_bools_are_ordered() {
    check_true(&[
        "'a' < 'b' && 'a' < 'aa' && 'A' < 'a' && 'z' < '\u{e9}' && '' < 'a' && 'b' >= 'b'",
        "'\u{ffff}' < '\u{10000}'",
        "false < true && true >= true && !(true < true)",
    ]);
}

#[test]
fn arithmetic() {
    check_true(&[
        "7 / 2 == 3 && -7 / 2 == -3 && 7 / -2 == -3",
        "7 % 3 == 1 && -7 % 3 == -1 && 7 % -3 == 1 && 7u % 4u == 3u",
        "1 + 2 * 3 == 7 && (1 + 2) * 3 == 9 && 10 - 2 - 3 == 5 && 100 / 10 / 5 == 2",
        "-(1) == -1 && --1 == 1 && 1 - -1 == 2 && - 1 == -1",
        "1.0 / 0.0 > 1e308 && -1.0 / 0.0 < -1e308 && 0.1 + 0.2 > 0.3",
        "1e308 * 10.0 == 1.0 / 0.0",
        "'a' + 'b' + '' == 'ab'",
        "7u / 2u == 3u && 3u - 2u == 1u",
    ]);
    check_undefined(
        Undefined::Overflow,
        &[
            "9223372036854775807 + 1 > 0",
            "-9223372036854775808 - 1 < 0",
            "9223372036854775807 * 2 > 0",
            "-9223372036854775808 / -1 > 0",
            "-9223372036854775808 % -1 == 0",
            "-(-9223372036854775808) > 0",
            "0u - 1u > 0u",
            "18446744073709551615u + 1u > 0u",
            "18446744073709551615u * 2u > 0u",
        ],
    );
    let by_zero = ["1 / 0 == 1", "1 % 0 == 1", "1u / 0u == 1u", "1u % 0u == 1u", "0 / 0 == 0"];
    check_undefined(Undefined::DivisionByZero, &by_zero);
}

#[test]
fn logic_absorbs_errors_on_both_sides() {
    check_true(&[
        "true || 1 / 0 == 1",
        "1 / 0 == 1 || true",
        "!(false && 1 / 0 == 1)",
        "!(1 / 0 == 1 && false)",
        "false || 1 / 0 == 1 || true",
        "true ? true : 1 / 0 == 1",
        "false ? 1 / 0 == 1 : true",
        "[1, 0].exists(x, 1 / x == 1)",
        "[0, 1].exists(x, 1 / x == 1)",
        "![0, 2].all(x, 1 / x == 1)",
    ]);
    check_undefined(
        Undefined::DivisionByZero,
        &[
            "false || 1 / 0 == 1",
            "1 / 0 == 1 && true",
            "!(1 / 0 == 1)",
            "1 / 0 == 1 ? true : true",
            "1 in [1, 1 / 0]",
            "[0, 2].exists(x, 1 / x == 1)",
            "[1, 0].exists_one(x, 1 / x == 1)",
            "[0, 1].all(x, 1 / x == 1)",
        ],
    );
}

#[test]
fn macros() {
    check_true(&[
        "[1, 2, 3].all(x, x > 0) && ![1, 2, 3].all(x, x > 1)",
        "[1, 2, 3].exists(x, x == 2) && ![1, 2, 3].exists(x, x == 4)",
        "[1, 2, 3].exists_one(x, x > 2) && ![1, 2, 3].exists_one(x, x > 1)",
        "![1].existsOne(x, x > 1)",
        "[1, 2].all(x, [3, 4].exists(y, y > x)) && [1].all(x, [x].all(x, x == 1))",
        "['a', 'b'].all(x, x.size() == 1)",
    ]);
}

#[test]
fn conversions() {
    check_true(&[
        "int(1.9) == 1 && int(-1.9) == -1 && int(7u) == 7 && int('-12') == -12 && int(3) == 3",
        "uint(1.9) == 1u && uint(7) == 7u && uint('12') == 12u && uint(3u) == 3u",
        "double(2) == 2.0 && double(2u) == 2.0 && double('-1.5e2') == -150.0 && double(.5) == .5",
        "double(9223372036854775807) == 9223372036854775808.0",
        "string(-12) == '-12' && string(12u) == '12' && string(0.5) == '0.5' && string(1.0) == '1'",
        "string(true) == 'true' && string('a') == 'a' && string(-4.5e-3) == '-0.0045'",
    ]);
    check_undefined(
        Undefined::NotConvertible,
        &[
            "int('1.5') == 1",
            "int('') == 1",
            "int(1e99) == 1",
            "int(9223372036854775808.0) == 1",
            "int(-9223372036854775808.0) == 1",
            "int(0.0 / 0.0) == 1",
            "int(18446744073709551615u) == 1",
            "uint(-1) == 1u",
            "uint(1e99) == 1u",
            "uint('-1') == 1u",
            "double('one') == 1.0",
        ],
    );
}

#[test]
fn strings() {
    check_true(&[
        "'foobar'.startsWith('foo') && 'foobar'.endsWith('bar') && 'foobar'.contains('oba')",
        "'a'.startsWith('') && ''.endsWith('') && !''.contains('a') && ''.contains('')",
        "size('') == 0 && size('\u{e9}\u{1f600}') == 2 && '\\u0041'.size() == 1",
        "'hubba'.matches('ubb') && !'hubba'.matches('^ubb') && matches('abc', 'a.c')",
        "'\u{e9}'.matches('^.$') && 'a\\nb'.matches('a\\\\sb') && !'ab'.matches('B')",
    ]);
}

/// The repetitions that the specification asks of every implementation.
#[test]
fn long_expressions_are_accepted() {
    let repeated = |part: &str, times: usize| part.repeat(times);
    let texts = [
        format!("{}true", repeated("true && ", 32)),
        format!("{}true", repeated("false || ", 32)),
        format!("0 in [{}1] || true", repeated("1, ", 31)),
        format!("{}true", repeated("false ? false : ", 24)),
        format!("{}1 == 25", repeated("1 + ", 24)),
        format!("{}1 == 1", repeated("1 * ", 24)),
        format!("{}true", repeated("true == ", 24)),
        format!("{}1{} == 1", repeated("int(double(", 12), repeated("))", 12)),
        format!("{}true{}", repeated("(", 24), repeated(")", 24)),
        format!("{}true", repeated("!!", 12)),
    ];
    for text in &texts {
        check_true(&[text]);
    }
}
