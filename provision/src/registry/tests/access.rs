//! Who is asked, by which way, and with which credentials.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};

use super::{
    super::*,
    server::{Server, answer},
    stage::{Stage, here, image},
};
use crate::{Error, image::Digest};

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
