//! What is served, and who asks for it.

use std::{collections::HashMap, time::Duration};

use serde_json::json;

use super::{
    super::*,
    server::{Answer, Request, answer},
};
use crate::{
    Error, Paths, Silent,
    image::{Digest, Store},
};

/// An image as a registry has it: everything by its path after the repository's name.
#[derive(Clone)]
pub(super) struct Served {
    pub(super) blobs: HashMap<String, Vec<u8>>,
    pub(super) types: HashMap<String, String>,
    pub(super) layer: Digest,
    pub(super) manifest: Digest,
    pub(super) index: Digest,
}

pub(super) const LAYER_SIZE: usize = 100_000;

pub(super) fn image(architecture: &str) -> Served {
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

pub(super) fn here() -> String {
    oci_spec::image::Arch::default().to_string()
}

impl Served {
    /// What a registry without any fault answers.
    pub(super) fn answer(&self, request: &Request) -> Answer {
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

    pub(super) fn is_layer(&self, request: &Request) -> bool {
        request.path.contains(&self.layer.hex())
    }
}

pub(super) struct Stage {
    pub(super) directory: tempfile::TempDir,
    pub(super) options: RegistryOptions,
}

impl Stage {
    pub(super) fn new() -> Self {
        let retry = Retry { attempts: 4, pause: Duration::from_millis(5), longest: Duration::from_secs(2) };
        Self {
            directory: tempfile::tempdir().unwrap(),
            options: RegistryOptions { retry, ..RegistryOptions::default() },
        }
    }

    pub(super) fn paths(&self) -> Paths {
        Paths::new(self.directory.path().join("state"), self.directory.path().join("run"))
    }

    pub(super) fn store(&self) -> Store {
        Store::open(&self.paths().images()).unwrap()
    }

    pub(super) async fn pull(&self, name: &Reference) -> Result<Pulled> {
        pull(&self.paths(), name, &self.options, &Silent).await
    }

    pub(super) async fn problem(&self, name: &Reference) -> Problem {
        match self.pull(name).await.unwrap_err() {
            Error::Pull { source, .. } => *source,
            other => panic!("{other:?}"),
        }
    }
}
