//! Second factors and recovery codes.

use berth_runtime::id::PrincipalId;
use sqlx::{Row, SqliteConnection};

use crate::auth::keys::SecretHash;
use crate::clock::Time;
use crate::error::{Error, Result};

/// A factor.
#[derive(Debug, Clone)]
pub struct Factor {
    /// Its secret, sealed.
    pub sealed: Vec<u8>,
    /// When its owner has shown a code of it; until then it is asked of nobody.
    pub confirmed_at: Option<Time>,
    /// The newest step whose code was taken.
    pub last_step: u64,
    /// Recovery codes that are left.
    pub codes_left: u32,
}

/// Somebody's factor.
pub async fn find(db: &mut SqliteConnection, person: PrincipalId) -> Result<Option<Factor>> {
    let row = sqlx::query(
        "select sealed, confirmed_at, last_step, \
         (select count(*) from recovery_codes c where c.person = f.person) as codes_left \
         from second_factors f where person = ?",
    )
    .bind(i64::from(person.0))
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let step: i64 = row.try_get("last_step")?;
        Ok(Factor {
            sealed: row.try_get("sealed")?,
            confirmed_at: row.try_get("confirmed_at")?,
            last_step: u64::try_from(step)
                .map_err(|source| Error::broken("read a step", source))?,
            codes_left: row.try_get("codes_left")?,
        })
    })
    .transpose()
}

/// Writes a factor that is to be confirmed, in the place of another that never was.
pub async fn begin(db: &mut SqliteConnection, person: PrincipalId, sealed: &[u8]) -> Result<()> {
    let done = sqlx::query(
        "insert into second_factors (person, sealed) values (?, ?) \
         on conflict do update set sealed = excluded.sealed where confirmed_at is null",
    )
    .bind(i64::from(person.0))
    .bind(sealed)
    .execute(db)
    .await?;
    match done.rows_affected() {
        0 => Err(Error::conflict("second-factor.on", "you have a second factor; remove it first")),
        _ => Ok(()),
    }
}

/// From now on it is asked for.
pub async fn confirm(db: &mut SqliteConnection, person: PrincipalId) -> Result<()> {
    sqlx::query("update second_factors set confirmed_at = ? where person = ?")
        .bind(Time::now())
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}

/// Takes the code of a step; whether it was not taken before.
pub async fn use_step(db: &mut SqliteConnection, person: PrincipalId, step: u64) -> Result<bool> {
    let step = i64::try_from(step).map_err(|source| Error::broken("write a step", source))?;
    let done = sqlx::query(
        "update second_factors set last_step = ?2 where person = ?1 and last_step < ?2",
    )
    .bind(i64::from(person.0))
    .bind(step)
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives somebody these recovery codes, in the place of all that they had.
pub async fn set_codes(
    db: &mut SqliteConnection,
    person: PrincipalId,
    hashes: &[SecretHash],
) -> Result<()> {
    sqlx::query("delete from recovery_codes where person = ?")
        .bind(i64::from(person.0))
        .execute(&mut *db)
        .await?;
    for hash in hashes {
        sqlx::query("insert into recovery_codes (person, code_hash) values (?, ?)")
            .bind(i64::from(person.0))
            .bind(hash.as_slice())
            .execute(&mut *db)
            .await?;
    }
    Ok(())
}

/// Uses a recovery code up; whether there was such a one.
pub async fn use_code(
    db: &mut SqliteConnection,
    person: PrincipalId,
    hash: &SecretHash,
) -> Result<bool> {
    let done = sqlx::query("delete from recovery_codes where person = ? and code_hash = ?")
        .bind(i64::from(person.0))
        .bind(hash.as_slice())
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Removes a factor with its codes; whether there was one.
pub async fn delete(db: &mut SqliteConnection, person: PrincipalId) -> Result<bool> {
    let done = sqlx::query("delete from second_factors where person = ?")
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Every sealed secret, for when they are sealed anew.
pub async fn all_sealed(db: &mut SqliteConnection) -> Result<Vec<(PrincipalId, Vec<u8>)>> {
    let rows = sqlx::query("select person, sealed from second_factors").fetch_all(db).await?;
    rows.iter().map(|row| Ok((super::principal(row, "person")?, row.try_get("sealed")?))).collect()
}

/// Puts a secret that was sealed anew in its place.
pub async fn reseal(db: &mut SqliteConnection, person: PrincipalId, sealed: &[u8]) -> Result<()> {
    sqlx::query("update second_factors set sealed = ? where person = ?")
        .bind(sealed)
        .bind(i64::from(person.0))
        .execute(db)
        .await?;
    Ok(())
}
