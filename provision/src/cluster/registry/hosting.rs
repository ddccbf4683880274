//! Telling the users of a cluster about the registry: the ConfigMap of KEP-1755.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Client,
    api::{Api, DeleteParams, Patch, PatchParams},
};
use serde_json::json;

use crate::{
    Error, Result,
    state::{REGISTRY_PORT, RegistryRecord},
};

const NAME: &str = "local-registry-hosting";
const NAMESPACE: &str = "kube-public";
const KEY: &str = "localRegistryHosting.v1";

/// Who made an object. The ConfigMap of somebody else stays.
const LABEL: (&str, &str) = ("app.kubernetes.io/managed-by", "kiln");

/// The registry that a cluster's users are told about: the oldest that images can be pushed to.
pub(super) fn main_registry(registries: &[RegistryRecord]) -> Option<&RegistryRecord> {
    registries.iter().find(|record| record.proxy.is_none())
}

/// Writes, changes or removes the ConfigMap. Returns whether one of somebody else's is in its place.
///
/// # Errors
/// [`Error::Api`].
pub(super) async fn announce(client: &Client, registry: Option<&RegistryRecord>) -> Result<bool> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let named = |what: &str| Error::api(format!("{what} ConfigMap {NAMESPACE}/{NAME}"));
    let found = api.get_opt(NAME).await.map_err(named("read"))?;
    let ours = |map: &ConfigMap| {
        map.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL.0)).is_some_and(|by| by == LABEL.1)
    };
    match (found, registry) {
        (Some(map), registry) if !ours(&map) => Ok(registry.is_some()),
        (_, Some(registry)) => {
            let map = json!({
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": { "name": NAME, "labels": { LABEL.0: LABEL.1 } },
                "data": { KEY: description(registry) },
            });
            api.patch(NAME, &PatchParams::apply("kiln").force(), &Patch::Apply(&map))
                .await
                .map_err(named("write"))?;
            Ok(false)
        }
        (Some(_), None) => match api.delete(NAME, &DeleteParams::default()).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(false),
            deleted => deleted.map(|_| false).map_err(named("remove")),
        },
        (None, None) => Ok(false),
    }
}

/// By which names the registry is reached: from the host, by containerd in the nodes, by pods.
fn description(registry: &RegistryRecord) -> String {
    let mut text = format!(
        "host: \"localhost:{}\"\nhostFromContainerRuntime: \"{}:{REGISTRY_PORT}\"\n",
        registry.port, registry.name
    );
    // Pods do not know the nodes' /etc/hosts.
    if let Some(gateway) = registry.gateway() {
        text.push_str(&format!("hostFromClusterNetwork: \"{gateway}:{REGISTRY_PORT}\"\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::registry_record;

    #[test]
    fn caches_are_not_announced() {
        let mut cache = registry_record("cache");
        cache.proxy = Some("https://quay.io".to_owned());
        assert_eq!(main_registry(&[cache.clone()]), None);
        let list = [cache, registry_record("r")];
        assert_eq!(main_registry(&list).map(|record| record.name.as_str()), Some("r"));
    }

    #[test]
    fn the_description_has_the_fields_of_the_proposal() {
        insta::assert_snapshot!(description(&registry_record("r")), @r#"
        host: "localhost:5001"
        hostFromContainerRuntime: "r:5000"
        hostFromClusterNetwork: "172.30.7.1:5000"
        "#);
    }
}
