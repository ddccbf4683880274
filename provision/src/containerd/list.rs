//! The images of a node.

use containerd_client::{
    services::v1::{ListImagesRequest, ReadContentRequest},
    tonic::Status,
    types::Descriptor,
};
use serde::Serialize;

use super::{Containerd, call, request};
use crate::Result;

/// The largest manifest that is read. Real ones are a few kilobytes.
const MANIFEST_LIMIT: usize = 4 << 20;

/// An image in a node, under one of its names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeImage {
    /// Its full name, such as `registry.k8s.io/pause:3.10.1`.
    pub name: String,
    /// The digest of its manifest or index.
    pub digest: String,
    /// Its id: the digest of its configuration. Empty when its manifest is not there.
    pub id: String,
    /// Bytes of its configuration and compressed layers, as `crictl images` counts.
    pub size: u64,
    /// Whether kubelet leaves it alone when the disk fills up.
    pub pinned: bool,
}

impl Containerd {
    /// The images of the node, by name. Kubernetes' own records of images by id are left out.
    ///
    /// # Errors
    /// [`crate::Error::ContainerdCall`] when a call fails.
    pub async fn images(&self) -> Result<Vec<NodeImage>> {
        let message = ListImagesRequest { filters: Vec::new() };
        let answer = self.client.images().list(request(message)).await.map_err(call("list", "images"))?;
        let mut images = Vec::new();
        for record in answer.into_inner().images {
            if record.name.starts_with("sha256:") {
                continue;
            }
            let target = record.target.unwrap_or_default();
            let (id, size) = self.measure(&target).await?;
            images.push(NodeImage {
                pinned: record.labels.get("io.cri-containerd.pinned").is_some_and(|value| value == "pinned"),
                name: record.name,
                digest: target.digest,
                id,
                size,
            });
        }
        images.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(images)
    }

    /// Id and size of what an image's record refers to.
    async fn measure(&self, target: &Descriptor) -> Result<(String, u64)> {
        let mut digest = target.digest.clone();
        // An index leads to manifests, of which a node usually has one platform's.
        for _ in 0..2 {
            let Some(bytes) = self.read_small(&digest).await? else { break };
            let Ok(manifest) = serde_json::from_slice::<serde_json::Value>(&bytes) else { break };
            if let Some(manifests) = manifest["manifests"].as_array() {
                let Some(next) = self.first_present(manifests).await? else { break };
                digest = next;
                continue;
            }
            return Ok(measure_manifest(&manifest));
        }
        Ok((String::new(), 0))
    }

    async fn first_present(&self, manifests: &[serde_json::Value]) -> Result<Option<String>> {
        for manifest in manifests {
            if let Some(digest) = manifest["digest"].as_str()
                && self.has_content(digest).await?
            {
                return Ok(Some(digest.to_owned()));
            }
        }
        Ok(None)
    }

    /// Reads small content; `None` when it is not there or not small.
    pub(super) async fn read_small(&self, digest: &str) -> Result<Option<Vec<u8>>> {
        let message = ReadContentRequest { digest: digest.to_owned(), offset: 0, size: 0 };
        let missing = |status: &Status| status.code() == containerd_client::tonic::Code::NotFound;
        let mut stream = match self.client.content().read(request(message)).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if missing(&status) => return Ok(None),
            Err(status) => return Err(call("read", digest)(status)),
        };
        let mut bytes = Vec::new();
        loop {
            match stream.message().await {
                Ok(Some(part)) => bytes.extend_from_slice(&part.data),
                Ok(None) => return Ok(Some(bytes)),
                Err(status) if missing(&status) => return Ok(None),
                Err(status) => return Err(call("read", digest)(status)),
            }
            if bytes.len() > MANIFEST_LIMIT {
                return Ok(None);
            }
        }
    }
}

fn measure_manifest(manifest: &serde_json::Value) -> (String, u64) {
    let id = manifest["config"]["digest"].as_str().unwrap_or_default().to_owned();
    let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
    let size = layers.iter().chain([&manifest["config"]]).filter_map(|part| part["size"].as_u64()).sum();
    (id, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_as_large_as_its_configuration_and_layers() {
        let manifest = serde_json::json!({
            "config": {"digest": "sha256:c", "size": 10},
            "layers": [{"size": 100}, {"size": 1000}],
        });
        assert_eq!(measure_manifest(&manifest), ("sha256:c".to_owned(), 1110));
        assert_eq!(measure_manifest(&serde_json::json!({})), (String::new(), 0));
    }
}
