//! Applying manifests to a cluster, as `kubectl apply --server-side` does.

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
    discovery::{Scope, pinned_kind},
};

use crate::{Error, Result};

/// Who owns the fields that are applied here.
const FIELD_MANAGER: &str = "kiln";

/// Applies every document of a YAML stream, in its order.
///
/// # Errors
/// [`Error::Manifest`] for what is not a Kubernetes object, [`Error::Api`] naming the object that was refused.
pub(super) async fn apply(client: &Client, origin: &str, text: &str) -> Result<()> {
    let damaged = |reason: String| Error::Manifest { origin: origin.to_owned(), reason };
    let documents: Vec<serde_json::Value> =
        serde_saphyr::from_multiple(text).map_err(|error| damaged(error.to_string()))?;
    for document in documents.into_iter().filter(|document| !document.is_null()) {
        let object: DynamicObject =
            serde_json::from_value(document).map_err(|error| damaged(error.to_string()))?;
        let types = object.types.as_ref().ok_or_else(|| damaged("an object has no kind".to_owned()))?;
        let name =
            object.metadata.name.clone().ok_or_else(|| damaged(format!("a {} has no name", types.kind)))?;
        let what = format!("apply {} {name}", types.kind);
        let kind = GroupVersionKind::try_from(types).map_err(|error| damaged(error.to_string()))?;
        let (resource, capabilities) = pinned_kind(client, &kind).await.map_err(Error::api(what.clone()))?;
        let api = api_for(client, &resource, &capabilities.scope, object.metadata.namespace.as_deref());
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&name, &parameters, &Patch::Apply(&object)).await.map_err(Error::api(what))?;
    }
    Ok(())
}

fn api_for(
    client: &Client,
    resource: &ApiResource,
    scope: &Scope,
    namespace: Option<&str>,
) -> Api<DynamicObject> {
    match scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => Api::namespaced_with(client.clone(), namespace.unwrap_or("default"), resource),
    }
}
