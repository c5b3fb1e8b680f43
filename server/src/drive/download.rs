//! Blocks to a client: as they are stored, or as a delta against a block the client has.
//!
//! What is passed on as stored is read, opened and sent portion by portion, so that an answer of any
//! length holds a few MiB. The first portion is loaded before the answer begins: its errors have a
//! status. When a later one fails, the answer ends before it, on a whole frame.

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bytes::Bytes;
use drivefs_core::codec;
use drivefs_core::codec::Codec;
use drivefs_core::frame;
use drivefs_core::frame::Frame;
use drivefs_core::id::BlockHash;
use drivefs_core::id::UserId;
use drivefs_core::wire::BlocksRequest;
use drivefs_core::wire::WantedBlock;
use futures_util::Stream;
use futures_util::StreamExt;
use futures_util::stream;
use tokio::sync::mpsc;
use tracing::Instrument;

use super::Drive;
use super::DriveError;
use super::changes::check_count;
use super::load::Loaded;
use super::member_of;
use crate::auth::Asker;
use crate::metadata::Sql;
use crate::metadata::blocks;
use crate::metadata::blocks::HeldBlock;

/// Most block bytes in one answer.
const ANSWER_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Stored bytes that are read, opened and sent at a time.
const PORTION_BYTES: u64 = 2 * 1024 * 1024;
/// Portions made ready while an earlier one is sent.
const PORTIONS_AHEAD: usize = 1;
/// A delta is sent when it is at least this many times smaller than the stored bytes.
const DELTA_GAIN: usize = 2;
/// Blocks stored in fewer bytes go as they are.
const DELTA_MIN_BYTES: u32 = 16 * 1024;

impl Drive {
    /// A body of block frames, in the order asked.
    pub async fn download(
        &self,
        asker: Asker,
        request: BlocksRequest,
    ) -> Result<Download, DriveError> {
        check_count(request.blocks.len())?;
        let asked = request.blocks.clone();
        let (held, bases) = self
            .store
            .read(move |sql| {
                let owner = member_of(sql, request.ns, asker.user)?.namespace.owner;
                look_up(sql, owner, &asked)
            })
            .await?;
        // Counted as often as asked for.
        let len_of = |hash| held.get(hash).map_or(0, |b: &HeldBlock| u64::from(b.at.block_len));
        let mut total: u64 = request.blocks.iter().map(|b| len_of(&b.hash)).sum();
        if total > ANSWER_MAX_BYTES {
            return Err(DriveError::TooLarge(format!(
                "the blocks asked for are {total} bytes, over the limit of {ANSWER_MAX_BYTES}"
            )));
        }
        if bases.is_empty() {
            return self.pass_on(request.blocks, held).await;
        }
        let mut load: Vec<HeldBlock> = held.into_values().collect();
        let base_bytes = bases.values().map(|b| u64::from(b.at.block_len)).sum::<u64>();
        if base_bytes <= ANSWER_MAX_BYTES {
            total += base_bytes;
            load.extend(bases.into_values());
        }
        // Stored, decoded and in the answer's body.
        let _held = self.work.hold(3 * total).await?;
        let loaded = self.load(load).await?;
        let (body, sent) = self.work.compute(move || answer(&request.blocks, &loaded)).await?;
        metrics::counter!("drivefs_blocks_sent_total").increment(sent);
        Ok(Download { len: Some(body.len() as u64), first: vec![body.into()], rest: None })
    }

    /// Blocks as they are stored, in the order asked.
    async fn pass_on(&self, asked: Vec<WantedBlock>, held: Found) -> Result<Download, DriveError> {
        let mut portions = portions(&asked, &held).into_iter();
        let mut first = vec![Bytes::from(frame::begin())];
        if let Some(portion) = portions.next() {
            first.extend(self.portion(portion).await?);
        }
        if portions.len() == 0 {
            let len = first.iter().map(|b| b.len() as u64).sum();
            return Ok(Download { len: Some(len), first, rest: None });
        }
        let (sender, rest) = mpsc::channel(PORTIONS_AHEAD);
        let drive = self.clone();
        let sending = async move {
            for portion in portions {
                let pieces = match drive.portion(portion).await {
                    Ok(pieces) => pieces,
                    Err(error) => {
                        tracing::warn!(%error, "an answer ends early");
                        return;
                    }
                };
                if sender.send(pieces).await.is_err() {
                    return; // The client is gone.
                }
            }
        };
        tokio::spawn(sending.in_current_span());
        Ok(Download { len: None, first, rest: Some(rest) })
    }

    /// The frames of one portion: heads and bytes.
    async fn portion(&self, portion: Vec<HeldBlock>) -> Result<Vec<Bytes>, DriveError> {
        let bytes: u64 = portion.iter().map(|b| u64::from(b.at.sealed_len)).sum();
        let _held = self.work.hold(bytes).await?;
        let order: Vec<BlockHash> = portion.iter().map(|b| b.at.hash).collect();
        let loaded = self.load_encoded(portion).await?;
        metrics::counter!("drivefs_blocks_sent_total").increment(order.len() as u64);
        let loaded: HashMap<_, _> = loaded
            .into_iter()
            .map(|(hash, b)| (hash, (b.codec, b.block_len, Bytes::from(b.bytes))))
            .collect();
        let mut pieces = Vec::with_capacity(2 * order.len());
        for hash in order {
            let Some((codec, block_len, encoded)) = loaded.get(&hash) else { continue };
            let mut head = Vec::new();
            let frame = Frame { hash, codec: *codec, block_len: *block_len, base: None, encoded };
            frame::push_head(&mut head, &frame);
            pieces.push(head.into());
            pieces.push(encoded.clone());
        }
        Ok(pieces)
    }
}

/// The body of an answer, in pieces.
pub struct Download {
    /// Length of all of it (bytes), where it is known.
    pub len: Option<u64>,
    first: Vec<Bytes>,
    rest: Option<mpsc::Receiver<Vec<Bytes>>>,
}

impl Download {
    /// The pieces in order.
    pub fn into_stream(self) -> impl Stream<Item = Bytes> + Send {
        let first = stream::iter(self.first);
        let rest = stream::unfold(self.rest, |rest| async {
            let mut rest = rest?;
            let pieces = rest.recv().await?;
            Some((stream::iter(pieces), Some(rest)))
        });
        first.chain(rest.flatten())
    }
}

/// The blocks asked for, in groups of about `PORTION_BYTES`.
fn portions(asked: &[WantedBlock], held: &Found) -> Vec<Vec<HeldBlock>> {
    let mut out: Vec<Vec<HeldBlock>> = Vec::new();
    let mut bytes = u64::MAX;
    for block in asked.iter().filter_map(|one| held.get(&one.hash)) {
        let len = u64::from(block.at.sealed_len);
        if bytes.saturating_add(len) > PORTION_BYTES {
            out.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        out.last_mut().expect("pushed above").push(block.clone());
    }
    out
}

type Found = HashMap<BlockHash, HeldBlock>;

/// The blocks asked for, all of them, and those of their bases that are worth reading.
fn look_up(
    sql: &mut dyn Sql,
    owner: UserId,
    asked: &[WantedBlock],
) -> Result<(Found, Found), DriveError> {
    let mut held = Found::new();
    let mut missing = Vec::new();
    for wanted in asked {
        if let Entry::Vacant(slot) = held.entry(wanted.hash) {
            match blocks::find(sql, owner, wanted.hash)? {
                Some(block) => {
                    slot.insert(block);
                }
                None => missing.push(wanted.hash),
            }
        }
    }
    if !missing.is_empty() {
        return Err(DriveError::MissingBlocks(missing));
    }
    let mut bases = Found::new();
    for wanted in asked {
        let worth = held.get(&wanted.hash).is_some_and(|b| b.at.sealed_len >= DELTA_MIN_BYTES);
        if let Some(base) = wanted.base.filter(|base| worth && !held.contains_key(base))
            && let Some(block) = blocks::find(sql, owner, base)?
        {
            bases.insert(base, block);
        }
    }
    Ok((held, bases))
}

fn answer(wanted: &[WantedBlock], loaded: &HashMap<BlockHash, Loaded>) -> (Vec<u8>, u64) {
    let mut body = frame::begin();
    let mut sent = 0;
    for one in wanted {
        let Some(block) = loaded.get(&one.hash) else { continue };
        let base = one
            .base
            .filter(|base| *base != one.hash)
            .and_then(|hash| loaded.get(&hash).map(|b| (hash, b)));
        let delta = base.and_then(|(hash, base)| Some((hash, delta_of(block, base)?)));
        let block_len = block.plain.len() as u32;
        sent += 1;
        match &delta {
            Some((base, encoded)) => frame::push(
                &mut body,
                &Frame {
                    hash: one.hash,
                    codec: Codec::ZstdDelta,
                    block_len,
                    base: Some(*base),
                    encoded,
                },
            ),
            None => frame::push(
                &mut body,
                &Frame {
                    hash: one.hash,
                    codec: block.codec,
                    block_len,
                    base: None,
                    encoded: &block.encoded,
                },
            ),
        }
    }
    (body, sent)
}

fn delta_of<'a>(block: &'a Loaded, base: &Loaded) -> Option<Cow<'a, [u8]>> {
    let delta = codec::encode_delta(&block.plain, &base.plain, 1).ok()?;
    let pays = delta.bytes.len() * DELTA_GAIN < block.encoded.len();
    (delta.codec == Codec::ZstdDelta && pays).then_some(delta.bytes)
}
