//! OpenMLS's view of the database, in the caller's transaction, and snapshots that carry a group to another one.

use ciborium::Value;
use openmls::prelude::{KeyPackageBundle, OpenMlsProvider};
use openmls_rust_crypto::RustCrypto;
use openmls_sqlite_storage::{Codec, SqliteStorageProvider};
use rusqlite::{Connection, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::group::encryption_key;
use super::{MlsError, at};

/// The codec of OpenMLS's records.
#[derive(Default)]
pub(super) struct Cbor;

/// A record that is not what was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum CborError {
    #[error("cannot encode a record: {0}")]
    Encode(#[from] ciborium::ser::Error<std::io::Error>),
    #[error("cannot decode a record: {0}")]
    Decode(#[from] ciborium::de::Error<std::io::Error>),
}

impl Codec for Cbor {
    type Error = CborError;

    fn to_vec<T: Serialize>(value: &T) -> Result<Vec<u8>, CborError> {
        let mut bytes = Vec::new();
        ciborium::into_writer(value, &mut bytes)?;
        Ok(bytes)
    }

    fn from_slice<T: DeserializeOwned>(slice: &[u8]) -> Result<T, CborError> {
        Ok(ciborium::from_reader(slice)?)
    }
}

/// Crypto, randomness and storage for OpenMLS.
pub(super) struct Provider<'a> {
    crypto: &'a RustCrypto,
    storage: SqliteStorageProvider<Cbor, &'a Connection>,
}

impl<'a> Provider<'a> {
    pub(super) fn new(crypto: &'a RustCrypto, connection: &'a Connection) -> Self {
        Self { crypto, storage: SqliteStorageProvider::new(connection) }
    }
}

impl<'a> OpenMlsProvider for Provider<'a> {
    type CryptoProvider = RustCrypto;
    type RandProvider = RustCrypto;
    type StorageProvider = SqliteStorageProvider<Cbor, &'a Connection>;

    fn storage(&self) -> &Self::StorageProvider {
        &self.storage
    }

    fn crypto(&self) -> &RustCrypto {
        self.crypto
    }

    fn rand(&self) -> &RustCrypto {
        self.crypto
    }
}

/// Makes OpenMLS's tables.
pub(crate) fn migrate(connection: &mut Connection) -> Result<(), MlsError> {
    SqliteStorageProvider::<Cbor, &mut Connection>::new(connection)
        .run_migrations()
        .map_err(at("making the tables of the encryption"))
}

/// The references of the KeyPackages whose secrets are kept.
pub(crate) fn key_packages(connection: &Connection) -> Result<Vec<Vec<u8>>, rusqlite::Error> {
    let mut statement = connection.prepare_cached("SELECT key_package_ref FROM openmls_key_packages")?;
    statement.query_map([], |row| row.get(0))?.collect()
}

/// The references of the last resorts among them.
pub(crate) fn last_resorts(connection: &Connection) -> Result<Vec<Vec<u8>>, MlsError> {
    let bundles = bundles(connection, "looking for last resorts")?;
    let last_resorts = bundles.into_iter().filter(|(_, bundle)| bundle.key_package().last_resort());
    Ok(last_resorts.map(|(reference, _)| reference).collect())
}

/// Whether a leaf, by its encryption key, is that of one of them.
pub(crate) fn is_of_key_package(connection: &Connection, leaf_key: &[u8]) -> Result<bool, MlsError> {
    let bundles = bundles(connection, "looking for a leaf's key package")?;
    let key_of = |bundle: &KeyPackageBundle| encryption_key(bundle.key_package().leaf_node().encryption_key());
    Ok(bundles.iter().any(|(_, bundle)| key_of(bundle) == leaf_key))
}

fn bundles(connection: &Connection, step: &'static str) -> Result<Vec<(Vec<u8>, KeyPackageBundle)>, MlsError> {
    let mut statement =
        connection.prepare_cached("SELECT key_package_ref, key_package FROM openmls_key_packages").map_err(at(step))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(at(step))?;
    let mut bundles = Vec::new();
    for row in rows {
        let (reference, bundle): (Vec<u8>, Vec<u8>) = row.map_err(at(step))?;
        bundles.push((reference, Cbor::from_slice(&bundle).map_err(at(step))?));
    }
    Ok(bundles)
}

/// Forgets the secrets of a KeyPackage.
pub(crate) fn forget_key_package(connection: &Connection, reference: &[u8]) -> Result<(), rusqlite::Error> {
    connection.execute("DELETE FROM openmls_key_packages WHERE key_package_ref = ?1", params![reference]).map(drop)
}

/// The records of one group, to be put into another database.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(Vec<u8>);

/// Why a snapshot cannot be put back.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RestoreError {
    /// Not a snapshot.
    #[error("a staged group is damaged")]
    Damaged,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] rusqlite::Error),
}

type GroupRow = (i64, Vec<u8>, String, Vec<u8>);
type EpochKeyRow = (i64, Vec<u8>, Vec<u8>, i64, Vec<u8>);
type KeyRow = (i64, Vec<u8>, Vec<u8>);

impl Snapshot {
    /// Takes all records of a database that holds one group and nothing else.
    pub(super) fn of_only_group(connection: &Connection) -> Result<Self, rusqlite::Error> {
        let groups = connection
            .prepare("SELECT provider_version, group_id, data_type, group_data FROM openmls_group_data")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
            .collect::<Result<Vec<GroupRow>, _>>()?;
        let epoch_keys = connection
            .prepare(
                "SELECT provider_version, group_id, epoch_id, leaf_index, key_pairs FROM openmls_epoch_keys_pairs",
            )?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?)))?
            .collect::<Result<Vec<EpochKeyRow>, _>>()?;
        let keys = connection
            .prepare("SELECT provider_version, public_key, key_pair FROM openmls_encryption_keys")?
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<Vec<KeyRow>, _>>()?;
        let bytes = Value::Bytes;
        let value = Value::Array(vec![
            list(groups, |(version, id, kind, data)| vec![version.into(), bytes(id), kind.into(), bytes(data)]),
            list(epoch_keys, |(version, id, epoch, leaf, pairs)| {
                vec![version.into(), bytes(id), bytes(epoch), leaf.into(), bytes(pairs)]
            }),
            list(keys, |(version, key, pair)| vec![version.into(), bytes(key), bytes(pair)]),
        ]);
        let mut out = Vec::new();
        ciborium::into_writer(&value, &mut out).expect("a Vec takes what is written");
        Ok(Self(out))
    }

    /// The stored form.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Reads the stored form.
    pub(crate) const fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Replaces whatever a database holds of this group.
    pub(crate) fn restore(&self, connection: &Connection) -> Result<(), RestoreError> {
        let value: Value = ciborium::from_reader(self.0.as_slice()).map_err(|_| RestoreError::Damaged)?;
        let tables: [Value; 3] = array(value)?.try_into().map_err(|_| RestoreError::Damaged)?;
        let [groups, epoch_keys, keys] = tables;
        let groups = array(groups)?.into_iter().map(sql_row).collect::<Result<Vec<_>, _>>()?;
        let id = groups.first().and_then(|row| row.get(1)).ok_or(RestoreError::Damaged)?;
        for table in ["openmls_group_data", "openmls_epoch_keys_pairs", "openmls_own_leaf_nodes", "openmls_proposals"] {
            connection.execute(&format!("DELETE FROM {table} WHERE group_id = ?1"), params![id])?;
        }
        let insert = |sql: &str, rows: Vec<Vec<rusqlite::types::Value>>| -> Result<(), RestoreError> {
            let mut statement = connection.prepare(sql)?;
            for row in rows {
                statement.execute(rusqlite::params_from_iter(row))?;
            }
            Ok(())
        };
        insert(
            "INSERT INTO openmls_group_data (provider_version, group_id, data_type, group_data) VALUES (?, ?, ?, ?)",
            groups,
        )?;
        insert(
            "INSERT INTO openmls_epoch_keys_pairs (provider_version, group_id, epoch_id, leaf_index, key_pairs)
             VALUES (?, ?, ?, ?, ?)",
            array(epoch_keys)?.into_iter().map(sql_row).collect::<Result<_, _>>()?,
        )?;
        insert(
            "INSERT OR REPLACE INTO openmls_encryption_keys (provider_version, public_key, key_pair) VALUES (?, ?, ?)",
            array(keys)?.into_iter().map(sql_row).collect::<Result<_, _>>()?,
        )
    }
}

fn list<T>(rows: Vec<T>, columns: impl Fn(T) -> Vec<Value>) -> Value {
    Value::Array(rows.into_iter().map(|row| Value::Array(columns(row))).collect())
}

fn array(value: Value) -> Result<Vec<Value>, RestoreError> {
    value.into_array().map_err(|_| RestoreError::Damaged)
}

fn sql_row(row: Value) -> Result<Vec<rusqlite::types::Value>, RestoreError> {
    use rusqlite::types::Value as Sql;
    let column = |value| match value {
        Value::Integer(number) => i64::try_from(number).map(Sql::Integer).map_err(|_| RestoreError::Damaged),
        Value::Text(text) => Ok(Sql::Text(text)),
        Value::Bytes(bytes) => Ok(Sql::Blob(bytes)),
        _ => Err(RestoreError::Damaged),
    };
    array(row)?.into_iter().map(column).collect()
}
