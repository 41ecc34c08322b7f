//! A model of a disk under a directory, and the images a power cut can leave of it.
//!
//! The preloaded library (`shim.c`) notes what a process did to files below a directory. Replaying
//! that tells for each file what is durable and which writes and sizes are not yet, and for each
//! directory which entries. An image is the durable part and any subset of the rest:
//!
//! * A write is durable when a sync of its file that began after the write had returned has
//!   returned. Of other writes any set of sectors of 512 bytes may be there.
//! * Sizes likewise; what lies beyond the size that survived is gone, and sectors that were never
//!   written are zeros. `sync_file_range` makes nothing durable.
//! * A name in a directory is durable when the directory was synced. Of others a prefix, or any
//!   subset, may be there. Some images are kinder, as ext4 is: there the sync of a file also keeps
//!   every name given before it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::words::Dice;

const SECTOR: u64 = 512;

/// One noted call.
#[derive(Debug)]
struct Call {
    kind: u8,
    number: u64,
    inode: u64,
    a: u64,
    bytes: Vec<u8>,
}

fn read_log(path: &Path) -> Vec<Call> {
    let log = fs::read(path).unwrap_or_default();
    let mut calls = Vec::new();
    let mut rest = &log[..];
    while rest.len() >= 37 {
        let word = |at: usize| u64::from_le_bytes(rest[at..at + 8].try_into().expect("eight"));
        let length = u32::from_le_bytes(rest[33..37].try_into().expect("four")) as usize;
        // Killed while it was written: the call was not made yet, or nothing relies on it.
        if rest.len() < 37 + length {
            break;
        }
        calls.push(Call {
            kind: rest[0],
            number: word(1),
            inode: word(9),
            a: word(17),
            bytes: rest[37..37 + length].to_vec(),
        });
        rest = &rest[37 + length..];
    }
    calls
}

/// How many calls a process made that change something.
pub fn calls_made(log: &Path) -> u64 {
    read_log(log)
        .iter()
        .map(|call| call.number)
        .max()
        .unwrap_or(0)
}

#[derive(Debug, Clone)]
enum FileOp {
    Write { at: u64, bytes: Vec<u8> },
    Size(u64),
}

/// Something not durable yet, and its place in the log.
#[derive(Debug, Clone)]
struct Pending<T> {
    op: T,
    /// Where in the log it had happened; `None`: it may not have.
    done: Option<usize>,
    began: usize,
}

#[derive(Debug, Default, Clone)]
struct File {
    durable: Vec<u8>,
    pending: Vec<Pending<FileOp>>,
    /// Where in the log each write began, by the number of its call.
    calls: HashMap<u64, usize>,
    touched: bool,
}

#[derive(Debug, Clone)]
enum NameOp {
    Put(String, u64),
    Take(String),
    Move(String, String),
}

#[derive(Debug, Default, Clone)]
struct Directory {
    durable: BTreeMap<String, u64>,
    live: BTreeMap<String, u64>,
    pending: Vec<Pending<NameOp>>,
}

/// How much of what was not synced survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Survives {
    /// All of it: the process died, the machine did not.
    All,
    /// Nothing.
    Nothing,
    /// Each sector with so many of a hundred chances.
    Sectors(u64),
    /// Each write with so many of a hundred chances.
    Writes(u64),
    /// Everything up to a moment, and a part of the write then under way.
    Prefix,
    /// Nothing up to a moment, and everything after it.
    Suffix,
}

impl Survives {
    /// Any of them.
    pub fn any(dice: &mut Dice) -> Self {
        match dice.below(12) {
            0 => Self::All,
            1 | 2 => Self::Nothing,
            3 => Self::Sectors(10),
            4 => Self::Sectors(50),
            5 => Self::Sectors(90),
            6 => Self::Writes(20),
            7 => Self::Writes(50),
            8 => Self::Writes(80),
            9 | 10 => Self::Prefix,
            _ => Self::Suffix,
        }
    }
}

/// The files below a directory as they were when nothing was pending.
pub struct Disk {
    root: PathBuf,
    /// Contents of every file, by path below the root; directories end with a slash.
    tree: BTreeMap<PathBuf, Vec<u8>>,
    directories: BTreeSet<PathBuf>,
    inodes: HashMap<PathBuf, u64>,
}

/// What is left after a power cut.
struct Image {
    files: BTreeMap<PathBuf, (u64, Vec<u8>)>,
    directories: BTreeSet<PathBuf>,
}

/// The disk after a process worked on it.
struct After {
    files: HashMap<u64, File>,
    directories: HashMap<u64, Directory>,
    root: u64,
    paths: HashMap<PathBuf, u64>,
}

impl Disk {
    /// Takes the directory as it is for durable.
    pub fn take(root: &Path) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            tree: BTreeMap::new(),
            directories: BTreeSet::new(),
            inodes: HashMap::new(),
        };
        disk.read(&root.to_owned());
        disk.number();
        disk
    }

    fn read(&mut self, dir: &PathBuf) {
        self.directories.insert(dir.clone());
        for entry in fs::read_dir(dir).expect("a directory of the test") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                self.read(&path);
            } else {
                let bytes = fs::read(&path).expect("a file of the test");
                self.tree.insert(path, bytes);
            }
        }
    }

    /// Every file with its contents.
    pub fn files(&self) -> &BTreeMap<PathBuf, Vec<u8>> {
        &self.tree
    }

    /// A part of the tree is gone, and nobody looks for it again.
    pub fn forget(&mut self, name: &str) {
        let gone = self.root.join(name);
        self.tree.retain(|path, _| !path.starts_with(&gone));
        self.directories.retain(|path| !path.starts_with(&gone));
        self.inodes.retain(|path, _| !path.starts_with(&gone));
    }

    /// Makes the directory one of those a power cut can leave after the process that wrote `log`, which
    /// worked on the directory as this disk has it. What it is then is what is durable.
    pub fn cut_power(&mut self, log: &Path, survives: Survives, dice: &mut Dice) {
        let calls = read_log(log);
        let strict = dice.percent(50);
        let mut after = self.replay(&calls, strict);
        let image = after.image(&self.root, calls.len(), survives, dice);
        self.become_image(image, &after);
    }

    /// What is durable and what is pending after these calls.
    fn replay(&self, calls: &[Call], strict: bool) -> After {
        let mut after = self.before();
        let mut syncs = HashMap::new();
        for (index, call) in calls.iter().enumerate() {
            match call.kind {
                b's' => _ = syncs.insert(call.number, index),
                b'S' => {
                    let began = syncs.remove(&call.number).expect("a sync ends that began");
                    after.sync(call.inode, began, strict);
                }
                _ => after.note(call, index),
            }
        }
        after
    }

    fn before(&self) -> After {
        let mut after = After {
            files: HashMap::new(),
            directories: HashMap::new(),
            root: self.inodes[&self.root],
            paths: self.inodes.clone(),
        };
        for path in &self.directories {
            after
                .directories
                .insert(self.inodes[path], Directory::default());
        }
        for (path, &number) in &self.inodes {
            if *path == self.root {
                continue;
            }
            let parent = self.inodes[path.parent().expect("below the root")];
            let name = name_of(path);
            let parent = after.directories.get_mut(&parent).expect("a directory");
            parent.durable.insert(name.clone(), number);
            parent.live.insert(name, number);
            if let Some(bytes) = self.tree.get(path) {
                let file = File {
                    durable: bytes.clone(),
                    ..File::default()
                };
                after.files.insert(number, file);
            }
        }
        after
    }

    /// Makes the files on the real disk those of the image.
    fn become_image(&mut self, image: Image, after: &After) {
        for path in self.live_files() {
            if !image.files.contains_key(&path) {
                fs::remove_file(&path).expect("removed");
            }
        }
        for dir in live_directories(&self.root).into_iter().rev() {
            if !image.directories.contains(&dir) {
                // Files that only the image has are written below.
                let _ = fs::remove_dir_all(&dir);
            }
        }
        for dir in &image.directories {
            fs::create_dir_all(dir).expect("made");
        }
        let mut tree = BTreeMap::new();
        for (path, (inode, bytes)) in image.files {
            let lies_there = fs::metadata(&path).is_ok_and(|meta| meta.ino() == inode);
            if after.files[&inode].touched || !lies_there {
                fs::write(&path, &bytes).expect("written");
            }
            tree.insert(path, bytes);
        }
        self.tree = tree;
        self.directories = image.directories;
        self.number();
    }

    fn live_files(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        for dir in live_directories(&self.root) {
            for entry in fs::read_dir(&dir).expect("a directory") {
                let path = entry.expect("an entry").path();
                if !path.is_dir() {
                    found.push(path);
                }
            }
        }
        found
    }

    /// Looks up the inode of everything.
    fn number(&mut self) {
        let paths = self.tree.keys().chain(&self.directories);
        let inode = |path: &PathBuf| fs::metadata(path).expect("it is there").ino();
        self.inodes = paths.map(|path| (path.clone(), inode(path))).collect();
    }

    /// Writes everything into another directory, which is replaced.
    pub fn write_to(&self, dir: &Path) {
        let _ = fs::remove_dir_all(dir);
        let at = |path: &Path| dir.join(path.strip_prefix(&self.root).expect("below the root"));
        for path in &self.directories {
            fs::create_dir_all(at(path)).expect("a directory");
        }
        for (path, bytes) in &self.tree {
            fs::write(at(path), bytes).expect("a file");
        }
    }

    /// Where a file lies below the root.
    pub fn below<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).expect("below the root")
    }
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().expect("below the root");
    name.to_str().expect("names are text").to_owned()
}

fn live_directories(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.to_owned()];
    let mut at = 0;
    while at < found.len() {
        for entry in fs::read_dir(&found[at]).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                found.push(path);
            }
        }
        at += 1;
    }
    found
}

impl After {
    fn note(&mut self, call: &Call, index: usize) {
        let path = || PathBuf::from(String::from_utf8_lossy(&call.bytes).into_owned());
        match call.kind {
            b'w' => {
                let op = FileOp::Write {
                    at: call.a,
                    bytes: call.bytes.clone(),
                };
                self.change_file(call.inode, op, None, (index, call.number));
            }
            b'W' => self.write_returned(call, index),
            b't' => {
                let op = FileOp::Size(call.a);
                self.change_file(call.inode, op, Some(index), (index, call.number));
            }
            b'c' => {
                let made = File {
                    touched: true,
                    ..File::default()
                };
                self.files.insert(call.inode, made);
                self.put(&path(), call.inode, index);
            }
            b'm' => {
                self.directories.entry(call.inode).or_default();
                self.put(&path(), call.inode, index);
            }
            b'u' => {
                let path = path();
                self.paths.remove(&path);
                self.change_names(&path, NameOp::Take(name_of(&path)), index);
            }
            b'r' => self.renamed(&call.bytes, index),
            other => panic!("the log has a record of kind {other}"),
        }
    }

    fn put(&mut self, path: &Path, inode: u64, index: usize) {
        self.paths.insert(path.to_owned(), inode);
        self.change_names(path, NameOp::Put(name_of(path), inode), index);
    }

    fn renamed(&mut self, bytes: &[u8], index: usize) {
        let mut names = bytes.split(|byte| *byte == 0);
        let mut next = || {
            PathBuf::from(String::from_utf8_lossy(names.next().expect("two names")).into_owned())
        };
        let (from, to) = (next(), next());
        assert_eq!(from.parent(), to.parent(), "renamed within a directory");
        self.change_names(&from, NameOp::Move(name_of(&from), name_of(&to)), index);
        let moved: Vec<PathBuf> = self
            .paths
            .keys()
            .filter(|path| path.starts_with(&from))
            .cloned()
            .collect();
        for old in moved {
            let inode = self.paths.remove(&old).expect("just seen");
            let rest = old.strip_prefix(&from).expect("below it");
            let new = if rest.as_os_str().is_empty() {
                to.clone()
            } else {
                to.join(rest)
            };
            self.paths.insert(new, inode);
        }
    }

    fn change_names(&mut self, path: &Path, op: NameOp, index: usize) {
        let parent = self.paths[path.parent().expect("below the root")];
        let parent = self.directories.get_mut(&parent).expect("a directory");
        apply_name(&mut parent.live, &op);
        parent.pending.push(Pending {
            op,
            done: Some(index),
            began: index,
        });
    }

    fn change_file(&mut self, inode: u64, op: FileOp, done: Option<usize>, at: (usize, u64)) {
        let file = self.files.get_mut(&inode).expect("a file that is known");
        file.touched = true;
        file.pending.push(Pending {
            op,
            done,
            began: at.0,
        });
        file.calls.insert(at.1, at.0);
    }

    fn write_returned(&mut self, call: &Call, index: usize) {
        let file = self
            .files
            .get_mut(&call.inode)
            .expect("a file that is known");
        let began = file.calls.remove(&call.number).expect("it began");
        if let Some(pending) = file
            .pending
            .iter_mut()
            .find(|pending| pending.began == began)
        {
            pending.done = Some(index);
            if let FileOp::Write { bytes, .. } = &mut pending.op {
                bytes.truncate(usize::try_from(call.a).expect("small"));
            }
        }
    }

    /// A sync that began at `began` returned.
    fn sync(&mut self, inode: u64, began: usize, strict: bool) {
        let covered = |done: Option<usize>| done.is_some_and(|done| done < began);
        if let Some(file) = self.files.get_mut(&inode) {
            let mut rest = Vec::new();
            for pending in file.pending.drain(..) {
                if covered(pending.done) {
                    apply_file(&mut file.durable, &pending.op);
                } else {
                    rest.push(pending);
                }
            }
            file.pending = rest;
        }
        for (&number, directory) in &mut self.directories {
            if number == inode || !strict {
                let mut rest = Vec::new();
                for pending in directory.pending.drain(..) {
                    if covered(pending.done) {
                        apply_name(&mut directory.durable, &pending.op);
                    } else {
                        rest.push(pending);
                    }
                }
                directory.pending = rest;
            }
        }
    }

    fn image(&mut self, root: &Path, calls: usize, survives: Survives, dice: &mut Dice) -> Image {
        let moment = dice.below(calls as u64 + 1) as usize;
        let mut image = Image {
            files: BTreeMap::new(),
            directories: BTreeSet::new(),
        };
        let mut waiting = vec![(root.to_owned(), self.root)];
        while let Some((path, inode)) = waiting.pop() {
            if let Some(directory) = self.directories.get(&inode) {
                for (name, inode) in directory.survivors(survives, moment, dice) {
                    waiting.push((path.join(name), inode));
                }
                image.directories.insert(path);
            } else {
                let bytes = self.files[&inode].survivor(survives, moment, dice);
                image.files.insert(path, (inode, bytes));
            }
        }
        image
    }
}

impl Directory {
    fn survivors(
        &self,
        survives: Survives,
        moment: usize,
        dice: &mut Dice,
    ) -> BTreeMap<String, u64> {
        let mut names = self.durable.clone();
        let prefix = dice.below(self.pending.len() as u64 + 1) as usize;
        let ordered = dice.percent(60);
        for (index, pending) in self.pending.iter().enumerate() {
            let kept = match survives {
                Survives::All => true,
                Survives::Nothing => false,
                Survives::Prefix => pending.began <= moment,
                Survives::Suffix => pending.began > moment,
                _ if ordered => index < prefix,
                Survives::Sectors(percent) | Survives::Writes(percent) => dice.percent(percent),
            };
            if kept {
                apply_name(&mut names, &pending.op);
            }
        }
        names
    }
}

impl File {
    fn survivor(&self, survives: Survives, moment: usize, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let mut sizes = vec![bytes.len() as u64];
        let mut size = bytes.len() as u64;
        for pending in &self.pending {
            size = match &pending.op {
                FileOp::Size(size) => *size,
                FileOp::Write { at, bytes } => size.max(at + bytes.len() as u64),
            };
            sizes.push(size);
        }
        for pending in &self.pending {
            let FileOp::Write { at, bytes: written } = &pending.op else {
                if survives == Survives::All {
                    apply_file(&mut bytes, &pending.op);
                }
                continue;
            };
            let sectors = match survives {
                Survives::All => 100,
                Survives::Nothing => 0,
                Survives::Sectors(percent) => percent,
                Survives::Writes(percent) => 100 * u64::from(dice.percent(percent)),
                Survives::Prefix if pending.done.is_some_and(|done| done <= moment) => 100,
                Survives::Prefix if pending.began <= moment => 50,
                Survives::Suffix if pending.began > moment => 100,
                Survives::Prefix | Survives::Suffix => 0,
            };
            write_sectors(&mut bytes, *at, written, |_| dice.percent(sectors));
        }
        let size = match survives {
            Survives::All => *sizes.last().expect("at least one"),
            Survives::Nothing => sizes[0],
            _ => *dice.pick(&sizes).expect("at least one"),
        };
        resize(&mut bytes, usize::try_from(size).expect("small"));
        bytes
    }
}

/// Writes those sectors that `kept` says.
fn write_sectors(into: &mut Vec<u8>, at: u64, written: &[u8], mut kept: impl FnMut(u64) -> bool) {
    let mut from = 0;
    while from < written.len() {
        let position = at + from as u64;
        let to_boundary = (SECTOR - position % SECTOR) as usize;
        let length = to_boundary.min(written.len() - from);
        if kept(position / SECTOR) {
            let start = usize::try_from(position).expect("small");
            if into.len() < start + length {
                resize(into, start + length);
            }
            into[start..start + length].copy_from_slice(&written[from..from + length]);
        }
        from += length;
    }
}

/// As `Vec::resize` with zeros, which costs a call per byte where nothing is optimised.
fn resize(bytes: &mut Vec<u8>, size: usize) {
    if size > bytes.len() {
        bytes.extend_from_slice(&vec![0; size - bytes.len()]);
    } else {
        bytes.truncate(size);
    }
}

fn apply_file(bytes: &mut Vec<u8>, op: &FileOp) {
    match op {
        FileOp::Size(size) => resize(bytes, usize::try_from(*size).expect("small")),
        FileOp::Write { at, bytes: written } => write_sectors(bytes, *at, written, |_| true),
    }
}

fn apply_name(names: &mut BTreeMap<String, u64>, op: &NameOp) {
    match op {
        NameOp::Put(name, inode) => _ = names.insert(name.clone(), *inode),
        NameOp::Take(name) => _ = names.remove(name),
        // Where the old name did not survive there is nothing to rename.
        NameOp::Move(from, to) => {
            if let Some(inode) = names.remove(from) {
                names.insert(to.clone(), inode);
            }
        }
    }
}
