//! Base64, as HTTP's Basic authorization wants it.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The value of an `authorization` header for `user` and `password` (RFC 7617).
pub(crate) fn basic_authorization(user: &str, password: &str) -> String {
    format!("Basic {}", encode(format!("{user}:{password}").as_bytes()))
}

/// The user and the password in the value of such a header, without its scheme. Some clients leave out the padding.
pub(crate) fn basic_login(text: &str) -> Option<(String, String)> {
    let login = String::from_utf8(decode(text)?).ok()?;
    let (user, password) = login.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut bits = 0;
        for i in 0..4 {
            let value = match chunk.get(i) {
                Some(character) => ALPHABET.iter().position(|known| known == character)?,
                None => 0,
            };
            bits = bits << 6 | value;
        }
        // One character alone is no byte.
        let whole = chunk.len().checked_sub(1).filter(|whole| *whole > 0)?;
        bytes.extend((0..whole).map(|i| (bits >> (16 - 8 * i)) as u8));
    }
    Some(bytes)
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let [a, b, c] = [0, 1, 2].map(|i| chunk.get(i).copied().map_or(0, u32::from));
        let bits = a << 16 | b << 8 | c;
        for i in 0..4 {
            // One byte gives two characters, two bytes give three.
            let padding = i > chunk.len();
            let index = (bits >> (18 - 6 * i)) as usize & 63;
            text.push(if padding { '=' } else { char::from(ALPHABET[index]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_rfc_4648() {
        let pairs =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE=")];
        for (plain, text) in pairs {
            assert_eq!(encode(plain.as_bytes()), text);
            assert_eq!(decode(text).unwrap(), plain.as_bytes());
        }
        assert!(decode("Z").is_none() && decode("Zg!=").is_none() && decode("Zm8 ").is_none());
        assert_eq!(basic_login("QWxhZGRpbjpvcGVuIHNlc2FtZQ"), Some(("Aladdin".into(), "open sesame".into())));
        assert_eq!(basic_login(&encode(b"no colon")), None);
        assert_eq!(basic_authorization("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    }
}
