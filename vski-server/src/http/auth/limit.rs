//! How often somebody may try to log in: so many attempts from one address, and so many failures for one identity, a
//! minute (variables LOGIN_ATTEMPTS_PER_ADDRESS and LOGIN_FAILURES_PER_IDENTITY). Each node counts for itself.
//!
//! An attempt is charged to the identity before its password is looked at, so that guesses sent at once count, too; a login
//! that succeeds takes all charges back. Whoever guesses at an identity therefore also holds up its owner, at most for
//! as long as Retry-After says.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::state::keyed::ShrinkableKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::config::LoginLimits;
use crate::http::error::ApiError;

/// Keys that are kept before those that mean nothing any more are looked for.
const SWEEP_ABOVE: usize = 1024;

/// The limits of this node. Cheap to clone.
#[derive(Clone)]
pub struct LoginLimiter {
    shared: Arc<Shared>,
}

struct Shared {
    addresses: Option<Counter<IpAddr, DefaultClock>>,
    identities: Option<Counter<[u8; 32], DefaultClock>>,
}

/// An attempt that was let through.
pub struct Attempt {
    limiter: LoginLimiter,
    identity: [u8; 32],
}

impl LoginLimiter {
    /// Counts nothing yet.
    #[must_use]
    pub fn new(limits: &LoginLimits) -> Self {
        let counter = |per_minute| NonZeroU32::new(per_minute);
        let shared = Shared {
            addresses: counter(limits.attempts_per_address).map(|max| Counter::new(max, DefaultClock::default())),
            identities: counter(limits.failures_per_identity).map(|max| Counter::new(max, DefaultClock::default())),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Lets an attempt through, or says when to come again. `realm` is what the identity belongs to: the same name in two
    /// databases or collections is not the same identity.
    pub fn attempt(&self, address: IpAddr, realm: &[&str], identity: &str) -> Result<Attempt, ApiError> {
        let key = identity_key(realm, identity);
        let Shared { addresses, identities } = &*self.shared;
        if let Some(wait) = addresses.as_ref().and_then(|counter| counter.charge(network(address)).err()) {
            return Err(refused("from this address", wait));
        }
        if let Some(wait) = identities.as_ref().and_then(|counter| counter.charge(key).err()) {
            return Err(refused("for this identity", wait));
        }
        Ok(Attempt { limiter: self.clone(), identity: key })
    }
}

impl Attempt {
    /// It was the right password: earlier failures are forgotten.
    pub fn succeeded(self) {
        if let Some(counter) = &self.limiter.shared.identities {
            counter.forget(&self.identity);
        }
    }
}

fn refused(whose: &str, wait: Duration) -> ApiError {
    let seconds = wait.as_secs() + 1;
    let message = format!("too many logins {whose}: try again in {seconds} s");
    ApiError::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(seconds)
}

/// Names are as long as callers make them: what is kept is not.
fn identity_key(realm: &[&str], identity: &str) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    for part in realm {
        hasher.update(part.as_bytes()).update(&[0]);
    }
    *hasher.update(identity.trim().to_lowercase().as_bytes()).finalize().as_bytes()
}

/// What one client has: an IPv4 address, or the /64 network that every IPv6 client has at least.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// Counts by key: `max` at once, and as many again evenly over a minute.
struct Counter<K: Hash + Eq + Clone, C: Clock> {
    limiter: RateLimiter<K, States<K>, C, NoOpMiddleware<C::Instant>>,
    /// The limiter's, which it lets nobody reach.
    states: States<K>,
    /// How many keys there may be before the next sweep.
    sweep_above: Mutex<usize>,
}

impl<K: Hash + Eq + Clone, C: Clock> Counter<K, C> {
    fn new(max: NonZeroU32, clock: C) -> Self {
        let states = States::default();
        let limiter = RateLimiter::new(Quota::per_minute(max), states.clone(), clock);
        Self { limiter, states, sweep_above: Mutex::new(SWEEP_ABOVE) }
    }

    /// Charges one; the error is how long to wait.
    fn charge(&self, key: K) -> Result<(), Duration> {
        self.sweep();
        self.limiter.check_key(&key).map_err(|until| until.wait_time_from(self.limiter.clock().now()))
    }

    /// Takes all charges back.
    fn forget(&self, key: &K) {
        self.states.lock().remove(key);
    }

    /// Lets go of those who may do again all that they may. What a sweep leaves doubles before the next one.
    fn sweep(&self) {
        let mut above = self.sweep_above.lock().unwrap_or_else(PoisonError::into_inner);
        if self.limiter.len() > *above {
            self.limiter.retain_recent();
            *above = SWEEP_ABOVE.max(self.limiter.len() * 2);
        }
    }
}

/// When each key may do again all that it may. Unlike the library's stores it can forget one.
struct States<K>(Arc<Mutex<HashMap<K, Nanos>>>);

impl<K> States<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Nanos>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K> Clone for States<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> Default for States<K> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K: Hash + Eq + Clone> StateStore for States<K> {
    type Key = K;

    fn measure_and_replace<T, F, E>(&self, key: &K, f: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut states = self.lock();
        let (value, next) = f(states.get(key).copied())?;
        states.insert(key.clone(), next);
        Ok(value)
    }
}

impl<K: Hash + Eq + Clone> ShrinkableKeyedStateStore<K> for States<K> {
    fn retain_recent(&self, drop_below: Nanos) {
        self.lock().retain(|_, state| *state >= drop_below);
    }

    fn len(&self) -> usize {
        self.lock().len()
    }

    fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    const MAX: NonZeroU32 = NonZeroU32::new(3).expect("three is not zero");

    #[test]
    fn so_many_at_once_then_one_by_one_and_a_success_takes_all_back() {
        let clock = FakeRelativeClock::default();
        let counter = Counter::new(MAX, clock.clone());
        let charge = |times| (0..times).map(|_| counter.charge("ann").is_ok()).collect::<Vec<_>>();
        assert_eq!(charge(4), [true, true, true, false]);
        assert_eq!(counter.charge("ann"), Err(Duration::from_secs(20)));
        assert_eq!(counter.charge("bob"), Ok(()));
        clock.advance(Duration::from_secs(20));
        assert_eq!(charge(2), [true, false]);
        counter.forget(&"ann");
        assert_eq!(charge(4), [true, true, true, false]);
    }

    #[test]
    fn who_has_not_tried_for_a_while_takes_no_memory() {
        let clock = FakeRelativeClock::default();
        let counter = Counter::new(MAX, clock.clone());
        (0..=SWEEP_ABOVE).for_each(|key| counter.charge(key).unwrap());
        clock.advance(Duration::from_secs(120));
        counter.charge(0).unwrap();
        assert_eq!(counter.states.len(), 1);
    }

    #[test]
    fn an_identity_is_one_in_any_case_of_letters_but_not_in_another_collection() {
        assert_eq!(identity_key(&["default", "users"], "Ann@x "), identity_key(&["default", "users"], "ann@X"));
        assert_ne!(identity_key(&["default", "users"], "ann"), identity_key(&["shop", "users"], "ann"));
        assert_ne!(identity_key(&["a", "b"], "c"), identity_key(&["ab"], "c"));
    }

    #[test]
    fn addresses_of_one_client_are_counted_together() {
        let network = |text: &str| network(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
        assert_ne!(network("10.0.0.2"), network("10.0.0.1"));
    }

    #[test]
    fn a_limit_of_zero_is_none() {
        let limiter = LoginLimiter::new(&LoginLimits { attempts_per_address: 0, failures_per_identity: 0 });
        for _ in 0..1000 {
            assert!(limiter.attempt(IpAddr::from([10, 0, 0, 1]), &["default"], "ann").is_ok());
        }
    }
}
