//! Archives of container images, made here: small, and in the forms that other tools write.

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image of one layer that holds one program.
#[derive(Clone, Debug)]
pub struct TestImage {
    layer: Vec<u8>,
    config: Vec<u8>,
}

impl TestImage {
    /// An image that runs `program`, which needs no other file.
    ///
    /// # Panics
    /// When the machine's architecture is none that images are made for.
    #[must_use]
    pub fn new(program: &[u8]) -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => panic!("no images for {other}"),
        };
        let layer = archive(&[("program", program)]);
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": ["/program"], "WorkingDir": "/" },
            "rootfs": { "type": "layers", "diff_ids": [digest(&layer)] },
        });
        Self { layer, config: config.to_string().into_bytes() }
    }

    /// Its id: the digest of its configuration.
    #[must_use]
    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// What its manifest names, with digests.
    #[must_use]
    pub fn blobs(&self) -> [(String, &[u8]); 2] {
        [&self.layer, &self.config].map(|content| (digest(content), content.as_slice()))
    }

    /// Its manifest, with the media type.
    #[must_use]
    pub fn manifest(&self) -> (&'static str, Vec<u8>) {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": kind,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &self.config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &self.layer)],
        });
        (kind, manifest.to_string().into_bytes())
    }

    /// What `docker save` wrote until version 25.
    #[must_use]
    pub fn docker_archive(&self, name: &str) -> Vec<u8> {
        let list = json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer/layer.tar"] }]);
        let list = list.to_string();
        archive(&[
            ("layer/layer.tar", &self.layer),
            ("config.json", &self.config),
            ("manifest.json", list.as_bytes()),
        ])
    }

    /// An OCI archive whose index also names a variant for another platform, which is not in it.
    #[must_use]
    pub fn oci_archive(&self, name: &str) -> Vec<u8> {
        let (kind, manifest) = self.manifest();
        let config: Value = serde_json::from_slice(&self.config).expect("it was made here");
        let mut own = descriptor(kind, &manifest);
        own["platform"] = json!({ "os": "linux", "architecture": config["architecture"] });
        let mut other = descriptor(kind, b"not here");
        other["platform"] = json!({ "os": "linux", "architecture": "riscv64" });
        let variants = index(&[other, own]);
        let mut top = descriptor("application/vnd.oci.image.index.v1+json", &variants);
        top["annotations"] = json!({ "io.containerd.image.name": name });
        let blobs = [&manifest, &variants, &self.config, &self.layer];
        let paths = blobs.map(|blob| format!("blobs/sha256/{}", digest(blob).trim_start_matches("sha256:")));
        let index = index(&[top]);
        let mut files: Vec<(&str, &[u8])> =
            paths.iter().zip(blobs).map(|(path, blob)| (path.as_str(), blob.as_slice())).collect();
        files.push(("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#));
        files.push(("index.json", &index));
        archive(&files)
    }
}

fn index(manifests: &[Value]) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    index.to_string().into_bytes()
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, *content).expect("memory takes everything");
    }
    builder.into_inner().expect("memory takes everything")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        let entries = archive.entries().expect("an archive");
        entries.map(|entry| entry.expect("an entry").path().expect("a path").display().to_string()).collect()
    }

    #[test]
    fn archives_hold_what_their_forms_ask_for() {
        let image = TestImage::new(b"#!");
        let docker = paths(&image.docker_archive("a:1"));
        assert_eq!(docker, ["layer/layer.tar", "config.json", "manifest.json"]);
        let oci = paths(&image.oci_archive("a:1"));
        let config = format!("blobs/sha256/{}", image.id().trim_start_matches("sha256:"));
        assert!(oci.contains(&config) && oci.len() == 6, "{oci:?}");
    }
}
