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

#[cfg(test)]
mod tests {
    use super::*;

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
