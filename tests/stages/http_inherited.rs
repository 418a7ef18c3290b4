//! rv-request with an inherited listening socket.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use crate::harness::{Workdir, eventually};
use crate::http::{Client, pipes};

/// Holds a listening socket, and starts the front end with it again and again: each line
/// of standard input kills the front end and starts the next one.
const HOLDER: &str = r#"
import ctypes, os, socket, subprocess, sys
held = socket.socket()
held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
held.bind((sys.argv[2], 0))
held.listen(4096)
os.dup2(held.fileno(), 3, inheritable=True)
environment = {**os.environ, "LISTEN_FDS": "1"}
environment.pop("LISTEN_PID", None)
environment.update(word.split("=") for word in sys.argv[4:])
command = [sys.argv[1], "--listen", sys.argv[3], "--responses", "responses", "-o", "requests"]
# The front end dies with the holder.
die = lambda: ctypes.CDLL(None).prctl(1, 9)
start = lambda: subprocess.Popen(command, env=environment, pass_fds=(3,), preexec_fn=die)
print(held.getsockname()[1], flush=True)
front_end = start()
for line in sys.stdin:
    front_end.kill()
    front_end.wait()
    front_end = start()
    print("again", flush=True)
front_end.kill()
"#;

fn holder(workdir: &Workdir, more: &[&str]) -> crate::harness::Running {
    let program = crate::harness::program("rv-request");
    let run = workdir.shell("exec python3 -c \"$@\"").args(["sh", HOLDER]);
    run.arg(program).args(more).start()
}

#[test]
fn a_front_end_that_is_killed_under_load_refuses_no_connection() {
    let workdir = pipes();
    let mut holder = holder(&workdir, &["127.0.0.1", "127.0.0.1:1"]);
    let address = format!("127.0.0.1:{}", holder.line().trim());
    holder.says(&format!("listening at http://{address}"));
    let stopping = Arc::new(AtomicBool::new(false));
    let (answered, failed) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (address, stopping) = (address.clone(), Arc::clone(&stopping));
            let (answered, failed) = (Arc::clone(&answered), Arc::clone(&failed));
            std::thread::spawn(move || {
                let call = format!("GET /ping HTTP/1.1\r\nhost: {address}\r\n\r\n");
                while !stopping.load(Relaxed) {
                    // A refused connection fails the test.
                    let mut client = Client::try_connect(&address).unwrap();
                    match client.try_call(&call) {
                        Ok(reply) if reply.status == 200 => answered.fetch_add(1, Relaxed),
                        _ => failed.fetch_add(1, Relaxed),
                    };
                }
            })
        })
        .collect();
    for _ in 0..20 {
        let before = answered.load(Relaxed);
        let goes_on = eventually(|| (answered.load(Relaxed) > before + 20).then_some(()));
        assert!(goes_on.is_some());
        holder.write("\n");
        assert_eq!(holder.line().trim(), "again");
    }
    let before = answered.load(Relaxed);
    assert!(eventually(|| (answered.load(Relaxed) > before).then_some(())).is_some());
    stopping.store(true, Relaxed);
    for caller in callers {
        caller.join().unwrap();
    }
    // Only calls that were open when their front end was killed have failed.
    assert!(failed.load(Relaxed) <= 20 * 4, "{failed:?}");
}

#[test]
fn the_variable_counts_only_for_this_process_and_for_a_listening_socket() {
    let workdir = pipes();
    // The variable is meant for another process, so --listen holds.
    let other = holder(&workdir, &["127.0.0.1", "127.0.0.1:0", "LISTEN_PID=1"]);
    let said = other.says("listening at http://127.0.0.1:");
    let own = said.rsplit_once(':').unwrap().1.trim().to_owned();
    drop(other);
    let free = eventually(|| TcpListener::bind(format!("127.0.0.1:{own}")).ok());
    assert!(free.is_some());
    let open = holder(&workdir, &["0.0.0.0", "127.0.0.1:0"]);
    open.says("can be reached from other machines");
    let script = "exec env LISTEN_FDS=1 rv-request --listen 127.0.0.1:0 --responses responses \
        -o requests 3< /dev/null";
    let none = workdir.shell(script).arg("sh").exits(3);
    assert!(none.stderr.contains("LISTEN_FDS"), "{}", none.stderr);
}
