use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use vski_replication::position::hex;
use vski_replication::token::Secrets;

use super::END_WITH_PARENT;
use crate::cli::Failure;

/// How long a node may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How often a node is asked.
const POLL: Duration = Duration::from_millis(50);

/// The demo's processes. The last started are the first to stop.
pub struct Nodes {
    root: PathBuf,
    port: u16,
    secret: String,
    secrets: Secrets,
    client: reqwest::Client,
    running: Vec<Node>,
}

struct Node {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Nodes {
    /// Nothing runs yet, and the ports of `nodes` are free. The secret of a kept directory stays the same.
    pub fn new(root: PathBuf, port: u16, nodes: u16) -> Result<Self, Failure> {
        for port in port..port + nodes {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
                .map_err(|error| Failure::setup(format!("port {port}: {error}; choose others with --port")))?;
        }
        let failed =
            |what: &str, error: std::io::Error| Failure::setup(format!("{what} in {}: {error}", root.display()));
        std::fs::create_dir_all(&root).map_err(|error| failed("make the data directory", error))?;
        let file = root.join("secret");
        if !file.exists() {
            let secret: String = hex(&rand::random::<[u8; 32]>());
            std::fs::write(&file, secret).map_err(|error| failed("write the secret", error))?;
        }
        let secret = std::fs::read_to_string(&file).map_err(|error| failed("read the secret", error))?;
        let client =
            reqwest::Client::builder().timeout(Duration::from_secs(10)).no_proxy().build().map_err(Failure::setup)?;
        Ok(Self { root, port, secrets: Secrets::new(&secret, None), secret, client, running: Vec::new() })
    }

    /// Where everything is kept.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Signs tokens that all nodes accept.
    pub fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// How many processes run.
    pub fn count(&self) -> usize {
        self.running.len()
    }

    /// The address of the master (0) or a replica (1, 2 …).
    pub fn url(&self, number: u16) -> String {
        format!("http://127.0.0.1:{}", self.port + number)
    }

    pub fn start_master(&mut self, (email, password): (&str, &str)) -> Result<(), Failure> {
        let port = self.port.to_string();
        let env = [("HOST", "127.0.0.1"), ("PORT", &port), ("ADMIN_EMAIL", email), ("ADMIN_PASSWORD", password)];
        self.start("master", "master", &["serve"], &env)
    }

    /// A server and, as a process of its own over the same directory, its agent.
    pub fn start_replica(&mut self, number: u16) -> Result<(), Failure> {
        let (id, master, public) = (format!("r{number:03}"), self.url(0), self.url(number));
        let port = (self.port + number).to_string();
        let common =
            [("MASTER_URL", master.as_str()), ("REPLICA_ID", &id), ("PUBLIC_URL", &public), ("SYNC_MODE", "stream")];
        let server =
            [("HOST", "127.0.0.1"), ("PORT", port.as_str()), ("REPLICA_MODE", "replica"), ("SYNC_AGENT", "external")];
        self.start(&id, &id, &["serve"], &[&common[..], &server].concat())?;
        self.start(
            &format!("{id}-agent"),
            &id,
            &["agent", "run"],
            &[&common[..], &[("AGENT_ADDR", "127.0.0.1:0")]].concat(),
        )
    }

    /// Waits until a node answers that it is ready, or the first process ends.
    pub async fn wait_ready(&mut self, url: &str, limit: Duration) -> Result<(), Failure> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            self.check_running()?;
            let answer = self.client.get(format!("{url}/readyz")).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
        Err(Failure::work(format!(
            "{url} did not become ready in {} s: see the logs in {}",
            limit.as_secs(),
            self.root.display()
        )))
    }

    /// A node's JSON answer.
    pub async fn get(&self, url: &str, token: Option<String>) -> Result<Value, Failure> {
        let mut request = self.client.get(url);
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        let failed = |error: reqwest::Error| Failure::work(format!("GET {url}: {}", error.without_url()));
        request.send().await.map_err(failed)?.json().await.map_err(failed)
    }

    /// Returns, with an error, when a process ends by itself.
    pub async fn watch(&mut self) -> Result<(), Failure> {
        loop {
            self.check_running()?;
            tokio::time::sleep(POLL * 10).await;
        }
    }

    /// Asks all processes to end, the last started first, and waits for each.
    pub async fn stop(&mut self) -> Result<(), Failure> {
        while let Some(mut node) = self.running.pop() {
            let asked = kill_process(Pid::from_child(&node.child), Signal::TERM);
            let deadline = Instant::now() + STOP_LIMIT;
            while asked.is_ok() && Instant::now() < deadline && matches!(node.child.try_wait(), Ok(None)) {
                tokio::time::sleep(POLL).await;
            }
            if matches!(node.child.try_wait(), Ok(None)) {
                println!("{} did not stop in {} s and is killed", node.name, STOP_LIMIT.as_secs());
                node.child.kill().and_then(|()| node.child.wait().map(|_| ())).map_err(Failure::work)?;
            }
        }
        Ok(())
    }

    fn start(&mut self, name: &str, directory: &str, args: &[&str], env: &[(&str, &str)]) -> Result<(), Failure> {
        let program = std::env::current_exe().map_err(|error| Failure::setup(format!("find this program: {error}")))?;
        let log = self.root.join(format!("{name}.log"));
        let file = open_log(&log)?;
        let copy = file.try_clone().map_err(|error| Failure::setup(format!("write {}: {error}", log.display())))?;
        let kept = ["PATH", "HOME", "RUST_LOG", "RUST_BACKTRACE", "TMPDIR"];
        let child = Command::new(&program)
            .args(args)
            .env_clear()
            .envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .envs(env.iter().copied())
            .env("JWT_SECRET", &self.secret)
            .env("DATA_DIR", self.root.join(directory))
            .env(END_WITH_PARENT, "1")
            .stdin(Stdio::null())
            .stdout(copy)
            .stderr(file)
            // Ctrl-C reaches the demo alone, which then stops its nodes in order.
            .process_group(0)
            .spawn()
            .map_err(|error| Failure::setup(format!("start {}: {error}", program.display())))?;
        self.running.push(Node { name: name.to_owned(), child, log });
        Ok(())
    }

    fn check_running(&mut self) -> Result<(), Failure> {
        for node in &mut self.running {
            if let Ok(Some(status)) = node.child.try_wait() {
                let log = std::fs::read_to_string(&node.log).unwrap_or_default();
                let last = log.lines().last().unwrap_or("its log is empty").to_owned();
                return Err(Failure::work(format!("{} ended by itself ({status}): {last}", node.name)));
            }
        }
        Ok(())
    }
}

fn open_log(path: &Path) -> Result<File, Failure> {
    let opened = OpenOptions::new().create(true).append(true).open(path);
    opened.map_err(|error| Failure::setup(format!("write {}: {error}", path.display())))
}
