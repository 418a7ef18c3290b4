//! Runs programs in a temporary folder. The programs end with their test, and `limit`
//! bounds the time of a test.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use crate::limit::{Output, TimeLimit};

/// The longest time that a program of a test may run.
const PATIENCE: Duration = Duration::from_secs(60);

/// The path of a program of this package.
pub fn program(name: &str) -> PathBuf {
    let path = match name {
        "rv-archive" => env!("CARGO_BIN_EXE_rv-archive"),
        "rv-bridge" => env!("CARGO_BIN_EXE_rv-bridge"),
        "rv-compare" => env!("CARGO_BIN_EXE_rv-compare"),
        "rv-decoy" => env!("CARGO_BIN_EXE_rv-decoy"),
        "rv-es-sink" => env!("CARGO_BIN_EXE_rv-es-sink"),
        "rv-rendezvous" => env!("CARGO_BIN_EXE_rv-rendezvous"),
        "rv-request" => env!("CARGO_BIN_EXE_rv-request"),
        "rv-score" => env!("CARGO_BIN_EXE_rv-score"),
        "rv-tee" => env!("CARGO_BIN_EXE_rv-tee"),
        "rv-up" => env!("CARGO_BIN_EXE_rv-up"),
        _ => panic!("no program {name}"),
    };
    PathBuf::from(path)
}

/// The root of the checkout.
pub fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A temporary folder for one test. The folder is kept if the test fails.
pub struct Workdir {
    folder: TempDir,
    limit: Arc<TimeLimit>,
}

impl Workdir {
    pub fn new() -> Workdir {
        Workdir::new_in(&std::env::temp_dir())
    }

    /// Like `new`, but below `parent`.
    pub fn new_in(parent: &Path) -> Workdir {
        let folder = tempfile::Builder::new()
            .prefix("rv-test-")
            .tempdir_in(parent)
            .unwrap();
        Workdir {
            limit: Arc::new(TimeLimit::new(folder.path().to_owned())),
            folder,
        }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> String {
        fs::write(self.path(name), text).unwrap();
        self.path(name)
    }

    pub fn read(&self, name: &str) -> String {
        String::from_utf8(fs::read(self.path(name)).unwrap()).unwrap()
    }

    pub fn fifo(&self, name: &str) -> String {
        let path = self.path(name);
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mkfifoat(rustix::fs::CWD, &path, mode).unwrap();
        path
    }

    /// Trains both models of the demo on the iris data.
    pub fn train_iris_models(&self) -> (String, String) {
        let dt = self.train("decision-tree", "dt", 1);
        let lr = self.train("logistic-regression", "lr", 0);
        (dt, lr)
    }

    pub fn train(&self, algorithm: &str, name: &str, version: u32) -> String {
        let path = self.path(&format!("{name}.json"));
        let data = checkout().join("fixtures/iris.csv");
        self.run("rv-score")
            .args(["train", "--input", data.to_str().unwrap()])
            .args(["--target", "target", "--features"])
            .arg("sepalLength,sepalWidth,petalLength,petalWidth")
            .args(["--algorithm", algorithm, "--name", name])
            .args(["--model-version", &version.to_string(), "--output", &path])
            .succeeds();
        path
    }

    /// A command that runs a program of this package in this folder.
    pub fn run(&self, name: &str) -> Run {
        let mut command = Command::new(program(name));
        command.current_dir(self.folder.path());
        self.command(command)
    }

    fn command(&self, command: Command) -> Run {
        Run {
            command,
            input: Vec::new(),
            limit: Arc::clone(&self.limit),
        }
    }

    /// A command that runs a shell script, with the programs of this package on PATH.
    pub fn shell(&self, script: &str) -> Run {
        let bin = program("rv-score").parent().unwrap().to_owned();
        let path = std::env::var_os("PATH").unwrap_or_default();
        let paths = std::iter::once(bin).chain(std::env::split_paths(&path));
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", std::env::join_paths(paths).unwrap())
            .current_dir(self.folder.path());
        self.command(command)
    }

    /// A command that runs a shell script with a folder `disk` of 256 KiB; `None` if no
    /// file system can be mounted here.
    pub fn on_a_small_disk(&self, script: &str) -> Option<Run> {
        fs::create_dir(self.path("disk")).unwrap();
        let mount = "mount -t tmpfs -o size=256k none disk";
        for unshare in ["unshare --mount", "unshare --user --map-root-user --mount"] {
            let attempt = self.shell(&format!("{unshare} {mount}")).finish();
            if attempt.status == 0 {
                self.write("script", format!("set -euo pipefail; {mount}; {script}"));
                return Some(self.shell(&format!("exec {unshare} bash script")));
            }
        }
        None
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if thread::panicking() {
            self.folder.disable_cleanup(true);
            eprintln!(
                "the files of the test are in {}",
                self.folder.path().display()
            );
        }
    }
}

/// A command and its standard input.
pub struct Run {
    pub command: Command,
    input: Vec<u8>,
    limit: Arc<TimeLimit>,
}

impl Run {
    pub fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Run {
        self.command.arg(arg);
        self
    }

    pub fn args<A: AsRef<std::ffi::OsStr>>(mut self, args: impl IntoIterator<Item = A>) -> Run {
        self.command.args(args);
        self
    }

    pub fn input(mut self, input: impl AsRef<[u8]>) -> Run {
        self.input = input.as_ref().to_vec();
        self
    }

    /// Runs the command to its end.
    pub fn finish(mut self) -> Finished {
        let input = std::mem::take(&mut self.input);
        let mut running = self.start();
        let stdin = running.stdin.take();
        let feeding = thread::spawn(move || {
            // A program may end before it has read all input.
            let _ = stdin.unwrap().write_all(&input);
        });
        let stdout = running.stdout.take().unwrap();
        let reading = read_whole(stdout);
        let mut finished = running.wait();
        feeding.join().unwrap();
        finished.stdout = in_time(&finished, &reading);
        finished
    }

    /// Runs the command to its end, and fails the test unless its status is 0.
    pub fn succeeds(self) -> Finished {
        self.exits(0)
    }

    /// Runs the command to its end, and fails the test unless its status is `status`.
    pub fn exits(self, status: i32) -> Finished {
        let finished = self.finish();
        finished.assert_status(status);
        finished
    }

    /// Starts the program. The test gets its standard streams.
    pub fn start(mut self) -> Running {
        let name = format!("{:?}", self.command);
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.command.spawn().unwrap();
        let stderr = Stderr::collect(child.stderr.take().unwrap());
        self.limit.started(child.id(), &name, &stderr.text);
        Running {
            name,
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr,
            child,
            limit: self.limit,
        }
    }
}

/// A running program. The program is killed when this value is dropped.
pub struct Running {
    name: String,
    child: Child,
    pub stdin: Option<ChildStdin>,
    pub stdout: Option<ChildStdout>,
    stderr: Stderr,
    limit: Arc<TimeLimit>,
}

impl Running {
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Waits for a line of stderr that contains `text`, and returns the line.
    pub fn says(&self, text: &str) -> String {
        let found = eventually(|| {
            let said = self.stderr.so_far();
            said.lines()
                .find(|line| line.contains(text))
                .map(str::to_owned)
        });
        found.unwrap_or_else(|| {
            panic!(
                "{} has not printed {text:?}:\n{}",
                self.name,
                self.stderr.so_far()
            )
        })
    }

    /// The text of stderr so far.
    pub fn said(&self) -> String {
        self.stderr.so_far()
    }

    /// Writes to the program's standard input without delay.
    pub fn write(&mut self, text: impl AsRef<[u8]>) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin.write_all(text.as_ref()).unwrap();
        stdin.flush().unwrap();
    }

    /// Reads one line of the program's standard output, without the newline.
    pub fn line(&mut self) -> String {
        read_line(self.stdout.as_mut().unwrap())
    }

    /// Waits for the program's end.
    pub fn wait(mut self) -> Finished {
        let status = eventually(|| self.child.try_wait().unwrap());
        let Some(status) = status else {
            panic!(
                "{} has not ended in time:\n{}",
                self.name,
                self.stderr.so_far()
            );
        };
        let mut finished = Finished {
            name: self.name.clone(),
            status: status.code().unwrap_or(128 + status.signal().unwrap_or(0)),
            stdout: Vec::new(),
            stderr: self.stderr.so_far(),
        };
        if let Some(rest) = self.stdout.take() {
            finished.stdout = in_time(&finished, &read_whole(rest));
        }
        if let Some(reading) = self.stderr.reading.take() {
            in_time(&finished, &reading);
        }
        finished.stderr = self.stderr.so_far();
        finished
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.limit.ended(self.child.id());
    }
}

/// Reads a stream to its end, in a thread.
fn read_whole(mut from: impl Read + Send + 'static) -> mpsc::Receiver<Vec<u8>> {
    let (done, whole) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        let _ = done.send(bytes);
    });
    whole
}

/// The result of reading a stream of a program that has ended. Fails if a child of the
/// program holds the stream open too long.
fn in_time<T>(finished: &Finished, from: &mpsc::Receiver<T>) -> T {
    let received = from.recv_timeout(PATIENCE);
    received.unwrap_or_else(|_| panic!("another process holds the streams open of {finished}"))
}

/// A program that has ended.
#[derive(Debug)]
pub struct Finished {
    name: String,
    pub status: i32,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Finished {
    pub fn assert_status(&self, status: i32) {
        assert_eq!(self.status, status, "status of {self}");
    }

    pub fn stdout(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    pub fn lines(&self) -> Vec<&str> {
        self.stdout().lines().collect()
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        let stdout = String::from_utf8_lossy(&self.stdout);
        let shown: String = stdout.chars().take(4000).collect();
        write!(
            formatter,
            "{}\nstatus {}\nstdout:\n{shown}\nstderr:\n{}",
            self.name, self.status, self.stderr
        )
    }
}

/// The stderr of a program. A thread reads it, so that the program never waits for a
/// reader.
struct Stderr {
    text: Output,
    reading: Option<mpsc::Receiver<()>>,
}

impl Stderr {
    fn collect(mut stderr: ChildStderr) -> Stderr {
        let text = Output::default();
        let shared = Arc::clone(&text);
        let (done, reading) = mpsc::channel();
        thread::spawn(move || {
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = stderr.read(&mut block) {
                shared.lock().unwrap().extend_from_slice(&block[..count]);
            }
            let _ = done.send(());
        });
        Stderr {
            text,
            reading: Some(reading),
        }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.text.lock().unwrap()).into_owned()
    }
}

/// Calls `ask` until it returns a value; `None` if this takes longer than a program of
/// a test may run.
pub fn eventually<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() > end {
            return None;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Reads one line, byte by byte, so that all later bytes stay in the pipe.
pub fn read_line(from: &mut (impl Read + AsFd)) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        let so_far = || String::from_utf8_lossy(&line).into_owned();
        assert!(is_readable_in_time(from), "no line comes: {:?}", so_far());
        match from.read(&mut byte).unwrap() {
            0 => panic!("ended inside a line: {:?}", so_far()),
            _ if byte[0] == b'\n' => return String::from_utf8(line).unwrap(),
            _ => line.push(byte[0]),
        }
    }
}

fn is_readable_in_time(from: &impl AsFd) -> bool {
    let patience = Timespec {
        tv_sec: PATIENCE.as_secs() as i64,
        tv_nsec: 0,
    };
    poll(&mut [PollFd::new(from, PollFlags::IN)], Some(&patience)).unwrap() > 0
}

/// Opens a named pipe for writing as soon as it has a reader.
pub fn open_writer(path: &str) -> File {
    let open = || {
        let mut options = File::options();
        let options = options.write(true);
        // Without a reader, a non-blocking open fails immediately.
        options.custom_flags(OFlags::NONBLOCK.bits() as i32);
        match options.open(path) {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::NXIO.raw_os_error()) => {
                None
            }
            opened => Some(opened.unwrap()),
        }
    };
    let writer = eventually(open).unwrap_or_else(|| panic!("{path} has no reader"));
    rustix::fs::fcntl_setfl(&writer, OFlags::WRONLY).unwrap();
    writer
}

/// Opens a named pipe for reading as soon as it has a writer.
pub fn open_reader(path: &str) -> BufReader<File> {
    let (opened, reader) = mpsc::channel();
    let name = path.to_owned();
    // Opening a pipe for reading may block, so a thread does it.
    thread::spawn(move || opened.send(File::open(name).unwrap()));
    let reader = reader.recv_timeout(PATIENCE);
    BufReader::new(reader.unwrap_or_else(|_| panic!("{path} has no writer")))
}

/// The next line of a pipe, without its newline.
pub fn next_line(reader: &mut impl BufRead) -> String {
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "ended inside a line: {line:?}");
    line.trim_end_matches('\n').to_owned()
}

/// A request with the measurements of a flower.
pub fn request(id: &str) -> String {
    request_at(id, 1.5)
}

/// Like `request`, with the given timestamp in seconds.
pub fn request_at(id: &str, timestamp: f64) -> String {
    format!(
        r#"{{"messageId":"{id}","timestamp":{timestamp:.6},"modelInput":{{"sepalLength":5.1,"sepalWidth":3.5,"petalLength":1.4,"petalWidth":0.2}}}}"#
    )
}

/// A score of a request.
pub fn score(id: &str, model: &str, version: u32, result: u32) -> String {
    format!(
        r#"{{"messageId":"{id}","result":{{"modelName":"{model}","result":{result}}},"provenance":{{"model":{{"modelName":"{model}","modelVersion":{version}}}}}}}"#
    )
}

/// The JSON of a line.
pub fn json(line: &str) -> serde_json::Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// A count in the file of `--stats`.
pub fn stat(workdir: &Workdir, file: &str, name: &str) -> u64 {
    let stats = json(&workdir.read(file));
    let count = stats[name].as_u64();
    count.unwrap_or_else(|| panic!("no {name} in {stats}"))
}

/// The wall clock, in seconds.
pub fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.unwrap().as_secs_f64()
}

/// The processor time of a program, in ticks of the kernel.
pub fn processor_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = fields.split(' ').collect();
    // utime and stime are the 14th and 15th of all fields.
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

/// Fails if a program uses processor time while it waits. On a busy machine the program
/// may finish earlier work late, so one quiet half second among five is enough. A
/// program that spins has no quiet half second.
pub fn assert_idle(pid: u32) {
    let is_quiet = |_| {
        let before = processor_ticks(pid);
        thread::sleep(Duration::from_millis(500));
        processor_ticks(pid) == before
    };
    assert!((0..5).any(is_quiet), "process {pid} is never idle");
}

/// The resident memory of a program, in bytes; 0 if the program has ended.
pub fn resident_bytes_if_running(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    kib.map_or(0, |kib| kib.parse::<u64>().unwrap() * 1024)
}

/// The resident memory of a program, in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let bytes = resident_bytes_if_running(pid);
    assert!(bytes > 0, "{pid} has ended");
    bytes
}

/// A policy under which dt@1 may answer at once, and lr@0 from `lr_after_ms` on. Both
/// are expected.
pub fn dt_then_lr(deadline_ms: u32, lr_after_ms: u32) -> String {
    format!(
        r#"
deadline_ms = {deadline_ms}
expect = ["dt", "lr"]
[versions]
dt = 1
lr = 0
[[prefer]]
after_ms = 0
models = ["dt"]
[[prefer]]
after_ms = {lr_after_ms}
models = ["dt", "lr"]
"#
    )
}
