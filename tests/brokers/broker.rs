//! The running broker, and bridges to it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::harness::{Workdir, checkout, eventually, program};

/// The stream of NATS that holds the subjects of all tests.
const STREAM: &str = "RV";

/// The longest wait for records.
const PATIENCE: Duration = Duration::from_secs(120);

/// A broker that `scripts/services/brokers.sh` has started.
pub struct Broker {
    pub kind: String,
    folder: PathBuf,
    address: String,
}

impl Broker {
    /// The broker that the environment names.
    pub fn running() -> Broker {
        let variable = |name: &str| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set; scripts/check_brokers.sh sets it"))
        };
        let folder = PathBuf::from(variable("RV_BROKER_DIR"));
        let address = fs::read_to_string(folder.join("address")).unwrap();
        let broker = Broker {
            kind: variable("RV_BROKER_KIND"),
            address: address.trim().to_owned(),
            folder,
        };
        if broker.kind == "nats" {
            broker.make_stream();
        }
        broker
    }

    /// The address of a topic. Names must differ from test to test.
    pub fn topic(&self, name: &str) -> String {
        match self.kind.as_str() {
            "nats" => format!("nats://{}/{STREAM}/{STREAM}.{name}", self.address),
            "kafka" => format!("kafka://{}/{name}", self.address),
            "pulsar" => format!("pulsar://{}/public/default/{name}", self.address),
            kind => panic!("no broker {kind}"),
        }
    }

    fn script(&self, args: &[&str]) {
        let status = Command::new(checkout().join("scripts/services/brokers.sh"))
            .args(args)
            .status();
        assert!(status.unwrap().success(), "{args:?}");
    }

    /// Kills the broker.
    pub fn kill(&self) {
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let gone = eventually(|| rustix::process::test_kill_process(pid).err());
        gone.expect("the broker is gone");
        fs::remove_file(self.folder.join("pid")).unwrap();
    }

    /// Starts the broker again, with its data.
    pub fn start(&self) {
        self.script(&["start", &self.kind, self.folder.to_str().unwrap()]);
    }

    /// Makes the stream of NATS, by a request as the client sends it.
    fn make_stream(&self) {
        let stream = TcpStream::connect(&self.address).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        let mut from = BufReader::new(stream.try_clone().unwrap());
        let mut to = stream;
        let body = format!(r#"{{"name":"{STREAM}","subjects":["{STREAM}.>"],"storage":"file"}}"#);
        write!(
            to,
            "CONNECT {{\"verbose\":false}}\r\nSUB answer 1\r\n\
             PUB $JS.API.STREAM.CREATE.{STREAM} answer {}\r\n{body}\r\n",
            body.len()
        )
        .unwrap();
        let mut line = String::new();
        while !line.starts_with("MSG") {
            line.clear();
            from.read_line(&mut line).unwrap();
        }
        let length: usize = line.split_whitespace().last().unwrap().parse().unwrap();
        let mut answer = vec![0; length];
        from.read_exact(&mut answer).unwrap();
        let answer = String::from_utf8(answer).unwrap();
        assert!(!answer.contains("\"error\""), "{answer}");
    }

    /// Publishes lines to a topic.
    pub fn publish(&self, workdir: &Workdir, topic: &str, lines: &str) {
        let mut bridge = bridge(workdir, &["--to", &self.topic(topic)])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = bridge.stdin.take().unwrap();
        stdin.write_all(lines.as_bytes()).unwrap();
        drop(stdin);
        assert!(bridge.wait().unwrap().success());
    }

    /// Reads a topic from its start until `is_done`, or for two minutes. Returns the
    /// lines.
    pub fn read_until(
        &self,
        workdir: &Workdir,
        topic: &str,
        mut is_done: impl FnMut(&[String]) -> bool,
    ) -> Vec<String> {
        let address = format!("{}?from=earliest", self.topic(topic));
        let end = Instant::now() + PATIENCE;
        let mut lines = Vec::new();
        while !is_done(&lines) && Instant::now() < end {
            // The topic may not be there yet. Then the bridge ends, and begins anew.
            lines.clear();
            let mut reading = Reading::start(bridge(workdir, &["--from", &address]));
            while !is_done(&lines) && Instant::now() < end && reading.is_running() {
                lines.extend(reading.some_lines());
            }
            lines.extend(reading.end());
        }
        lines
    }

    /// The lines that a topic with options gives from its start within `time`.
    pub fn read_for(&self, workdir: &Workdir, topic: &str, time: Duration) -> Vec<String> {
        let (name, options) = topic.split_once('?').unwrap();
        let address = format!("{}?from=earliest&{options}", self.topic(name));
        let mut bridge = bridge(workdir, &["--from", &address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(time);
        signal(&bridge, Signal::TERM);
        let mut text = String::new();
        bridge
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        bridge.wait().unwrap();
        text.lines().map(str::to_owned).collect()
    }

    /// Reads a topic from its start until it has given `count` lines.
    pub fn read(&self, workdir: &Workdir, topic: &str, count: usize) -> Vec<String> {
        let lines = self.read_until(workdir, topic, |lines| lines.len() >= count);
        assert!(lines.len() >= count, "{} of {count} lines", lines.len());
        lines
    }

    /// The lines that a group would still be given, within a few seconds.
    pub fn unread(&self, workdir: &Workdir, topic: &str, group: &str) -> Vec<String> {
        let address = format!("{}?group={group}&done=written", self.topic(topic));
        let mut bridge = bridge(workdir, &["--from", &address])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_secs(5));
        signal(&bridge, Signal::TERM);
        let mut text = String::new();
        bridge
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut text)
            .unwrap();
        bridge.wait().unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

/// A bridge that prints a topic.
struct Reading {
    bridge: Child,
    lines: mpsc::Receiver<String>,
    thread: thread::JoinHandle<()>,
}

impl Reading {
    fn start(mut command: Command) -> Reading {
        let mut bridge = command.stdout(Stdio::piped()).spawn().unwrap();
        let stdout = bridge.stdout.take().unwrap();
        let (sender, lines) = mpsc::channel();
        let thread = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Reading {
            bridge,
            lines,
            thread,
        }
    }

    fn is_running(&mut self) -> bool {
        self.bridge.try_wait().unwrap().is_none()
    }

    fn some_lines(&self) -> Vec<String> {
        let first = self.lines.recv_timeout(Duration::from_millis(200));
        first.into_iter().chain(self.lines.try_iter()).collect()
    }

    fn end(mut self) -> Vec<String> {
        signal(&self.bridge, Signal::TERM);
        self.bridge.wait().unwrap();
        self.thread.join().unwrap();
        self.lines.try_iter().collect()
    }
}

/// A command that runs rv-bridge in a folder, with the other programs on PATH.
pub fn bridge(workdir: &Workdir, args: &[&str]) -> Command {
    let bridge = program("rv-bridge");
    let bin = bridge.parent().unwrap().to_owned();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(bin).chain(std::env::split_paths(&path));
    let mut command = Command::new(&bridge);
    command
        .args(args)
        .env("PATH", std::env::join_paths(paths).unwrap())
        .env("TMPDIR", workdir.path(""))
        .current_dir(workdir.path(""));
    command
}

pub fn signal(child: &Child, signal: Signal) {
    let _ = rustix::process::kill_process(Pid::from_child(child), signal);
}

/// A running bridge that is killed when it is dropped.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        Running(command.spawn().unwrap())
    }

    /// Tells the bridge to end, and returns its status.
    pub fn end(mut self) -> i32 {
        signal(&self.0, Signal::TERM);
        self.wait()
    }

    /// Waits for the end, and returns the status.
    pub fn wait(&mut self) -> i32 {
        let status = eventually(|| self.0.try_wait().unwrap()).expect("the bridge has not ended");
        status.code().unwrap_or(-1)
    }
}

/// The text of a member of each line, and how often it occurs.
pub fn counted(lines: &[String], member: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for line in lines {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = value[member].as_str().unwrap_or_default().to_owned();
        *counts.entry(text).or_default() += 1;
    }
    counts
}

/// Requests with the ids `PREFIX-0` to `PREFIX-(count - 1)`.
pub fn requests(prefix: &str, numbers: std::ops::Range<usize>) -> String {
    let one = |number| {
        format!(
            "{{\"messageId\":\"{prefix}-{number}\",\"timestamp\":1795000000.5,\"modelInput\":\
             {{\"sepalLength\":5.9,\"sepalWidth\":3.2,\"petalLength\":4.8,\"petalWidth\":1.8}}}}\n"
        )
    };
    numbers.map(one).collect()
}
