//! What a server reaches on the internet, on this machine instead: push services and an SMS gateway, vouched for by one
//! authority that the server trusts.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::push::apns::{KEY_ID, TEAM_ID, TOPIC};
use crate::push::{Apns, Authority, Distributor, Fcm, Gateway};

/// Services that run until this is dropped.
#[derive(Debug)]
pub struct Outside {
    /// Keys and certificates that the server reads.
    directory: TempDir,
    authority: Authority,
    /// Apple's service.
    pub apns: Apns,
    /// Google's service.
    pub fcm: Fcm,
    /// A service of Web Push.
    pub web: Distributor,
    /// What brings codes to phones.
    pub gateway: Gateway,
}

impl Outside {
    /// Starts all of them.
    #[must_use]
    pub fn start() -> Self {
        let authority = Authority::new();
        Self {
            directory: tempfile::tempdir().unwrap(),
            apns: Apns::start(&authority),
            fcm: Fcm::start(&authority),
            web: Distributor::start(&authority),
            gateway: Gateway::start(&authority),
            authority,
        }
    }

    /// The settings by which a server uses all of them.
    #[must_use]
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let mut settings = self.push_settings();
        settings.extend(self.sms_settings());
        settings
    }

    /// The settings by which a server wakes devices.
    #[must_use]
    pub fn push_settings(&self) -> Vec<(&'static str, String)> {
        let directory = self.directory.path();
        vec![
            ("--push-roots", text(self.authority.write(directory))),
            ("--push-private-endpoints", "allow".to_owned()),
            ("--apns-key", text(self.apns.write_key(directory))),
            ("--apns-key-id", KEY_ID.to_owned()),
            ("--apns-team-id", TEAM_ID.to_owned()),
            ("--apns-topic", TOPIC.to_owned()),
            ("--apns-endpoint", self.apns.service.url()),
            ("--apns-sandbox-endpoint", self.apns.service.url()),
            ("--fcm-account", text(self.fcm.write_account(directory))),
            ("--fcm-endpoint", self.fcm.service.url()),
        ]
    }

    /// The settings by which it sends codes; beside those of push, whose authority is the gateway's as well.
    #[must_use]
    pub fn sms_settings(&self) -> Vec<(&'static str, String)> {
        vec![("--sms", self.gateway.url()), ("--sms-key", text(self.gateway.write_key(self.directory.path())))]
    }
}

fn text(path: PathBuf) -> String {
    path.into_os_string().into_string().unwrap()
}
