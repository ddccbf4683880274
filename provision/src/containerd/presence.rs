//! Whether a node has an image already.

use containerd_client::{services::v1::GetImageRequest, tonic::Code};

use super::{Containerd, ImportImage, ImportOptions, call, request};
use crate::Result;

impl Containerd {
    /// Whether an import would change nothing: every name stands for this image, and all that it consists of is there.
    ///
    /// # Errors
    /// [`crate::Error::ContainerdCall`] when a call fails.
    pub async fn has_image(&self, image: &ImportImage, options: ImportOptions) -> Result<bool> {
        let target = &image.target().digest;
        // The record of its id comes last in an import, so that most of what is not there is found missing at once. It
        // may lead to another manifest with the same configuration.
        if self.stands_for(&image.config.digest).await?.is_none() {
            return Ok(false);
        }
        for name in &image.names {
            if self.stands_for(name).await?.as_ref() != Some(target) {
                return Ok(false);
            }
        }
        for blob in image.indexes.iter().chain([&image.manifest, &image.config]) {
            if !self.has_content(&blob.digest).await? {
                return Ok(false);
            }
        }
        if self.is_unpacked(&image.layers).await? {
            return Ok(true);
        }
        if options.unpack {
            return Ok(false);
        }
        for layer in &image.layers {
            if !self.has_content(&layer.blob.digest).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a name stands for the image with this id, which is the digest of its configuration or, as Docker's
    /// containerd store has it, of its index or manifest.
    ///
    /// # Errors
    /// [`crate::Error::ContainerdCall`] when a call fails.
    pub async fn has_name(&self, name: &str, id: &str) -> Result<bool> {
        let Some(target) = self.stands_for(name).await? else { return Ok(false) };
        Ok(target == id || self.stands_for(id).await? == Some(target))
    }

    /// The digest that a name stands for.
    async fn stands_for(&self, name: &str) -> Result<Option<String>> {
        let message = GetImageRequest { name: name.to_owned() };
        match self.client.images().get(request(message)).await {
            Ok(answer) => {
                Ok(answer.into_inner().image.and_then(|image| image.target).map(|target| target.digest))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(call("look for the image", name)(status)),
        }
    }
}
