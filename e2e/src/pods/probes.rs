use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::spec::{Container, Probe};
use crate::docker::try_docker;

/// How a container is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It runs.
    Fine {
        /// Its startup probe has passed.
        started: bool,
        /// Its readiness probe passes.
        ready: bool,
    },
    /// This probe has failed so often that the container has to be started anew.
    Kill(&'static str),
}

/// The probes of one run of a container.
pub struct Probes {
    startup: Option<Timer>,
    liveness: Option<Timer>,
    readiness: Option<Timer>,
    started: bool,
    ready: bool,
}

struct Timer {
    probe: Probe,
    due: Instant,
    failures: u32,
}

impl Probes {
    /// Those of a container that begins to run now.
    pub fn new(container: &Container, now: Instant) -> Self {
        let timer = |probe: &Option<Probe>| {
            probe.clone().map(|probe| Timer { due: now + seconds(probe.initial_delay_seconds), probe, failures: 0 })
        };
        let (startup, readiness) = (timer(&container.startup_probe), timer(&container.readiness_probe));
        let (started, ready) = (startup.is_none(), startup.is_none() && readiness.is_none());
        Self { startup, liveness: timer(&container.liveness_probe), readiness, started, ready }
    }

    /// Asks what is due.
    pub fn tick(&mut self, now: Instant, ask: impl Fn(&Probe) -> bool) -> Verdict {
        if let Some(startup) = self.startup.as_mut().filter(|_| !self.started) {
            match startup.ask(now, &ask) {
                Some(true) => {
                    self.started = true;
                    self.ready = self.readiness.is_none();
                }
                Some(false) if startup.failures >= startup.probe.failure_threshold => return Verdict::Kill("startup"),
                _ => {}
            }
        }
        if self.started {
            if let Some(liveness) = &mut self.liveness
                && liveness.ask(now, &ask) == Some(false)
                && liveness.failures >= liveness.probe.failure_threshold
            {
                return Verdict::Kill("liveness");
            }
            if let Some(readiness) = &mut self.readiness {
                match readiness.ask(now, &ask) {
                    Some(true) => self.ready = true,
                    Some(false) if readiness.failures >= readiness.probe.failure_threshold => self.ready = false,
                    _ => {}
                }
            }
        }
        Verdict::Fine { started: self.started, ready: self.ready }
    }
}

impl Timer {
    /// The answer, if it was due.
    fn ask(&mut self, now: Instant, ask: impl Fn(&Probe) -> bool) -> Option<bool> {
        (now >= self.due).then(|| {
            let passed = ask(&self.probe);
            self.failures = if passed { 0 } else { self.failures + 1 };
            self.due = now + seconds(self.probe.period_seconds);
            passed
        })
    }
}

/// Whether a probe of a running container passes.
pub fn passes(probe: &Probe, container: &Container, run: &str, address: IpAddr) -> bool {
    let timeout = seconds(probe.timeout_seconds);
    if let Some(get) = &probe.http_get {
        let Ok(port) = container.port(&get.port) else { return false };
        return status(SocketAddr::new(address, port), &get.path, timeout).is_ok_and(|code| (200..400).contains(&code));
    }
    let command = probe.exec.iter().flat_map(|exec| &exec.command).map(String::as_str);
    let arguments: Vec<&str> = ["exec", run].into_iter().chain(command).collect();
    try_docker(&arguments).is_ok_and(|ended| ended.status.success())
}

/// The status of a GET. Each step has the time-out; a kubelet limits them together.
fn status(address: SocketAddr, path: &str, timeout: Duration) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: kube-probe\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 12];
    stream.read_exact(&mut head)?;
    let code = head.strip_prefix(b"HTTP/1.1 ").or(head.strip_prefix(b"HTTP/1.0 "));
    let code = code.and_then(|code| std::str::from_utf8(code).ok()).and_then(|code| code.parse().ok());
    code.ok_or_else(|| std::io::Error::other("no HTTP"))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn container() -> Container {
        let probe =
            |path: &str| json!({"httpGet": {"path": path, "port": 1}, "periodSeconds": 10, "failureThreshold": 2});
        serde_json::from_value(json!({
            "name": "c", "image": "i", "startupProbe": probe("/s"), "livenessProbe": probe("/l"), "readinessProbe": probe("/r"),
        }))
        .unwrap()
    }

    /// Answers by path: those in `passing` pass.
    fn answer(passing: &'static [&'static str]) -> impl Fn(&Probe) -> bool {
        move |probe| probe.http_get.as_ref().is_some_and(|get| passing.contains(&get.path.as_str()))
    }

    #[test]
    fn nothing_else_is_asked_before_the_start_and_too_many_failures_end_it() {
        let mut now = Instant::now();
        let mut probes = Probes::new(&container(), now);
        let waiting = Verdict::Fine { started: false, ready: false };
        assert_eq!(probes.tick(now, answer(&["/l", "/r"])), waiting);
        assert_eq!(probes.tick(now + seconds(9), answer(&[])), waiting, "it was not due");
        now += seconds(10);
        assert_eq!(probes.tick(now, answer(&["/l", "/r"])), Verdict::Kill("startup"));
    }

    #[test]
    fn readiness_comes_and_goes_and_liveness_kills_at_its_threshold() {
        let mut now = Instant::now();
        let mut probes = Probes::new(&container(), now);
        let fine = |ready| Verdict::Fine { started: true, ready };
        assert_eq!(probes.tick(now, answer(&["/s", "/l"])), fine(false));
        let mut tick = |passing| {
            now += seconds(10);
            probes.tick(now, answer(passing))
        };
        assert_eq!(tick(&["/l", "/r"]), fine(true));
        assert_eq!(tick(&["/l"]), fine(true), "one failure is none");
        assert_eq!(tick(&["/l"]), fine(false));
        assert_eq!(tick(&["/r"]), fine(true));
        assert_eq!(tick(&["/r"]), Verdict::Kill("liveness"));
    }
}
