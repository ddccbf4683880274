//! Pulling and pushing, with a server that answers as the test wants it to.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    Error, Paths, Silent,
    image::{Digest, Store},
};

/// A request, as far as the tests look at it.
#[derive(Clone, Debug)]
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An answer. `cut` ends the connection after that many bytes of the body.
#[derive(Clone, Debug, Default)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    cut: Option<usize>,
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> Answer {
    Answer { status, body: body.into(), ..Answer::default() }
}

impl Answer {
    fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }
}

/// A server on loopback; it ends with the test's process.
struct Server {
    port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    fn start(handle: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (handle, log) = (Arc::new(handle), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (handle, log) = (Arc::clone(&handle), Arc::clone(&log));
                std::thread::spawn(move || serve(stream, &*handle, &log));
            }
        });
        Self { port, seen }
    }

    fn name(&self, rest: &str) -> Reference {
        format!("127.0.0.1:{}/{rest}", self.port).parse().unwrap()
    }

    /// How often something was asked for, by the start of its path.
    fn count(&self, method: &str, path: &str) -> usize {
        let seen = self.seen.lock().unwrap();
        seen.iter().filter(|request| request.method == method && request.path.starts_with(path)).count()
    }
}

fn serve(stream: TcpStream, handle: &(dyn Fn(&Request) -> Answer + Send + Sync), log: &Mutex<Vec<Request>>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = Vec::new();
    if reader.read_until(b'\n', &mut line).is_err() {
        return;
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    let mut words = text.split_whitespace();
    let (Some(method), Some(path), Some("HTTP/1.1")) = (words.next(), words.next(), words.next()) else {
        // A greeting of TLS's: a server of plain HTTP answers like this.
        let _ = (&stream).write_all(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        return;
    };
    let mut request = Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: HashMap::new(),
        body: Vec::new(),
    };
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = request.header("content-length").parse().unwrap_or(0);
    request.body.resize(length, 0);
    reader.read_exact(&mut request.body).unwrap();
    log.lock().unwrap().push(request.clone());
    let answer = handle(&request);
    let mut head = format!(
        "HTTP/1.1 {} Some\r\nConnection: close\r\nContent-Length: {}\r\n",
        answer.status,
        answer.body.len()
    );
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    let mut stream = &stream;
    let end = answer.cut.unwrap_or(answer.body.len());
    let body = if request.method == "HEAD" { &[] } else { &answer.body[..end] };
    // The client may have heard enough.
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
}

/// An image as a registry has it: everything by its path after the repository's name.
#[derive(Clone)]
struct Served {
    blobs: HashMap<String, Vec<u8>>,
    types: HashMap<String, String>,
    layer: Digest,
    manifest: Digest,
    index: Digest,
}

const LAYER_SIZE: usize = 100_000;

fn image(architecture: &str) -> Served {
    let layer: Vec<u8> = (0..LAYER_SIZE).map(|i| (i * 7 % 251) as u8).collect();
    let config = json!({
        "architecture": architecture, "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [Digest::of(&layer).to_string()] },
    });
    let config = config.to_string().into_bytes();
    let describe = |media_type: &str, content: &[u8]| json!({ "mediaType": media_type, "digest": Digest::of(content).to_string(), "size": content.len() });
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2, "mediaType": manifest_type,
        "config": describe("application/vnd.oci.image.config.v1+json", &config),
        "layers": [describe("application/vnd.oci.image.layer.v1.tar", &layer)],
    });
    let manifest = manifest.to_string().into_bytes();
    let index_type = "application/vnd.oci.image.index.v1+json";
    let mut own = describe(manifest_type, &manifest);
    own["platform"] = json!({ "os": "linux", "architecture": architecture });
    let mut other = describe(manifest_type, b"elsewhere");
    other["platform"] = json!({ "os": "linux", "architecture": "riscv64" });
    let index = json!({ "schemaVersion": 2, "mediaType": index_type, "manifests": [other, own] });
    let index = index.to_string().into_bytes();
    let mut served = Served {
        blobs: HashMap::new(),
        types: HashMap::new(),
        layer: Digest::of(&layer),
        manifest: Digest::of(&manifest),
        index: Digest::of(&index),
    };
    for (kind, reference, content) in [
        (manifest_type, format!("manifests/{}", Digest::of(&manifest)), &manifest),
        (index_type, format!("manifests/{}", Digest::of(&index)), &index),
        (manifest_type, "manifests/one".to_owned(), &manifest),
        (index_type, "manifests/many".to_owned(), &index),
    ] {
        served.types.insert(reference.clone(), kind.to_owned());
        served.blobs.insert(reference, content.clone());
    }
    for content in [config, layer] {
        served.blobs.insert(format!("blobs/{}", Digest::of(&content)), content);
    }
    served
}

fn here() -> String {
    oci_spec::image::Arch::default().to_string()
}

impl Served {
    /// What a registry without any fault answers.
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap();
        let Some(path) = path.strip_prefix("/v2/a/b/") else { return answer(404, "") };
        let Some(content) = self.blobs.get(path) else {
            return answer(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#);
        };
        let from = request.header("range").strip_prefix("bytes=").and_then(|range| range.strip_suffix('-'));
        match from.map(|from| from.parse::<usize>().unwrap()) {
            Some(from) => {
                let (last, size) = (content.len() - 1, content.len());
                answer(206, &content[from..]).with("Content-Range", format!("bytes {from}-{last}/{size}"))
            }
            None => {
                let kind = self.types.get(path).cloned();
                answer(200, &content[..])
                    .with("Content-Type", kind.unwrap_or_else(|| "application/octet-stream".into()))
            }
        }
    }

    fn is_layer(&self, request: &Request) -> bool {
        request.path.contains(&self.layer.hex())
    }
}

struct Stage {
    directory: tempfile::TempDir,
    options: RegistryOptions,
}

impl Stage {
    fn new() -> Self {
        let retry = Retry { attempts: 4, pause: Duration::from_millis(5), longest: Duration::from_secs(2) };
        Self {
            directory: tempfile::tempdir().unwrap(),
            options: RegistryOptions { retry, ..RegistryOptions::default() },
        }
    }

    fn paths(&self) -> Paths {
        Paths::new(self.directory.path().join("state"), self.directory.path().join("run"))
    }

    fn store(&self) -> Store {
        Store::open(&self.paths().images()).unwrap()
    }

    async fn pull(&self, name: &Reference) -> Result<Pulled> {
        pull(&self.paths(), name, &self.options, &Silent).await
    }

    async fn problem(&self, name: &Reference) -> Problem {
        match self.pull(name).await.unwrap_err() {
            Error::Pull { source, .. } => *source,
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_variant_for_this_host_is_pulled_once() {
    let served = image(&here());
    let (stage, copy) = (Stage::new(), served.clone());
    let server = Server::start(move |request| copy.answer(request));
    let name = server.name("a/b:many");
    let pulled = stage.pull(&name).await.unwrap();
    assert_eq!((pulled.digest, pulled.image.manifest), (served.index, served.manifest));
    assert!(pulled.bytes > LAYER_SIZE as u64 && !pulled.was_there);
    let before = server.seen.lock().unwrap().len();
    let again = stage.pull(&name).await.unwrap();
    assert!(again.was_there && again.bytes == 0);
    assert_eq!(server.count("GET", &format!("/v2/a/b/blobs/{}", served.layer)), 1);
    assert_eq!(server.seen.lock().unwrap().len(), before + 1, "only what the tag stands for is asked");

    // By digest, and under another name: all of it is there.
    let pinned = server.name(&format!("a/b@{}", served.manifest));
    assert_eq!(stage.pull(&pinned).await.unwrap().bytes, 0);
    assert_eq!(stage.store().verify(&Silent).unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_pulls_are_one_download() {
    let served = image(&here());
    let (stage, copy) = (Stage::new(), served.clone());
    let server = Server::start(move |request| {
        if copy.is_layer(request) {
            std::thread::sleep(Duration::from_millis(200));
        }
        copy.answer(request)
    });
    let name = server.name("a/b:one");
    let (first, second) = tokio::join!(stage.pull(&name), stage.pull(&name));
    // Both may have read the manifest before either knew of the other.
    assert!(first.unwrap().bytes + second.unwrap().bytes < 2 * LAYER_SIZE as u64);
    assert_eq!(server.count("GET", &format!("/v2/a/b/blobs/{}", served.layer)), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_blob_goes_on_where_it_was_cut() {
    let served = image(&here());
    let (stage, copy, cuts) = (Stage::new(), served.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let mut answer = copy.answer(request);
        if copy.is_layer(request) && cuts.fetch_add(1, Ordering::Relaxed) < 6 {
            // More often than is tried in a row: there is progress.
            answer.cut = Some(10_000);
        }
        answer
    });
    let pulled = stage.pull(&server.name("a/b:one")).await.unwrap();
    assert!(pulled.bytes >= LAYER_SIZE as u64 && pulled.bytes < LAYER_SIZE as u64 + 5000, "{}", pulled.bytes);
    let seen = server.seen.lock().unwrap();
    let ranges: Vec<_> = seen
        .iter()
        .filter(|request| served.is_layer(request))
        .map(|request| request.header("range").to_owned())
        .collect();
    assert_eq!(ranges[..3], ["", "bytes=10000-", "bytes=20000-"]);
    drop(seen);
    assert_eq!(stage.store().verify(&Silent).unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_next_pull_goes_on_where_one_gave_up() {
    let served = image(&here());
    let (stage, copy) = (Stage::new(), served.clone());
    let cut = Arc::new(AtomicUsize::new(1));
    let cutting = Arc::clone(&cut);
    let server = Server::start(move |request| {
        let mut answer = copy.answer(request);
        if copy.is_layer(request) && cutting.load(Ordering::Relaxed) > 0 {
            answer.cut = Some(if request.header("range").is_empty() { 60_000 } else { 0 });
        }
        answer
    });
    let name = server.name("a/b:one");
    let problem = stage.problem(&name).await;
    assert!(matches!(problem, Problem::Cut { done: 60_000, .. }), "{problem:?}");
    assert!(stage.store().images().unwrap().is_empty());
    assert_eq!(stage.store().verify(&Silent).unwrap().damage, []);
    cut.store(0, Ordering::Relaxed);
    assert_eq!(stage.pull(&name).await.unwrap().bytes, LAYER_SIZE as u64 - 60_000);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_ranges_is_asked_for_all_of_it() {
    let served = image(&here());
    let (stage, copy, cuts) = (Stage::new(), served.clone(), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let mut whole = request.clone();
        whole.headers.remove("range");
        let mut answer = copy.answer(&whole);
        if copy.is_layer(request) && cuts.fetch_add(1, Ordering::Relaxed) < 2 {
            answer.cut = Some(10_000);
        }
        answer
    });
    stage.pull(&server.name("a/b:one")).await.unwrap();
    assert_eq!(stage.store().verify(&Silent).unwrap().damage, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_and_failing_registries_are_asked_again() {
    for (status, header) in [(429, Some("1")), (503, None), (500, None)] {
        let served = image(&here());
        let (stage, failures) = (Stage::new(), AtomicUsize::new(0));
        let server = Server::start(move |request| match failures.fetch_add(1, Ordering::Relaxed) {
            1 => {
                header.into_iter().fold(answer(status, ""), |answer, value| answer.with("Retry-After", value))
            }
            2 => answer(status, ""),
            _ => served.answer(request),
        });
        let started = Instant::now();
        stage.pull(&server.name("a/b:one")).await.unwrap();
        assert!(header.is_none() || started.elapsed() >= Duration::from_secs(1));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patience_ends() {
    let stage = Stage::new();
    let server = Server::start(|_| answer(500, r#"{"errors":[{"code":"UNKNOWN","message":"no disk"}]}"#));
    let problem = stage.problem(&server.name("a/b:one")).await;
    assert_eq!(problem.to_string(), "it answers 500 Internal Server Error (no disk)");
    assert_eq!(server.count("GET", "/v2/a/b/manifests/one"), 4);
    let server = Server::start(|_| answer(429, "").with("Retry-After", 3600));
    let problem = stage.problem(&server.name("a/b:one")).await;
    assert!(matches!(problem, Problem::TooManyRequests { .. }), "{problem:?}");
    assert_eq!(server.count("GET", "/v2/a/b/manifests/one"), 1, "nobody waits for an hour");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_content_than_promised_is_refused() {
    let served = image(&here());
    for wrong in [served.layer, served.manifest] {
        let (stage, copy) = (Stage::new(), served.clone());
        let server = Server::start(move |request| {
            let mut answer = copy.answer(request);
            if request.path.contains(&wrong.hex()) {
                answer.body[0] ^= 1;
            }
            answer
        });
        let problem = stage.problem(&server.name("a/b:many")).await;
        assert!(matches!(problem, Problem::Mismatch { expected, .. } if expected == wrong), "{problem:?}");
        let store = stage.store();
        assert!(store.images().unwrap().is_empty() && !store.has_blob(&wrong));
        assert_eq!(store.verify(&Silent).unwrap().damage, []);
        assert_eq!(store.prune_partial().unwrap().blobs, 0);
    }
    // Longer than it says.
    let (stage, copy) = (Stage::new(), served.clone());
    let server = Server::start(move |request| {
        let mut answer = copy.answer(request);
        if copy.is_layer(request) {
            answer.body.push(0);
        }
        answer
    });
    let problem = stage.problem(&server.name("a/b:one")).await;
    assert!(problem.to_string().ends_with("more than its 100000 bytes"), "{problem}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_is_told_apart() {
    let served = image("riscv64");
    let stage = Stage::new();
    let server = Server::start(move |request| match request.path.split('?').next().unwrap() {
        "/v2/a/b/manifests/private" => answer(401, "").with("WWW-Authenticate", "Basic realm=x"),
        "/v2/a/b/manifests/forbidden" => answer(403, r#"{"errors":[{"code":"DENIED","message":"not you"}]}"#),
        "/v2/a/b/manifests/chart" => {
            let config = json!({ "mediaType": "application/vnd.cncf.helm.config.v1+json", "digest": Digest::of(b"").to_string(), "size": 0 });
            let manifest = json!({ "schemaVersion": 2, "config": config, "layers": [] });
            answer(200, manifest.to_string())
        }
        "/v2/a/b/manifests/old" => answer(200, "{}")
            .with("Content-Type", "application/vnd.docker.distribution.manifest.v1+prettyjws"),
        "/v2/a/b/manifests/elsewhere" => {
            let mut index: Value = serde_json::from_slice(&served.blobs["manifests/many"]).unwrap();
            index["manifests"][1]["platform"]["architecture"] = json!("s390x");
            answer(200, index.to_string()).with("Content-Type", "application/vnd.oci.image.index.v1+json")
        }
        "/v2/a/b/manifests/nonsense" => answer(200, "<html>"),
        _ => served.answer(request),
    });
    for (tag, expected) in [
        ("none", "there is no such image (manifest unknown)"),
        ("private", "it wants credentials, and there are none for it"),
        ("forbidden", "access is denied (not you)"),
        ("chart", "it is not an image but application/vnd.cncf.helm.config.v1+json"),
        ("old", "it is not an image but application/vnd.docker.distribution.manifest.v1+prettyjws"),
        ("elsewhere", "it has no variant for linux/"),
        ("nonsense", "it sent a manifest that cannot be understood"),
    ] {
        let problem = stage.problem(&server.name(&format!("a/b:{tag}"))).await;
        assert!(problem.to_string().starts_with(expected), "{tag}: {problem}");
    }
    let problem = stage.problem(&server.name("a/b:elsewhere")).await;
    assert_eq!(problem.hint().as_deref(), Some("it is for linux/riscv64, linux/s390x"));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let problem = stage.problem(&format!("{gone}/a/b").parse().unwrap()).await;
    assert!(matches!(problem, Problem::Unreachable { .. }), "{problem:?}");
    let own = crate::build::default_image();
    assert!(matches!(stage.pull(&own).await.unwrap_err(), Error::NoSuchImage { .. }), "nobody is asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_bought_once_and_renewed_when_it_ends() {
    let served = image(&here());
    let (stage, tokens, uses) = (Stage::new(), AtomicUsize::new(0), AtomicUsize::new(0));
    let server = Server::start(move |request| {
        let host = request.header("host").to_owned();
        if request.path.starts_with("/token?") {
            assert!(
                request.path.contains("service=s")
                    && request.path.contains("scope=repository%3Aa%2Fb%3Apull"),
                "{}",
                request.path
            );
            let number = tokens.fetch_add(1, Ordering::Relaxed);
            return answer(200, json!({ "token": format!("t{number}") }).to_string());
        }
        // The first token ends after one use.
        let is_good = match request.header("authorization") {
            "Bearer t0" => uses.fetch_add(1, Ordering::Relaxed) < 1,
            "Bearer t1" => true,
            _ => false,
        };
        if is_good {
            return served.answer(request);
        }
        let challenge =
            format!("Bearer realm=\"http://{host}/token\",service=\"s\",scope=\"repository:a/b:pull\"");
        answer(401, "").with("WWW-Authenticate", challenge)
    });
    stage.pull(&server.name("a/b:many")).await.unwrap();
    assert_eq!(server.count("GET", "/token?"), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redirections_are_followed_without_the_password() {
    let served = image(&here());
    let copy = served.clone();
    let storage = Server::start(move |request| {
        assert_eq!(request.header("authorization"), "", "it is for the registry");
        answer(200, &copy.blobs[&format!("blobs/{}", copy.layer)][..])
    });
    let (stage, port, copy) = (Stage::new(), storage.port, served.clone());
    let server = Server::start(move |request| {
        if request.path.starts_with("/token?") {
            return answer(200, r#"{"access_token":"t"}"#);
        }
        match request.header("authorization") {
            "" => {
                let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host"));
                answer(401, "").with("WWW-Authenticate", realm)
            }
            _ if copy.is_layer(request) => {
                answer(307, "").with("Location", format!("http://127.0.0.1:{port}/signed"))
            }
            _ => copy.answer(request),
        }
    });
    stage.pull(&server.name("a/b:one")).await.unwrap();
    assert_eq!(storage.count("GET", "/signed"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mirror_is_asked_first_and_may_fail() {
    let served = image(&here());
    let copy = served.clone();
    let mirror = Server::start(move |request| {
        assert!(request.path.contains("ns=127.0.0.1%3A") || request.path == "/v2/", "{}", request.path);
        if copy.is_layer(request) { answer(404, "") } else { copy.answer(request) }
    });
    let copy = served.clone();
    let server = Server::start(move |request| copy.answer(request));
    let mut stage = Stage::new();
    stage.options.mirrors = vec![format!("http://127.0.0.1:{}", mirror.port).parse().unwrap()];
    stage.pull(&server.name("a/b:one")).await.unwrap();
    assert_eq!((mirror.count("GET", "/v2/a/b/manifests"), server.count("GET", "/v2/a/b/manifests")), (1, 0));
    assert_eq!(server.count("GET", "/v2/a/b/blobs"), 1, "what the mirror does not have");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_registry_has_is_not_pushed_again() {
    let served = image(&here());
    let (stage, copy) = (Stage::new(), served.clone());
    let server = Server::start(move |request| copy.answer(request));
    let name = server.name("a/b:many");
    stage.pull(&name).await.unwrap();

    let layer = served.layer;
    let target = Server::start(move |request| {
        match (request.method.as_str(), request.path.split('?').next().unwrap()) {
            ("HEAD", path) if path.ends_with(&layer.hex()) => answer(200, ""),
            ("HEAD", _) => answer(404, ""),
            ("POST", "/v2/x/blobs/uploads/") => answer(202, "").with("Location", "/upload/1?state=s"),
            ("PUT", "/upload/1") => {
                let digest = Digest::of(&request.body);
                assert_eq!(request.path, format!("/upload/1?state=s&digest=sha256%3A{}", digest.hex()));
                answer(201, "")
            }
            ("PUT", "/v2/x/manifests/new") => {
                answer(201, "").with("Docker-Content-Digest", Digest::of(&request.body))
            }
            _ => answer(400, ""),
        }
    });
    let pushed = push(&stage.paths(), &name, &target.name("x:new"), &stage.options, &Silent).await.unwrap();
    assert_eq!(pushed.digest, served.manifest, "the store lacks the other variant of the index");
    assert_eq!((target.count("PUT", "/upload/"), target.count("PUT", "/v2/x/manifests/")), (1, 1));
    let missing =
        push(&stage.paths(), &target.name("x:none"), &name, &stage.options, &Silent).await.unwrap_err();
    assert!(matches!(missing, Error::NoSuchImage { .. }), "{missing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_are_asked_for_everything_but_loopback_and_exceptions() {
    let proxy = Server::start(|request| answer(200, request.path.clone()));
    let other = Server::start(|_| answer(200, "itself"));
    let address = format!("http://127.0.0.1:{}", proxy.port);
    let lookup = move |name: &str| match name {
        "HTTP_PROXY" => Some(address.clone()),
        "no_proxy" => Some("excepted.invalid".to_owned()),
        _ => None,
    };
    let client = http::client(&[], false, lookup).unwrap();
    let get = |url: String| client.get(url).send();
    let text = get("http://a.invalid/x".to_owned()).await.unwrap().text().await;
    assert_eq!(text.unwrap(), "http://a.invalid/x");
    let text = get(format!("http://127.0.0.1:{}/x", other.port)).await.unwrap().text().await;
    assert_eq!(text.unwrap(), "itself");
    assert!(get("http://excepted.invalid/x".to_owned()).await.is_err());
    assert!(http::client(&[], false, |name| (name == "ALL_PROXY").then(|| "://".to_owned())).is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_buys_a_token_but_not_just_anywhere() {
    let server = Server::start(|request| {
        let body = String::from_utf8(request.body.clone()).unwrap();
        let wanted = "grant_type=refresh_token&client_id=kiln&service=s&scope=repository%3Aa%3Apull&refresh_token=i%26d";
        answer(if body == wanted { 200 } else { 400 }, r#"{"access_token":"t"}"#)
    });
    let client = http::client(&[], false, |_| None).unwrap();
    let identity = credential::Credentials::Identity("i&d".to_owned());
    let asking = authorization::Asking {
        client: &client,
        registry: "r",
        credentials: Some(&identity),
        scope: "repository:a:pull",
        plain_http: false,
    };
    let bearer =
        |realm: String| challenge::Challenge::Bearer { realm, service: Some("s".to_owned()), scope: None };
    let near = bearer(format!("http://127.0.0.1:{}/token", server.port));
    let token = authorization::authorize(&near, &asking).await.unwrap();
    assert!(token == authorization::Authorization::Token("t".to_owned()));
    let far = bearer("http://registry.invalid/token".to_owned());
    let error = authorization::authorize(&far, &asking).await.unwrap_err();
    assert!(error.to_string().ends_with("it is not reached by https"), "{error}");
}
