//! Text to tree: PocketBase's filter grammar.
//!
//! `&&` binds more tightly than `||`; `AND` and `OR` say the same in any case. A text stands in either quote, with escapes as
//! PocketBase reads them (0.40): a backslash before a quote or another backslash makes that part of the text, `\n`, `\r` and
//! `\t` are what they are in JSON, and any other backslash is itself. PocketBase's JavaScript client puts values into a
//! filter as JSON texts.
//!
//! Older clients, and the community's for Python, escape quotes and no backslashes, so that a value that ends in one takes the
//! quote behind it into its text, and the next value would stand in the open. Whatever it says there, one quote remains that
//! opens a text without an end, unless a comment hides it: therefore a comment in what a request sends has no quotes. Rules,
//! which are not made of values, may.
//!
//! A text in backticks has no escapes but a doubled backtick: whatever the client, it says what stands there.

use winnow::ascii::{Caseless, digit1, multispace1};
use winnow::combinator::{alt, cut_err, delimited, eof, not, opt, peek, preceded, repeat, separated, terminated};
use winnow::error::{AddContext, ErrMode, ParserError};
use winnow::stream::{LocatingSlice, Location, Stateful, Stream};
use winnow::token::{any, literal, none_of, take_till, take_while};
use winnow::{ModalParser, ModalResult, Parser};

use super::ast::{
    Comparison, DATE_MACROS, Expr, MODIFIERS, Modifier, OPERATORS, Operand, Operator, Path, Place, Root, Value,
};
use super::{FilterError, MAX_PATH_SEGMENTS};
use crate::config::FilterLimits;

type Input<'a> = Stateful<LocatingSlice<&'a str>, Source>;
type Parsed<T> = ModalResult<T, Expected>;

/// Where a text comes from, and how much it may ask for.
#[derive(Clone, Copy, Debug)]
struct Source {
    origin: Origin,
    limits: FilterLimits,
}

/// Whose text it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// A rule, as an admin wrote it.
    Rule,
    /// A request, which a client may have put together from values.
    Request,
}

/// Parses a rule that is not empty.
pub fn parse(text: &str) -> Result<Expr, FilterError> {
    parsed(text, Source { origin: Origin::Rule, limits: FilterLimits::RULES })
}

/// Parses a filter that a request sent, and that is not empty.
pub fn parse_sent(text: &str, limits: FilterLimits) -> Result<Expr, FilterError> {
    parsed(text, Source { origin: Origin::Request, limits })
}

fn parsed(text: &str, state: Source) -> Result<Expr, FilterError> {
    let FilterLimits { bytes, comparisons, .. } = state.limits;
    if text.len() > bytes {
        let message = format!("a filter has at most {bytes} bytes, and this one has {}", text.len());
        return Err(FilterError::at(text, text.floor_char_boundary(bytes), message));
    }
    let end = cut_err(eof).context("&& or || or the end of the filter");
    let input = Stateful { input: LocatingSlice::new(text), state };
    let parsed = delimited(space, |input: &mut Input<'_>| any_of(input, 0), end).parse(input);
    let expr = parsed.map_err(|error| {
        let Expected { at, what } = error.into_inner();
        let found = match text[at..].chars().next() {
            None => "the filter's end".to_owned(),
            Some(_) => format!("{:?}", text[at..].chars().take(20).collect::<String>()),
        };
        let message = match what {
            Some(What::Token(what)) => format!("expected {what}, found {found}"),
            Some(What::Rule(message)) => message,
            None => format!("{found} makes no sense here"),
        };
        FilterError::at(text, at, message)
    })?;
    let mut places = Vec::new();
    expr.places(&mut places);
    match places.get(comparisons) {
        None => Ok(expr),
        Some(Place(at)) => {
            let message = format!("a filter has at most {comparisons} comparisons, and this one has {}", places.len());
            Err(FilterError::at(text, *at, message))
        }
    }
}

/// What a parser wanted, and where.
#[derive(Debug)]
struct Expected {
    at: usize,
    what: Option<What>,
}

#[derive(Debug)]
enum What {
    /// A piece of the grammar.
    Token(&'static str),
    /// A whole sentence.
    Rule(String),
}

impl<'a> ParserError<Input<'a>> for Expected {
    type Inner = Self;

    fn from_input(input: &Input<'a>) -> Self {
        Self { at: input.current_token_start(), what: None }
    }

    fn into_inner(self) -> Result<Self::Inner, Self> {
        Ok(self)
    }
}

impl<'a> AddContext<Input<'a>> for Expected {
    fn add_context(self, _: &Input<'a>, _: &<Input<'a> as Stream>::Checkpoint, context: &'static str) -> Self {
        Self { what: self.what.or(Some(What::Token(context))), ..self }
    }
}

fn refuse<T>(at: usize, message: String) -> Parsed<T> {
    Err(ErrMode::Cut(Expected { at, what: Some(What::Rule(message)) }))
}

/// White space and `// comments` that end with their line.
fn space(input: &mut Input<'_>) -> Parsed<()> {
    repeat(0.., alt((multispace1.void(), comment))).parse_next(input)
}

fn comment(input: &mut Input<'_>) -> Parsed<()> {
    let at = input.current_token_start();
    let text: &str = preceded("//", take_till(0.., '\n')).parse_next(input)?;
    if input.state.origin == Origin::Request && text.contains(['\'', '"']) {
        return refuse(at, "a comment in a request's filter must not have quotes: leave it out".to_owned());
    }
    Ok(())
}

fn any_of(input: &mut Input<'_>, depth: usize) -> Parsed<Expr> {
    let one = |input: &mut Input<'_>| all_of(input, depth);
    let mut items: Vec<Expr> = separated(1.., one, joint("||", "or")).parse_next(input)?;
    Ok(if items.len() == 1 { items.remove(0) } else { Expr::Or(items) })
}

fn all_of(input: &mut Input<'_>, depth: usize) -> Parsed<Expr> {
    let one = |input: &mut Input<'_>| group_or_comparison(input, depth);
    let mut items: Vec<Expr> = separated(1.., one, joint("&&", "and")).parse_next(input)?;
    Ok(if items.len() == 1 { items.remove(0) } else { Expr::And(items) })
}

/// `&&` or the word. What follows it must be a comparison: nothing else can be meant.
fn joint<'a>(sign: &'static str, word: &'static str) -> impl ModalParser<Input<'a>, (), Expected> {
    let word = terminated(literal(Caseless(word)), not(name_character));
    terminated(alt((literal(sign), word)), space).void()
}

fn group_or_comparison(input: &mut Input<'_>, depth: usize) -> Parsed<Expr> {
    let at = input.current_token_start();
    if opt('(').parse_next(input)?.is_none() {
        return terminated(comparison, space).map(Expr::Compare).parse_next(input);
    }
    let most = input.state.limits.depth;
    if depth >= most {
        return refuse(at, format!("a filter has at most {most} parentheses inside each other"));
    }
    let inner = |input: &mut Input<'_>| any_of(input, depth + 1);
    let close = cut_err(')').context("&& or || or a closing parenthesis");
    delimited(space, inner, (close, space)).parse_next(input)
}

fn comparison(input: &mut Input<'_>) -> Parsed<Comparison> {
    let left = cut_err(operand).context("a field, a value or a group in parentheses").parse_next(input)?;
    let signs = "an operator: = != > >= < <= ~ !~, or one of them after ?";
    let (any, operator) = delimited(space, cut_err(operator).context(signs), space).parse_next(input)?;
    let right = cut_err(operand).context("a field or a value").parse_next(input)?;
    Ok(Comparison { left, operator, any, right })
}

fn operator(input: &mut Input<'_>) -> Parsed<(bool, Operator)> {
    let any = opt('?').parse_next(input)?.is_some();
    for (sign, operator) in OPERATORS {
        if opt(literal(sign)).parse_next(input)?.is_some() {
            return Ok((any, operator));
        }
    }
    Err(ErrMode::Backtrack(Expected::from_input(input)))
}

fn operand(input: &mut Input<'_>) -> Parsed<Operand> {
    let place = Place(input.current_token_start());
    let value = match peek(any).parse_next(input)? {
        '\'' | '"' | '`' => text.parse_next(input)?,
        '@' => special.parse_next(input)?,
        '-' | '0'..='9' => number.parse_next(input)?,
        _ => word.parse_next(input)?,
    };
    Ok(Operand { value, place })
}

fn text(input: &mut Input<'_>) -> Parsed<Value> {
    let at = input.current_token_start();
    let quote = any.parse_next(input)?;
    let text: String = if quote == '`' {
        repeat(0.., alt((preceded('`', '`'), none_of('`')))).parse_next(input)?
    } else {
        repeat(0.., alt((escaped, none_of(quote)))).parse_next(input)?
    };
    if opt(quote).parse_next(input)?.is_none() {
        return refuse(at, format!("this text has no closing {quote}"));
    }
    Ok(Value::Text(text))
}

/// A character that stands behind a backslash for itself or another one.
fn escaped(input: &mut Input<'_>) -> Parsed<char> {
    let stands_for = alt(('\\', '\'', '"', 'n'.value('\n'), 'r'.value('\r'), 't'.value('\t')));
    preceded('\\', stands_for).parse_next(input)
}

fn number(input: &mut Input<'_>) -> Parsed<Value> {
    let at = input.current_token_start();
    let exponent = (alt(('e', 'E')), opt(alt(('+', '-'))), digit1);
    let digits = (opt('-'), digit1, opt(('.', digit1)), opt(exponent)).take();
    let digits: &str = terminated(digits, not(name_character)).context("a number such as -1.5").parse_next(input)?;
    if let Ok(integer) = digits.parse() {
        return Ok(Value::Integer(integer));
    }
    match digits.parse::<f64>() {
        Ok(real) if real.is_finite() => Ok(Value::Real(real)),
        _ => refuse(at, format!("{digits} is no number that can be stored")),
    }
}

/// A field of the record, or one of the words for values.
fn word(input: &mut Input<'_>) -> Parsed<Value> {
    let path = path_from(Root::Record, input)?;
    let value = match path.segments.as_slice() {
        [only] if path.modifier.is_none() => match only.to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Null,
            _ => Value::Path(path),
        },
        _ => Value::Path(path),
    };
    Ok(value)
}

/// What begins with `@`.
fn special(input: &mut Input<'_>) -> Parsed<Value> {
    let at = input.current_token_start();
    let word: &str = preceded('@', name).context("a name after @").parse_next(input)?;
    if let Some((_, date)) = DATE_MACROS.iter().find(|(name, _)| *name == word) {
        return Ok(Value::Macro(*date));
    }
    match word {
        "request" => {
            cut_err('.').context(".auth, .body, .query, .headers, .method or .context").parse_next(input)?;
            path_from(Root::Request, input).map(Value::Path)
        }
        "collection" => {
            let name: &str = cut_err(preceded('.', name)).context(". and a collection's name").parse_next(input)?;
            let alias: Option<&str> = opt(preceded(':', cut_err(name_parser))).parse_next(input)?;
            let root = Root::Collection { name: name.to_owned(), alias: alias.map(str::to_owned) };
            cut_err('.').context(". and a field").parse_next(input)?;
            path_from(root, input).map(Value::Path)
        }
        other => {
            let known: Vec<String> = DATE_MACROS.iter().map(|(name, _)| format!("@{name}")).collect();
            let known = known.join(", ");
            refuse(at, format!("there is no @{other}: there are @request, @collection, {known}"))
        }
    }
}

fn path_from(root: Root, input: &mut Input<'_>) -> Parsed<Path> {
    let at = input.current_token_start();
    let segments: Vec<&str> = separated(1.., name_parser, '.').parse_next(input)?;
    if segments.len() > MAX_PATH_SEGMENTS {
        return refuse(
            at,
            format!("a path has at most {MAX_PATH_SEGMENTS} names, and this one has {}", segments.len()),
        );
    }
    let modifier = opt(preceded(':', modifier)).parse_next(input)?;
    Ok(Path { root, segments: segments.into_iter().map(str::to_owned).collect(), modifier })
}

fn modifier(input: &mut Input<'_>) -> Parsed<Modifier> {
    let at = input.current_token_start();
    let found: &str = cut_err(name_parser).context("isset, changed, length, each or lower").parse_next(input)?;
    match MODIFIERS.iter().find(|(name, _)| *name == found) {
        Some((_, modifier)) => Ok(*modifier),
        None => {
            refuse(at, format!("there is no modifier :{found}: there are :isset, :changed, :length, :each, :lower"))
        }
    }
}

use name as name_parser;

fn name<'a>(input: &mut Input<'a>) -> Parsed<&'a str> {
    take_while(1.., is_name_character).parse_next(input)
}

fn name_character(input: &mut Input<'_>) -> Parsed<()> {
    winnow::token::one_of(is_name_character).void().parse_next(input)
}

/// Fields have letters, digits and `_`; keys inside a JSON value may have letters of any script.
fn is_name_character(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
