//! Kubeconfigs that are no plain, well-formed, writable files: nothing hangs, nothing is lost, one error each.

use std::{
    ffi::OsString,
    os::unix::{ffi::OsStringExt, fs::FileTypeExt},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;

/// Far longer than any of this takes, far shorter than for ever.
const LIMIT: Duration = Duration::from_secs(20);

/// What both operations say of a file that is the whole kubeconfig.
fn refused(locations: &Locations) -> [Error; 2] {
    let (sender, receiver) = mpsc::channel();
    let locations = locations.clone();
    thread::spawn(move || {
        let errors =
            [merge_into(&locations, &ours()).unwrap_err(), remove_from(&locations, "a").unwrap_err()];
        let _ = sender.send(errors);
    });
    receiver.recv_timeout(LIMIT).expect("an end within the limit")
}

fn only(path: &Path) -> Locations {
    locate(Some(path), None, None).unwrap()
}

#[test]
fn a_pipe_is_refused_and_not_waited_for() {
    let home = Home::with("");
    let pipe = home.path(".kube/pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    for error in refused(&only(&pipe)) {
        assert!(matches!(error, Error::KubeconfigFile { what: "read", .. }), "{error:?}");
        assert!(
            std::error::Error::source(&error).unwrap().to_string().contains("not a regular file"),
            "{error:?}"
        );
    }
    assert!(fs::symlink_metadata(&pipe).unwrap().file_type().is_fifo());
    assert_eq!(home.names(), ["config", "pipe"]);
}

#[test]
fn a_directory_is_refused() {
    let home = Home::with("");
    let directory = home.path(".kube/directory");
    fs::create_dir(&directory).unwrap();
    for error in refused(&only(&directory)) {
        assert!(matches!(error, Error::KubeconfigFile { what: "read", .. }), "{error:?}");
        assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
    }
    assert_eq!(home.names(), ["config", "directory"]);
}

#[test]
fn the_null_device_takes_everything_and_stays() {
    let home = Home::with("");
    let link = home.path(".kube/null");
    symlink("/dev/null", &link).unwrap();
    for path in [Path::new("/dev/null"), link.as_path()] {
        assert_eq!(merge_into(&only(path), &ours()).unwrap(), path);
        assert!(!remove_from(&only(path), "a").unwrap());
    }
    assert!(fs::symlink_metadata("/dev/null").unwrap().file_type().is_char_device());
    assert_eq!(home.names(), ["config", "null"], "no lock is left, nor made beside the device");
    assert!(!Path::new("/dev/null.lock").exists());
}

#[test]
fn endless_devices_are_not_read() {
    for error in refused(&only(Path::new("/dev/zero"))) {
        assert!(matches!(error, Error::KubeconfigFile { what: "read", .. }), "{error:?}");
    }
    assert!(!Path::new("/dev/zero.lock").exists());
}

#[test]
fn a_huge_file_is_refused_unread() {
    let home = Home::with("");
    fs::OpenOptions::new().write(true).open(home.config()).unwrap().set_len(1 << 40).unwrap();
    for error in refused(&home.locations()) {
        assert!(std::error::Error::source(&error).unwrap().to_string().contains("larger than"), "{error:?}");
    }
    assert_eq!(fs::metadata(home.config()).unwrap().len(), 1 << 40);
}

#[test]
fn bytes_that_are_no_text_are_left_as_they_are() {
    let home = Home::with("");
    let mut bytes = OURS.as_bytes().to_vec();
    bytes.extend(b"# \xff\xfe\n");
    fs::write(home.config(), &bytes).unwrap();
    for error in refused(&home.locations()) {
        assert!(matches!(error, Error::KubeconfigFile { what: "read", .. }), "{error:?}");
    }
    assert_eq!(fs::read(home.config()).unwrap(), bytes);
}

#[test]
fn a_home_that_is_none_is_an_error_with_the_path() {
    let home = Home::with("");
    let file = home.path("file");
    fs::write(&file, "").unwrap();
    let locations = locate(None, None, Some(&file)).unwrap();
    let error = merge_into(&locations, &ours()).unwrap_err();
    assert!(matches!(error, Error::KubeconfigFile { .. }), "{error:?}");
    assert!(error.to_string().contains(file.join(".kube/config").to_str().unwrap()), "{error}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
}

#[test]
fn a_home_that_may_not_be_written_is_an_error_with_the_path() {
    let home = Home::new();
    let locked = home.path("locked");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).unwrap();
    let locations = locate(None, None, Some(&locked)).unwrap();
    let error = thread::scope(|scope| {
        let attempt = || {
            // As in `a_read_only_file_is_not_replaced`.
            let mut sets = capabilities(None).unwrap();
            sets.effective.remove(CapabilitySet::DAC_OVERRIDE);
            set_capabilities(None, sets).unwrap();
            merge_into(&locations, &ours()).unwrap_err()
        };
        scope.spawn(attempt).join().unwrap()
    });
    assert!(matches!(error, Error::KubeconfigFile { what: "lock", .. }), "{error:?}");
    assert!(error.to_string().contains(".kube/config"), "{error}");
    assert!(fs::read_dir(&locked).unwrap().next().is_none());
}

#[test]
fn a_path_that_is_no_text_is_a_path() {
    let home = Home::new();
    let path = home.directory.path().join(OsString::from_vec(b"config-\xff".to_vec()));
    let locations = locate(None, Some(path.as_os_str()), None).unwrap();
    assert_eq!(merge_into(&locations, &ours()).unwrap(), path);
    assert_eq!(fs::read_to_string(&path).unwrap(), OURS);
}

#[test]
fn of_several_files_the_first_that_exists_is_changed() {
    let home = Home::with(THEIRS);
    let paths = ["absent", ".kube/config", "other"].map(|name| home.path(name));
    fs::write(&paths[2], THEIRS).unwrap();
    let env = std::env::join_paths(&paths).unwrap();
    let locations = locate(None, Some(&env), None).unwrap();
    assert_eq!(merge_into(&locations, &ours()).unwrap(), paths[1]);
    assert!(!paths[0].exists());
    assert_eq!(fs::read_to_string(&paths[2]).unwrap(), THEIRS);
    assert!(remove_from(&locations, "a").unwrap());
    assert!(!home.text().contains("kind-a"));
}
