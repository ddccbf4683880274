//! What a program links, read from the program itself.

use std::{
    collections::{BTreeSet, VecDeque},
    io::{self, Read},
    path::{Path, PathBuf},
};

use object::{
    Endianness,
    elf::{DT_NEEDED, DT_RPATH, DT_RUNPATH, FileHeader64},
    read::elf::{ElfFile, FileHeader as _, ProgramHeader as _},
};

use super::subset;
use crate::{Error, Result};

/// What the dynamic section and the program headers of a file say.
#[derive(Debug, Default, PartialEq, Eq)]
struct Links {
    interpreter: Option<String>,
    libraries: Vec<String>,
    search: Vec<String>,
}

/// The libraries and program loaders that the given files need, and those that these need in turn. All paths are
/// absolute in `root`; nothing is executed.
///
/// # Errors
/// [`Error::Recipe`] when a file is no ELF file of this machine or a library is missing.
pub(super) fn libraries(root: &Path, files: &[PathBuf]) -> Result<BTreeSet<PathBuf>> {
    let standard = search_directories(root);
    let mut found = BTreeSet::new();
    let mut queue: VecDeque<PathBuf> = files.iter().cloned().collect();
    while let Some(file) = queue.pop_front() {
        let links = read(root, &file)?;
        let mut needed: Vec<PathBuf> = links.interpreter.iter().map(PathBuf::from).collect();
        for name in &links.libraries {
            let directories = links.search.iter().map(PathBuf::from).chain(standard.iter().cloned());
            let path = directories.map(|directory| directory.join(name)).find(|path| exists(root, path));
            needed.push(path.ok_or_else(|| Error::Recipe {
                object: file.display().to_string(),
                reason: format!("its library {name} is not in the root"),
            })?);
        }
        queue.extend(needed.into_iter().filter(|path| found.insert(path.clone())));
    }
    Ok(found)
}

/// Whether a program is for the machine that this one runs on.
///
/// # Errors
/// [`Error::File`] when it cannot be read.
pub(super) fn is_for_this_machine(file: &Path) -> Result<bool> {
    let machine = |path: &Path| {
        let mut header = Vec::new();
        fs_err::File::open(path)?
            .take(size_of::<FileHeader64<Endianness>>() as u64)
            .read_to_end(&mut header)?;
        let parsed = FileHeader64::<Endianness>::parse(&header[..]).ok();
        io::Result::Ok(parsed.and_then(|elf| Some(elf.e_machine(elf.endian().ok()?))))
    };
    let machines = machine(Path::new("/proc/self/exe")).and_then(|own| Ok((own, machine(file)?)));
    let (own, other) = machines.map_err(|source| Error::File { what: "read a program", source })?;
    Ok(own == other)
}

/// Where Debian's loader looks: the directories of its architectures first.
fn search_directories(root: &Path) -> Vec<PathBuf> {
    let mut directories = Vec::new();
    if let Ok(entries) = fs_err::read_dir(root.join("usr/lib")) {
        for entry in entries.filter_map(std::result::Result::ok) {
            if entry.file_name().to_str().is_some_and(|name| name.contains("-linux-gnu")) {
                directories.push(Path::new("/usr/lib").join(entry.file_name()));
            }
        }
    }
    directories.sort();
    directories.push("/usr/lib".into());
    directories.push("/usr/lib64".into());
    directories
}

fn exists(root: &Path, path: &Path) -> bool {
    subset::resolve(root, path).is_some_and(|file| file.is_file())
}

fn read(root: &Path, file: &Path) -> Result<Links> {
    let unusable = |reason: String| Error::Recipe { object: file.display().to_string(), reason };
    let path = subset::resolve(root, file).ok_or_else(|| unusable("it is not in the root".to_owned()))?;
    let data = fs_err::read(path).map_err(|source| Error::File { what: "read a program", source })?;
    parse(&data, file).map_err(|source| unusable(source.to_string()))
}

fn parse(data: &[u8], file: &Path) -> object::Result<Links> {
    let elf = ElfFile::<FileHeader64<Endianness>>::parse(data)?;
    let endian = elf.endian();
    let mut links = Links::default();
    for header in elf.elf_header().program_headers(endian, data)? {
        if let Some(interpreter) = header.interpreter(endian, data)? {
            links.interpreter = Some(String::from_utf8_lossy(interpreter).into_owned());
        }
    }
    let dynamic = elf.elf_section_table().dynamic_table(endian, data)?;
    for entry in dynamic.iter() {
        if !matches!(entry.tag, DT_NEEDED | DT_RUNPATH | DT_RPATH) {
            continue;
        }
        let text = String::from_utf8_lossy(dynamic.string(entry)?).into_owned();
        if entry.tag == DT_NEEDED {
            links.libraries.push(text);
        } else {
            let origin = file.parent().unwrap_or(Path::new("/")).display().to_string();
            links.search.extend(text.split(':').map(|directory| directory.replace("$ORIGIN", &origin)));
        }
    }
    Ok(links)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_of_the_host_needs_its_loader_and_libc() {
        let shell = fs_err::canonicalize("/bin/sh").unwrap();
        let found = libraries(Path::new("/"), &[shell]).unwrap();
        let has = |part: &str| found.iter().any(|path| path.to_string_lossy().contains(part));
        assert!(has("ld-linux"), "{found:?}");
        assert!(has("libc.so.6"), "{found:?}");
    }

    #[test]
    fn libraries_of_libraries_are_found_too() {
        let libc = libraries(Path::new("/"), &[fs_err::canonicalize("/bin/sh").unwrap()]).unwrap();
        let libc: Vec<_> =
            libc.into_iter().filter(|path| path.to_string_lossy().contains("libc.so.6")).collect();
        let of_libc = libraries(Path::new("/"), &libc).unwrap();
        assert!(of_libc.iter().any(|path| path.to_string_lossy().contains("ld-linux")), "{of_libc:?}");
    }

    #[test]
    fn programs_of_other_machines_are_told_apart() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("program");
        let mut program = fs_err::read("/proc/self/exe").unwrap();
        assert!(is_for_this_machine(Path::new("/bin/sh")).unwrap());
        // EM_S390 in the order of this machine's bytes, at e_machine.
        program[18..20].copy_from_slice(&22_u16.to_ne_bytes());
        fs_err::write(&file, &program[..4096]).unwrap();
        assert!(!is_for_this_machine(&file).unwrap());
        fs_err::write(&file, "#!/bin/sh").unwrap();
        assert!(!is_for_this_machine(&file).unwrap());
    }

    #[test]
    fn what_is_no_program_is_refused_by_name() {
        let error = libraries(Path::new("/"), &["/etc/passwd".into()]).unwrap_err();
        assert!(error.to_string().starts_with("/etc/passwd is not usable"), "{error}");
    }
}
