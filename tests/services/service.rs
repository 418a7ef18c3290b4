//! The running service, and the calls that the tests make to it.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use reqwest::blocking::Client;
use rustix::process::{Pid, Signal};
use serde_json::{Value, json};

use crate::harness::{checkout, eventually};

/// A service that `scripts/services/search.sh` has started.
pub struct Service {
    pub kind: String,
    pub folder: PathBuf,
    pub url: String,
    http: Client,
    /// The password of the user `admin`, who may do everything.
    login: Option<String>,
}

impl Service {
    /// The service that the environment names.
    pub fn running() -> Service {
        let variable = |name: &str| {
            std::env::var(name)
                .unwrap_or_else(|_| panic!("{name} is not set; scripts/check_services.sh sets it"))
        };
        let folder = PathBuf::from(variable("RV_SERVICE_DIR"));
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let certificates = read("ca.pem").map_or(Vec::new(), |pem| {
            reqwest::tls::Certificate::from_pem_bundle(pem.as_bytes()).unwrap()
        });
        let http = Client::builder()
            .no_proxy()
            .timeout(Duration::from_secs(60))
            .tls_certs_only(certificates);
        Service {
            kind: variable("RV_SERVICE_KIND"),
            url: read("url").unwrap().trim().to_owned(),
            http: http.build().unwrap(),
            login: read("password").map(|text| text.trim().to_owned()),
            folder,
        }
    }

    pub fn is_secure(&self) -> bool {
        self.login.is_some()
    }

    fn script(&self, args: &[&str]) {
        let status = Command::new(checkout().join("scripts/services/search.sh"))
            .args(args)
            .status();
        assert!(status.unwrap().success(), "{args:?}");
    }

    pub fn stop(&self) {
        self.script(&["stop", self.folder.to_str().unwrap()]);
    }

    pub fn kill(&self) {
        let pid = fs::read_to_string(self.folder.join("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
        let gone = eventually(|| rustix::process::test_kill_process(pid).err());
        gone.expect("the service is gone");
    }

    pub fn start(&self) {
        let folder = self.folder.to_str().unwrap();
        let mut args = vec!["start", &self.kind, folder];
        if self.is_secure() {
            args.push("--secure");
        }
        self.script(&args);
    }

    /// The status and the body of a reply.
    pub fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut call = self.http.request(method, format!("{}{path}", self.url));
        if let Some(password) = &self.login {
            call = call.basic_auth("admin", Some(password));
        }
        if let Some(body) = body {
            call = call
                .header("content-type", "application/json")
                .body(body.to_string());
        }
        let reply = call.send().unwrap();
        let status = reply.status().as_u16();
        let text = reply.text().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    /// The body of a reply. Fails unless the status is 200.
    pub fn get(&self, path: &str) -> Value {
        let (status, reply) = self.ask(Method::GET, path, None);
        assert_eq!(status, 200, "{path}: {reply}");
        reply
    }

    pub fn put(&self, path: &str, body: Value) {
        let (status, reply) = self.ask(Method::PUT, path, Some(body));
        assert_eq!(status, 200, "{path}: {reply}");
    }

    pub fn search(&self, index: &str, body: Value) -> Value {
        let path = format!("/{index}/_search");
        let (status, reply) = self.ask(Method::POST, &path, Some(body));
        assert_eq!(status, 200, "{reply}");
        reply
    }

    /// The number of documents that match `query`.
    pub fn count(&self, index: &str, query: Value) -> u64 {
        let (status, reply) = self.ask(
            Method::POST,
            &format!("/{index}/_count"),
            Some(json!({"query": query})),
        );
        assert_eq!(status, 200, "{reply}");
        reply["count"].as_u64().unwrap()
    }

    pub fn refresh(&self, index: &str) {
        let (status, reply) = self.ask(Method::POST, &format!("/{index}/_refresh"), None);
        assert_eq!(status, 200, "{reply}");
    }

    /// Checks that the index has exactly these documents, each once.
    pub fn holds_exactly(&self, index: &str, ids: impl IntoIterator<Item = String>) {
        self.refresh(index);
        let ids: BTreeSet<String> = ids.into_iter().collect();
        assert_eq!(
            self.count(index, json!({"match_all": {}})),
            ids.len() as u64
        );
        let ids: Vec<String> = ids.into_iter().collect();
        for some in ids.chunks(1000) {
            let found = self.count(index, json!({"ids": {"values": some}}));
            assert_eq!(
                found,
                some.len() as u64,
                "some of {:?}... are not there",
                some[0]
            );
        }
    }
}

/// A model's score of one request. Its timestamp has six decimals.
pub fn score(number: usize, model: &str) -> String {
    let version = u32::from(model == "dt");
    let result = if model == "dt" || !number.is_multiple_of(10) {
        1
    } else {
        2
    };
    format!(
        "{{\"messageId\":\"r-{number:06}\",\"timestamp\":{}.{:06},\"modelInput\":{{\"x\":{number}.10}},\
         \"result\":{{\"modelName\":\"{model}\",\"result\":{result}}},\
         \"provenance\":{{\"model\":{{\"modelName\":\"{model}\",\"modelVersion\":{version},\"elapsedTimeAfterRequest\":1.250}}}}}}\n",
        1_700_000_000 + number / 1000,
        number % 1000 * 1000 + 771,
    )
}

/// The scores of both models for each of these requests.
pub fn scores(numbers: std::ops::Range<usize>) -> String {
    numbers
        .flat_map(|number| ["dt", "lr"].map(|model| score(number, model)))
        .collect()
}

/// The ids of the documents of these scores.
pub fn score_ids(numbers: std::ops::Range<usize>) -> impl Iterator<Item = String> {
    numbers.flat_map(|number| [format!("r-{number:06}/dt/1"), format!("r-{number:06}/lr/0")])
}
