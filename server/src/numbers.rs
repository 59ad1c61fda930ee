//! Phone numbers as the world writes them (E.164), of the kinds that an SMS comes to.

use std::fmt;

use gureum_proto::Phone;
use rlibphonenumber::{PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberFormat, PhoneNumberType};
use zeroize::Zeroizing;

use crate::limits::PREFIX_DIGITS_LEFT;

/// Codes of no country: satellites, networks of ships and aeroplanes, and numbers that are paid for by whoever is called.
/// An SMS there costs ten times as much as anywhere else, which is why others order codes to them.
const OF_NO_COUNTRY: [u16; 9] = [800, 808, 870, 878, 881, 882, 883, 888, 979];

/// A number that there may be, of a mobile phone: `+` and digits. Cleared when dropped.
pub(crate) struct E164 {
    text: Zeroizing<String>,
    country: u16,
}

/// Why a number can get no code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PhoneError {
    /// There can be no such number.
    #[error("there is no such number")]
    Unknown,
    /// Nobody has it in a pocket, or others earn on what is sent there.
    #[error("codes go to mobile phones alone")]
    Kind,
}

/// Finds the one form of a number that has many.
///
/// # Errors
/// It is none that a code can be sent to.
pub(crate) fn normalise(phone: &Phone) -> Result<E164, PhoneError> {
    let number: PhoneNumber = phone.as_str().parse().map_err(|_| PhoneError::Unknown)?;
    if !number.is_valid() {
        return Err(PhoneError::Unknown);
    }
    let country = u16::try_from(number.country_code).map_err(|_| PhoneError::Unknown)?;
    let is_mobile = matches!(number.get_type(), PhoneNumberType::Mobile | PhoneNumberType::FixedLineOrMobile);
    if !is_mobile || OF_NO_COUNTRY.contains(&country) {
        return Err(PhoneError::Kind);
    }
    let text = Zeroizing::new(number.format_as(PhoneNumberFormat::E164).into_owned());
    Ok(E164 { text, country })
}

/// Why codes go to nobody in a country, by its code.
pub(crate) fn refuse_country(code: u16) -> Option<&'static str> {
    if OF_NO_COUNTRY.contains(&code) {
        return Some("is the code of no country, and no codes are sent there");
    }
    let is_known = PHONE_NUMBER_UTIL.get_region_for_country_code(code.into()).is_some();
    (!is_known).then_some("is no country's code; 82 is Korea's, 1 that of North America")
}

impl E164 {
    /// `+` and digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Without its last digits: what blocks of numbers are handed out by.
    pub(crate) fn prefix(&self) -> &str {
        self.text.get(..self.text.len().saturating_sub(PREFIX_DIGITS_LEFT)).unwrap_or_default()
    }

    /// Whether it is of one of these countries, by their codes; without any, of whichever.
    pub(crate) fn is_of(&self, countries: &[u16]) -> bool {
        countries.is_empty() || countries.contains(&self.country)
    }
}

/// Shows nothing of it.
impl fmt::Debug for E164 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("E164(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(phone: &str, expected: Result<&str, PhoneError>) {
        let number = normalise(&phone.parse().unwrap());
        assert_eq!(number.as_ref().map(E164::as_str).map_err(|error| *error), expected, "{phone}");
    }

    #[test]
    fn a_number_has_one_form_however_it_is_written() {
        for phone in
            ["+82 10-2000-0000", "+821020000000", "+82 (10) 2000.0000", "+82 010 2000 0000", "+82 (0)10-2000-0000"]
        {
            check(phone, Ok("+821020000000"));
        }
        check("+44 7400 123456", Ok("+447400123456"));
        check("+44 (0)7400 123456", Ok("+447400123456"));
        check("+49 1512 3456789", Ok("+4915123456789"));
        check("+33 6 12 34 56 78", Ok("+33612345678"));
        check("+39 312 345 6789", Ok("+393123456789"));
        check("+81 90-1234-5678", Ok("+819012345678"));
        check("+54 9 11 2345-6789", Ok("+5491123456789"));
        check("+55 11 96123-4567", Ok("+5511961234567"));
    }

    #[test]
    fn where_mobile_and_fixed_lines_share_their_numbers_both_are_taken() {
        check("+1 201-555-0123", Ok("+12015550123"));
    }

    #[test]
    fn numbers_that_cannot_be_are_refused() {
        for phone in
            ["+82 10-2000", "+82 10-2000-0000-0000", "+999 12345678", "+0 1020000000", "+1 555-0123", "+1 000-555-0123"]
        {
            check(phone, Err(PhoneError::Unknown));
        }
    }

    #[test]
    fn numbers_that_others_earn_on_or_that_no_sms_comes_to_are_refused() {
        for phone in [
            "+44 121 234 5678", // a fixed line
            "+44 9012 345678",  // premium rate
            "+44 800 123 4567", // toll-free
            "+44 56 1234 5678", // voice over IP
            "+44 7640 123456",  // a pager
            "+44 70 1234 5678", // a personal number
            "+44 55 1234 5678", // a universal access number
            "+1 900-234-5678",  // premium rate
            "+1 800-234-5678",  // toll-free
            "+33 884 01 23 45", // shared cost
            "+82 70-1234-5678", // voice over IP
            "+82 60-234-5678",  // premium rate
            "+800 1234 5678",   // toll-free of no country
            "+808 1234 5678",   // shared cost of no country
            "+870 301234567",   // a ship
            "+881 612345678",   // a satellite
            "+882 342 1234",    // a network of no country
            "+979 123456789",   // premium rate of no country
        ] {
            check(phone, Err(PhoneError::Kind));
        }
    }

    #[test]
    fn a_prefix_has_all_but_the_last_four_digits() {
        let number = normalise(&"+82 10-2000-0000".parse().unwrap()).unwrap();
        assert_eq!(number.prefix(), "+82102000");
    }

    #[test]
    fn a_number_is_of_its_country() {
        let number = normalise(&"+82 10-2000-0000".parse().unwrap()).unwrap();
        assert!(number.is_of(&[]) && number.is_of(&[1, 82]));
        assert!(!number.is_of(&[1, 8]));
    }

    #[test]
    fn a_country_has_a_code_that_is_in_use() {
        for code in [1, 7, 39, 44, 82, 852, 998] {
            assert_eq!(refuse_country(code), None, "{code}");
        }
        for code in [999, 0, 2, 83, 210].into_iter().chain(OF_NO_COUNTRY) {
            assert!(refuse_country(code).is_some(), "{code}");
        }
    }

    #[test]
    fn nothing_of_a_number_is_printed() {
        assert_eq!(format!("{:?}", normalise(&"+82 10-2000-0000".parse().unwrap())), "Ok(E164(..))");
    }
}
