//! Blobs on their way: once, side by side, cut, and other than promised.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    super::*,
    server::{Server, answer},
    stage::{LAYER_SIZE, Stage, here, image},
};
use crate::{Error, Silent, image::Digest};

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
        // What else was under way when the pull ended may be kept, to go on with.
        assert!(store.partial_blob(&wrong, || ()).unwrap().is_none_or(|partial| partial.size() == 0));
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
