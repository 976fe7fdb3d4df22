//! Keeping an image that somebody else has shared: a row of one's own over the same content. Not a byte is copied, and all
//! of it is charged to whoever keeps it, as whoever pulls what is here already is charged. What its owner does with theirs
//! then, and that it is shared no more, is nothing to the kept one. It has no name of its owner's: a name is what a launch
//! means by it, and whose image that is is for each person to say.

use serde_json::json;

use super::{Image, REFERENCES_MAX, find, tag_of};
use crate::app::App;
use crate::auth::keys::random_id;
use crate::auth::{Caller, Kind, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::events::NewEvent;
use crate::inventory::images::{self, ImageRow};
use crate::service::{admission, maintenance};

/// Keeps an image that is shared with the caller as one of theirs, under a name where one is given; one's own only gets
/// the name.
///
/// # Errors
/// It is not there for them, they may not read it, or hold no more.
pub async fn keep(app: &App, caller: &Caller, id: &str, reference: Option<&str>) -> Result<Image> {
    maintenance::admit(app, caller)?;
    let reference = reference.filter(|text| !text.is_empty()).map(tag_of).transpose()?;
    find(app, caller, id).await?.rights.need(Right::Files)?;
    let mut write = app.inventory.change(&caller.actor, "image.keep").await?;
    // Again, now that nobody else writes: its owner may be taking it away.
    let theirs = images::find(write.db(), caller.sees(), id).await?;
    let granted = images::granted(write.db(), caller.principal, &[id]).await?;
    let granted = granted.get(id).copied();
    caller.rights((Kind::Image, theirs.owner), granted).need(Right::Files)?;
    let layers = images::layers(write.db(), id).await?;
    let (owner, new) = (caller.principal, random_id()?);
    let row = ImageRow { id: new.clone(), owner, created_at: Time::now(), ..theirs };
    let before = admission::held_images(write.db(), owner).await?;
    let kept = images::insert(write.db(), &row, &layers).await?;
    admission::check_new_image(write.db(), owner, &before).await?;
    if let Some(reference) = &reference {
        let names = images::count_references(write.db(), &kept).await?;
        if names >= REFERENCES_MAX {
            let text = format!("an image has at most {REFERENCES_MAX} names");
            return Err(Error::exhausted("image.too-many-names", text));
        }
        images::insert_reference(write.db(), owner, &kept, reference).await?;
    }
    write.subject("image", &kept, owner);
    if kept == new {
        let data = json!({"reference": reference.as_ref().map(ToString::to_string)});
        let (kind, subject) = ("image.kept", kept.as_str());
        write.event(NewEvent { owner, kind, subject_kind: "image", subject, data }).await?;
    }
    write.commit().await?;
    find(app, caller, &kept).await
}

/// What a launch that names an image is to start from instead, where that is one of somebody else's that is shared with
/// the caller: what they keep of it.
///
/// # Errors
/// They may hold no more.
pub async fn kept_for_launch(app: &App, caller: &Caller, text: &str) -> Result<Option<String>> {
    let Some(id) = shared(app, caller, text).await? else { return Ok(None) };
    Ok(Some(keep(app, caller, &id, None).await?.row.id))
}

/// The id of an image that is shared with the caller, where a launch means one by this text.
pub async fn shared(app: &App, caller: &Caller, text: &str) -> Result<Option<String>> {
    let is_digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if !(12..=32).contains(&text.len()) || !text.bytes().all(is_digit) {
        return Ok(None);
    }
    images::find_shared(app.inventory.read(), caller.principal, text).await
}
