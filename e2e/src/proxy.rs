//! A TCP proxy between two nodes that can do what networks do: refuse, fall silent, take their time, and break off in
//! the middle of an answer. One thread accepts; per connection and direction one reads, and one writes what is due.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often a copying thread looks whether it should end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Most bytes that are read at once.
const CHUNK: usize = 16 << 10;

/// Chunks that are on their way in one direction of a connection, at most.
const ON_THEIR_WAY: usize = 256;

/// What the network does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// It works.
    Whole,
    /// Connections are closed as soon as they are made; those that were open are closed too.
    Refuses,
    /// A silent partition: connections stay, and no byte comes through in either direction. What was sent meanwhile
    /// arrives once it is whole again, as TCP has it.
    Silent,
    /// Falls silent after that many more bytes of answers, over all connections.
    SilentAfter(u64),
    /// Each connection breaks after that many bytes of answers, counted from when it was set or the connection made.
    CutAfter(u64),
    /// It works, and every byte takes that long, in each direction.
    Slow(Duration),
}

/// A network in front of a node. Its connections end when it is dropped.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// Signalled for each change of the network.
    changed: Condvar,
}

struct State {
    network: Network,
    target: SocketAddr,
    /// Both ends of the open connections.
    open: Vec<[TcpStream; 2]>,
    /// Set once, at the end.
    over: bool,
    /// Counts changes: a connection's budget of bytes begins anew with each.
    changes: u64,
}

/// Which way a thread copies.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Requests,
    Answers,
}

/// What may pass of the bytes that were read.
struct Admitted {
    count: usize,
    /// Whether the connection breaks after them.
    breaks: bool,
    /// How long they are on their way.
    takes: Duration,
}

impl Proxy {
    /// A working network in front of the node at `url`.
    pub fn start(url: &str) -> Result<Self> {
        Self::start_on(Ipv4Addr::LOCALHOST.into(), url)
    }

    /// The same on another address of this machine, such as the one that containers know it by.
    pub fn start_on(address: IpAddr, url: &str) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).context("listen for the proxy")?;
        let address = listener.local_addr()?;
        let state = State { network: Network::Whole, target: parse(url)?, open: Vec::new(), over: false, changes: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for outside in listener.incoming().map_while(Result::ok) {
                if accepting.state().over {
                    return;
                }
                // A node that is down looks like a network that refuses.
                let _ = accepting.connect(outside);
            }
        });
        Ok(Self { address, shared })
    }

    /// Where the node is reached through it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes what the network does from now on.
    pub fn set(&self, network: Network) {
        let mut state = self.shared.state();
        state.network = network;
        state.changes += 1;
        if network == Network::Refuses {
            close(&mut state);
        }
        drop(state);
        self.shared.changed.notify_all();
    }

    /// What it does now.
    #[must_use]
    pub fn network(&self) -> Network {
        self.shared.state().network
    }

    /// Leads to another node from now on; open connections end.
    pub fn lead_to(&self, url: &str) -> Result<()> {
        let mut state = self.shared.state();
        state.target = parse(url)?;
        close(&mut state);
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.over = true;
        close(&mut state);
        drop(state);
        self.shared.changed.notify_all();
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    /// No thread leaves a half-made change behind.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn connect(self: &Arc<Self>, outside: TcpStream) -> std::io::Result<()> {
        let (network, target) = {
            let state = self.state();
            (state.network, state.target)
        };
        if network == Network::Refuses {
            return outside.shutdown(Shutdown::Both);
        }
        let inside = TcpStream::connect(target)?;
        for stream in [&outside, &inside] {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(LOOK_EVERY))?;
        }
        {
            let mut state = self.state();
            if state.target != target || state.network == Network::Refuses {
                // It has changed meanwhile, after those that were open had been closed.
                return outside.shutdown(Shutdown::Both);
            }
            state.open.push([outside.try_clone()?, inside.try_clone()?]);
        }
        let (from, to) = (inside.try_clone()?, outside.try_clone()?);
        let (requests, answers) = (Arc::clone(self), Arc::clone(self));
        std::thread::spawn(move || requests.copy(Way::Requests, outside, inside));
        std::thread::spawn(move || answers.copy(Way::Answers, from, to));
        Ok(())
    }

    /// Copies until either end is closed, and closes the other.
    fn copy(&self, way: Way, from: TcpStream, to: TcpStream) {
        let (mut buffer, mut passed, mut since) = ([0; CHUNK], 0, self.state().changes);
        let (send, due) = sync_channel(ON_THEIR_WAY);
        std::thread::scope(|scope| {
            scope.spawn(|| deliver(due, &from, &to));
            // What was read is still delivered when this ends: its end of the channel is dropped first.
            let send = send;
            loop {
                match (&from).read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => {
                        let admitted = self.admit(way, count, &mut passed, &mut since);
                        let Some(Admitted { count, breaks, takes }) = admitted else { break };
                        if send.send((Instant::now() + takes, buffer[..count].to_vec())).is_err() || breaks {
                            break;
                        }
                    }
                    Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                        if self.state().over {
                            break;
                        }
                    }
                    Err(_) => break,
                }
            }
        });
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    }

    /// What may pass of `count` bytes; waits while the network is silent. `None`: nothing, and the connection breaks now.
    fn admit(&self, way: Way, count: usize, passed: &mut u64, since: &mut u64) -> Option<Admitted> {
        let at_once = Admitted { count, breaks: false, takes: Duration::ZERO };
        let mut state = self.state();
        loop {
            if state.over || state.network == Network::Refuses {
                return None;
            }
            if *since != state.changes {
                (*since, *passed) = (state.changes, 0);
            }
            match (&mut state.network, way) {
                (Network::Silent | Network::SilentAfter(0), _) => {}
                (Network::SilentAfter(left), Way::Answers) => {
                    *left = left.saturating_sub(count as u64);
                    return Some(at_once);
                }
                (Network::CutAfter(most), Way::Answers) => {
                    let may = usize::try_from(most.saturating_sub(*passed)).unwrap_or(count).min(count);
                    *passed += may as u64;
                    return Some(Admitted { count: may, breaks: *passed >= *most, ..at_once });
                }
                (Network::Slow(takes), _) => return Some(Admitted { takes: *takes, ..at_once }),
                _ => return Some(at_once),
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Writes chunks when they are due. Where nobody takes them any more, their source is told.
fn deliver(chunks: Receiver<(Instant, Vec<u8>)>, from: &TcpStream, mut to: &TcpStream) {
    for (due, chunk) in chunks {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&chunk).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}

fn close(state: &mut State) {
    for stream in state.open.drain(..).flatten() {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn parse(url: &str) -> Result<SocketAddr> {
    url.trim_start_matches("http://").parse().with_context(|| format!("{url} as http://address:port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node that answers each byte with a thousand.
    fn node() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for mut stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    while stream.read_exact(&mut [0]).is_ok() && stream.write_all(&[7; 1_000]).is_ok() {}
                });
            }
        });
        url
    }

    fn connect(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Bytes that come before the end of the connection or of `most`.
    fn read(stream: &mut TcpStream, most: usize) -> usize {
        let (mut buffer, mut total) = (vec![0; most], 0);
        while total < most {
            match stream.read(&mut buffer[total..]) {
                Ok(0) | Err(_) => break,
                Ok(count) => total += count,
            }
        }
        total
    }

    #[test]
    fn a_whole_network_passes_everything_and_a_cut_one_what_it_was_told() {
        let proxy = Proxy::start(&node()).unwrap();
        let mut stream = connect(&proxy);
        stream.write_all(&[1]).unwrap();
        assert_eq!(read(&mut stream, 1_000), 1_000);
        proxy.set(Network::CutAfter(600));
        stream.write_all(&[1]).unwrap();
        assert_eq!(read(&mut stream, 1_000), 600);
        proxy.set(Network::Refuses);
        assert_eq!(read(&mut connect(&proxy), 1), 0);
    }

    #[test]
    fn what_was_sent_in_silence_arrives_afterwards() {
        let proxy = Proxy::start(&node()).unwrap();
        proxy.set(Network::Silent);
        let mut stream = connect(&proxy);
        stream.write_all(&[1]).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(150))).unwrap();
        assert_eq!(read(&mut stream, 1), 0, "it is silent");
        proxy.set(Network::Whole);
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(read(&mut stream, 1_000), 1_000);
    }

    #[test]
    fn a_network_leads_to_another_node_and_open_connections_end() {
        let proxy = Proxy::start(&node()).unwrap();
        let mut old = connect(&proxy);
        old.write_all(&[1]).unwrap();
        assert_eq!(read(&mut old, 1_000), 1_000);
        proxy.lead_to(&node()).unwrap();
        assert_eq!(read(&mut old, 1), 0);
        let mut new = connect(&proxy);
        new.write_all(&[1]).unwrap();
        assert_eq!(read(&mut new, 1_000), 1_000);
    }

    #[test]
    fn a_slow_network_takes_its_time_both_ways_and_passes_what_is_sent_meanwhile() {
        const TAKES: Duration = Duration::from_millis(60);
        let proxy = Proxy::start(&node()).unwrap();
        proxy.set(Network::Slow(TAKES));
        let mut stream = connect(&proxy);
        let began = Instant::now();
        for _ in 0..50 {
            stream.write_all(&[1]).unwrap();
        }
        assert_eq!(read(&mut stream, 50_000), 50_000);
        assert!(began.elapsed() >= 2 * TAKES, "{:?}", began.elapsed());
    }
}
