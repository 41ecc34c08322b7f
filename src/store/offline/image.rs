//! A peer's directory as it lies there: what the next start would find, without starting.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::{DirKind, OfflineError, kind_of, refuse_if_used};
use crate::catalog::{Applied, Catalog, CatalogError, Loaded, Verdict};
use crate::journal::{
    EntryKind, EntryScanner, Extent, FIRST_POSITION, Footer, JournalDir, JournalOptions,
    ListedSlot, Passed, SlotHeader, Via,
};
use crate::store::StoreOptions;
use crate::store::open::{base_of, empty_base};
use crate::store::recovery::{
    Base, Contents, Layout, RecoveryError, Replay, header_of_row, inspect,
};
use crate::topic::{SegmentRow, State, Topic};
use crate::types::{TopicId, TopicName};

/// What the catalog says of itself.
#[derive(Debug, Clone, Default)]
pub(super) struct CatalogSeen {
    /// Format of its store, if that could be read.
    pub format: Option<u32>,
    /// Position it has applied.
    pub applied: Option<Applied>,
    /// Why it is not to be believed; empty if it is.
    pub faults: Vec<String>,
}

/// A walk along the stream to its end, and the state that comes out of it.
pub(super) struct Walked {
    pub state: State,
    pub contents: BTreeMap<u64, Contents>,
    pub damage: Vec<String>,
    /// Whole groups at the end that nobody claimed.
    pub unclaimed: usize,
    pub torn: Option<String>,
    pub clean_stop: bool,
}

impl Walked {
    /// Walks from `base`. What the next start would copy and keep counts here already.
    pub fn walk(journal: &JournalDir, layout: &Layout, base: Base) -> Result<Self, RecoveryError> {
        let (mut replay, end, _) = inspect(journal, layout, base)?;
        for group in &end.tail {
            replay.group(group);
        }
        replay.judge();
        let missing = replay.missing_facts();
        let Replay {
            state,
            contents,
            mut damage,
            ..
        } = replay;
        damage.extend(missing);
        Ok(Self {
            state,
            contents,
            damage,
            unclaimed: end.tail.len(),
            torn: end.torn,
            clean_stop: end.clean_stop,
        })
    }
}

/// A segment that holds something.
#[derive(Debug, Clone, Copy)]
pub(super) struct SegmentView {
    pub number: u64,
    pub header: SlotHeader,
    /// Set if the segment is sealed.
    pub row: Option<SegmentRow>,
    /// Where its contents end.
    pub end: u32,
    /// What was walked over in it could not all be read.
    pub damaged: bool,
}

/// A peer's directory, open for reading.
pub(super) struct Image {
    pub path: PathBuf,
    pub journal: JournalDir,
    pub slots: Vec<ListedSlot>,
    pub layout: Layout,
    pub catalog: CatalogSeen,
    /// The state, from the catalog and what the journal says after it, or from the journal alone.
    pub walked: Walked,
    pub segments: BTreeMap<u64, SegmentView>,
    /// The rows of a sound catalog, for whoever wants to build the state once more.
    pub from_catalog: bool,
}

impl Image {
    /// Opens the directory of a stopped peer, or a copy of a running one's.
    pub fn open(dir: &Path) -> Result<Self, OfflineError> {
        refuse_if_used(dir)?;
        if let found @ DirKind::Index = kind_of(dir)? {
            return Err(OfflineError::WrongKind {
                dir: dir.to_owned(),
                found,
                what: "messages are in the directories of peers",
            });
        }
        let (journal, slots) = open_journal(dir)?;
        let layout = Layout::new(&slots);
        let loaded = read_catalog(dir)?;
        let mut catalog = CatalogSeen {
            format: loaded.format,
            applied: loaded.applied,
            faults: Vec::new(),
        };
        let (walked, from_catalog) = match walk_from(&journal, &layout, &loaded, dir) {
            Ok(walked) => (walked, true),
            Err(CannotUse::Catalog(reasons)) => {
                catalog.faults = reasons;
                (walk_journal(dir, &journal, &layout)?, false)
            }
            Err(CannotUse::Journal(error)) => return Err(error.into()),
        };
        if layout.is_fresh() && loaded.rows.is_empty() {
            catalog.faults.clear();
        } else if !dir.join("catalog").exists() {
            catalog.faults = vec!["it is missing".to_owned()];
        }
        let segments = segments_of(&journal, &layout, &walked);
        Ok(Self {
            path: dir.to_owned(),
            journal,
            slots,
            layout,
            catalog,
            walked,
            segments,
            from_catalog,
        })
    }

    /// The state.
    pub fn state(&self) -> &State {
        &self.walked.state
    }

    /// Says whether a server was started while we were reading.
    pub fn check_undisturbed(&self) -> Result<(), OfflineError> {
        refuse_if_used(&self.path)
    }

    /// The topic of that name.
    pub fn topic(&self, name: &TopicName) -> Result<&Topic, OfflineError> {
        let found = self.state().id_of(name);
        let topic = found.and_then(|id| self.state().topic(id));
        topic.map_err(|_| OfflineError::NoTopic {
            name: name.clone(),
            dir: self.path.clone(),
        })
    }

    /// All topics by name.
    pub fn topics(&self) -> impl Iterator<Item = &Topic> {
        let names = self.state().names_from(Bound::Unbounded);
        names.filter_map(|(_, id)| self.state().topic(id).ok())
    }

    /// Whether the file that a segment should be in is there.
    pub fn has_file(&self, segment: &SegmentView) -> bool {
        self.slots.iter().any(|slot| slot.id == segment.header.slot)
    }

    /// File name of a slot, as people find it in the directory.
    pub fn slot_name(&self, slot: u32) -> String {
        format!("journal/slot-{slot:08}")
    }

    /// Where the records of a segment lie, by topic and offset: by its footer, else by the walk, else
    /// by looking at every entry.
    pub fn extents(&self, segment: &SegmentView) -> Result<Vec<(TopicId, Extent)>, OfflineError> {
        if !self.has_file(segment) {
            return Ok(Vec::new());
        }
        if let Some(row) = segment.row {
            let slot = self.journal.slot(segment.header.slot)?;
            let footer = slot.read_footer(&segment.header, row.footer_position, Via::Cached)?;
            return match footer {
                Ok(footer) => Ok(footer_extents(&footer)),
                Err(_) => scanned_extents(&self.journal, segment),
            };
        }
        match self.walked.contents.get(&segment.number) {
            Some(contents) if !contents.damaged => Ok(walked_extents(contents)),
            _ => scanned_extents(&self.journal, segment),
        }
    }
}

/// All extents a footer names, by topic and offset.
pub(super) fn footer_extents(footer: &Footer) -> Vec<(TopicId, Extent)> {
    let of_topic = |topic| footer.extents_of(topic).map(move |extent| (topic, extent));
    let topics = footer.topics().map(|summary| summary.topic);
    topics.flat_map(of_topic).collect()
}

/// Why the state is not built on the catalog.
enum CannotUse {
    Catalog(Vec<String>),
    Journal(RecoveryError),
}

fn walk_from(
    journal: &JournalDir,
    layout: &Layout,
    loaded: &Loaded,
    dir: &Path,
) -> Result<Walked, CannotUse> {
    if let Verdict::Unsound { reasons } = &loaded.verdict {
        return Err(CannotUse::Catalog(reasons.clone()));
    }
    let base = base_of(loaded, layout, &StoreOptions::new(dir));
    let base = base.map_err(|reason| CannotUse::Catalog(vec![reason]))?;
    match Walked::walk(journal, layout, base) {
        Ok(walked) => Ok(walked),
        Err(error @ RecoveryError::StaleCatalog { .. }) => {
            Err(CannotUse::Catalog(vec![error.to_string()]))
        }
        Err(error) => Err(CannotUse::Journal(error)),
    }
}

/// The state by the journal alone, as a lost catalog would be built again.
pub(super) fn walk_journal(
    dir: &Path,
    journal: &JournalDir,
    layout: &Layout,
) -> Result<Walked, RecoveryError> {
    Walked::walk(journal, layout, empty_base(layout, &StoreOptions::new(dir)))
}

fn open_journal(dir: &Path) -> Result<(JournalDir, Vec<ListedSlot>), OfflineError> {
    let options = JournalOptions {
        read_only: true,
        ..JournalOptions::default()
    };
    Ok(JournalDir::open(&dir.join("journal"), &options)?)
}

/// Refuses a peer's directory whose journal is of a format that this program does not know.
pub fn check_journal_format(dir: &Path) -> Result<(), OfflineError> {
    open_journal(dir).map(|_| ())
}

/// The catalog's rows from a scratch copy. What a rebuild heals is a verdict, the rest an error.
fn read_catalog(dir: &Path) -> Result<Loaded, OfflineError> {
    let unsound = |reasons| Loaded {
        rows: Vec::new(),
        applied: None,
        verdict: Verdict::Unsound { reasons },
        format: None,
    };
    match Catalog::read_copy(dir) {
        Ok(loaded) => Ok(loaded),
        Err(CatalogError::Ruined { reasons, .. }) => Ok(unsound(reasons)),
        Err(error @ CatalogError::Panicked { .. }) => Ok(unsound(vec![error.to_string()])),
        Err(error) => Err(error.into()),
    }
}

fn segments_of(
    journal: &JournalDir,
    layout: &Layout,
    walked: &Walked,
) -> BTreeMap<u64, SegmentView> {
    let peer = walked.state.peer().id;
    let mut segments = BTreeMap::new();
    for (&number, row) in walked.state.segments() {
        let by_row = header_of_row(journal, peer, number, row);
        let on_disk = layout.segments.get(&number);
        let header = on_disk.filter(|header| header.slot == row.slot);
        segments.insert(
            number,
            SegmentView {
                number,
                header: *header.unwrap_or(&by_row),
                row: Some(*row),
                end: row.end,
                damaged: row.damaged,
            },
        );
    }
    for (&number, contents) in &walked.contents {
        let Some(header) = layout.segments.get(&number) else {
            continue;
        };
        let view = segments.entry(number).or_insert(SegmentView {
            number,
            header: *header,
            row: None,
            end: contents.end.max(FIRST_POSITION),
            damaged: false,
        });
        view.damaged |= contents.damaged;
    }
    segments
}

fn walked_extents(contents: &Contents) -> Vec<(TopicId, Extent)> {
    let footer = &contents.footer;
    let of_topic = |id| {
        footer
            .extents_of(id)
            .iter()
            .map(move |extent| (id, *extent))
    };
    footer.topics().flat_map(of_topic).collect()
}

/// Every record entry that can be read, neighbours joined.
fn scanned_extents(
    journal: &JournalDir,
    segment: &SegmentView,
) -> Result<Vec<(TopicId, Extent)>, OfflineError> {
    let slot = journal.slot(segment.header.slot)?;
    let mut scanner = EntryScanner::new(slot, &segment.header, FIRST_POSITION..segment.end);
    let mut found = Vec::new();
    while let Some(passed) = scanner.step()? {
        let Passed::Entry(entry) = passed else {
            continue;
        };
        if entry.header.kind == EntryKind::Records {
            let extent = Extent::of_entry(&entry.header, entry.position);
            found.push((entry.header.topic, extent));
        }
    }
    Ok(join(found))
}

/// By topic and offset, neighbours joined.
pub(super) fn join(mut found: Vec<(TopicId, Extent)>) -> Vec<(TopicId, Extent)> {
    found.sort_by_key(|(topic, extent)| (*topic, extent.base, extent.position));
    let mut joined: Vec<(TopicId, Extent)> = Vec::new();
    for (topic, extent) in found {
        let last = joined.last_mut().filter(|(last, _)| *last == topic);
        if !last.is_some_and(|(_, last)| last.join(&extent)) {
            joined.push((topic, extent));
        }
    }
    joined
}
