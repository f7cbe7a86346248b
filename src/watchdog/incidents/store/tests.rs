//! Damage at every byte, death at every step, and disks that refuse.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    id: u32,
    what: String,
}

fn entry(id: u32) -> Entry {
    Entry { id, what: format!("entry \"{id}\"\n{{}} – ünïcode") }
}

fn open(dir: &Path) -> (Store<Entry>, Contents<Entry>) {
    Store::open(dir).unwrap()
}

fn ids(contents: &Contents<Entry>) -> Vec<u32> {
    contents.entries.iter().map(|one| one.entry.id).collect()
}

fn seqs(contents: &Contents<Entry>) -> Vec<u64> {
    contents.entries.iter().map(|one| one.seq).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

/// The bytes of a journal of these entries, without the help of a disk.
fn journal(entries: &[Entry]) -> Vec<u8> {
    encode(entries, 1).unwrap()
}

#[test]
fn what_is_appended_is_there_after_a_restart_and_numbers_go_on() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("state/codex-proxy");
    let (mut store, contents) = open(&dir);
    assert_eq!(contents, Contents { entries: vec![], damage: vec![] });
    assert_eq!(store.append(&[entry(1), entry(2)], true).unwrap(), 2);
    assert_eq!(store.append(&[], false).unwrap(), 2);
    assert_eq!(store.append(&[entry(3)], false).unwrap(), 3);
    drop(store);
    let (mut store, contents) = open(&dir);
    assert_eq!((ids(&contents), seqs(&contents)), (vec![1, 2, 3], vec![1, 2, 3]));
    assert_eq!(contents.damage, []);
    assert_eq!(store.append(&[entry(4)], false).unwrap(), 4);
    assert_eq!((mode(&dir), mode(&dir.join(JOURNAL)), mode(&dir.join(LOCK))), (0o700, 0o600, 0o600));
    assert_eq!(ids(&read(&dir).unwrap()), [1, 2, 3, 4], "also for those who only read");
}

#[test]
fn a_line_is_json_that_people_can_read() {
    let line = String::from_utf8(journal(&[entry(7)])).unwrap();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["entry"]["id"], 7);
    assert_eq!(value["seq"], 1);
    assert_eq!(line.matches('\n').count(), 1);
}

#[test]
fn there_is_one_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _) = open(dir.path());
    let second = Store::<Entry>::open(dir.path()).unwrap_err();
    assert!(matches!(&second, StoreError::Locked { path } if path.ends_with(LOCK)), "{second}");
    drop(store);
    open(dir.path());
}

#[test]
fn lines_of_another_shape_and_numbers_that_do_not_rise_are_kept_aside() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = journal(&[entry(1), entry(2)]);
    let strange = encode(&["a text"], 3).unwrap();
    let again = journal(&[entry(9)]);
    bytes.extend_from_slice(&[strange.as_slice(), b"\n", &again, &encode(&[entry(4)], 4).unwrap()].concat());
    fs::write(dir.path().join(JOURNAL), &bytes).unwrap();
    assert_eq!(read::<Entry>(dir.path()).unwrap().damage[0].kept_as, None);
    assert_eq!(fs::read(dir.path().join(JOURNAL)).unwrap(), bytes, "reading changes nothing");
    let (mut store, contents) = open(dir.path());
    assert_eq!((ids(&contents), seqs(&contents)), (vec![1, 2, 4], vec![1, 2, 4]));
    let aside = dir.path().join("incidents.jsonl.corrupt-1");
    let damage = Damage { file: dir.path().join(JOURNAL), lines: 3, kept_as: Some(aside.clone()) };
    assert_eq!(contents.damage, [damage]);
    assert_eq!(fs::read(&aside).unwrap(), [strange.as_slice(), b"\n", &again].concat());
    assert_eq!((mode(&aside), mode(&dir.path().join(JOURNAL))), (0o600, 0o600));
    assert_eq!(store.append(&[entry(5)], false).unwrap(), 5);
    drop(store);
    let (_, contents) = open(dir.path());
    assert_eq!((ids(&contents), contents.damage), (vec![1, 2, 4, 5], vec![]));
}

#[test]
fn a_file_too_large_to_be_ours_is_set_aside_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(JOURNAL);
    open_journal(&path).unwrap().set_len(READ_BYTES_MAX + 1).unwrap();
    let (mut store, contents) = open(dir.path());
    assert_eq!((contents.entries.len(), contents.damage[0].lines), (0, 1));
    assert!(contents.damage[0].kept_as.as_ref().unwrap().ends_with("incidents.jsonl.corrupt-1"));
    store.append(&[entry(1)], true).unwrap();
    assert_eq!(ids(&read(dir.path()).unwrap()), [1]);
}

#[test]
fn a_full_journal_becomes_the_older_one_and_there_are_never_three() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let large = Entry { id: 1, what: "x".repeat(1 << 20) };
    for turn in 0..3 {
        while !store.is_full() {
            store.append(std::slice::from_ref(&large), false).unwrap();
        }
        store.rotate(&[entry(100 + turn), entry(200 + turn)]).unwrap();
        assert!(!store.is_full());
    }
    store.append(&[entry(3)], false).unwrap();
    drop(store);
    let (_, contents) = open(dir.path());
    // Of each turn: the snapshot before it, four large entries; then the last snapshot and what came after.
    assert_eq!(ids(&contents), [101, 201, 1, 1, 1, 1, 102, 202, 3]);
    let seqs = seqs(&contents);
    assert!(seqs.windows(2).all(|pair| pair[0] + 1 == pair[1]), "{seqs:?}");
    assert_eq!(contents.damage, []);
    let mut names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, [OLDER, JOURNAL, LOCK]);
}

#[test]
fn a_snapshot_of_the_full_size_does_not_make_every_entry_rotate() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    let large = Entry { id: 1, what: "x".repeat(BYTES_MAX as usize) };
    store.rotate(&[large]).unwrap();
    assert!(!store.is_full());
}

#[test]
fn a_rotation_that_ends_at_any_step_loses_nothing() {
    for steps in 0..=3 {
        let dir = tempfile::tempdir().unwrap();
        let (mut store, _) = open(dir.path());
        store.append(&[entry(1)], false).unwrap();
        store.rotate(&[entry(2)]).unwrap();
        store.append(&[entry(3)], false).unwrap();
        let text = encode(&[entry(4)], store.seq_next).unwrap();
        if steps >= 1 {
            let fresh = store.begin(&text).unwrap();
            if steps >= 2 {
                store.retire().unwrap();
            }
            if steps >= 3 {
                store.install(&fresh).unwrap();
            }
        }
        // What a killed process does.
        drop(store);
        let (mut store, contents) = open(dir.path());
        let expected: &[u32] = [&[1, 2, 3][..], &[1, 2, 3], &[2, 3], &[2, 3, 4]][steps];
        assert_eq!((ids(&contents).as_slice(), contents.damage.len()), (expected, 0), "after step {steps}");
        store.append(&[entry(5)], true).unwrap();
        store.rotate(&[entry(6)]).unwrap();
        drop(store);
        let (_, contents) = open(dir.path());
        assert!(ids(&contents).ends_with(&[5, 6]), "after step {steps}");
        assert!(seqs(&contents).is_sorted());
    }
}

#[test]
fn a_rotation_that_fails_leaves_the_journal_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[entry(1)], false).unwrap();
    // A directory that is not empty cannot be replaced by a file.
    fs::create_dir_all(dir.path().join(OLDER).join("x")).unwrap();
    let error = store.rotate(&[entry(2)]).unwrap_err();
    assert!(matches!(error, StoreError::Rotate { .. }), "{error}");
    assert_eq!(store.append(&[entry(3)], true).unwrap(), 2);
    fs::remove_dir_all(dir.path().join(OLDER)).unwrap();
    assert_eq!(ids(&read(dir.path()).unwrap()), [1, 3]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "nothing is left beside");
}

#[test]
fn a_directory_that_cannot_be_used_is_named() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("file");
    fs::write(&file, "").unwrap();
    // Modes do not stop root, but nobody makes a directory below a file or writes to a directory.
    let taken = home.path().join("taken");
    fs::create_dir_all(taken.join(LOCK)).unwrap();
    for dir in [file.join("state"), taken.clone()] {
        let error = Store::<Entry>::open(&dir).unwrap_err();
        assert!(matches!(&error, StoreError::Open { path, .. } if path.starts_with(&dir)), "{error:?}");
    }
    assert!(matches!(save_cursor(&file.join("state"), "s=1"), Err(StoreError::Write { .. })));
    assert_eq!(read::<Entry>(&taken).unwrap().entries, []);
}

#[test]
fn an_entry_that_is_no_json_is_refused_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = Store::<std::collections::BTreeMap<Vec<u8>, u8>>::open(dir.path()).unwrap();
    let error = store.append(&[[(vec![1], 1)].into()], true).unwrap_err();
    assert!(matches!(error, StoreError::Encode(_)), "{error}");
    assert_eq!(fs::read(dir.path().join(JOURNAL)).unwrap(), b"");
}

const LIMITED: &str = "CODEX_TEST_STORE_LIMITED";

/// Half of the test below: runs in a process whose files may not grow beyond one unit of `ulimit -f`.
#[test]
fn in_a_process_with_a_limit() {
    let Some(dir) = std::env::var_os(LIMITED) else { return };
    let dir = PathBuf::from(dir);
    let (mut store, contents) = open(&dir);
    assert!(contents.entries.is_empty());
    store.append(&[entry(1)], true).unwrap();
    let before = fs::read(dir.join(JOURNAL)).unwrap();
    let large = Entry { id: 2, what: "x".repeat(64 << 10) };
    let error = store.append(&[entry(9), large.clone()], true).unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert_eq!(fs::read(dir.join(JOURNAL)).unwrap(), before, "no part of it stays");
    let error = store.rotate(&[large]).unwrap_err();
    assert!(matches!(error, StoreError::Rotate { .. }), "{error}");
    assert_eq!(store.append(&[entry(3)], true).unwrap(), 2);
    fs::write(dir.join("done"), "").unwrap();
}

#[test]
fn of_a_write_that_the_disk_cuts_short_nothing_stays() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    // The signal would kill; ignored, the write stops at the limit and the next one fails: as on a full disk.
    let output = Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 1; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "watchdog::incidents::store::tests::in_a_process_with_a_limit"])
        .env(LIMITED, &state)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(state.join("done").exists(), "the other half ran");
    let (_, contents) = open(&state);
    assert_eq!((ids(&contents), contents.damage), (vec![1, 3], vec![]));
}

#[test]
fn what_could_not_be_taken_back_is_cut_off_before_the_next_write() {
    let dir = tempfile::tempdir().unwrap();
    let (mut store, _) = open(dir.path());
    store.append(&[entry(1)], false).unwrap();
    store.file.write_all(b"{\"sum\":\"0123").unwrap();
    store.torn = true;
    store.append(&[entry(2)], false).unwrap();
    let contents = read::<Entry>(dir.path()).unwrap();
    assert_eq!((ids(&contents), contents.damage), (vec![1, 2], vec![]));
}

#[test]
fn a_cursor_is_kept_whole_or_set_aside() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(CURSOR);
    assert_eq!(load_cursor(dir.path()).unwrap(), Cursor::default());
    let text = "s=5cb4;i=1a2;b=07f;m=9;t=64;x=ff";
    save_cursor(dir.path(), text).unwrap();
    assert_eq!(load_cursor(dir.path()).unwrap().text.as_deref(), Some(text));
    assert_eq!(mode(&path), 0o600);
    for wrong in ["", "two\nlines", "ümlaut", &"x".repeat(CURSOR_BYTES_MAX + 1)] {
        assert!(matches!(save_cursor(dir.path(), wrong), Err(StoreError::Write { .. })));
    }
    assert_eq!(load_cursor(dir.path()).unwrap().text.as_deref(), Some(text));
    for (n, damage) in [&b"s=5cb4;i=1"[..], b"", b"\xff\n", b"\0\0\0\n", b"a\nb\n", &[b'x'; 4096]].iter().enumerate() {
        fs::write(&path, damage).unwrap();
        let aside = dir.path().join(format!("cursor.corrupt-{}", n + 1));
        let expected = Cursor { text: None, kept_as: Some(aside.clone()) };
        assert_eq!(load_cursor(dir.path()).unwrap(), expected);
        assert_eq!(fs::read(aside).unwrap(), *damage);
        assert_eq!(load_cursor(dir.path()).unwrap(), Cursor::default());
    }
}

fn some_entries() -> impl Strategy<Value = Vec<Entry>> {
    proptest::collection::vec((any::<u32>(), ".{0,20}").prop_map(|(id, what)| Entry { id, what }), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn cut_at_any_byte_the_beginning_remains_and_the_rest_is_kept(entries in some_entries(), at: prop::sample::Index) {
        let bytes = journal(&entries);
        let cut = at.index(bytes.len() + 1);
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(JOURNAL), &bytes[..cut]).unwrap();
        let (mut store, contents) = open(dir.path());
        let whole = bytes[..cut].iter().filter(|byte| **byte == b'\n').count();
        let found: Vec<Entry> = contents.entries.into_iter().map(|one| one.entry).collect();
        prop_assert_eq!(&found[..], &entries[..whole]);
        let rest = cut - bytes[..cut].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        prop_assert_eq!(contents.damage.len(), usize::from(rest > 0));
        if let Some(damage) = contents.damage.first() {
            prop_assert_eq!(damage.lines, 1);
            prop_assert_eq!(fs::read(damage.kept_as.as_ref().unwrap()).unwrap(), &bytes[cut - rest..cut]);
        }
        prop_assert_eq!(store.append(&[entry(1)], false).unwrap(), whole as u64 + 1);
        drop(store);
        let (_, contents) = open(dir.path());
        prop_assert_eq!((contents.entries.len(), contents.damage.len()), (whole + 1, 0));
    }

    #[test]
    fn a_wrong_byte_is_noticed_and_never_gives_a_wrong_entry(
        entries in some_entries(), at: prop::sample::Index, flip in 1_u8..,
    ) {
        let mut bytes = journal(&entries);
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(JOURNAL), &bytes).unwrap();
        let (_, contents) = open(dir.path());
        prop_assert_eq!(contents.damage.len(), 1);
        // One line is lost, or two if they have become one.
        prop_assert!(contents.entries.len() + 2 >= entries.len());
        prop_assert!(contents.entries.len() < entries.len());
        for one in contents.entries {
            prop_assert_eq!(&one.entry, &entries[one.seq as usize - 1]);
        }
    }
}
