//! Uploads in parts: what arrives is stored as it comes, and what was told to be here is on disk.
//!
//! Nothing of an upload lies in the process or on its disk alone: blocks that are cut and the bytes
//! behind the last cut are blocks of the account, and a row tells how far it is. So any server can
//! take it over. Each step is one transaction on the condition that nobody else was there first.

use std::time::Duration;

use bytes::Bytes;
use drivefs_core::id::UserId;
use drivefs_core::limits::UPLOAD_KEPT_SECS;
use drivefs_core::limits::UPLOAD_UNIT_BYTES;
use drivefs_core::limits::UPLOADS_OPEN_MAX;
use uuid::Uuid;

use super::ByteStream;
use super::FilesError;
use super::aim::Aim;
use super::fresh_key;
use super::plain::GATHER_BYTES;
use super::plain::Gathered;
use super::plain::PlainBlock;
use super::put::Body;
use super::put::Checked;
use super::put::Put;
use super::turns::Turn;
use crate::auth::Asker;
use crate::clock;
use crate::drive::Drive;
use crate::drive::DriveError;
use crate::drive::commit::announce;
use crate::host;
use crate::metadata::Sql;
use crate::metadata::uploads;
use crate::metadata::uploads::Part;
use crate::metadata::uploads::State;
use crate::metadata::uploads::Upload;
use crate::metadata::uploads::UploadId;

/// Old uploads forgotten along with a new one.
const FORGOTTEN_AT_ONCE: u32 = 50;

/// How long who asks how far an upload is waits for a request that adds to it.
const QUIET: Duration = Duration::from_secs(1);

/// How far an upload is.
#[derive(Debug, Clone)]
pub enum Status {
    /// So many bytes are on disk.
    Pending(u64),
    Uploaded(Box<Put>),
}

/// The bytes that a body has: from `at`, up to `end` of a file of `total` bytes.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    pub at: u64,
    pub end: Option<u64>,
    pub total: Option<u64>,
}

impl Upload {
    /// Bytes that need not be sent again: whole units, so that parts stay aligned.
    pub fn resumes_at(&self) -> u64 {
        self.received - self.received % UPLOAD_UNIT_BYTES
    }
}

impl Drive {
    /// Begins an upload to a known place; other devices are told that it has begun.
    pub async fn begin_upload(
        &self,
        asker: &Asker,
        aim: Aim,
        size: Option<u64>,
    ) -> Result<UploadId, FilesError> {
        let aimed = self.check_aim(asker, &aim, size).await?;
        let ns = aimed.folder.ns();
        let fresh = Upload { ns: Some(ns), size, ..fresh_upload(asker, String::new()) };
        let (id, epoch) = (fresh.upload, self.epoch);
        self.store
            .write(move |sql| {
                let within = Some(aimed.within(sql)?.to_string());
                let aim = aim_text(Some(&Aim { within, ..aim }))?;
                insert(sql, &Upload { aim, ..fresh })?;
                Ok::<_, FilesError>(announce(sql, ns, epoch)?)
            })
            .await?;
        self.hub.hint(ns);
        Ok(id)
    }

    /// Begins an upload whose place is told at its end.
    pub async fn start_upload(&self, asker: &Asker) -> Result<UploadId, FilesError> {
        let fresh = fresh_upload(asker, aim_text(None)?);
        let id = fresh.upload;
        self.store.write(move |sql| insert(sql, &fresh)).await?;
        Ok(id)
    }

    /// How far an upload is. One whose bytes are all here is brought to its end. `total`, if the
    /// asker knows it by now, may be what was missing.
    pub async fn upload_state(
        &self,
        asker: &Asker,
        id: UploadId,
        total: Option<u64>,
    ) -> Result<Status, FilesError> {
        self.turns.quiet(id, QUIET).await;
        let row = self.upload_row(asker.user, id).await?;
        if row.state == State::Pending && total == Some(row.received) && !is_loose(&row) {
            let span = Span { at: row.received, end: total, total };
            let nothing = Box::pin(futures_util::stream::empty());
            return self.add_part(asker, id, span, nothing).await;
        }
        if let Some(total) = total {
            check_total(&row, total)?;
        }
        self.status_of(asker, row).await
    }

    /// Takes a part of an upload that goes to a known place. Bytes that are here already are passed
    /// over; when the last is here, the file comes into the tree.
    pub async fn add_part(
        &self,
        asker: &Asker,
        id: UploadId,
        span: Span,
        body: ByteStream,
    ) -> Result<Status, FilesError> {
        // In a task of its own: what has arrived is kept, also when the connection dies.
        let (drive, who) = (self.clone(), asker.clone());
        let task = tokio::spawn(async move {
            let mut body = Body::new(body, Checked::default());
            let turn = drive.turns.take(id).await;
            let mut row = match drive.open_part(&who, id, span).await {
                Ok(row) => row,
                Err(e) => {
                    body.drain().await;
                    return Err(e);
                }
            };
            if row.state != State::Pending || span.at > row.received {
                body.drain().await;
                return drive.status_of(&who, row).await;
            }
            row.size = row.size.or(span.total);
            let before = row.clone();
            match drive.take(row, span, body, Last::ByLength, &turn).await {
                Ok(row) => drive.status_of(&who, row).await,
                // Somebody else has added to it in the meantime.
                Err(FilesError::Offset(_)) => {
                    let row = drive.upload_row(before.user, before.upload).await?;
                    drive.status_of(&who, row).await
                }
                Err(e) => Err(e),
            }
        });
        task.await.map_err(|e| DriveError::Internal(e.to_string()))?
    }

    async fn open_part(
        &self,
        asker: &Asker,
        id: UploadId,
        span: Span,
    ) -> Result<Upload, FilesError> {
        let row = self.upload_row(asker.user, id).await?;
        if is_loose(&row) {
            return Err(FilesError::NoUpload);
        }
        if let Some(total) = span.total {
            check_total(&row, total)?;
            self.check_size(total)?;
        }
        Ok(row)
    }

    /// An upload of one request that another process ends: nothing is kept of one that breaks off.
    pub(super) async fn upload_in_one(
        &self,
        asker: &Asker,
        aim: Aim,
        body: Body,
    ) -> Result<Put, FilesError> {
        let row = fresh_upload(asker, aim_text(Some(&aim))?);
        let (fresh, turn) = (row.clone(), self.turns.take(row.upload).await);
        self.store.write(move |sql| insert(sql, &fresh)).await?;
        let (user, id) = (row.user, row.upload);
        let span = Span { at: 0, end: None, total: None };
        let put = match self.take(row, span, body, Last::Ends, &turn).await {
            Ok(row) => self.complete(asker, row).await,
            Err(e) => Err(e),
        };
        // What was told to have failed must not come later; what cannot be reached may have done it.
        if matches!(&put, Err(e) if !matches!(e, FilesError::Drive(DriveError::Away))) {
            self.store.write(move |sql| uploads::remove(sql, user, id)).await?;
        }
        put
    }

    /// Adds to an upload without a place, from exactly where it ends.
    pub async fn append_upload(
        &self,
        asker: &Asker,
        id: UploadId,
        at: u64,
        close: bool,
        body: ByteStream,
        checked: Checked,
    ) -> Result<(), FilesError> {
        let last = if close { Last::Closes } else { Last::Open };
        self.append(asker, id, at, last, body, checked).await.map(drop)
    }

    /// Adds the last bytes of an upload and puts the file where `aim` says.
    pub async fn finish_upload(
        &self,
        asker: &Asker,
        id: UploadId,
        at: u64,
        aim: Aim,
        body: ByteStream,
        checked: Checked,
    ) -> Result<Put, FilesError> {
        let row = self.upload_row(asker.user, id).await?;
        if row.state == State::Uploaded {
            return self.put_again(&row);
        }
        if let Err(e) = self.check_aim(asker, &aim, Some(row.received)).await {
            Body::new(body, checked).drain().await;
            return Err(e);
        }
        let row = match row.state {
            State::Pending => self.append(asker, id, at, Last::Ends, body, checked).await?,
            _ => row,
        };
        let row = self.aimed(row, &aim).await?;
        self.complete(asker, row).await
    }

    async fn append(
        &self,
        asker: &Asker,
        id: UploadId,
        at: u64,
        last: Last,
        body: ByteStream,
        checked: Checked,
    ) -> Result<Upload, FilesError> {
        let (drive, user) = (self.clone(), asker.user);
        let task = tokio::spawn(async move {
            let mut body = Body::new(body, checked);
            let turn = drive.turns.take(id).await;
            let row = match drive.open_append(user, id, at, last).await {
                Ok(row) => row,
                Err(e) => {
                    body.drain().await;
                    return Err(e);
                }
            };
            let span = Span { at, end: None, total: None };
            match drive.take(row, span, body, last, &turn).await {
                Err(FilesError::Offset(_)) => {
                    Err(FilesError::Offset(drive.upload_row(user, id).await?.received))
                }
                Err(FilesError::Hash) => {
                    // Some of it may be stored: nobody shall go on from that.
                    drive.store.write(move |sql| uploads::remove(sql, user, id)).await?;
                    Err(FilesError::Hash)
                }
                other => other,
            }
        });
        task.await.map_err(|e| DriveError::Internal(e.to_string()))?
    }

    async fn open_append(
        &self,
        user: UserId,
        id: UploadId,
        at: u64,
        last: Last,
    ) -> Result<Upload, FilesError> {
        let row = self.upload_row(user, id).await?;
        if !is_loose(&row) {
            return Err(FilesError::NoUpload);
        }
        if at != row.received {
            return Err(FilesError::Offset(row.received));
        }
        if row.state != State::Pending || (row.closed && !matches!(last, Last::Ends)) {
            return Err(FilesError::Closed);
        }
        Ok(row)
    }

    /// Reads a body into an upload, and keeps of it what can be kept.
    async fn take(
        &self,
        row: Upload,
        span: Span,
        mut body: Body,
        last: Last,
        turn: &Turn,
    ) -> Result<Upload, FilesError> {
        let mut gathered = self.tail_of(&row).await?;
        let mut row = row;
        let mut skip = row.received - span.at;
        let end = span.end.or(row.size).unwrap_or(u64::MAX);
        let broke = loop {
            let next = tokio::select! {
                biased;
                () = turn.is_wanted() => Err(FilesError::Drive(DriveError::Conflict(
                    "another request goes on with this upload".into(),
                ))),
                next = body.next() => next,
            };
            let bytes = match next {
                Ok(Some(bytes)) => bytes,
                Ok(None) => break None,
                Err(e) => break Some(e),
            };
            let passed = skip.min(bytes.len() as u64);
            skip -= passed;
            let bytes: Bytes = bytes.slice(passed as usize..);
            let upto = row.cut + (gathered.len() + bytes.len()) as u64;
            if upto > end {
                break Some(FilesError::BadRequest("there are more bytes than announced".into()));
            }
            if let Err(e) = self.check_size(upto) {
                break Some(e);
            }
            gathered.push(&bytes);
            if gathered.len() >= GATHER_BYTES {
                (row, gathered) = self.save(row, gathered, Save::Cut).await?;
            }
        };
        let upto = row.cut + gathered.len() as u64;
        if broke.is_none() {
            body.check_end()?;
        }
        let is_last = match last {
            Last::ByLength => row.size == Some(upto),
            Last::Ends => true,
            Last::Open | Last::Closes => false,
        };
        let short = span.end.is_some_and(|end| upto < end) && skip == 0;
        let save = match broke {
            None if is_last => Save::End,
            None if !short => Save::Tail { closes: matches!(last, Last::Closes) },
            _ => Save::Units,
        };
        (row, _) = self.save(row, gathered, save).await?;
        match broke {
            Some(e) => Err(e),
            None if short => {
                Err(FilesError::BadRequest("there are fewer bytes than announced".into()))
            }
            None => Ok(row),
        }
    }

    /// One step: stores what can be stored of `gathered` and moves the row on.
    async fn save(
        &self,
        row: Upload,
        gathered: Gathered,
        save: Save,
    ) -> Result<(Upload, Gathered), FilesError> {
        let (gathered, mut blocks) = self.cut(gathered, matches!(save, Save::End)).await?;
        let mut after = Upload { touched: clock::now_secs(), ..row.clone() };
        let mut parts = Vec::new();
        for block in &blocks {
            let entry = block.entry;
            parts.push(Part { at: after.cut, hash: entry.hash, len: entry.len, cut: true });
            after.cut += u64::from(entry.len);
        }
        let upto = after.cut + gathered.len() as u64;
        after.received = match save {
            Save::Cut => after.cut,
            Save::End | Save::Tail { .. } => upto,
            Save::Units => (upto - upto % UPLOAD_UNIT_BYTES).max(after.cut),
        };
        // A body that breaks off at once takes nothing away.
        after.received = after.received.max(row.received);
        if let Save::End = save {
            after.state = State::Stored;
            after.size = Some(upto);
        }
        after.closed |= matches!(save, Save::Tail { closes: true });
        // Bytes behind the last cut: all where they were cut anew, else those that are new.
        let tail_from = if blocks.is_empty() { row.received } else { after.cut };
        // Between two cuts the tail stays in memory, but for bytes that were told to be here.
        let keeps = !matches!(save, Save::Cut) || after.received > after.cut;
        if keeps && after.received > tail_from {
            let at = |offset: u64| (offset - after.cut) as usize;
            let bytes = gathered.slice(at(tail_from), at(after.received));
            let tail = PlainBlock::of(Bytes::copy_from_slice(bytes));
            let entry = tail.entry;
            parts.push(Part { at: tail_from, hash: entry.hash, len: entry.len, cut: false });
            blocks.push(tail);
        }
        if after == (Upload { touched: after.touched, ..row.clone() }) {
            return Ok((row, gathered));
        }
        let (was_cut, before, next) = (after.cut != row.cut, row, after.clone());
        let user = before.user;
        let note = move |sql: &mut dyn Sql| {
            if !uploads::advance(sql, &before, &next)? {
                return Err(FilesError::Offset(0));
            }
            if was_cut {
                uploads::remove_tail(sql, next.user, next.upload)?;
            }
            for part in &parts {
                uploads::insert_part(sql, next.user, next.upload, part)?;
            }
            Ok(())
        };
        self.store_plain(user, blocks, Box::new(note)).await?;
        Ok((after, gathered))
    }

    pub(super) async fn upload_row(
        &self,
        user: UserId,
        id: UploadId,
    ) -> Result<Upload, FilesError> {
        let row = self.store.read(move |sql| uploads::find(sql, user, id)).await?;
        let since = clock::now_secs() - UPLOAD_KEPT_SECS;
        row.filter(|row| row.touched >= since).ok_or(FilesError::NoUpload)
    }

    /// Forgets an upload, if it has not ended.
    pub async fn cancel_upload(&self, asker: &Asker, id: UploadId) -> Result<(), FilesError> {
        let row = self.upload_row(asker.user, id).await?;
        if row.state == State::Uploaded {
            return Ok(());
        }
        self.store.write(move |sql| uploads::remove(sql, row.user, row.upload)).await?;
        if let Some(ns) = row.ns {
            self.hub.hint(ns);
        }
        Ok(())
    }

    async fn status_of(&self, asker: &Asker, row: Upload) -> Result<Status, FilesError> {
        match row.state {
            State::Pending => Ok(Status::Pending(row.resumes_at())),
            State::Stored => Ok(Status::Uploaded(Box::new(self.complete(asker, row).await?))),
            State::Uploaded => Ok(Status::Uploaded(Box::new(self.put_again(&row)?))),
        }
    }
}

/// What the end of a body means.
#[derive(Debug, Clone, Copy)]
enum Last {
    /// The file's, if it reaches its length.
    ByLength,
    /// More may follow.
    Open,
    /// No more bytes follow.
    Closes,
    /// It is the file's.
    Ends,
}

/// How much of what was gathered is stored.
#[derive(Debug, Clone, Copy)]
enum Save {
    /// Blocks alone; the rest stays in memory.
    Cut,
    /// All of it.
    Tail { closes: bool },
    /// Whole units of it: the body broke off.
    Units,
    /// All of it, as the file's last blocks.
    End,
}

/// True for an upload that is told its place at its end.
pub(super) fn is_loose(row: &Upload) -> bool {
    row.aim.is_empty() || row.aim.starts_with(LOOSE)
}

/// Begins the aim of uploads that began without a place.
const LOOSE: &str = "~";

pub(super) fn aim_text(aim: Option<&Aim>) -> Result<String, FilesError> {
    aim.map_or(Ok(LOOSE.to_owned()), |aim| {
        serde_json::to_string(aim).map_err(|e| DriveError::Internal(e.to_string()).into())
    })
}

pub(super) fn aim_of(row: &Upload) -> Result<Aim, FilesError> {
    let text = row.aim.strip_prefix(LOOSE).unwrap_or(&row.aim);
    serde_json::from_str(text).map_err(|e| DriveError::Internal(e.to_string()).into())
}

pub(super) fn loose_text(aim: &Aim) -> Result<String, FilesError> {
    Ok(format!("{LOOSE}{}", aim_text(Some(aim))?))
}

fn check_total(row: &Upload, total: u64) -> Result<(), FilesError> {
    match row.size {
        Some(size) if size != total => Err(FilesError::BadRequest(format!(
            "the file was announced with {size} bytes, not {total}"
        ))),
        None if total < row.received => Err(FilesError::BadRequest(format!(
            "{} bytes are here already, more than {total}",
            row.received
        ))),
        _ => Ok(()),
    }
}

fn fresh_upload(asker: &Asker, aim: String) -> Upload {
    let now = clock::now_secs();
    Upload {
        user: asker.user,
        upload: UploadId(Uuid::from_bytes(host::random())),
        device: asker.device_name.clone(),
        state: State::Pending,
        aim,
        ns: None,
        node: None,
        op: fresh_key(),
        size: None,
        received: 0,
        cut: 0,
        closed: false,
        result: None,
        created: now,
        touched: now,
    }
}

fn insert(sql: &mut dyn Sql, fresh: &Upload) -> Result<(), FilesError> {
    for (user, id) in uploads::idle_since(sql, fresh.created - UPLOAD_KEPT_SECS, FORGOTTEN_AT_ONCE)?
    {
        uploads::remove(sql, user, id)?;
    }
    if uploads::open_count(sql, fresh.user)? >= UPLOADS_OPEN_MAX {
        return Err(FilesError::TooMany(format!(
            "{UPLOADS_OPEN_MAX} uploads have begun and not ended; end some first"
        )));
    }
    Ok(uploads::insert(sql, fresh)?)
}
