//! Where the provider is asked to keep what it has read. PURE.
//!
//! It reads tools, system and messages in this order, and finds again what ended at a mark
//! (<https://platform.claude.com/docs/en/build-with-claude/prompt-caching>, read 2026-11-21: at most four marks; a mark
//! also finds an entry up to 20 blocks before it). Two of the four stand where the tools and the system end, which
//! other conversations share. The other two stand where the last two user messages end: the last is what the next
//! request will find, the one before is where the previous request's last stood, however many blocks came since.

use super::wire::{EPHEMERAL, Message, Role, SystemBlock, Tool};

/// User messages that are marked.
const TURNS: usize = 2;

pub(super) fn mark(tools: &mut [Tool<'_>], system: &mut [SystemBlock<'_>], messages: &mut [Message<'_>]) {
    if let Some(tool) = tools.last_mut() {
        tool.cache_control = Some(EPHEMERAL);
    }
    if let Some(block) = system.last_mut() {
        block.cache_control = Some(EPHEMERAL);
    }
    for message in messages.iter_mut().rev().filter(|message| message.role == Role::User).take(TURNS) {
        if let Some(place) = message.content.last_mut().and_then(|block| block.cache_control()) {
            *place = Some(EPHEMERAL);
        }
    }
}
