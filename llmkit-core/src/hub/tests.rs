//! Against a small server in this process, which answers as the hub does.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// An answer: the status line's number, headers, and the body.
type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

#[derive(Default)]
struct Server {
    answers: BTreeMap<String, Answer>,
}

/// One request: its path and what it sent as authorization.
type Seen = Arc<Mutex<Vec<(String, Option<String>)>>>;

impl Server {
    fn with(mut self, path: &str, status: u16, headers: &[(&'static str, &str)], body: &[u8]) -> Self {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.answers.insert(path.to_owned(), (status, headers, body.to_vec()));
        self
    }

    fn listing(self, files: &[&str]) -> Self {
        let siblings: Vec<_> = files.iter().map(|name| serde_json::json!({"rfilename": name})).collect();
        let body = serde_json::json!({"sha": COMMIT, "siblings": siblings}).to_string();
        self.with("/api/models/acme/tiny/revision/main", 200, &[], body.as_bytes())
    }

    fn file(self, name: &str, body: &[u8]) -> Self {
        let etag = format!("\"{}\"", name.replace('.', "-"));
        self.with(&format!("/acme/tiny/resolve/{COMMIT}/{name}"), 200, &[("ETag", &etag)], body)
    }

    /// Serves until the test's process ends.
    fn start(self) -> (String, Seen) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let seen = Seen::default();
        let (answers, log) = (self.answers, seen.clone());
        thread::spawn(move || {
            for stream in listener.incoming() {
                answer(stream.unwrap(), &answers, &log);
            }
        });
        (endpoint, seen)
    }
}

fn answer(mut stream: TcpStream, answers: &BTreeMap<String, Answer>, log: &Seen) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    let Some(request) = lines.next() else { return };
    let path = request.split(' ').nth(1).unwrap().to_owned();
    let headers: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let authorization =
        headers.iter().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned);
    log.lock().unwrap().push((path.clone(), authorization));
    let missing = (404, Vec::new(), Vec::new());
    let (status, answered, body) = answers.get(&path).unwrap_or(&missing);
    let (mut status, mut body, mut more) = (*status, body.as_slice(), String::new());
    // A file of which every connection brings seven bytes only, from where it is asked to begin.
    if answered.iter().any(|(name, _)| *name == "X-Breaks-Off") {
        let from = headers
            .iter()
            .find_map(|line| line.strip_prefix("range: bytes=")?.strip_suffix('-')?.parse().ok());
        let from: usize = from.unwrap_or(0);
        if from > 0 {
            status = 206;
            more = format!("Content-Range: bytes {from}-{}/{}\r\n", body.len() - 1, body.len());
        }
        more += &format!("Content-Length: {}\r\n", body.len() - from);
        body = &body[from..body.len().min(from + 7)];
    }
    let headers = answered;
    let mut head = format!("HTTP/1.1 {status} x\r\nConnection: close\r\n{more}");
    if more.is_empty() && !headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all((head + "\r\n").as_bytes()).unwrap();
    stream.write_all(body).unwrap();
}

fn paths(seen: &Seen) -> Vec<String> {
    seen.lock().unwrap().iter().map(|(path, _)| path.rsplit('/').next().unwrap().to_owned()).collect()
}

fn fetch_from(endpoint: &str, cache: &std::path::Path) -> Result<PathBuf> {
    Hub::new(endpoint, cache).fetch("acme/tiny", None, &mut |_| {})
}

fn reason(result: Result<PathBuf>) -> String {
    match result {
        Err(Error::Hub { reason, .. }) => reason,
        other => panic!("expected a failure of the hub, found {other:?}"),
    }
}

#[test]
fn what_a_model_needs_arrives_in_the_layout_of_huggingface_hub() {
    let cdn = Server::default().with("/content?signed", 200, &[], b"weights");
    let (cdn, cdn_seen) = cdn.start();
    let hash = "9dbf3e87a9b4d7b1f43b1d9a67c1f54b9d5c2d1b";
    let hub = Server::default()
        .listing(&[
            "config.json",
            "pytorch_model.bin",
            "../../config.json",
            "1_Pooling/config.json",
            "1_Pooling/../../config.json",
            "../1_Pooling/config.json",
            "README.md",
            SINGLE,
            "tokenizer.json",
        ])
        .file("config.json", b"{}")
        .file("tokenizer.json", b"{\"a\":1}")
        .with(
            &format!("/acme/tiny/resolve/{COMMIT}/1_Pooling/config.json"),
            200,
            &[("ETag", "\"pooling\"")],
            b"{\"pooling\":1}",
        )
        .with(
            &format!("/acme/tiny/resolve/{COMMIT}/{SINGLE}"),
            302,
            &[
                ("Location", &format!("{cdn}/content?signed")),
                ("X-Linked-Etag", &format!("\"{hash}\"")),
                ("X-Linked-Size", "7"),
            ],
            b"",
        );
    let (endpoint, seen) = hub.start();
    let cache = tempfile::tempdir().unwrap();
    let mut last = None;
    let folder = Hub::new(&endpoint, cache.path())
        .with_token("secret")
        .fetch("acme/tiny", None, &mut |progress| {
            last = Some((progress.file.to_owned(), progress.received, progress.total))
        })
        .unwrap();

    let repo = cache.path().join("models--acme--tiny");
    assert_eq!(folder, repo.join("snapshots").join(COMMIT));
    assert_eq!(std::fs::read_to_string(repo.join("refs/main")).unwrap(), COMMIT);
    assert_eq!(std::fs::read(folder.join(SINGLE)).unwrap(), b"weights");
    assert_eq!(std::fs::read(repo.join("blobs").join(hash)).unwrap(), b"weights");
    assert_eq!(std::fs::read(folder.join("config.json")).unwrap(), b"{}");
    assert_eq!(std::fs::read(folder.join("1_Pooling/config.json")).unwrap(), b"{\"pooling\":1}");
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 4);
    assert_eq!(last, Some((SINGLE.to_owned(), 7, Some(7))));
    #[cfg(unix)]
    assert_eq!(
        std::fs::read_link(folder.join(SINGLE)).unwrap(),
        std::path::Path::new("../../blobs").join(hash)
    );

    assert!(seen.lock().unwrap().iter().all(|(_, token)| token.as_deref() == Some("Bearer secret")));
    assert_eq!(*cdn_seen.lock().unwrap(), [("/content?signed".to_owned(), None)]);

    // The second time, only the branch is asked for.
    seen.lock().unwrap().clear();
    assert_eq!(fetch_from(&endpoint, cache.path()).unwrap(), folder);
    assert_eq!(paths(&seen), ["main"]);
    // A commit is not asked for at all, nor is anything offline.
    seen.lock().unwrap().clear();
    let hub = Hub::new(&endpoint, cache.path());
    assert_eq!(hub.fetch("acme/tiny", Some(COMMIT), &mut |_| {}).unwrap(), folder);
    assert_eq!(hub.with_offline(true).fetch("acme/tiny", None, &mut |_| {}).unwrap(), folder);
    assert!(seen.lock().unwrap().is_empty());
    // Nor does it matter when the hub is gone.
    assert_eq!(fetch_from(&closed_port(), cache.path()).unwrap(), folder);
    // A copy with a part missing does not pass as one.
    std::fs::remove_file(repo.join("blobs").join(hash)).unwrap();
    assert!(reason(fetch_from(&closed_port(), cache.path())).contains("has no complete copy"));
}

fn closed_port() -> String {
    format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

#[test]
fn shards_are_those_of_the_index() {
    let index = br#"{"weight_map": {"b": "model-2.safetensors", "a": "model-1.safetensors", "c": "model-2.safetensors"}}"#;
    let server = Server::default()
        .listing(&[
            "config.json",
            INDEX,
            "model-1.safetensors",
            "model-2.safetensors",
            "consolidated.safetensors",
        ])
        .file("config.json", b"{}")
        .file(INDEX, index)
        .file("model-1.safetensors", b"1")
        .file("model-2.safetensors", b"2");
    let (endpoint, seen) = server.start();
    let cache = tempfile::tempdir().unwrap();
    fetch_from(&endpoint, cache.path()).unwrap();
    assert_eq!(paths(&seen), ["main", "config.json", INDEX, "model-1.safetensors", "model-2.safetensors"]);
}

#[test]
fn an_index_can_not_reach_out_of_its_folder() {
    for shard in
        ["../model.safetensors", "/etc/x.safetensors", "a\\\\b.safetensors", ".safetensors", "model.bin"]
    {
        let server = Server::default()
            .listing(&["config.json", INDEX])
            .file("config.json", b"{}")
            .file(INDEX, format!("{{\"weight_map\": {{\"a\": \"{shard}\"}}}}").as_bytes());
        let (endpoint, _) = server.start();
        let cache = tempfile::tempdir().unwrap();
        assert!(reason(fetch_from(&endpoint, cache.path())).contains("malformed"), "{shard}");
    }
}

#[test]
fn damaged_and_broken_downloads_leave_nothing() {
    let wrong = format!("\"{}\"", "0".repeat(64));
    for (header, expected) in
        [(("ETag", wrong.as_str()), "was damaged"), (("Content-Length", "100"), "broke off after 7 bytes")]
    {
        let path = format!("/acme/tiny/resolve/{COMMIT}/{SINGLE}");
        let server = Server::default().listing(&["config.json", SINGLE]).file("config.json", b"{}").with(
            &path,
            200,
            &[header, ("X-Linked-Etag", if header.0 == "ETag" { &wrong } else { "\"abc\"" })],
            b"weights",
        );
        let (endpoint, _) = server.start();
        let cache = tempfile::tempdir().unwrap();
        let found = reason(fetch_from(&endpoint, cache.path()));
        assert!(found.contains(expected), "{found}");
        let blobs = std::fs::read_dir(cache.path().join("models--acme--tiny/blobs")).unwrap();
        let blobs: Vec<_> = blobs.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(blobs, ["config-json"]);
    }
}

/// A weights file that needs `connections` of seven bytes each.
fn breaking_off(body: &[u8]) -> (Server, String) {
    let hash: String = Sha256::digest(body).iter().map(|byte| format!("{byte:02x}")).collect();
    let path = format!("/acme/tiny/resolve/{COMMIT}/{SINGLE}");
    let server = Server::default().listing(&["config.json", SINGLE]).file("config.json", b"{}").with(
        &path,
        200,
        &[("ETag", &format!("\"{hash}\"")), ("X-Breaks-Off", "1")],
        body,
    );
    (server, hash)
}

#[test]
fn a_download_that_breaks_off_goes_on_from_there() {
    let body = b"twenty-four bytes, four ";
    let (server, hash) = breaking_off(body);
    let (endpoint, seen) = server.start();
    let cache = tempfile::tempdir().unwrap();
    let mut steps = Vec::new();
    let folder = Hub::new(&endpoint, cache.path())
        .fetch("acme/tiny", None, &mut |progress| {
            if progress.file == SINGLE {
                steps.push(progress.received);
            }
        })
        .unwrap();
    assert_eq!(std::fs::read(folder.join(SINGLE)).unwrap(), body);
    assert_eq!(steps, [0, 7, 7, 14, 14, 21, 21, 24]);
    // One connection for the first part; one that asks and one that goes on for each further one.
    assert_eq!(paths(&seen).iter().filter(|path| *path == SINGLE).count(), 7);
    let blobs = cache.path().join("models--acme--tiny/blobs");
    assert_eq!(std::fs::read(blobs.join(&hash)).unwrap(), body);
    assert!(!blobs.join(format!("{hash}.incomplete")).exists());
}

#[test]
fn what_arrived_is_built_on_the_next_time_if_it_is_right() {
    let body: Vec<u8> = (0..100).collect();
    let (server, hash) = breaking_off(&body);
    let (endpoint, _) = server.start();
    let cache = tempfile::tempdir().unwrap();
    // Six connections of seven bytes are not enough, and it says how far it came.
    assert!(reason(fetch_from(&endpoint, cache.path())).contains("broke off after 42 bytes"));
    let partial = cache.path().join("models--acme--tiny/blobs").join(format!("{hash}.incomplete"));
    assert_eq!(std::fs::read(&partial).unwrap(), body[..42]);
    assert!(reason(fetch_from(&endpoint, cache.path())).contains("broke off after 84 bytes"));
    let folder = fetch_from(&endpoint, cache.path()).unwrap();
    assert_eq!(std::fs::read(folder.join(SINGLE)).unwrap(), body);

    // A partial file that something else has written is noticed, and the next time it is whole again.
    let cache = tempfile::tempdir().unwrap();
    let partial = cache.path().join("models--acme--tiny/blobs").join(format!("{hash}.incomplete"));
    std::fs::create_dir_all(partial.parent().unwrap()).unwrap();
    std::fs::write(&partial, [9; 95]).unwrap();
    assert!(reason(fetch_from(&endpoint, cache.path())).contains("was damaged"));
    assert!(!partial.exists());
}

#[test]
fn a_single_file_and_files_in_folders() {
    let template = "additional_chat_templates/tool_use.jinja";
    let server = Server::default()
        .listing(&["config.json", SINGLE, template, "additional_chat_templates/../x.jinja", "q4/tiny.gguf"])
        .file("config.json", b"{}")
        .file(SINGLE, b"weights")
        .with(&format!("/acme/tiny/resolve/{COMMIT}/{template}"), 200, &[("ETag", "\"t\"")], b"tools")
        .with(&format!("/acme/tiny/resolve/{COMMIT}/q4/tiny.gguf"), 200, &[("ETag", "\"g\"")], b"GGUF");
    let (endpoint, seen) = server.start();
    let cache = tempfile::tempdir().unwrap();
    let folder = fetch_from(&endpoint, cache.path()).unwrap();
    assert_eq!(std::fs::read(folder.join(template)).unwrap(), b"tools");

    let hub = Hub::new(&endpoint, cache.path());
    let file = |hub: &Hub, revision, name| hub.fetch_file("acme/tiny", revision, name, &mut |_| {});
    let path = file(&hub, None, "q4/tiny.gguf").unwrap();
    assert_eq!(path, folder.join("q4/tiny.gguf"));
    assert_eq!(std::fs::read(&path).unwrap(), b"GGUF");
    seen.lock().unwrap().clear();
    assert_eq!(file(&hub, Some(COMMIT), "q4/tiny.gguf").unwrap(), path);
    let offline = hub.clone().with_offline(true);
    assert_eq!(file(&offline, None, "q4/tiny.gguf").unwrap(), path);
    assert!(reason(file(&offline, None, "q8/tiny.gguf")).contains("HF_HUB_OFFLINE"));
    assert!(seen.lock().unwrap().is_empty());
    assert_eq!(file(&Hub::new(closed_port(), cache.path()), None, "q4/tiny.gguf").unwrap(), path);
    assert!(reason(file(&hub, None, "q8/tiny.gguf")).contains("no file `q8/tiny.gguf`"));
    for name in ["../x", "/etc/passwd", "a/../b", "", "a//b", ".x", "a\\b"] {
        assert!(reason(file(&hub, None, name)).contains("not the path of a file"), "{name}");
    }
}

#[test]
fn refusals_say_what_to_do() {
    let api = "/api/models/acme/tiny/revision/main";
    let answer = |server: Server| {
        let (endpoint, _) = server.start();
        reason(fetch_from(&endpoint, tempfile::tempdir().unwrap().path()))
    };
    assert!(answer(Server::default().with(api, 401, &[], b"")).contains("set HF_TOKEN"));
    assert!(answer(Server::default()).contains("check the name"));
    assert!(answer(Server::default().listing(&["pytorch_model.bin"])).contains("pickled"));
    assert!(answer(Server::default().listing(&["tiny-q4.gguf"])).contains("GGUF"));
    assert!(
        answer(Server::default().with(api, 200, &[], br#"{"sha": "../../x"}"#)).contains("names no commit")
    );
    assert!(answer(Server::default().with(api, 302, &[("Location", api)], b"")).contains("circles"));

    let cache = tempfile::tempdir().unwrap();
    let hub = Hub::new(closed_port(), cache.path());
    for repo in ["../x", "a/b/c", "", "a/", "a b", "a/..", "a%2Fb"] {
        assert!(reason(hub.fetch(repo, None, &mut |_| {})).contains("`owner/name`"), "{repo}");
    }
    assert!(reason(hub.fetch("acme/tiny", Some("a/../b"), &mut |_| {})).contains("no revision"));
    let offline = hub.with_offline(true).fetch("acme/tiny", None, &mut |_| {});
    assert!(reason(offline).contains("HF_HUB_OFFLINE"));
}

/// An address that never answers, the worst that a closed network does.
#[test]
fn a_silent_network_fails_within_ten_seconds() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let begin = Instant::now();
    let cache = tempfile::tempdir().unwrap();
    assert!(reason(fetch_from(&endpoint, cache.path())).contains("can't be reached"));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}
