//! What must hold between rows: the rules of `fsck`, each a statement that finds the rows which
//! break it, and pages of rows for checks that need more than a statement.
//!
//! A rule's repair is a statement that looks again by itself: the rows may have changed since.

use drivefs_core::codec::Codec;
use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;
use drivefs_core::id::VersionNo;
use drivefs_core::pack::Location;

use super::DbError;
use super::Sql;
use super::value::Row;
use super::value::Value;
use super::value::params;

/// Something that must hold.
pub struct Rule {
    /// Names the rule in reports.
    pub kind: &'static str,
    /// What is told of a row that breaks it; `{0}` is its first column.
    pub says: &'static str,
    sql: &'static str,
    /// A statement that sets it right, and how many columns of the row it takes.
    repair: Option<(&'static str, usize)>,
}

impl Rule {
    pub fn is_repairable(&self) -> bool {
        self.repair.is_some()
    }

    /// Rows that break the rule, at most `limit`.
    pub fn broken(&self, sql: &mut dyn Sql, limit: usize) -> Result<Vec<Row>, DbError> {
        sql.query(&format!("{} LIMIT {limit}", self.sql), &[])
    }

    /// Sets one row right; false where the rule has no repair, or nothing is wrong any more.
    pub fn mend(&self, sql: &mut dyn Sql, row: &Row) -> Result<bool, DbError> {
        let Some((statement, columns)) = self.repair else { return Ok(false) };
        Ok(sql.exec(statement, row.0.get(..columns).unwrap_or(&row.0))? > 0)
    }

    /// The row in words.
    pub fn told(&self, row: &Row) -> String {
        let mut text = self.says.to_owned();
        for (i, value) in row.0.iter().enumerate() {
            text = text.replace(&format!("{{{i}}}"), &shown(value));
        }
        text
    }
}

/// Ids as people meet them elsewhere: 16 hex digits, UUIDs, names as text.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        // Numbers below this are counters; ids are 63 random bits.
        Value::Int(v) if *v < 1 << 40 => v.to_string(),
        Value::Int(v) => format!("{v:016x}"),
        Value::Text(v) => v.clone(),
        Value::TooLarge => "a number that is too large".to_owned(),
        Value::Blob(v) => match NodeId::from_slice(v) {
            Ok(id) => id.to_string(),
            Err(_) => format!("{:?}", String::from_utf8_lossy(v)),
        },
    }
}

const fn rule(kind: &'static str, says: &'static str, sql: &'static str) -> Rule {
    Rule { kind, says, sql, repair: None }
}

const fn mended(rule: Rule, statement: &'static str, columns: usize) -> Rule {
    Rule { repair: Some((statement, columns)), ..rule }
}

pub const RULES: &[Rule] = &[
    rule(
        "user-root",
        "account {1} ({0}): its root namespace {2} is not there or not its own",
        "SELECT u.user, u.email, u.root_ns FROM user u
         LEFT JOIN namespace n ON n.ns = u.root_ns AND n.owner = u.user WHERE n.ns IS NULL",
    ),
    rule(
        "namespace-owner",
        "namespace {0}: its owner {1} is not there",
        "SELECT n.ns, n.owner FROM namespace n LEFT JOIN user u ON u.user = n.owner
         WHERE u.user IS NULL",
    ),
    rule(
        "namespace-root",
        "namespace {0}: its root {1} is not a live folder",
        "SELECT s.ns, s.root FROM namespace s LEFT JOIN node n ON n.ns = s.ns AND n.node = s.root
         AND n.deleted_ns IS NULL AND n.kind = 2 WHERE n.node IS NULL",
    ),
    mended(
        rule(
            "owner-member",
            "namespace {0}: its owner {1} is not a member with the owner's role",
            "SELECT n.ns, n.owner FROM namespace n LEFT JOIN member m ON m.ns = n.ns
             AND m.user = n.owner AND m.role = 3 WHERE m.ns IS NULL",
        ),
        "INSERT INTO member (ns, user, role) SELECT ns, owner, 3 FROM namespace WHERE ns = ?1
         ON CONFLICT (ns, user) DO UPDATE SET role = 3",
        1,
    ),
    rule(
        "member",
        "member {1} of namespace {0}: one of the two is not there, or the role {2} is none",
        "SELECT m.ns, m.user, m.role FROM member m LEFT JOIN user u ON u.user = m.user
         LEFT JOIN namespace n ON n.ns = m.ns
         WHERE u.user IS NULL OR n.ns IS NULL OR m.role NOT IN (1, 2, 3)",
    ),
    rule(
        "device-user",
        "device {1} is of account {0}, which is not there",
        "SELECT d.user, d.name FROM device d LEFT JOIN user u ON u.user = d.user
         WHERE u.user IS NULL",
    ),
    rule(
        "node-namespace",
        "node {1} is in namespace {0}, which is not there",
        "SELECT n.ns, n.node FROM node n LEFT JOIN namespace s ON s.ns = n.ns WHERE s.ns IS NULL",
    ),
    rule(
        "entry-parent",
        "namespace {0}: the entry {2} is in {1}, which is not a live folder",
        "SELECT d.ns, d.parent, d.name FROM dirent d LEFT JOIN node p ON p.ns = d.ns
         AND p.node = d.parent AND p.kind = 2 AND p.deleted_ns IS NULL
         WHERE d.child IS NOT NULL AND p.node IS NULL",
    ),
    rule(
        "entry-node",
        "namespace {0}: the entry {2} of folder {1} names node {3}, which is not there or deleted",
        "SELECT d.ns, d.parent, d.name, d.child FROM dirent d LEFT JOIN node n ON n.ns = d.ns
         AND n.node = d.child AND n.deleted_ns IS NULL
         WHERE d.child IS NOT NULL AND n.node IS NULL",
    ),
    rule(
        "node-unnamed",
        "namespace {0}: node {1} is live and has no name",
        "SELECT n.ns, n.node FROM node n LEFT JOIN namespace s ON s.ns = n.ns AND s.root = n.node
         WHERE n.deleted_ns IS NULL AND s.ns IS NULL AND NOT EXISTS
         (SELECT 1 FROM dirent d WHERE d.ns = n.ns AND d.child = n.node)",
    ),
    rule(
        "link-count",
        "namespace {0}: folder {1} has {2} names",
        "SELECT n.ns, n.node, count(*) FROM node n JOIN dirent d ON d.ns = n.ns
         AND d.child = n.node WHERE n.kind IN (2, 8) GROUP BY n.ns, n.node HAVING count(*) > 1",
    ),
    rule(
        "root-named",
        "namespace {0}: its root {1} is named in a folder",
        "SELECT s.ns, s.root FROM namespace s JOIN dirent d ON d.ns = s.ns AND d.child = s.root",
    ),
    rule(
        "head-version",
        "namespace {0}: file {1} is at version {2}, which is not there",
        "SELECT n.ns, n.node, n.version FROM node n LEFT JOIN file_version v ON v.ns = n.ns
         AND v.node = n.node AND v.version = n.version
         WHERE n.kind = 1 AND n.version > 0 AND n.deleted_ns IS NULL AND v.ns IS NULL",
    ),
    rule(
        "version-order",
        "namespace {0}: version {2} of file {1} is newer than its head {3}",
        "SELECT v.ns, v.node, v.version, n.version FROM file_version v
         JOIN node n ON n.ns = v.ns AND n.node = v.node WHERE v.version > n.version",
    ),
    rule(
        "version-node",
        "namespace {0}: version {2} is of file {1}, which is not there",
        "SELECT v.ns, v.node, v.version FROM file_version v LEFT JOIN node n ON n.ns = v.ns
         AND n.node = v.node WHERE n.node IS NULL",
    ),
    mended(
        rule(
            "kept-version",
            "namespace {0}: version {2} of file {1} is kept, but not there",
            "SELECT k.ns, k.node, k.version FROM kept_version k LEFT JOIN file_version v
             ON v.ns = k.ns AND v.node = k.node AND v.version = k.version WHERE v.ns IS NULL",
        ),
        "DELETE FROM kept_version WHERE ns = ?1 AND node = ?2 AND version = ?3 AND NOT EXISTS
         (SELECT 1 FROM file_version v WHERE v.ns = ?1 AND v.node = ?2 AND v.version = ?3)",
        3,
    ),
    mended(
        rule(
            "mount-row",
            "namespace {0}: the shared folder {1} lacks its row in the table of mounts",
            "SELECT n.ns, n.node FROM node n LEFT JOIN mount m ON m.ns = n.ns AND m.node = n.node
             AND m.target = n.mount WHERE n.kind = 8 AND n.deleted_ns IS NULL AND m.ns IS NULL",
        ),
        "INSERT INTO mount (ns, node, target) SELECT ns, node, mount FROM node WHERE ns = ?1
         AND node = ?2 AND mount IS NOT NULL
         ON CONFLICT (ns, node) DO UPDATE SET target = excluded.target",
        2,
    ),
    rule(
        "mount-target",
        "namespace {0}: the shared folder {1} leads to namespace {2}, which is not there",
        "SELECT n.ns, n.node, n.mount FROM node n LEFT JOIN namespace s ON s.ns = n.mount
         WHERE n.kind = 8 AND n.deleted_ns IS NULL AND s.ns IS NULL",
    ),
    rule(
        "seq",
        "namespace {0} is at seq {2}, and node {1} was changed at {3}",
        "SELECT s.ns, n.node, s.seq, n.changed_seq FROM namespace s JOIN node n ON n.ns = s.ns
         AND n.changed_seq > s.seq",
    ),
    rule(
        "seq",
        "namespace {0} is at seq {2}, and the entry {1} was changed at {3}",
        "SELECT s.ns, d.name, s.seq, d.changed_seq FROM namespace s JOIN dirent d ON d.ns = s.ns
         AND d.changed_seq > s.seq",
    ),
    mended(
        rule(
            "used",
            "account {1} ({0}): {2} bytes are noted as used, the files have {3}",
            "SELECT u.user, u.email, u.used, t.total FROM user u JOIN (
             SELECT o.user AS owner, COALESCE(SUM(v.size), 0) AS total FROM user o
             LEFT JOIN namespace s ON s.owner = o.user
             LEFT JOIN node n ON n.ns = s.ns AND n.deleted_ns IS NULL
             LEFT JOIN file_version v ON v.ns = n.ns AND v.node = n.node AND v.version = n.version
             GROUP BY o.user) t ON t.owner = u.user WHERE u.used <> t.total",
        ),
        "UPDATE user SET used = (SELECT COALESCE(SUM(v.size), 0) FROM namespace s
         JOIN node n ON n.ns = s.ns AND n.deleted_ns IS NULL
         JOIN file_version v ON v.ns = n.ns AND v.node = n.node AND v.version = n.version
         WHERE s.owner = ?1) WHERE user = ?1",
        1,
    ),
];

/// Folders of a namespace that no way leads to from its root.
pub fn unreached(sql: &mut dyn Sql, limit: usize) -> Result<Vec<Row>, DbError> {
    let namespaces = sql.query("SELECT ns, root FROM namespace ORDER BY ns", &[])?;
    let statement = format!(
        "WITH RECURSIVE reached (node) AS (
             SELECT ?2 UNION
             SELECT d.child FROM reached r JOIN dirent d ON d.ns = ?1 AND d.parent = r.node
             JOIN node n ON n.ns = ?1 AND n.node = d.child AND n.kind = 2)
         SELECT n.ns, n.node FROM node n WHERE n.ns = ?1 AND n.kind = 2 AND n.deleted_ns IS NULL
         AND n.node NOT IN (SELECT node FROM reached)
         AND EXISTS (SELECT 1 FROM dirent d WHERE d.ns = ?1 AND d.child = n.node) LIMIT {limit}"
    );
    let mut out = Vec::new();
    for row in namespaces {
        out.extend(sql.query(&statement, &row.0)?);
    }
    Ok(out)
}

/// A version, and who holds its blocks.
pub struct HeldVersion {
    pub owner: UserId,
    pub ns: NamespaceId,
    pub node: NodeId,
    pub version: VersionNo,
    pub size: u64,
    /// Encoded `manifest::Root`.
    pub content: Vec<u8>,
}

/// Versions of all namespaces behind one of them, in the order of their keys.
pub fn versions(
    sql: &mut dyn Sql,
    after: Option<&HeldVersion>,
    limit: usize,
) -> Result<Vec<HeldVersion>, DbError> {
    let columns = "s.owner, v.ns, v.node, v.version, v.size, v.content FROM file_version v
         JOIN namespace s ON s.ns = v.ns";
    let order = format!("ORDER BY v.ns, v.node, v.version LIMIT {limit}");
    let rows = match after {
        None => sql.query(&format!("SELECT {columns} {order}"), &[])?,
        Some(last) => sql.query(
            &format!("SELECT {columns} WHERE (v.ns, v.node, v.version) > (?1, ?2, ?3) {order}"),
            params![last.ns, last.node, last.version],
        )?,
    };
    rows.iter()
        .map(|r| {
            Ok(HeldVersion {
                owner: r.get(0)?,
                ns: r.get(1)?,
                node: r.get(2)?,
                version: r.get(3)?,
                size: r.get(4)?,
                content: r.get(5)?,
            })
        })
        .collect()
}

/// A row of the table of packs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackRow {
    pub pack: PackId,
    pub owner: UserId,
    pub size: u64,
    pub blocks: u64,
    pub wrapped_key: Vec<u8>,
}

const PACK_COLUMNS: &str = "pack, owner, size, blocks, wrapped_key";

fn pack_of(r: &Row) -> Result<PackRow, DbError> {
    Ok(PackRow {
        pack: r.get(0)?,
        owner: r.get(1)?,
        size: r.get(2)?,
        blocks: r.get(3)?,
        wrapped_key: r.get(4)?,
    })
}

/// Packs behind one of them, by id, without those whose objects are about to be removed.
pub fn packs(
    sql: &mut dyn Sql,
    after: Option<PackId>,
    limit: usize,
) -> Result<Vec<PackRow>, DbError> {
    let after = after.map_or(Vec::new(), |p| p.as_bytes().to_vec());
    let statement = format!(
        "SELECT {PACK_COLUMNS} FROM pack WHERE pack > ?1 AND dead IS NULL ORDER BY pack LIMIT {limit}"
    );
    sql.query(&statement, params![&after[..]])?.iter().map(pack_of).collect()
}

/// The row of a pack, dead or not.
pub fn pack(sql: &mut dyn Sql, pack: PackId) -> Result<Option<PackRow>, DbError> {
    let statement = format!("SELECT {PACK_COLUMNS} FROM pack WHERE pack = ?1");
    sql.query_one(&statement, params![pack])?.as_ref().map(pack_of).transpose()
}

/// Number of packs and their bytes.
pub fn packs_total(sql: &mut dyn Sql) -> Result<(u64, u64), DbError> {
    let row =
        sql.query_one("SELECT count(*), COALESCE(SUM(size), 0) FROM pack WHERE dead IS NULL", &[])?;
    row.map_or(Ok((0, 0)), |r| Ok((r.get(0)?, r.get(1)?)))
}

/// A row of the table of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRow {
    /// Account that holds the block.
    pub owner: UserId,
    pub at: Location,
    /// Entries and content bytes, once verified as a manifest segment.
    pub segment: Option<(u32, u64)>,
}

/// What the table of blocks says to be in a pack, in its order.
pub fn blocks_of(sql: &mut dyn Sql, pack: PackId) -> Result<Vec<BlockRow>, DbError> {
    sql.query(
        "SELECT owner, hash, idx, offset_bytes, sealed_len, codec, block_len, segment_entries,
         segment_bytes FROM block WHERE pack = ?1 ORDER BY idx, owner",
        params![pack],
    )?
    .iter()
    .map(|r| {
        let (entries, bytes): (Option<u32>, Option<u64>) = (r.get(7)?, r.get(8)?);
        Ok(BlockRow {
            owner: r.get(0)?,
            at: Location {
                hash: r.get(1)?,
                index: r.get(2)?,
                offset: r.get(3)?,
                sealed_len: r.get(4)?,
                codec: Codec::from_u8(r.get(5)?).ok_or(DbError::Decode("codec"))?,
                block_len: r.get(6)?,
            },
            segment: entries.zip(bytes),
        })
    })
    .collect()
}

/// True when a block is said to be in a pack that the table of packs knows.
pub fn has_blocks(sql: &mut dyn Sql, pack: PackId) -> Result<bool, DbError> {
    let row = sql.query_one(
        "SELECT 1 FROM block b JOIN pack p ON p.pack = b.pack WHERE b.pack = ?1 LIMIT 1",
        params![pack],
    )?;
    Ok(row.is_some())
}

/// Blocks of packs that the table of packs does not know: pack, owner and name.
pub fn blocks_without_pack(
    sql: &mut dyn Sql,
    limit: usize,
) -> Result<Vec<(PackId, UserId, BlockHash)>, DbError> {
    let statement = format!(
        "SELECT b.pack, b.owner, b.hash FROM block b LEFT JOIN pack p ON p.pack = b.pack
         WHERE p.pack IS NULL LIMIT {limit}"
    );
    sql.query(&statement, &[])?.iter().map(|r| Ok((r.get(0)?, r.get(1)?, r.get(2)?))).collect()
}

/// The pack in which an account's block is said to lie.
pub fn place_of(
    sql: &mut dyn Sql,
    owner: UserId,
    hash: BlockHash,
) -> Result<Option<PackId>, DbError> {
    let row = sql
        .query_one("SELECT pack FROM block WHERE owner = ?1 AND hash = ?2", params![owner, hash])?;
    row.map(|r| r.get(0)).transpose()
}

/// Says that an account's block lies there, whatever was noted before.
pub fn set_place(
    sql: &mut dyn Sql,
    owner: UserId,
    pack: PackId,
    at: &Location,
) -> Result<(), DbError> {
    sql.exec(
        "INSERT INTO block (owner, hash, pack, idx, offset_bytes, sealed_len, codec, block_len)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (owner, hash) DO UPDATE SET
         pack = ?3, idx = ?4, offset_bytes = ?5, sealed_len = ?6, codec = ?7, block_len = ?8",
        params![
            owner,
            at.hash,
            pack,
            at.index,
            at.offset,
            at.sealed_len,
            at.codec as u8,
            at.block_len,
        ],
    )?;
    // What refers to it is looked at again, and the pack is in use from here on.
    sql.exec("UPDATE pack SET dead = NULL WHERE pack = ?1", params![pack])?;
    super::space::next_generation(sql)?;
    Ok(())
}

/// Notes length and number of blocks of a pack as they were found.
pub fn set_pack_facts(
    sql: &mut dyn Sql,
    pack: PackId,
    size: u64,
    blocks: usize,
) -> Result<(), DbError> {
    sql.exec(
        "UPDATE pack SET size = ?2, blocks = ?3 WHERE pack = ?1",
        params![pack, size, blocks],
    )?;
    Ok(())
}

/// Takes a pack off the table, if no block is said to be in it; true when it was.
pub fn forget_pack(sql: &mut dyn Sql, pack: PackId) -> Result<bool, DbError> {
    let gone = sql.exec(
        "DELETE FROM pack WHERE pack = ?1 AND NOT EXISTS
         (SELECT 1 FROM block b WHERE b.pack = ?1)",
        params![pack],
    )?;
    Ok(gone > 0)
}

/// What the database itself finds wrong with its pages and indexes.
pub fn database(sql: &mut dyn Sql) -> Result<Vec<String>, DbError> {
    let rows = sql.query("PRAGMA integrity_check", &[])?;
    let told: Vec<String> = rows.iter().map(|r| r.get(0)).collect::<Result<_, _>>()?;
    Ok(told.into_iter().filter(|t| t != "ok").collect())
}
