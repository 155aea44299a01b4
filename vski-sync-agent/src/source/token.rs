//! The token that this node shows with its calls.

use std::sync::{Mutex, PoisonError};

use reqwest::header::HeaderValue;
use vski_replication::clock;
use vski_replication::token::{Claims, REPLICA_TOKEN_SECONDS, Secrets};

/// A token with less to live than this is not shown any more, seconds: it may be long on its way.
const LEAST_LEFT: u64 = REPLICA_TOKEN_SECONDS * 2 / 3;

/// A token that is shown with many calls, and minted anew when it is no longer young.
#[derive(Default)]
pub(super) struct OwnToken(Mutex<Option<Minted>>);

struct Minted {
    /// When it ends, seconds since 1970.
    exp: u64,
    header: HeaderValue,
}

impl OwnToken {
    /// What `Authorization` says.
    pub(super) fn header(&self, secrets: &Secrets, node_id: &str) -> HeaderValue {
        self.header_at(u64::try_from(clock::now_ms() / 1000).unwrap_or(0), secrets, node_id)
    }

    fn header_at(&self, now: u64, secrets: &Secrets, node_id: &str) -> HeaderValue {
        let mut minted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // More to live than a new one: the clock was put back.
        let is_young = |minted: &&Minted| (now + LEAST_LEFT..=now + REPLICA_TOKEN_SECONDS).contains(&minted.exp);
        if let Some(Minted { header, .. }) = minted.as_ref().filter(is_young) {
            return header.clone();
        }
        let claims = Claims { exp: now + REPLICA_TOKEN_SECONDS, ..Claims::replica(node_id, REPLICA_TOKEN_SECONDS) };
        let header = bearer(&secrets.mint(&claims));
        *minted = Some(Minted { exp: claims.exp, header: header.clone() });
        header
    }
}

/// What `Authorization` says for a token.
pub(super) fn bearer(token: &str) -> HeaderValue {
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).expect("a token is base64 and dots");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_again_while_it_is_young_whichever_way_the_clock_goes() {
        let (own, secrets) = (OwnToken::default(), Secrets::new("secret", None));
        let at = |now| own.header_at(now, &secrets, "r1");
        let first = at(1_000);
        assert_eq!((at(1_000), at(1_020)), (first.clone(), first.clone()));
        let second = at(1_021);
        assert_ne!(second, first);
        assert_eq!(at(1_030), second);
        let put_back = at(900);
        assert!(put_back != second && put_back != first);
        assert_eq!(at(910), put_back);
    }

    #[test]
    fn the_master_takes_it_for_this_nodes() {
        let (own, secrets) = (OwnToken::default(), Secrets::new("secret", None));
        let header = own.header(&secrets, "r1");
        let token = header.to_str().unwrap().strip_prefix("Bearer ").unwrap();
        assert_eq!(secrets.verify(token).unwrap().sub, "r1");
        assert!(header.is_sensitive());
    }
}
