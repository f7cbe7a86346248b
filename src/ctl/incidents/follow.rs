//! `codex-proxyctl incidents follow`: prints what is told of incidents from now on, woken by the kernel when the store
//! changes.

use std::ffi::OsStr;
use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::{contents, telling};
use crate::ctl::CtlError;
use crate::host::files;
use crate::watchdog::incidents::replay::Kept;

/// Appending, a new file after a rotation or a repair, and the end of the directory.
const EVENTS: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);
/// The directory is not there any more.
const GONE: AddWatchFlags =
    AddWatchFlags::IN_DELETE_SELF.union(AddWatchFlags::IN_MOVE_SELF).union(AddWatchFlags::IN_IGNORED);

/// Blocks, and gives each new fact to `print`, a line with its line feed, until that fails or the process is ended.
/// `ready` is called once, when nothing can be missed any more.
///
/// Both files are read anew at each change: they are small, changes are rare, and so a rotation is nothing special.
///
/// # Errors
/// The directory cannot be watched or read, or what `print` gave.
pub fn follow(
    state: &Path,
    json: bool,
    ready: impl FnOnce(),
    mut print: impl FnMut(&str) -> Result<(), CtlError>,
) -> Result<(), CtlError> {
    files::create_private_dir(state).map_err(|error| CtlError::io("make", state, &error))?;
    let cannot = |error: io::Error| CtlError::io("watch", state, &error);
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC).map_err(|errno| cannot(errno.into()))?;
    inotify.add_watch(state, EVENTS).map_err(|errno| cannot(errno.into()))?;
    // After the watch was set: what comes in between is seen by both, and told once.
    let mut seq = super::read_numbered(state)?.last().map_or(0, |line| line.seq);
    ready();
    loop {
        changed(&inotify, state)?;
        let entries = contents(state)?.entries;
        let last = entries.last().map_or(0, |line| line.seq);
        for line in entries.iter().filter(|line| line.seq > seq) {
            let Kept::Told(entry) = &line.entry else { continue };
            let text = if json {
                serde_json::to_string(&telling::told(entry))
                    .map_err(|error| CtlError::Unforeseen(format!("no JSON: {error}")))?
            } else {
                telling::entry_line(entry)
            };
            print(&(text + "\n"))?;
        }
        // Lower than before: the store was emptied by hand and begins again, or its last lines could not be kept.
        seq = last;
    }
}

/// Waits for a change of the store's files.
fn changed(inotify: &Inotify, state: &Path) -> Result<(), CtlError> {
    loop {
        let events = match inotify.read_events() {
            Ok(events) => events,
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(CtlError::io("watch", state, &errno.into())),
        };
        if events.iter().any(|event| event.mask.intersects(GONE)) {
            return Err(CtlError::Unforeseen(format!("{} was removed", state.display())));
        }
        // Without a name it is the queue that overflowed.
        let ours = |name: &OsStr| name.to_str().is_some_and(|name| name.ends_with(".jsonl"));
        if events.iter().any(|event| event.name.as_deref().is_none_or(ours)) {
            return Ok(());
        }
    }
}
