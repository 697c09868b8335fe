//! A bill as a page of paper: A4, in the buyer's language, from right to left where that is written so. The same bill is the same bytes,
//! whenever it is asked for.

use chrono::Datelike as _;
use flatrender_workflows::models::identity::{invoice::Invoice, money};
use krilla::{
    Document,
    color::rgb,
    geom::{PathBuilder, Point, Rect},
    metadata::{DateTime, Metadata},
    num::NormalizedF32,
    page::PageSettings,
    paint::{Fill, FillRule},
    surface::Surface,
    text::{Font, GlyphId, KrillaGlyph},
};
use parley::{
    FontContext, FontWeight, Layout, LayoutContext, LineHeight, OverflowWrap, Run, StyleProperty,
    fontique::{Blob, Collection, CollectionOptions, FontInfoOverride, Script},
};
use std::{collections::HashMap, sync::Arc};

/// Vazirmatn has Latin and Arabic letters; SIL Open Font License 1.1, which allows embedding.
const FONTS: [&[u8]; 2] = [
    include_bytes!("../../../../templates/promo/fonts/Vazirmatn-Regular.ttf"),
    include_bytes!("../../../../templates/promo/fonts/Vazirmatn-Bold.ttf"),
];
const FAMILY: &str = "\"Vazirmatn\"";
/// A4, in points.
const WIDTH: f32 = 595.28;
const HEIGHT: f32 = 841.89;
const MARGIN: f32 = 56.0;
/// What stands at the bottom begins no higher than this.
const BOTTOM: f32 = HEIGHT - 110.0;
/// The most of that which the seller's own words may take; longer ones follow the sums.
const FOOTER_HEIGHT: f32 = 62.0;
/// The longest description that is printed, in characters: it fits on a page.
const DESCRIPTION: usize = 500;
/// So much of a long text is placed at a time, in characters: it fits on a page.
const PASSAGE: usize = 800;
/// Where columns end, from where lines begin: what for, how many, what one costs, what they cost.
const COLUMNS: [f32; 4] = [250.0, 300.0, 390.0, WIDTH - 2.0 * MARGIN];
/// Red, green, blue.
const INK: [u8; 3] = [24, 24, 27];
const PALE: [u8; 3] = [113, 113, 122];

/// The words of a language.
struct Words {
    bill: &'static str,
    credit_note: &'static str,
    number: &'static str,
    date: &'static str,
    buyer: &'static str,
    columns: [&'static str; 4],
    net: &'static str,
    tax: &'static str,
    total: &'static str,
    page: &'static str,
}

const ENGLISH: Words = Words {
    bill: "Invoice",
    credit_note: "Credit note",
    number: "Number",
    date: "Date",
    buyer: "Billed to",
    columns: ["Description", "Quantity", "Price", "Amount"],
    net: "Net",
    tax: "Tax",
    total: "Total",
    page: "Page",
};
const PERSIAN: Words = Words {
    bill: "صورت‌حساب",
    credit_note: "برگشت صورت‌حساب",
    number: "شماره",
    date: "تاریخ",
    buyer: "خریدار",
    columns: ["شرح", "تعداد", "بهای واحد", "مبلغ"],
    net: "جمع",
    tax: "مالیات",
    total: "مبلغ نهایی",
    page: "صفحهٔ",
};

/// The PDF of a bill or a credit note.
///
/// # Errors
/// What cannot be written as PDF, in words; not known of any text.
pub fn pdf(invoice: &Invoice) -> Result<Vec<u8>, String> {
    let mut sheets = Sheets::of(invoice);
    sheets.head();
    sheets.lines();
    sheets.totals();
    sheets.foot();
    sheets.write()
}

/// At which end of its room a text stands, as its language is read.
#[derive(Clone, Copy, PartialEq)]
enum Side {
    Start,
    End,
}

/// How a text is set.
#[derive(Clone, Copy)]
struct Style {
    size: f32,
    bold: bool,
    color: [u8; 3],
}

const PLAIN: Style = Style { size: 10.0, bold: false, color: INK };
const BOLD: Style = Style { size: 10.0, bold: true, color: INK };
const SMALL: Style = Style { size: 8.5, bold: false, color: PALE };

/// What stands on a page.
enum Piece {
    Text { text: String, layout: Box<Layout<()>>, style: Style, left: f32, right: f32, is_right: bool, top: f32 },
    Rule { top: f32 },
}

/// Pages that are being filled, from the top of the first one to the bottom of the last.
struct Sheets<'a> {
    invoice: &'a Invoice,
    words: &'static Words,
    is_rtl: bool,
    fonts: FontContext,
    layouts: LayoutContext<()>,
    pages: Vec<Vec<Piece>>,
    /// Where the next line begins.
    y: f32,
}

impl<'a> Sheets<'a> {
    fn of(invoice: &'a Invoice) -> Self {
        let is_persian = invoice.parties.language.split('-').next() == Some("fa");
        let collection = Collection::new(CollectionOptions { shared: false, system_fonts: false });
        let mut fonts = FontContext { collection, source_cache: Default::default() };
        for font in FONTS {
            let added = fonts.collection.register_fonts(Blob::new(Arc::new(font)), None::<FontInfoOverride<'_>>);
            for (id, _) in added {
                for script in [b"Arab", b"Latn", b"Zyyy"] {
                    fonts.collection.append_fallbacks(Script::from_bytes(*script), [id].into_iter());
                }
            }
        }
        Self {
            invoice,
            words: if is_persian { &PERSIAN } else { &ENGLISH },
            is_rtl: is_persian,
            fonts,
            layouts: LayoutContext::new(),
            pages: vec![vec![]],
            y: MARGIN,
        }
    }

    /// Of whom, what, and for whom.
    fn head(&mut self) {
        let (invoice, words) = (self.invoice, self.words);
        let title = if invoice.corrects_id.is_some() { words.credit_note } else { words.bill };
        let top = self.y;
        let seller = self.put(&invoice.parties.seller, Style { size: 18.0, ..BOLD }, Side::Start, (0.0, 300.0), top);
        let title = self.put(title, Style { size: 18.0, color: PALE, ..PLAIN }, Side::End, (300.0, COLUMNS[3]), top);
        self.y = top + seller.max(title) + 18.0;
        let top = self.y;
        let date = invoice.issue_date.map(|day| self.digits(&day.to_string())).unwrap_or_default();
        let mut facts = top;
        for (label, value) in [(words.number, invoice.name()), (words.date, date)] {
            self.put(label, SMALL, Side::Start, (300.0, 390.0), facts);
            facts += self.put(&value, PLAIN, Side::End, (360.0, COLUMNS[3]), facts) + 2.0;
        }
        let mut buyer = top;
        buyer += self.put(words.buyer, SMALL, Side::Start, (0.0, 280.0), buyer) + 2.0;
        buyer += self.put(&invoice.parties.name, BOLD, Side::Start, (0.0, 280.0), buyer);
        buyer += self.put(&invoice.parties.email, PLAIN, Side::Start, (0.0, 280.0), buyer);
        self.y = facts.max(buyer) + 28.0;
    }

    /// What for, on as many pages as it takes.
    fn lines(&mut self) {
        self.columns();
        for line in &self.invoice.lines.0 {
            let currency = &self.invoice.currency;
            let amount = i64::from(line.quantity).saturating_mul(line.unit_amount);
            let cells = [
                line.description.chars().take(DESCRIPTION).collect(),
                self.digits(&line.quantity.to_string()),
                self.money(line.unit_amount, currency),
                self.money(amount, currency),
            ];
            let height = self.height(&cells.each_ref().map(String::as_str), PLAIN);
            if self.y + height > BOTTOM {
                self.turn();
                self.columns();
            }
            self.row(&cells.each_ref().map(String::as_str), PLAIN);
        }
    }

    fn columns(&mut self) {
        self.row(&self.words.columns, SMALL);
        self.rule();
    }

    /// A row of the table.
    fn row(&mut self, cells: &[&str; 4], style: Style) {
        let (mut from, mut tallest, top) = (0.0, 0.0_f32, self.y);
        for (at, (cell, to)) in cells.iter().zip(COLUMNS).enumerate() {
            let side = if at == 0 { Side::Start } else { Side::End };
            tallest = tallest.max(self.put(cell, style, side, (from, to), top));
            from = to;
        }
        self.y += tallest + 6.0;
    }

    fn totals(&mut self) {
        if self.y + 90.0 > BOTTOM {
            self.turn();
        }
        self.rule();
        let (invoice, words) = (self.invoice, self.words);
        let rows = [(words.net, invoice.net_amount, PLAIN), (words.tax, invoice.tax_amount, PLAIN)];
        let total = (words.total, invoice.total_amount, Style { size: 12.0, ..BOLD });
        for (label, amount, style) in rows.into_iter().chain([total]) {
            let amount = self.money(amount, &invoice.currency);
            let amount = format!("{amount} {}", invoice.currency);
            let top = self.y;
            self.put(label, style, Side::Start, (COLUMNS[0] + 20.0, COLUMNS[1] + 60.0), top);
            self.y += self.put(&amount, style, Side::End, (COLUMNS[1], COLUMNS[3]), top) + 6.0;
        }
    }

    /// What the seller wants to stand below, on each page if there is room; and which page of how many it is.
    fn foot(&mut self) {
        let footer = self.invoice.parties.footer.clone();
        let fits = self.layout(&footer, SMALL, 400.0).height() <= FOOTER_HEIGHT;
        if !fits {
            self.y += 24.0;
            self.flow(&footer);
        }
        let count = self.pages.len();
        for page in 0..count {
            let number = self.digits(&format!("{} / {count}", page + 1));
            let number = format!("{} {number}", self.words.page);
            let footer = if fits { footer.as_str() } else { "" };
            let texts = [(footer, Side::Start, (0.0, 400.0)), (&number, Side::End, (400.0, COLUMNS[3]))];
            for (text, side, room) in texts {
                let (piece, _) = self.piece(text, SMALL, side, room, BOTTOM + 24.0);
                self.pages[page].push(piece);
            }
        }
    }

    /// A text as long as it is, on as many pages as it takes.
    fn flow(&mut self, text: &str) {
        for line in text.lines() {
            let characters: Vec<char> = line.chars().collect();
            for passage in characters.chunks(PASSAGE) {
                let passage: String = passage.iter().collect();
                if self.y + self.layout(&passage, SMALL, COLUMNS[3]).height() > BOTTOM {
                    self.turn();
                }
                let top = self.y;
                self.y += self.put(&passage, SMALL, Side::Start, (0.0, COLUMNS[3]), top);
            }
        }
    }

    fn turn(&mut self) {
        self.pages.push(vec![]);
        self.y = MARGIN;
    }

    fn rule(&mut self) {
        let top = self.y;
        self.page().push(Piece::Rule { top });
        self.y += 8.0;
    }

    fn page(&mut self) -> &mut Vec<Piece> {
        if self.pages.is_empty() {
            self.pages.push(vec![]);
        }
        let last = self.pages.len() - 1;
        &mut self.pages[last]
    }

    /// Places a text into the room between two places, counted from where lines begin; gives its height.
    fn put(&mut self, text: &str, style: Style, side: Side, room: (f32, f32), top: f32) -> f32 {
        let (piece, height) = self.piece(text, style, side, room, top);
        self.page().push(piece);
        height
    }

    fn piece(&mut self, text: &str, style: Style, side: Side, (from, to): (f32, f32), top: f32) -> (Piece, f32) {
        let layout = self.layout(text, style, to - from);
        let height = layout.height();
        // On paper that is read from the right everything is where a mirror shows it.
        let (left, right) = match self.is_rtl {
            false => (MARGIN + from, MARGIN + to),
            true => (WIDTH - MARGIN - to, WIDTH - MARGIN - from),
        };
        let is_right = self.is_rtl == (side == Side::Start);
        (Piece::Text { text: text.to_owned(), layout: Box::new(layout), style, left, right, is_right, top }, height)
    }

    /// How tall a row of the table is.
    fn height(&mut self, cells: &[&str; 4], style: Style) -> f32 {
        let (mut from, mut tallest) = (0.0, 0.0_f32);
        for (cell, to) in cells.iter().zip(COLUMNS) {
            tallest = tallest.max(self.layout(cell, style, to - from).height());
            from = to;
        }
        tallest
    }

    fn layout(&mut self, text: &str, style: Style, width: f32) -> Layout<()> {
        let mut builder = self.layouts.ranged_builder(&mut self.fonts, text, 1.0, false);
        builder.push_default(StyleProperty::FontFamily(FAMILY.into()));
        builder.push_default(StyleProperty::FontSize(style.size));
        builder.push_default(StyleProperty::FontWeight(FontWeight::new(if style.bold { 700.0 } else { 400.0 })));
        builder.push_default(StyleProperty::LineHeight(LineHeight::FontSizeRelative(1.45)));
        // A word that is longer than its room is broken anywhere.
        builder.push_default(StyleProperty::OverflowWrap(OverflowWrap::Anywhere));
        let mut layout = builder.build(text);
        layout.break_all_lines(Some(width));
        layout
    }

    fn money(&self, amount: i64, currency: &str) -> String {
        self.digits(&money::number(amount, currency))
    }

    /// Numbers as the language writes them.
    fn digits(&self, number: &str) -> String {
        if !self.is_rtl {
            return number.to_owned();
        }
        let one = |c: char| match c {
            '0'..='9' => char::from_u32('۰' as u32 + c as u32 - '0' as u32).unwrap_or(c),
            ',' => '٬',
            '.' => '٫',
            c => c,
        };
        number.chars().map(one).collect()
    }

    fn write(self) -> Result<Vec<u8>, String> {
        let invoice = self.invoice;
        let mut document = Document::new();
        let language = if self.is_rtl { "fa" } else { "en" };
        let mut metadata = Metadata::new()
            .title(invoice.name())
            .authors(vec![invoice.parties.seller.clone()])
            .language(language.to_owned())
            .document_id(invoice.id.to_string());
        if let Some(day) = invoice.issue_date {
            let year = u16::try_from(day.year()).unwrap_or_default();
            metadata = metadata.creation_date(DateTime::new(year).month(day.month() as u8).day(day.day() as u8));
        }
        document.set_metadata(metadata);
        let settings = PageSettings::from_wh(WIDTH, HEIGHT).ok_or("the paper has no size")?;
        let mut fonts = HashMap::new();
        for pieces in &self.pages {
            let mut page = document.start_page_with(settings.clone());
            let mut surface = page.surface();
            for piece in pieces {
                draw(&mut surface, &mut fonts, piece);
            }
            surface.finish();
            page.finish();
        }
        document.finish().map_err(|error| format!("{error:?}"))
    }
}

fn fill([red, green, blue]: [u8; 3]) -> Fill {
    Fill { paint: rgb::Color::new(red, green, blue).into(), opacity: NormalizedF32::ONE, rule: FillRule::default() }
}

fn draw(surface: &mut Surface<'_>, fonts: &mut HashMap<u64, Font>, piece: &Piece) {
    match piece {
        Piece::Rule { top } => {
            let mut path = PathBuilder::new();
            if let Some(line) = Rect::from_xywh(MARGIN, *top, WIDTH - 2.0 * MARGIN, 0.75) {
                path.push_rect(line);
            }
            if let Some(path) = path.finish() {
                surface.set_fill(Some(fill(PALE)));
                surface.draw_path(&path);
            }
        }
        Piece::Text { text, layout, style, left, right, is_right, top } => {
            surface.set_fill(Some(fill(style.color)));
            for line in layout.lines() {
                let metrics = line.metrics();
                let width = metrics.advance - metrics.hanging_advance;
                let mut x = if *is_right { right - width } else { *left };
                // The blank that ends a line from right to left hangs at its left edge.
                if layout.is_rtl() {
                    x -= metrics.hanging_advance;
                }
                for run in line.runs() {
                    let data = run.font();
                    let font = match fonts.get(&data.data.id()) {
                        Some(font) => font.clone(),
                        None => {
                            let Some(font) = Font::new(data.data.as_ref().to_vec().into(), data.index) else {
                                continue;
                            };
                            fonts.insert(data.data.id(), font.clone());
                            font
                        }
                    };
                    let glyphs = glyphs(&run);
                    surface.draw_glyphs(
                        Point::from_xy(x, top + metrics.baseline),
                        &glyphs,
                        font,
                        text,
                        style.size,
                        false,
                    );
                    x += run.advance();
                }
            }
        }
    }
}

/// The glyphs of a run, from its left edge. Those of a ligature hang on its first letter, which a run from right to left shows last: they
/// are drawn back from there.
fn glyphs(run: &Run<'_, ()>) -> Vec<KrillaGlyph> {
    let size = run.font_size();
    let (mut all, mut x, mut pen) = (Vec::<KrillaGlyph>::new(), 0.0, 0.0);
    let (mut passed, mut passed_end) = (0.0, None);
    for cluster in run.visual_clusters() {
        let mut range = cluster.text_range();
        if cluster.is_ligature_continuation() {
            if cluster.is_rtl() {
                passed += cluster.advance();
                passed_end = passed_end.or(Some(range.end));
            } else if let Some(last) = all.last_mut() {
                last.text_range.end = range.end;
            }
            x += cluster.advance();
            continue;
        }
        range.end = passed_end.take().unwrap_or(range.end);
        let mut at = x - std::mem::take(&mut passed);
        for glyph in cluster.glyphs() {
            let offset = at + glyph.x - pen;
            let (advance, down) = (glyph.advance / size, glyph.y / size);
            all.push(KrillaGlyph::new(GlyphId::new(glyph.id), advance, offset / size, -down, 0.0, range.clone(), None));
            pen += glyph.advance;
            at += glyph.advance;
        }
        x += cluster.advance();
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::NaiveDate;
    use flatrender_workflows::models::identity::invoice::{Line, Parties};
    use sqlx::types::Json;
    use uuid::Uuid;

    fn invoice(language: &str, lines: usize) -> Invoice {
        let parties = Parties {
            name: "سارا محمدی & Søren \"O'Neil\"".into(),
            email: "sara@example.com".into(),
            language: language.into(),
            seller: "فلت‌رندر FlatRender".into(),
            footer: "Registered in Tehran, no. 4711. ".repeat(3),
        };
        let line =
            |n: usize| Line {
                description: format!("Pro, month {n}: الف سلام لا"), quantity: 2, unit_amount: 1999
            };
        let net = 2 * 1999 * lines as i64;
        Invoice {
            id: Uuid::from_u128(7),
            series: "INV".into(),
            year: 2026,
            number: Some(42),
            state: "issued".into(),
            issue_date: NaiveDate::from_ymd_opt(2026, 11, 27),
            parties: Json(parties),
            currency: "USD".into(),
            net_amount: net,
            tax_amount: 0,
            total_amount: net,
            payment_id: None,
            refund_id: None,
            corrects_id: None,
            created_at: Default::default(),
            lines: Json((0..lines).map(line).collect()),
        }
    }

    fn pages(pdf: &[u8]) -> usize {
        pdf.windows(11).filter(|bytes| bytes == b"/Type /Page" || bytes == b"/Type/Page/").count()
    }

    #[test]
    fn the_same_bill_is_the_same_bytes() {
        for language in ["en", "fa", "fa-IR", "xx", ""] {
            let bill = invoice(language, 3);
            let first = pdf(&bill).unwrap();
            assert!(first.starts_with(b"%PDF-"), "{language}");
            assert_eq!(first, pdf(&bill).unwrap(), "{language}");
        }
        assert_ne!(pdf(&invoice("en", 3)).unwrap(), pdf(&invoice("fa", 3)).unwrap());
    }

    #[test]
    fn whatever_stands_on_a_bill_is_written() {
        let mut bill = invoice("en", 0);
        assert!(pdf(&bill).is_ok(), "nothing");
        bill.parties.0 = Parties { language: "fa".into(), ..Parties::default() };
        assert!(pdf(&bill).is_ok(), "nobody");
        let odd = "\u{202e}\u{0} \u{fffd} 日本語 👩‍🚀 e\u{301} لا\u{200c}\n\r\t".repeat(40);
        bill.lines.0 = vec![Line { description: odd, quantity: i32::MIN, unit_amount: i64::MIN }; 50];
        bill.total_amount = i64::MIN;
        assert!(pdf(&bill).is_ok());
    }

    /// Every text within its room, and above the bottom of its page.
    fn assert_in_place(bill: &Invoice) {
        let mut sheets = Sheets::of(bill);
        sheets.head();
        sheets.lines();
        sheets.totals();
        sheets.foot();
        for piece in sheets.pages.iter().flatten() {
            if let Piece::Text { text, layout, left, right, top, .. } = piece {
                assert!(layout.width() <= right - left + 0.5, "{text} is {} wide", layout.width());
                assert!(top + layout.height() <= HEIGHT - 20.0, "{text} ends at {}", top + layout.height());
                assert!(*left >= MARGIN - 0.5 && *right <= WIDTH - MARGIN + 0.5, "{text}");
            }
        }
    }

    #[test]
    fn nothing_runs_out_of_its_room_or_off_the_paper() {
        for language in ["en", "fa"] {
            let mut bill = invoice(language, 3);
            assert_in_place(&bill);
            bill.parties.0 = Parties {
                name: "n".repeat(200),
                email: format!("{}@example.com", "ا".repeat(240)),
                language: language.into(),
                seller: "W".repeat(100),
                footer: "A rule of law that has to stand here.\n".repeat(100),
            };
            bill.lines.0 = vec![Line { description: "x".repeat(4000), quantity: i32::MAX, unit_amount: i64::MAX }; 30];
            bill.total_amount = i64::MIN;
            assert_in_place(&bill);
            assert!(pdf(&bill).is_ok());
        }
    }

    #[test]
    fn a_long_bill_goes_on_on_other_pages() {
        let (short, long) = (pdf(&invoice("en", 1)).unwrap(), pdf(&invoice("en", 200)).unwrap());
        assert!(pages(&long) > pages(&short), "{} and {}", pages(&long), pages(&short));
    }
}
