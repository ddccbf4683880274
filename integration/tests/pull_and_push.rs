//! Pulling and pushing, with a real registry and an independent client. No cluster, and no root but for one step.

use std::{
    fs::Permissions,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use kiln_integration::{Finished, Kiln, Registry, Steps, TestImage, Tools, host::text};
use nix::mount::{MsFlags, mount, umount};
use serde_json::Value;

/// Bytes of the layer of the image that is pulled and killed.
const LARGE: usize = 48 << 20;
/// How often.
const KILLS: u32 = 25;
/// "user" and "secret", as htpasswd -B writes them.
const HTPASSWD: &str = "user:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Kiln with a store of its own.
fn kiln(directory: &Path, name: &str) -> Kiln {
    let root = directory.join(name);
    let environment = [
        ("KILN_ROOT", root.clone()),
        ("KILN_RUN_ROOT", root.join("run")),
        ("DOCKER_CONFIG", directory.join("docker")),
        ("KUBECONFIG", directory.join("kubeconfig")),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.into()));
    Kiln::new(Kiln::locate().expect("a binary"), environment.to_vec())
}

/// Bytes that do not compress, the same in every run.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes
}

/// Puts an image into a registry by the other client.
fn publish(tools: &Tools, directory: &Path, image: &TestImage, name: &str) {
    let archive = directory.join("image.tar");
    fs_err::write(&archive, image.docker_archive(name)).expect("a file");
    drop(tools.crane(&["push", text(&archive), name]).succeeded());
}

fn verified(kiln: &Kiln) {
    drop(kiln.run(&["images", "verify"]).succeeded());
}

fn listed(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout()).expect("JSON")
}

#[test]
fn images_go_from_registry_to_store_and_back() {
    let Some(tools) = Tools::open() else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let directory = directory.path();
    let registry = tools.registry(directory, &[]);
    let mut steps = Steps::default();

    let image = TestImage::new(&noise(200_000));
    let name = registry.name("it/app:1");
    publish(&tools, directory, &image, &name);
    let one = kiln(directory, "one");
    steps.step("a tag and a digest are pulled", || {
        round_trip(&tools, directory, &registry, &one, &name, &image)
    });
    steps.step("the store is listed, inspected and emptied", || store(&one, &registry, &image));
    steps.step("a registry that wants a password", || password(&tools, directory, &one));
    steps.step("a registry with a certificate of its own", || certificate(&tools, directory, &name));
    steps.step("a mirror stands in for a registry", || mirror(directory, &registry));
    steps.step("every refusal is one clear error", || refusals(directory, &registry));
    steps.step("damage is found, in the registry and in the store", || {
        damage(&tools, directory, &registry);
    });
    steps.step("two pulls at once", || together(&tools, directory, &registry));
    steps.step("kill -9 at any point leaves a store that is whole", || killed(directory, &registry));
    if nix::unistd::geteuid().is_root() {
        steps.step("a disk that is full in the middle of a pull", || full(directory, &registry));
        steps.step("create pulls the image of nodes", || create(directory, &name));
    } else {
        eprintln!("skipped: creating a cluster needs root");
    }
    steps.finish();
}

fn round_trip(
    tools: &Tools,
    directory: &Path,
    registry: &Registry,
    one: &Kiln,
    name: &str,
    image: &TestImage,
) {
    let pulled = one.run(&["images", "pull", name]).succeeded();
    let digest = tools.crane(&["digest", name]).succeeded().stdout().trim().to_owned();
    assert!(pulled.stderr().contains(&digest), "{}", pulled.report());
    let again = one.run(&["images", "pull", name]).succeeded();
    assert!(again.stderr().contains("is up to date"), "{}", again.report());
    verified(one);

    // Pushed elsewhere, looked at by the other client, pulled into another store by its digest.
    let other = tools.registry(directory, &[]);
    let target = other.name("else/where:2");
    let pushed = one.run(&["push", name, &target]).succeeded();
    assert!(pushed.stderr().contains(&digest), "{}", pushed.report());
    drop(tools.crane(&["validate", "--remote", &target]).succeeded());
    assert_eq!(tools.crane(&["digest", &target]).succeeded().stdout().trim(), digest);
    let again = one.run(&["push", name, &target]).succeeded();
    assert!(again.stderr().contains("0 B sent"), "{}", again.report());
    let two = kiln(directory, "two");
    let pinned = other.name(&format!("else/where@{digest}"));
    drop(two.run(&["images", "pull", &pinned]).succeeded());
    let inspected = listed(&two.run(&["images", "inspect", "-o", "json", &pinned]).succeeded());
    assert_eq!(inspected[0]["digest"], digest.as_str());
    assert_eq!(inspected[0]["entrypoint"][0], "/program");
    verified(&two);

    // An index with variants of which the store has one.
    let (variants, both) = (registry.name("it/variants:1"), registry.name("it/variants:both"));
    publish(tools, directory, image, &variants);
    let made = ["index", "append", "-m", variants.as_str(), "-m", name, "-t", both.as_str()];
    drop(tools.crane(&made).succeeded());
    drop(two.run(&["images", "pull", &both]).succeeded());
    verified(&two);
}

fn store(one: &Kiln, registry: &Registry, image: &TestImage) {
    let name = registry.name("it/app:1");
    let copy = registry.name("it/copy:1");
    drop(one.run(&["push", &name, &copy]).succeeded());
    drop(one.run(&["images", "pull", &copy]).succeeded());
    let list = listed(&one.run(&["images", "ls", "--host", "-o", "json"]).succeeded());
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{list}");
    assert!(list[0]["shared_size"].as_u64().is_some_and(|size| size > 100_000), "{list}");
    assert_eq!(list[0]["clusters"], serde_json::json!([]));
    let text = one.run(&["images", "ls", "--host"]).succeeded().stdout();
    assert!(text.starts_with("IMAGE ") && text.contains("SHARED"), "{text}");

    let removed = one.run(&["images", "rm", &name]).succeeded();
    assert!(removed.stderr().contains("Nothing is unused"), "the copy has it all: {}", removed.report());
    let removed = one.run(&["images", "rm", &copy]).succeeded();
    assert!(removed.stderr().contains("Freed"), "{}", removed.report());
    one.run(&["images", "rm", &copy]).refused(&["it/copy:1", "not in the image store"]);
    one.run(&["images", "inspect", &copy]).refused(&["it/copy:1"]);
    assert_eq!(
        listed(&one.run(&["images", "ls", "--host", "-o", "json"]).succeeded()),
        serde_json::json!([])
    );
    let pruned = one.run(&["images", "prune"]).succeeded();
    assert!(pruned.stderr().contains("Nothing is unused"), "{}", pruned.report());
    // The configuration's digest is the image's id.
    let blob = image.id().trim_start_matches("sha256:").to_owned();
    let root = one.run(&["images", "verify"]).succeeded();
    assert!(root.stderr().contains("0 blobs"), "{blob} {}", root.report());
}

fn password(tools: &Tools, directory: &Path, one: &Kiln) {
    let htpasswd = directory.join("htpasswd");
    fs_err::write(&htpasswd, HTPASSWD).expect("a file");
    let settings = [
        ("REGISTRY_AUTH", "htpasswd"),
        ("REGISTRY_AUTH_HTPASSWD_REALM", "it"),
        ("REGISTRY_AUTH_HTPASSWD_PATH", text(&htpasswd)),
    ];
    let private = tools.registry(directory, &settings);
    let name = private.name("it/private:1");
    one.run(&["images", "pull", &name]).refused(&[&name, "credentials", "docker login"]);

    // user:secret, user:wrong
    let docker = directory.join("docker");
    fs_err::create_dir_all(&docker).expect("a directory");
    let config = |auth: &str| {
        let text = format!(r#"{{"auths": {{"localhost:{}": {{"auth": "{auth}"}}}}}}"#, private.port());
        fs_err::write(docker.join("config.json"), text).expect("a file");
    };
    config("dXNlcjp3cm9uZw==");
    one.run(&["images", "pull", &name]).refused(&[&name, "not accepted"]);
    config("dXNlcjpzZWNyZXQ=");
    one.run(&["images", "pull", &name]).refused(&[&name, "no such image"]);
    let source = TestImage::new(b"private");
    let public = tools.registry(directory, &[]);
    publish(tools, directory, &source, &public.name("a:1"));
    drop(one.run(&["images", "pull", &public.name("a:1")]).succeeded());
    drop(one.run(&["push", &public.name("a:1"), &name]).succeeded());

    // The same from a program.
    let programs = directory.join("programs");
    fs_err::create_dir_all(&programs).expect("a directory");
    let program = programs.join("docker-credential-it");
    let script = "#!/bin/sh\nread -r host\necho \"$host\" >> \"$0.asked\"\necho '{\"Username\":\"user\",\"Secret\":\"secret\"}'\n";
    fs_err::write(&program, script).expect("a file");
    fs_err::set_permissions(&program, Permissions::from_mode(0o755)).expect("our file");
    let config = format!(r#"{{"credHelpers": {{"localhost:{}": "it"}}}}"#, private.port());
    fs_err::write(docker.join("config.json"), config).expect("a file");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap_or_default());
    let fresh = kiln(directory, "helped").with_env("PATH", path);
    drop(fresh.run(&["images", "pull", &name]).succeeded());
    let asked = fs_err::read_to_string(programs.join("docker-credential-it.asked")).expect("it was asked");
    assert_eq!(asked, format!("localhost:{}\n", private.port()), "once");
    fs_err::remove_file(docker.join("config.json")).expect("our file");
}

fn certificate(tools: &Tools, directory: &Path, source: &str) {
    let (certificate, key) = (directory.join("it.pem"), directory.join("it.key"));
    let subject = "subjectAltName=DNS:localhost,IP:127.0.0.1";
    let mut command = Command::new("openssl");
    command.args([
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]);
    command.args(["-subj", "/CN=it", "-addext", subject, "-addext", "basicConstraints=critical,CA:FALSE"]);
    let made = command.arg("-out").arg(&certificate).arg("-keyout").arg(&key).output().expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let settings =
        [("REGISTRY_HTTP_TLS_CERTIFICATE", text(&certificate)), ("REGISTRY_HTTP_TLS_KEY", text(&key))];
    let secure = tools.registry(directory, &settings);
    let name = secure.name("it/secure:1");
    let fresh = kiln(directory, "secure");
    drop(fresh.run(&["images", "pull", source]).succeeded());
    fresh.run(&["push", source, &name]).refused(&[&name, "not trusted", "--ca-file"]);
    drop(fresh.run(&["push", source, &name, "--ca-file", text(&certificate)]).succeeded());
    fresh.run(&["images", "pull", &name, "--ca-file", text(&key)]).refused(&["it.key"]);
    let trusting = fresh.with_env("SSL_CERT_FILE", certificate.as_os_str());
    drop(trusting.run(&["images", "pull", &name]).succeeded());
    let certs = directory.join(format!("secure/certs.d/localhost:{}", secure.port()));
    fs_err::create_dir_all(&certs).expect("a directory");
    fs_err::write(certs.join("hosts.toml"), format!("ca = {certificate:?}\n")).expect("a file");
    drop(fresh.run(&["images", "pull", &name]).succeeded());
}

fn mirror(directory: &Path, registry: &Registry) {
    let fresh = kiln(directory, "mirrored");
    let url = format!("http://localhost:{}", registry.port());
    drop(fresh.run(&["images", "pull", "it/app:1", "--mirror", &format!("docker.io={url}")]).succeeded());
    drop(fresh.run(&["images", "inspect", "docker.io/it/app:1"]).succeeded());
    drop(fresh.run(&["images", "rm", "it/app:1"]).succeeded());
    let certs = directory.join("mirrored/certs.d/docker.io");
    fs_err::create_dir_all(&certs).expect("a directory");
    fs_err::write(certs.join("hosts.toml"), format!("[host.\"{url}\"]\n")).expect("a file");
    drop(fresh.run(&["images", "pull", "it/app:1"]).succeeded());
    verified(&fresh);
}

fn refusals(directory: &Path, registry: &Registry) {
    let fresh = kiln(directory, "refused");
    let tag = registry.name("it/app:none");
    fresh.run(&["images", "pull", &tag]).refused(&[&tag, "no such image", "check the name"]);
    let repository = registry.name("no/such:1");
    fresh.run(&["images", "pull", &repository]).refused(&[&repository, "no such image"]);
    let started = Instant::now();
    fresh.run(&["images", "pull", "localhost:9/a:1"]).refused(&["localhost:9", "cannot be reached"]);
    assert!(started.elapsed() < Duration::from_secs(10), "nothing listens there");
    fresh.run(&["images", "pull", "Not:an:image"]).refused(&["Not:an:image"]);
    // Nobody else may have Kiln's own images.
    fresh.run(&["images", "pull", "kiln/node:v0"]).refused(&["kiln/node:v0", "build node-image"]);
    fresh.run(&["push", &tag]).refused(&[&tag, "not in the image store"]);
    assert_eq!(fs_err::read_dir(directory.join("refused/images/partial")).expect("a store").count(), 0);
    verified(&fresh);
}

fn damage(tools: &Tools, directory: &Path, registry: &Registry) {
    let image = TestImage::new(b"to be damaged");
    let name = registry.name("it/damaged:1");
    publish(tools, directory, &image, &name);
    let fresh = kiln(directory, "damaged");
    drop(fresh.run(&["images", "pull", &name]).succeeded());
    let inspected = listed(&fresh.run(&["images", "inspect", &name, "-o", "json"]).succeeded());
    let layer = inspected[0]["layers"][0]["digest"].as_str().expect("a digest").to_owned();
    let hex = layer.trim_start_matches("sha256:");

    let stored = directory.join("damaged/images/blobs/sha256").join(hex);
    let mut bytes = fs_err::read(&stored).expect("a blob");
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs_err::write(&stored, &bytes).expect("our store");
    let found = fresh.run(&["images", "verify", "-o", "json"]).exited(1);
    let found: Value = serde_json::from_str(&found.stdout()).expect("JSON");
    assert_eq!((found[0]["kind"].as_str(), found[0]["name"].as_str()), (Some("blob"), Some(layer.as_str())));

    fs_err::write(registry.blob(&layer), &bytes).expect("the registry's store");
    let other = kiln(directory, "undamaged");
    other.run(&["images", "pull", &name]).refused(&[&name, "something else", &layer]);
    verified(&other);
    let left = listed(&other.run(&["images", "ls", "--host", "-o", "json"]).succeeded());
    assert_eq!(left, serde_json::json!([]));
}

fn together(tools: &Tools, directory: &Path, registry: &Registry) {
    let image = TestImage::new(&noise(LARGE));
    let name = registry.name("it/large:1");
    publish(tools, directory, &image, &name);
    let fresh = kiln(directory, "together");
    let pulls = [0, 1, 2].map(|_| fresh.start(&["images", "pull", &name]));
    let reports = pulls.map(|pull| pull.wait(Duration::from_secs(60)).succeeded().stderr().to_owned());
    let whole = reports.iter().filter(|report| report.contains(" MB downloaded")).count();
    assert_eq!(whole, 1, "the layer came once: {reports:#?}");
    verified(&fresh);
}

fn full(directory: &Path, registry: &Registry) {
    let name = registry.name("it/large:1");
    let root = directory.join("full");
    fs_err::create_dir(&root).expect("a directory");
    // Room for half of the layer.
    let disk = Disk::mount(&root, LARGE / 2);
    let small = kiln(directory, "full");
    let images = root.join("images");
    small.run(&["images", "pull", &name]).refused(&["no space left", text(&images), &name, "--root"]);
    verified(&small);
    for place in ["partial", "tmp"] {
        assert_eq!(fs_err::read_dir(images.join(place)).expect("a store").count(), 0, "{place}");
    }
    let left = listed(&small.run(&["images", "ls", "--host", "-o", "json"]).succeeded());
    assert_eq!(left, serde_json::json!([]));
    // With more room the same store takes the image.
    disk.resize(LARGE * 2);
    drop(small.run(&["images", "pull", &name]).succeeded());
    verified(&small);
}

/// A file system of a size, in memory; it goes with this.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(path: &'a Path, bytes: usize) -> Self {
        let size = format!("size={bytes}");
        mount(Some("tmpfs"), path, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).expect("a mount");
        Self(path)
    }

    fn resize(&self, bytes: usize) {
        let size = format!("size={bytes}");
        let (none, flags) = (None::<&str>, MsFlags::MS_REMOUNT);
        mount(none, self.0, none, flags, Some(size.as_str())).expect("a larger one");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        let unmounted = umount(self.0);
        // A second panic would hide the first.
        assert!(unmounted.is_ok() || thread::panicking(), "{} stays mounted", self.0.display());
    }
}

fn killed(directory: &Path, registry: &Registry) {
    let name = registry.name("it/large:1");
    let fresh = kiln(directory, "killed");
    let mut interrupted = 0;
    let started = Instant::now();
    drop(kiln(directory, "timed").run(&["images", "pull", &name]).succeeded());
    let whole = started.elapsed();
    for number in 0..KILLS {
        let pull = fresh.start(&["images", "pull", &name]);
        // The point is what is being tested.
        thread::sleep(whole * number / KILLS);
        pull.kill();
        verified(&fresh);
        let list = listed(&fresh.run(&["images", "ls", "--host", "-o", "json"]).succeeded());
        interrupted += u32::from(list == serde_json::json!([]));
        // Half of the time from the start, half of the time from what was left.
        if number % 2 == 0 || list != serde_json::json!([]) {
            drop(fresh.run_other("rm", &["-rf", text(&directory.join("killed/images"))], whole * 100));
        }
    }
    assert!(interrupted > KILLS / 4, "only {interrupted} of {KILLS} were killed before the end");
    drop(fresh.run(&["images", "pull", &name]).succeeded());
    verified(&fresh);
    assert_eq!(fs_err::read_dir(directory.join("killed/images/tmp")).expect("a store").count(), 0);
}

fn create(directory: &Path, name: &str) {
    let fresh = kiln(directory, "create");
    let args = ["create", "cluster", "--name", "it-pull", "--image", name];
    let refused = fresh.run(&args);
    assert!(refused.stderr().contains("Ensuring node image"), "{}", refused.report());
    refused.refused(&[name, "not a node image"]);
    drop(fresh.run(&["images", "inspect", name]).succeeded());
    let args = ["create", "cluster", "--name", "it-pull", "--image", "kiln/node:v0"];
    fresh.run(&args).refused(&["kiln/node:v0", "build node-image"]);
    assert_eq!(fresh.run(&["get", "clusters"]).succeeded().stdout(), "");
}
