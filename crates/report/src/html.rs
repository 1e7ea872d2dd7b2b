//! The little HTML that the report is made of. In: text from anywhere. Out: text that cannot leave its place in a page, and templates
//! that escape whatever they are given.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hypereyes_domain::TaskKind;
use hypereyes_pictures::RgbImage;
use image::ImageEncoder;
use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use minijinja::value::ViaDeserialize;
use minijinja::{AutoEscape, Environment, UndefinedBehavior};

use crate::episode::{self, cut};

/// Text for element content and quoted attributes: the five characters that mean something there are spelled out, control
/// characters other than line breaks and tabs are dropped.
pub fn escape(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            '\n' | '\t' => safe.push(character),
            control if control.is_control() => {}
            other => safe.push(other),
        }
    }
    safe
}

/// The templates. Every value is escaped by [`escape`] but those that were drawn here and marked as safe; a name that is not there is
/// an error. Filters: `fixed(n)`, a number with n decimals; `cut`, a long text cut; `kind`, a kind of task for people.
pub fn templates() -> Environment<'static> {
    let mut templates = Environment::new();
    templates.set_undefined_behavior(UndefinedBehavior::Strict);
    templates.set_auto_escape_callback(|_| AutoEscape::Html);
    templates.set_formatter(|out, _, value| {
        let text = value.to_string();
        Ok(out.write_str(&if value.is_safe() { text } else { escape(&text) })?)
    });
    templates.add_filter("fixed", |value: f64, decimals: usize| number(Some(value), decimals));
    templates.add_filter("cut", |text: String| cut(&text));
    templates.add_filter("kind", |kind: ViaDeserialize<TaskKind>| episode::kind(&kind.0).to_owned());
    for (name, source) in [("page.html", include_str!("page.html")), ("episode.html", include_str!("episode.html"))] {
        templates.add_template(name, source).expect("the templates are tried in tests");
    }
    templates
}

/// A picture as a `data:` URI, packed as small as PNG gets; empty when it cannot be encoded, which shows as a gap.
pub fn data_uri(picture: &RgbImage) -> String {
    let mut bytes = Vec::new();
    let encoder = PngEncoder::new_with_quality(&mut bytes, CompressionType::Best, FilterType::Adaptive);
    match encoder.write_image(picture.as_raw(), picture.width(), picture.height(), image::ExtendedColorType::Rgb8) {
        Ok(()) => format!("data:image/png;base64,{}", STANDARD.encode(bytes)),
        Err(error) => {
            tracing::warn!(%error, "a picture is missing from the report");
            String::new()
        }
    }
}

/// A number with `decimals`; a dash when there is none.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.filter(|value| value.is_finite()).map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_means_something_in_html_survives() {
        assert_eq!(escape("<img src=x onerror='a(\"&\")'>"), "&lt;img src=x onerror=&#39;a(&quot;&amp;&quot;)&#39;&gt;");
        assert_eq!(escape("a\u{0}\u{1b}[31mb\nc"), "a[31mb\nc");
        assert_eq!(escape("Côte d\u{2019}Ivoire"), "Côte d\u{2019}Ivoire");
    }

    #[test]
    fn pictures_come_back_from_their_uri() {
        let picture = RgbImage::from_fn(7, 5, |x, y| image::Rgb([x as u8 * 30, y as u8 * 40, 9]));
        let uri = data_uri(&picture);
        let bytes = STANDARD.decode(uri.strip_prefix("data:image/png;base64,").expect("a PNG")).expect("base64");
        assert_eq!(image::load_from_memory(&bytes).expect("a picture").to_rgb8(), picture);
    }
}
