//! Users as the container knows them.

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

use crate::{Error, Result};

/// Becomes a user of the container: `NAME`, `UID` or `UID:GID`. To be called inside it.
///
/// # Errors
/// [`Error::NoSuchUser`], [`Error::System`] when the kernel refuses.
pub(crate) fn become_user(user: &str) -> Result<()> {
    // A container without a passwd file can still be entered by number.
    let passwd = fs_err::read_to_string("/etc/passwd").unwrap_or_default();
    let (uid, gid) = resolve(user, &passwd).ok_or_else(|| Error::NoSuchUser { user: user.to_owned() })?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    setgroups(&[gid]).map_err(Error::system("set the groups"))?;
    setgid(gid).map_err(Error::system("set the group"))?;
    setuid(uid).map_err(Error::system("set the user"))
}

/// User and group ids by passwd(5).
fn resolve(user: &str, passwd: &str) -> Option<(u32, u32)> {
    if let Some((uid, gid)) = user.split_once(':') {
        return Some((uid.parse().ok()?, gid.parse().ok()?));
    }
    let by_field = |index: usize| {
        passwd
            .lines()
            .map(|line| line.split(':').collect::<Vec<_>>())
            .find(|fields| fields.get(index) == Some(&user))
    };
    if let Some(fields) = by_field(0).or_else(|| by_field(2)) {
        return Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?));
    }
    user.parse().ok().map(|uid| (uid, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_name_and_number() {
        let passwd = "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65533::/:/bin/false\n";
        assert_eq!(resolve("nobody", passwd), Some((65534, 65533)));
        assert_eq!(resolve("65534", passwd), Some((65534, 65533)));
        assert_eq!(resolve("1000", passwd), Some((1000, 0)));
        assert_eq!(resolve("7:8", passwd), Some((7, 8)));
        assert_eq!(resolve("nosuch", passwd), None);
    }
}
