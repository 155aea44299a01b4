//! Where a write stands, as clients carry it to their next read: `<db>:<generation>-<epoch id>:<version>`, in the
//! header `X-Vski-Position` of every write's answer and in `X-Vski-Min-Position` of a read. A browser carries it by
//! itself: in a cookie for each database.

use std::fmt;
use std::str::FromStr;

use axum::http::header::{COOKIE, SET_COOKIE};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use vski_replication::changelog::Head;
use vski_replication::names::{self, header};
use vski_replication::position::Epoch;

use super::error::ApiError;
use crate::store::request::Written;

/// Positions that one read may name.
const MAX_POSITIONS: usize = 64;

/// A browser keeps a position for a minute: by then every replica that still takes reads has it.
const COOKIE_ATTRIBUTES: &str = "; Path=/; Max-Age=60; HttpOnly; SameSite=Lax";

/// The end of one database's log, without what only nodes compare.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WritePosition {
    /// The database.
    pub db: String,
    /// The epoch of the entry at `version`.
    pub epoch: Epoch,
    /// Version of the entry that holds the write, or of a later one.
    pub version: u64,
}

/// Text that is no list of positions.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PositionError {
    /// One of them is malformed.
    #[error("{0:?} is not a position: send what X-Vski-Position said, <db>:<generation>-<epoch id>:<version>")]
    Malformed(String),
    /// There are too many.
    #[error("more than {MAX_POSITIONS} positions: send one for each database that is read")]
    TooMany,
}

impl fmt::Display for WritePosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.db, self.epoch, self.version)
    }
}

impl FromStr for WritePosition {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let parse = || {
            let (db, rest) = text.split_once(':').filter(|(db, _)| names::is_database_name(db))?;
            let (epoch, version) = rest.split_once(':')?;
            let digits = version.bytes().all(|byte| byte.is_ascii_digit());
            let version = version.parse().ok().filter(|_| digits)?;
            Some(Self { db: db.to_owned(), epoch: epoch.parse().ok()?, version })
        };
        parse().ok_or_else(|| PositionError::Malformed(text.chars().take(150).collect()))
    }
}

/// A position that a read has to see.
#[derive(Debug)]
pub struct Wanted {
    /// The position.
    pub position: WritePosition,
    /// From a cookie, which nobody can take back: it means nothing once its history has ended.
    pub by_cookie: bool,
}

/// Reads a list of positions.
fn parse_list(text: &str) -> Result<Vec<WritePosition>, PositionError> {
    if text.split(',').count() > MAX_POSITIONS {
        return Err(PositionError::TooMany);
    }
    text.split(',').map(|item| item.trim().parse()).collect()
}

/// What a read of `db` has to see at least; positions of other databases are none of its business.
pub fn wanted(headers: &HeaderMap, db: &str) -> Result<Vec<Wanted>, ApiError> {
    let mut wanted = Vec::new();
    for value in headers.get_all(header::MIN_POSITION) {
        let text = String::from_utf8_lossy(value.as_bytes());
        let listed =
            parse_list(&text).map_err(|error| ApiError::bad_request(format!("{}: {error}", header::MIN_POSITION)))?;
        let listed = listed.into_iter().filter(|position| position.db == db);
        wanted.extend(listed.map(|position| Wanted { position, by_cookie: false }));
    }
    wanted.extend(by_cookie(headers, db).map(|position| Wanted { position, by_cookie: true }));
    Ok(wanted)
}

/// The position in the database's cookie. Anything else under that name is ignored.
fn by_cookie(headers: &HeaderMap, db: &str) -> Option<WritePosition> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let name = format!("{}{db}", names::POSITION_COOKIE);
    let (_, value) = pairs.find(|(found, _)| *found == name)?;
    format!("{db}:{value}").parse().ok()
}

/// The answer to a write, with the position at which it can be read.
pub struct Positioned<R> {
    position: WritePosition,
    body: R,
}

impl<R> Positioned<R> {
    /// The answer that `body` makes of what was written to `db`.
    pub fn new<T>(db: &str, written: Written<T>, body: impl FnOnce(T) -> R) -> Self {
        let Written { value, head: Head { position, .. } } = written;
        let position = WritePosition { db: db.to_owned(), epoch: position.epoch, version: position.version };
        Self { position, body: body(value) }
    }
}

impl<R: IntoResponse> IntoResponse for Positioned<R> {
    fn into_response(self) -> Response {
        let Self { position, body } = self;
        let mut response = body.into_response();
        let text = |text: String| HeaderValue::try_from(text).expect("names, hex and digits are header text");
        let WritePosition { db, epoch, version } = &position;
        let place = format!("{epoch}:{version}");
        let cookie = [names::POSITION_COOKIE, db, "=", &place, COOKIE_ATTRIBUTES].concat();
        response.headers_mut().insert(header::POSITION, text([db, ":", &place].concat()));
        response.headers_mut().append(SET_COOKIE, text(cookie));
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: &str = "1-0011223344556677";

    #[test]
    fn a_list_of_positions_is_what_writes_have_answered() {
        let list = parse_list(&format!("default:{EPOCH}:7 , shop-2:{EPOCH}:0")).unwrap();
        assert_eq!(
            list.iter().map(ToString::to_string).collect::<Vec<_>>(),
            [format!("default:{EPOCH}:7"), format!("shop-2:{EPOCH}:0"),]
        );
    }

    #[test]
    fn text_that_no_write_has_answered_is_refused() {
        let too_long = "a".repeat(64);
        for text in [
            "",
            ",",
            "default",
            "default:7",
            "default::7",
            "default:1:7",
            "default:1-00:7",
            &format!("default:{EPOCH}:"),
            &format!("default:{EPOCH}:-1"),
            &format!("default:{EPOCH}:+1"),
            &format!("default:{EPOCH}:18446744073709551616"),
            &format!("default:{EPOCH}:7:8"),
            &format!("../x:{EPOCH}:7"),
            &format!(":{EPOCH}:7"),
            &format!("{too_long}:{EPOCH}:7"),
            &format!("default:{EPOCH}:7,"),
            &format!("default:{EPOCH}:7;shop:{EPOCH}:7"),
            "é:1-é:é",
        ] {
            assert!(matches!(parse_list(text), Err(PositionError::Malformed(_))), "{text}");
        }
        let many = vec![format!("default:{EPOCH}:7"); MAX_POSITIONS + 1].join(",");
        assert_eq!(parse_list(&many), Err(PositionError::TooMany));
    }

    #[test]
    fn a_read_heeds_the_positions_of_its_database_in_all_headers() {
        let mut headers = HeaderMap::new();
        for value in [format!("default:{EPOCH}:7,shop:{EPOCH}:9"), format!("default:{EPOCH}:8")] {
            headers.append(header::MIN_POSITION, HeaderValue::from_str(&value).unwrap());
        }
        let versions =
            |db| wanted(&headers, db).unwrap().iter().map(|wanted| wanted.position.version).collect::<Vec<_>>();
        assert_eq!((versions("default"), versions("shop"), versions("other")), (vec![7, 8], vec![9], vec![]));
        headers.append(header::MIN_POSITION, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(wanted(&headers, "other").unwrap_err().status, 400);
    }

    #[test]
    fn a_browser_brings_a_position_back_and_nothing_else_in_its_cookies_matters() {
        let position = WritePosition { db: "shop".to_owned(), epoch: EPOCH.parse().unwrap(), version: 7 };
        let answer = Positioned { position: position.clone(), body: () }.into_response();
        let set = answer.headers()[SET_COOKIE].to_str().unwrap();
        let (pair, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        let found = |cookies: &[&str], db| {
            let mut headers = HeaderMap::new();
            for line in cookies {
                headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
            }
            let mut wanted = wanted(&headers, db).unwrap();
            assert!(wanted.iter().all(|wanted| wanted.by_cookie));
            wanted.pop().map(|wanted| wanted.position)
        };
        let others = format!("theme=dark; vski-position-default=x; {pair}");
        for cookies in [&[pair][..], &["a=b", pair], &[&others]] {
            assert_eq!(found(cookies, "shop"), Some(position.clone()), "{cookies:?}");
        }
        for cookies in [&["vski-position-shop"][..], &["vski-position-shop=7"], &["vski-position-shop=shop:1:7"], &[]] {
            assert_eq!(found(cookies, "shop"), None, "{cookies:?}");
        }
        assert_eq!(found(&[&others], "default"), None);
    }
}
