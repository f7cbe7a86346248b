//! What kind of picture data is, whatever its URL says. PURE.
//!
//! A label that is not true is refused: "The image was specified using the image/png media type, but the image appears to
//! be a image/jpeg image" (anthropics/claude-code issues 11975 and 12009, read 2026-11-21), and with it every later
//! request of the conversation.

/// The media type of a picture in base64, by how it begins; `None`: it is none of the four that every vendor takes.
pub fn media_type(base64: &str) -> Option<&'static str> {
    let data = base64.trim_start();
    let begins = |with: &str| data.starts_with(with);
    if begins("iVBORw0K") {
        Some("image/png")
    } else if begins("/9j/") {
        Some("image/jpeg")
    } else if begins("R0lGOD") {
        Some("image/gif")
    } else if begins("UklGR") && data.get(12..16) == Some("RUJQ") {
        // Other things are RIFF files, too.
        Some("image/webp")
    } else {
        None
    }
}

/// The same `data:` URL under its true label; `None` if it has that, or the truth is not known.
pub fn relabelled(url: &str) -> Option<String> {
    let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
    let mut fields = head.split(';');
    let label = fields.next()?.trim();
    let kind = media_type(data).filter(|kind| !label.eq_ignore_ascii_case(kind))?;
    let encoded = fields.any(|field| field.trim().eq_ignore_ascii_case("base64"));
    encoded.then(|| format!("data:{kind};base64,{data}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_wrong_label_is_changed() {
        let jpeg = |label: &str| relabelled(&format!("data:{label};base64,/9j/4AAQ"));
        assert_eq!(jpeg("image/png").as_deref(), Some("data:image/jpeg;base64,/9j/4AAQ"));
        assert_eq!(jpeg("").as_deref(), Some("data:image/jpeg;base64,/9j/4AAQ"));
        assert_eq!(jpeg("image/JPEG"), None);
        for url in ["data:image/png,/9j/", "data:image/heic;base64,AAAA", "https://example.invalid/a.png", "data:"] {
            assert_eq!(relabelled(url), None, "{url}");
        }
    }

    #[test]
    fn pictures_are_known_by_their_beginning() {
        for (data, kind) in [
            (
                "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVQI12P4z8AAAAMBAQAY3Y2wAAAAAElFTkSuQmCC",
                "image/png",
            ),
            ("/9j/4AAQSkZJRgABAQEASABIAAD/2wBD", "image/jpeg"),
            ("/9j/2wCEAAgGBgcGBQgHBwcJ", "image/jpeg"),
            ("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "image/gif"),
            ("R0lGODdhAQABAIAAAP///wAAACwAAAAAAQABAAACAkQBADs=", "image/gif"),
            ("UklGRiIAAABXRUJQVlA4IBYAAAAwAQCdASoBAAEADsD+JaQAA3AAAAAA", "image/webp"),
            ("\n iVBORw0KGgo", "image/png"),
        ] {
            assert_eq!(media_type(data), Some(kind), "{data}");
        }
        // A BMP, an SVG, a WAV, half a WebP, nothing.
        for data in ["Qk06AAAAAAAAADYAAAA=", "PHN2Zz48L3N2Zz4=", "UklGRiQAAABXQVZFZm10IBAA", "UklGRiIAAA", "", "é"] {
            assert_eq!(media_type(data), None, "{data}");
        }
    }
}
