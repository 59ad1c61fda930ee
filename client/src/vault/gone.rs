//! Accounts in a conversation that do not exist any more: told once, and nobody is removed over it but by a person.

use gureum_proto::Gone;
use rusqlite::params;

use super::work::{Row, Work};
use super::{Event, VaultError};

impl Work<'_> {
    /// Tells of those of whom the answer to a send says for the first time that they do not exist any more. All of whom it
    /// says so, as people know them, and how many more; who is not in the conversation is none of them, whatever the server
    /// says.
    pub(super) fn tell_accounts_gone(&mut self, row: &Row, gone: &Gone) -> Result<(Vec<String>, u32), VaultError> {
        if gone.named().next().is_none() {
            return Ok((Vec::new(), 0));
        }
        let Some(group) = self.group(row.id)? else { return Ok((Vec::new(), 0)) };
        let view = group.view(row.id);
        self.keep(row.id, group);
        let accounts = view.roster().accounts();
        let (mut who, mut untold) = (Vec::new(), Vec::new());
        for account in gone.named().filter(|account| accounts.contains(account)) {
            let handle = self.handle_or_id(account)?;
            let sql = "INSERT OR IGNORE INTO gone (conversation, account) VALUES (?1, ?2)";
            let mut statement = self.connection.prepare_cached(sql)?;
            if statement.execute(params![row.id.as_bytes(), account.as_bytes()])? > 0 {
                untold.push(handle.clone());
            }
            who.push(handle);
        }
        if !untold.is_empty() {
            let is_admin = row.is_group() && view.roster().admins().contains(&self.identity.account);
            let name = self.title(row)?;
            self.event(Event::AccountsGone { conversation: row.id, name, who: untold, is_admin })?;
        }
        // This account is in it, and there.
        let others = accounts.len().saturating_sub(who.len() + 1);
        Ok((who, gone.more().min(u32::try_from(others).unwrap_or(u32::MAX))))
    }
}
