//! Changes of collections: one schema change with all their DDL and catalogue rows, or nothing.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::Connection;

use super::draft::Draft;
use super::views::Scratch;
use super::{Catalogue, Collection, Wanted, check, rows};
use crate::store::error::{NOT_UNIQUE, StoreError};
use crate::store::request::Written;
use crate::store::writer::Writer;

/// Collections in one import.
const MAX_IMPORT: usize = 1000;

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Edit {
    /// Make one.
    Create(Wanted),
    /// Change the one with this name or id.
    Update(String, Wanted),
    /// Delete the one with this name or id: its table stays, its name becomes free.
    Delete(String),
    /// Make or change all of these. With `delete_missing` those that are in use and not among them are deleted, and so are
    /// fields that are not mentioned.
    Import {
        /// All of them.
        collections: Vec<Wanted>,
        /// Whether what is not mentioned goes.
        delete_missing: bool,
    },
}

/// A change that was found possible.
struct Change {
    statements: Vec<String>,
    stored: Vec<Collection>,
    /// All collections that will be in use.
    live: Vec<Collection>,
    /// Ids of views that work before the change, so that one that fails afterwards fails because of it.
    working: Vec<String>,
    /// Ids of collections whose rules make sense before the change, for the same reason.
    sound: Vec<String>,
}

/// Does it, and returns the collections that were made or changed, by id.
pub async fn apply(writer: &Writer, edit: Edit) -> Result<Written<Vec<Collection>>, StoreError> {
    let planned: Arc<Mutex<Option<Change>>> = Arc::default();
    let shared = Arc::clone(&planned);
    let plan = move |conn: &Connection| {
        let change = plan(conn, &edit)?;
        let statements = change.statements.clone();
        *shared.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
        Ok(statements)
    };
    let rows = move |conn: &Connection| {
        let change = planned.lock().unwrap_or_else(PoisonError::into_inner).take();
        store(conn, change.ok_or_else(|| StoreError::Invalid("the change was not planned".to_owned()))?)
    };
    writer.schema(plan, rows).await
}

fn plan(conn: &Connection, edit: &Edit) -> Result<Change, StoreError> {
    let mut draft = Draft::new(conn)?;
    match edit {
        Edit::Create(wanted) => {
            let id = draft.add(wanted)?;
            draft.change(&id, wanted, false)?;
        }
        Edit::Update(name, wanted) => {
            let id = known(conn, &draft, name)?;
            if let Some(other) = wanted.id.as_ref().filter(|other| **other != id) {
                return Err(StoreError::field("id", "validation_append_only", format!("cannot change to {other}")));
            }
            draft.change(&id, wanted, false)?;
        }
        Edit::Delete(name) => {
            let id = known(conn, &draft, name)?;
            draft.delete(&id);
        }
        Edit::Import { collections, delete_missing } => import(&mut draft, collections, *delete_missing)?,
    }
    draft.check_targets()?;
    let live: Vec<Collection> = draft.live().cloned().collect();
    let old = || draft.before.values().filter(|collection| collection.deleted.is_none());
    let working = working_views(old().collect())?;
    let known = Catalogue::new(old().cloned().collect());
    let sound = known.iter().filter(|collection| check::rules(&known, collection).is_ok());
    let sound = sound.map(|collection| collection.id.clone()).collect();
    let mut stored: Vec<_> = draft.changed.iter().filter_map(|id| draft.after.get(id).cloned()).collect();
    // Their names have to be free before others take them.
    stored.sort_by_key(|collection| collection.deleted.is_none());
    Ok(Change { statements: draft.statements(), stored, live, working, sound })
}

/// The id of a collection in use; the error is as for a read.
fn known(conn: &Connection, draft: &Draft, name: &str) -> Result<String, StoreError> {
    match draft.find(name) {
        Some(found) => Ok(found.id.clone()),
        None => Catalogue::load(conn)?.get(name).map(|found| found.id.clone()),
    }
}

fn import(draft: &mut Draft, collections: &[Wanted], delete_missing: bool) -> Result<(), StoreError> {
    if collections.is_empty() || collections.len() > MAX_IMPORT {
        let message = format!("must be 1 to {MAX_IMPORT} collections");
        return Err(StoreError::field("collections", "validation_required", message));
    }
    let at = |number: usize| move |error: StoreError| within(&format!("collections[{number}]"), error);
    let mut ids = Vec::with_capacity(collections.len());
    for (number, wanted) in collections.iter().enumerate() {
        let by_id = wanted.id.as_deref().and_then(|id| draft.live().find(|collection| collection.id == id));
        let found = by_id.or_else(|| draft.find(wanted.name.as_deref().unwrap_or_default()));
        let id = match found.map(|found| found.id.clone()) {
            Some(id) => id,
            None => draft.add(wanted).map_err(at(number))?,
        };
        if ids.contains(&id) {
            let message = format!("collection {} is given twice", wanted.name.as_deref().unwrap_or(&id));
            return Err(at(number)(StoreError::field("name", NOT_UNIQUE, message)));
        }
        if let Some(given) = wanted.id.clone().filter(|given| *given != id) {
            draft.aliases.insert(given, id.clone());
        }
        ids.push(id);
    }
    if delete_missing {
        let missing: Vec<String> =
            draft.live().map(|collection| collection.id.clone()).filter(|id| !ids.contains(id)).collect();
        missing.iter().for_each(|id| draft.delete(id));
    }
    for (number, (id, wanted)) in ids.iter().zip(collections).enumerate() {
        draft.change(id, wanted, !delete_missing).map_err(at(number))?;
    }
    Ok(())
}

/// Names the place of refused values in a larger request.
fn within(place: &str, error: StoreError) -> StoreError {
    match error {
        StoreError::Fields(mut fields) => {
            fields.iter_mut().for_each(|error| error.field = format!("{place}.{}", error.field));
            StoreError::Fields(fields)
        }
        other => other,
    }
}

/// Ids of the views whose SELECT works.
fn working_views(collections: Vec<&Collection>) -> Result<Vec<String>, StoreError> {
    if !collections.iter().any(|collection| collection.is_view()) {
        return Ok(Vec::new());
    }
    let scratch = Scratch::new(collections.iter().copied())?;
    let works = |view: &&&Collection| scratch.fields(view.view_query.as_deref().unwrap_or_default()).is_ok();
    Ok(collections.iter().filter(|collection| collection.is_view()).filter(works).map(|view| view.id.clone()).collect())
}

/// Stores the rows of a change whose DDL has run.
fn store(conn: &Connection, change: Change) -> Result<Vec<Collection>, StoreError> {
    let Change { mut stored, mut live, working, sound, .. } = change;
    let views = read_views(&live, &stored, &working)?;
    for (id, fields) in views {
        let mine = |collection: &&mut Collection| collection.id == id;
        for collection in stored.iter_mut().filter(mine).chain(live.iter_mut().filter(mine)) {
            collection.fields.clone_from(&fields);
        }
        if let Some(view) = live.iter().find(|collection| collection.id == id)
            && !stored.iter().any(|collection| collection.id == id)
        {
            rows::store(conn, view)?;
        }
    }
    let catalogue = Catalogue::new(live);
    for collection in stored.iter().filter(|collection| collection.deleted.is_none()) {
        check::rules(&catalogue, collection)?;
    }
    check_other_rules(&catalogue, &stored, &sound)?;
    for collection in &stored {
        rows::store(conn, collection)?;
    }
    Ok(stored)
}

/// Rules may read other collections: those that the change leaves alone must make sense afterwards if they did before.
fn check_other_rules(catalogue: &Catalogue, stored: &[Collection], sound: &[String]) -> Result<(), StoreError> {
    let others =
        catalogue.iter().filter(|other| sound.contains(&other.id) && stored.iter().all(|new| new.id != other.id));
    for other in others {
        if let Err(StoreError::Fields(errors)) = check::rules(catalogue, other) {
            let reasons: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
            let message = format!("rules of collection {} would not work any more, {}", other.name, reasons.join("; "));
            return Err(StoreError::Invalid(message));
        }
    }
    Ok(())
}

/// The fields of all views, which follow those that they read. One that this change broke, or that is part of it and does not
/// work, is refused; one that was broken before is left alone.
fn read_views(
    live: &[Collection],
    stored: &[Collection],
    working: &[String],
) -> Result<Vec<(String, Vec<crate::store::fields::Field>)>, StoreError> {
    let mut read = Vec::new();
    if !live.iter().any(Collection::is_view) {
        return Ok(read);
    }
    let scratch = Scratch::new(live.iter())?;
    for view in live.iter().filter(|collection| collection.is_view()) {
        match scratch.fields(view.view_query.as_deref().unwrap_or_default()) {
            Ok(fields) => read.push((view.id.clone(), fields)),
            Err(message) if stored.iter().any(|collection| collection.id == view.id) => {
                return Err(StoreError::field("viewQuery", "validation_invalid_view_query", message));
            }
            Err(message) if working.contains(&view.id) => {
                let name = &view.name;
                return Err(StoreError::Invalid(format!("the view {name} would not work any more, it {message}")));
            }
            Err(_) => {}
        }
    }
    // Those that did not change need no new row.
    read.retain(|(id, fields)| live.iter().any(|view| view.id == *id && view.fields != *fields));
    Ok(read)
}
