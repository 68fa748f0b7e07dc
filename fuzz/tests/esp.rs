//! What is left of an ESP packet when it is open.

use culvert_esp::trailer;
use culvert_esp::trailer::PaddingCheck;
use culvert_fuzz::target;

/// I13, I14: what is stripped was there, and is what the last octets say, whatever is checked.
#[test]
fn trailer_text() {
    target!().for_each(|text: &[u8]| {
        let [strict, counted, off] = [PaddingCheck::Strict, PaddingCheck::Count, PaddingCheck::Off]
            .map(|check| trailer::strip(text, check));
        let Ok(trailer) = off else {
            assert_eq!((strict, counted), (off, off));
            return;
        };
        let pad_len = usize::from(text[text.len() - 2]);
        assert_eq!(trailer.payload_len + pad_len + 2, text.len());
        assert_eq!(Some(&trailer.next_header), text.last());
        let padding = &text[trailer.payload_len..text.len() - 2];
        let is_default = padding.iter().copied().eq((1..=255).take(pad_len));
        assert_eq!(strict.is_ok(), is_default);
        assert_eq!(counted.map(|counted| counted.padding_wrong), Ok(!is_default));
    });
}
