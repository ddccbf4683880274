//! Looking at, changing and removing links.

use std::{io, net::IpAddr};

use futures_util::TryStreamExt;
use nix::errno::Errno;
use rtnetlink::{
    Handle,
    packet_route::{
        address::{AddressAttribute, AddressHeaderFlags, AddressMessage},
        link::{InfoKind, LinkAttribute, LinkInfo, LinkMessage},
    },
};

use crate::{Error, Result};

/// The link of this name, if there is one.
pub(crate) async fn find(handle: &Handle, name: &str) -> Result<Option<LinkMessage>> {
    let found = handle.link().get().match_name(name).execute().try_next().await.map_err(cause);
    match found {
        Err(error) if is_gone(&error) => Ok(None),
        found => found.map_err(|source| Error::FindLink { link: name.to_owned(), source }),
    }
}

/// The link of this name, which must be there.
pub(crate) async fn get(handle: &Handle, name: &str) -> Result<LinkMessage> {
    find(handle, name).await?.ok_or_else(|| Error::NoLink { link: name.to_owned() })
}

/// All links.
pub(crate) async fn list(handle: &Handle) -> Result<Vec<LinkMessage>> {
    handle
        .link()
        .get()
        .execute()
        .try_collect()
        .await
        .map_err(|error| Error::List { what: "links", source: cause(error) })
}

/// Makes changes to an existing link.
pub(crate) async fn change(handle: &Handle, name: &str, message: LinkMessage) -> Result<()> {
    handle
        .link()
        .change(message)
        .execute()
        .await
        .map_err(|error| Error::SetUpLink { link: name.to_owned(), source: cause(error) })
}

/// Removes a link; one that is gone already is removed.
pub(crate) async fn remove(handle: &Handle, link: &LinkMessage) -> Result<()> {
    match handle.link().del(link.header.index).execute().await.map_err(cause) {
        Err(source) if !is_gone(&source) => {
            Err(Error::RemoveLink { link: name(link).unwrap_or("?").to_owned(), source })
        }
        _ => Ok(()),
    }
}

/// Gives a link an address, or keeps it. IPv6 addresses are usable at once: nobody else can have them, so the wait
/// of about two seconds for duplicate address detection is left out.
pub(crate) async fn add_address(
    handle: &Handle,
    link: &LinkMessage,
    address: IpAddr,
    prefix: u8,
) -> Result<()> {
    let mut request = handle.address().add(link.header.index, address, prefix).replace();
    if address.is_ipv6() {
        request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
    }
    request.execute().await.map_err(|error| Error::AddAddress {
        address,
        link: name(link).unwrap_or("?").to_owned(),
        source: cause(error),
    })
}

/// The addresses of a link.
pub(crate) async fn addresses(handle: &Handle, link: &LinkMessage) -> Result<Vec<AddressMessage>> {
    handle
        .address()
        .get()
        .set_link_index_filter(link.header.index)
        .execute()
        .try_collect()
        .await
        .map_err(|error| Error::List { what: "addresses", source: cause(error) })
}

/// The address proper of an address message. On point-to-point links the plain attribute is the peer's.
pub(crate) fn address(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    local.or_else(|| {
        message.attributes.iter().find_map(|attribute| match attribute {
            AddressAttribute::Address(address) => Some(*address),
            _ => None,
        })
    })
}

pub(crate) fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

pub(crate) fn alias(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

pub(crate) fn mac(link: &LinkMessage) -> Option<&[u8]> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Address(mac) => Some(mac.as_slice()),
        _ => None,
    })
}

pub(crate) fn mtu(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Mtu(mtu) => Some(*mtu),
        _ => None,
    })
}

/// The index of the bridge that the link is a port of.
pub(crate) fn controller(link: &LinkMessage) -> Option<u32> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

pub(crate) fn is_kind(link: &LinkMessage, kind: &InfoKind) -> bool {
    link.attributes.iter().any(|attribute| match attribute {
        LinkAttribute::LinkInfo(infos) => {
            infos.iter().any(|info| matches!(info, LinkInfo::Kind(found) if found == kind))
        }
        _ => false,
    })
}

/// The kernel's answer inside an error of `rtnetlink`, whose own message would hide it.
pub(crate) fn cause(error: rtnetlink::Error) -> io::Error {
    match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    }
}

fn is_gone(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENODEV as i32)
}
