//! Values and rows as they pass the database seam; knows no driver.
//!
//! Reading a value as a type that it is not is `DbError::Decode`, never a panic: the database is
//! outside data too.

use drivefs_core::id::BlockHash;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use drivefs_core::id::PackId;
use drivefs_core::id::UserId;

use super::DbError;

/// One value in a statement or a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
    /// A number of 2^63 or more: a statement with it fails with `DbError::Range`. What the server
    /// counts never comes there; what somebody asks for may.
    TooLarge,
}

/// One row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);

impl Row {
    /// Column `i` (from 0) as `T`.
    pub fn get<T: FromValue>(&self, i: usize) -> Result<T, DbError> {
        T::from_value(self.0.get(i).unwrap_or(&Value::Null))
    }
}

pub trait FromValue: Sized {
    fn from_value(value: &Value) -> Result<Self, DbError>;
}

/// The parameters of a statement: anything with `Value: From`.
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::metadata::value::Value::from($value)),*] };
}
pub(crate) use params;

macro_rules! integers {
    ($($t:ty),*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self {
                i64::try_from(v).map_or(Self::TooLarge, Self::Int)
            }
        }
        impl FromValue for $t {
            fn from_value(value: &Value) -> Result<Self, DbError> {
                match value {
                    Value::Int(v) => Self::try_from(*v).map_err(|_| DbError::Decode("integer range")),
                    _ => Err(DbError::Decode("integer")),
                }
            }
        }
    )*};
}
integers!(i64, u64, u32, u8, usize);

macro_rules! ids_64 {
    ($($t:ident),*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self {
                Self::from(v.0)
            }
        }
        impl FromValue for $t {
            fn from_value(value: &Value) -> Result<Self, DbError> {
                u64::from_value(value).map($t)
            }
        }
    )*};
}
ids_64!(NamespaceId, UserId);

macro_rules! ids_bytes {
    ($($t:ident => $bytes:expr),*) => {$(
        impl From<$t> for Value {
            fn from(v: $t) -> Self {
                let bytes: fn(&$t) -> &[u8] = $bytes;
                Self::Blob(bytes(&v).to_vec())
            }
        }
        impl FromValue for $t {
            fn from_value(value: &Value) -> Result<Self, DbError> {
                match value {
                    Value::Blob(b) => $t::from_slice(b).map_err(|_| DbError::Decode("id")),
                    _ => Err(DbError::Decode("id")),
                }
            }
        }
    )*};
}
ids_bytes!(
    NodeId => |v| v.as_bytes(),
    OpKey => |v| v.as_bytes(),
    PackId => |v| v.as_bytes(),
    BlockHash => |v| &v.0
);

impl From<bool> for Value {
    fn from(v: bool) -> Self {
        Self::Int(i64::from(v))
    }
}

impl FromValue for bool {
    fn from_value(value: &Value) -> Result<Self, DbError> {
        i64::from_value(value).map(|v| v != 0)
    }
}

impl From<&str> for Value {
    fn from(v: &str) -> Self {
        Self::Text(v.to_owned())
    }
}

impl From<String> for Value {
    fn from(v: String) -> Self {
        Self::Text(v)
    }
}

impl FromValue for String {
    fn from_value(value: &Value) -> Result<Self, DbError> {
        match value {
            Value::Text(v) => Ok(v.clone()),
            _ => Err(DbError::Decode("text")),
        }
    }
}

impl From<&[u8]> for Value {
    fn from(v: &[u8]) -> Self {
        Self::Blob(v.to_vec())
    }
}

impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Result<Self, DbError> {
        match value {
            Value::Blob(v) => Ok(v.clone()),
            _ => Err(DbError::Decode("bytes")),
        }
    }
}

impl<T> From<Option<T>> for Value
where
    Self: From<T>,
{
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Self::from)
    }
}

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Result<Self, DbError> {
        match value {
            Value::Null => Ok(None),
            other => T::from_value(other).map(Some),
        }
    }
}
