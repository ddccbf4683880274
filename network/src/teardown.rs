//! Removing all of a cluster's network.

use rtnetlink::packet_route::link::InfoKind;

use crate::{Error, Network, Result, bridge, forwarding, link, name, netns, nft};

/// Removes the cluster's veth pairs, bridge, nftables tables, and its rules in the chains of others; what is gone
/// already is removed.
///
/// Every step is tried whatever became of the others; the errors are returned together. Links and tables of the
/// same names that Kiln did not make are left alone and are no error.
pub async fn remove(network: &Network) -> Vec<Error> {
    let mut errors = Vec::new();
    if let Err(error) = remove_links(network, &mut errors).await {
        errors.push(error);
    }
    if let Err(error) = forwarding::close(network).await {
        errors.push(error);
    }
    // After the bridge: as long as that routes 127/8, the table's rule must guard it.
    if let Err(error) = nft::uninstall(&network.table(), &name::mark(&network.cluster)).await {
        errors.push(error);
    }
    errors
}

async fn remove_links(network: &Network, errors: &mut Vec<Error>) -> Result<()> {
    let handle = netns::route_handle(None).await?;
    let bridge = match bridge::find_ours(&handle, network).await {
        Ok(Some(bridge)) => bridge,
        Ok(None) | Err(Error::ForeignLink { .. }) => return Ok(()),
        Err(error) => return Err(error),
    };
    for port in link::list(&handle).await? {
        let ours =
            link::controller(&port) == Some(bridge.header.index) && link::is_kind(&port, &InfoKind::Veth);
        if ours && let Err(error) = link::remove(&handle, &port).await {
            errors.push(error);
        }
    }
    link::remove(&handle, &bridge).await
}
