//! Stores to be broken: what is in them, and how an input changes it.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;

use super::Input;

/// Most changes of one input: one shows what a fault does, a few what two faults do together.
const CHANGES_MAX: usize = 8;
/// Positions are counted in blocks of this size that hold something, for most of a store is zeros.
const BLOCK: usize = 512;

/// A store as a stopped or killed server left it.
#[derive(Debug)]
pub struct Scene {
    /// The contents of its files, by their path in it.
    pub files: BTreeMap<PathBuf, Vec<u8>>,
}

const STOPPED: &[u8] = include_bytes!("../../scenes/stopped.tar.zst");
const KILLED: &[u8] = include_bytes!("../../scenes/killed.tar.zst");
const INDEX: &[u8] = include_bytes!("../../scenes/index.tar.zst");
const FORMAT_1: &[u8] = include_bytes!("../../../data/fixtures/stores/format-1.tar.zst");

/// A peer's stores: one that was stopped, one whose process was killed while it was idle, and the first format's.
pub fn scenes() -> &'static [Scene; 3] {
    static SCENES: OnceLock<[Scene; 3]> = OnceLock::new();
    SCENES.get_or_init(|| {
        [
            Scene::unpack(STOPPED, "peer"),
            Scene::unpack(KILLED, "peer"),
            Scene::unpack(FORMAT_1, "peer"),
        ]
    })
}

/// An index server's store.
pub fn index_scene() -> &'static Scene {
    static SCENE: OnceLock<Scene> = OnceLock::new();
    SCENE.get_or_init(|| Scene::unpack(INDEX, "peer"))
}

impl Scene {
    /// Reads what is below `top` in a packed tar archive of plain files with short names.
    fn unpack(archive: &[u8], top: &str) -> Self {
        let mut bytes = Vec::new();
        zstd::Decoder::new(archive)
            .and_then(|mut decoder| decoder.read_to_end(&mut bytes))
            .expect("the archive is whole");
        let field = |header: &[u8], at: usize, length: usize| {
            let text = header[at..at + length].split(|byte| *byte == 0).next();
            String::from_utf8(text.unwrap_or_default().to_vec()).expect("text")
        };
        let (mut files, mut rest) = (BTreeMap::new(), &bytes[..]);
        while rest.len() >= BLOCK && rest[0] != 0 {
            let (header, after) = rest.split_at(BLOCK);
            let length = usize::from_str_radix(field(header, 124, 12).trim(), 8).expect("octal");
            let path = PathBuf::from(field(header, 0, 100));
            if header[156] == b'0'
                && let Ok(path) = path.strip_prefix(top)
            {
                files.insert(path.to_owned(), after[..length].to_vec());
            }
            rest = &after[length.next_multiple_of(BLOCK)..];
        }
        assert!(files.len() > 2, "an archive without {top}");
        Self { files }
    }

    /// The registry of the first format.
    pub fn first_index() -> Self {
        Self::unpack(FORMAT_1, "index")
    }

    /// Reads what is in a directory.
    pub fn of_directory(dir: &Path) -> Self {
        fn walk(at: &Path, top: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(at).expect("a directory") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    walk(&path, top, files);
                } else {
                    let name = path.strip_prefix(top).expect("below it").to_owned();
                    files.insert(name, fs::read(&path).expect("a file"));
                }
            }
        }
        let mut files = BTreeMap::new();
        walk(dir, dir, &mut files);
        Self { files }
    }

    /// Puts it into a new scratch directory, in memory if possible.
    pub fn set_up(&self) -> TempDir {
        let dir = scratch();
        for (name, bytes) in &self.files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("it is below")).expect("made");
            // What is zero to the end is left to the file system.
            let used = bytes
                .iter()
                .rposition(|byte| *byte != 0)
                .map_or(0, |at| at + 1);
            fs::write(&path, &bytes[..used]).expect("written");
            let file = fs::OpenOptions::new().write(true).open(&path);
            file.and_then(|file| file.set_len(bytes.len() as u64))
                .expect("of its size");
        }
        dir
    }

    /// The scene with the changes an input asks for, to files below `part`, and how much was changed.
    pub fn changed(&self, part: &str, mut input: Input<'_>) -> (Self, Changed) {
        let mut files = self.files.clone();
        let mut changed = Changed::Nothing;
        for _ in 0..CHANGES_MAX {
            if input.0.is_empty() {
                break;
            }
            let one = change(&mut files, part, &mut input);
            changed = match (changed, one) {
                (same, Changed::Nothing) | (Changed::Nothing, same) => same,
                _ => Changed::Much,
            };
        }
        (Self { files }, changed)
    }
}

/// How much of a store was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Nothing at all.
    Nothing,
    /// Some bytes of one sector.
    OnePlace,
    /// More, or whole files.
    Much,
}

/// A new scratch directory.
pub fn scratch() -> TempDir {
    tempfile::Builder::new()
        .prefix("tidings-fuzz-")
        .tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a scratch directory")
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

fn pick(files: &Files, part: &str, input: &mut Input<'_>) -> Option<PathBuf> {
    let names: Vec<_> = files.keys().filter(|name| name.starts_with(part)).collect();
    let at = usize::from(input.byte());
    names
        .get(at.checked_rem(names.len())?)
        .map(|name| name.to_path_buf())
}

/// A position in a file: in the blocks that hold something, or in the first that does not.
fn position(bytes: &[u8], input: &mut Input<'_>) -> Option<usize> {
    let (block, within) = (usize::from(input.u16()), usize::from(input.u16()) % BLOCK);
    let used = |at: &usize| {
        let block = &bytes[*at..(*at + BLOCK).min(bytes.len())];
        *at == 0 || block.iter().any(|byte| *byte != 0) || bytes[at - 1] != 0
    };
    let used: Vec<_> = (0..bytes.len()).step_by(BLOCK).filter(used).collect();
    let at = used.get(block.checked_rem(used.len())?)? + within;
    (at < bytes.len()).then_some(at)
}

/// Makes one change; every kind of damage a disk, a copy or a hand has done.
fn change(files: &mut Files, part: &str, input: &mut Input<'_>) -> Changed {
    let kind = input.byte();
    let Some(name) = pick(files, part, input) else {
        return Changed::Nothing;
    };
    let bytes = files.get_mut(&name).expect("it was picked");
    let Some(at) = position(bytes, input) else {
        return Changed::Nothing;
    };
    let end = (at / BLOCK * BLOCK + BLOCK).min(bytes.len());
    match kind % 8 {
        // Twice, for it is the one that teaches most.
        0 | 1 => {
            let mask = input.byte();
            bytes[at] ^= mask;
            return if mask == 0 {
                Changed::Nothing
            } else {
                Changed::OnePlace
            };
        }
        2 => {
            let new = input.slice();
            let place = &mut bytes[at..end];
            let length = new.len().min(place.len());
            if place[..length] == new[..length] {
                return Changed::Nothing;
            }
            place[..length].copy_from_slice(&new[..length]);
            return Changed::OnePlace;
        }
        3 => {
            if bytes[at..end].iter().all(|byte| *byte == 0) {
                return Changed::Nothing;
            }
            bytes[at..end].fill(0);
            return Changed::OnePlace;
        }
        4 => bytes.truncate(at),
        5 => return misplace(files, part, &name, input),
        6 => {
            files.remove(&name);
        }
        _ => {
            let other = pick(files, part, input).expect("there is at least one");
            let one = files.remove(&name).expect("it was picked");
            let two = files.remove(&other).unwrap_or_else(|| one.clone());
            files.insert(name, two);
            files.insert(other, one);
        }
    }
    Changed::Much
}

/// A sector is written to where another one belongs.
fn misplace(files: &mut Files, part: &str, from: &Path, input: &mut Input<'_>) -> Changed {
    let Some(to) = pick(files, part, input) else {
        return Changed::Nothing;
    };
    let source = &files[from];
    let Some(at) = position(source, input) else {
        return Changed::Nothing;
    };
    let at = at / BLOCK * BLOCK;
    let sector = source[at..(at + BLOCK).min(source.len())].to_vec();
    let target = files.get_mut(&to).expect("it was picked");
    let Some(place) = position(target, input) else {
        return Changed::Nothing;
    };
    let place = place / BLOCK * BLOCK;
    let length = sector.len().min(target.len() - place);
    target[place..place + length].copy_from_slice(&sector[..length]);
    Changed::Much
}
