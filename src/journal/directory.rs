//! The journal's directory: which slots there are, how their disk is used, and which are open.
//!
//! Slots are files `slot-00000001`, `slot-00000002` and so on, all of one size; other files are
//! none of our business. A slot is made empty, prepared, reused any number of times, and perhaps
//! removed; its name never changes (J13).
//!
//! Invariants
//! 1. All slots have the size the first header says; a directory that holds two sizes is refused.
//! 2. The sector new slots get is at least what direct reads and writes must be aligned to.
//! 3. An id of this directory is not given to a second file while the process runs.
//! 4. A directory with a slot of a later format is refused whole: what cannot be read there is not damage, and
//!    nothing may be built beside it.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::error::JournalError;
use super::header::{FORMAT_VERSION, HeaderCopies, HeaderFault, SlotHeader};
use super::probe::{Disk, probe};
use super::slot::{Access, Slot, SlotContext};
use super::watch::DiskWatch;
use crate::limits::{
    SECTOR_BYTES_MAX, SECTOR_BYTES_MIN, SLOT_BYTES_DEFAULT, SLOT_BYTES_MAX, SLOT_BYTES_MIN,
    SLOTS_OPEN_MAX,
};

/// An open slot, shared by those who use it.
pub type SlotHandle = Arc<Slot>;

/// How a journal is opened.
#[derive(Debug, Clone, Copy, Default)]
pub struct JournalOptions {
    /// Size of the slots of a new journal, in bytes; one that has slots keeps their size.
    pub slot_bytes: Option<u32>,
    /// Never use O_DIRECT.
    pub page_cache_only: bool,
    /// Write nothing; the directory must exist.
    pub read_only: bool,
}

/// A slot as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedSlot {
    /// The number in the file's name.
    pub id: u32,
    /// The size of the file, in bytes: another than the slot's if it was never prepared or was cut.
    pub file_bytes: u64,
    /// What the copies of its header say.
    pub header: HeaderCopies,
}

impl ListedSlot {
    /// Whether the slot never was prepared to the end, so that it holds nothing and never did.
    pub fn is_unused(&self) -> bool {
        self.header.is_blank()
    }

    /// The format that a later version of this program gave the slot. One copy is enough: that version may
    /// have been killed between the two.
    fn newer_format(&self) -> Option<u32> {
        self.header.copies.iter().find_map(|copy| match copy {
            Err(HeaderFault::Version { found }) => Some(*found),
            _ => None,
        })
    }

    /// Why the slot cannot be read although it was used: the fault of its first copy.
    pub fn fault(&self) -> Option<HeaderFault> {
        let fault = self.header.copies.iter().find_map(|copy| copy.err());
        fault.filter(|_| self.header.header().is_none() && !self.is_unused())
    }
}

#[derive(Debug)]
struct Open {
    slots: HashMap<u32, (SlotHandle, u64)>,
    uses: u64,
    last_id: u32,
}

/// The journal's directory.
#[derive(Debug)]
pub struct JournalDir {
    path: PathBuf,
    context: SlotContext,
    sector: u32,
    open: Mutex<Open>,
}

impl JournalDir {
    /// Opens the directory, or makes it; looks at the disk; reads the headers of all slots.
    ///
    /// # Errors
    /// If the directory cannot be used, its slots have different sizes, or one is of a later format.
    pub fn open(
        path: &Path,
        options: &JournalOptions,
    ) -> Result<(Self, Vec<ListedSlot>), JournalError> {
        if !options.read_only {
            make_directory(path)?;
        }
        let directory = File::open(path).map_err(JournalError::io("open", path))?;
        let disk = if options.read_only {
            read_only_disk()
        } else {
            probe(path, options.page_cache_only)
                .map_err(JournalError::io("try to write in", path))?
        };
        let mut this = Self {
            path: path.to_owned(),
            context: SlotContext {
                directory: Arc::new(directory),
                access: disk.access,
                slot_bytes: 0,
                watch: Arc::default(),
            },
            sector: disk.sector,
            open: Mutex::new(Open {
                slots: HashMap::new(),
                uses: 0,
                last_id: 0,
            }),
        };
        let listed = this.list()?;
        refuse_newer(path, &listed)?;
        this.settle(&listed, options)?;
        let last = listed.last().map_or(0, |slot| slot.id);
        this.lock().last_id = last.max(last_set_aside(path)?);
        Ok((this, listed))
    }

    /// Decides on slot size and sector by what is there.
    fn settle(
        &mut self,
        listed: &[ListedSlot],
        options: &JournalOptions,
    ) -> Result<(), JournalError> {
        let mut headers = listed.iter().filter_map(|slot| slot.header.header());
        let asked = options.slot_bytes.map_or(SLOT_BYTES_DEFAULT, u64::from);
        let Some(first) = headers.next() else {
            self.context.slot_bytes = self.check_slot_bytes(asked)?;
            return Ok(());
        };
        self.context.slot_bytes = first.slot_bytes;
        self.sector = self.sector.max(first.sector);
        for header in headers {
            self.check_same_size(first, header)?;
            self.sector = self.sector.max(header.sector);
        }
        Ok(())
    }

    fn check_slot_bytes(&self, asked: u64) -> Result<u32, JournalError> {
        let fits = (SLOT_BYTES_MIN..=SLOT_BYTES_MAX).contains(&asked)
            && asked.is_multiple_of(u64::from(SECTOR_BYTES_MAX));
        let bytes = u32::try_from(asked).ok().filter(|_| fits);
        bytes.ok_or_else(|| JournalError::Unsuitable {
            path: self.path.clone(),
            what: format!(
                "a slot of {asked} bytes was asked for, expected a multiple of {SECTOR_BYTES_MAX} \
                 from {SLOT_BYTES_MIN} to {SLOT_BYTES_MAX}"
            ),
        })
    }

    fn check_same_size(&self, first: &SlotHeader, other: &SlotHeader) -> Result<(), JournalError> {
        if first.slot_bytes == other.slot_bytes {
            return Ok(());
        }
        Err(JournalError::Unsuitable {
            path: self.path.clone(),
            what: format!(
                "slot {} has {} bytes and slot {} has {}, expected one size: were two stores mixed?",
                first.slot, first.slot_bytes, other.slot, other.slot_bytes
            ),
        })
    }

    /// The slots that are there, by id, with their headers.
    ///
    /// # Errors
    /// If the directory or a file cannot be opened.
    pub fn list(&self) -> Result<Vec<ListedSlot>, JournalError> {
        let mut files = Vec::new();
        for item in fs::read_dir(&self.path).map_err(JournalError::io("list", &self.path))? {
            let item = item.map_err(JournalError::io("list", &self.path))?;
            if let Some(id) = item.file_name().to_str().and_then(id_of_name) {
                files.push((id, item.path()));
            }
        }
        files.sort_unstable();
        // Not through the cache of open slots: most of them are not needed again soon, and a
        // thousand descriptors at once are too many. The disk gets all questions before the first
        // answer is waited for: 800 cold headers take half the time they take one after the other.
        for (id, path) in &files {
            self.unshared(*id, path).expect_header()?;
        }
        files
            .into_iter()
            .map(|(id, path)| self.look_at(id, &path))
            .collect()
    }

    fn look_at(&self, id: u32, path: &Path) -> Result<ListedSlot, JournalError> {
        let metadata = fs::metadata(path).map_err(JournalError::io("look at", path))?;
        Ok(ListedSlot {
            id,
            file_bytes: metadata.len(),
            header: self.unshared(id, path).read_expected_header()?,
        })
    }

    fn unshared(&self, id: u32, path: &Path) -> Slot {
        Slot::new(id, path.to_owned(), self.context.clone())
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The size of every slot, in bytes.
    pub fn slot_bytes(&self) -> u32 {
        self.context.slot_bytes
    }

    /// The sector new slots get, in bytes. Older ones may have a smaller one, by their headers.
    pub fn sector(&self) -> u32 {
        self.sector
    }

    /// Whether slots are written with O_DIRECT.
    pub fn is_direct(&self) -> bool {
        self.context.access.direct
    }

    /// Makes the file of a new slot, empty; [`Slot::prepare`] makes it usable and durable.
    ///
    /// # Errors
    /// If the file cannot be made.
    pub fn create_slot(&self) -> Result<SlotHandle, JournalError> {
        let mut open = self.lock();
        let id = open.last_id.checked_add(1).expect("ids do not run out");
        let path = self.path.join(name_of_id(id));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        let created = self.watch().during("create", || options.open(&path));
        created.map_err(JournalError::io("create", &path))?;
        open.last_id = id;
        let slot = Arc::new(Slot::new(id, path, self.context.clone()));
        open.remember(&slot);
        Ok(slot)
    }

    /// An existing slot. Its descriptors are opened when they are needed.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn slot(&self, id: u32) -> Result<SlotHandle, JournalError> {
        let mut open = self.lock();
        if let Some(slot) = open.recall(id) {
            return Ok(slot);
        }
        let path = self.path.join(name_of_id(id));
        fs::metadata(&path).map_err(JournalError::io("look at", &path))?;
        let slot = Arc::new(Slot::new(id, path, self.context.clone()));
        open.remember(&slot);
        Ok(slot)
    }

    /// Removes the file of a slot that holds nothing any more, durably.
    ///
    /// # Errors
    /// If the file cannot be removed or the directory not be synced.
    pub fn remove_slot(&self, id: u32) -> Result<(), JournalError> {
        self.lock().slots.remove(&id);
        let path = self.path.join(name_of_id(id));
        let removed = self.watch().during("remove", || fs::remove_file(&path));
        removed.map_err(JournalError::io("remove", &path))?;
        self.sync()
    }

    /// Waits until the directory's entries are on the disk.
    ///
    /// # Errors
    /// If the sync fails.
    pub fn sync(&self) -> Result<(), JournalError> {
        let directory = &self.context.directory;
        self.context
            .watch
            .during("sync", || directory.sync_all())
            .map_err(JournalError::sync(&self.path))
    }

    /// Free space of the file system for this process, in bytes.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn free_bytes(&self) -> Result<u64, JournalError> {
        let stat = rustix::fs::fstatvfs(&self.context.directory).map_err(|errno| {
            JournalError::io("ask for the free space of", &self.path)(errno.into())
        })?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// What of it is being written or synced now.
    pub fn watch(&self) -> &DiskWatch {
        &self.context.watch
    }

    /// How many slots are kept open.
    pub fn open_slots(&self) -> usize {
        self.lock().slots.len()
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn recall(&mut self, id: u32) -> Option<SlotHandle> {
        self.uses += 1;
        let (slot, used) = self.slots.get_mut(&id)?;
        *used = self.uses;
        Some(Arc::clone(slot))
    }

    /// Keeps a slot open, and lets the one go that was not used for longest; never one in use.
    fn remember(&mut self, slot: &SlotHandle) {
        self.uses += 1;
        if self.slots.len() >= SLOTS_OPEN_MAX {
            let idle = self
                .slots
                .iter()
                .filter(|(_, (s, _))| Arc::strong_count(s) == 1);
            let oldest = idle.min_by_key(|(_, (_, used))| *used).map(|(id, _)| *id);
            oldest.and_then(|id| self.slots.remove(&id));
        }
        self.slots.insert(slot.id(), (Arc::clone(slot), self.uses));
    }
}

/// Invariant 4.
fn refuse_newer(path: &Path, listed: &[ListedSlot]) -> Result<(), JournalError> {
    let newer = |slot: &ListedSlot| slot.newer_format().map(|found| (slot.id, found));
    match listed.iter().find_map(newer) {
        None => Ok(()),
        Some((id, found)) => Err(JournalError::Newer {
            path: path.join(name_of_id(id)),
            found,
            known: FORMAT_VERSION,
        }),
    }
}

/// Makes the directory and its entry in the one above durable.
fn make_directory(path: &Path) -> Result<(), JournalError> {
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(JournalError::io("create", path))?;
    let above = path.parent().filter(|above| !above.as_os_str().is_empty());
    let above = above.unwrap_or(Path::new("."));
    File::open(above)
        .and_then(|directory| directory.sync_all())
        .map_err(JournalError::io("sync", above))
}

/// Reading alone needs no probe: the page cache does, and headers say the sector.
fn read_only_disk() -> Disk {
    Disk {
        sector: SECTOR_BYTES_MIN,
        access: Access {
            direct: false,
            direct_align: SECTOR_BYTES_MIN,
            read_only: true,
        },
    }
}

/// The highest id of a slot that a repair set aside: a row may still name it, so no other file gets it.
fn last_set_aside(path: &Path) -> Result<u32, JournalError> {
    let damaged = path.join("damaged");
    let entries = match fs::read_dir(&damaged) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(JournalError::io("list", &damaged)(error)),
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let ids = names.filter_map(|name| id_of_name(name.split_once('.')?.0));
    Ok(ids.max().unwrap_or(0))
}

fn name_of_id(id: u32) -> String {
    format!("slot-{id:08}")
}

fn id_of_name(name: &str) -> Option<u32> {
    let id: u32 = name.strip_prefix("slot-")?.parse().ok()?;
    (id > 0 && name_of_id(id) == name).then_some(id)
}
