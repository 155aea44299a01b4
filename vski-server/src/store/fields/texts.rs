use url::Url;

use super::{Field, FieldKind, pattern};
use crate::store::error::FieldError;

/// Longest email address, bytes (RFC 5321).
const EMAIL_BYTES: usize = 254;

/// Longest password, bytes: argon2 reads all of it.
const PASSWORD_BYTES: usize = 1024;

/// Checks a text; a blank one is no value, which only `required` concerns.
pub fn check(field: &Field, text: &str) -> Result<(), FieldError> {
    if text.is_empty() {
        return Ok(());
    }
    // SQLite's own shell and functions end a text there.
    if text.contains('\0') {
        return Err(field.error("validation_invalid_format", "must not hold the character NUL".to_owned()));
    }
    match &field.kind {
        FieldKind::Text { min, max, pattern } => {
            length(field, text, *min, *max)?;
            matches(field, text, pattern)
        }
        FieldKind::Password { min, max } => {
            if text.len() > PASSWORD_BYTES {
                let message = format!("must be at most {PASSWORD_BYTES} bytes");
                return Err(field.error("validation_max_text_constraint", message));
            }
            length(field, text, *min, *max)
        }
        FieldKind::Email { except_domains, only_domains } => {
            let domain = email_domain(text)
                .ok_or_else(|| field.error("validation_is_email", "must be an email address".to_owned()))?;
            allowed(field, domain, (except_domains, only_domains), "validation_email_domain_not_allowed")
        }
        FieldKind::Url { except_domains, only_domains } => {
            let host = url_host(text).ok_or_else(|| {
                field.error("validation_invalid_url", "must be a web address, as https://example.com/page".to_owned())
            })?;
            allowed(field, &host, (except_domains, only_domains), "validation_url_domain_not_allowed")
        }
        _ => Ok(()),
    }
}

fn length(field: &Field, text: &str, min: u64, max: u64) -> Result<(), FieldError> {
    let characters = text.chars().count() as u64;
    if characters < min {
        return Err(field.error("validation_min_text_constraint", format!("must have {min} characters or more")));
    }
    if max > 0 && characters > max {
        return Err(field.error("validation_max_text_constraint", format!("must have at most {max} characters")));
    }
    Ok(())
}

fn matches(field: &Field, text: &str, pattern: &str) -> Result<(), FieldError> {
    if pattern.is_empty() {
        return Ok(());
    }
    let compiled = pattern::compiled(pattern).map_err(|reason| {
        field.error("validation_invalid_format", format!("cannot be checked, because its pattern is wrong: {reason}"))
    })?;
    if compiled.is_match(text) {
        return Ok(());
    }
    Err(field.error("validation_invalid_format", format!("must match the pattern {pattern}")))
}

/// The part after the `@`, if this looks like an address.
fn email_domain(text: &str) -> Option<&str> {
    let (user, domain) = text.rsplit_once('@')?;
    let labels = || domain.split('.');
    let good = text.len() <= EMAIL_BYTES
        && !user.is_empty()
        && user.len() <= 64
        && !user.contains(|c: char| c.is_whitespace() || c.is_control() || "@,;:<>()[]\\\"".contains(c))
        && !user.starts_with('.')
        && !user.ends_with('.')
        && !user.contains("..")
        && labels().count() > 1
        && labels().all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.chars().all(|c| c.is_alphanumeric() || c == '-')
        });
    good.then_some(domain)
}

/// The host of a web address; the scheme may be left out.
fn url_host(text: &str) -> Option<String> {
    if text.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return None;
    }
    let (parsed, bare) = if text.contains("://") {
        (Url::parse(text).ok()?, false)
    } else {
        (Url::parse(&format!("http://{text}")).ok()?, true)
    };
    let host = parsed.host_str()?.to_owned();
    let good = ["http", "https", "ftp", "ftps", "ws", "wss"].contains(&parsed.scheme());
    (good && (!bare || host.contains('.'))).then_some(host)
}

fn allowed(
    field: &Field,
    domain: &str,
    (except, only): (&[String], &[String]),
    code: &'static str,
) -> Result<(), FieldError> {
    let listed = |list: &[String]| list.iter().any(|entry| entry.eq_ignore_ascii_case(domain));
    if listed(except) || (!only.is_empty() && !listed(only)) {
        return Err(field.error(code, format!("must not be of {domain}: the collection does not take that domain")));
    }
    Ok(())
}
