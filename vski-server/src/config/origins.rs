//! Whose pages may read answers in a browser.

use std::str::FromStr;

use url::Url;

/// The origins of pages that browsers let read our answers (CORS).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CorsOrigins {
    /// All. A page still needs a token, which no browser sends by itself.
    Any,
    /// These, as browsers write them in `Origin`.
    Listed(Vec<String>),
}

impl FromStr for CorsOrigins {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.trim() {
            "*" => Ok(Self::Any),
            "none" => Ok(Self::Listed(Vec::new())),
            list => {
                let entries = list.split(',').map(str::trim).filter(|entry| !entry.is_empty());
                entries.map(origin).collect::<Result<_, _>>().map(Self::Listed)
            }
        }
    }
}

/// An origin as browsers write it: in lower case, without a path, without a port that goes without saying.
fn origin(entry: &str) -> Result<String, String> {
    let wrong = || {
        format!("{entry:?} is no origin such as https://app.example.com or http://localhost:5173 (or * or none, alone)")
    };
    let url = Url::parse(entry).map_err(|_| wrong())?;
    let host = url.host_str().filter(|host| !host.is_empty() && !host.contains('*'));
    let bare = matches!(url.path(), "" | "/") && url.query().is_none() && url.fragment().is_none();
    let anonymous = url.username().is_empty() && url.password().is_none();
    let host = host.filter(|_| bare && anonymous).ok_or_else(wrong)?;
    // Of other schemes than the web's (apps have their own) the library knows no origin.
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    Ok(format!("{}://{}{port}", url.scheme(), host.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_read_as_browsers_write_them() {
        let listed = |text: &str| match text.parse() {
            Ok(CorsOrigins::Listed(origins)) => origins,
            other => panic!("{text}: {other:?}"),
        };
        assert_eq!("*".parse(), Ok(CorsOrigins::Any));
        assert!(listed("none").is_empty());
        assert_eq!(
            listed(
                "https://App.Example.com/, http://localhost:5173 ,https://a.example:443,http://[::1]:80,tauri://localhost"
            ),
            [
                "https://app.example.com",
                "http://localhost:5173",
                "https://a.example",
                "http://[::1]",
                "tauri://localhost"
            ]
        );
    }

    #[test]
    fn what_no_browser_would_send_is_refused_by_name() {
        for text in [
            "app.example.com",
            "https://app.example.com/path",
            "https://user@app.example.com",
            "https://app.example.com?x=1",
            "https://*.example.com",
            "https://a.example,*",
            "file:///tmp",
        ] {
            let error = text.parse::<CorsOrigins>().unwrap_err();
            assert!(error.contains("is no origin such as"), "{text}: {error}");
        }
    }
}
