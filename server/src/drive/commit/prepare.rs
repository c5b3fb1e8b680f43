//! The I/O of a commit, done before its transaction: manifests are decoded, segments not yet
//! verified are read from their packs, and blocks that a source offers are found.
//!
//! Writes nothing. What it finds is checked again by row inside the transaction, where it matters.

use std::collections::HashMap;
use std::collections::HashSet;
use std::sync::Arc;

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::manifest::Entry;
use drivefs_core::manifest::ManifestError;
use drivefs_core::manifest::Root;
use drivefs_core::manifest::SegmentRef;
use drivefs_core::manifest::decode_segment;
use drivefs_core::pack::Location;
use drivefs_core::wire::Change;
use drivefs_core::wire::Op;
use drivefs_core::wire::Source;

use super::super::Drive;
use super::super::DriveError;
use super::super::member_of;
use super::super::writer_of;
use super::work::Refusal;
use super::work::bad_request;
use crate::auth::Asker;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::blocks::HeldBlock;
use crate::metadata::space;
use crate::metadata::versions;

/// Segments read at once: bounds memory, whatever a commit names.
const SEGMENTS_AT_ONCE: usize = 128;
/// Versions of a source that are looked at, newest first.
const SOURCE_VERSIONS_MAX: u32 = 100;

/// What is known of one op's content before the transaction.
#[derive(Default)]
pub struct Prepared {
    pub root: Option<Result<Root, ManifestError>>,
    /// Segments of any op of the commit whose blocks the owner holds.
    held: Arc<HashSet<SegmentRef>>,
    /// Segments that are whole once this op's links are made, and only then.
    linked: HashSet<SegmentRef>,
    /// Segments found not whole, and why.
    faults: HashMap<BlockHash, Fault>,
    /// Blocks of another account to be linked to the owner.
    pub links: Vec<(PackId, Location)>,
}

enum Fault {
    Missing(Vec<BlockHash>),
    Invalid(String),
}

impl Prepared {
    /// True when a segment was read and all that it lists is held, counting this op's links.
    pub fn is_whole(&self, listed: &SegmentRef) -> bool {
        self.held.contains(listed) || self.linked.contains(listed)
    }

    /// The blocks that keep a segment from being whole.
    pub fn missing_of(&self, listed: &SegmentRef) -> Result<Vec<BlockHash>, Refusal> {
        match self.faults.get(&listed.hash) {
            Some(Fault::Missing(blocks)) => Ok(blocks.clone()),
            Some(Fault::Invalid(why)) => bad_request(format!("segment {}: {why}", listed.hash)),
            // It came between preparing and the transaction: the client's retry finds it.
            None => Ok(vec![listed.hash]),
        }
    }
}

/// One op's content on its way to `Prepared`.
#[derive(Default)]
struct Draft {
    prepared: Prepared,
    source: Option<Source>,
    /// Inline blocks and segments that the owner does not hold.
    missing: Vec<BlockHash>,
    /// Segments that nobody has looked into yet.
    unverified: Vec<SegmentRef>,
}

/// What a source offers.
struct Offer {
    owner: UserId,
    /// Blocks and segments that its versions list themselves.
    direct: HashSet<BlockHash>,
    segments: Vec<SegmentRef>,
    /// Blocks listed in those segments, once they were needed.
    indirect: Option<HashSet<BlockHash>>,
}

impl Drive {
    /// Beside what was found, the generation of the blocks before they were looked at: the
    /// transaction holds what was found against it.
    pub(super) async fn prepare(
        &self,
        asker: &Asker,
        ns: NamespaceId,
        ops: &[Op],
    ) -> Result<(Vec<Prepared>, u64), DriveError> {
        let user = asker.user;
        let contents: Vec<_> = ops.iter().map(content_of).collect();
        let (owner, mut drafts, generation) = self
            .store
            .read(move |sql| {
                let owner = writer_of(sql, ns, user)?.namespace.owner;
                let drafts: Result<Vec<_>, DriveError> =
                    contents.into_iter().map(|c| draft_of(sql, owner, c)).collect();
                Ok::<_, DriveError>((owner, drafts?, space::generation(sql)?))
            })
            .await?;
        let mut verified = HashSet::new();
        for draft in &mut drafts {
            if draft.missing.is_empty() && draft.unverified.is_empty() {
                continue;
            }
            let mut offer = self.offer(asker, owner, draft.source.clone()).await?;
            if let Some(offer) = &offer {
                self.link_direct(draft, offer).await?;
            }
            let unverified = std::mem::take(&mut draft.unverified);
            let unverified: Vec<_> =
                unverified.into_iter().filter(|s| !verified.contains(s)).collect();
            for batch in unverified.chunks(SEGMENTS_AT_ONCE) {
                self.verify(draft, owner, batch, offer.as_mut(), &mut verified).await?;
            }
        }
        let verified = Arc::new(verified);
        let prepared = drafts
            .into_iter()
            .map(|d| Prepared { held: Arc::clone(&verified), ..d.prepared })
            .collect();
        Ok((prepared, generation))
    }

    /// What the source's versions list, if the asker may read it and it is another account's.
    async fn offer(
        &self,
        asker: &Asker,
        owner: UserId,
        source: Option<Source>,
    ) -> Result<Option<Offer>, DriveError> {
        let Some(source) = source else { return Ok(None) };
        let user = asker.user;
        self.store
            .read(move |sql| {
                let theirs = match member_of(sql, source.ns, user) {
                    Ok(membership) => membership.namespace.owner,
                    // No more is told than by a block that is not there.
                    Err(DriveError::NoNamespace) => return Ok(None),
                    Err(e) => return Err(e),
                };
                if theirs == owner {
                    return Ok(None);
                }
                let mut offer = Offer {
                    owner: theirs,
                    direct: HashSet::new(),
                    segments: Vec::new(),
                    indirect: None,
                };
                for root in versions::roots(sql, source.ns, source.node, SOURCE_VERSIONS_MAX)? {
                    match Root::decode(&root) {
                        Ok(Root::Inline(entries)) => {
                            offer.direct.extend(entries.iter().map(|e| e.hash));
                        }
                        Ok(Root::Segmented(refs)) => {
                            offer.direct.extend(refs.iter().map(|s| s.hash));
                            offer.segments.extend(refs);
                        }
                        Err(e) => return Err(DriveError::Internal(format!("stored root: {e}"))),
                    }
                }
                Ok(Some(offer))
            })
            .await
    }

    /// Links what the root itself lists.
    async fn link_direct(&self, draft: &mut Draft, offer: &Offer) -> Result<(), DriveError> {
        let wanted: Vec<_> =
            draft.missing.iter().copied().filter(|h| offer.direct.contains(h)).collect();
        for block in self.find(offer.owner, wanted).await? {
            draft.prepared.links.push((block.pack, block.at));
            if let Some(Ok(Root::Segmented(refs))) = &draft.prepared.root {
                draft.unverified.extend(refs.iter().filter(|s| s.hash == block.at.hash));
            }
        }
        Ok(())
    }

    /// Reads segments and looks whether all they list is held, or offered.
    async fn verify(
        &self,
        draft: &mut Draft,
        owner: UserId,
        batch: &[SegmentRef],
        mut offer: Option<&mut Offer>,
        verified: &mut HashSet<SegmentRef>,
    ) -> Result<(), DriveError> {
        let mut held = self.find(owner, batch.iter().map(|s| s.hash).collect()).await?;
        if let Some(offer) = &offer {
            let linked: HashSet<_> = draft.prepared.links.iter().map(|(_, at)| at.hash).collect();
            let wanted = batch.iter().map(|s| s.hash).filter(|h| linked.contains(h)).collect();
            held.extend(self.find(offer.owner, wanted).await?);
        }
        let lists = self.read_segments(held).await?;
        for listed in batch {
            let Some(bytes) = lists.get(&listed.hash) else { continue };
            let entries = match decode_segment(bytes, listed) {
                Ok(entries) => entries,
                Err(e) => {
                    draft.prepared.faults.insert(listed.hash, Fault::Invalid(e.to_string()));
                    continue;
                }
            };
            let missing = match self.not_held(owner, entries).await? {
                Ok(missing) => missing,
                Err(why) => {
                    draft.prepared.faults.insert(listed.hash, Fault::Invalid(why));
                    continue;
                }
            };
            if missing.is_empty() {
                verified.insert(*listed);
                continue;
            }
            let missing = match &mut offer {
                Some(offer) => self.link_indirect(draft, offer, listed, missing).await?,
                None => missing,
            };
            if missing.is_empty() {
                // Not for other ops: should this one fail, its links are not made.
                draft.prepared.linked.insert(*listed);
            } else {
                let missing = missing.iter().map(|e| e.hash).collect();
                draft.prepared.faults.insert(listed.hash, Fault::Missing(missing));
            }
        }
        Ok(())
    }

    /// Links entries of a segment; answers those that the source does not offer.
    async fn link_indirect(
        &self,
        draft: &mut Draft,
        offer: &mut Offer,
        listed: &SegmentRef,
        missing: Vec<Entry>,
    ) -> Result<Vec<Entry>, DriveError> {
        let known = offer.direct.contains(&listed.hash);
        if !known && offer.indirect.is_none() {
            offer.indirect = Some(self.expand(offer).await?);
        }
        let offered = |hash: &BlockHash| {
            known
                || offer.direct.contains(hash)
                || offer.indirect.as_ref().is_some_and(|set| set.contains(hash))
        };
        let wanted = missing.iter().map(|e| e.hash).filter(offered).collect();
        let found: HashMap<BlockHash, HeldBlock> =
            self.find(offer.owner, wanted).await?.into_iter().map(|b| (b.at.hash, b)).collect();
        let mut left = Vec::new();
        for entry in missing {
            match found.get(&entry.hash) {
                Some(block) if block.at.block_len == entry.len => {
                    draft.prepared.links.push((block.pack, block.at));
                }
                _ => left.push(entry),
            }
        }
        Ok(left)
    }

    /// All blocks that the source's segments list.
    async fn expand(&self, offer: &Offer) -> Result<HashSet<BlockHash>, DriveError> {
        let mut out = HashSet::new();
        for batch in offer.segments.chunks(SEGMENTS_AT_ONCE) {
            let held = self.find(offer.owner, batch.iter().map(|s| s.hash).collect()).await?;
            let lists = self.read_segments(held).await?;
            for listed in batch {
                if let Some(Ok(entries)) =
                    lists.get(&listed.hash).map(|b| decode_segment(b, listed))
                {
                    out.extend(entries.iter().map(|e| e.hash));
                }
            }
        }
        Ok(out)
    }

    async fn read_segments(
        &self,
        held: Vec<HeldBlock>,
    ) -> Result<HashMap<BlockHash, Vec<u8>>, DriveError> {
        let bytes = held.iter().map(|b| u64::from(b.at.block_len)).sum::<u64>();
        let _held = self.work.hold(bytes).await?;
        Ok(self.load(held).await?.into_iter().map(|(hash, b)| (hash, b.plain)).collect())
    }

    async fn find(
        &self,
        owner: UserId,
        hashes: Vec<BlockHash>,
    ) -> Result<Vec<HeldBlock>, DriveError> {
        if hashes.is_empty() {
            return Ok(Vec::new());
        }
        self.store
            .read(move |sql| {
                let mut out = Vec::new();
                for hash in hashes {
                    out.extend(blocks::find(sql, owner, hash)?);
                }
                Ok(out)
            })
            .await
    }

    /// Entries that the owner does not hold; an error text when one has another length.
    async fn not_held(
        &self,
        owner: UserId,
        entries: Vec<Entry>,
    ) -> Result<Result<Vec<Entry>, String>, DriveError> {
        self.store
            .read(move |sql| {
                let mut missing = Vec::new();
                for entry in entries {
                    match blocks::facts(sql, owner, entry.hash)? {
                        Some(held) if held.block_len == entry.len => {}
                        Some(_) => {
                            return Ok(Err(format!("block {} has another length", entry.hash)));
                        }
                        None => missing.push(entry),
                    }
                }
                Ok(Ok(missing))
            })
            .await
    }
}

fn content_of(op: &Op) -> Option<(Vec<u8>, Option<Source>)> {
    match &op.change {
        Change::Put { content, source, .. } => Some((content.0.clone(), source.clone())),
        _ => None,
    }
}

fn draft_of(
    sql: &mut dyn Sql,
    owner: UserId,
    content: Option<(Vec<u8>, Option<Source>)>,
) -> Result<Draft, DriveError> {
    let Some((content, source)) = content else { return Ok(Draft::default()) };
    let root = Root::decode(&content);
    let mut draft = Draft { source, ..Draft::default() };
    match &root {
        // Inline blocks matter here only where a source may offer them.
        Ok(Root::Inline(entries)) if draft.source.is_some() => {
            let hashes: Vec<_> = entries.iter().map(|e| e.hash).collect();
            draft.missing = blocks::missing(sql, owner, &hashes)?;
        }
        Ok(Root::Segmented(refs)) => {
            for listed in refs {
                match blocks::facts(sql, owner, listed.hash)? {
                    None => draft.missing.push(listed.hash),
                    Some(held) if !held.is_segment(listed) => draft.unverified.push(*listed),
                    Some(_) => {}
                }
            }
        }
        _ => {}
    }
    draft.prepared.root = Some(root);
    Ok(draft)
}
