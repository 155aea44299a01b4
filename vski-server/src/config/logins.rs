//! How often somebody may try to log in, and whose word counts for where a request comes from.

use std::net::IpAddr;
use std::str::FromStr;

use clap::Args;
use ipnet::IpNet;

/// Limits on logins, for each node by itself.
#[derive(Args, Clone, Copy, Debug)]
pub struct LoginLimits {
    /// Logins that one address may try in a minute; 0: no limit
    #[arg(long = "login-attempts-per-address", env = "LOGIN_ATTEMPTS_PER_ADDRESS", default_value_t = 60)]
    pub attempts_per_address: u32,
    /// Failed logins in a minute after which an identity has to wait; 0: no limit
    #[arg(long = "login-failures-per-identity", env = "LOGIN_FAILURES_PER_IDENTITY", default_value_t = 10)]
    pub failures_per_identity: u32,
}

/// The proxies whose X-Forwarded-For is believed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    /// The client of a request from `peer`: the peer itself, or, if that is a trusted proxy, the last address in the
    /// headers that no trusted proxy has. `forwarded` are the values of X-Forwarded-For, in order.
    pub fn client<'a>(&self, peer: IpAddr, forwarded: impl DoubleEndedIterator<Item = &'a str>) -> IpAddr {
        let mut client = peer.to_canonical();
        for hop in forwarded.rev().flat_map(|value| value.rsplit(',')) {
            if !self.trusts(client) {
                break;
            }
            // What a trusted proxy wrote is an address; anything else came from beyond.
            let Ok(hop) = hop.trim().parse::<IpAddr>() else { break };
            client = hop.to_canonical();
        }
        client
    }

    fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for TrustedProxies {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let parse = |entry: &str| {
            let network = entry.parse::<IpNet>().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from));
            network.ok_or_else(|| format!("{entry:?} is no address or network such as 10.0.0.7 or 172.16.0.0/12"))
        };
        entries.map(parse).collect::<Result<_, _>>().map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(trusted: &str, peer: &str, forwarded: &[&str]) -> String {
        let trusted: TrustedProxies = trusted.parse().unwrap();
        trusted.client(peer.parse().unwrap(), forwarded.iter().copied()).to_string()
    }

    #[test]
    fn only_trusted_proxies_say_who_the_client_is() {
        assert_eq!(client("", "10.0.0.7", &["203.0.113.9"]), "10.0.0.7");
        assert_eq!(client("10.0.0.0/8", "203.0.113.1", &["198.51.100.1"]), "203.0.113.1");
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &["203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.7", "::ffff:10.0.0.7", &["2001:db8::1"]), "2001:db8::1");
        assert_eq!(client("10.0.0.7", "10.0.0.7", &[]), "10.0.0.7");
    }

    #[test]
    fn what_a_client_wrote_into_the_header_itself_does_not_count() {
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &["1.1.1.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &["1.1.1.1", "203.0.113.9, 10.0.0.8"]), "203.0.113.9");
        assert_eq!(client("10.0.0.0/8", "10.0.0.7", &["203.0.113.9, nonsense"]), "10.0.0.7");
    }

    #[test]
    fn a_list_of_proxies_is_read_or_the_wrong_entry_named() {
        assert_eq!("".parse(), Ok(TrustedProxies::default()));
        assert!(" 10.0.0.7, 172.16.0.0/12 ,::1".parse::<TrustedProxies>().is_ok());
        assert!("10.0.0.7,haproxy".parse::<TrustedProxies>().unwrap_err().contains("haproxy"));
    }
}
