//! A name that nobody has: told with the one that was meant, where one is near, and with those that there are.

use tonic::Status;

use crate::config::nearest;

/// More names than this help nobody on a terminal.
const MOST: usize = 20;
/// Names that are looked through for the one that was meant.
const SUGGESTIONS: usize = 1000;

/// Refuses a name. `what` says what it was to be: "there is no pool "x"". A name of several parts may be meant by the
/// first of them: an address without its port.
pub(super) fn unknown(what: &str, asked: &str, mut known: Vec<String>) -> Status {
    known.sort_unstable();
    known.dedup();
    Status::not_found(told(what, asked, &known))
}

fn told(what: &str, asked: &str, known: &[String]) -> String {
    let parts = known
        .iter()
        .take(SUGGESTIONS)
        .flat_map(|name| [Some(name.as_str()), name.rsplit_once(':').map(|(address, _)| address)]);
    let meant = match nearest(asked, parts.flatten()) {
        Some(near) => format!(" (did you mean {near:?}?)"),
        None => String::new(),
    };
    if known.is_empty() {
        return format!("{what}; there are none");
    }
    let names: Vec<&str> = known.iter().take(MOST).map(String::as_str).collect();
    let names = names.join(", ");
    match known.len().saturating_sub(MOST) {
        0 => format!("{what}{meant}; there are: {names}"),
        more => format!("{what}{meant}; there are: {names} and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told_of(asked: &str, known: &[&str]) -> String {
        let known = known.iter().map(|&name| name.to_owned()).collect();
        unknown(&format!("no pool {asked:?}"), asked, known).message().to_owned()
    }

    #[test]
    fn the_name_that_was_meant_is_named() {
        let known = ["files", "chat", "chat"];
        assert_eq!(
            told_of("caht", &known),
            r#"no pool "caht" (did you mean "chat"?); there are: chat, files"#
        );
        assert_eq!(told_of("video", &known), r#"no pool "video"; there are: chat, files"#);
        assert_eq!(told_of("caht", &[]), r#"no pool "caht"; there are none"#);
    }

    #[test]
    fn an_address_may_be_meant_without_its_port() {
        let known = ["10.0.0.4:8080", "[2001:db8::1]:8080"];
        assert!(told_of("10.0.0.5", &known).contains(r#"mean "10.0.0.4"?"#));
        assert!(told_of("10.0.0.5:8080", &known).contains(r#"mean "10.0.0.4:8080"?"#));
    }

    #[test]
    fn a_crowd_is_cut_and_counted() {
        let many: Vec<String> = (0..30).map(|number| format!("pool{number:02}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        let told = told_of("other", &many);
        assert!(told.ends_with("pool19 and 10 more"), "{told}");
    }
}
