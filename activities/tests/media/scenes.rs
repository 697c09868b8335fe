//! Encoded scenes on their way from one film of a tenant to another.

use crate::world::World;
use flatrender_workflows::contracts::{
    media::{KeepScene, KeptScene, TakeScenes},
    storage::{BlobHash, BlobStore, Shelf},
};
use uuid::Uuid;

#[tokio::test]
async fn a_kept_scene_is_there_for_another_film_of_the_tenant() {
    let mut world = World::new();
    let part = world.parts(&[10]).await.remove(0);
    let scene = KeptScene { key: BlobHash::of(b"all that decides"), part };
    world.run(KeepScene { render_id: world.render_id, scene: scene.clone() }).await.unwrap();
    world.storage.clear(&world.render_shelf()).await.unwrap();
    world.render_id = Uuid::from_u128(11);
    let gone = KeptScene { key: BlobHash::of(b"something else"), ..scene.clone() };
    let scenes = vec![gone, scene.clone()];
    let taken = world.run(TakeScenes { render_id: world.render_id, scenes }).await.unwrap().taken;
    assert_eq!(taken, std::slice::from_ref(&scene));
    let blob = &scene.part.blob;
    assert_eq!(world.storage.stat(&world.render_shelf(), &blob.sha256).await.unwrap(), Some(blob.size_bytes));
    assert!(world.is_tidy());
}

#[tokio::test]
async fn a_scene_is_not_there_for_another_tenant() {
    let mut world = World::new();
    let part = world.parts(&[10]).await.remove(0);
    let scene = KeptScene { key: BlobHash::of(b"all that decides"), part };
    world.run(KeepScene { render_id: world.render_id, scene: scene.clone() }).await.unwrap();
    world.tenant_id = Uuid::from_u128(12);
    let taken = world.run(TakeScenes { render_id: world.render_id, scenes: vec![scene] }).await.unwrap().taken;
    assert_eq!(taken, []);
}

#[tokio::test]
async fn a_scene_that_changed_on_the_disk_is_not_taken() {
    let world = World::new();
    let part = world.parts(&[10]).await.remove(0);
    let scene = KeptScene { key: BlobHash::of(b"all that decides"), part };
    world.run(KeepScene { render_id: world.render_id, scene: scene.clone() }).await.unwrap();
    let shelf = Shelf::Scene { tenant_id: world.tenant_id, key: scene.key.clone() };
    let key = flatrender_activities::storage::keys::blob(&shelf, &scene.part.blob.sha256);
    std::fs::write(world.folder.path().join("storage").join(key.as_ref()), b"no film").unwrap();
    let taken = world.run(TakeScenes { render_id: world.render_id, scenes: vec![scene] }).await.unwrap().taken;
    assert_eq!(taken, []);
}
