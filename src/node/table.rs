//! Which volumes this node has, by id and by target. Each target has one volume at most.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{NodeError, volume::Volume};
use crate::{sys::TargetPath, volume::VolumeId};

/// Every volume of the node.
#[derive(Debug, Default)]
pub(super) struct VolumeTable(Mutex<Index>);

#[derive(Debug, Default)]
struct Index {
    volumes: HashMap<VolumeId, Arc<Volume>>,
    targets: HashMap<TargetPath, VolumeId>,
}

// === impl VolumeTable ===

impl VolumeTable {
    pub(super) fn get(&self, id: &VolumeId) -> Option<Arc<Volume>> {
        self.index().volumes.get(id).cloned()
    }

    /// The volume of this id at this target, a new one if there is none. Fails if either is
    /// already taken by something else.
    pub(super) fn claim(
        &self,
        id: &VolumeId,
        target: &TargetPath,
    ) -> Result<Arc<Volume>, NodeError> {
        let mut index = self.index();
        if let Some(volume) = index.volumes.get(id) {
            if volume.target == *target {
                return Ok(volume.clone());
            }
            let other = volume.target.path().to_owned();
            return Err(NodeError::Elsewhere { volume: id.clone(), other });
        }
        match index.targets.entry(target.clone()) {
            Entry::Occupied(other) => {
                let other = other.get().clone();
                return Err(NodeError::Taken { target: target.path().to_owned(), other });
            }
            Entry::Vacant(vacant) => vacant.insert(id.clone()),
        };
        let volume = Arc::new(Volume::new(id.clone(), target.clone()));
        index.volumes.insert(id.clone(), volume.clone());
        Ok(volume)
    }

    /// Takes a recovered volume in; false if its id or target is taken.
    pub(super) fn insert(&self, volume: Arc<Volume>) -> bool {
        let mut index = self.index();
        let taken =
            index.volumes.contains_key(&volume.id) || index.targets.contains_key(&volume.target);
        if !taken {
            index.targets.insert(volume.target.clone(), volume.id.clone());
            index.volumes.insert(volume.id.clone(), volume);
        }
        !taken
    }

    /// Forgets exactly this volume, not another that has its id by now.
    pub(super) fn remove(&self, volume: &Arc<Volume>) {
        let mut index = self.index();
        if index.volumes.get(&volume.id).is_some_and(|known| Arc::ptr_eq(known, volume)) {
            index.volumes.remove(&volume.id);
            index.targets.remove(&volume.target);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Volume>> {
        self.index().volumes.values().cloned().collect()
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
