//! What every backend promises, asked of each.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use sampan_oci::{Algorithm, Hasher};
use tempfile::TempDir;

use super::*;
use crate::disk::Disk;

struct Setting {
    what: &'static str,
    backend: Arc<dyn Backend>,
    partial: Folder,
    staged: AtomicU64,
    temporary: TempDir,
}

/// An empty one of each kind.
fn settings() -> [Setting; 2] {
    ["files", "memory"].map(|what| {
        let temporary = TempDir::new().unwrap();
        let root = Folder::open(temporary.path(), &Disk::real(), true).unwrap();
        let child = |name| root.child(name).unwrap();
        let backend: Arc<dyn Backend> = match what {
            "files" => Arc::new(Files::new(child("sha256"), child("sha512"), child("quarantine"))),
            _ => Arc::new(Memory::default()),
        };
        Setting { what, backend, partial: child("partial"), staged: AtomicU64::new(0), temporary }
    })
}

impl Setting {
    fn put_and_tell(&self, digest: &Digest, bytes: &[u8], condition: Condition) -> (Put, Option<Identity>) {
        let name = format!("staged-{}", self.staged.fetch_add(1, Ordering::Relaxed));
        let file = self.partial.open_for_writing(&name, true).unwrap();
        file.write_all_at(bytes, 0).unwrap();
        file.sync_all().unwrap();
        let mut left = Some(name);
        let put = self.backend.put(digest, &mut Staged::new(&self.partial, &mut left, &file), condition);
        if let Some(left) = left {
            assert!(self.partial.remove(&left).unwrap(), "what did not move is where it was");
        }
        put.unwrap_or_else(|error| panic!("{}: {error}", self.what))
    }

    fn put(&self, digest: &Digest, bytes: &[u8], condition: Condition) -> Put {
        self.put_and_tell(digest, bytes, condition).0
    }

    fn open(&self, digest: &Digest) -> Option<Arc<dyn Object>> {
        match self.backend.open(digest).unwrap() {
            Opened::Object(object) => Some(object),
            Opened::Missing | Opened::Foreign => None,
        }
    }

    fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.open(digest).map(|object| read(&*object))
    }
}

fn read(object: &dyn Object) -> Vec<u8> {
    let size = usize::try_from(object.state().unwrap().size).unwrap();
    let mut bytes = vec![0; size + 1];
    let filled = object.read_full_at(&mut bytes, 0).unwrap();
    bytes.truncate(filled);
    assert_eq!(filled, size, "as long as it says");
    bytes
}

fn sha512(bytes: &[u8]) -> Digest {
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(bytes);
    hasher.finish()
}

#[test]
fn what_is_put_is_there_whole() {
    for setting in settings() {
        let digest = Digest::of(b"whole");
        assert!(setting.open(&digest).is_none() && setting.backend.size(&digest).unwrap().is_none());
        assert_eq!(setting.put(&digest, b"whole", Condition::Absent), Put::Created, "{}", setting.what);
        assert_eq!(setting.read(&digest).as_deref(), Some(&b"whole"[..]));
        assert_eq!(setting.backend.size(&digest).unwrap(), Some(5));
        let object = setting.open(&digest).unwrap();
        let mut middle = [0; 10];
        assert_eq!(object.read_full_at(&mut middle, 3).unwrap(), 2, "short at the end only");
        assert_eq!(&middle[..2], b"le");
        assert_eq!(object.read_full_at(&mut middle, 5).unwrap(), 0);
        assert_eq!(object.read_full_at(&mut middle, 1 << 60).unwrap(), 0, "nothing is beyond the end");
        assert!(setting.partial.files().unwrap().is_empty(), "nothing staged is left");
    }
}

#[test]
fn empty_and_sha512_objects_are_objects() {
    for setting in settings() {
        let (empty, long) = (Digest::of(b""), sha512(b"long"));
        setting.put(&empty, b"", Condition::Replace);
        setting.put(&long, b"long", Condition::Replace);
        assert_eq!(setting.read(&empty).as_deref(), Some(&b""[..]), "{}", setting.what);
        assert_eq!(setting.read(&long).as_deref(), Some(&b"long"[..]));
        let mut list = setting.backend.list().unwrap();
        list.sort_by_key(|(_, size)| *size);
        assert_eq!(list, [(empty, Some(0)), (long, Some(4))]);
    }
}

#[test]
fn what_is_there_stays_unless_it_is_to_be_replaced() {
    for setting in settings() {
        let digest = Digest::of(b"right");
        setting.put(&digest, b"rotten", Condition::Absent);
        let before = setting.open(&digest).unwrap().state().unwrap().identity;
        assert_eq!(setting.put(&digest, b"right", Condition::Absent), Put::Held, "{}", setting.what);
        assert_eq!(setting.read(&digest).as_deref(), Some(&b"rotten"[..]), "nothing changed");
        assert_eq!(setting.open(&digest).unwrap().state().unwrap().identity, before);
        assert_eq!(setting.put(&digest, b"right", Condition::Replace), Put::Replaced, "{}", setting.what);
        assert_eq!(setting.read(&digest).as_deref(), Some(&b"right"[..]));
        assert_ne!(setting.open(&digest).unwrap().state().unwrap().identity, before, "another one is told");
    }
}

#[test]
fn an_identity_lasts_as_long_as_its_object_and_no_longer() {
    for setting in settings() {
        let (digest, other) = (Digest::of(b"x"), Digest::of(b"y"));
        let identity = |digest| setting.open(digest).unwrap().state().unwrap().identity;
        let (_, told) = setting.put_and_tell(&digest, b"x", Condition::Replace);
        assert_eq!(told, Some(identity(&digest)), "{}: what was hashed on its way in is known", setting.what);
        assert_eq!(setting.put_and_tell(&digest, b"x", Condition::Absent), (Put::Held, None));
        let first = setting.open(&digest).unwrap();
        let before = identity(&digest);
        setting.put(&other, b"y", Condition::Replace);
        assert_eq!(identity(&digest), before, "{}: whatever is put beside it", setting.what);
        assert!(before.is_same_object(&identity(&digest)) && !before.is_same_object(&identity(&other)));
        setting.put(&digest, b"x", Condition::Replace);
        assert_ne!(identity(&digest), before, "{}: replaced, be it by the same bytes", setting.what);
        assert!(!before.is_same_object(&identity(&digest)), "{}", setting.what);
        assert!(
            before.is_same_object(&first.state().unwrap().identity),
            "{}: who reads it, reads it",
            setting.what
        );
    }
}

#[test]
fn open_readers_go_on_when_their_object_is_replaced_or_removed() {
    for setting in settings() {
        let digest = Digest::of(b"first");
        setting.put(&digest, b"first", Condition::Replace);
        let first = setting.open(&digest).unwrap();
        setting.put(&digest, b"second", Condition::Replace);
        let second = setting.open(&digest).unwrap();
        assert!(setting.backend.remove(&digest).unwrap());
        assert_eq!(
            (read(&*first), read(&*second)),
            (b"first".to_vec(), b"second".to_vec()),
            "{}",
            setting.what
        );
        assert!(setting.open(&digest).is_none());
    }
}

#[test]
fn removing_what_is_gone_is_no_error() {
    for setting in settings() {
        let digest = Digest::of(b"x");
        setting.put(&digest, b"x", Condition::Replace);
        assert!(setting.backend.remove(&digest).unwrap(), "{}", setting.what);
        assert!(!setting.backend.remove(&digest).unwrap(), "{}", setting.what);
        assert_eq!(setting.put(&digest, b"x", Condition::Absent), Put::Created, "its place is free again");
    }
}

#[test]
fn concurrent_puts_leave_one_whole_object() {
    for setting in settings() {
        let digest = Digest::of(b"contested");
        for condition in [Condition::Absent, Condition::Replace] {
            setting.backend.remove(&digest).unwrap();
            let puts: Vec<Put> = std::thread::scope(|scope| {
                let put =
                    |number: u8| setting.put(&digest, &vec![number; 50_000 + usize::from(number)], condition);
                let threads: Vec<_> = (0..8).map(|number| scope.spawn(move || put(number))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            let bytes = setting.read(&digest).unwrap();
            assert_eq!(bytes.len(), 50_000 + usize::from(bytes[0]), "{}: whole", setting.what);
            assert!(bytes.iter().all(|byte| *byte == bytes[0]), "{}: and one alone", setting.what);
            let created = puts.iter().filter(|put| **put == Put::Created).count();
            assert_eq!(created, 1, "{}: the others came later: {puts:?}", setting.what);
            let rest = if condition == Condition::Absent { Put::Held } else { Put::Replaced };
            assert_eq!(puts.iter().filter(|put| **put == rest).count(), 7, "{}", setting.what);
        }
    }
}

#[test]
fn what_is_moved_out_is_no_longer_there() {
    for setting in settings() {
        let digest = Digest::of(b"damaged");
        setting.put(&digest, b"damaged", Condition::Replace);
        setting.backend.move_out(&digest, &setting.partial, "out").unwrap();
        assert!(setting.open(&digest).is_none(), "{}", setting.what);
        let kept = setting.partial.size_of("out").unwrap();
        assert_eq!(
            kept,
            (setting.what == "files").then_some(7),
            "what was never on this disk does not come to it"
        );
    }
}

#[derive(Clone, Debug)]
enum Step {
    Put { place: u8, bytes: Vec<u8>, replace: bool },
    Remove(u8),
    Read(u8),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..40);
    let step = prop_oneof![
        4 => (0_u8..6, bytes(), any::<bool>()).prop_map(|(place, bytes, replace)| Step::Put { place, bytes, replace }),
        2 => (0_u8..6).prop_map(Step::Remove),
        2 => (0_u8..6).prop_map(Step::Read),
    ];
    proptest::collection::vec(step, 0..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_backend_is_a_map_after_any_sequence(steps in steps()) {
        for setting in settings() {
            let digest = |place: u8| if place.is_multiple_of(2) { Digest::of(&[place]) } else { sha512(&[place]) };
            let mut model: HashMap<Digest, Vec<u8>> = HashMap::new();
            for step in &steps {
                match step {
                    Step::Put { place, bytes, replace } => {
                        let (digest, held) = (digest(*place), model.contains_key(&digest(*place)));
                        let condition = if *replace { Condition::Replace } else { Condition::Absent };
                        let expected = match (held, replace) {
                            (false, _) => Put::Created,
                            (true, true) => Put::Replaced,
                            (true, false) => Put::Held,
                        };
                        prop_assert_eq!(setting.put(&digest, bytes, condition), expected);
                        if expected != Put::Held {
                            model.insert(digest, bytes.clone());
                        }
                    }
                    Step::Remove(place) => {
                        let removed = setting.backend.remove(&digest(*place)).unwrap();
                        prop_assert_eq!(removed, model.remove(&digest(*place)).is_some());
                    }
                    Step::Read(place) => {
                        prop_assert_eq!(setting.read(&digest(*place)), model.get(&digest(*place)).cloned());
                    }
                }
                let list: HashMap<Digest, Option<u64>> = setting.backend.list().unwrap().into_iter().collect();
                let expected = model.iter().map(|(digest, bytes)| (*digest, Some(bytes.len() as u64)));
                prop_assert_eq!(list, expected.collect::<HashMap<_, _>>(), "{}", setting.what);
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_object_is_damage_and_makes_way_without_being_touched() {
    let [setting, _] = settings();
    let dir = setting.temporary.path();
    let digest = Digest::of(b"right");
    let place = dir.join("sha256").join(digest.hex());
    let canary = dir.join("canary");
    std::fs::write(&canary, b"secret").unwrap();
    let make_link = || std::os::unix::fs::symlink(&canary, &place).unwrap();
    let make_folder = || {
        std::fs::create_dir(&place).unwrap();
        std::fs::write(place.join("thesis.txt"), b"years of work").unwrap();
    };
    let make_pipe = || assert!(std::process::Command::new("mkfifo").arg(&place).status().unwrap().success());
    let kinds: [(&str, &dyn Fn()); 3] =
        [("link", &make_link), ("folder", &make_folder), ("pipe", &make_pipe)];
    for (what, make) in kinds {
        for condition in [Condition::Absent, Condition::Replace] {
            make();
            assert!(matches!(setting.backend.open(&digest).unwrap(), Opened::Foreign), "{what}");
            assert_eq!(setting.backend.size(&digest).unwrap(), None, "{what}");
            assert_eq!(setting.backend.list().unwrap(), [(digest, None)], "{what}");
            assert_eq!(setting.put(&digest, b"right", condition), Put::Created, "{what}");
            assert_eq!(setting.read(&digest).as_deref(), Some(&b"right"[..]), "{what}");
            assert!(setting.backend.remove(&digest).unwrap());
        }
        make();
        assert!(setting.backend.remove(&digest).unwrap(), "{what}");
        assert!(place.symlink_metadata().is_err(), "{what}");
    }
    assert_eq!(std::fs::read(&canary).unwrap(), b"secret", "what a link leads to is left alone");
    for number in 1..=3 {
        let thesis = dir.join(format!("quarantine/foreign-{number}/thesis.txt"));
        assert_eq!(
            std::fs::read(thesis).unwrap(),
            b"years of work",
            "a folder is moved with all that is in it"
        );
    }
}
