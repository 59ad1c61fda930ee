//! The settings of phone numbers: how codes go out, how many, and where to.

use std::num::NonZeroU32;
use std::path::PathBuf;

use super::Registration;
use super::check::{Reader, path, quoted};
use super::push::http_url;
use crate::numbers::refuse_country;

const PER_HOUR: u64 = 200;
const PER_DAY: u64 = 1_000;
/// Ten messages a second: above it the gateway is somebody's who sends for a whole country.
const PER_HOUR_MOST: u64 = 36_000;
const PER_DAY_MOST: u64 = 24 * PER_HOUR_MOST;

/// How codes go out, how many, and where to. Each field is the key of the same name, as KEYS describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PhoneSettings {
    /// How codes go out.
    pub sms: Sms,
    /// The file with the key that signs what goes to the webhook; there if `sms` is one.
    pub sms_key: Option<PathBuf>,
    /// Codes that go out in an hour.
    pub sms_per_hour: NonZeroU32,
    /// Codes that go out on a day.
    pub sms_per_day: NonZeroU32,
    /// The country codes that codes go to; none: any.
    pub sms_countries: Vec<u16>,
}

/// How codes go out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sms {
    /// Not at all: phone numbers are of no use here.
    Off,
    /// To the log: for development.
    Log,
    /// To the webhook of a gateway, at this URL.
    Webhook(String),
}

impl Reader<'_> {
    /// The settings of phone numbers; `registration` is who may register.
    pub(super) fn phone(&mut self, registration: Option<Registration>) -> Option<PhoneSettings> {
        let sms = self.value("sms", "off", sms);
        let sms_key = self.path("sms_key");
        match (&sms, &sms_key) {
            (Some(Sms::Webhook(_)), None) if !self.has("sms_key") => {
                self.find_of("sms", "needs --sms-key beside it: what goes to the gateway is signed");
            }
            (Some(Sms::Off | Sms::Log), Some(_)) => {
                self.find_of("sms_key", "needs --sms beside it, with the URL of a gateway");
            }
            (Some(Sms::Off), None) if registration == Some(Registration::Phone) => {
                let problem = "`phone` needs --sms beside it: the URL of a gateway, or `log` for development";
                self.find_of("registration", problem);
            }
            _ => {}
        }
        let per_hour = self.number("sms_per_hour", PER_HOUR, 1..=PER_HOUR_MOST);
        let per_day = self.number("sms_per_day", PER_DAY, 1..=PER_DAY_MOST);
        let countries = self.optional("sms_countries", countries);
        let count = |number: Option<u64>| number.and_then(|number| NonZeroU32::new(u32::try_from(number).ok()?));
        Some(PhoneSettings {
            sms: sms?,
            sms_key,
            sms_per_hour: count(per_hour)?,
            sms_per_day: count(per_day)?,
            sms_countries: countries.unwrap_or_default(),
        })
    }
}

fn sms(text: &str) -> Result<Sms, String> {
    match text {
        "off" => Ok(Sms::Off),
        "log" => Ok(Sms::Log),
        url => http_url(url).map(Sms::Webhook).map_err(|problem| format!("is neither `off` nor `log`, and {problem}")),
    }
}

fn countries(text: &str) -> Result<Vec<u16>, String> {
    let mut countries = Vec::new();
    for country in text.split(',') {
        let digits = country.trim().trim_start_matches('+');
        let code = digits.parse::<u16>().map_err(|_| "is no list of country codes; write e.g. 82,1")?;
        if let Some(why) = refuse_country(code) {
            return Err(format!("is no list of country codes, e.g. 82,1: {code} {why}"));
        }
        countries.push(code);
    }
    Ok(countries)
}

/// A setting's value as TOML, if it is one of phone numbers that is set or has a default.
pub(super) fn written(phone: &PhoneSettings, name: &str) -> Option<String> {
    match name {
        "sms" => Some(quoted(match &phone.sms {
            Sms::Off => "off",
            Sms::Log => "log",
            Sms::Webhook(url) => url.as_str(),
        })),
        "sms_key" => phone.sms_key.as_deref().map(path),
        "sms_per_hour" => Some(phone.sms_per_hour.to_string()),
        "sms_per_day" => Some(phone.sms_per_day.to_string()),
        "sms_countries" if phone.sms_countries.is_empty() => None,
        "sms_countries" => {
            let countries: Vec<_> = phone.sms_countries.iter().map(u16::to_string).collect();
            Some(quoted(&countries.join(",")))
        }
        _ => None,
    }
}
