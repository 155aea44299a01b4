use proptest::prelude::{any, *};

use super::*;
use crate::filter::ast::DateMacro;

fn value(text: &str) -> Value {
    match parse(&format!("a = {text}")).expect(text) {
        Expr::Compare(comparison) => comparison.right.value,
        other => panic!("{text}: {other:?}"),
    }
}

#[test]
fn and_binds_more_tightly_than_or_and_words_say_the_same() {
    let wanted = parse("(a = 1 && b = 2) || c = 3").unwrap();
    for text in [
        "a=1&&b=2||c=3",
        "a = 1 AND b = 2 OR c = 3",
        "a = 1 and b = 2 or\n c = 3",
        " a = 1 // first\n && b = 2 // second\n || ((c = 3)) ",
    ] {
        assert_eq!(parse(text).unwrap(), wanted, "{text}");
    }
    assert_ne!(parse("a = 1 && (b = 2 || c = 3)").unwrap(), wanted);
    assert!(matches!(parse("or = 1 || orange = and").unwrap(), Expr::Or(items) if items.len() == 2));
}

#[test]
fn every_operator_is_read_with_and_without_the_question_mark() {
    for (sign, operator) in OPERATORS {
        for (mark, wanted) in [("", false), ("?", true)] {
            for text in [format!("a {mark}{sign} b"), format!("a{mark}{sign}b")] {
                let parsed = parse(&text).unwrap();
                let Expr::Compare(Comparison { operator: found, any, .. }) = parsed else { panic!("{text}") };
                assert_eq!((found, any), (operator, wanted), "{text}");
            }
        }
    }
}

#[test]
fn values_are_read_as_what_they_are() {
    for (text, wanted) in [
        ("'x'", Value::Text("x".into())),
        ("\"it's\"", Value::Text("it's".into())),
        (r"'it\'s'", Value::Text("it's".into())),
        // In either quote, as PocketBase does; what is no escape is itself.
        (r#"'\"\\\n\r\t\d\u00e9'"#, Value::Text("\"\\\n\r\t\\d\\u00e9".into())),
        (r#""C:\\it's\'x""#, Value::Text(r"C:\it's'x".into())),
        (r"'C:\\'", Value::Text(r"C:\".into())),
        ("''", Value::Text(String::new())),
        (r"`C:\`", Value::Text("C:\\".into())),
        (r"`it's ``so``\`", Value::Text(r"it's `so`\".into())),
        ("``", Value::Text(String::new())),
        ("'// no comment'", Value::Text("// no comment".into())),
        ("12", Value::Integer(12)),
        ("-12", Value::Integer(-12)),
        ("9223372036854775807", Value::Integer(i64::MAX)),
        ("9223372036854775808", Value::Real(9_223_372_036_854_775_808.0)),
        ("-0.5", Value::Real(-0.5)),
        ("1e3", Value::Real(1000.0)),
        ("true", Value::Bool(true)),
        ("FALSE", Value::Bool(false)),
        ("Null", Value::Null),
        ("@now", Value::Macro(DateMacro::Now)),
        ("@todayEnd", Value::Macro(DateMacro::TodayEnd)),
    ] {
        assert_eq!(value(text), wanted, "{text}");
    }
}

#[test]
fn no_values_of_a_client_that_escapes_quotes_can_end_their_texts_and_say_more() {
    let filter = |values: [&str; 2]| {
        let [one, two] = values.map(|value| value.replace('\'', "\\'"));
        format!("a = '{one}' && b = '{two}'")
    };
    for second in
        [" || 1=1 //", " || 1=1 //\n", " || 'x' != '", " || 1=1 || `", " || 1=1 || \"", " || a = \\", "||1=1||a=`` //"]
    {
        for first in ["\\", "x\\", "\\'\\"] {
            let text = filter([first, second]);
            assert!(parse_sent(&text, FilterLimits::RULES).is_err(), "{text}");
        }
    }
    assert!(parse_sent("a = 1 // what the author's own are", FilterLimits::RULES).is_err());
    assert!(parse("a = 1 // what the author's own are").is_ok());
    assert!(parse_sent("a = 'http://x' // no quotes", FilterLimits::RULES).is_ok());
}

#[test]
fn paths_have_a_root_names_and_a_modifier() {
    let collection = |alias: Option<&str>| Root::Collection { name: "news".into(), alias: alias.map(str::to_owned) };
    for (text, root, segments, modifier) in [
        ("title", Root::Record, "title", None),
        ("author.team.name", Root::Record, "author.team.name", None),
        ("data.0.größe", Root::Record, "data.0.größe", None),
        ("comments_via_post.text", Root::Record, "comments_via_post.text", None),
        ("tags:each", Root::Record, "tags:each", Some(Modifier::Each)),
        ("@request.auth.id", Root::Request, "auth.id", None),
        ("@request.body.role:isset", Root::Request, "body.role", Some(Modifier::IsSet)),
        ("@collection.news.title", collection(None), "title", None),
        ("@collection.news:n2.author.name:lower", collection(Some("n2")), "author.name", Some(Modifier::Lower)),
    ] {
        let segments = segments.split(':').next().unwrap_or_default().split('.').map(str::to_owned).collect();
        assert_eq!(value(text), Value::Path(Path { root, segments, modifier }), "{text}");
    }
}

#[test]
fn an_error_says_the_column_and_what_was_expected() {
    for (text, column, part) in [
        ("", 1, "a field, a value"),
        ("a", 2, "an operator"),
        ("a =", 4, "a field or a value"),
        ("a == 1", 4, "a field or a value"),
        ("a = 1 b = 2", 7, "&& or ||"),
        ("a = 1 &&", 9, "a field, a value"),
        ("(a = 1", 7, "closing parenthesis"),
        ("a = 1)", 6, "the end of the filter"),
        ("größe = 'x", 9, "no closing '"),
        ("a = @never", 5, "there is no @never"),
        ("a:loud = 1", 3, "no modifier :loud"),
        ("a = @request", 13, ".auth"),
        ("a = 12x", 7, "a number"),
        ("a = 1e999", 5, "no number"),
        ("a = 1; DROP TABLE x", 6, "the end of the filter"),
        ("a & b", 3, "an operator"),
    ] {
        let error = parse(text).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn length_depth_and_count_are_bounded() {
    let FilterLimits { bytes, depth, comparisons, .. } = FilterLimits::RULES;
    let nested = |depth: usize| format!("{}a = 1{}", "(".repeat(depth), ")".repeat(depth));
    assert!(parse(&nested(depth)).is_ok());
    assert!(parse(&nested(depth + 1)).unwrap_err().message.contains("inside each other"));
    // The most that MAX_FILTER_DEPTH may be, on a thread of a test's size.
    let of_depth = |depth| FilterLimits { depth, ..FilterLimits::RULES };
    assert!(parse_sent(&nested(64), of_depth(64)).is_ok());
    assert!(parse_sent(&nested(2), of_depth(1)).unwrap_err().message.contains("at most 1 parentheses"));
    assert!(parse(&"(".repeat(bytes)).is_err());
    let many = |count: usize| vec!["a=1"; count].join("&&");
    assert!(parse(&many(comparisons)).is_ok());
    assert!(parse(&many(comparisons + 1)).unwrap_err().message.contains("comparisons"));
    assert!(parse(&format!("a = '{}'", "x".repeat(bytes))).unwrap_err().message.contains("bytes"));
    assert!(parse(&format!("{} = 1", vec!["a"; MAX_PATH_SEGMENTS + 1].join("."))).is_err());
}

#[test]
fn what_is_beyond_a_limit_of_a_request_is_pointed_at_and_no_rule_is_bound_by_it() {
    let limits = FilterLimits { bytes: 40, depth: 1, comparisons: 2, ..FilterLimits::RULES };
    for (text, column, part) in [
        ("a = 1 && (b = 2 || c = 3)", 20, "at most 2 comparisons, and this one has 3"),
        ("(a = 1 && (b = 2))", 11, "at most 1 parentheses"),
        ("größe = 'äääääääääääääääääääääääääääää'", 24, "at most 40 bytes"),
    ] {
        let error = parse_sent(text, limits).expect_err(text);
        assert!(error.message.contains(part), "{text}: {error}");
        assert_eq!(error.column, column, "{text}: {error}");
        parse(text).expect(text);
    }
    assert!(parse_sent("(a = 1 && b = 2)", limits).is_ok());
}

fn names() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-zA-Z0-9_ö]{0,8}".prop_filter("no word for a value", |name| {
        !["true", "false", "null"].contains(&name.to_ascii_lowercase().as_str())
    })
}

fn paths() -> impl Strategy<Value = Path> {
    let root = prop_oneof![
        Just(Root::Record),
        Just(Root::Request),
        (names(), proptest::option::of(names())).prop_map(|(name, alias)| Root::Collection { name, alias }),
    ];
    let modifier = prop_oneof![Just(None), (0..MODIFIERS.len()).prop_map(|at| Some(MODIFIERS[at].1))];
    (root, proptest::collection::vec(names(), 1..4), modifier).prop_map(|(root, segments, modifier)| Path {
        root,
        segments,
        modifier,
    })
}

fn operands() -> impl Strategy<Value = Operand> {
    let text = prop_oneof![any::<String>(), "[`'\"\\\\a]{0,6}"].prop_map(Value::Text);
    let reals = any::<f64>().prop_filter("finite", |real| real.is_finite());
    let value = prop_oneof![
        text,
        any::<i64>().prop_map(Value::Integer),
        reals.prop_map(Value::Real),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        (0..DATE_MACROS.len()).prop_map(|at| Value::Macro(DATE_MACROS[at].1)),
        paths().prop_map(Value::Path),
    ];
    value.prop_map(|value| Operand { value, place: Place::default() })
}

fn expressions() -> impl Strategy<Value = Expr> {
    let comparison = (operands(), 0..OPERATORS.len(), any::<bool>(), operands());
    let leaf = comparison
        .prop_map(|(left, at, any, right)| Expr::Compare(Comparison { left, operator: OPERATORS[at].1, any, right }));
    leaf.prop_recursive(4, 24, 4, |inner| {
        let items = proptest::collection::vec(inner, 2..4);
        prop_oneof![items.clone().prop_map(Expr::And), items.prop_map(Expr::Or)]
    })
}

/// `a = … && b = …` with these texts, as one client or the other puts them in.
fn sent(values: &[String], quoted: impl Fn(&String) -> String) -> String {
    let comparisons = values.iter().enumerate().map(|(at, value)| format!("f{at} = {}", quoted(value)));
    comparisons.collect::<Vec<_>>().join(" && ")
}

/// The texts that such a filter compares with, if it is one.
fn compared(expr: Expr, count: usize) -> Option<Vec<String>> {
    let items = if let Expr::And(items) = expr { items } else { vec![expr] };
    let texts = items.into_iter().enumerate().map(|(at, item)| match item {
        Expr::Compare(Comparison { left, operator: Operator::Equal, any: false, right }) => {
            let Value::Text(text) = right.value else { return None };
            (left.value.to_string() == format!("f{at}")).then_some(text)
        }
        _ => None,
    });
    texts.collect::<Option<Vec<_>>>().filter(|texts| texts.len() == count)
}

/// Values made of what a filter is made of.
fn values() -> impl Strategy<Value = Vec<String>> {
    let pieces = proptest::collection::vec(0..HOSTILE.len(), 0..7);
    let value = pieces.prop_map(|pieces| pieces.into_iter().map(|at| HOSTILE[at]).collect::<String>());
    proptest::collection::vec(value, 1..4)
}

const HOSTILE: [&str; 12] = ["\\", "'", "\"", "`", " || 1 = 1", " || f0 = ", " && f1 != ", "//", "\n", "x", "(", ")"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_client_that_escapes_only_quotes_is_never_made_to_say_something_else(values in values()) {
        let text = sent(&values, |value| format!("'{}'", value.replace('\'', "\\'")));
        if let Ok(expr) = parse_sent(&text, FilterLimits::RULES) {
            prop_assert!(compared(expr, values.len()).is_some(), "{}", text);
        }
    }

    #[test]
    fn a_client_that_writes_json_says_what_it_wants_to(values in values()) {
        let text = sent(&values, |value| serde_json::to_string(value).unwrap());
        prop_assert_eq!(compared(parse_sent(&text, FilterLimits::RULES).expect(&text), values.len()), Some(values), "{}", text);
    }
}

proptest! {
    #[test]
    fn a_printed_tree_parses_to_itself(expr in expressions()) {
        let printed = expr.to_string();
        prop_assume!(printed.len() <= FilterLimits::RULES.bytes);
        prop_assert_eq!(parse(&printed).expect(&printed), expr);
    }

    #[test]
    fn any_text_is_a_filter_or_an_error_within_it(text in ".{0,60}") {
        if let Err(error) = parse(&text) {
            prop_assert!(error.column >= 1 && error.column <= text.chars().count() + 1);
        }
    }

    #[test]
    fn texts_made_of_the_grammars_pieces_never_panic(
        pieces in proptest::collection::vec(0..PIECES.len(), 0..40),
    ) {
        let text: String = pieces.into_iter().map(|at| PIECES[at]).collect();
        if let Ok(expr) = parse(&text) {
            prop_assert_eq!(parse(&expr.to_string()).expect("printed"), expr);
        }
    }
}

const PIECES: [&str; 31] = [
    "`",
    "a",
    "b.c",
    " ",
    "=",
    "!=",
    "?",
    "?=",
    ">",
    "<=",
    "~",
    "!~",
    "&&",
    "||",
    " and ",
    " OR ",
    "(",
    ")",
    "'",
    "\"",
    "\\",
    "'x'",
    "1",
    "-",
    ".",
    ":",
    ":each",
    "@",
    "@now",
    "@request.auth.id",
    "//\n",
];
