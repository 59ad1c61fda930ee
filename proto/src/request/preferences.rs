//! How an account takes its conversations: which it has accepted, and until when they are muted.

use crate::convert::{PayloadError, id, raw, schema};
use crate::ids::ConversationId;
use crate::limits::PREFERENCES_PAGE;

/// How an account takes a conversation, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Preference {
    /// Whether what comes there wakes, whoever it is of.
    pub accepted: bool,
    /// What comes before that wakes nobody, in milliseconds since 1970; 0: not muted; `u64::MAX`: until unmuted.
    pub muted_until_ms: u64,
}

impl Preference {
    pub(super) fn write_page(preferences: &[(ConversationId, Self)], more: bool) -> schema::Preferences {
        let state = |(conversation, preference): &(ConversationId, Self)| schema::PreferenceState {
            conversation: raw(conversation),
            accepted: preference.accepted,
            muted_until_ms: preference.muted_until_ms,
        };
        schema::Preferences { preferences: preferences.iter().map(state).collect(), more }
    }

    pub(super) fn read_page(page: &schema::Preferences) -> Result<(Vec<(ConversationId, Self)>, bool), PayloadError> {
        if page.preferences.len() > PREFERENCES_PAGE {
            return Err(PayloadError::TooLong("page of preferences"));
        }
        let state = |state: &schema::PreferenceState| -> Result<_, PayloadError> {
            let preference = Self { accepted: state.accepted, muted_until_ms: state.muted_until_ms };
            Ok((id(&state.conversation, "conversation")?, preference))
        };
        let preferences = page.preferences.iter().map(state).collect::<Result<Vec<(ConversationId, Self)>, _>>()?;
        if !preferences.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(PayloadError::Invalid("order of conversations"));
        }
        Ok((preferences, page.more))
    }
}
