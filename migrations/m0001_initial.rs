//! Format 1: a meta row beside the rows.
//!
//! Runs while a store is made, before it has its name. A store that has its name
//! was complete when it got it, so a missing meta row means that it was lost, and
//! other things with it: nothing is put in its place.

use super::{CatalogError, Migration, Upgrade};

pub(super) const MIGRATION: Migration = Migration {
    number: 1,
    description: "give a fresh store its meta row",
    apply,
};

fn apply(store: &mut Upgrade<'_>) -> Result<(), CatalogError> {
    if store.format() >= 1 {
        return Ok(());
    }
    if !store.is_fresh() {
        return Err(store.ruined("its meta row is missing, and it is not a store being made"));
    }
    store.begin(1)
}
