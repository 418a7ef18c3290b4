//! Tests of logins and TLS with a service that requires both.

use std::fs;

use reqwest::Method;
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::harness::{Finished, Run, Workdir, eventually, json};
use crate::service::{Service, score_ids, scores};

/// A service with logins and TLS, and a folder for the sink.
struct Secured {
    service: Service,
    workdir: Workdir,
}

impl Secured {
    fn new() -> Secured {
        let service = Service::running();
        assert!(service.is_secure(), "the service has no logins");
        Secured {
            service,
            workdir: Workdir::new(),
        }
    }

    fn file(&self, name: &str) -> String {
        self.service.folder.join(name).to_str().unwrap().to_owned()
    }

    /// A sink that trusts the service's certificate.
    fn sink(&self, index: &str) -> Run {
        crate::records::sink(&self.workdir, &self.service, index)
            .args(["--ca-file", &self.file("ca.pem")])
    }

    fn as_user(&self, index: &str, user: &str) -> Run {
        let password = self.file("password");
        self.sink(index)
            .args(["--user", user, "--password-file", &password])
    }

    /// Checks that no output contains a secret.
    fn keeps_its_secrets(&self, finished: &Finished, secrets: &[&str]) {
        let rejects = fs::read_to_string(self.workdir.path("rejects")).unwrap_or_default();
        let stats = fs::read_to_string(self.workdir.path("stats.json")).unwrap_or_default();
        let all = format!("{finished}{rejects}{stats}");
        for secret in secrets {
            assert!(!all.contains(secret), "{finished}");
        }
    }
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_password_and_the_certificate_of_an_authority_let_in() {
    let secured = Secured::new();
    let password = fs::read_to_string(secured.file("password")).unwrap();
    let finished = secured
        .as_user("secret-basic", "admin")
        .args(["-v", "--gzip"])
        .input(scores(0..500))
        .succeeds();
    secured.keeps_its_secrets(&finished, &[password.trim()]);
    secured
        .service
        .holds_exactly("secret-basic", score_ids(0..500));
    let mut run = secured.sink("secret-basic").args(["--user", "admin"]);
    run.command.env("RV_ES_PASSWORD", password.trim());
    run.input(scores(500..501)).succeeds();
    let finished = secured
        .workdir
        .run("rv-es-sink")
        .args([
            "setup",
            "--url",
            &secured.service.url,
            "--index",
            "secret-setup",
        ])
        .args(["--ca-file", &secured.file("ca.pem"), "--user", "admin"])
        .args(["--password-file", &secured.file("password")])
        .succeeds();
    assert!(
        finished.stderr.contains("rv-secret-setup is in place"),
        "{finished}"
    );
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn an_api_key_lets_in_for_what_it_is_for() {
    let secured = Secured::new();
    let body = json!({"name": "rv", "role_descriptors": {"w": {
        "index": [{"names": ["secret-key*"], "privileges": ["create_index", "index"]}]}}});
    let (status, key) = secured
        .service
        .ask(Method::POST, "/_security/api_key", Some(body));
    assert_eq!(status, 200, "{key}");
    let encoded = key["encoded"].as_str().unwrap();
    let file = secured.workdir.write("key", format!("{encoded}\n"));
    let run = |index: &str| secured.sink(index).args(["--api-key-file", &file]);
    let finished = run("secret-key").input(scores(0..50)).succeeds();
    secured.keeps_its_secrets(&finished, &[encoded]);
    secured
        .service
        .holds_exactly("secret-key", score_ids(0..50));
    // The key gives no right to this index. The sink holds the records, and rejects
    // them at the end.
    let mut running = run("elsewhere").args(["--grace", "1s"]).start();
    running.write(scores(0..2));
    drop(running.stdin.take());
    running.says("security_exception");
    running.signal(Signal::TERM);
    let finished = running.wait();
    finished.assert_status(143);
    secured.keeps_its_secrets(&finished, &[encoded]);
    assert_eq!(secured.workdir.read("rejects").lines().count(), 4);
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn who_is_not_let_in_is_told_before_anything_is_read() {
    let secured = Secured::new();
    let wrong = secured.workdir.write("wrong", "canary-secret\n");
    let other_ca = secured.workdir.path("other.pem");
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=other",
        ])
        .args([
            "-keyout",
            &secured.workdir.path("other.key"),
            "-out",
            &other_ca,
        ])
        .output();
    assert!(made.unwrap().status.success());
    let url = &secured.service.url;
    let plain = url.replace("https:", "http:");
    let sink = || crate::records::sink(&secured.workdir, &secured.service, "nobody");
    for (run, says) in [
        (secured.sink("nobody"), "other credentials (401)"),
        (
            secured
                .sink("nobody")
                .args(["--user", "admin", "--password-file", &wrong]),
            "other credentials (401)",
        ),
        (
            secured.sink("nobody").args(["--api-key-file", &wrong]),
            "other credentials (401)",
        ),
        (
            sink().args([
                "--ca-file",
                &other_ca,
                "--user",
                "admin",
                "--password-file",
                &wrong,
            ]),
            "--ca-file",
        ),
        (
            sink().args(["--user", "admin", "--password-file", &wrong]),
            "--ca-file",
        ),
    ] {
        let finished = run.input(scores(0..3)).finish();
        finished.assert_status(3);
        assert!(finished.stderr.contains(says), "{finished}");
        assert!(!finished.stderr.contains("were read"), "{finished}");
        secured.keeps_its_secrets(&finished, &["canary-secret", "Y2FuYXJ5"]);
    }
    // Plain HTTP gets no reply from a TLS port. This may be temporary, so the sink
    // tries again.
    let mut running = secured
        .workdir
        .run("rv-es-sink")
        .args(["--url", &plain, "--index", "nobody"])
        .start();
    running.says("trying again");
    running.signal(Signal::TERM);
    drop(running.stdin.take());
    running.wait().assert_status(0);
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_user_who_may_not_write_is_told_and_nothing_is_lost() {
    let secured = Secured::new();
    let finished = secured
        .as_user("nobody", "reader")
        .input(scores(0..3))
        .finish();
    finished.assert_status(3);
    assert!(finished.stderr.contains("(403)"), "{finished}");
    assert!(
        finished.stderr.contains("indices:data/write/bulk"),
        "{finished}"
    );
    assert_eq!(secured.workdir.read("rejects").lines().count(), 6);
}

#[test]
#[ignore = "needs a service; scripts/check_services.sh runs it"]
fn a_user_who_is_locked_out_for_a_while_loses_nothing() {
    let secured = Secured::new();
    let mut running = secured
        .as_user("secret-locked", "admin")
        .args(["--batch-age", "50ms", "--retry-max", "500ms"])
        .start();
    running.write(scores(0..10));
    let indexed = |expected: u64| {
        let found = eventually(|| {
            let text = fs::read_to_string(secured.workdir.path("stats.json")).ok()?;
            let stats: Value = serde_json::from_str(&text).ok()?;
            (stats["indexed"] == expected).then_some(())
        });
        found.unwrap_or_else(|| panic!("never {expected} indexed"));
    };
    indexed(20);
    // The service reads its file of users every few seconds.
    let users = secured.service.folder.join("config/users");
    let all = fs::read_to_string(&users).unwrap();
    let kept: String = all
        .lines()
        .filter(|line| !line.starts_with("admin:"))
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&users, kept).unwrap();
    let mut number = 10;
    eventually(|| {
        running.write(scores(number..number + 1));
        number += 1;
        std::thread::sleep(std::time::Duration::from_millis(200));
        let text = fs::read_to_string(secured.workdir.path("stats.json")).ok()?;
        (json(&text)["retried"].as_u64()? > 0).then_some(())
    })
    .expect("it is locked out");
    running.says("other credentials (401)");
    fs::write(&users, all).unwrap();
    drop(running.stdin.take());
    running.wait().assert_status(0);
    secured
        .service
        .holds_exactly("secret-locked", score_ids(0..number));
}
